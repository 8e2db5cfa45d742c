//! `GangScheduling`: so many pods of a group are placed at once, or none.

use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::{ClusterEvent, Permission, Plugin, Rejection};
use crate::model::Pod;
use crate::model::objects::PodGroup;

/// How long a pod waits for the others of its gang, in milliseconds, as upstream.
const TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// The plugin.
pub struct GangScheduling;

/// A pod's group and the fewest of its pods that may be placed; nothing when they may be placed one by one.
fn gang<'p>(pod: &'p Pod, cache: &Cache) -> Option<(&'p str, usize)> {
    let key = pod.group.as_deref()?;
    Some((key, cache.objects.pod_groups.get(key)?.min_count()?))
}

impl Plugin for GangScheduling {
    fn name(&self) -> &'static str {
        "GangScheduling"
    }

    fn pre_enqueue(&self, pod: &Pod, cache: &Cache) -> Result<(), Rejection> {
        let Some(key) = &pod.group else { return Ok(()) };
        if !cache.objects.pod_groups.contains_key(key) {
            let name = key.rsplit('/').next().unwrap_or(key);
            return Err(Rejection::unresolvable(format!(
                "waiting for pods's pod group {name:?} to appear in scheduling queue"
            )));
        }
        match gang(pod, cache) {
            Some((key, least)) if cache.groups.size(key) < least => {
                Err(Rejection::unresolvable("waiting for minCount pods from a gang to appear in scheduling queue"))
            }
            _ => Ok(()),
        }
    }

    fn permit(&self, pod: &Pod, _node: &str, cache: &Cache) -> Result<Permission, Rejection> {
        let Some((key, least)) = gang(pod, cache) else { return Ok(Permission::Allow) };
        if cache.groups.scheduled(key) >= least {
            return Ok(Permission::Allow);
        }
        Ok(Permission::Wait { milliseconds: TIMEOUT_MS, activate: cache.groups.without_node(key).cloned().collect() })
    }

    fn allows_too(&self, allowed: &Pod, waiting: &Pod) -> bool {
        allowed.group == waiting.group
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        if pod.group.is_none() {
            return false;
        }
        let is_ours = |group: &PodGroup| pod.group.as_deref() == Some(&group.key());
        match event {
            ClusterEvent::PodAdded(other) | ClusterEvent::PodAssigned(other) => other.group == pod.group,
            ClusterEvent::Object(ObjectChange::PodGroup(d)) => match (&d.old, &d.new) {
                (None, Some(new)) => is_ours(new),
                (Some(old), Some(new)) => is_ours(new) && new.min_count() < old.min_count(),
                _ => false,
            },
            _ => false,
        }
    }
}

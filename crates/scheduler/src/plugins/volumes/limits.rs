//! `NodeVolumeLimits`: a driver can have so many volumes on a node only.

use std::collections::{BTreeMap, BTreeSet};

use super::{claims_of, is_own_claim};
use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::{ClusterEvent, Plugin, PreFilter, Rejection, State, state_as};
use crate::model::objects::{Claim, Volume};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct NodeVolumeLimits;

/// Volumes that count, as driver and handle.
type Volumes = BTreeSet<(String, String)>;

fn of_volume(volume: &Volume) -> Option<(String, String)> {
    let csi = volume.spec.csi.as_ref()?;
    Some((csi.driver.clone(), csi.volume_handle.clone()))
}

/// The volume a claim is, or will be: one that is still to be made counts under the claim's name.
fn of_claim(claim: &Claim, cache: &Cache) -> Option<(String, String)> {
    if let Some(volume) = cache.objects.volumes.get(&claim.spec.volume_name) {
        return of_volume(volume);
    }
    let class = cache.objects.classes.get(claim.class())?;
    Some((class.provisioner.clone(), format!("{}-{}", class.provisioner, claim.key())))
}

fn on_node(info: &NodeInfo, cache: &Cache) -> Volumes {
    let claims = info.pods.values().flat_map(|p| p.claims());
    let by_pods = claims.filter_map(|c| of_claim(cache.objects.claims.get(&c)?, cache));
    let attached = cache.objects.attachments.values().filter(|a| a.spec.node_name == info.name);
    let by_attachment = attached.filter_map(|a| {
        let name = a.spec.source.persistent_volume_name.as_ref()?;
        of_volume(cache.objects.volumes.get(name)?)
    });
    by_pods.chain(by_attachment).collect()
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn pre_filter(&self, pod: &Pod, cache: &mut Cache) -> Result<PreFilter, Rejection> {
        if pod.volumes.is_empty() || cache.objects.csi_nodes.values().all(|n| n.spec.drivers.is_empty()) {
            return Ok(PreFilter::skip());
        }
        let wanted: Volumes = claims_of(pod, cache)?.iter().filter_map(|c| of_claim(c, cache)).collect();
        Ok(if wanted.is_empty() { PreFilter::skip() } else { PreFilter::with(wanted) })
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, state: &State, _: &Pod, node: &Node, info: &NodeInfo, cache: &Cache) -> Result<(), Rejection> {
        let (Some(wanted), Some(csi)) = (state_as::<Volumes>(state), cache.objects.csi_nodes.get(&node.name)) else {
            return Ok(());
        };
        let limits: BTreeMap<&str, i64> =
            csi.spec.drivers.iter().filter_map(|d| Some((d.name.as_str(), d.allocatable.as_ref()?.count?))).collect();
        if !wanted.iter().any(|(driver, _)| limits.contains_key(driver.as_str())) {
            return Ok(());
        }
        let there = on_node(info, cache);
        for (driver, limit) in limits {
            let of = |v: &&(String, String)| v.0 == driver;
            let new = wanted.iter().filter(of).filter(|v| !there.contains(*v)).count();
            let have = there.iter().filter(of).count();
            if new > 0 && i64::try_from(new + have).unwrap_or(i64::MAX) > limit {
                return Err(Rejection::new("node(s) exceed max volume count"));
            }
        }
        Ok(())
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::PodGone(gone) => gone.claims().next().is_some(),
            ClusterEvent::Object(ObjectChange::Claim(d)) => d.new.as_ref().is_some_and(|c| is_own_claim(pod, c)),
            ClusterEvent::Object(ObjectChange::Attachment(d)) => d.new.is_none(),
            ClusterEvent::Object(ObjectChange::CsiNode(d)) => d.new.is_some(),
            _ => false,
        }
    }
}

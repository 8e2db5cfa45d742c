//! `VolumeRestrictions`: claims that only one pod may use, and disks that a node can have only once.

use super::{claims_of, is_own_claim};
use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::{ClusterEvent, Plugin, PreFilter, Rejection, State, state_as, state_as_mut};
use crate::model::pod::PodVolume;
use crate::model::wire::Volume;
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct VolumeRestrictions;

struct Filter {
    /// The pod's claims that one pod may use only, as `namespace/name`.
    exclusive: Vec<String>,
    /// How many times other pods use them.
    conflicts: i64,
    disks: bool,
}

fn disks(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.volumes.iter().filter_map(|v| match v {
        PodVolume::Disk(v) => Some(&**v),
        PodVolume::Claim { .. } => None,
    })
}

/// Whether two pods cannot have these on the same node.
fn clash(a: &Volume, b: &Volume) -> bool {
    let gce = matches!((&a.gce_persistent_disk, &b.gce_persistent_disk),
        (Some(a), Some(b)) if a.name == b.name && !(a.read_only && b.read_only));
    let aws = matches!((&a.aws_elastic_block_store, &b.aws_elastic_block_store), (Some(a), Some(b)) if a == b);
    let iscsi = matches!((&a.iscsi, &b.iscsi),
        (Some(a), Some(b)) if a.iqn == b.iqn && !(a.read_only && b.read_only));
    let rbd = matches!((&a.rbd, &b.rbd), (Some(a), Some(b))
        if a.monitors.iter().any(|m| b.monitors.contains(m))
            && a.pool == b.pool
            && a.image == b.image
            && !(a.read_only && b.read_only));
    gce || aws || iscsi || rbd
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn pre_filter(&self, pod: &Pod, cache: &mut Cache) -> Result<PreFilter, Rejection> {
        if pod.volumes.is_empty() {
            return Ok(PreFilter::skip());
        }
        let exclusive: Vec<String> = claims_of(pod, cache)?
            .iter()
            .filter(|c| c.spec.access_modes.iter().any(|m| m == "ReadWriteOncePod"))
            .map(|c| c.key())
            .collect();
        let conflicts = exclusive.iter().map(|c| i64::try_from(cache.claim_users(c)).unwrap_or(i64::MAX)).sum();
        let disks = disks(pod).next().is_some();
        if !disks && conflicts == 0 {
            return Ok(PreFilter::skip());
        }
        Ok(PreFilter::with(Filter { exclusive, conflicts, disks }))
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, state: &State, pod: &Pod, _: &Node, info: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        let Some(f) = state_as::<Filter>(state) else { return Ok(()) };
        if f.disks && info.pods.values().any(|p| disks(p).any(|b| disks(pod).any(|a| clash(a, b)))) {
            return Err(Rejection::new("node(s) had no available disk"));
        }
        if f.conflicts > 0 {
            return Err(Rejection::new(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ));
        }
        Ok(())
    }

    fn suppose(&self, state: &mut State, _: &Pod, other: &Pod, _: &NodeInfo, added: bool, _: &Cache) {
        let Some(f) = state_as_mut::<Filter>(state) else { return };
        for claim in other.claims().filter(|c| f.exclusive.contains(c)) {
            debug_assert!(!claim.is_empty());
            f.conflicts += if added { 1 } else { -1 };
        }
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::PodGone(gone) => {
                disks(gone).any(|b| disks(pod).any(|a| clash(a, b)))
                    || gone.claims().any(|c| pod.claims().any(|own| own == c))
            }
            ClusterEvent::Object(ObjectChange::Claim(d)) => d.new.as_ref().is_some_and(|c| is_own_claim(pod, c)),
            _ => false,
        }
    }
}

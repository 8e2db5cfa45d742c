//! `VolumeZone`: a volume labelled with a zone or region is used from nodes there only.

use std::sync::Arc;

use super::{claims_of, is_own_claim};
use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::{ClusterEvent, Plugin, PreFilter, Rejection, State, state_as};
use crate::model::objects::Volume;
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct VolumeZone;

/// The labels, with what nodes may have in their place.
const LABELS: [(&str, Option<&str>); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", None),
    ("failure-domain.beta.kubernetes.io/region", None),
    ("topology.kubernetes.io/zone", Some("failure-domain.beta.kubernetes.io/zone")),
    ("topology.kubernetes.io/region", Some("failure-domain.beta.kubernetes.io/region")),
];

fn labelled(volume: &Volume) -> impl Iterator<Item = (&'static str, Option<&'static str>, &str)> {
    LABELS.iter().filter_map(|(key, other)| Some((*key, *other, volume.metadata.labels.get(key)?)))
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn pre_filter(&self, pod: &Pod, cache: &mut Cache) -> Result<PreFilter, Rejection> {
        let mut volumes: Vec<Arc<Volume>> = Vec::new();
        for claim in claims_of(pod, cache)? {
            // A claim that waits has no volume yet.
            if let Some(v) = cache.objects.volumes.get(&claim.spec.volume_name)
                && labelled(v).next().is_some()
            {
                volumes.push(v.clone());
            }
        }
        Ok(if volumes.is_empty() { PreFilter::skip() } else { PreFilter::with(volumes) })
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, state: &State, _: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        if !LABELS.iter().any(|(key, _)| node.labels.contains_key(*key)) {
            return Ok(());
        }
        for v in state_as::<Vec<Arc<Volume>>>(state).into_iter().flatten() {
            for (key, other, zones) in labelled(v) {
                let here = node.labels.get(key).or_else(|| node.labels.get(other?));
                // Several zones are written one after the other.
                if !here.is_some_and(|here| zones.split("__").any(|z| z == here)) {
                    return Err(Rejection::unresolvable("node(s) had no available volume zone"));
                }
            }
        }
        Ok(())
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::NodeUpdated(old, new) => old.labels != new.labels,
            ClusterEvent::Object(ObjectChange::Claim(d)) => d.new.as_ref().is_some_and(|c| is_own_claim(pod, c)),
            ClusterEvent::Object(ObjectChange::Volume(d)) => d.new.is_some(),
            ClusterEvent::Object(ObjectChange::StorageClass(d)) => d.new.is_some() && d.old.is_none(),
            _ => false,
        }
    }
}

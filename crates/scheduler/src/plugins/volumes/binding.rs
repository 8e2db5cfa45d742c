//! `VolumeBinding`: bound claims keep a pod where their volumes can be used; claims that wait for a pod get a volume that
//! is there already, or one that is made for the node.

use std::collections::BTreeSet;
use std::sync::Arc;

use pintle_api::selector::Selector;

use super::{claims_of, is_own_claim};
use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::{Action, ClusterEvent, Plugin, PreFilter, Rejection, State, state_as};
use crate::model::objects::{Claim, SELECTED_NODE, StorageClass, TopologyTerm, Volume};
use crate::model::{Node, NodeInfo, Pod};
use crate::plugins::node_affinity;

/// The plugin.
pub struct VolumeBinding {
    /// So long a pod waits for its claims to be bound.
    pub bind_timeout_seconds: u64,
}

impl Default for VolumeBinding {
    fn default() -> Self {
        Self { bind_timeout_seconds: 600 }
    }
}

/// A class whose volumes nobody makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const AFFINITY: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// A pod's claims, parted.
struct Claims {
    bound: Vec<Arc<Claim>>,
    /// Those that wait for a pod, smallest first.
    waiting: Vec<Arc<Claim>>,
}

/// What is to be done for a pod's claims on a node.
struct Decision {
    /// Claims and the volumes they get.
    matched: Vec<(Arc<Claim>, Arc<Volume>)>,
    /// Claims for which a volume is to be made.
    made: Vec<Arc<Claim>>,
}

fn class_of<'c>(claim: &Claim, cache: &'c Cache) -> Option<&'c StorageClass> {
    cache.objects.classes.get(claim.class()).map(|c| &**c)
}

/// The claims of a pod, parted; whether it has any.
fn parted(pod: &Pod, cache: &Cache) -> Result<Option<Claims>, Rejection> {
    let all = claims_of(pod, cache)?;
    if all.is_empty() {
        return Ok(None);
    }
    let mut out = Claims { bound: Vec::new(), waiting: Vec::new() };
    for claim in all {
        if claim.is_bound() {
            out.bound.push(claim);
        } else if claim.spec.volume_name.is_empty()
            && class_of(&claim, cache).is_some_and(StorageClass::waits_for_consumer)
        {
            out.waiting.push(claim);
        } else {
            return Err(Rejection::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
        }
    }
    out.waiting.sort_by_key(|c| c.request());
    Ok(Some(out))
}

fn usable_from(volume: &Volume, node: &Node) -> bool {
    let required = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    required.is_none_or(|s| node_affinity::selector(s, node))
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Whether a volume is meant for a claim, by its own reference or by a pod that is being bound.
fn is_meant_for(volume: &Volume, claim: &Claim, cache: &Cache) -> bool {
    if let Some((key, _)) = cache.objects.assumed_volumes.get(&volume.metadata.name) {
        return *key == claim.key();
    }
    volume.spec.claim_ref.as_ref().is_some_and(|r| {
        r.namespace == claim.metadata.namespace
            && r.name == claim.metadata.name
            && (r.uid.is_empty() || r.uid == claim.metadata.uid)
    })
}

/// The smallest volume that will do for a claim on a node.
fn find_volume(claim: &Claim, node: &Node, taken: &BTreeSet<&str>, cache: &Cache) -> Option<Arc<Volume>> {
    let wanted = claim.request();
    let selector = claim.spec.selector.as_ref().map(|s| Selector::from_object(Some(s)));
    let mut best: Option<&Arc<Volume>> = None;
    for v in cache.objects.volumes.values() {
        let free = || {
            v.status.phase == "Available"
                && v.spec.claim_ref.is_none()
                && !cache.objects.assumed_volumes.contains_key(&v.metadata.name)
        };
        if taken.contains(v.metadata.name.as_str())
            || mode(v.spec.volume_mode.as_ref()) != mode(claim.spec.volume_mode.as_ref())
            || v.metadata.deletion_timestamp.is_some()
            || v.size() < wanted
        {
            continue;
        }
        if is_meant_for(v, claim, cache) {
            return usable_from(v, node).then(|| v.clone());
        }
        let fits = free()
            && v.class() == claim.class()
            && selector.as_ref().is_none_or(|s| s.as_ref().is_ok_and(|s| s.matches_labels(&v.metadata.labels)))
            && claim.spec.access_modes.iter().all(|m| v.spec.access_modes.contains(m))
            && usable_from(v, node);
        if fits && best.is_none_or(|b| v.size() < b.size()) {
            best = Some(v);
        }
    }
    best.cloned()
}

fn topology_allows(terms: &[TopologyTerm], node: &Node) -> bool {
    terms.is_empty()
        || terms.iter().any(|t| {
            !t.match_label_expressions.is_empty()
                && t.match_label_expressions
                    .iter()
                    .all(|e| node.labels.get(&e.key).is_some_and(|v| e.values.contains(v)))
        })
}

/// Whether a driver that reports its capacity has enough of it for a claim, reachable from a node.
fn has_capacity(class: &StorageClass, claim: &Claim, node: &Node, cache: &Cache) -> bool {
    let wanted = claim.request();
    let reports = cache.objects.csi_drivers.get(&class.provisioner).is_some_and(|d| d.spec.storage_capacity);
    if wanted == 0 || !reports {
        return true;
    }
    cache.objects.capacities.values().any(|c| {
        c.storage_class_name == class.metadata.name
            && c.largest().is_some_and(|have| have >= wanted)
            && c.node_topology
                .as_ref()
                .is_some_and(|t| Selector::from_object(Some(t)).is_ok_and(|s| s.matches_map(Some(&node.labels))))
    })
}

/// What can be done for a pod's claims on a node.
fn decide(claims: &Claims, node: &Node, cache: &Cache) -> Result<Decision, Rejection> {
    for claim in &claims.bound {
        let Some(volume) = cache.objects.volumes.get(&claim.spec.volume_name) else {
            return Err(Rejection::unresolvable(NO_VOLUME));
        };
        if !usable_from(volume, node) {
            return Err(Rejection::unresolvable(AFFINITY));
        }
    }
    let mut out = Decision { matched: Vec::new(), made: Vec::new() };
    let mut taken = BTreeSet::new();
    for claim in &claims.waiting {
        let assumed = cache.objects.assumed_nodes.get(&claim.key()).map(|(node, _)| node.as_str());
        match claim.metadata.annotations.get(SELECTED_NODE).or(assumed) {
            Some(selected) if selected != node.name => return Err(Rejection::unresolvable(CONFLICT)),
            Some(_) => out.made.push(claim.clone()),
            None => match find_volume(claim, node, &taken, cache) {
                Some(volume) => {
                    out.matched.push((claim.clone(), volume));
                    taken = out.matched.iter().map(|(_, v)| v.metadata.name.as_str()).collect();
                }
                None => out.made.push(claim.clone()),
            },
        }
    }
    for claim in &out.made {
        let class = class_of(claim, cache);
        let Some(class) = class.filter(|c| !c.provisioner.is_empty() && c.provisioner != NO_PROVISIONER) else {
            return Err(Rejection::unresolvable(CONFLICT));
        };
        if !topology_allows(&class.allowed_topologies, node) {
            return Err(Rejection::unresolvable(CONFLICT));
        }
        if !has_capacity(class, claim, node, cache) {
            return Err(Rejection::unresolvable(NO_SPACE));
        }
    }
    Ok(out)
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_filter(&self, pod: &Pod, cache: &mut Cache) -> Result<PreFilter, Rejection> {
        Ok(parted(pod, cache)?.map_or_else(PreFilter::skip, PreFilter::with))
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, state: &State, _: &Pod, node: &Node, _: &NodeInfo, cache: &Cache) -> Result<(), Rejection> {
        match state_as::<Claims>(state) {
            Some(claims) => decide(claims, node, cache).map(drop),
            None => Ok(()),
        }
    }

    fn reserve(&self, pod: &Pod, node: &Node, cache: &mut Cache) -> Result<Vec<Action>, Rejection> {
        let Some(claims) = parted(pod, cache)?.filter(|c| !c.waiting.is_empty()) else { return Ok(Vec::new()) };
        let decision = decide(&claims, node, cache)?;
        let mut actions = Vec::new();
        for (claim, volume) in &decision.matched {
            let name = volume.metadata.name.clone();
            cache.objects.assumed_volumes.insert(name.clone(), (claim.key(), pod.uid.clone()));
            // One that names the claim already is left to the volume controller.
            if volume.spec.claim_ref.as_ref().is_none_or(|r| r.uid != claim.metadata.uid) {
                actions.push(Action::BindVolume {
                    volume: name,
                    namespace: claim.metadata.namespace.clone(),
                    claim: claim.metadata.name.clone(),
                    uid: claim.metadata.uid.clone(),
                    resource_version: volume.metadata.resource_version.clone(),
                });
            }
        }
        for claim in &decision.made {
            if !claim.metadata.annotations.contains_key(SELECTED_NODE) {
                cache.objects.assumed_nodes.insert(claim.key(), (node.name.clone(), pod.uid.clone()));
                actions.push(Action::SelectNode {
                    namespace: claim.metadata.namespace.clone(),
                    claim: claim.metadata.name.clone(),
                    resource_version: claim.metadata.resource_version.clone(),
                    node: node.name.clone(),
                });
            }
        }
        actions.push(Action::AwaitClaims {
            namespace: pod.namespace.clone(),
            claims: claims.waiting.iter().map(|c| c.metadata.name.clone()).collect(),
            seconds: self.bind_timeout_seconds,
        });
        Ok(actions)
    }

    fn unreserve(&self, pod: &Pod, cache: &mut Cache) {
        if !pod.volumes.is_empty() {
            cache.objects.assumed_volumes.retain(|_, (_, uid)| *uid != pod.uid);
            cache.objects.assumed_nodes.retain(|_, (_, uid)| *uid != pod.uid);
        }
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::NodeUpdated(old, new) => old.labels != new.labels,
            ClusterEvent::Object(change) => match change {
                ObjectChange::Claim(d) => d.new.as_ref().is_some_and(|c| is_own_claim(pod, c)),
                ObjectChange::Volume(d) => d.new.is_some(),
                ObjectChange::StorageClass(d) => d.new.is_some(),
                ObjectChange::CsiNode(d) => d.old.is_none(),
                ObjectChange::CsiDriver(d) => d.old.is_some() && d.new.is_some(),
                ObjectChange::StorageCapacity(d) => {
                    d.new.as_ref().is_some_and(|new| d.old.as_ref().is_none_or(|old| new.largest() > old.largest()))
                }
                _ => false,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
#[path = "binding_tests.rs"]
mod tests;

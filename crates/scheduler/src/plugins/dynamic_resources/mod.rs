//! `DynamicResources`: pods get devices by claims.

pub mod allocate;
pub mod selector;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::{Action, ClusterEvent, Diagnosis, Plugin, PreFilter, Rejection, State, state_as};
use crate::model::devices::{Device, ResourceClaim};
use crate::model::wire::NodeSelector;
use crate::model::{Node, NodeInfo, Pod};
use crate::plugins::node_affinity;
use allocate::{Ask, Asked};
use selector::Selector;

/// So many may use a claim.
const MAX_CONSUMERS: usize = 256;
/// Keeps a claim that was given devices from going before they are given back.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// What is said of a node from which the devices of a claim cannot be used.
const ELSEWHERE: &str = "resourceclaim not available on the node";

/// A selector, or why it does not compile.
type Compiled = Arc<Result<Selector, String>>;

/// The plugin.
#[derive(Default)]
pub struct DynamicResources {
    /// Selectors that were compiled, by their text.
    selectors: Mutex<HashMap<Arc<str>, Compiled>>,
}

/// A pod's claims, ready to be tried on nodes.
struct Claims {
    /// The nodes from which claims that have their devices can be used.
    bound_to: Vec<NodeSelector>,
    /// What the others ask for.
    asked: Vec<Asked>,
}

impl DynamicResources {
    fn selector(&self, text: &Arc<str>) -> Compiled {
        let mut known = self.selectors.lock();
        if known.len() > 4096 {
            known.clear();
        }
        known.entry(text.clone()).or_insert_with(|| Arc::new(Selector::new(text))).clone()
    }

    /// Whether a device matches all of these.
    fn matches(&self, texts: &[&Arc<str>], driver: &str, device: &Device) -> bool {
        texts.iter().all(|t| match &*self.selector(t) {
            // What cannot be evaluated for a device does not choose it.
            Ok(s) => s.matches(driver, device).unwrap_or(false),
            Err(_) => false,
        })
    }

    fn claims(&self, pod: &Pod, cache: &Cache) -> Result<Claims, Rejection> {
        let mut out = Claims { bound_to: Vec::new(), asked: Vec::new() };
        let fail = |why: String| Err(Rejection::unresolvable(why));
        for (reference, name) in &pod.resource_claims {
            let Some(name) = name else {
                return fail(format!(
                    "pod {:?}: ResourceClaim not created yet for pod.spec.resourceClaims[{reference:?}]",
                    pod.key
                ));
            };
            let key = format!("{}/{name}", pod.namespace);
            let Some(claim) = cache.objects.resource_claims.get(&key) else {
                return fail(format!("resourceclaim.resource.k8s.io {name:?} not found"));
            };
            if claim.metadata.plain.deletion_timestamp.is_some() {
                return fail(format!("resourceclaim {name:?} is being deleted"));
            }
            let assumed = cache.objects.assumed_claims.get(&key).map(|(a, _)| a);
            match assumed.or(claim.status.allocation.as_ref()) {
                Some(allocation) => {
                    let consumers = &claim.status.reserved_for;
                    let uses = consumers.iter().any(|c| c["uid"] == pod.uid);
                    if !uses && consumers.len() >= MAX_CONSUMERS {
                        return Err(Rejection::new("resourceclaim in use"));
                    }
                    let nodes = allocation.node_selector.clone().and_then(|s| serde_json::from_value(s).ok());
                    out.bound_to.extend(nodes);
                }
                None => out.asked.push(self.ask(claim, cache)?),
            }
        }
        Ok(out)
    }

    /// What a claim asks for, with the devices of the whole cluster that would do.
    fn ask(&self, claim: &Arc<ResourceClaim>, cache: &Cache) -> Result<Asked, Rejection> {
        let mut requests = Vec::new();
        for r in &claim.spec.devices.requests {
            let alternatives = match &r.exactly {
                Some(wanted) => vec![(r.name.clone(), wanted)],
                None => r.first_available.iter().map(|w| (format!("{}/{}", r.name, w.name), w)).collect(),
            };
            let mut asks = Vec::new();
            for (name, wanted) in alternatives {
                let Some(class) = cache.objects.device_classes.get(&wanted.device_class_name) else {
                    let class = &wanted.device_class_name;
                    return Err(Rejection::unresolvable(format!(
                        "request {name}: device class {class} does not exist"
                    )));
                };
                let all = class.spec.selectors.iter().chain(&wanted.selectors);
                let texts: Vec<&Arc<str>> = all.filter_map(|s| Some(&s.cel.as_ref()?.expression)).collect();
                let devices = allocate::devices(cache, |driver, device| self.matches(&texts, driver, device));
                asks.push(Ask::new(name, wanted.clone(), class.clone(), devices));
            }
            requests.push(asks);
        }
        Ok(Asked { claim: claim.clone(), requests })
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn pre_filter(&self, pod: &Pod, cache: &mut Cache) -> Result<PreFilter, Rejection> {
        if pod.resource_claims.is_empty() {
            return Ok(PreFilter::skip());
        }
        Ok(PreFilter::with(self.claims(pod, cache)?))
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, state: &State, _: &Pod, node: &Node, _: &NodeInfo, cache: &Cache) -> Result<(), Rejection> {
        let Some(claims) = state_as::<Claims>(state) else { return Ok(()) };
        if claims.bound_to.iter().any(|s| !node_affinity::selector(s, node)) {
            return Err(Rejection::unresolvable(ELSEWHERE));
        }
        if !claims.asked.is_empty() && allocate::allocate(&claims.asked, node, cache).is_none() {
            return Err(Rejection::new("cannot allocate all claims"));
        }
        Ok(())
    }

    fn reserve(&self, pod: &Pod, node: &Node, cache: &mut Cache) -> Result<Vec<Action>, Rejection> {
        if pod.resource_claims.is_empty() {
            return Ok(Vec::new());
        }
        let claims = self.claims(pod, cache)?;
        let Some(given) = allocate::allocate(&claims.asked, node, cache) else {
            return Err(Rejection::new("cannot allocate all claims"));
        };
        let mut given: HashMap<String, _> = claims.asked.iter().map(|a| a.claim.key()).zip(given).collect();
        let mut actions = Vec::new();
        for name in pod.resource_claims.iter().filter_map(|(_, name)| name.as_ref()) {
            let key = format!("{}/{name}", pod.namespace);
            let Some(claim) = cache.objects.resource_claims.get(&key).cloned() else { continue };
            let allocation = given.remove(&key);
            let reserved = claim.status.reserved_for.iter().any(|c| c["uid"] == pod.uid);
            if let Some(a) = &allocation {
                cache.objects.assume_claim(&key, a.clone(), &pod.uid);
            } else if reserved {
                continue;
            }
            let mut reserved_for = claim.status.reserved_for.clone();
            if !reserved {
                let consumer = serde_json::json!({"resource": "pods", "name": pod.name, "uid": pod.uid});
                reserved_for.push(consumer);
            }
            let meta = &claim.metadata;
            let mut finalizers = meta.finalizers.clone();
            let guarded = finalizers.iter().any(|f| f == FINALIZER) || allocation.is_none();
            if !guarded {
                finalizers.push(FINALIZER.into());
            }
            actions.push(Action::GiveDevices {
                namespace: pod.namespace.clone(),
                claim: name.clone(),
                resource_version: meta.plain.resource_version.clone(),
                finalizers: (!guarded).then_some(finalizers),
                allocation: allocation.and_then(|a| serde_json::to_value(a).ok()),
                reserved_for,
            });
        }
        Ok(actions)
    }

    fn unreserve(&self, pod: &Pod, cache: &mut Cache) {
        if !pod.resource_claims.is_empty() {
            cache.objects.unassume_claims(&pod.uid);
        }
    }

    /// A claim whose devices are where the pod cannot be gives them back, unless others use them.
    fn give_back(&self, pod: &Pod, diagnosis: &Diagnosis, cache: &Cache) -> Option<Action> {
        let elsewhere = |r: &Rejection| r.reasons.iter().any(|reason| reason == ELSEWHERE);
        let nodes: Vec<_> = diagnosis.rejected.iter().filter(|(_, r)| elsewhere(r)).map(|(id, _)| *id).collect();
        if nodes.is_empty() {
            return None;
        }
        pod.resource_claims.iter().filter_map(|(_, name)| name.as_ref()).find_map(|name| {
            let claim = cache.objects.resource_claims.get(&format!("{}/{name}", pod.namespace))?;
            let selector = claim.status.allocation.as_ref()?.node_selector.clone()?;
            let selector: NodeSelector = serde_json::from_value(selector).ok()?;
            let keeps_away = |id| cache.at(id).is_some_and(|(node, _)| !node_affinity::selector(&selector, node));
            let own = claim.status.reserved_for.iter().all(|c| c["uid"] == pod.uid);
            (own && nodes.iter().any(|id| keeps_away(*id))).then(|| Action::TakeDevices {
                namespace: pod.namespace.clone(),
                claim: name.clone(),
                resource_version: claim.metadata.plain.resource_version.clone(),
            })
        })
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::NodeUpdated(old, new) => old.labels != new.labels,
            ClusterEvent::Object(change) => match change {
                ObjectChange::ResourceClaim(d) => {
                    let allocated =
                        |c: &Option<Arc<ResourceClaim>>| c.as_ref().is_some_and(|c| c.status.allocation.is_some());
                    // Either it is the pod's own, or its devices are free again.
                    let freed = allocated(&d.old) && !allocated(&d.new);
                    let own = d.new.as_ref().is_some_and(|c| {
                        let meta = &c.metadata.plain;
                        let named = |(_, name): &(String, Option<String>)| name.as_deref() == Some(&meta.name);
                        meta.namespace == pod.namespace && pod.resource_claims.iter().any(named)
                    });
                    freed || own
                }
                ObjectChange::ResourceSlice(d) => d.new.is_some(),
                ObjectChange::DeviceClass(d) => d.new.is_some(),
                _ => false,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;

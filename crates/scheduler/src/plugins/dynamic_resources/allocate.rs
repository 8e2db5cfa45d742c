//! Finds devices on a node for all that claims ask, by trying them in order and going back where that leads nowhere.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pintle_api::quantity::Quantity;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::model::Node;
use crate::model::devices::{
    Allocated, Allocation, Attribute, Device, DeviceClass, DeviceId, Given, ResourceClaim, ResourceSlice, Wanted,
};
use crate::plugins::node_affinity;
use crate::plugins::taint_toleration::tolerates;

/// A device of a slice.
#[derive(Clone)]
pub struct DeviceRef {
    slice: Arc<ResourceSlice>,
    at: usize,
    id: DeviceId,
}

impl DeviceRef {
    fn device(&self) -> &Device {
        &self.slice.spec.devices[self.at]
    }

    fn is_on(&self, node: &Node) -> bool {
        let spec = &self.slice.spec;
        let of = |name: Option<&String>, selector: Option<&crate::model::wire::NodeSelector>, all: Option<bool>| {
            all == Some(true)
                || name.is_some_and(|n| *n == node.name)
                || selector.is_some_and(|s| node_affinity::selector(s, node))
        };
        if spec.per_device_node_selection == Some(true) {
            let d = self.device();
            return of(d.node_name.as_ref(), d.node_selector.as_ref(), d.all_nodes);
        }
        of(spec.node_name.as_ref(), spec.node_selector.as_ref(), spec.all_nodes)
    }

    /// From which nodes it can be used: one by name, those of a selector, or all.
    fn place(&self) -> (bool, Option<&crate::model::wire::NodeSelector>) {
        let spec = &self.slice.spec;
        if spec.per_device_node_selection == Some(true) {
            let d = self.device();
            return (d.node_name.is_some(), d.node_selector.as_ref());
        }
        (spec.node_name.is_some(), spec.node_selector.as_ref())
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        let (domain, id) = name.split_once('/')?;
        let d = self.device();
        // A name without a domain is of the driver's.
        d.attributes.get(name).or_else(|| (domain == self.id.0).then(|| d.attributes.get(id))?)
    }
}

/// What a request asks for, in one of its ways.
pub struct Ask {
    /// Name of the request, and of the way where there are several.
    name: String,
    wanted: Wanted,
    class: Arc<DeviceClass>,
    /// Devices that match, wherever they are.
    devices: Vec<DeviceRef>,
}

impl Ask {
    /// One with the devices that match.
    #[must_use]
    pub fn new(name: String, wanted: Wanted, class: Arc<DeviceClass>, devices: Vec<DeviceRef>) -> Self {
        Self { name, wanted, class, devices }
    }

    fn is_admin(&self) -> bool {
        self.wanted.admin_access == Some(true)
    }

    /// Whether a constraint that names this request speaks of it.
    fn is_named(&self, names: &[String]) -> bool {
        names.is_empty()
            || names.iter().any(|n| *n == self.name || self.name.split_once('/').is_some_and(|(main, _)| main == n))
    }
}

/// A claim, and for each of its requests the ways in which it can be met.
pub struct Asked {
    /// The claim.
    pub claim: Arc<ResourceClaim>,
    /// The ways, best first, of each request.
    pub requests: Vec<Vec<Ask>>,
}

/// The devices of the cluster that match, of complete pools in their newest generation.
pub fn devices(cache: &Cache, matches: impl Fn(&str, &Device) -> bool) -> Vec<DeviceRef> {
    let mut newest: HashMap<(&str, &str), (i64, usize)> = HashMap::new();
    for s in cache.objects.slices.values() {
        let (pool, driver) = (&s.spec.pool, s.spec.driver.as_str());
        let entry = newest.entry((driver, &pool.name)).or_insert((pool.generation, 0));
        if pool.generation > entry.0 {
            *entry = (pool.generation, 0);
        }
        entry.1 += usize::from(pool.generation == entry.0);
    }
    let mut out = Vec::new();
    for s in cache.objects.slices.values() {
        let (pool, driver) = (&s.spec.pool, s.spec.driver.as_str());
        let whole = newest.get(&(driver, &pool.name)) == Some(&(pool.generation, pool.resource_slice_count));
        if !whole {
            continue;
        }
        for (at, d) in s.spec.devices.iter().enumerate().filter(|(_, d)| matches(driver, d)) {
            let id = (driver.to_owned(), pool.name.clone(), d.name.clone());
            out.push(DeviceRef { slice: s.clone(), at, id });
        }
    }
    out
}

/// One device that was chosen.
struct Choice<'a> {
    claim: usize,
    ask: &'a Ask,
    device: &'a DeviceRef,
}

/// How many steps are taken at most: what is worse than this is as good as impossible.
const MAX_STEPS: usize = 100_000;

/// How many devices a claim can be given: its status takes no more.
const MAX_RESULTS: usize = 32;

struct Search<'a> {
    asked: &'a [Asked],
    node: &'a Node,
    cache: &'a Cache,
    chosen: Vec<Choice<'a>>,
    taken: HashSet<&'a DeviceId>,
    steps: usize,
}

/// Finds devices for all claims, in their order.
#[must_use]
pub fn allocate(asked: &[Asked], node: &Node, cache: &Cache) -> Option<Vec<Allocation>> {
    let mut s = Search { asked, node, cache, chosen: Vec::new(), taken: HashSet::new(), steps: 0 };
    if !s.request(0, 0) {
        return None;
    }
    Some((0..asked.len()).map(|claim| s.allocation(claim)).collect())
}

impl<'a> Search<'a> {
    /// Meets the requests from this one on.
    fn request(&mut self, claim: usize, request: usize) -> bool {
        let all = self.asked;
        let Some(asked) = all.get(claim) else { return true };
        let Some(ways) = asked.requests.get(request) else { return self.request(claim + 1, 0) };
        ways.iter().any(|ask| {
            let candidates: Vec<&'a DeviceRef> = ask.devices.iter().filter(|d| d.is_on(self.node)).collect();
            // All there are, and at least one; or so many.
            let n = if ask.wanted.allocation_mode == "All" { candidates.len() } else { ask.wanted.count.max(1) };
            (1..=MAX_RESULTS).contains(&n) && self.devices(claim, request, ask, &candidates, 0, n)
        })
    }

    /// Chooses so many more of the candidates from a place on, and goes on with the next request.
    fn devices(
        &mut self,
        claim: usize,
        request: usize,
        ask: &'a Ask,
        candidates: &[&'a DeviceRef],
        from: usize,
        left: usize,
    ) -> bool {
        if left == 0 {
            return self.request(claim, request + 1);
        }
        for (i, device) in candidates.iter().enumerate().skip(from) {
            if candidates.len() - i < left {
                return false;
            }
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return false;
            }
            if !self.is_free(claim, ask, device) {
                continue;
            }
            self.chosen.push(Choice { claim, ask, device });
            let fresh = !ask.is_admin() && self.taken.insert(&device.id);
            if self.devices(claim, request, ask, candidates, i + 1, left - 1) {
                return true;
            }
            self.chosen.pop();
            if fresh {
                self.taken.remove(&device.id);
            }
        }
        false
    }

    fn is_free(&self, claim: usize, ask: &Ask, device: &DeviceRef) -> bool {
        let tolerated = device
            .device()
            .taints
            .iter()
            .all(|t| t.effect == "None" || ask.wanted.tolerations.iter().any(|x| tolerates(x, t)));
        tolerated
            && self.keeps_constraints(claim, ask, device)
            && (ask.is_admin()
                || (!self.taken.contains(&device.id)
                    && !self.cache.objects.given_devices.contains_key(&device.id)
                    && self.has_counters(device)))
    }

    /// Whether a device goes with those chosen for the same claim.
    fn keeps_constraints(&self, claim: usize, ask: &Ask, device: &DeviceRef) -> bool {
        let constraints = &self.asked[claim].claim.spec.devices.constraints;
        constraints.iter().filter(|c| ask.is_named(&c.requests)).all(|c| {
            let mut others = self.chosen.iter().filter(|o| o.claim == claim && o.ask.is_named(&c.requests));
            if let Some(name) = &c.match_attribute {
                let Some(own) = device.attribute(name) else { return false };
                return others.all(|o| o.device.attribute(name) == Some(own));
            }
            if let Some(name) = &c.distinct_attribute {
                let Some(own) = device.attribute(name) else { return false };
                return others.all(|o| o.device.attribute(name) != Some(own));
            }
            true
        })
    }

    /// Whether the counters a device shares with others of its pool have enough left.
    fn has_counters(&self, device: &DeviceRef) -> bool {
        let wanted = &device.device().consumes_counters;
        if wanted.is_empty() {
            return true;
        }
        let mut left: BTreeMap<(&str, &str), Quantity> = BTreeMap::new();
        let parse = |text: &str| Quantity::parse(text).ok();
        let pool = |s: &&Arc<ResourceSlice>| {
            s.spec.driver == device.id.0
                && s.spec.pool.name == device.id.1
                && s.spec.pool.generation == device.slice.spec.pool.generation
        };
        let slices: Vec<&Arc<ResourceSlice>> = self.cache.objects.slices.values().filter(pool).collect();
        for set in slices.iter().flat_map(|s| &s.spec.shared_counters) {
            for (name, c) in &set.counters {
                left.extend(parse(&c.value).map(|q| ((set.name.as_str(), name.as_str()), q)));
            }
        }
        let gone = |d: &&Device| {
            let id = (device.id.0.clone(), device.id.1.clone(), d.name.clone());
            self.taken.contains(&id) || self.cache.objects.given_devices.contains_key(&id) || d.name == device.id.2
        };
        for d in slices.iter().flat_map(|s| &s.spec.devices).filter(gone) {
            for set in &d.consumes_counters {
                for (name, c) in &set.counters {
                    let Some(have) = left.get_mut(&(set.counter_set.as_str(), name.as_str())) else { return false };
                    let Some(rest) = parse(&c.value).and_then(|want| minus(have, &want)) else { return false };
                    *have = rest;
                }
            }
        }
        true
    }

    /// What a claim is given by what was chosen.
    fn allocation(&self, claim: usize) -> Allocation {
        let own = || self.chosen.iter().filter(move |c| c.claim == claim);
        let results = own()
            .map(|c| Given {
                request: c.ask.name.clone(),
                driver: c.device.id.0.clone(),
                pool: c.device.id.1.clone(),
                device: c.device.id.2.clone(),
                admin_access: c.ask.is_admin().then_some(true),
                tolerations: c.ask.wanted.tolerations.iter().filter_map(|t| serde_json::to_value(t).ok()).collect(),
            })
            .collect();
        let mut config = Vec::new();
        let mut seen = HashSet::new();
        for c in own().filter(|c| seen.insert(&c.ask.name)) {
            for class in &c.ask.class.spec.config {
                let mut one = json!({"source": "FromClass", "requests": [c.ask.name]});
                merge(&mut one, class);
                config.push(one);
            }
        }
        for c in &self.asked[claim].claim.spec.devices.config {
            let mut one = json!({"source": "FromClaim"});
            if !c.requests.is_empty() {
                one["requests"] = json!(c.requests);
            }
            merge(&mut one, &json!(c.rest));
            config.push(one);
        }
        Allocation { devices: Allocated { results, config }, node_selector: self.selector(claim) }
    }

    /// From which nodes the claim's devices can be used.
    fn selector(&self, claim: usize) -> Option<Value> {
        let mut expressions = Vec::new();
        for c in self.chosen.iter().filter(|c| c.claim == claim) {
            let (one_node, selector) = c.device.place();
            if one_node {
                let field = json!({"key": "metadata.name", "operator": "In", "values": [self.node.name]});
                return Some(json!({"nodeSelectorTerms": [{"matchFields": [field]}]}));
            }
            for term in selector.into_iter().flat_map(|s| &s.node_selector_terms) {
                for e in &term.match_expressions {
                    let one = json!({"key": e.key, "operator": e.operator, "values": e.values});
                    if !expressions.contains(&one) {
                        expressions.push(one);
                    }
                }
            }
        }
        (!expressions.is_empty()).then(|| json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]}))
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (k, v) in from.as_object().into_iter().flatten() {
        into[k] = v.clone();
    }
}

/// What is left; nothing when it is not enough.
fn minus(have: &Quantity, want: &Quantity) -> Option<Quantity> {
    let left = have.milli_value().checked_sub(want.milli_value()).filter(|n| *n >= 0)?;
    Quantity::parse(&format!("{left}m")).ok()
}

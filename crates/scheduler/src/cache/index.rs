//! Pods counted by who means them and where they are, kept up with every pod that comes and goes, so that inter-pod
//! affinity and topology spread never walk through all pods.
//!
//! Two kinds of counts: *queries* (how many pods of a selector are on each node; made when first asked for, the least
//! used ones forgotten) and *held terms* (how many pods with the same affinity term are in each place).

use std::collections::HashMap;
use std::sync::Arc;

use super::router::Router;
use super::topology::{Domain, NodeId, Topology, TopologyId};
use crate::model::affinity::{Held, Namespaces, Who};
use crate::model::{Node, Pod};

/// So many queries are kept.
const MAX_QUERIES: usize = 1024;

/// A query's number; good until the next query is made.
pub type QueryId = usize;

#[derive(Debug)]
struct Query {
    text: Arc<str>,
    /// All must mean a pod.
    who: Vec<Arc<Who>>,
    /// Whether pods being deleted count.
    deleting_too: bool,
    per_node: Vec<u32>,
    per_domain: Vec<(TopologyId, Vec<u32>)>,
    used: u64,
}

/// Affinity terms of pods, equal ones together.
#[derive(Debug)]
pub struct HeldTerm {
    /// The term and how it bears.
    pub held: Held,
    /// Its topology.
    pub topology: TopologyId,
    /// How many pods hold it in each place.
    pub places: HashMap<Domain, u32>,
    pods: usize,
}

/// The counts.
#[derive(Debug, Default)]
pub struct PodIndex {
    nodes: Vec<Option<Arc<Node>>>,
    topologies: Vec<Topology>,
    topology_ids: HashMap<String, TopologyId>,
    queries: Vec<Option<Query>>,
    query_ids: HashMap<Arc<str>, QueryId>,
    query_router: Router,
    held: Vec<Option<HeldTerm>>,
    held_ids: HashMap<Arc<str>, usize>,
    held_router: Router,
    /// Pods on known nodes, by namespace and uid.
    pods: HashMap<String, HashMap<String, (Arc<Pod>, NodeId)>>,
    tick: u64,
}

fn bump(counts: &mut Vec<u32>, at: usize, add: bool) {
    if counts.len() <= at {
        counts.resize(at + 1, 0);
    }
    counts[at] = if add { counts[at] + 1 } else { counts[at].saturating_sub(1) };
}

impl Query {
    fn means(&self, pod: &Pod, namespaces: &Namespaces) -> bool {
        (self.deleting_too || !pod.deleting)
            && self.who.iter().all(|w| w.matches(&pod.namespace, &pod.labels, namespaces))
    }

    fn count(&mut self, node: NodeId, add: bool, topologies: &[Topology]) {
        bump(&mut self.per_node, node, add);
        for (t, counts) in &mut self.per_domain {
            if let Some(d) = topologies[*t].of(node) {
                bump(counts, d as usize, add);
            }
        }
    }
}

impl PodIndex {
    /// The number of a topology key.
    pub fn topology_id(&mut self, key: &str) -> TopologyId {
        if let Some(id) = self.topology_ids.get(key) {
            return *id;
        }
        let mut t = Topology::new(key);
        for (id, node) in self.nodes.iter().enumerate() {
            if let Some(n) = node {
                t.set(id, n.labels.get(key).map(String::as_str));
            }
        }
        self.topologies.push(t);
        self.topology_ids.insert(key.to_owned(), self.topologies.len() - 1);
        self.topologies.len() - 1
    }

    /// The number of a topology key that was asked for before.
    #[must_use]
    pub fn known_topology(&self, key: &str) -> Option<TopologyId> {
        self.topology_ids.get(key).copied()
    }

    /// A topology.
    #[must_use]
    pub fn topology(&self, id: TopologyId) -> &Topology {
        &self.topologies[id]
    }

    /// Takes a node's labels, or forgets it. No pod may be counted on it meanwhile.
    pub fn set_node(&mut self, id: NodeId, node: Option<Arc<Node>>) {
        if self.nodes.len() <= id {
            self.nodes.resize(id + 1, None);
        }
        for t in &mut self.topologies {
            t.set(id, node.as_ref().and_then(|n| n.labels.get(&t.key)).map(String::as_str));
        }
        self.nodes[id] = node;
    }

    /// Counts a pod that is now on a node.
    pub fn add(&mut self, pod: &Arc<Pod>, node: NodeId, namespaces: &Namespaces) {
        self.change(pod, node, true, namespaces);
        self.pods.entry(pod.namespace.clone()).or_default().insert(pod.uid.clone(), (pod.clone(), node));
    }

    /// Takes the newest state of a pod that counts as it did.
    pub fn replace(&mut self, pod: &Arc<Pod>) {
        if let Some((old, _)) = self.pods.get_mut(&pod.namespace).and_then(|pods| pods.get_mut(&pod.uid)) {
            *old = pod.clone();
        }
    }

    /// Takes back a pod that was counted.
    pub fn remove(&mut self, pod: &Arc<Pod>, node: NodeId, namespaces: &Namespaces) {
        self.change(pod, node, false, namespaces);
        if let Some(pods) = self.pods.get_mut(&pod.namespace) {
            pods.remove(&pod.uid);
            if pods.is_empty() {
                self.pods.remove(&pod.namespace);
            }
        }
    }

    fn change(&mut self, pod: &Arc<Pod>, node: NodeId, add: bool, namespaces: &Namespaces) {
        if !self.query_ids.is_empty() {
            for id in self.query_router.candidates(&pod.namespace, &pod.labels) {
                if let Some(q) = self.queries[id].as_mut().filter(|q| q.means(pod, namespaces)) {
                    q.count(node, add, &self.topologies);
                }
            }
        }
        for held in &pod.affinity.held {
            if add {
                self.hold(held, node);
            } else {
                self.release(held, node);
            }
        }
    }

    fn hold(&mut self, held: &Held, node: NodeId) {
        let id = match self.held_ids.get(&held.text) {
            Some(id) => *id,
            None => {
                let topology = self.topology_id(&held.term.topology_key);
                let id = self.held.iter().position(Option::is_none).unwrap_or_else(|| {
                    self.held.push(None);
                    self.held.len() - 1
                });
                self.held[id] = Some(HeldTerm { held: held.clone(), topology, places: HashMap::new(), pods: 0 });
                self.held_ids.insert(held.text.clone(), id);
                self.held_router.insert(id, &held.term.who);
                id
            }
        };
        if let Some(h) = &mut self.held[id] {
            h.pods += 1;
            if let Some(d) = self.topologies[h.topology].of(node) {
                *h.places.entry(d).or_default() += 1;
            }
        }
    }

    fn release(&mut self, held: &Held, node: NodeId) {
        let Some(id) = self.held_ids.get(&held.text).copied() else { return };
        let Some(h) = &mut self.held[id] else { return };
        h.pods -= 1;
        if let Some(d) = self.topologies[h.topology].of(node)
            && let Some(n) = h.places.get_mut(&d)
        {
            *n -= 1;
            if *n == 0 {
                h.places.remove(&d);
            }
        }
        if h.pods == 0 {
            self.held[id] = None;
            self.held_ids.remove(&held.text);
            self.held_router.remove(id, &held.term.who);
        }
    }

    /// The terms of pods on nodes that mean this pod.
    pub fn held_about<'a>(&'a self, pod: &'a Pod, namespaces: &'a Namespaces) -> impl Iterator<Item = &'a HeldTerm> {
        let ids = if self.held_ids.is_empty() {
            Vec::new()
        } else {
            self.held_router.candidates(&pod.namespace, &pod.labels)
        };
        ids.into_iter()
            .filter_map(|id| self.held[id].as_ref())
            .filter(move |h| h.held.term.who.matches(&pod.namespace, &pod.labels, namespaces))
    }

    /// The query for pods that all of `who` mean.
    pub fn query(&mut self, who: &[Arc<Who>], deleting_too: bool, namespaces: &Namespaces) -> QueryId {
        self.tick += 1;
        let text: Arc<str> = match (who, deleting_too) {
            ([one], true) => one.text.clone(),
            _ => {
                let mut text = if deleting_too { String::new() } else { "live ".to_owned() };
                for w in who {
                    text.push_str(&w.text);
                    text.push('&');
                }
                text.into()
            }
        };
        if let Some(id) = self.query_ids.get(&text).copied() {
            if let Some(q) = &mut self.queries[id] {
                q.used = self.tick;
            }
            return id;
        }
        self.make_room();
        let mut q = Query {
            text: text.clone(),
            who: who.to_vec(),
            deleting_too,
            per_node: Vec::new(),
            per_domain: Vec::new(),
            used: self.tick,
        };
        let wide = who.iter().all(|w| w.namespace_selector.is_some());
        for (namespace, pods) in &self.pods {
            if wide || who.iter().any(|w| w.namespaces.contains(namespace)) {
                for (pod, node) in pods.values() {
                    if q.means(pod, namespaces) {
                        q.count(*node, true, &self.topologies);
                    }
                }
            }
        }
        let id = self.queries.iter().position(Option::is_none).unwrap_or_else(|| {
            self.queries.push(None);
            self.queries.len() - 1
        });
        if let Some(first) = who.first() {
            self.query_router.insert(id, first);
        }
        self.queries[id] = Some(q);
        self.query_ids.insert(text, id);
        id
    }

    fn make_room(&mut self) {
        if self.query_ids.len() < MAX_QUERIES {
            return;
        }
        let oldest = self.queries.iter().flatten().min_by_key(|q| q.used).map(|q| q.text.clone());
        if let Some(id) = oldest.and_then(|text| self.query_ids.remove(&text)) {
            self.drop_query(id);
        }
    }

    fn drop_query(&mut self, id: QueryId) {
        if let Some(q) = self.queries[id].take()
            && let Some(first) = q.who.first()
        {
            self.query_router.remove(id, first);
        }
    }

    /// Namespaces' labels changed: counts that depend on them are made anew when they are asked for.
    pub fn namespaces_changed(&mut self) {
        let stale: Vec<QueryId> = (0..self.queries.len())
            .filter(|id| {
                self.queries[*id].as_ref().is_some_and(|q| q.who.iter().any(|w| w.namespace_selector.is_some()))
            })
            .collect();
        for id in stale {
            if let Some(q) = &self.queries[id] {
                self.query_ids.remove(&q.text);
            }
            self.drop_query(id);
        }
    }

    /// How many pods a query counts on a node.
    #[must_use]
    pub fn on_node(&self, query: QueryId, node: NodeId) -> u32 {
        self.queries[query].as_ref().and_then(|q| q.per_node.get(node)).copied().unwrap_or(0)
    }

    /// How many pods a query counts in each place.
    pub fn by_domain(&mut self, query: QueryId, topology: TopologyId) -> &[u32] {
        let Some(q) = &mut self.queries[query] else { return &[] };
        let at = match q.per_domain.iter().position(|(t, _)| *t == topology) {
            Some(at) => at,
            None => {
                let mut counts = Vec::new();
                let t = &self.topologies[topology];
                for (node, n) in q.per_node.iter().enumerate().filter(|(_, n)| **n > 0) {
                    if let Some(d) = t.of(node) {
                        counts.resize(counts.len().max(d as usize + 1), 0);
                        counts[d as usize] += n;
                    }
                }
                q.per_domain.push((topology, counts));
                q.per_domain.len() - 1
            }
        };
        &q.per_domain[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing;
    use pintle_api::selector::Selector;
    use serde_json::json;

    fn node(zone: &str) -> Arc<Node> {
        Arc::new(testing::node(&json!({"metadata": {"name": "n", "labels": {"zone": zone}}})))
    }

    fn pod(uid: &str, namespace: &str, app: &str) -> Arc<Pod> {
        Arc::new(testing::pod(&json!({"metadata": {"uid": uid, "namespace": namespace, "labels": {"app": app}},
            "spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"}]}}}})))
    }

    #[test]
    fn counts_before_and_after_the_query_is_made() {
        let (mut ix, ns) = (PodIndex::default(), Namespaces::default());
        for (id, zone) in ["a", "a", "b"].into_iter().enumerate() {
            ix.set_node(id, Some(node(zone)));
        }
        let pods = [pod("1", "x", "web"), pod("2", "x", "web"), pod("3", "y", "web"), pod("4", "x", "db")];
        ix.add(&pods[0], 0, &ns);
        ix.add(&pods[2], 0, &ns);
        let who = [Arc::new(Who::in_namespace("x", Selector::parse("app=web").unwrap()))];
        let q = ix.query(&who, false, &ns);
        let zone = ix.topology_id("zone");
        assert_eq!(ix.by_domain(q, zone), [1]);
        ix.add(&pods[1], 2, &ns);
        ix.add(&pods[3], 2, &ns);
        assert_eq!(ix.by_domain(q, zone), [1, 1]);
        assert_eq!((ix.on_node(q, 0), ix.on_node(q, 1), ix.on_node(q, 2)), (1, 0, 1));
        assert_eq!(ix.held_about(&pods[0], &ns).map(|h| h.places.len()).collect::<Vec<_>>(), [2]);
        ix.remove(&pods[0], 0, &ns);
        assert_eq!(ix.by_domain(q, zone), [0, 1]);
        assert_eq!(ix.held_about(&pods[0], &ns).map(|h| h.places.len()).collect::<Vec<_>>(), [1]);
        ix.remove(&pods[1], 2, &ns);
        assert_eq!(ix.held_about(&pods[0], &ns).count(), 0);
        assert_eq!(ix.query(&who, false, &ns), q);
    }

    #[test]
    fn forgets_the_least_used() {
        let (mut ix, ns) = (PodIndex::default(), Namespaces::default());
        let who = |i: usize| [Arc::new(Who::in_namespace(&format!("n{i}"), Selector::everything()))];
        for i in 0..MAX_QUERIES + 10 {
            ix.query(&who(0), true, &ns);
            ix.query(&who(i), true, &ns);
        }
        assert_eq!(ix.query_ids.len(), MAX_QUERIES);
        assert!(ix.query_ids.contains_key(&who(0)[0].text) && !ix.query_ids.contains_key(&who(1)[0].text));
    }
}

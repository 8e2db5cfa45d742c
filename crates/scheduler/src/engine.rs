//! What the scheduler does with what happens: pods and nodes come in, placements and rejections go out. Pure: the clock
//! is passed in, and the caller carries out what is decided.

use std::sync::Arc;

use crate::cache::Cache;
use crate::framework::ClusterEvent;
use crate::framework::profile::{Profile, Search};
use crate::model::{Node, Pod};
use crate::queue::{Pending, Queue};

/// What came of one try.
#[derive(Debug)]
pub enum Outcome {
    /// The pod is assumed on this node and is to be bound.
    Bind(Arc<Pod>, String),
    /// No node takes it; why, in upstream's words.
    Unschedulable(Arc<Pod>, String),
}

/// The scheduler's state.
pub struct Engine {
    profiles: Vec<Profile>,
    cache: Cache,
    queue: Queue,
    search: Search,
}

impl Engine {
    /// An engine with these profiles; the seed decides among equally good nodes.
    #[must_use]
    pub fn new(profiles: Vec<Profile>, seed: u64) -> Self {
        Self { profiles, cache: Cache::default(), queue: Queue::default(), search: Search::new(seed) }
    }

    fn profile(&self, name: &str) -> Option<usize> {
        self.profiles.iter().position(|p| p.name == name)
    }

    /// A pod is there or changed.
    pub fn set_pod(&mut self, old: Option<&Pod>, pod: &Arc<Pod>, now: u64) {
        if pod.finished {
            self.remove_pod(pod, now);
        } else if !pod.node_name.is_empty() {
            let news = !self.cache.is_placed(&pod.uid)
                || self.cache.is_assumed(&pod.uid)
                || old.is_some_and(|o| o.labels != pod.labels || o.requests != pod.requests);
            self.cache.set_pod(pod.clone());
            self.queue.remove(&pod.uid);
            if news {
                self.tell(ClusterEvent::PodAssigned(pod), now);
            }
        } else if let Some(profile) = self.profile(&pod.scheduler_name) {
            if pod.deleting {
                // It will be gone before it could run.
                self.queue.remove(&pod.uid);
            } else if !self.cache.is_assumed(&pod.uid) {
                let gated = self.profiles[profile].pre_enqueue(pod).is_err();
                // Status updates, the scheduler's own among them, are no reason to try again.
                let retry = old.is_some_and(|o| o.generation != pod.generation || o.labels != pod.labels);
                self.queue.set(pod.clone(), gated, retry, now);
            }
        }
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, pod: &Pod, now: u64) {
        self.queue.remove(&pod.uid);
        if let Some(gone) = self.cache.remove_pod(&pod.uid) {
            self.tell(ClusterEvent::PodGone(&gone), now);
        }
    }

    /// A node is there or changed.
    pub fn set_node(&mut self, node: &Arc<Node>, now: u64) {
        match self.cache.set_node(node.clone()) {
            Some(old) => {
                let same = old.labels == node.labels
                    && old.taints == node.taints
                    && old.unschedulable == node.unschedulable
                    && old.allocatable == node.allocatable;
                if !same {
                    self.tell(ClusterEvent::NodeUpdated(&old, node), now);
                }
            }
            None => self.tell(ClusterEvent::NodeAdded(node), now),
        }
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.cache.remove_node(name);
    }

    fn tell(&mut self, event: ClusterEvent<'_>, now: u64) {
        let profiles = &self.profiles;
        self.queue.event(now, |waiting| {
            profiles
                .iter()
                .find(|p| p.name == waiting.pod.scheduler_name)
                .is_some_and(|p| p.hint(&waiting.rejected_by, event, &waiting.pod))
        });
    }

    /// Tries the next pod; `None` when there is none to try now.
    pub fn step(&mut self, now: u64) -> Option<Outcome> {
        let queued = self.queue.pop(now)?;
        let pod = queued.pod;
        let Some(profile) = self.profile(&pod.scheduler_name) else {
            self.queue.done(&pod.uid);
            return self.step(now);
        };
        Some(match self.profiles[profile].place(&pod, &self.cache, &mut self.search) {
            Ok(node) => {
                self.cache.assume(&pod, &node);
                Outcome::Bind(pod, node)
            }
            Err(diagnosis) => {
                let message = diagnosis.message();
                // With no node at all nothing rejected it, and the first node is what it waits for.
                let mut plugins = diagnosis.plugins;
                if plugins.is_empty() {
                    plugins.push("NodeName");
                    plugins.push("NodeResourcesFit");
                }
                self.queue.failed(&pod.uid, plugins, now);
                Outcome::Unschedulable(pod, message)
            }
        })
    }

    /// A binding was accepted.
    pub fn bound(&mut self, pod: &Pod) {
        self.queue.done(&pod.uid);
    }

    /// A binding was refused: the node gets its room back and the pod backs off, unless it is `gone`.
    pub fn unbound(&mut self, pod: &Pod, gone: bool, now: u64) {
        if self.cache.is_assumed(&pod.uid) {
            self.cache.remove_pod(&pod.uid);
            self.tell(ClusterEvent::PodGone(pod), now);
        }
        if gone {
            self.queue.done(&pod.uid);
        } else {
            self.queue.failed(&pod.uid, Vec::new(), now);
        }
    }

    /// Tries again what has been unschedulable for very long.
    pub fn flush_old(&mut self, now: u64) {
        self.queue.flush_old(now);
    }

    /// When the next back-off ends.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.queue.next_wake()
    }

    /// How many pods wait where.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.queue.pending()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire;
    use crate::plugins::default_profile;
    use serde_json::{Value, json};

    fn engine() -> Engine {
        Engine::new(vec![default_profile("default-scheduler")], 7)
    }

    fn node(name: &str, cpu: &str) -> Arc<Node> {
        let text =
            json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}});
        Arc::new(serde_json::from_value::<wire::Node>(text).unwrap().into())
    }

    fn pod(name: &str, spec: Value) -> Arc<Pod> {
        let text = json!({"metadata": {"name": name, "uid": name, "namespace": "d"}, "spec": spec});
        Arc::new(serde_json::from_value::<wire::Pod>(text).unwrap().into())
    }

    fn cpu(name: &str, cpu: &str) -> Arc<Pod> {
        pod(name, json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]}))
    }

    fn step(e: &mut Engine, now: u64) -> String {
        match e.step(now) {
            None => "nothing".into(),
            Some(Outcome::Bind(p, n)) => format!("{} on {n}", p.name),
            Some(Outcome::Unschedulable(p, why)) => format!("{}: {why}", p.name),
        }
    }

    #[test]
    fn places_and_keeps_count() {
        let mut e = engine();
        e.set_node(&node("n", "2"), 0);
        for p in ["a", "b", "c"] {
            e.set_pod(None, &cpu(p, "1"), 0);
        }
        assert_eq!(step(&mut e, 0), "a on n");
        assert_eq!(step(&mut e, 0), "b on n");
        assert_eq!(step(&mut e, 0), "c: 0/1 nodes are available: 1 Insufficient cpu.");
        assert_eq!(step(&mut e, 0), "nothing");
        // Room comes back when a binding is refused and when a pod ends.
        e.unbound(&cpu("a", "1"), true, 10);
        assert_eq!(e.next_wake(), Some(1000));
        assert_eq!(step(&mut e, 1000), "c on n");
    }

    #[test]
    fn waits_for_a_node_that_fits() {
        let mut e = engine();
        e.set_pod(None, &cpu("a", "4"), 0);
        assert_eq!(step(&mut e, 0), "a: no nodes available to schedule pods");
        e.set_node(&node("small", "2"), 2000);
        assert_eq!(step(&mut e, 2000), "nothing");
        e.set_node(&node("large", "4"), 2000);
        assert_eq!(step(&mut e, 2000), "a on large");
        e.bound(&cpu("a", "4"));
        assert_eq!(e.pending(), Pending::default());
    }

    #[test]
    fn spreads_over_equals() {
        let mut e = engine();
        for n in ["a", "b", "c", "d"] {
            e.set_node(&node(n, "4"), 0);
        }
        let mut used = std::collections::BTreeMap::<String, usize>::new();
        for i in 0..8 {
            e.set_pod(None, &cpu(&format!("p{i}"), "1"), 0);
            if let Some(Outcome::Bind(_, n)) = e.step(0) {
                *used.entry(n).or_default() += 1;
            }
        }
        assert_eq!(used.values().copied().collect::<Vec<_>>(), [2, 2, 2, 2]);
    }

    #[test]
    fn other_schedulers_gates_and_deleted_pods_are_left_alone() {
        let mut e = engine();
        e.set_node(&node("n", "4"), 0);
        e.set_pod(None, &pod("a", json!({"schedulerName": "mine"})), 0);
        e.set_pod(None, &pod("b", json!({"schedulingGates": [{"name": "x/y"}]})), 0);
        assert_eq!(step(&mut e, 0), "nothing");
        assert_eq!(e.pending().gated, 1);
        let ungated = pod("b", json!({}));
        e.set_pod(Some(&pod("b", json!({"schedulingGates": [{"name": "x/y"}]}))), &ungated, 0);
        assert_eq!(step(&mut e, 0), "b on n");
    }

    #[test]
    fn named_nodes_only() {
        let mut e = engine();
        for n in ["a", "b"] {
            e.set_node(&node(n, "4"), 0);
        }
        let on = |n: &str| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]}]}}}});
        e.set_pod(None, &pod("x", on("b")), 0);
        assert_eq!(step(&mut e, 0), "x on b");
        e.set_pod(None, &pod("y", on("zz")), 0);
        assert!(
            step(&mut e, 0)
                .starts_with("y: 0/2 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity]")
        );
    }
}

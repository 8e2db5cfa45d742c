//! What the scheduler does with what happens: pods and nodes come in, placements and rejections go out. Pure: the clock
//! is passed in, and the caller carries out what is decided.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::extender::Extender;
use crate::framework::preemption::Nomination;
use crate::framework::profile::{Attempt, Profile, Search};
use crate::framework::{Action, ClusterEvent, Diagnosis};
use crate::model::{Node, Pod};
use crate::queue::{Incoming, Pending, Queue};

pub use crate::framework::profile::Observer;

/// What came of one try.
#[derive(Debug)]
pub enum Outcome {
    /// The pod is assumed on this node and is to be bound, once the actions are done.
    Bind(Arc<Pod>, String, Vec<Action>),
    /// No node takes it.
    Unschedulable(Failure),
}

/// A pod that was placed nowhere.
#[derive(Debug)]
pub struct Failure {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Why, in upstream's words.
    pub message: String,
    /// What `status.nominatedNodeName` is to become, where it is to change.
    pub nominate: Option<String>,
    /// Pods that are to go for it.
    pub victims: Vec<Arc<Pod>>,
    /// Whether it is neither the pod's nor the nodes' fault.
    pub error: bool,
    /// Whether room was looked for.
    pub preempted: bool,
    /// Less important pods that lose their nomination to the same node.
    pub demoted: Vec<Arc<Pod>>,
    /// What is to be given back, because it keeps the pod from all nodes.
    pub gives: Option<Box<Action>>,
}

/// The scheduler's state.
pub struct Engine {
    profiles: Arc<[Profile]>,
    cache: Cache,
    queue: Queue,
    search: Search,
    /// Pods whose victims are being removed, by uid; with how many removals are still to be answered.
    preempting: HashMap<String, usize>,
}

impl Engine {
    /// An engine with these profiles; the seed decides among equally good nodes.
    #[must_use]
    pub fn new(profiles: impl Into<Arc<[Profile]>>, seed: u64) -> Self {
        Self {
            profiles: profiles.into(),
            cache: Cache::default(),
            queue: Queue::default(),
            search: Search::new(seed),
            preempting: HashMap::new(),
        }
    }

    /// The same, measured.
    #[must_use]
    pub fn with_observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.search.observer = Some(observer);
        self
    }

    /// The same, with programs that are asked besides the plugins.
    #[must_use]
    pub fn with_extenders(mut self, extenders: Vec<Arc<dyn Extender>>) -> Self {
        self.search.extenders = extenders;
        self
    }

    /// The same with these first and longest back-offs, in milliseconds.
    #[must_use]
    pub fn with_backoff(mut self, initial: u64, max: u64) -> Self {
        self.queue = Queue::new(initial, max);
        self
    }

    fn profile(&self, name: &str) -> Option<usize> {
        self.profiles.iter().position(|p| p.name == name)
    }

    /// A pod is there or changed.
    pub fn set_pod(&mut self, old: Option<&Pod>, pod: &Arc<Pod>, now: u64) {
        if pod.finished {
            self.remove_pod(pod, now);
        } else if !pod.node_name.is_empty() {
            let assumed = self.cache.is_assumed(&pod.uid);
            let known = self.cache.is_placed(&pod.uid) && !assumed;
            self.cache.take_back_nomination(&pod.uid);
            self.cache.set_pod(pod.clone());
            if !assumed {
                // One that was bound here is told of by `bound`, which may come later.
                self.queue.remove(&pod.uid);
            }
            match old {
                Some(old) if known => {
                    if old.labels != pod.labels || old.requests != pod.requests || old.deleting != pod.deleting {
                        self.tell(ClusterEvent::PodUpdated(old, pod), now);
                    }
                }
                _ => self.tell(ClusterEvent::PodAssigned(pod), now),
            }
        } else if let Some(profile) = self.profile(&pod.scheduler_name) {
            if pod.deleting {
                // It will be gone before it could run.
                self.queue.remove(&pod.uid);
                self.take_back_nomination(&pod.uid, now);
            } else if !self.cache.is_assumed(&pod.uid) {
                if old.is_none_or(|o| o.nominated_node != pod.nominated_node) {
                    self.cache.nominate(pod, &pod.nominated_node);
                } else if let Some(node) = self.cache.nominated.node_of(&pod.uid).map(str::to_owned) {
                    self.cache.nominate(pod, &node);
                }
                let gated = self.profiles[profile].pre_enqueue(pod).is_err();
                // Status updates, the scheduler's own among them, are no reason to try again.
                let retry = old.is_some_and(|o| {
                    o.generation != pod.generation || o.labels != pod.labels || o.resource_claims != pod.resource_claims
                });
                self.queue.set(pod.clone(), gated, retry, now);
            }
        } else {
            // Another scheduler's; a room it was promised is to be kept all the same.
            self.cache.nominate(pod, if pod.deleting { "" } else { &pod.nominated_node });
        }
    }

    /// The room a pod was promised is free for others.
    fn take_back_nomination(&mut self, uid: &str, now: u64) {
        if self.cache.nominated.node_of(uid).is_some() {
            self.cache.take_back_nomination(uid);
            // Whoever was rejected for its sake may be tried again.
            self.queue.event("NominatedPodDelete", now, |_| true);
        }
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, pod: &Pod, now: u64) {
        self.queue.remove(&pod.uid);
        self.preempting.remove(&pod.uid);
        self.take_back_nomination(&pod.uid, now);
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
    pub fn remove_node(&mut self, name: &str, now: u64) {
        if let Some(gone) = self.cache.remove_node(name) {
            self.tell(ClusterEvent::NodeGone(&gone), now);
        }
    }

    /// Another object appeared, changed or is gone.
    pub fn set_object(&mut self, change: &ObjectChange, now: u64) {
        self.cache.apply(change);
        self.tell(ClusterEvent::Object(change), now);
    }

    fn tell(&mut self, event: ClusterEvent<'_>, now: u64) {
        let (profiles, cache) = (&self.profiles, &self.cache);
        self.queue.event(event.name(), now, |waiting| {
            profiles
                .iter()
                .find(|p| p.name == waiting.pod.scheduler_name)
                .is_some_and(|p| p.hint(&waiting.rejected_by, event, &waiting.pod, cache))
        });
    }

    /// Tries the next pod; `None` when there is none to try now.
    pub fn step(&mut self, now: u64) -> Option<Outcome> {
        loop {
            let pod = self.queue.pop(now)?.pod;
            let Some(profile) = self.profile(&pod.scheduler_name) else {
                self.queue.done(&pod.uid);
                continue;
            };
            let profile = &self.profiles[profile];
            return Some(match profile.place(&pod, &mut self.cache, &mut self.search) {
                Attempt::Placed(node) => match profile.reserve(&pod, &node, &mut self.cache) {
                    Ok(actions) => {
                        self.cache.assume(&pod, &node);
                        self.cache.take_back_nomination(&pod.uid);
                        Outcome::Bind(pod, node, actions)
                    }
                    Err((plugin, rejection)) => {
                        let mut diagnosis = Diagnosis { nodes: 1, ..Diagnosis::default() };
                        diagnosis.blame(plugin);
                        self.queue.failed(&pod.uid, diagnosis.plugins, now);
                        Outcome::Unschedulable(Failure::new(pod, rejection.text()))
                    }
                },
                Attempt::Error(why) => {
                    // Nobody rejected it, so it backs off.
                    self.queue.failed(&pod.uid, Vec::new(), now);
                    Outcome::Unschedulable(Failure { error: true, ..Failure::new(pod, why) })
                }
                Attempt::Failed(diagnosis, preemption, gives) => {
                    let mut failure = Failure { gives, ..Failure::new(pod, diagnosis.message()) };
                    if let Some(preemption) = preemption {
                        failure.preempted = true;
                        self.nominate(&mut failure, preemption.nomination);
                    }
                    // With no node at all nothing rejected it, and the first node is what it waits for.
                    let mut plugins = diagnosis.plugins;
                    if plugins.is_empty() {
                        plugins.push("NodeName");
                        plugins.push("NodeResourcesFit");
                    }
                    self.queue.failed(&failure.pod.uid, plugins, now);
                    if self.preempting.contains_key(&failure.pod.uid) {
                        self.queue.hold(&failure.pod.uid);
                    }
                    Outcome::Unschedulable(failure)
                }
            });
        }
    }

    /// Notes what preemption decided.
    fn nominate(&mut self, failure: &mut Failure, nomination: Nomination) {
        let pod = failure.pod.clone();
        match nomination {
            Nomination::Keep => {}
            Nomination::Clear => {
                if self.cache.nominated.node_of(&pod.uid).is_some() || !pod.nominated_node.is_empty() {
                    self.cache.take_back_nomination(&pod.uid);
                    failure.nominate = Some(String::new());
                }
            }
            Nomination::Node(node, victims) => {
                let lesser = self.cache.nominated.on(&node).iter().filter(|p| p.priority < pod.priority);
                failure.demoted = lesser.cloned().collect();
                for p in &failure.demoted {
                    self.cache.take_back_nomination(&p.uid);
                }
                self.cache.nominate(&pod, &node);
                // Those that are on their way out already need no second push.
                failure.victims = victims.into_iter().filter(|v| !v.deleting).collect();
                if !failure.victims.is_empty() {
                    self.preempting.insert(pod.uid.clone(), failure.victims.len());
                }
                failure.nominate = Some(node);
            }
        }
    }

    /// A victim of a pod was removed, or could not be.
    pub fn victim_removed(&mut self, preemptor: &str, removed: bool, now: u64) {
        let Some(left) = self.preempting.get_mut(preemptor) else { return };
        *left -= 1;
        let done = *left == 0;
        if done {
            self.preempting.remove(preemptor);
        }
        if done || !removed {
            // What came meanwhile has moved nobody who was held.
            self.queue.release(preemptor, !removed, now);
        }
    }

    /// A binding was accepted: after how many tries, and when the pod came in.
    pub fn bound(&mut self, pod: &Pod) -> Option<(u32, u64)> {
        self.queue.done(&pod.uid)
    }

    /// A binding was refused: the node gets its room back and the pod backs off, unless it is `gone`.
    pub fn unbound(&mut self, pod: &Pod, gone: bool, now: u64) {
        if let Some(profile) = self.profile(&pod.scheduler_name) {
            self.profiles[profile].unreserve(pod, &mut self.cache);
        }
        let assumed = self.cache.is_assumed(&pod.uid);
        if assumed {
            self.cache.remove_pod(&pod.uid);
            self.tell(ClusterEvent::PodGone(pod), now);
        }
        // A binding whose answer was lost may have been done all the same.
        if gone || !assumed {
            self.queue.done(&pod.uid);
        } else {
            self.queue.failed(&pod.uid, Vec::new(), now);
        }
    }

    /// The cluster as the scheduler sees it.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
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

    /// What came into the queues since this was asked last.
    pub fn take_incoming(&mut self) -> std::collections::BTreeMap<Incoming, usize> {
        self.queue.take_incoming()
    }

    /// How many pods wait where.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.queue.pending()
    }
}

impl Failure {
    fn new(pod: Arc<Pod>, message: String) -> Self {
        Self {
            pod,
            message,
            nominate: None,
            victims: Vec::new(),
            error: false,
            preempted: false,
            demoted: Vec::new(),
            gives: None,
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

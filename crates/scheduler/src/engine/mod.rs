//! What the scheduler does with what happens: pods and nodes come in, placements and rejections go out. Pure: the clock
//! is passed in, and the caller carries out what is decided.

mod group;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::objects::ObjectChange;
use crate::framework::extender::Extender;
use crate::framework::preemption::Nomination;
use crate::framework::profile::{Attempt, Profile, Search};
use crate::framework::{Action, ClusterEvent, Diagnosis, Rejection};
use crate::model::{Node, Pod};
use crate::queue::{Incoming, Pending, Queue};

pub use crate::framework::profile::Observer;
pub use group::GroupNews;
use waiting::Waiting;

/// What came of one try.
#[derive(Debug)]
pub enum Outcome {
    /// The pod is assumed on this node and is to be bound, once the actions are done.
    Bind(Arc<Pod>, String, Vec<Action>),
    /// No node takes it.
    Unschedulable(Failure),
    /// What became of a pod group.
    Group(GroupNews),
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
    /// Pods that have a node and wait for a plugin's permission, by uid.
    waiting: BTreeMap<String, Waiting>,
    /// What came of tries of which several outcomes came.
    outbox: VecDeque<Outcome>,
    /// Whether pods of a group are placed together.
    groups: bool,
    /// Pods that were kept out of the queue and belong to a group, by group.
    held_back: HashMap<String, BTreeSet<String>>,
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
            waiting: BTreeMap::new(),
            outbox: VecDeque::new(),
            groups: false,
            held_back: HashMap::new(),
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

    /// The same, placing pods of a group together or not.
    #[must_use]
    pub fn with_groups(mut self, groups: bool) -> Self {
        self.groups = groups;
        self
    }

    /// The same, remembering what nodes say to one pod for pods alike or not.
    #[must_use]
    pub fn with_batching(mut self, batching: bool) -> Self {
        self.search.batching = batching;
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
            return;
        }
        if self.groups {
            self.cache.groups.join(pod);
        }
        if !pod.node_name.is_empty() {
            let assumed = self.cache.is_assumed(&pod.uid);
            let known = self.cache.is_placed(&pod.uid) && !assumed;
            self.waiting.remove(&pod.uid);
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
                self.stop_waiting(&pod.uid, now);
                self.queue.remove(&pod.uid);
                self.take_back_nomination(&pod.uid, now);
            } else if !self.cache.is_assumed(&pod.uid) {
                if old.is_none_or(|o| o.nominated_node != pod.nominated_node) {
                    self.cache.nominate(pod, &pod.nominated_node);
                } else if let Some(node) = self.cache.nominated.node_of(&pod.uid).map(str::to_owned) {
                    self.cache.nominate(pod, &node);
                }
                let gated = self.profiles[profile].pre_enqueue(pod, &self.cache).is_err();
                // Status updates, the scheduler's own among them, are no reason to try again.
                let retry = old.is_some_and(|o| {
                    o.generation != pod.generation || o.labels != pod.labels || o.resource_claims != pod.resource_claims
                });
                self.queue.set(pod.clone(), gated, retry, now);
                if gated {
                    self.hold_back(pod);
                }
            }
        } else {
            // Another scheduler's; a room it was promised is to be kept all the same.
            self.cache.nominate(pod, if pod.deleting { "" } else { &pod.nominated_node });
        }
        if self.groups && pod.group.is_some() && old.is_none() {
            if pod.node_name.is_empty() {
                self.tell(ClusterEvent::PodAdded(pod), now);
            }
            self.look_at_group(pod.group.as_deref(), "UnscheduledPodAdd");
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
        self.stop_waiting(&pod.uid, now);
        self.queue.remove(&pod.uid);
        self.preempting.remove(&pod.uid);
        self.take_back_nomination(&pod.uid, now);
        self.leave_group(pod);
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
                    && old.allocatable == node.allocatable
                    && old.declared_features == node.declared_features;
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
        if let ObjectChange::PodGroup(d) = change {
            self.look_at_group(d.last().map(|g| g.key()).as_deref(), change.event_name());
        }
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
            self.end_waits(now);
            if let Some(outcome) = self.outbox.pop_front() {
                return Some(outcome);
            }
            let queued = self.queue.pop(now)?;
            let pod = queued.pod.clone();
            let Some(profile) = self.profile(&pod.scheduler_name) else {
                self.queue.done(&pod.uid);
                continue;
            };
            if self.groups && pod.group.is_some() {
                self.try_group(queued, now);
            } else if let Some(outcome) = self.try_pod(pod, profile, now) {
                return Some(outcome);
            }
        }
    }

    /// Tries a pod by itself; nothing when it has a node and waits for a plugin's permission.
    fn try_pod(&mut self, pod: Arc<Pod>, profile: usize, now: u64) -> Option<Outcome> {
        let profile = &self.profiles[profile];
        match profile.place(&pod, &mut self.cache, &mut self.search) {
            Attempt::Placed(node) => match profile.reserve(&pod, &node, &mut self.cache) {
                Ok(actions) => {
                    self.cache.assume(&pod, &node);
                    self.cache.take_back_nomination(&pod.uid);
                    self.permit(pod, node, actions, now)
                }
                Err((plugin, rejection)) => {
                    self.queue.failed(&pod.uid, vec![plugin], now);
                    Some(Outcome::Unschedulable(Failure::new(pod, rejection.text())))
                }
            },
            Attempt::Error(why) => {
                // Nobody rejected it, so it backs off.
                self.queue.failed(&pod.uid, Vec::new(), now);
                Some(Outcome::Unschedulable(Failure { error: true, ..Failure::new(pod, why) }))
            }
            Attempt::Failed(diagnosis, preemption, gives) => {
                let failure = Failure { gives, preempted: preemption.is_some(), ..Failure::of(pod, &diagnosis) };
                let nomination = preemption.map(|p| p.nomination);
                Some(self.failed(failure, blamed(*diagnosis), nomination, now))
            }
        }
    }

    /// A pod was placed nowhere because of these plugins.
    fn failed(
        &mut self,
        mut failure: Failure,
        plugins: Vec<&'static str>,
        nomination: Option<Nomination>,
        now: u64,
    ) -> Outcome {
        let has_room = nomination.is_some_and(|n| self.nominate(&mut failure, n, now));
        let uid = &failure.pod.uid;
        self.queue.failed(uid, plugins, now);
        if self.preempting.contains_key(uid) {
            self.queue.hold(uid);
        } else if has_room {
            self.queue.release(uid, true, now);
        }
        Outcome::Unschedulable(failure)
    }

    /// Notes what preemption decided; whether room was made at once, by pods that only waited for permission.
    fn nominate(&mut self, failure: &mut Failure, nomination: Nomination, now: u64) -> bool {
        let pod = failure.pod.clone();
        let mut has_room = false;
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
                for v in victims {
                    if self.waiting.contains_key(&v.uid) {
                        // It goes back to the queue.
                        self.preempt_waiting(&v.uid, now);
                        has_room = true;
                    } else if !v.deleting {
                        // Those that are on their way out already need no second push.
                        failure.victims.push(v);
                    }
                }
                if !failure.victims.is_empty() {
                    self.preempting.insert(pod.uid.clone(), failure.victims.len());
                }
                failure.nominate = Some(node);
            }
        }
        has_room
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

    /// When the next back-off or wait for a permission ends.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.queue.next_wake().into_iter().chain(self.next_end_of_waiting()).min()
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

/// The plugins that must look again for a pod to be tried again.
fn blamed(diagnosis: Diagnosis) -> Vec<&'static str> {
    let mut plugins = diagnosis.plugins;
    // With no node at all nothing rejected it, and the first node is what it waits for.
    if plugins.is_empty() {
        plugins.push("NodeName");
        plugins.push("NodeResourcesFit");
    }
    plugins
}

impl Failure {
    /// Of a pod that a plugin rejected on the one node chosen for it.
    fn on_its_node(pod: Arc<Pod>, rejection: Rejection) -> Self {
        let diagnosis = Diagnosis { nodes: 1, rejected: vec![(0, rejection)], ..Diagnosis::default() };
        Self::of(pod, &diagnosis)
    }

    fn of(pod: Arc<Pod>, diagnosis: &Diagnosis) -> Self {
        Self::new(pod, diagnosis.message())
    }

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
mod group_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod waiting_tests;

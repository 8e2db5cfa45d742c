//! Pods that wait: ready to be tried (by priority, then age), backing off, or unschedulable until something changes.
//!
//! Pure: time comes in as a number of milliseconds.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use crate::model::Pod;

/// First back-off after a failed try, as upstream.
pub const INITIAL_BACKOFF_MS: u64 = 1_000;
/// Longest back-off, as upstream.
pub const MAX_BACKOFF_MS: u64 = 10_000;
/// After so long an unschedulable pod is tried again even if nothing seemed to concern it, as upstream.
pub const UNSCHEDULABLE_MAX_MS: u64 = 5 * 60 * 1_000;

/// A pod that waits.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Tries so far.
    pub attempts: u32,
    /// Plugins that rejected it last.
    pub rejected_by: Vec<&'static str>,
    /// When it first came in.
    pub since: u64,
    /// When it was last put in.
    stamp: u64,
    /// While room is made for it: whether something that concerns it happened meanwhile.
    held: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    Backoff(u64),
    /// Until an event concerns it.
    Unschedulable,
    /// Until its own spec changes.
    Gated,
    /// Being tried right now.
    InFlight,
}

#[derive(PartialEq, Eq)]
struct Ready {
    priority: i32,
    since: Reverse<u64>,
    order: Reverse<u64>,
    uid: String,
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.priority, &self.since, &self.order).cmp(&(other.priority, &other.since, &other.order))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The queue.
pub struct Queue {
    initial_backoff: u64,
    max_backoff: u64,
    pods: HashMap<String, (Queued, Place)>,
    active: BinaryHeap<Ready>,
    backoff: BinaryHeap<Reverse<(u64, String)>>,
    unschedulable: BTreeSet<String>,
    pending: Pending,
    incoming: BTreeMap<Incoming, usize>,
    order: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(INITIAL_BACKOFF_MS, MAX_BACKOFF_MS)
    }
}

/// How many pods wait where; upstream's `scheduler_pending_pods`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Ready to be tried.
    pub active: usize,
    /// Backing off.
    pub backoff: usize,
    /// Waiting for an event.
    pub unschedulable: usize,
    /// Kept back by a gate.
    pub gated: usize,
}

/// A way into a queue; upstream's `scheduler_queue_incoming_pods_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incoming {
    /// `active`, `backoff`, `unschedulable` or `gated`.
    pub queue: &'static str,
    /// What brought it there.
    pub event: &'static str,
}

impl Pending {
    fn of(&mut self, place: Place) -> Option<(&'static str, &mut usize)> {
        Some(match place {
            Place::Active => ("active", &mut self.active),
            Place::Backoff(_) => ("backoff", &mut self.backoff),
            Place::Unschedulable => ("unschedulable", &mut self.unschedulable),
            Place::Gated => ("gated", &mut self.gated),
            Place::InFlight => return None,
        })
    }
}

impl Queue {
    /// A queue with these first and longest back-offs.
    #[must_use]
    pub fn new(initial_backoff: u64, max_backoff: u64) -> Self {
        Self {
            initial_backoff,
            max_backoff,
            pods: HashMap::new(),
            active: BinaryHeap::new(),
            backoff: BinaryHeap::new(),
            unschedulable: BTreeSet::new(),
            pending: Pending::default(),
            incoming: BTreeMap::new(),
            order: 0,
        }
    }

    /// Puts in a new pod or takes the newest state of a known one. `gated` keeps it back. A change that may matter to
    /// placement (`retry`) takes it out of the unschedulable ones.
    pub fn set(&mut self, pod: Arc<Pod>, gated: bool, retry: bool, now: u64) {
        let uid = pod.uid.clone();
        let Some((queued, place)) = self.pods.get_mut(&uid) else {
            let queued = Queued { pod, attempts: 0, rejected_by: Vec::new(), since: now, stamp: now, held: None };
            // In flight for the moment, which no queue counts.
            self.pods.insert(uid.clone(), (queued, Place::InFlight));
            self.put(&uid, if gated { Place::Gated } else { Place::Active }, "UnscheduledPodAdd");
            return;
        };
        queued.pod = pod;
        match *place {
            Place::Gated if !gated => self.put(&uid, Place::Active, "UnscheduledPodUpdate"),
            Place::Unschedulable if gated => self.put(&uid, Place::Gated, "UnscheduledPodUpdate"),
            Place::Unschedulable if retry => self.wake_up(&uid, "UnscheduledPodUpdate", now),
            _ => {}
        }
    }

    /// Moves a pod; every change of place comes through here.
    fn put(&mut self, uid: &str, to: Place, event: &'static str) {
        let Some((queued, place)) = self.pods.get_mut(uid) else { return };
        if let Some((_, n)) = self.pending.of(*place) {
            *n -= 1;
        }
        if *place == Place::Unschedulable {
            self.unschedulable.remove(uid);
        }
        *place = to;
        if let Some((queue, n)) = self.pending.of(to) {
            *n += 1;
            *self.incoming.entry(Incoming { queue, event }).or_default() += 1;
        }
        match to {
            Place::Active => {
                self.order += 1;
                self.active.push(Ready {
                    priority: queued.pod.priority,
                    since: Reverse(queued.stamp),
                    order: Reverse(self.order),
                    uid: uid.to_owned(),
                });
            }
            Place::Backoff(until) => self.backoff.push(Reverse((until, uid.to_owned()))),
            Place::Unschedulable => {
                self.unschedulable.insert(uid.to_owned());
            }
            Place::Gated | Place::InFlight => {}
        }
    }

    /// An unschedulable pod is kept back while room is made for it.
    pub fn hold(&mut self, uid: &str) {
        if let Some((queued, Place::Unschedulable)) = self.pods.get_mut(uid) {
            queued.held = Some(false);
        }
    }

    /// A pod is no longer kept back. It is tried again if something concerned it meanwhile, or in any case.
    pub fn release(&mut self, uid: &str, in_any_case: bool, now: u64) {
        let Some((queued, place)) = self.pods.get_mut(uid) else { return };
        let missed = queued.held.take();
        if *place == Place::Unschedulable && (in_any_case || missed == Some(true)) {
            self.requeue(uid, "ForceActivate", now);
        }
    }

    /// Whether a pod is kept back while room is made for it.
    #[must_use]
    pub fn is_held(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|(q, _)| q.held.is_some())
    }

    /// A pod that a gate kept back is to be tried.
    pub fn ungate(&mut self, uid: &str, event: &'static str) {
        if let Some((_, Place::Gated)) = self.pods.get(uid) {
            self.put(uid, Place::Active, event);
        }
    }

    /// A pod is to be tried now, whatever it waits for; not one that is kept back.
    pub fn activate(&mut self, uid: &str) {
        if let Some((Queued { held: None, .. }, Place::Unschedulable | Place::Backoff(_))) = self.pods.get(uid) {
            self.put(uid, Place::Active, "ForceActivate");
        }
    }

    /// An unschedulable pod is to be tried again, as soon as nothing holds it.
    fn wake_up(&mut self, uid: &str, event: &'static str, now: u64) {
        match self.pods.get_mut(uid).map(|(q, _)| &mut q.held) {
            Some(Some(missed)) => *missed = true,
            _ => self.requeue(uid, event, now),
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        self.put(uid, Place::InFlight, "");
        self.pods.remove(uid);
    }

    /// Back to the active ones, or to the backing-off ones while its back-off lasts.
    fn requeue(&mut self, uid: &str, event: &'static str, now: u64) {
        let Some((queued, _)) = self.pods.get(uid) else { return };
        let doublings = queued.attempts.saturating_sub(1).min(16);
        let backoff = self.initial_backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        let until = queued.stamp.saturating_add(backoff);
        self.put(uid, if until > now { Place::Backoff(until) } else { Place::Active }, event);
    }

    /// The next pod to try. It is in flight until [`Queue::done`] or [`Queue::failed`].
    pub fn pop(&mut self, now: u64) -> Option<Queued> {
        self.wake(now);
        while let Some(ready) = self.active.pop() {
            let Some((queued, Place::Active)) = self.pods.get_mut(&ready.uid) else { continue };
            if queued.pod.priority != ready.priority {
                // Put in with another priority since; with this one it has no turn.
                self.put(&ready.uid, Place::Active, "UnscheduledPodUpdate");
                continue;
            }
            queued.attempts += 1;
            let next = queued.clone();
            self.put(&ready.uid, Place::InFlight, "");
            return Some(next);
        }
        None
    }

    /// Takes a certain pod, whatever it waits for, as [`Queue::pop`] does; not one that is kept back.
    pub fn pop_this(&mut self, uid: &str) -> Option<Queued> {
        let (queued, place) = self.pods.get_mut(uid)?;
        if matches!(place, Place::Gated | Place::InFlight) || queued.held.is_some() {
            return None;
        }
        queued.attempts += 1;
        let next = queued.clone();
        self.put(uid, Place::InFlight, "");
        Some(next)
    }

    /// A pod that is known.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.get(uid).map(|(q, _)| &q.pod)
    }

    /// Moves pods whose back-off is over.
    fn wake(&mut self, now: u64) {
        while let Some(Reverse((until, uid))) = self.backoff.peek() {
            if *until > now {
                break;
            }
            let (until, uid) = (*until, uid.clone());
            self.backoff.pop();
            if matches!(self.pods.get(&uid), Some((_, Place::Backoff(u))) if *u == until) {
                self.put(&uid, Place::Active, "BackoffComplete");
            }
        }
    }

    /// When the next back-off ends.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.backoff.peek().map(|Reverse((until, _))| *until)
    }

    /// A try ended well: how many there were, and when the pod came in.
    pub fn done(&mut self, uid: &str) -> Option<(u32, u64)> {
        let (queued, _) = self.pods.get(uid)?;
        let facts = (queued.attempts, queued.since);
        self.remove(uid);
        Some(facts)
    }

    /// A try failed: it waits for an event that concerns the plugins that rejected it or, with none, backs off.
    pub fn failed(&mut self, uid: &str, rejected_by: Vec<&'static str>, now: u64) {
        let Some((queued, _)) = self.pods.get_mut(uid) else { return };
        queued.stamp = now;
        queued.rejected_by = rejected_by;
        if queued.rejected_by.is_empty() {
            self.requeue(uid, "ScheduleAttemptFailure", now);
        } else {
            self.put(uid, Place::Unschedulable, "ScheduleAttemptFailure");
        }
    }

    /// Something happened: unschedulable pods for which `concerns` says yes are to be tried again.
    pub fn event(&mut self, event: &'static str, now: u64, mut concerns: impl FnMut(&Queued) -> bool) {
        let concerned = |uid: &&String| self.pods.get(*uid).is_some_and(|(q, _)| concerns(q));
        let moved: Vec<String> = self.unschedulable.iter().filter(concerned).cloned().collect();
        for uid in moved {
            self.wake_up(&uid, event, now);
        }
    }

    /// Pods unschedulable for very long are tried again, come what may.
    pub fn flush_old(&mut self, now: u64) {
        self.event("UnschedulableTimeout", now, |q| q.stamp + UNSCHEDULABLE_MAX_MS <= now);
    }

    /// Whether a pod is known.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// How many pods wait where.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.pending
    }

    /// What came into the queues since this was asked last.
    pub fn take_incoming(&mut self) -> BTreeMap<Incoming, usize> {
        std::mem::take(&mut self.incoming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<Pod> {
        Arc::new(Pod { uid: uid.into(), priority, ..Pod::default() })
    }

    fn popped(q: &mut Queue, now: u64) -> Vec<String> {
        std::iter::from_fn(|| q.pop(now)).map(|x| x.pod.uid.clone()).collect()
    }

    #[test]
    fn by_priority_then_age() {
        let mut q = Queue::default();
        for (uid, priority, now) in [("a", 0, 1), ("b", 5, 2), ("c", 0, 2), ("d", 0, 2)] {
            q.set(pod(uid, priority), false, false, now);
        }
        assert_eq!(popped(&mut q, 3), ["b", "a", "c", "d"]);
    }

    #[test]
    fn failed_pods_wait_for_what_concerns_them() {
        let mut q = Queue::default();
        q.set(pod("a", 0), false, false, 0);
        assert_eq!(popped(&mut q, 0), ["a"]);
        q.failed("a", vec!["NodeResourcesFit"], 10);
        assert_eq!(q.pending().unschedulable, 1);
        q.event("e", 20, |w| w.rejected_by == ["TaintToleration"]);
        assert_eq!(popped(&mut q, 20), Vec::<String>::new());
        q.event("e", 30, |w| w.rejected_by == ["NodeResourcesFit"]);
        // Its first back-off of a second counts from the failure.
        assert_eq!(q.next_wake(), Some(1010));
        assert_eq!(popped(&mut q, 1009), Vec::<String>::new());
        assert_eq!(popped(&mut q, 1010), ["a"]);
        q.failed("a", vec![], 1010);
        assert_eq!(q.next_wake(), Some(3010));
        assert_eq!(popped(&mut q, 3010), ["a"]);
        q.failed("a", vec!["x"], 4000);
        q.flush_old(4000 + UNSCHEDULABLE_MAX_MS);
        assert_eq!(popped(&mut q, 4000 + UNSCHEDULABLE_MAX_MS), ["a"]);
        q.done("a");
        assert!(!q.contains("a"));
    }

    #[test]
    fn gates_updates_and_removal() {
        let mut q = Queue::default();
        q.set(pod("a", 0), true, false, 0);
        assert_eq!((q.pending().gated, q.pop(0).is_none()), (1, true));
        q.set(pod("a", 0), false, true, 1);
        q.set(pod("b", 0), false, false, 1);
        q.remove("b");
        assert_eq!(popped(&mut q, 1), ["a"]);
        // A changed spec is tried again, after its back-off.
        q.failed("a", vec!["NodeAffinity"], 5);
        q.set(pod("a", 0), false, true, 6);
        assert_eq!(q.next_wake(), Some(1005));
    }
}

//! Pods that wait: ready to be tried (by priority, then age), backing off, or unschedulable until something changes.
//!
//! Pure: time comes in as a number of milliseconds.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
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
#[derive(Default)]
pub struct Queue {
    pods: HashMap<String, (Queued, Place)>,
    active: BinaryHeap<Ready>,
    backoff: BinaryHeap<Reverse<(u64, String)>>,
    order: u64,
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

impl Queue {
    /// Puts in a new pod or takes the newest state of a known one. `gated` keeps it back. A change that may matter to
    /// placement (`retry`) takes it out of the unschedulable ones.
    pub fn set(&mut self, pod: Arc<Pod>, gated: bool, retry: bool, now: u64) {
        let uid = pod.uid.clone();
        let Some((queued, place)) = self.pods.get_mut(&uid) else {
            let queued = Queued { pod, attempts: 0, rejected_by: Vec::new(), since: now, stamp: now, held: None };
            self.pods.insert(uid.clone(), (queued, Place::Gated));
            if !gated {
                self.activate(&uid);
            }
            return;
        };
        queued.pod = pod;
        match *place {
            Place::Gated if !gated => self.activate(&uid),
            Place::Unschedulable if gated => *place = Place::Gated,
            Place::Unschedulable if retry => self.wake_up(&uid, now),
            _ => {}
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
            self.requeue(uid, now);
        }
    }

    /// An unschedulable pod is to be tried again, as soon as nothing holds it.
    fn wake_up(&mut self, uid: &str, now: u64) {
        match self.pods.get_mut(uid).map(|(q, _)| &mut q.held) {
            Some(Some(missed)) => *missed = true,
            _ => self.requeue(uid, now),
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    fn activate(&mut self, uid: &str) {
        if let Some((queued, place)) = self.pods.get_mut(uid) {
            *place = Place::Active;
            self.order += 1;
            self.active.push(Ready {
                priority: queued.pod.priority,
                since: Reverse(queued.stamp),
                order: Reverse(self.order),
                uid: uid.to_owned(),
            });
        }
    }

    /// Back to the active ones, or to the backing-off ones while its back-off lasts.
    fn requeue(&mut self, uid: &str, now: u64) {
        let Some((queued, place)) = self.pods.get_mut(uid) else { return };
        let until = queued.stamp + backoff(queued.attempts);
        if until > now {
            *place = Place::Backoff(until);
            self.backoff.push(Reverse((until, uid.to_owned())));
        } else {
            self.activate(uid);
        }
    }

    /// The next pod to try. It is in flight until [`Queue::done`] or [`Queue::failed`].
    pub fn pop(&mut self, now: u64) -> Option<Queued> {
        self.wake(now);
        while let Some(ready) = self.active.pop() {
            if let Some((queued, place @ Place::Active)) = self.pods.get_mut(&ready.uid)
                && queued.pod.priority == ready.priority
            {
                *place = Place::InFlight;
                queued.attempts += 1;
                return Some(queued.clone());
            }
            // Otherwise it was removed, or put in again with another priority.
            if self.pods.get(&ready.uid).is_some_and(|(q, p)| *p == Place::Active && q.pod.priority != ready.priority) {
                self.activate(&ready.uid);
            }
        }
        None
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
                self.activate(&uid);
            }
        }
    }

    /// When the next back-off ends.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.backoff.peek().map(|Reverse((until, _))| *until)
    }

    /// A try ended well.
    pub fn done(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// A try failed: it waits for an event that concerns the plugins that rejected it or, with none, backs off.
    pub fn failed(&mut self, uid: &str, rejected_by: Vec<&'static str>, now: u64) {
        let Some((queued, place)) = self.pods.get_mut(uid) else { return };
        queued.stamp = now;
        queued.rejected_by = rejected_by;
        if queued.rejected_by.is_empty() {
            self.requeue(uid, now);
        } else {
            *place = Place::Unschedulable;
        }
    }

    /// Something happened: unschedulable pods for which `concerns` says yes are to be tried again.
    pub fn event(&mut self, now: u64, mut concerns: impl FnMut(&Queued) -> bool) {
        let moved: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, (q, place))| *place == Place::Unschedulable && concerns(q))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in moved {
            self.wake_up(&uid, now);
        }
    }

    /// Pods unschedulable for very long are tried again, come what may.
    pub fn flush_old(&mut self, now: u64) {
        let old: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, (q, p))| *p == Place::Unschedulable && q.stamp + UNSCHEDULABLE_MAX_MS <= now)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in old {
            self.wake_up(&uid, now);
        }
    }

    /// Whether a pod is known.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// How many pods wait where.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let mut out = Pending::default();
        for (_, place) in self.pods.values() {
            match place {
                Place::Active => out.active += 1,
                Place::Backoff(_) => out.backoff += 1,
                Place::Unschedulable => out.unschedulable += 1,
                Place::Gated => out.gated += 1,
                Place::InFlight => {}
            }
        }
        out
    }
}

fn backoff(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    (INITIAL_BACKOFF_MS << doublings).min(MAX_BACKOFF_MS)
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
        q.event(20, |w| w.rejected_by == ["TaintToleration"]);
        assert_eq!(popped(&mut q, 20), Vec::<String>::new());
        q.event(30, |w| w.rejected_by == ["NodeResourcesFit"]);
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

//! Pods that have their node and wait until every plugin that asked them to permits their binding.

use std::sync::Arc;
use std::time::Duration;

use pintle_api::duration;

use super::{Engine, Failure, Outcome};
use crate::framework::{Action, ClusterEvent, Permission, Rejection};
use crate::model::Pod;

/// No wait is longer, in milliseconds, as upstream.
const MAX_WAIT_MS: u64 = 15 * 60 * 1000;

/// A pod that waits.
pub(super) struct Waiting {
    pod: Arc<Pod>,
    node: String,
    actions: Vec<Action>,
    pending: Vec<Wait>,
}

/// What it waits for.
struct Wait {
    plugin: &'static str,
    /// When that plugin's patience ends.
    until: u64,
    milliseconds: u64,
}

impl Engine {
    /// Asks for permission to bind a pod that is on its node already; nothing when it has to wait.
    pub(super) fn permit(&mut self, pod: Arc<Pod>, node: String, actions: Vec<Action>, now: u64) -> Option<Outcome> {
        let profile = self.profile(&pod.scheduler_name)?;
        match self.profiles[profile].permit(&pod, &node, &self.cache) {
            Ok(waits) if waits.is_empty() => {
                self.allow_others(profile, &pod);
                Some(Outcome::Bind(pod, node, actions))
            }
            Ok(waits) => {
                let mut pending = Vec::with_capacity(waits.len());
                for (plugin, permission) in waits {
                    if let Permission::Wait { milliseconds, activate } = permission {
                        let milliseconds = milliseconds.min(MAX_WAIT_MS);
                        pending.push(Wait { plugin, until: now.saturating_add(milliseconds), milliseconds });
                        activate.iter().for_each(|uid| self.queue.activate(uid));
                    }
                }
                self.waiting.insert(pod.uid.clone(), Waiting { pod, node, actions, pending });
                None
            }
            Err((plugin, rejection)) => Some(self.turn_back(pod, vec![plugin], rejection, now)),
        }
    }

    /// What the plugins say to waiting pods now that this one may be bound.
    fn allow_others(&mut self, profile: usize, pod: &Pod) {
        let profile = &self.profiles[profile];
        let mut allowed = Vec::new();
        for (uid, w) in self.waiting.iter_mut().filter(|(_, w)| w.pod.scheduler_name == pod.scheduler_name) {
            for plugin in profile.allow_too(pod, &w.pod) {
                w.pending.retain(|wait| wait.plugin != plugin);
            }
            if w.pending.is_empty() {
                allowed.push(uid.clone());
            }
        }
        for uid in allowed {
            if let Some(w) = self.waiting.remove(&uid) {
                self.outbox.push_back(Outcome::Bind(w.pod, w.node, w.actions));
            }
        }
    }

    /// Turns back those whose time is over.
    pub(super) fn end_waits(&mut self, now: u64) {
        if self.next_end_of_waiting().is_none_or(|at| at > now) {
            return;
        }
        let over = |w: &Waiting| {
            let wait = w.pending.iter().filter(|wait| wait.until <= now).min_by_key(|wait| wait.until)?;
            let waited = duration::format(Duration::from_millis(wait.milliseconds));
            let why = format!("rejected due to timeout after waiting {waited} at plugin {}", wait.plugin);
            Some((wait.plugin, why))
        };
        let ended: Vec<_> = self.waiting.iter().filter_map(|(uid, w)| Some((uid.clone(), over(w)?))).collect();
        for (uid, (plugin, why)) in ended {
            if let Some(w) = self.waiting.remove(&uid) {
                let outcome = self.turn_back(w.pod, vec![plugin], Rejection::new(why), now);
                self.outbox.push_back(outcome);
            }
        }
    }

    pub(super) fn next_end_of_waiting(&self) -> Option<u64> {
        self.waiting.values().flat_map(|w| &w.pending).map(|wait| wait.until).min()
    }

    /// A waiting pod makes room for a more important one: it goes back to the queue.
    pub(super) fn preempt_waiting(&mut self, uid: &str, now: u64) {
        if let Some(w) = self.waiting.remove(uid) {
            let outcome = self.turn_back(w.pod, Vec::new(), Rejection::new("preempted"), now);
            self.outbox.push_back(outcome);
        }
    }

    /// A waiting pod is about to be gone.
    pub(super) fn stop_waiting(&mut self, uid: &str, now: u64) {
        if let Some(w) = self.waiting.remove(uid) {
            self.leave_node(&w.pod, now);
        }
    }

    /// A pod that is on its node is not bound after all, because of these plugins.
    fn turn_back(&mut self, pod: Arc<Pod>, plugins: Vec<&'static str>, why: Rejection, now: u64) -> Outcome {
        self.leave_node(&pod, now);
        self.queue.failed(&pod.uid, plugins, now);
        Outcome::Unschedulable(Failure::on_its_node(pod, why))
    }

    /// Gives back what a pod was given with its node.
    fn leave_node(&mut self, pod: &Pod, now: u64) {
        if let Some(profile) = self.profile(&pod.scheduler_name) {
            self.profiles[profile].unreserve(pod, &mut self.cache);
        }
        if self.cache.remove_pod(&pod.uid).is_some() {
            self.tell(ClusterEvent::PodGone(pod), now);
        }
    }
}

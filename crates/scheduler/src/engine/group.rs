//! Pod groups: their pods are tried in one go, and what comes of it is for all of them.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Engine, Failure, Outcome, blamed};
use crate::framework::Action;
use crate::framework::preemption::Nomination;
use crate::framework::profile::{Attempt, Profile};
use crate::model::Pod;
use crate::queue::Queued;

/// The plugin that keeps gangs together.
const GANG: &str = "GangScheduling";
/// Upstream's words for all that befalls a pod for the sake of others of its group.
const UNSCHEDULABLE: &str = "pod group is unschedulable";

/// What became of a pod group: its condition `PodGroupScheduled`.
#[derive(Debug, PartialEq, Eq)]
pub struct GroupNews {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.generation` of what was seen of it.
    pub generation: i64,
    /// Whether it is scheduled.
    pub scheduled: bool,
    /// Whether that is new.
    pub changed: bool,
    /// `Scheduled`, `Unschedulable` or `SchedulerError`.
    pub reason: &'static str,
    /// Why.
    pub message: String,
}

/// What came of trying one pod of a group.
enum Tried {
    /// It is on this node for the time being.
    Placed { node: String, actions: Vec<Action> },
    /// It would be on this node if these pods went; for the time being all that is so.
    Preempts { node: String, victims: Vec<Arc<Pod>>, failure: Failure, plugins: Vec<&'static str> },
    /// It is on none.
    Rejected { failure: Failure, plugins: Vec<&'static str>, nomination: Option<Nomination> },
    /// It could not be tried.
    Error(String),
}

/// A pod that is supposed to have made room.
struct Gone {
    pod: Arc<Pod>,
    node: String,
    assumed: bool,
}

/// What came of trying a group.
enum Verdict {
    Feasible,
    WaitsForVictims,
    Unschedulable,
    Error(String),
}

impl Engine {
    /// A pod is kept out of the queue, maybe for its group's sake.
    pub(super) fn hold_back(&mut self, pod: &Pod) {
        if let Some(key) = pod.group.as_ref().filter(|_| self.groups) {
            self.held_back.entry(key.clone()).or_default().insert(pod.uid.clone());
        }
    }

    /// A pod is gone or has ended.
    pub(super) fn leave_group(&mut self, pod: &Pod) {
        self.cache.groups.leave(pod);
        if let Some(key) = &pod.group
            && let Some(held) = self.held_back.get_mut(key)
        {
            held.remove(&pod.uid);
            if held.is_empty() {
                self.held_back.remove(key);
            }
        }
    }

    /// Something of a group changed: those of its pods that were kept back for its sake may enter the queue.
    pub(super) fn look_at_group(&mut self, key: Option<&str>, event: &'static str) {
        let Some((key, mut held)) = key.and_then(|key| self.held_back.remove_entry(key)) else { return };
        let mut still = std::collections::BTreeSet::new();
        while let Some(uid) = held.pop_first() {
            let Some(pod) = self.queue.pod(&uid) else { continue };
            let Some(profile) = self.profile(&pod.scheduler_name) else { continue };
            match self.profiles[profile].pre_enqueue(pod, &self.cache) {
                Ok(()) => self.queue.ungate(&uid, event),
                Err((plugin, _)) => {
                    still.insert(uid);
                    if plugin == GANG {
                        // The others would hear the same.
                        break;
                    }
                }
            }
        }
        still.append(&mut held);
        if !still.is_empty() {
            self.held_back.insert(key, still);
        }
    }

    /// Tries a pod and all others of its group that wait.
    pub(super) fn try_group(&mut self, first: Queued, now: u64) {
        let Some(key) = first.pod.group.clone() else { return };
        let others: Vec<String> = self.cache.groups.without_node(&key).cloned().collect();
        if others.iter().any(|uid| self.queue.is_held(uid)) {
            // While room is made for one of them, the others wait, too.
            self.queue.failed(&first.pod.uid, vec![GANG], now);
            return;
        }
        let mut members = vec![first];
        members.extend(others.iter().filter_map(|uid| self.queue.pop_this(uid)));
        members.sort_by(|a, b| {
            let order = |q: &Queued| (Reverse(q.pod.priority), q.since);
            order(a).cmp(&order(b)).then_with(|| (&a.pod.created, &a.pod.name).cmp(&(&b.pod.created, &b.pod.name)))
        });
        let members: Vec<Arc<Pod>> = members.into_iter().map(|q| q.pod).collect();
        let name = &members[0].scheduler_name;
        if let Some(other) = members.iter().map(|p| &p.scheduler_name).find(|other| *other != name) {
            let why = format!(
                "all pods in a single pod group should have the same .spec.schedulerName set, got: {name:?} and {other:?}"
            );
            members.into_iter().for_each(|pod| self.error(pod, why.clone(), now));
            return;
        }
        let Some(profile) = self.profile(name) else { return };
        let profiles = self.profiles.clone();
        let (verdict, tried) = self.try_members(&profiles[profile], &members);
        self.tell_group(&key, &verdict);
        self.conclude(&verdict, members, tried, now);
    }

    /// Tries pods one after the other, each with those before it where they were put. Unless all is well nothing stays as
    /// it was tried.
    fn try_members(&mut self, profile: &Profile, members: &[Arc<Pod>]) -> (Verdict, Vec<Tried>) {
        let (mut verdict, mut preempts) = (Verdict::Unschedulable, false);
        let mut tried = Vec::with_capacity(members.len());
        let mut gone = Vec::new();
        for pod in members {
            let (one, permitted) = self.try_member(profile, pod, &mut gone);
            preempts |= matches!(one, Tried::Preempts { .. });
            match permitted {
                Some(true) if preempts => verdict = Verdict::WaitsForVictims,
                Some(true) => verdict = Verdict::Feasible,
                _ => {}
            }
            let error = if let Tried::Error(why) = &one { Some(why.clone()) } else { None };
            tried.push(one);
            if let Some(why) = error {
                verdict = Verdict::Error(format!("failed to schedule other pod from a pod group: {why}"));
                break;
            }
        }
        let stays = matches!(verdict, Verdict::Feasible);
        for (pod, one) in members.iter().zip(&tried).rev() {
            if matches!(one, Tried::Preempts { .. }) || (!stays && matches!(one, Tried::Placed { .. })) {
                profile.unreserve(pod, &mut self.cache);
                self.cache.remove_pod(&pod.uid);
            }
        }
        self.come_back(gone);
        (verdict, tried)
    }

    /// Supposes pods gone from a node.
    fn suppose_gone(&mut self, pods: &[Arc<Pod>], node: &str) -> Vec<Gone> {
        let mut gone = Vec::with_capacity(pods.len());
        for p in pods {
            let assumed = self.cache.is_assumed(&p.uid);
            gone.extend(self.cache.remove_pod(&p.uid).map(|pod| Gone { pod, node: node.to_owned(), assumed }));
        }
        gone
    }

    /// They are not gone.
    fn come_back(&mut self, gone: Vec<Gone>) {
        for Gone { pod, node, assumed } in gone {
            if assumed {
                self.cache.assume(&pod, &node);
            } else {
                self.cache.set_pod(pod);
            }
        }
    }

    /// Tries a pod and puts it where it would be; whether it would be permitted, when it is put somewhere.
    fn try_member(&mut self, profile: &Profile, pod: &Arc<Pod>, gone: &mut Vec<Gone>) -> (Tried, Option<bool>) {
        let mut room = Vec::new();
        let rejected = |failure, plugins, nomination| (Tried::Rejected { failure, plugins, nomination }, None);
        let mut one = match profile.place(pod, &mut self.cache, &mut self.search) {
            Attempt::Error(why) => return (Tried::Error(why), None),
            Attempt::Placed(node) => Tried::Placed { node, actions: Vec::new() },
            Attempt::Failed(diagnosis, preemption, gives) => {
                let failure =
                    Failure { gives, preempted: preemption.is_some(), ..Failure::of(pod.clone(), &diagnosis) };
                let plugins = blamed(*diagnosis);
                match preemption.map(|p| p.nomination) {
                    Some(Nomination::Node(node, victims)) => {
                        room = self.suppose_gone(&victims, &node);
                        Tried::Preempts { node, victims, failure, plugins }
                    }
                    nomination => return rejected(failure, plugins, nomination),
                }
            }
        };
        let (Tried::Placed { node, .. } | Tried::Preempts { node, .. }) = &one else { return (one, None) };
        let node = node.clone();
        match profile.reserve(pod, &node, &mut self.cache) {
            Ok(more) => {
                if let Tried::Placed { actions, .. } = &mut one {
                    *actions = more;
                }
            }
            Err((plugin, why)) => {
                self.come_back(room);
                let failure = Failure::new(pod.clone(), why.text());
                return rejected(failure, vec![plugin], Some(Nomination::Clear));
            }
        }
        self.cache.assume(pod, &node);
        self.cache.take_back_nomination(&pod.uid);
        match profile.permit(pod, &node, &self.cache) {
            Ok(waits) => {
                gone.append(&mut room);
                (one, Some(waits.is_empty()))
            }
            Err((plugin, why)) => {
                profile.unreserve(pod, &mut self.cache);
                self.cache.remove_pod(&pod.uid);
                self.come_back(room);
                rejected(Failure::on_its_node(pod.clone(), why), vec![plugin], Some(Nomination::Clear))
            }
        }
    }

    /// What is to be done with the pods.
    fn conclude(&mut self, verdict: &Verdict, members: Vec<Arc<Pod>>, tried: Vec<Tried>, now: u64) {
        let mut tried = tried.into_iter();
        for pod in members {
            let one = tried.next();
            let outcome = match (verdict, one) {
                (Verdict::Error(of_group), one) => {
                    let why = if let Some(Tried::Error(own)) = one { own } else { of_group.clone() };
                    self.error(pod, why, now);
                    continue;
                }
                (Verdict::Feasible, Some(Tried::Placed { node, actions })) => {
                    let Some(outcome) = self.permit(pod, node, actions, now) else { continue };
                    outcome
                }
                (Verdict::WaitsForVictims, Some(Tried::Placed { node, .. })) => {
                    let why = format!("{UNSCHEDULABLE}, pod group is waiting for preemption to complete");
                    let nomination = Nomination::Node(node, Vec::new());
                    self.failed(Failure::new(pod, why), vec![GANG], Some(nomination), now)
                }
                (Verdict::WaitsForVictims, Some(Tried::Preempts { node, victims, failure, plugins })) => {
                    self.failed(failure, plugins, Some(Nomination::Node(node, victims)), now)
                }
                (_, Some(Tried::Rejected { failure, plugins, nomination })) => {
                    self.failed(failure, plugins, nomination, now)
                }
                (_, Some(Tried::Preempts { failure, plugins, .. })) => {
                    let failure = Failure { preempted: failure.preempted, ..Failure::new(pod.clone(), waits(&pod)) };
                    self.failed(failure, plugins, Some(Nomination::Clear), now)
                }
                (_, _) => {
                    let why = waits(&pod);
                    self.failed(Failure::new(pod, why), vec![GANG], Some(Nomination::Clear), now)
                }
            };
            self.outbox.push_back(outcome);
        }
    }

    /// A pod could not be tried: it backs off.
    fn error(&mut self, pod: Arc<Pod>, why: String, now: u64) {
        let mut failure = Failure { error: true, ..Failure::new(pod, why) };
        self.nominate(&mut failure, Nomination::Clear, now);
        self.queue.failed(&failure.pod.uid, Vec::new(), now);
        self.outbox.push_back(Outcome::Unschedulable(failure));
    }

    /// Tells what became of a group, unless that is known. One that was scheduled once stays so, whatever becomes of pods
    /// that are more than it needs.
    fn tell_group(&mut self, key: &str, verdict: &Verdict) {
        let Some(group) = self.cache.objects.pod_groups.get(key) else { return };
        let (reason, message) = match verdict {
            Verdict::Feasible => ("Scheduled", String::new()),
            Verdict::WaitsForVictims => {
                ("Unschedulable", format!("{UNSCHEDULABLE}, pod group is waiting for preemption to complete"))
            }
            Verdict::Unschedulable => ("Unschedulable", UNSCHEDULABLE.to_owned()),
            Verdict::Error(why) => ("SchedulerError", why.clone()),
        };
        let scheduled = matches!(verdict, Verdict::Feasible);
        let status = if scheduled { "True" } else { "False" };
        let known = group.status.conditions.iter().find(|c| c.kind == "PodGroupScheduled");
        let changed = known.is_none_or(|c| c.status != status);
        if known.is_some_and(|c| c.status == "True" || (!changed && c.reason == reason && c.message == message)) {
            return;
        }
        let m = &group.metadata;
        self.outbox.push_back(Outcome::Group(GroupNews {
            namespace: m.namespace.clone(),
            name: m.name.clone(),
            generation: m.generation,
            scheduled,
            changed,
            reason,
            message,
        }));
    }
}

/// Upstream's words for a pod that would have been placed, had its group been.
fn waits(pod: &Pod) -> String {
    format!("{UNSCHEDULABLE}, one or more plugins asked to wait and no plugin rejected pod {:?}", pod.name)
}

//! A Deployment's conditions: available, progressing, failing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus};
use pintle_client::clock::{since, time};

use super::replicasets::{desired, max_unavailable, name_of, size, sum};

pub const CREATE_ERROR: &str = "ReplicaSetCreateError";
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

pub fn new(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

pub fn get<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|c| c.type_ != kind);
    }
}

/// Sets a condition, unless it is there with the same status and reason.
pub fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(old) = get(status, &condition.type_) {
        if old.status == condition.status && old.reason == condition.reason {
            return;
        }
        if old.status == condition.status {
            condition.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

pub fn has_deadline(d: &Deployment) -> bool {
    deadline(d).is_some()
}

fn deadline(d: &Deployment) -> Option<Duration> {
    let seconds = d.spec.as_ref()?.progress_deadline_seconds.filter(|s| *s != i32::MAX)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// The condition that pausing and resuming leave, so that the time between does not count as lack of progress.
pub fn paused(d: &Deployment, now: Timestamp) -> Option<DeploymentStatus> {
    if !has_deadline(d) {
        return None;
    }
    let mut status = d.status.clone().unwrap_or_default();
    let reason = get(&status, "Progressing").and_then(|c| c.reason.clone()).unwrap_or_default();
    if reason == TIMED_OUT {
        return None;
    }
    let is_paused = d.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let (reason, message) = match (is_paused, reason == PAUSED) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return None,
    };
    set(&mut status, new("Progressing", "Unknown", reason, message.into(), now));
    Some(status)
}

/// The status that follows from the ReplicaSets, the conditions of progress left as they are.
pub fn status(d: &Deployment, all: &[ReplicaSet], new_set: Option<&ReplicaSet>, now: Timestamp) -> DeploymentStatus {
    let old = d.status.clone().unwrap_or_default();
    let of = |f: fn(&ReplicaSetStatus) -> i32| sum(all, |r| r.status.as_ref().map_or(0, f));
    let nonzero = |n: i32| (n != 0).then_some(n);
    let available = of(|s| s.available_replicas.unwrap_or(0));
    let says = |r: &ReplicaSet| r.status.as_ref().is_some_and(|s| s.terminating_replicas.is_some());
    let mut out = DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: nonzero(of(|s| s.replicas)),
        updated_replicas: nonzero(new_set.and_then(|r| r.status.as_ref()).map_or(0, |s| s.replicas)),
        ready_replicas: nonzero(of(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((sum(all, size) - available).max(0)),
        terminating_replicas: (all.is_empty() || all.iter().any(says))
            .then(|| of(|s| s.terminating_replicas.unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let condition = if available >= desired(d) - max_unavailable(d) {
        new("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into(), now)
    } else {
        new(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".into(),
            now,
        )
    };
    set(&mut out, condition);
    out
}

/// Whether the rollout is through.
pub fn complete(d: &Deployment, s: &DeploymentStatus) -> bool {
    let want = Some(desired(d));
    s.updated_replicas.or(Some(0)) == want
        && s.replicas.or(Some(0)) == want
        && s.available_replicas.or(Some(0)) == want
        && s.observed_generation >= d.metadata.generation
}

fn progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn timed_out(d: &Deployment, s: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(limit), Some(c)) = (deadline(d), get(s, "Progressing")) else { return false };
    match c.reason.as_deref() {
        Some(AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => c.last_update_time.as_ref().is_some_and(|t| since(t.0, now) > limit),
    }
}

/// Adds what a rollout says about itself: progress, completion, lack of progress, failure to make pods.
pub fn rollout(d: &Deployment, all: &[ReplicaSet], new_set: Option<&ReplicaSet>, now: Timestamp) -> DeploymentStatus {
    let mut out = status(d, all, new_set, now);
    let old = d.status.clone().unwrap_or_default();
    if !has_deadline(d) {
        remove(&mut out, "Progressing");
    }
    let current = get(&old, "Progressing").cloned();
    let through = out.replicas == out.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(AVAILABLE));
    if has_deadline(d) && !through {
        let what = match new_set {
            Some(r) => format!("ReplicaSet {:?}", name_of(r)),
            None => format!("Deployment {:?}", d.metadata.name.as_deref().unwrap_or_default()),
        };
        if complete(d, &out) {
            set(&mut out, new("Progressing", "True", AVAILABLE, format!("{what} has successfully progressed."), now));
        } else if progressing(&old, &out) {
            let mut c = new("Progressing", "True", "ReplicaSetUpdated", format!("{what} is progressing."), now);
            if let Some(current) = current.filter(|c| c.status == "True") {
                c.last_transition_time = current.last_transition_time;
            }
            // Each step renews the time that the deadline counts from.
            remove(&mut out, "Progressing");
            out.conditions.get_or_insert_default().push(c);
        } else if timed_out(d, &old, now) {
            set(&mut out, new("Progressing", "False", TIMED_OUT, format!("{what} has timed out progressing."), now));
        }
    }
    let failure =
        |r: &ReplicaSet| r.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure").cloned();
    match new_set.and_then(failure).or_else(|| all.iter().find_map(failure)) {
        Some(c) => set(
            &mut out,
            DeploymentCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_update_time: c.last_transition_time.clone(),
                last_transition_time: c.last_transition_time,
            },
        ),
        None => remove(&mut out, "ReplicaFailure"),
    }
    out
}

/// When to look again for a rollout that makes no progress.
pub fn stuck_check(d: &Deployment, s: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let limit = deadline(d)?;
    let c = get(s, "Progressing")?;
    if complete(d, s) || c.reason.as_deref() == Some(TIMED_OUT) || c.reason.as_deref() == Some(AVAILABLE) {
        return None;
    }
    let passed = since(c.last_update_time.as_ref()?.0, now);
    // A second more, for times are kept in whole seconds.
    Some(limit.saturating_sub(passed) + Duration::from_secs(1))
}

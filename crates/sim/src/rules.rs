//! What becomes of a pod on a simulated node. Pure: the clock is passed in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use pintle_api::duration;
use pintle_client::OwnerRef;
use serde::Deserialize;

/// Annotation of a pod that says how long it runs before it ends by itself, such as `30s`.
pub const RUN_FOR: &str = "pintle.internal/run-for";
/// Annotation of a pod that says with what status its containers end.
pub const EXIT_CODE: &str = "pintle.internal/exit-code";

/// First pause before a container is started again, and the longest, as the kubelet's.
const BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// What becomes of pods that do not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a pod takes to start.
    pub start_delay: Duration,
    /// How long pods of Jobs run.
    pub job_runs_for: Duration,
}

/// What is read of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub generation: i64,
    pub annotations: BTreeMap<String, String>,
    pub finalizers: Vec<String>,
    pub owner_references: Vec<OwnerRef>,
    pub creation_timestamp: Option<Timestamp>,
    pub deletion_timestamp: Option<Timestamp>,
    pub deletion_grace_period_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub node_name: String,
    pub host_network: bool,
    pub restart_policy: String,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub readiness_gates: Vec<Gate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub name: String,
    pub image: String,
    pub restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Gate {
    pub condition_type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub phase: String,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<IpAddr>,
    pub start_time: Option<Timestamp>,
    pub conditions: Vec<Condition>,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub last_transition_time: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub restart_count: u32,
    pub state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub running: Option<Running>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Running {
    pub started_at: Option<Timestamp>,
}

/// Whether a condition holds.
pub(crate) fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|c| c.kind == kind && c.status == "True")
}

/// What is to be done about a pod now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until it changes.
    Nothing,
    /// To look again after so long.
    After(Duration),
    /// It starts.
    Start,
    /// It becomes ready or unready, as its readiness gates say.
    Ready(bool),
    /// Its containers have ended with this exit status and start again.
    Restart(i32),
    /// It ends with this exit status.
    Finish(i32),
    /// It was asked to go, and goes; whether others want to see first that it has ended.
    Remove(bool),
}

impl Pod {
    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    /// Whether the conditions that others keep let it be ready.
    pub(crate) fn gates_open(&self) -> bool {
        self.spec.readiness_gates.iter().all(|g| holds(&self.status.conditions, &g.condition_type))
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// How often its containers were started again.
    pub(crate) fn restarts(&self) -> u32 {
        self.status.container_statuses.first().map_or(0, |s| s.restart_count)
    }

    /// When its containers started.
    pub(crate) fn running_since(&self) -> Option<Timestamp> {
        let of = |s: &ContainerStatus| s.state.running.as_ref()?.started_at;
        self.status.container_statuses.iter().find_map(of).filter(|_| self.status.phase == "Running")
    }

    /// How long it runs and with what it ends, when it ends by itself.
    fn end(&self, rules: &Rules) -> Option<(Duration, i32)> {
        let code = self.metadata.annotations.get(EXIT_CODE).and_then(|c| c.parse().ok()).unwrap_or(0);
        if let Some(runs_for) = self.metadata.annotations.get(RUN_FOR).and_then(|d| duration::parse(d).ok()) {
            return Some((runs_for, code));
        }
        let of_job = self.metadata.owner_references.iter().any(|o| o.controller && o.kind == "Job");
        of_job.then_some((rules.job_runs_for, code))
    }
}

fn left(of: Duration, since: Option<Timestamp>, now: Timestamp) -> Duration {
    of.saturating_sub(since.map_or(of, |since| pintle_client::clock::since(since, now)))
}

/// What is to be done about a pod of a simulated node.
#[must_use]
pub fn decide(pod: &Pod, rules: &Rules, now: Timestamp) -> Next {
    if pod.metadata.deletion_timestamp.is_some() {
        // With no grace left it waits for its finalizers alone.
        return match pod.metadata.deletion_grace_period_seconds {
            Some(0) => Next::Nothing,
            _ => Next::Remove(!pod.is_finished() && !pod.metadata.finalizers.is_empty()),
        };
    }
    if pod.is_finished() {
        return Next::Nothing;
    }
    let Some(since) = pod.running_since() else {
        let bound = pod.condition("PodScheduled").and_then(|c| c.last_transition_time);
        let left = left(rules.start_delay, bound.or(pod.metadata.creation_timestamp), now);
        return if left.is_zero() { Next::Start } else { Next::After(left) };
    };
    let mut next = Next::Nothing;
    if let Some((runs_for, code)) = pod.end(rules) {
        let ends = match (pod.spec.restart_policy.as_str(), code) {
            ("Never", _) | ("OnFailure", 0) => Next::Finish(code),
            _ => Next::Restart(code),
        };
        let pause = match (&ends, pod.restarts()) {
            (Next::Restart(_), n) => BACKOFF.saturating_mul(1 << n.min(8)).min(MAX_BACKOFF),
            _ => Duration::ZERO,
        };
        let left = left(runs_for + pause, Some(since), now);
        if left.is_zero() {
            return ends;
        }
        next = Next::After(left);
    }
    let open = pod.gates_open();
    if open == holds(&pod.status.conditions, "Ready") { next } else { Next::Ready(open) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2024-01-01T00:01:00Z";

    fn check(pod: &Value, want: &Next) {
        let rules = Rules { start_delay: Duration::from_secs(5), job_runs_for: Duration::from_secs(30) };
        let parsed: Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!(decide(&parsed, &rules, NOW.parse().unwrap()), *want, "{pod}");
    }

    fn merge(mut a: Value, b: Value) -> Value {
        match (&mut a, b) {
            (Value::Object(x), Value::Object(y)) => {
                for (k, v) in y {
                    let old = x.remove(&k).unwrap_or_default();
                    x.insert(k, merge(old, v));
                }
                a
            }
            (_, b) => b,
        }
    }

    fn pending(bound_at: &str) -> Value {
        json!({"metadata": {"name": "p", "creationTimestamp": bound_at}, "spec": {"nodeName": "n", "restartPolicy": "Always"},
            "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": bound_at}]}})
    }

    fn running(since: &str, policy: &str) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "restartPolicy": policy},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"restartCount": 0, "state": {"running": {"startedAt": since}}}]}})
    }

    #[test]
    fn pods_start_after_a_while_and_run() {
        check(&pending("2024-01-01T00:00:57Z"), &Next::After(Duration::from_secs(2)));
        check(&pending("2024-01-01T00:00:55Z"), &Next::Start);
        check(&running("2024-01-01T00:00:01Z", "Always"), &Next::Nothing);
    }

    #[test]
    fn pods_of_jobs_finish() {
        let job = json!({"metadata": {"ownerReferences": [{"kind": "Job", "name": "j", "controller": true}]}});
        let at = |since: &str, policy: &str| merge(running(since, policy), job.clone());
        check(&at("2024-01-01T00:00:40Z", "Never"), &Next::After(Duration::from_secs(10)));
        check(&at("2024-01-01T00:00:30Z", "Never"), &Next::Finish(0));
        check(&at("2024-01-01T00:00:30Z", "OnFailure"), &Next::Finish(0));
        let done = merge(at("2024-01-01T00:00:30Z", "Never"), json!({"status": {"phase": "Succeeded"}}));
        check(&done, &Next::Nothing);
    }

    #[test]
    fn annotations_decide() {
        let with = |policy: &str, annotations: Value| {
            merge(running("2024-01-01T00:00:50Z", policy), json!({"metadata": {"annotations": annotations}}))
        };
        let runs = |d: &str, code: &str| json!({RUN_FOR: d, EXIT_CODE: code});
        check(&with("Never", runs("10s", "3")), &Next::Finish(3));
        check(&with("Never", runs("15s", "3")), &Next::After(Duration::from_secs(5)));
        check(&with("Never", runs("soon", "3")), &Next::Nothing);
        // What starts again does so after a pause.
        check(&with("OnFailure", runs("0s", "1")), &Next::Restart(1));
        check(&with("Always", runs("5s", "0")), &Next::After(Duration::from_secs(5)));
        check(&with("OnFailure", runs("10s", "0")), &Next::Finish(0));
    }

    #[test]
    fn readiness_gates_are_followed() {
        let gate = |status: &str, ready: &str| {
            merge(
                running("2024-01-01T00:00:50Z", "Always"),
                json!({"spec": {"readinessGates": [{"conditionType": "g"}]},
                    "status": {"conditions": [{"type": "Ready", "status": ready}, {"type": "g", "status": status}]}}),
            )
        };
        check(&gate("True", "True"), &Next::Nothing);
        check(&gate("True", "False"), &Next::Ready(true));
        check(&gate("False", "True"), &Next::Ready(false));
    }

    #[test]
    fn pods_that_are_to_go_go() {
        let going = |grace: i64, more: Value| {
            let asked = json!({"deletionTimestamp": NOW, "deletionGracePeriodSeconds": grace});
            merge(merge(running("2024-01-01T00:00:50Z", "Always"), json!({"metadata": asked})), more)
        };
        let finalizers = json!({"metadata": {"finalizers": ["batch.kubernetes.io/job-tracking"]}});
        check(&going(30, json!({})), &Next::Remove(false));
        check(&going(30, finalizers.clone()), &Next::Remove(true));
        check(&going(30, merge(finalizers.clone(), json!({"status": {"phase": "Failed"}}))), &Next::Remove(false));
        check(&going(0, finalizers), &Next::Nothing);
    }
}

//! A pod's conditions.

use super::phase::{any_regular_started, find};
use super::restart;
use super::spec::{self, is_sidecar};
use super::state::{RuntimeState, sandbox_needed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition types that the node agent alone writes.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

/// Whether the node agent owns a condition type.
#[must_use]
pub fn is_own(kind: &str) -> bool {
    OWN.contains(&kind)
}

fn condition(pod: &Pod, kind: &str, ok: bool, reason: &str, message: String) -> PodCondition {
    PodCondition {
        type_: kind.into(),
        status: if ok { "True" } else { "False" }.into(),
        reason: (!reason.is_empty()).then(|| reason.into()),
        message: (!message.is_empty()).then_some(message),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// `[a b c]`, as a list of names reads in messages.
fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn words(parts: [(&str, &[&str]); 2]) -> String {
    let parts = parts.iter().filter(|(_, list)| !list.is_empty());
    parts.map(|(what, list)| format!("containers with {what} status: {}", names(list))).collect::<Vec<_>>().join(", ")
}

fn containers_ready(pod: &Pod, kind: &str, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let (mut unknown, mut unready) = (vec![], vec![]);
    let sidecars = spec::init_containers(pod).iter().filter(|c| is_sidecar(c));
    for c in sidecars.chain(&spec::spec(pod).containers) {
        match find(statuses, &c.name) {
            None => unknown.push(c.name.as_str()),
            Some(s) if !s.ready => unready.push(c.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, kind, false, "PodCompleted", String::new());
    }
    if phase == "Failed" {
        return condition(pod, kind, false, "PodFailed", String::new());
    }
    let message = words([("unknown", &unknown), ("unready", &unready)]);
    if message.is_empty() {
        condition(pod, kind, true, "", message)
    } else {
        condition(pod, kind, false, "ContainersNotReady", message)
    }
}

fn ready(pod: &Pod, others: &[PodCondition], statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let containers = containers_ready(pod, "Ready", statuses, phase);
    if containers.status != "True" {
        return containers;
    }
    let mut messages = vec![];
    for gate in spec::spec(pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match others.iter().find(|c| c.type_ == *kind) {
            None => messages.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(c) if c.status != "True" => {
                messages.push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        containers
    } else {
        condition(pod, "Ready", false, "ReadinessGatesNotReady", messages.join(", "))
    }
}

fn initialized(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let kind = "Initialized";
    let (mut unknown, mut incomplete) = (vec![], vec![]);
    for c in spec::init_containers(pod) {
        match find(statuses, &c.name) {
            None => unknown.push(c.name.as_str()),
            Some(s) => {
                if !(if is_sidecar(c) { s.started == Some(true) } else { s.ready }) {
                    incomplete.push(c.name.as_str());
                }
            }
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, kind, true, "PodCompleted", String::new());
    }
    let message = words([("unknown", &unknown), ("incomplete", &incomplete)]);
    if message.is_empty() || any_regular_started(pod, statuses) {
        condition(pod, kind, true, "", String::new())
    } else {
        condition(pod, kind, false, "ContainersNotInitialized", message)
    }
}

/// Whether all containers are being restarted, of pods in which that may happen.
fn restarting(pod: &Pod, runtime: &RuntimeState, phase: &str) -> Option<PodCondition> {
    let kind = "AllContainersRestarting";
    restart::may_restart_all(pod).then(|| match phase {
        "Succeeded" => condition(pod, kind, false, "PodCompleted", String::new()),
        "Failed" => condition(pod, kind, false, "PodFailed", String::new()),
        _ if restart::restarts_all(pod, runtime) => {
            let message = "container exited with restart policy rule";
            condition(pod, kind, true, "RestartAllContainersStarted", message.into())
        }
        _ => condition(pod, kind, false, "", String::new()),
    })
}

/// All conditions: others' as they are, then the node agent's own. Transition times are kept from `old` where the status
/// is the same.
#[must_use]
pub fn conditions(
    pod: &Pod,
    old: &[PodCondition],
    runtime: &RuntimeState,
    statuses: &[ContainerStatus],
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let mut all: Vec<PodCondition> = old.iter().filter(|c| !is_own(&c.type_)).cloned().collect();
    let no_sandbox = sandbox_needed(spec::host_network(pod), runtime).is_some();
    let own = [
        condition(pod, "PodReadyToStartContainers", !no_sandbox, "", String::new()),
        initialized(pod, statuses, phase),
        ready(pod, &all, statuses, phase),
        containers_ready(pod, "ContainersReady", statuses, phase),
        condition(pod, "PodScheduled", true, "", String::new()),
    ];
    for mut c in own.into_iter().chain(restarting(pod, runtime, phase)) {
        let before = old.iter().find(|o| o.type_ == c.type_ && o.status == c.status);
        c.last_transition_time = before.and_then(|o| o.last_transition_time.clone()).or(Some(Time(now)));
        all.push(c);
    }
    all
}

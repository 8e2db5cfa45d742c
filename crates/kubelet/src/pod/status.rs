//! A pod's status as the API shows it, from the pod, the runtime's state and the probes' verdicts.

use super::conditions::conditions;
use super::phase::{find, now as state_of, phase};
use super::restart;
use super::spec::{self, Kind, is_sidecar};
use super::state::{RuntimeState, Verdict, Verdicts, restart_count, round};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pintle_runtime as rt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Why a container does not run although it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `ErrImagePull`, `CrashLoopBackOff`, …
    pub reason: String,
    /// The same for humans.
    pub message: String,
}

/// The pod's end by the node's decision: rejection, eviction, deadline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ending {
    /// `Evicted`, `DeadlineExceeded`, `OutOfcpu`, …
    pub reason: String,
    /// The same for humans.
    pub message: String,
    /// Conditions to add (`DisruptionTarget`).
    pub conditions: Vec<PodCondition>,
}

impl Ending {
    /// The node agent takes the pod away for want of room.
    #[must_use]
    pub fn evicted(message: String) -> Self {
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("TerminationByKubelet".into()),
            message: Some(message.clone()),
            ..Default::default()
        };
        Self { reason: "Evicted".into(), message, conditions: vec![condition] }
    }
}

/// What [`status`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What was reported before.
    pub old: &'a PodStatus,
    /// What the runtime has.
    pub runtime: &'a RuntimeState,
    /// What the probes said.
    pub verdicts: &'a Verdicts,
    /// Why containers wait, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// What containers wrote to their termination message files, by container id.
    pub messages: &'a BTreeMap<String, String>,
    /// The node's addresses, the primary first.
    pub host_ips: &'a [IpAddr],
    /// What ended the pod, if the node did.
    pub ended: Option<&'a Ending>,
    /// Nothing of the pod will be started again, and nothing runs.
    pub terminal: bool,
    /// How a wish for other resources stands.
    pub resize: Option<&'a PodCondition>,
    /// Now.
    pub now: Timestamp,
}

/// The scheme of container ids.
pub const RUNTIME_NAME: &str = "pintle";

fn time(nanos: i64) -> Option<Time> {
    // The API's times have seconds only.
    Timestamp::from_second(nanos.div_euclid(1_000_000_000)).ok().map(Time)
}

/// A container id as the API shows it.
#[must_use]
pub fn container_id(id: &str) -> String {
    format!("{RUNTIME_NAME}://{id}")
}

fn terminated(v: &View<'_>, s: &rt::ContainerStatus) -> ContainerStateTerminated {
    let message = v.messages.get(&s.id).filter(|m| !m.is_empty()).cloned().unwrap_or_else(|| s.message.clone());
    ContainerStateTerminated {
        container_id: Some(container_id(&s.id)),
        exit_code: s.exit_code,
        finished_at: time(s.finished_at),
        message: (!message.is_empty()).then_some(message),
        reason: (!s.reason.is_empty()).then(|| s.reason.clone()),
        signal: None,
        started_at: time(s.started_at),
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: (!reason.is_empty()).then(|| reason.into()),
            message: (!message.is_empty()).then(|| message.into()),
        }),
        ..Default::default()
    }
}

fn state(v: &View<'_>, s: &rt::ContainerStatus) -> ContainerState {
    match s.state {
        rt::ContainerState::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(s.started_at) }),
            ..Default::default()
        },
        rt::ContainerState::Exited => ContainerState { terminated: Some(terminated(v, s)), ..Default::default() },
        rt::ContainerState::Created | rt::ContainerState::Unknown => waiting("", ""),
    }
}

fn volume_mounts(c: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = c.volume_mounts.as_ref()?.iter().map(|m| {
        let read_only = m.read_only == Some(true);
        VolumeMountStatus {
            mount_path: m.mount_path.clone(),
            name: m.name.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| match m.recursive_read_only.as_deref() {
                Some(on @ ("Enabled" | "IfPossible")) => if on == "Enabled" { on } else { "Enabled" }.into(),
                _ => "Disabled".into(),
            }),
            volume_status: None,
        }
    });
    Some(mounts.collect())
}

/// The status of one container before readiness is known.
fn container_status(v: &View<'_>, kind: Kind, c: &Container, has_init: bool) -> ContainerStatus {
    let default_reason = if has_init && kind == Kind::Regular { "PodInitializing" } else { "ContainerCreating" };
    let default_reason = if kind == Kind::Init && has_init { "PodInitializing" } else { default_reason };
    let mut out = ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        state: Some(waiting(default_reason, "")),
        last_state: Some(ContainerState::default()),
        ..Default::default()
    };
    let mut runs = v.runtime.of(&c.name);
    let Some(newest) = runs.next() else {
        keep_from_old(v, kind, c, &mut out);
        apply_waiting(v, kind, c, None, &mut out);
        return out;
    };
    out.state = Some(state(v, newest));
    if newest.state == rt::ContainerState::Created {
        out.state = Some(waiting(default_reason, ""));
    }
    // It ran before all were restarted, and has yet to be started anew.
    let past = kind != Kind::Ephemeral && round(newest) < v.runtime.round();
    if past {
        out.last_state = out.state.replace(waiting(default_reason, ""));
    }
    out.restart_count = i32::try_from(restart_count(newest)).unwrap_or(i32::MAX);
    out.container_id = Some(container_id(&newest.id));
    out.image_id = newest.image_ref.clone();
    if !newest.image.is_empty() {
        out.image = newest.image.clone();
    }
    if past {
        // What it was is its last state.
    } else if let Some(before) = runs.find(|s| s.state == rt::ContainerState::Exited) {
        out.last_state = Some(ContainerState { terminated: Some(terminated(v, before)), ..Default::default() });
    } else if out.restart_count > 0 {
        // The container before is gone from the runtime; what was reported of it stays.
        let old = old_status(v, kind, &c.name);
        let told = old.filter(|o| o.restart_count == out.restart_count).and_then(|o| o.last_state.clone());
        let ended = old.and_then(|o| o.state.clone()).filter(|s| s.terminated.is_some());
        out.last_state = told.or(ended).or(Some(ContainerState::default()));
    }
    if kind != Kind::Ephemeral {
        let requests = c.resources.as_ref().and_then(|r| r.requests.clone());
        out.allocated_resources = requests;
        if newest.state == rt::ContainerState::Running {
            out.resources = Some(ResourceRequirements {
                limits: c.resources.as_ref().and_then(|r| r.limits.clone()),
                requests: c.resources.as_ref().and_then(|r| r.requests.clone()),
                claims: None,
            });
        }
    }
    out.user = newest.user.as_ref().map(|u| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: u.uid,
            gid: u.gid,
            supplemental_groups: Some(u.supplemental_groups.clone()).filter(|g| !g.is_empty()),
        }),
    });
    out.volume_mounts = volume_mounts(c);
    apply_waiting(v, kind, c, Some(newest), &mut out);
    out
}

fn old_status<'a>(v: &View<'a>, kind: Kind, name: &str) -> Option<&'a ContainerStatus> {
    let list = match kind {
        Kind::Init => &v.old.init_container_statuses,
        Kind::Regular => &v.old.container_statuses,
        Kind::Ephemeral => &v.old.ephemeral_container_statuses,
    };
    find(list.as_deref().unwrap_or_default(), name)
}

/// The runtime has no trace of a container of which something was reported before.
fn keep_from_old(v: &View<'_>, kind: Kind, c: &Container, out: &mut ContainerStatus) {
    let Some(old) = old_status(v, kind, &c.name) else { return };
    if state_of(old).terminated.is_some() {
        // It ended and was cleaned away.
        *out = old.clone();
    } else if state_of(old).running.is_some() {
        let lost = ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..Default::default()
        };
        let lost = ContainerState { terminated: Some(lost), ..Default::default() };
        out.restart_count = old.restart_count;
        if v.terminal || v.pod.metadata.deletion_timestamp.is_some() {
            out.state = Some(lost);
        } else {
            let words =
                "The container could not be located when the pod was deleted.  The container used to be Running";
            if let Some(t) = lost.terminated {
                out.last_state = Some(ContainerState {
                    terminated: Some(ContainerStateTerminated { message: Some(words.into()), ..t }),
                    ..Default::default()
                });
            }
            out.restart_count += 1;
        }
    } else {
        out.restart_count = old.restart_count;
        out.last_state.clone_from(&old.last_state);
    }
}

/// A container that is to be started but could not be is waiting; how it ended last moves to the last state.
fn apply_waiting(v: &View<'_>, kind: Kind, c: &Container, s: Option<&rt::ContainerStatus>, out: &mut ContainerStatus) {
    let Some(w) = v.waiting.get(&c.name) else { return };
    let again = match (kind, s) {
        (_, None) => true,
        (Kind::Init, Some(s)) if s.state == rt::ContainerState::Exited => {
            is_sidecar(c) || (s.exit_code != 0 && restart::init_after_failure(v.pod, c, s.exit_code))
        }
        (Kind::Ephemeral, Some(s)) => s.state == rt::ContainerState::Created,
        (_, Some(s)) => restart::wanted(v.pod, c, Some(s)),
    };
    if !again || v.terminal {
        return;
    }
    if out.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        out.last_state = out.state.take();
    }
    out.state = Some(waiting(&w.reason, &w.message));
}

/// Sets `started` and `ready`.
fn readiness(v: &View<'_>, kind: Kind, c: &Container, out: &mut ContainerStatus) {
    let running = state_of(out).running.is_some();
    let id = out.container_id.as_deref().and_then(|i| i.split_once("://")).map(|(_, id)| id).unwrap_or_default();
    if kind == Kind::Init && !is_sidecar(c) {
        out.ready = state_of(out).terminated.as_ref().is_some_and(|t| t.exit_code == 0);
        out.started = Some(running);
        return;
    }
    if kind == Kind::Ephemeral {
        return;
    }
    let started = running && (c.startup_probe.is_none() || v.verdicts.startup.get(id) == Some(&Verdict::Success));
    out.started = Some(started);
    out.ready = started && (c.readiness_probe.is_none() || v.verdicts.readiness.get(id) == Some(&Verdict::Success));
}

/// Puts the node's words for a container that never ran, in a pod that is over.
fn close_waiting(list: &mut [ContainerStatus]) {
    for s in list.iter_mut().filter(|s| state_of(s).waiting.is_some() && s.container_id.is_none()) {
        // Nothing ran and nothing will: it stays waiting with its reason, as upstream leaves it.
        s.started = Some(false);
    }
}

/// Whether all are being restarted, and some regular container is still to be.
fn restarted_in_part(v: &View<'_>) -> bool {
    let now = v.runtime.round();
    now > 0 && spec::spec(v.pod).containers.iter().any(|c| v.runtime.latest(&c.name).is_none_or(|s| round(s) < now))
}

/// What the pod as a whole has: all that was granted, and, where it asks as a whole, that.
fn of_pod(pod: &Pod) -> (Option<BTreeMap<String, Quantity>>, Option<ResourceRequirements>) {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (_, c) in spec::containers(pod).filter(|(kind, _)| *kind != Kind::Ephemeral) {
        names.extend(c.resources.iter().filter_map(|r| r.requests.as_ref()).flat_map(|r| r.keys().cloned()));
    }
    let own = spec::spec(pod).resources.as_ref();
    names.extend(own.and_then(|r| r.requests.as_ref()).into_iter().flat_map(|r| r.keys().cloned()));
    let granted = names
        .into_iter()
        .filter_map(|name| {
            let total = spec::pod_total(pod, &name, false)?.to_string();
            Some((name, Quantity(total)))
        })
        .collect::<BTreeMap<_, _>>();
    let whole = own.cloned().filter(|r| r.requests.is_some() || r.limits.is_some());
    (Some(granted).filter(|g| !g.is_empty()), whole)
}

/// The status.
#[must_use]
pub fn status(v: &View<'_>) -> PodStatus {
    let has_init = !spec::init_containers(v.pod).is_empty();
    let (mut init, mut regular, mut ephemeral) = (vec![], vec![], vec![]);
    for (kind, c) in spec::containers(v.pod) {
        let mut s = container_status(v, kind, &c, has_init);
        readiness(v, kind, &c, &mut s);
        match kind {
            Kind::Init => init.push(s),
            Kind::Regular => regular.push(s),
            Kind::Ephemeral => ephemeral.push(s),
        }
    }
    if v.terminal {
        for list in [&mut init, &mut regular] {
            close_waiting(list);
        }
    }
    let all: Vec<ContainerStatus> = init.iter().chain(&regular).cloned().collect();
    let mut phase = match v.ended {
        Some(_) => "Failed",
        None => phase(v.pod, &all, v.terminal),
    };
    let anew = restart::restarts_all(v.pod, v.runtime) || restarted_in_part(v);
    if anew && v.ended.is_none() && matches!(phase, "Succeeded" | "Failed") {
        phase = "Pending";
    }
    // A final phase is never left again.
    if let Some(last @ ("Succeeded" | "Failed")) = v.old.phase.as_deref() {
        phase = if last == "Failed" { "Failed" } else { "Succeeded" };
    }
    // Nothing of it will ever run.
    if v.terminal && phase != "Succeeded" && !spec::is_static(v.pod) {
        phase = "Failed";
    }
    let old_conditions = v.old.conditions.as_deref().unwrap_or_default();
    let mut conditions = conditions(v.pod, old_conditions, v.runtime, &all, phase, v.now);
    for mut extra in v.ended.iter().flat_map(|e| e.conditions.clone()).chain(v.resize.cloned()) {
        let before = old_conditions.iter().find(|o| o.type_ == extra.type_ && o.status == extra.status);
        extra.last_transition_time = before.and_then(|o| o.last_transition_time.clone()).or(Some(Time(v.now)));
        extra.observed_generation = v.pod.metadata.generation;
        conditions.retain(|c| c.type_ != extra.type_);
        conditions.push(extra);
    }
    let (reason, message) = match v.ended {
        Some(e) => (Some(e.reason.clone()), Some(e.message.clone()).filter(|m| !m.is_empty())),
        // A reason someone gave for a final phase stays with it.
        None if matches!(v.old.phase.as_deref(), Some("Succeeded" | "Failed")) => {
            (v.old.reason.clone(), v.old.message.clone())
        }
        None => (None, None),
    };
    let ips = ips(v);
    let (allocated_resources, resources) = of_pod(v.pod);
    PodStatus {
        allocated_resources,
        resources,
        conditions: Some(conditions),
        container_statuses: Some(regular),
        ephemeral_container_statuses: Some(ephemeral).filter(|l| !l.is_empty()),
        host_ip: v.host_ips.first().map(ToString::to_string),
        host_ips: Some(v.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        init_container_statuses: Some(init).filter(|l| !l.is_empty()),
        message,
        observed_generation: v.pod.metadata.generation,
        phase: Some(phase.into()),
        pod_ip: ips.first().cloned(),
        pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect()).filter(|l: &Vec<_>| !l.is_empty()),
        qos_class: Some(spec::qos(v.pod).name().into()),
        reason,
        start_time: v.old.start_time.clone().or_else(|| Timestamp::from_second(v.now.as_second()).ok().map(Time)),
        nominated_node_name: v.old.nominated_node_name.clone(),
        resource_claim_statuses: v.old.resource_claim_statuses.clone(),
        ..Default::default()
    }
}

/// The pod's addresses: the sandbox's, or with the host's network the host's once a sandbox exists.
fn ips(v: &View<'_>) -> Vec<String> {
    if spec::host_network(v.pod) {
        let mut out: Vec<String> = vec![];
        for ip in v.host_ips {
            // One of each family.
            if !out.iter().any(|o| o.contains(':') == ip.is_ipv6()) {
                out.push(ip.to_string());
            }
        }
        return out;
    }
    let newest = v.runtime.sandboxes.first();
    let ips: Vec<String> = newest.into_iter().flat_map(|s| &s.ips).map(ToString::to_string).collect();
    if ips.is_empty() && (v.terminal || newest.is_none_or(|s| s.state != rt::SandboxState::Ready)) {
        // A pod that is over keeps the address it had.
        if spec::is_finished(v.pod) || v.terminal {
            return v.old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect();
        }
    }
    ips
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

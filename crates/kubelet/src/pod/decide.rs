//! What to do next for one pod that is to run. Pure: the driver applies the answer and asks again.

use super::restart;
use super::spec::{self, Kind, is_sidecar};
use super::state::{RuntimeState, Verdict, Verdicts, labels, sandbox_needed};
use k8s_openapi::api::core::v1::{Container, Pod};
use pintle_runtime::{ContainerState, ContainerStatus};
use std::collections::BTreeSet;

/// Why a container is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Its spec changed, or its state was lost.
    Other,
    /// The startup probe failed.
    StartupProbe,
    /// The liveness probe failed.
    LivenessProbe,
    /// Another container's end restarts all.
    RestartAll,
}

/// A container to kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Which list it is in.
    pub kind: Kind,
    /// What the Event says.
    pub message: String,
    /// Why.
    pub reason: KillReason,
}

/// A container to start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    /// Which list it is in.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Kill everything and stop the sandbox: it is of no use any more, or the pod is done.
    pub kill_pod: bool,
    /// Then make a sandbox with this attempt's number.
    pub create_sandbox: Option<u32>,
    /// Kill these.
    pub kill: Vec<Kill>,
    /// Start these, in this order, each once the one before is started.
    pub start: Vec<Start>,
    /// All init containers have done their work (sidecars: have started).
    pub initialized: bool,
}

/// What [`decide`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What the runtime has of it.
    pub runtime: &'a RuntimeState,
    /// What the probes said.
    pub verdicts: &'a Verdicts,
    /// Containers that are being killed at this moment, by id.
    pub killing: &'a BTreeSet<String>,
}

/// What to do next.
#[must_use]
pub fn decide(v: &View<'_>) -> Decision {
    if restart::restarts_all(v.pod, v.runtime) {
        let mut d = Decision::default();
        let mut alive = false;
        for (kind, c) in spec::containers(v.pod).filter(|(kind, _)| *kind != Kind::Ephemeral) {
            let Some(s) = v.runtime.latest(&c.name) else { continue };
            if matches!(s.state, ContainerState::Running | ContainerState::Unknown) {
                alive = true;
                if !v.killing.contains(&s.id) {
                    let message = format!("Container {} is restarted with all containers of the pod", c.name);
                    kill(&mut d, kind, s, message, KillReason::RestartAll);
                }
            }
        }
        if alive {
            return d;
        }
    }
    match restart::present(v.pod, v.runtime) {
        Some(present) => decide_present(&View { runtime: &present, ..*v }),
        None => decide_present(v),
    }
}

fn decide_present(v: &View<'_>) -> Decision {
    if let Some(attempt) = sandbox_needed(spec::host_network(v.pod), v.runtime) {
        return with_new_sandbox(v, attempt);
    }
    let mut d = Decision::default();
    for (kind, c) in spec::containers(v.pod) {
        if kind == Kind::Ephemeral && v.runtime.latest(&c.name).is_none() {
            d.start.push(Start { kind, name: c.name.clone() });
        }
    }
    d.initialized = init(v, &mut d);
    if d.kill_pod || !d.initialized {
        return d;
    }
    let mut keep = 0;
    for c in &spec::spec(v.pod).containers {
        keep += usize::from(regular(v, c, &mut d));
    }
    let starts_regular = d.start.iter().any(|s| s.kind == Kind::Regular);
    if keep == 0 && !starts_regular {
        d.kill_pod = true;
        // Sidecars end with the pod.
        d.start.clear();
    }
    d
}

/// The old sandbox, if any, is of no use: everything starts over in a new one, unless the pod is done.
fn with_new_sandbox(v: &View<'_>, attempt: u32) -> Decision {
    let mut d = Decision { kill_pod: true, create_sandbox: Some(attempt), ..Default::default() };
    let regular = &spec::spec(v.pod).containers;
    if attempt > 0 && !v.runtime.containers.is_empty() && !may_run_again(v) {
        d.create_sandbox = None;
        return d;
    }
    let to_start: Vec<&Container> = regular
        .iter()
        .filter(|c| {
            v.runtime
                .latest(&c.name)
                .is_none_or(|s| s.state != ContainerState::Exited || restart::after_exit(v.pod, c, s.exit_code))
        })
        .collect();
    if to_start.is_empty() {
        // All regular containers are done for good.
        d.create_sandbox = None;
        return d;
    }
    if let Some(first) = spec::init_containers(v.pod).first() {
        d.start.push(Start { kind: Kind::Init, name: first.name.clone() });
        return d;
    }
    d.initialized = true;
    d.start.extend(to_start.into_iter().map(|c| Start { kind: Kind::Regular, name: c.name.clone() }));
    d
}

/// Whether anything of a pod that already ran may run again.
fn may_run_again(v: &View<'_>) -> bool {
    restart::on_failure(v.pod)
        || spec::spec(v.pod).containers.iter().any(|c| {
            c.restart_policy.is_some()
                && v.runtime.latest(&c.name).is_some_and(|s| restart::after_exit(v.pod, c, s.exit_code))
        })
        || never_started(v)
}

/// A pod whose containers were never reached (the sandbox died during initialisation) has not had its run.
fn never_started(v: &View<'_>) -> bool {
    v.runtime.containers.iter().all(|c| c.state == ContainerState::Created)
}

fn kill(d: &mut Decision, kind: Kind, s: &ContainerStatus, message: String, reason: KillReason) {
    d.kill.push(Kill { id: s.id.clone(), name: s.metadata.name.clone(), kind, message, reason });
}

/// Looks at one regular container; answers whether it is kept as it is.
fn regular(v: &View<'_>, c: &Container, d: &mut Decision) -> bool {
    let start = Start { kind: Kind::Regular, name: c.name.clone() };
    let Some(s) = v.runtime.latest(&c.name) else {
        d.start.push(start);
        return false;
    };
    if v.killing.contains(&s.id) {
        // It is decided anew when it is over.
        return true;
    }
    if s.state != ContainerState::Running {
        if s.state == ContainerState::Unknown {
            let message = format!("Container is in {:?} state, try killing it before restart", "unknown");
            kill(d, Kind::Regular, s, message, KillReason::Other);
            return true;
        }
        if restart::wanted(v.pod, c, Some(s)) {
            d.start.push(start);
        }
        return false;
    }
    let (message, reason) = if s.annotations.get(labels::CONTAINER_HASH).is_some_and(|h| *h != spec::container_hash(c))
    {
        (format!("Container {} definition changed", c.name), KillReason::Other)
    } else if v.verdicts.liveness.get(&s.id) == Some(&Verdict::Failure) {
        (format!("Container {} failed liveness probe", c.name), KillReason::LivenessProbe)
    } else if v.verdicts.startup.get(&s.id) == Some(&Verdict::Failure) {
        (format!("Container {} failed startup probe", c.name), KillReason::StartupProbe)
    } else {
        return true;
    };
    // A changed definition starts again whatever the policy says; a failed probe is a failure with exit code 137.
    let again = reason == KillReason::Other || restart::after_exit(v.pod, c, 137);
    let message = if again { format!("{message}, will be restarted") } else { message };
    kill(d, Kind::Regular, s, message, reason);
    // It is started when its end is seen; until then it counts as kept.
    true
}

/// Looks at the init containers; answers whether all have done their work.
fn init(v: &View<'_>, d: &mut Decision) -> bool {
    let containers = spec::init_containers(v.pod);
    if containers.is_empty() {
        return true;
    }
    let start = |i: usize| Start { kind: Kind::Init, name: containers[i].name.clone() };
    // A regular container that runs proves that initialisation was over once, even if its traces are gone.
    let mut initialized = spec::spec(v.pod).containers.iter().any(|c| {
        let state = v.runtime.latest(&c.name).map(|s| s.state);
        matches!(state, Some(ContainerState::Created | ContainerState::Running))
    });
    let mut later_began = initialized;
    let mut starts = vec![];
    // From the last to the first: the last one with a trace tells how far it went.
    for (i, c) in containers.iter().enumerate().rev() {
        let Some(s) = v.runtime.latest(&c.name) else {
            if later_began && is_sidecar(c) {
                starts.push(start(i));
            }
            continue;
        };
        if later_began && !is_sidecar(c) {
            continue;
        }
        let next = |starts: &mut Vec<Start>, initialized: &mut bool| {
            if i + 1 == containers.len() {
                *initialized = true;
            } else if !later_began {
                starts.push(start(i + 1));
            }
        };
        match s.state {
            _ if v.killing.contains(&s.id) => {}
            ContainerState::Created => starts.push(start(i)),
            ContainerState::Running if is_sidecar(c) => {
                let startup = v.verdicts.startup.get(&s.id);
                if c.startup_probe.is_some() && startup != Some(&Verdict::Success) {
                    if startup == Some(&Verdict::Failure) {
                        let message = format!("Init container {} failed startup probe", c.name);
                        kill(d, Kind::Init, s, message, KillReason::StartupProbe);
                    }
                } else {
                    next(&mut starts, &mut initialized);
                    if v.verdicts.liveness.get(&s.id) == Some(&Verdict::Failure) {
                        let message = format!("Init container {} failed liveness probe", c.name);
                        kill(d, Kind::Init, s, message, KillReason::LivenessProbe);
                    }
                }
            }
            ContainerState::Running => {}
            ContainerState::Exited if is_sidecar(c) => starts.push(start(i)),
            ContainerState::Exited if s.exit_code == 0 => next(&mut starts, &mut initialized),
            ContainerState::Exited => {
                if !restart::init_after_failure(v.pod, c, s.exit_code) {
                    d.kill_pod = true;
                    d.start.clear();
                    return false;
                }
                starts.push(start(i));
            }
            ContainerState::Unknown => {
                let message = format!("Init container is in {:?} state, try killing it before restart", "unknown");
                kill(d, Kind::Init, s, message, KillReason::Other);
            }
        }
        later_began = true;
    }
    if !later_began {
        starts.push(start(0));
    }
    starts.reverse();
    // The next one starts only once a sidecar that was started before it runs again.
    d.start.extend(starts);
    initialized
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

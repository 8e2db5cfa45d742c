//! A pod's phase from its containers' statuses.

use super::spec::{self, is_sidecar};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

static NO_STATE: std::sync::LazyLock<ContainerState> = std::sync::LazyLock::new(ContainerState::default);

/// The status of the container of this name.
#[must_use]
pub fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == name)
}

/// The present state; an absent one reads as none of the three.
#[must_use]
pub fn now(s: &ContainerStatus) -> &ContainerState {
    s.state.as_ref().unwrap_or(&NO_STATE)
}

/// The exit code of the run before the present one.
fn last_exit(s: &ContainerStatus) -> Option<i32> {
    s.last_state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

/// Whether any regular container was started at some time.
#[must_use]
pub fn any_regular_started(pod: &Pod, statuses: &[ContainerStatus]) -> bool {
    spec::spec(pod).containers.iter().filter_map(|c| find(statuses, &c.name)).any(|s| {
        let n = now(s);
        n.running.is_some() || n.terminated.is_some() || last_exit(s).is_some()
    })
}

/// The phase. `all` holds init and regular containers' statuses; `terminal` says that nothing of the pod will be started
/// again, whatever its policy.
#[must_use]
pub fn phase(pod: &Pod, all: &[ContainerStatus], terminal: bool) -> &'static str {
    let s = spec::spec(pod);
    let policy = spec::restart_policy(pod);
    let initialized = any_regular_started(pod, all);
    let (mut pending_init, mut pending_sidecar, mut failed_init) = (false, false, false);
    let (mut unknown, mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0, 0);

    for c in spec::init_containers(pod).iter().filter(|c| !is_sidecar(c)) {
        let Some(st) = find(all, &c.name) else {
            pending_init = true;
            continue;
        };
        match (&now(st).terminated, &now(st).waiting) {
            (Some(t), _) => failed_init |= t.exit_code != 0 && !super::restart::init_after_failure(pod, c, t.exit_code),
            (None, Some(_)) if last_exit(st).is_some() => pending_init |= last_exit(st) != Some(0),
            _ => pending_init = true,
        }
        // An init container that failed and may be tried again keeps the pod pending.
        if now(st).terminated.as_ref().is_some_and(|t| t.exit_code != 0) && !failed_init {
            pending_init = true;
        }
    }
    for c in spec::init_containers(pod).iter().filter(|c| is_sidecar(c)) {
        let Some(st) = find(all, &c.name) else {
            unknown += 1;
            continue;
        };
        let n = now(st);
        if n.running.is_some() {
            pending_sidecar |= st.started != Some(true);
            running += 1;
        } else if n.terminated.is_some() {
            // Ended sidecars do not count.
        } else if n.waiting.is_some() {
            if last_exit(st).is_none() {
                pending_sidecar = true;
                waiting += 1;
            }
        } else {
            pending_sidecar = true;
            unknown += 1;
        }
    }
    for c in &s.containers {
        let Some(st) = find(all, &c.name) else {
            unknown += 1;
            continue;
        };
        let n = now(st);
        if n.running.is_some() {
            running += 1;
        } else if let Some(t) = &n.terminated {
            stopped += 1;
            succeeded += i32::from(t.exit_code == 0);
        } else if n.waiting.is_some() {
            if last_exit(st).is_some() {
                stopped += 1;
            } else {
                waiting += 1;
            }
        } else {
            unknown += 1;
        }
    }

    if failed_init {
        return "Failed";
    }
    if pending_init || (pending_sidecar && !initialized) || waiting > 0 {
        return "Pending";
    }
    if running > 0 && unknown == 0 {
        return "Running";
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        if terminal && !spec::is_static(pod) {
            return if stopped == succeeded { "Succeeded" } else { "Failed" };
        }
        let restarts = |code: Option<i32>, c: &_| code.is_some_and(|code| super::restart::after_exit(pod, c, code));
        let any_restarts = s.containers.iter().any(|c| {
            c.restart_policy.is_some()
                && find(all, &c.name)
                    .is_some_and(|st| restarts(now(st).terminated.as_ref().map(|t| t.exit_code).or(last_exit(st)), c))
        });
        let all_own_policy = s.containers.iter().all(|c| c.restart_policy.is_some());
        if any_restarts || (policy == "Always" && !all_own_policy) {
            return "Running";
        }
        if stopped == succeeded {
            return "Succeeded";
        }
        return if policy == "Never" || all_own_policy { "Failed" } else { "Running" };
    }
    "Pending"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    /// Statuses are written `name=state` with state one of `run`, `wait`, `exit N`, `crash N` (waiting after an exit).
    fn check(spec: &str, statuses: &[&str], terminal: bool, want: &str) {
        let p = pod(spec);
        let all: Vec<ContainerStatus> = statuses
            .iter()
            .map(|s| {
                let (name, state) = s.split_once('=').unwrap();
                let (word, code) = state.split_once(' ').unwrap_or((state, "0"));
                let ended = serde_json::json!({"terminated": {"exitCode": code.parse::<i32>().unwrap()}});
                let (now, last) = match word {
                    "run" => (serde_json::json!({"running": {}}), serde_json::json!({})),
                    "wait" => (serde_json::json!({"waiting": {}}), serde_json::json!({})),
                    "exit" => (ended, serde_json::json!({})),
                    _ => (serde_json::json!({"waiting": {}}), ended),
                };
                serde_json::from_value(serde_json::json!({
                    "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "started": true,
                    "state": now, "lastState": last,
                }))
                .unwrap()
            })
            .collect();
        assert_eq!(phase(&p, &all, terminal), want, "{spec} {statuses:?}");
    }

    #[test]
    fn phases() {
        let always = "spec: {containers: [{name: a}, {name: b}]}";
        check(always, &[], false, "Pending");
        check(always, &["a=wait", "b=wait"], false, "Pending");
        check(always, &["a=run", "b=wait"], false, "Pending");
        check(always, &["a=run", "b=run"], false, "Running");
        check(always, &["a=run", "b=exit 1"], false, "Running");
        check(always, &["a=crash 1", "b=crash 1"], false, "Running");
        check(always, &["a=exit 0", "b=exit 1"], true, "Failed");
        check(always, &["a=exit 0", "b=exit 0"], true, "Succeeded");
        let never = "spec: {restartPolicy: Never, containers: [{name: a}, {name: b}]}";
        check(never, &["a=exit 0", "b=exit 0"], false, "Succeeded");
        check(never, &["a=exit 0", "b=exit 1"], false, "Failed");
        check(never, &["a=exit 0", "b=run"], false, "Running");
        let on_failure = "spec: {restartPolicy: OnFailure, containers: [{name: a}, {name: b}]}";
        check(on_failure, &["a=exit 0", "b=exit 1"], false, "Running");
        check(on_failure, &["a=exit 0", "b=exit 0"], false, "Succeeded");
        let init = "spec: {initContainers: [{name: i}], containers: [{name: a}]}";
        check(init, &["i=run", "a=wait"], false, "Pending");
        check(init, &["i=crash 1", "a=wait"], false, "Pending");
        check(init, &["i=exit 0", "a=run"], false, "Running");
        let never = "spec: {restartPolicy: Never, initContainers: [{name: i}], containers: [{name: a}]}";
        check(never, &["i=exit 1", "a=wait"], false, "Failed");
        let side = "spec: {initContainers: [{name: s, restartPolicy: Always}], containers: [{name: a}]}";
        check(side, &["s=run", "a=run"], false, "Running");
        check(side, &["s=wait", "a=wait"], false, "Pending");
        check(side, &["s=crash 1", "a=run"], false, "Running");
    }
}

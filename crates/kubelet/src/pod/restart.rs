//! Whether a container that ended is to be started again.

use super::spec::{self, is_sidecar};
use super::state::{RuntimeState, round};
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};
use pintle_runtime::{ContainerState, ContainerStatus};

/// Whether a container that failed may start again by the pod's policy alone.
#[must_use]
pub fn on_failure(pod: &Pod) -> bool {
    spec::restart_policy(pod) != "Never"
}

fn rule_matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(on) = &rule.exit_codes else { return false };
    let listed = on.values.as_ref().is_some_and(|v| v.contains(&exit_code));
    match on.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// The action by which one container's end restarts all.
const RESTART_ALL: &str = "RestartAllContainers";

/// The first of the container's rules that speaks of this exit code.
fn rule(c: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    c.restart_policy_rules.iter().flatten().find(|r| rule_matches(r, exit_code))
}

/// The containers that are restarted when all are: all but the ephemeral ones.
fn all(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec::init_containers(pod).iter().chain(&spec::spec(pod).containers)
}

/// Whether some end of a container may restart all.
#[must_use]
pub fn may_restart_all(pod: &Pod) -> bool {
    all(pod).any(|c| c.restart_policy_rules.iter().flatten().any(|r| r.action == RESTART_ALL))
}

/// Whether a container ended in a way that restarts all, and none has been started anew since.
#[must_use]
pub fn restarts_all(pod: &Pod, runtime: &RuntimeState) -> bool {
    if !may_restart_all(pod) || pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let now = runtime.round();
    all(pod).any(|c| {
        runtime.latest(&c.name).is_some_and(|s| {
            s.state == ContainerState::Exited
                && round(s) == now
                && rule(c, s.exit_code).is_some_and(|r| r.action == RESTART_ALL)
        })
    })
}

/// What of the runtime's state tells how the pod stands: without what ran before all containers were restarted, but
/// with ephemeral containers, which are not. `None` where that is all of it.
#[must_use]
pub fn present(pod: &Pod, runtime: &RuntimeState) -> Option<RuntimeState> {
    let least = runtime.round() + u32::from(restarts_all(pod, runtime));
    (least > 0).then(|| {
        let mut out = runtime.clone();
        out.containers.retain(|s| round(s) >= least || !all(pod).any(|c| c.name == s.metadata.name));
        out
    })
}

/// Whether a container that ended with `exit_code` is to be started again: its own rules first, then its own policy,
/// then the pod's.
#[must_use]
pub fn after_exit(pod: &Pod, c: &Container, exit_code: i32) -> bool {
    if let Some(rule) = rule(c, exit_code) {
        return matches!(rule.action.as_str(), "Restart" | RESTART_ALL);
    }
    match c.restart_policy.as_deref().unwrap_or_else(|| spec::restart_policy(pod)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether the container in this state (`None`: it never ran) is to be started, for pods that are not being deleted.
#[must_use]
pub fn wanted(pod: &Pod, c: &Container, status: Option<&ContainerStatus>) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(status) = status else { return true };
    match status.state {
        ContainerState::Running => false,
        // Made but never started, or lost: it has not had its run.
        ContainerState::Created | ContainerState::Unknown => true,
        ContainerState::Exited => after_exit(pod, c, status.exit_code),
    }
}

/// Whether a failed init container may run again.
#[must_use]
pub fn init_after_failure(pod: &Pod, c: &Container, exit_code: i32) -> bool {
    is_sidecar(c) || after_exit(pod, c, exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn policies_and_rules() {
        let check = |pod_policy: &str, container: &str, code: i32, want: bool| {
            let p = pod(&format!("spec: {{restartPolicy: {pod_policy}, containers: [{{name: c, {container}}}]}}"));
            assert_eq!(after_exit(&p, &spec::spec(&p).containers[0], code), want, "{pod_policy} {container} {code}");
        };
        check("Always", "", 0, true);
        check("OnFailure", "", 0, false);
        check("OnFailure", "", 1, true);
        check("Never", "", 1, false);
        check("Never", "restartPolicy: Always", 0, true);
        check("Always", "restartPolicy: Never", 1, false);
        let rules =
            "restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]";
        check("Never", rules, 42, true);
        check("Never", rules, 43, false);
        let rules =
            "restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [42]}}]";
        check("Never", rules, 42, false);
        check("Never", rules, 1, true);
        let rules = "restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]";
        check("Never", rules, 42, true);
        check("Never", rules, 1, false);
    }
}

//! Changing the resources of a pod that runs: what is granted, what must wait, and what cannot be. Pure.

use super::admit::{NodeView, Rejection, admit_resources};
use super::spec;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus};
use pintle_runtime::LinuxResources;

/// What became of a wish for other resources.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The pod with the resources that count now.
    pub granted: Pod,
    /// Why the wish is not granted, if it is not.
    pub pending: Option<PodCondition>,
}

/// The containers whose resources can change: all but ephemeral ones.
fn resizable(pod: &mut Pod) -> impl Iterator<Item = &mut Container> {
    let spec = pod.spec.get_or_insert_default();
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten())
}

/// `wanted` with the resources that `from` has.
fn with_resources_of(wanted: &Pod, from: &Pod) -> Pod {
    let mut out = wanted.clone();
    for c in resizable(&mut out) {
        if let Some((_, old)) = spec::container(from, &c.name) {
            c.resources.clone_from(&old.resources);
        }
    }
    if let (Some(new), Some(old)) = (out.spec.as_mut(), from.spec.as_ref()) {
        new.resources.clone_from(&old.resources);
    }
    out
}

fn pending(pod: &Pod, reason: &str, message: String) -> PodCondition {
    PodCondition {
        type_: "PodResizePending".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// Grants the resources the pod now asks for, if the node has them beside `others`; otherwise those it had stay.
#[must_use]
pub fn resize(had: &Pod, wanted: &Pod, others: &[&Pod], node: &NodeView) -> Outcome {
    let kept = with_resources_of(wanted, had);
    if kept.spec == wanted.spec {
        return Outcome { granted: wanted.clone(), pending: None };
    }
    let words = |r: Rejection| r.message;
    if let Err(r) = admit_resources(wanted, &[], node) {
        return Outcome { granted: kept, pending: Some(pending(wanted, "Infeasible", words(r))) };
    }
    if let Err(r) = admit_resources(wanted, others, node) {
        return Outcome { granted: kept, pending: Some(pending(wanted, "Deferred", words(r))) };
    }
    Outcome { granted: wanted.clone(), pending: None }
}

/// The pod with the resources its status says were granted, for a node agent that has just started.
#[must_use]
pub fn restored(pod: &Pod, status: &PodStatus) -> Pod {
    let mut out = pod.clone();
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let all: Vec<_> = lists.into_iter().flatten().flatten().collect();
    for c in resizable(&mut out) {
        let Some(told) = all.iter().find(|s| s.name == c.name) else { continue };
        if let (Some(requests), Some(actual)) = (&told.allocated_resources, &told.resources) {
            let own = c.resources.get_or_insert_default();
            own.requests = Some(requests.clone());
            own.limits.clone_from(&actual.limits);
        }
    }
    if let (Some(told), Some(whole)) = (&status.resources, out.spec.as_mut().and_then(|s| s.resources.as_mut())) {
        whole.clone_from(told);
    }
    out
}

/// Whether a running container has other limits than it should.
#[must_use]
pub fn differs(has: &LinuxResources, should: &LinuxResources) -> bool {
    let key = |r: &LinuxResources| (r.cpu_shares, r.cpu_quota.max(0), r.memory_limit.max(0));
    key(has) != key(should)
}

/// Whether the container says that it must be started anew for this change.
#[must_use]
pub fn needs_restart(c: &Container, has: &LinuxResources, should: &LinuxResources) -> bool {
    let changed = |resource: &str| match resource {
        "cpu" => has.cpu_shares != should.cpu_shares || has.cpu_quota.max(0) != should.cpu_quota.max(0),
        "memory" => has.memory_limit.max(0) != should.memory_limit.max(0),
        _ => false,
    };
    let policies = c.resize_policy.iter().flatten();
    policies.into_iter().any(|p| p.restart_policy == "RestartContainer" && changed(&p.resource_name))
}

/// What a running container is told: limits that were taken away are said to be none.
#[must_use]
pub fn update(has: &LinuxResources, should: &LinuxResources) -> LinuxResources {
    let none = |was: i64, now: i64| if was > 0 && now == 0 { -1 } else { now };
    LinuxResources {
        cpu_shares: should.cpu_shares,
        cpu_quota: none(has.cpu_quota, should.cpu_quota),
        cpu_period: should.cpu_period,
        memory_limit: none(has.memory_limit, should.memory_limit),
        memory_swap_limit: none(has.memory_swap_limit, should.memory_swap_limit),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn with_cpu(uid: &str, cpu: &str) -> Pod {
        pod(&format!(
            "{{metadata: {{uid: {uid}}}, spec: {{containers: [{{name: a, resources: {{requests: {{cpu: {cpu}}}}}}}]}}}}"
        ))
    }

    #[test]
    fn wishes() {
        let node = NodeView { allocatable: [("cpu".to_string(), Quantity("2".into()))].into(), ..Default::default() };
        let (had, other) = (with_cpu("u", "500m"), with_cpu("other", "1"));
        let check = |cpu: &str, want: &str, reason: Option<&str>| {
            let o = resize(&had, &with_cpu("u", cpu), &[&other], &node);
            let got = spec::request(&spec::spec(&o.granted).containers[0], "cpu").unwrap().to_string();
            assert_eq!((got.as_str(), o.pending.and_then(|c| c.reason).as_deref()), (want, reason), "{cpu}");
        };
        check("500m", "500m", None);
        check("1", "1", None);
        check("1500m", "500m", Some("Deferred"));
        check("3", "500m", Some("Infeasible"));
    }

    #[test]
    fn changes() {
        let r = |shares, quota, memory| LinuxResources {
            cpu_shares: shares,
            cpu_quota: quota,
            memory_limit: memory,
            ..Default::default()
        };
        assert!(!differs(&r(2, -1, 0), &r(2, 0, 0)) && differs(&r(2, 0, 0), &r(4, 0, 0)));
        assert_eq!(update(&r(2, 1000, 5), &r(2, 0, 6)).cpu_quota, -1);
        let c: Container = serde_saphyr::from_str(
            "{name: a, resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}, {resourceName: cpu, restartPolicy: NotRequired}]}",
        )
        .unwrap();
        assert!(needs_restart(&c, &r(2, 0, 5), &r(2, 0, 6)) && !needs_restart(&c, &r(2, 0, 5), &r(4, 0, 5)));
    }
}

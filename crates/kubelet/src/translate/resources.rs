//! Requests and limits in the terms of cgroups.

use crate::config::KubeletConfig;
use crate::pod::spec::{self, Qos};
use k8s_openapi::api::core::v1::{Container, Pod};
use pintle_api::quantity::Quantity as Amount;
use pintle_runtime::LinuxResources;
use std::collections::BTreeMap;

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// The kernel takes no quota below 1 ms.
const MIN_QUOTA: i64 = 1000;

/// Adjustment of a node-critical or guaranteed container.
const GUARANTEED_OOM: i64 = -997;
const BEST_EFFORT_OOM: i64 = 1000;

fn shares(milli: i64) -> u64 {
    u64::try_from(milli).map_or(MIN_SHARES, |m| (m.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES))
}

fn quota(milli: i64, period: u64) -> i64 {
    let period = i64::try_from(period).unwrap_or(100_000);
    if milli == 0 { 0 } else { (milli.saturating_mul(period) / 1000).max(MIN_QUOTA) }
}

fn period(config: &KubeletConfig) -> u64 {
    u64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(100_000)
}

/// How eagerly the kernel kills the container when memory runs out.
#[must_use]
pub fn oom_score_adj(pod: &Pod, c: &Container, memory_capacity: i64) -> i32 {
    let node_critical = spec::spec(pod).priority.is_some_and(|p| p >= 2_000_001_000);
    let value = match spec::qos(pod) {
        _ if node_critical => GUARANTEED_OOM,
        Qos::Guaranteed => GUARANTEED_OOM,
        Qos::BestEffort => BEST_EFFORT_OOM,
        Qos::Burstable => {
            let request = spec::request(c, "memory").map_or(0, |a| a.value());
            let by_request = 1000 - (1000 * i128::from(request)) / i128::from(memory_capacity.max(1));
            // Above every guaranteed container, below every best-effort one.
            i64::try_from(by_request.clamp(i128::from(1000 + GUARANTEED_OOM), i128::from(BEST_EFFORT_OOM - 1)))
                .unwrap_or(BEST_EFFORT_OOM - 1)
        }
    };
    i32::try_from(value).unwrap_or(0)
}

/// `2Mi` as the kernel's `2MB`.
fn hugepage_size(size: &str) -> Option<String> {
    let bytes = Amount::parse(size).ok()?.value();
    [(1i64 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes % unit == 0)
        .map(|(unit, name)| format!("{}{name}", bytes / unit))
}

fn hugepages(get: impl IntoIterator<Item = (String, i64)>) -> BTreeMap<String, u64> {
    get.into_iter()
        .filter_map(|(name, bytes)| {
            Some((hugepage_size(name.strip_prefix("hugepages-")?)?, u64::try_from(bytes).ok()?))
        })
        .collect()
}

fn limits(c: &Container) -> impl Iterator<Item = (String, i64)> {
    let map = c.resources.as_ref().and_then(|r| r.limits.as_ref());
    map.into_iter().flatten().filter_map(|(k, q)| Some((k.clone(), Amount::parse(&q.0).ok()?.value())))
}

/// A container's cgroup.
#[must_use]
pub fn of_container(pod: &Pod, c: &Container, config: &KubeletConfig, memory_capacity: i64) -> LinuxResources {
    // A container without a limit has its pod's.
    let whole = spec::spec(pod).resources.as_ref().and_then(|r| r.limits.as_ref());
    let limit = |name| spec::limit(c, name).filter(|l| !l.is_zero()).or_else(|| spec::amount(whole, name));
    let cpu_limit = limit("cpu").map_or(0, |a| a.milli_value());
    let cpu_request = spec::request(c, "cpu").map_or(cpu_limit, |a| a.milli_value());
    let memory = limit("memory").map_or(0, |a| a.value());
    let period = period(config);
    LinuxResources {
        cpu_shares: shares(cpu_request),
        cpu_quota: if config.cpu_cfs_quota { quota(cpu_limit, period) } else { 0 },
        cpu_period: if config.cpu_cfs_quota && cpu_limit > 0 { period } else { 0 },
        memory_limit: memory,
        // No swap.
        memory_swap_limit: memory,
        oom_score_adj: Some(oom_score_adj(pod, c, memory_capacity)),
        hugepages: hugepages(limits(c)),
        // The kernel kills the whole container, not one of its processes, where it can.
        unified: config.cgroup_v2.then(|| ("memory.oom.group".to_string(), "1".to_string())).into_iter().collect(),
        ..Default::default()
    }
}

/// The pod's own cgroup, around those of its containers.
#[must_use]
pub fn of_pod(pod: &Pod, config: &KubeletConfig) -> LinuxResources {
    let s = spec::spec(pod);
    let every = |resource: &str| {
        let pod_level = s.resources.as_ref().is_some_and(|r| spec::amount(r.limits.as_ref(), resource).is_some());
        let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
        pod_level || s.containers.iter().chain(sidecars).all(|c| spec::limit(c, resource).is_some_and(|l| !l.is_zero()))
    };
    let total = |resource: &str, limits: bool| spec::pod_total(pod, resource, limits);
    let cpu_limit = total("cpu", true).map_or(0, |a| a.milli_value());
    let memory = total("memory", true).map_or(0, |a| a.value());
    let period = period(config);
    let qos = spec::qos(pod);
    let mut out =
        LinuxResources { cpu_shares: MIN_SHARES, pids_limit: config.pod_pids_limit.max(0), ..Default::default() };
    if qos != Qos::BestEffort {
        out.cpu_shares = shares(total("cpu", false).map_or(0, |a| a.milli_value()));
        if every("cpu") && config.cpu_cfs_quota {
            out.cpu_quota = quota(cpu_limit, period);
            out.cpu_period = period;
        }
        if every("memory") {
            out.memory_limit = memory;
        }
    }
    let mut pages: BTreeMap<String, i64> = BTreeMap::new();
    for (name, bytes) in s.containers.iter().flat_map(limits) {
        *pages.entry(name).or_default() += bytes;
    }
    out.hugepages = hugepages(pages);
    out
}

/// The pod's cgroup below the runtime's root.
#[must_use]
pub fn cgroup_parent(pod: &Pod, config: &KubeletConfig) -> String {
    let class = match spec::qos(pod) {
        Qos::Guaranteed => "",
        Qos::Burstable => "/burstable",
        Qos::BestEffort => "/besteffort",
    };
    let root = config.cgroup_root.trim_end_matches('/');
    format!("{root}/kubepods{class}/pod{}", pod.metadata.uid.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn containers() {
        let check = |resources: &str, want: (u64, i64, i64, i32)| {
            let p = pod(&format!("spec: {{containers: [{{name: a, resources: {resources}}}]}}"));
            let r = of_container(&p, &spec::spec(&p).containers[0], &KubeletConfig::default(), 8 << 30);
            assert_eq!((r.cpu_shares, r.cpu_quota, r.memory_limit, r.oom_score_adj.unwrap()), want, "{resources}");
        };
        check("{}", (2, 0, 0, 1000));
        check("{requests: {cpu: 100m}}", (102, 0, 0, 999));
        check("{limits: {cpu: '2', memory: 1Gi}}", (2048, 200_000, 1 << 30, -997));
        check("{limits: {cpu: 5m}}", (5, 1000, 0, 999));
        check("{requests: {memory: 2Gi}}", (2, 0, 0, 750));
        check("{requests: {memory: 8Gi}}", (2, 0, 0, 3));
    }

    #[test]
    fn pods() {
        let p = pod(
            "spec: {containers: [{name: a, resources: {limits: {cpu: '1', memory: 1Gi}}}, {name: b, resources: {requests: {cpu: 500m}, limits: {memory: 1Gi}}}]}",
        );
        let config = KubeletConfig::default();
        let r = of_pod(&p, &config);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.memory_limit), (1536, 0, 2 << 30));
        assert_eq!(cgroup_parent(&p, &config), "/kubepods/burstable/poduid-1");
        let p =
            pod("spec: {containers: [{name: a, resources: {limits: {hugepages-2Mi: 4Mi, cpu: '1', memory: 1Gi}}}]}");
        let r = of_pod(&p, &config);
        assert_eq!((r.cpu_quota, r.hugepages["2MB"]), (100_000, 4 << 20));
        assert_eq!(cgroup_parent(&p, &config), "/kubepods/poduid-1");
    }
}

//! Evicts pods when the node runs short of memory or disk.

use crate::config::KubeletConfig;
use crate::image_gc::ImageGc;
use crate::kubelet::Shared;
use crate::local_storage::usage_of;
use crate::node::{self, Pressure};
use crate::pod::spec::{self, Qos};
use crate::pod::status::Ending;
use k8s_openapi::api::core::v1::Pod;
use pintle_api::quantity::Quantity as Amount;
use pintle_client::recorder::EventType;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something measured, with what there is of it in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measure {
    available: i64,
    capacity: i64,
}

/// The signals that are measured, with the resource each is about.
pub const SIGNALS: [(&str, &str); 5] = [
    ("memory.available", "memory"),
    ("nodefs.available", "ephemeral-storage"),
    ("nodefs.inodesFree", "inodes"),
    ("imagefs.available", "ephemeral-storage"),
    ("imagefs.inodesFree", "inodes"),
];

#[derive(Clone, Debug, PartialEq)]
struct Threshold {
    signal: &'static str,
    resource: &'static str,
    value: String,
    /// How long it must hold; zero for hard ones.
    grace: Duration,
}

impl Threshold {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share of an amount")]
    fn at(&self, capacity: i64) -> i64 {
        match self.value.strip_suffix('%') {
            Some(p) => p.parse::<f64>().map_or(0, |p| (capacity as f64 * p / 100.0) as i64),
            None => Amount::parse(&self.value).map_or(0, |a| a.value()),
        }
    }
}

/// Watches the node's resources.
pub struct Eviction {
    thresholds: Vec<Threshold>,
    since: BTreeMap<usize, Instant>,
    met: BTreeMap<&'static str, Instant>,
    hold: Duration,
    max_grace: i64,
}

fn thresholds(config: &KubeletConfig) -> Vec<Threshold> {
    let of = |map: &BTreeMap<String, String>, soft: bool| {
        SIGNALS
            .into_iter()
            .filter_map(|(signal, resource)| {
                let grace = config.eviction_soft_grace_period.get(signal).filter(|_| soft);
                let grace = grace.and_then(|g| pintle_api::duration::parse(g).ok()).unwrap_or_default();
                Some(Threshold { signal, resource, value: map.get(signal)?.clone(), grace })
            })
            .collect::<Vec<_>>()
    };
    [of(&config.eviction_hard, false), of(&config.eviction_soft, true)].concat()
}

impl Eviction {
    /// As configured.
    #[must_use]
    pub fn new(config: &KubeletConfig) -> Self {
        Self {
            thresholds: thresholds(config),
            since: BTreeMap::new(),
            met: BTreeMap::new(),
            hold: config.eviction_pressure_transition_period,
            max_grace: config.eviction_max_pod_grace_period,
        }
    }

    /// Looks at the node; when the disk is short, first removes images nobody uses; evicts at most one pod.
    pub async fn run(&mut self, k: &Arc<Shared>, images: &mut ImageGc) {
        let measures = measure(k).await;
        let now = Instant::now();
        let mut hit: Option<(Threshold, Measure)> = None;
        for (i, t) in self.thresholds.iter().enumerate() {
            let Some(m) = measures.get(t.signal) else { continue };
            if m.available >= t.at(m.capacity) {
                self.since.remove(&i);
                continue;
            }
            let since = *self.since.entry(i).or_insert(now);
            self.met.insert(condition(t.signal), now);
            if now.duration_since(since) >= t.grace && hit.is_none() {
                hit = Some((t.clone(), *m));
            }
        }
        self.met.retain(|_, at| now.duration_since(*at) < self.hold);
        k.node.set_pressure(Pressure {
            memory: self.met.contains_key("memory"),
            disk: self.met.contains_key("disk"),
            pids: false,
        });
        let Some((t, mut m)) = hit else { return };
        k.recorder.warning(
            &node::reference(&k.config.node_name),
            "EvictionThresholdMet",
            format!("Attempting to reclaim {}", t.resource),
        );
        if condition(t.signal) == "disk" {
            images.run(k, true).await;
            match measure(k).await.get(t.signal) {
                Some(now) if now.available < t.at(now.capacity) => m = *now,
                _ => return,
            }
        }
        self.evict(k, &t, m).await;
    }

    async fn evict(&self, k: &Arc<Shared>, t: &Threshold, m: Measure) {
        let mut pods: Vec<Arc<Pod>> = k
            .all_workers()
            .into_iter()
            .filter_map(|h| {
                let seen = h.seen.lock();
                (!seen.over && !seen.rejected && !spec::is_critical(&seen.pod)).then(|| seen.pod.clone())
            })
            .collect();
        let usage = usage(k, t.resource, &pods).await;
        let used = |p: &Pod| usage.get(p.metadata.uid.as_deref().unwrap_or_default()).copied().unwrap_or(0);
        pods.sort_by_key(|p| rank(p, t.resource, used(p)));
        let Some(victim) = pods.first() else { return };
        let request = spec::pod_total(victim, t.resource, false).map_or(0, |a| a.value());
        let message = format!(
            "The node was low on resource: {}. Threshold quantity: {}, available: {}. Container {} was using {}, request is {}, has larger consumption of {}. ",
            t.resource,
            t.value,
            amount(t.resource, m.available),
            spec::spec(victim).containers.first().map(|c| c.name.as_str()).unwrap_or_default(),
            amount(t.resource, used(victim)),
            request,
            t.resource
        );
        k.recorder.event(
            &pintle_client::recorder::reference_of(&**victim),
            EventType::Warning,
            "Evicted",
            message.clone(),
        );
        let grace = if t.grace.is_zero() {
            1
        } else {
            spec::spec(victim).termination_grace_period_seconds.unwrap_or(30).min(self.max_grace)
        };
        let uid = victim.metadata.uid.clone().unwrap_or_default();
        // The next look waits until this one has made room.
        let _ = k.end_pod(&uid, Ending::evicted(message), Some(grace)).await;
    }
}

/// As messages have it: bytes in whole Ki, inodes as they are.
fn amount(resource: &str, n: i64) -> String {
    if resource == "inodes" { n.to_string() } else { format!("{}Ki", n / 1024) }
}

fn condition(signal: &str) -> &'static str {
    if signal.starts_with("memory") { "memory" } else { "disk" }
}

/// Who goes first: those that use more than they requested, then by priority, then by how much more.
fn rank(p: &Pod, resource: &str, used: i64) -> (bool, i32, i64, u8) {
    let request = spec::pod_total(p, resource, false).map_or(0, |a| a.value());
    let class = match spec::qos(p) {
        Qos::BestEffort => 0,
        Qos::Burstable => 1,
        Qos::Guaranteed => 2,
    };
    (used <= request, spec::spec(p).priority.unwrap_or(0), -(used - request), class)
}

/// What each pod uses of a resource, by uid.
async fn usage(k: &Shared, resource: &str, pods: &[Arc<Pod>]) -> BTreeMap<String, i64> {
    if resource != "memory" {
        let mut out = BTreeMap::new();
        for p in pods {
            let used = usage_of(k, p).await;
            let n = if resource == "inodes" { used.inodes } else { used.bytes };
            out.insert(p.metadata.uid.clone().unwrap_or_default(), n);
        }
        return out;
    }
    let all = k.runtime.list_pod_sandbox_stats(&pintle_runtime::SandboxFilter::default()).await.unwrap_or_default();
    all.into_iter().map(|s| (s.metadata.uid, i64::try_from(s.memory.working_set_bytes).unwrap_or(i64::MAX))).collect()
}

async fn measure(k: &Shared) -> BTreeMap<&'static str, Measure> {
    let mut out = BTreeMap::new();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    if let Some(available) = node::memory_available() {
        out.insert("memory.available", Measure { available, capacity: k.node.memory_capacity() });
    }
    let disks = [
        ("nodefs.available", "nodefs.inodesFree", node::disk_of_node(k)),
        ("imagefs.available", "imagefs.inodesFree", node::disk_of_images(k).await),
    ];
    for (bytes, inodes, disk) in disks {
        let Ok((total, free, files, free_files)) = disk else { continue };
        out.insert(bytes, Measure { available: number(free), capacity: number(total) });
        // Some file systems do not count inodes.
        if files > 0 {
            out.insert(inodes, Measure { available: number(free_files), capacity: number(files) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn order_and_thresholds() {
        let t = |v: &str| Threshold {
            signal: "memory.available",
            resource: "memory",
            value: v.into(),
            grace: Duration::ZERO,
        };
        assert_eq!((t("10%").at(1000), t("100Mi").at(0)), (100, 100 << 20));
        assert_eq!(thresholds(&KubeletConfig::default()).len(), 5);
        let p = |priority: i32, request: &str| {
            pod(&format!(
                "spec: {{priority: {priority}, containers: [{{name: a, resources: {{requests: {{memory: {request}}}}}}}]}}"
            ))
        };
        let mut list = [
            ("within", rank(&p(0, "10Mi"), "memory", 5 << 20)),
            ("much", rank(&p(0, "10Mi"), "memory", 50 << 20)),
            ("little", rank(&p(0, "10Mi"), "memory", 20 << 20)),
            ("important", rank(&p(9, "10Mi"), "memory", 90 << 20)),
        ];
        list.sort_by_key(|(_, r)| *r);
        assert_eq!(list.map(|(n, _)| n), ["much", "little", "important", "within"]);
    }
}

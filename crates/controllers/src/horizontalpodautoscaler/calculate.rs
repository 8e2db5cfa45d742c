//! How many replicas a metric asks for: pure. Values are in thousandths.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use pintle_client::clock::since;

/// How long after its start a pod's CPU use may be that of starting (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// How long after its start a pod may first become unready (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// One pod's metric.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its value.
    pub value: i64,
    /// When it was measured.
    pub at: Option<Timestamp>,
    /// Over how long.
    pub window: Duration,
}

/// Metrics by pod.
pub type Samples = BTreeMap<String, Sample>;

/// How far usage may be from the target before anything is done, each way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Above.
    pub up: f64,
    /// Below.
    pub down: f64,
}

impl Tolerance {
    fn bears(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What pods are like.
#[derive(Debug, Default, PartialEq)]
pub struct Groups {
    /// Pods whose metric counts.
    pub ready: usize,
    /// Pods that are not ready, or only just.
    pub unready: BTreeSet<String>,
    /// Pods without a metric.
    pub missing: BTreeSet<String>,
    /// Pods that are going or failed.
    pub ignored: BTreeSet<String>,
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether a pod's CPU use says nothing about its need.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return true };
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    let (Some(ready), Some(start)) = (ready, &status.start_time) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    if since(start.0, now) < CPU_INITIALIZATION {
        // Not ready, or not one whole window was measured since it changed.
        let measured = sample.at.unwrap_or(now);
        return ready.status == "False" || since(changed, measured) < sample.window || measured < changed;
    }
    ready.status == "False" && changed < start.0.saturating_add(INITIAL_READINESS).unwrap_or(Timestamp::MAX)
}

/// Sorts pods.
pub fn group(pods: &[Pod], metrics: &Samples, resource: &str, now: Timestamp) -> Groups {
    let mut out = Groups::default();
    for pod in pods {
        let name = name(pod);
        if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
            out.ignored.insert(name);
        } else if phase(pod) == "Pending" {
            out.unready.insert(name);
        } else {
            match metrics.get(&name) {
                None => drop(out.missing.insert(name)),
                Some(s) if resource == "cpu" && is_starting(pod, s, now) => drop(out.unready.insert(name)),
                Some(_) => out.ready += 1,
            }
        }
    }
    out
}

/// What pods request of a resource: of one container, or of all.
pub fn requests(pods: &[Pod], container: &str, resource: &str) -> Result<BTreeMap<String, i64>, String> {
    let milli = |q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| {
        q.0.parse::<pintle_api::quantity::Quantity>().map_or(0, |q| q.milli_value())
    };
    let mut all = BTreeMap::new();
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let of_pod = spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource));
        if let Some(q) = of_pod.filter(|_| container.is_empty()) {
            all.insert(name(pod), milli(q));
            continue;
        }
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut sum = 0_i64;
        for c in spec.containers.iter().chain(sidecars).filter(|c| container.is_empty() || c.name == container) {
            let Some(q) = c.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource)) else {
                return Err(format!("missing request for {resource} in container {} of Pod {}", c.name, name(pod)));
            };
            sum = milli(q).saturating_add(sum);
        }
        all.insert(name(pod), sum);
    }
    Ok(all)
}

/// What is aimed at.
#[derive(Clone, Debug)]
pub enum Aim<'a> {
    /// This percentage of what pods request.
    Utilization(i32, &'a BTreeMap<String, i64>),
    /// This value a pod.
    Average(i64),
}

#[expect(clippy::cast_precision_loss, reason = "as upstream computes")]
fn float(n: i64) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
fn ceil(n: f64) -> i32 {
    n.ceil() as i32
}

/// Usage against the aim, and the usage: as a percentage (when that is aimed at) and as an average.
fn usage(aim: &Aim<'_>, metrics: &Samples) -> Result<(f64, Option<i32>, i64), String> {
    match aim {
        Aim::Average(target) => {
            let sum = metrics.values().map(|s| s.value).fold(0, i64::saturating_add);
            let average = sum / i64::try_from(metrics.len()).unwrap_or(1).max(1);
            Ok((float(average) / float(*target), None, average))
        }
        Aim::Utilization(target, requests) => {
            let (mut used, mut requested, mut n) = (0i64, 0i64, 0i64);
            for (pod, sample) in metrics {
                // A pod that is not known any more.
                let Some(request) = requests.get(pod) else { continue };
                (used, requested, n) = (used.saturating_add(sample.value), requested.saturating_add(*request), n + 1);
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let percent = i32::try_from(used.saturating_mul(100) / requested).unwrap_or(i32::MAX);
            Ok((f64::from(percent) / f64::from(*target), Some(percent), used / n))
        }
    }
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// Replicas.
    pub replicas: i32,
    /// Use as a percentage of the requests.
    pub percent: Option<i32>,
    /// Use a pod.
    pub average: i64,
}

/// Replicas by a metric of each pod.
pub fn by_pods(
    current: i32,
    aim: &Aim<'_>,
    mut metrics: Samples,
    groups: &Groups,
    tolerance: Tolerance,
) -> Result<Proposal, String> {
    metrics.retain(|p, _| !groups.ignored.contains(p) && !groups.unready.contains(p));
    if metrics.is_empty() {
        return Err("did not receive metrics for any ready pods".into());
    }
    let (ratio, percent, average) = usage(aim, &metrics)?;
    let answer = |replicas| Ok(Proposal { replicas, percent, average });
    let count_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !count_unready && groups.missing.is_empty() {
        let ready = float(i64::try_from(groups.ready).unwrap_or(i64::MAX));
        return answer(if tolerance.bears(ratio) { current } else { ceil(ratio * ready) });
    }
    // The careful guess: whoever is not heard of would not have changed the direction.
    let whole = |pod: &String| match aim {
        Aim::Average(target) => *target,
        Aim::Utilization(target, requests) => {
            requests.get(pod).copied().unwrap_or(0).saturating_mul((*target).max(100).into()) / 100
        }
    };
    for pod in &groups.missing {
        let value = match () {
            () if ratio < 1.0 => whole(pod),
            () if ratio > 1.0 || matches!(aim, Aim::Average(_)) => 0,
            () => continue,
        };
        metrics.insert(pod.clone(), Sample { value, ..Sample::default() });
    }
    if count_unready {
        metrics.extend(groups.unready.iter().map(|p| (p.clone(), Sample::default())));
    }
    let (again, _, _) = usage(aim, &metrics)?;
    if tolerance.bears(again) || (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0) {
        return answer(current);
    }
    let replicas = ceil(again * float(i64::try_from(metrics.len()).unwrap_or(i64::MAX)));
    if (again < 1.0 && replicas > current) || (again > 1.0 && replicas < current) {
        return answer(current);
    }
    answer(replicas)
}

/// Replicas by one value for all of them.
pub fn by_value(current: i32, target: i64, value: i64, pods: &[Pod], tolerance: Tolerance) -> Result<Proposal, String> {
    let ratio = float(value) / float(target);
    let answer = |replicas| Ok(Proposal { replicas, percent: None, average: value });
    if current == 0 {
        return answer(ceil(ratio));
    }
    if tolerance.bears(ratio) {
        return answer(current);
    }
    if pods.is_empty() {
        return Err(
            "unable to calculate ready pods: no pods returned by selector while calculating replica count".into()
        );
    }
    let is_ready = |p: &&Pod| {
        let mut conditions = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
        phase(p) == "Running" && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let ready = i64::try_from(pods.iter().filter(is_ready).count()).unwrap_or(i64::MAX);
    answer(ceil(ratio * float(ready)))
}

/// Replicas by one value that is shared among them.
pub fn by_share(replicas: i32, target: i64, value: i64, tolerance: Tolerance) -> Proposal {
    let ratio = float(value) / (float(target) * f64::from(replicas));
    let new = if tolerance.bears(ratio) { replicas } else { ceil(float(value) / float(target)) };
    let share = (float(value) / f64::from(replicas)).ceil();
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    Proposal { replicas: new, percent: None, average: share as i64 }
}

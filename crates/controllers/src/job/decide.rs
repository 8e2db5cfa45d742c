//! One step of a Job: which ends are counted, which pods come and go, and whether the Job is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod as TypedPod;
use pintle_client::clock::{since, time};

use super::policy::{self, Verdict};
use super::template::{self, INDEX_FAILURES, INDEX_IGNORED};
use super::{Failures, has_finalizer, indexes};
use crate::support::pods::Pod;

/// Ends counted at a time, so that the status stays small.
const MOST_UNCOUNTED: usize = 500;
/// Pods made at a time.
const MOST_CREATED: usize = 500;
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(600);
const OWN_CONTROLLER: &str = "kubernetes.io/job-controller";

/// What is decided on.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub job: &'a Job,
    /// All pods of the Job that still exist.
    pub pods: Vec<Arc<Pod>>,
    pub failures: Failures,
    /// Whether what was asked for before has been seen.
    pub may_scale: bool,
}

/// What to do.
#[derive(Debug)]
pub struct Plan {
    pub create: Vec<TypedPod>,
    pub delete: Vec<Arc<Pod>>,
    /// Pods whose end is in `status`, so that they may lose the finalizer once that is written.
    pub release: Vec<Arc<Pod>>,
    pub status: JobStatus,
    /// Reason, message, whether normal; said once the status is written.
    pub events: Vec<(&'static str, String, bool)>,
    pub failures: Failures,
    pub again: Option<Duration>,
    /// Actions of the rules that applied to new failures.
    pub handled: Vec<String>,
}

fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    job.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// Whether the Job is over.
pub fn is_finished(job: &Job) -> bool {
    condition(job, "Complete").is_some() || condition(job, "Failed").is_some()
}

/// Whether this controller manages the Job.
pub fn is_ours(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.managed_by.as_deref()).is_none_or(|m| m == OWN_CONTROLLER)
}

/// How a Job ends.
#[derive(Clone, Debug)]
struct End {
    complete: bool,
    reason: String,
    message: String,
}

impl End {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self { complete: false, reason: reason.into(), message: message.into() }
    }

    fn complete(reason: &str, message: impl Into<String>) -> Self {
        Self { complete: true, reason: reason.into(), message: message.into() }
    }
}

struct Step<'a> {
    s: &'a Snapshot<'a>,
    now: Timestamp,
    status: JobStatus,
    indexed: bool,
    completions: Option<i32>,
    parallelism: i32,
    suspended: bool,
    /// Whether a pod's successor waits until it has ended for good.
    waits_for_end: bool,
    per_index: Option<i32>,
    succeeded_indexes: BTreeSet<i32>,
    failed_indexes: BTreeSet<i32>,
    uncounted_succeeded: Vec<String>,
    uncounted_failed: Vec<String>,
    failures: Failures,
    handled: Vec<String>,
}

fn nonzero(n: usize) -> Option<i32> {
    (n > 0).then(|| i32::try_from(n).unwrap_or(i32::MAX))
}

pub fn decide(s: &Snapshot<'_>, now: Timestamp) -> Plan {
    let spec = s.job.spec.clone().unwrap_or_default();
    let status = s.job.status.clone().unwrap_or_default();
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let limit = spec.completions.unwrap_or(0);
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let mut step = Step {
        now,
        indexed,
        completions: spec.completions,
        parallelism: spec.parallelism.unwrap_or(1),
        suspended: spec.suspend.unwrap_or(false),
        waits_for_end: spec.pod_replacement_policy.as_deref() == Some("Failed")
            || (spec.pod_replacement_policy.is_none() && spec.pod_failure_policy.is_some()),
        per_index: spec.backoff_limit_per_index,
        succeeded_indexes: indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), limit),
        failed_indexes: indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), limit),
        uncounted_succeeded: uncounted.succeeded.unwrap_or_default(),
        uncounted_failed: uncounted.failed.unwrap_or_default(),
        failures: s.failures,
        handled: Vec::new(),
        status,
        s,
    };
    step.run(spec.backoff_limit.unwrap_or(6), spec.active_deadline_seconds)
}

impl Step<'_> {
    fn run(&mut self, backoff_limit: i32, deadline: Option<i64>) -> Plan {
        let mut events = Vec::new();
        let mut again = None;
        let deleting = self.s.job.metadata.deletion_timestamp.is_some();
        if self.status.start_time.is_none() && !self.suspended {
            self.status.start_time = Some(time(self.now));
        }
        self.forget_counted();
        let fail_message = self.fail_job_message();
        let release = self.count();

        let active: Vec<Arc<Pod>> = self.s.pods.iter().filter(|p| p.is_active()).cloned().collect();
        let terminating = self.s.pods.iter().filter(|p| p.is_deleting() && !p.is_terminal()).count();
        let succeeded = self.succeeded();
        let failed = usize::try_from(self.status.failed.unwrap_or(0)).unwrap_or(0) + self.uncounted_failed.len();

        let passed = self.status.start_time.as_ref().map(|t| since(t.0, self.now));
        let limit = deadline.and_then(|d| u64::try_from(d).ok()).map(Duration::from_secs).filter(|_| !self.suspended);
        let late = passed.zip(limit).is_some_and(|(p, l)| p >= l);
        let exceeded =
            failed > usize::try_from(backoff_limit).unwrap_or(0) || self.restarts_exceed(&active, backoff_limit);
        let mut end = self.early_end(fail_message, exceeded, late);
        let (mut create, mut delete) = (Vec::new(), Vec::new());
        if let Some(e) = &end {
            // Whatever still runs is stopped.
            delete.clone_from(&active);
            if !self.s.may_scale {
                delete.clear();
            }
            self.announce(e);
        } else if !deleting {
            if self.s.may_scale {
                let wait;
                (create, delete, wait) = self.scale(&active, terminating, succeeded);
                again = wait;
            }
            let done = match self.completions {
                Some(n) => succeeded >= usize::try_from(n).unwrap_or(0) && active.is_empty() && create.is_empty(),
                None => succeeded > 0 && active.is_empty(),
            };
            if done {
                end = Some(End::complete("CompletionsReached", "Reached expected number of succeeded pods"));
            } else {
                self.suspend(&mut events);
            }
        }
        if let (Some(p), Some(l), None) = (passed, limit, &end) {
            let left = l.saturating_sub(p) + Duration::from_millis(10);
            again = Some(again.map_or(left, |a: Duration| a.min(left)));
        }

        self.status.active = nonzero(active.len());
        self.status.terminating = Some(i32::try_from(terminating).unwrap_or(i32::MAX));
        self.status.ready = Some(i32::try_from(active.iter().filter(|p| p.is_ready()).count()).unwrap_or(i32::MAX));
        let all_counted = self.uncounted_succeeded.is_empty()
            && self.uncounted_failed.is_empty()
            && !self.s.pods.iter().any(|p| has_finalizer(p) && p.is_terminal());
        if let Some(e) = end.filter(|_| all_counted && terminating == 0 && active.is_empty()) {
            self.finish(&e, &mut events);
        }
        self.write_counts();
        let (status, handled) = (self.status.clone(), std::mem::take(&mut self.handled));
        Plan { create, delete, release, status, events, failures: self.failures, again, handled }
    }

    fn succeeded(&self) -> usize {
        if self.indexed {
            return self.succeeded_indexes.len();
        }
        usize::try_from(self.status.succeeded.unwrap_or(0)).unwrap_or(0) + self.uncounted_succeeded.len()
    }

    /// Ends whose pods lost the finalizer (or are gone) move from the list into the numbers.
    fn forget_counted(&mut self) {
        let held: BTreeSet<&str> =
            self.s.pods.iter().filter(|p| has_finalizer(p)).map(|p| p.metadata.uid.as_str()).collect();
        let settle = |list: &mut Vec<String>| {
            let before = list.len();
            list.retain(|uid| held.contains(uid.as_str()));
            i32::try_from(before - list.len()).unwrap_or(0)
        };
        let (s, f) = (settle(&mut self.uncounted_succeeded), settle(&mut self.uncounted_failed));
        if !self.indexed && s > 0 {
            self.status.succeeded = Some(self.status.succeeded.unwrap_or(0).saturating_add(s));
        }
        if f > 0 {
            self.status.failed = Some(self.status.failed.unwrap_or(0).saturating_add(f));
        }
    }

    /// Whether a pod has ended for the Job: it succeeded, it failed, or it is being deleted and nobody waits for how
    /// that ends.
    fn has_failed(&self, pod: &Pod) -> bool {
        pod.status.phase == "Failed" || (pod.is_deleting() && pod.status.phase != "Succeeded" && !self.waits_for_end)
    }

    fn fail_job_message(&self) -> Option<String> {
        let failed = self.s.pods.iter().filter(|p| p.status.phase == "Failed" && has_finalizer(p));
        failed
            .filter_map(|p| if let Verdict::FailJob(m) = policy::judge(self.s.job, p) { Some(m) } else { None })
            .next()
    }

    /// Notes new ends. Answers the pods that may lose their finalizer once this status is written.
    fn count(&mut self) -> Vec<Arc<Pod>> {
        let gone = self.s.job.metadata.deletion_timestamp.is_some();
        let over =
            condition(self.s.job, "FailureTarget").is_some() || condition(self.s.job, "SuccessCriteriaMet").is_some();
        let mut release = Vec::new();
        let mut ended: Vec<&Arc<Pod>> = self.s.pods.iter().filter(|p| has_finalizer(p)).collect();
        ended.sort_by_key(|p| finished_at(p));
        for pod in ended {
            if release.len() >= MOST_UNCOUNTED {
                break;
            }
            let uid = &pod.metadata.uid;
            let index = template::index(pod).filter(|i| self.completions.is_some_and(|c| *i < c));
            if pod.status.phase == "Succeeded" {
                if self.uncounted_succeeded.contains(uid) || self.uncounted_failed.contains(uid) {
                    release.push(pod.clone());
                    continue;
                }
                if self.indexed {
                    if let Some(i) = index {
                        self.succeeded_indexes.insert(i);
                    }
                } else {
                    self.uncounted_succeeded.push(uid.clone());
                }
                self.failures = Failures::default();
                release.push(pod.clone());
            } else if self.has_failed(pod) || gone || (over && pod.is_deleting()) {
                if !self.uncounted_failed.contains(uid) {
                    self.count_failure(pod, index);
                }
                release.push(pod.clone());
            }
        }
        release
    }

    fn count_failure(&mut self, pod: &Arc<Pod>, index: Option<i32>) {
        let verdict = policy::judge(self.s.job, pod);
        self.handled.extend(policy::rule(self.s.job, pod).map(|(action, _)| action.to_owned()));
        if verdict == Verdict::Ignore || (self.indexed && index.is_none()) {
            return;
        }
        self.uncounted_failed.push(pod.metadata.uid.clone());
        let at = finished_at(pod).unwrap_or(self.now);
        self.failures.count += 1;
        self.failures.last = Some(self.failures.last.map_or(at, |l| l.max(at)));
        if let (Some(limit), Some(i)) = (self.per_index, index)
            && (verdict == Verdict::FailIndex || template::failures_before(pod, INDEX_FAILURES) >= limit)
        {
            self.failed_indexes.insert(i);
        }
    }

    /// Containers that are started again in place count as failures, too.
    fn restarts_exceed(&self, active: &[Arc<Pod>], limit: i32) -> bool {
        let template = self.s.job.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        if template.and_then(|t| t.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let started = |p: &&Arc<Pod>| matches!(p.status.phase.as_str(), "Running" | "Pending");
        let restarts: i64 = active
            .iter()
            .filter(started)
            .flat_map(|p| p.status.init_container_statuses.iter().chain(&p.status.container_statuses))
            .map(|c| i64::from(c.restart_count))
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit.into() }
    }

    /// An end that does not wait for the number of completions.
    fn early_end(&self, fail_message: Option<String>, exceeded: bool, late: bool) -> Option<End> {
        let of = |c: &JobCondition| (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
        if let Some(c) = condition(self.s.job, "FailureTarget") {
            let (reason, message) = of(c);
            return Some(End { complete: false, reason, message });
        }
        if let Some(c) = condition(self.s.job, "SuccessCriteriaMet") {
            let (reason, message) = of(c);
            return Some(End { complete: true, reason, message });
        }
        if let Some(message) = fail_message {
            return Some(End::failed("PodFailurePolicy", message));
        }
        if exceeded {
            return Some(End::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if late {
            return Some(End::failed("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        if self.indexed && self.per_index.is_some() {
            let most = self.s.job.spec.as_ref().and_then(|s| s.max_failed_indexes);
            let failed = self.failed_indexes.difference(&self.succeeded_indexes).count();
            if most.is_some_and(|m| failed > usize::try_from(m).unwrap_or(0)) {
                return Some(End::failed(
                    "MaxFailedIndexesExceeded",
                    "Job has exceeded the specified maximal number of failed indexes",
                ));
            }
            let all = usize::try_from(self.completions.unwrap_or(0)).unwrap_or(0);
            if failed > 0 && failed + self.succeeded_indexes.len() >= all {
                return Some(End::failed("FailedIndexes", "Job has failed indexes"));
            }
        }
        if self.indexed {
            return policy::success(self.s.job, &self.succeeded_indexes).map(|m| End::complete("SuccessPolicy", m));
        }
        None
    }

    fn set(&mut self, kind: &str, value: &str, reason: &str, message: &str) -> bool {
        let all = self.status.conditions.get_or_insert_default();
        if let Some(c) = all.iter_mut().find(|c| c.type_ == kind) {
            if c.status == value && c.reason.as_deref() == Some(reason) {
                return false;
            }
            if c.status != value {
                c.last_transition_time = Some(time(self.now));
            }
            c.status = value.into();
            c.reason = Some(reason.into());
            c.message = Some(message.into());
            c.last_probe_time = Some(time(self.now));
            return true;
        }
        all.push(JobCondition {
            type_: kind.into(),
            status: value.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(time(self.now)),
            last_transition_time: Some(time(self.now)),
        });
        true
    }

    /// Says what is coming while pods are still being stopped.
    fn announce(&mut self, end: &End) {
        let kind = if end.complete { "SuccessCriteriaMet" } else { "FailureTarget" };
        self.set(kind, "True", &end.reason, &end.message);
    }

    fn finish(&mut self, end: &End, events: &mut Vec<(&'static str, String, bool)>) {
        self.announce(end);
        // Who is finished has started, even if a suspension took that back; but for a job that had nothing to do.
        if !self.suspended || self.completions != Some(0) {
            self.status.start_time.get_or_insert_with(|| time(self.now));
        }
        if end.complete {
            self.set("Complete", "True", &end.reason, &end.message);
            self.status.completion_time = Some(time(self.now));
            events.push(("Completed", "Job completed".into(), true));
        } else {
            self.set("Failed", "True", &end.reason, &end.message);
            let reason = match end.reason.as_str() {
                "BackoffLimitExceeded" => "BackoffLimitExceeded",
                "DeadlineExceeded" => "DeadlineExceeded",
                "PodFailurePolicy" => "PodFailurePolicy",
                "FailedIndexes" => "FailedIndexes",
                "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
                _ => "Failed",
            };
            events.push((reason, end.message.clone(), false));
        }
    }

    fn suspend(&mut self, events: &mut Vec<(&'static str, String, bool)>) {
        let is = self.status.conditions.iter().flatten().any(|c| c.type_ == "Suspended" && c.status == "True");
        if self.suspended {
            if self.set("Suspended", "True", "JobSuspended", "Job suspended") {
                events.push(("Suspended", "Job suspended".into(), true));
            }
            self.status.start_time = None;
        } else if is {
            self.set("Suspended", "False", "JobResumed", "Job resumed");
            events.push(("Resumed", "Job resumed".into(), true));
            // Its deadline counts from now.
            self.status.start_time = Some(time(self.now));
        }
    }

    /// Pods to make and to delete, and how long to wait before more are made.
    fn scale(
        &self,
        active: &[Arc<Pod>],
        terminating: usize,
        succeeded: usize,
    ) -> (Vec<TypedPod>, Vec<Arc<Pod>>, Option<Duration>) {
        if self.suspended {
            return (Vec::new(), active.to_vec(), None);
        }
        let parallelism = usize::try_from(self.parallelism).unwrap_or(0);
        let want = match self.completions {
            // A work queue: one success means the queue is empty, so those that run finish, and none is added.
            None if succeeded > 0 => active.len(),
            None => parallelism,
            Some(n) => parallelism.min(usize::try_from(n).unwrap_or(0).saturating_sub(succeeded)),
        };
        let doomed = self.surplus(active, want);
        let have = active.len() - doomed.len();
        let blocked = if self.waits_for_end { terminating } else { 0 };
        let room = want.saturating_sub(have + blocked).min(MOST_CREATED);
        if room == 0 || !doomed.is_empty() {
            return (Vec::new(), doomed, None);
        }
        if !self.indexed || self.per_index.is_none() {
            let wait = backoff(self.failures.count, self.failures.last, self.now);
            if !wait.is_zero() {
                return (Vec::new(), doomed, Some(wait));
            }
        }
        if !self.indexed {
            return ((0..room).map(|_| template::new(self.s.job, None, None)).collect(), doomed, None);
        }
        let mut wait: Option<Duration> = None;
        let mut create = Vec::new();
        let taken: BTreeSet<i32> = active
            .iter()
            .chain(self.s.pods.iter().filter(|p| self.waits_for_end && p.is_deleting() && !p.is_terminal()))
            .filter_map(|p| template::index(p))
            .collect();
        let last = self.last_failures();
        for i in 0..self.completions.unwrap_or(0) {
            if create.len() >= room {
                break;
            }
            if taken.contains(&i) || self.succeeded_indexes.contains(&i) || self.failed_indexes.contains(&i) {
                continue;
            }
            let mut counts = None;
            if self.per_index.is_some() {
                let (mut counted, mut ignored) = (0, 0);
                if let Some(pod) = last.get(&i) {
                    counted = template::failures_before(pod, INDEX_FAILURES);
                    ignored = template::failures_before(pod, INDEX_IGNORED);
                    if policy::judge(self.s.job, pod) == Verdict::Ignore {
                        ignored += 1;
                    } else {
                        counted += 1;
                    }
                    let left = backoff(u32::try_from(counted + ignored).unwrap_or(0), finished_at(pod), self.now);
                    if !left.is_zero() {
                        wait = Some(wait.map_or(left, |w| w.min(left)));
                        continue;
                    }
                }
                counts = Some((counted, ignored));
            }
            create.push(template::new(self.s.job, Some(i), counts));
        }
        (create, doomed, wait)
    }

    /// The newest failed pod of each index.
    fn last_failures(&self) -> BTreeMap<i32, &Arc<Pod>> {
        let mut out: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
        for pod in self.s.pods.iter().filter(|p| self.has_failed(p)) {
            let Some(i) = template::index(pod) else { continue };
            let total =
                |p: &Pod| template::failures_before(p, INDEX_FAILURES) + template::failures_before(p, INDEX_IGNORED);
            if out.get(&i).is_none_or(|p| total(p) <= total(pod)) {
                out.insert(i, pod);
            }
        }
        out
    }

    /// Active pods that are too many: second pods of an index, those of indexes that are done or out of range, and
    /// then any, those not yet running first.
    fn surplus(&self, active: &[Arc<Pod>], want: usize) -> Vec<Arc<Pod>> {
        let mut doomed = Vec::new();
        let mut rest = Vec::new();
        if self.indexed {
            let mut seen = BTreeSet::new();
            for pod in active {
                let fits = template::index(pod).is_some_and(|i| {
                    self.completions.is_some_and(|c| i < c)
                        && !self.succeeded_indexes.contains(&i)
                        && !self.failed_indexes.contains(&i)
                        && seen.insert(i)
                });
                if fits { rest.push(pod.clone()) } else { doomed.push(pod.clone()) }
            }
        } else {
            rest = active.to_vec();
        }
        let excess = rest.len().saturating_sub(want);
        if excess > 0 {
            let rank = |p: &Pod| (!p.spec.node_name.is_empty(), p.status.phase == "Running", p.is_ready());
            rest.sort_by(|a, b| {
                rank(a).cmp(&rank(b)).then_with(|| b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp))
            });
            doomed.extend(rest.into_iter().take(excess));
        }
        doomed
    }

    fn write_counts(&mut self) {
        let some = |v: &Vec<String>| (!v.is_empty()).then(|| v.clone());
        let uncounted = UncountedTerminatedPods {
            failed: some(&self.uncounted_failed),
            succeeded: some(&self.uncounted_succeeded),
        };
        self.status.uncounted_terminated_pods = Some(uncounted);
        if self.indexed {
            let text = indexes::print(&self.succeeded_indexes);
            self.status.completed_indexes = (!text.is_empty()).then_some(text);
            self.status.succeeded = nonzero(self.succeeded_indexes.len());
            if self.per_index.is_some() {
                self.status.failed_indexes = Some(indexes::print(&self.failed_indexes));
            }
        }
    }
}

fn backoff(failures: u32, last: Option<Timestamp>, now: Timestamp) -> Duration {
    let (Some(last), true) = (last, failures > 0) else { return Duration::ZERO };
    let delay = FIRST_BACKOFF
        .checked_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX))
        .unwrap_or(MAX_BACKOFF)
        .min(MAX_BACKOFF);
    delay.saturating_sub(since(last, now))
}

/// When a pod ended: its last container's end, or else its deletion, or its condition's change.
fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.container_statuses.iter().filter_map(|c| c.state.terminated.as_ref()?.finished_at);
    containers
        .max()
        .or(pod.metadata.deletion_timestamp)
        .or_else(|| pod.condition("Ready").and_then(|c| c.last_transition_time))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

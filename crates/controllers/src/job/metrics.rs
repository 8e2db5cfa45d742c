//! What is counted of Jobs, under upstream's names.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use pintle_api::metrics::{Family, Kind, Stability};

static SYNC_SECONDS: Family = Family::new(
    "job_controller_job_sync_duration_seconds",
    Kind::Histogram(&[
        0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768, 65.536,
    ]),
    Stability::Stable,
    &["completion_mode", "result", "action"],
    "The time it took to sync a job",
);
static SYNCS: Family = Family::new(
    "job_controller_job_syncs_total",
    Kind::Counter,
    Stability::Stable,
    &["completion_mode", "result", "action"],
    "The number of job syncs",
);
static FINISHED: Family = Family::new(
    "job_controller_jobs_finished_total",
    Kind::Counter,
    Stability::Stable,
    &["completion_mode", "result", "reason"],
    "The number of finished jobs",
);
static PODS_FINISHED: Family = Family::new(
    "job_controller_job_pods_finished_total",
    Kind::Counter,
    Stability::Stable,
    &["completion_mode", "result"],
    "The number of finished Pods that are fully tracked",
);
static HANDLED: Family = Family::new(
    "job_controller_pod_failures_handled_by_failure_policy_total",
    Kind::Counter,
    Stability::Beta,
    &["action"],
    "The number of failed Pods handled by failure policy with respect to the failure policy action applied based on the matched rule. Possible values of the action label correspond to the possible values for the failure policy rule action, which are: \"FailJob\", \"Ignore\" and \"Count\".",
);
static TERMINATED: Family = Family::new(
    "job_controller_terminated_pods_tracking_finalizer_total",
    Kind::Counter,
    Stability::Beta,
    &["event"],
    "The number of terminated pods (phase=Failed|Succeeded) that have the finalizer batch.kubernetes.io/job-tracking. The event label can be \"add\" or \"delete\".",
);

fn mode(job: &Job) -> &str {
    job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()).unwrap_or("NonIndexed")
}

/// A Job was looked at.
pub fn synced(job: &Job, ok: bool, action: &str, took: Duration) {
    let labels = [mode(job), if ok { "success" } else { "error" }, action];
    SYNCS.with(&labels).inc();
    SYNC_SECONDS.with(&labels).observe(took.as_secs_f64());
}

/// A status was written: what is new in it.
pub fn written(job: &Job, new: &JobStatus) {
    let old = job.status.clone().unwrap_or_default();
    for (result, before, after) in [("succeeded", old.succeeded, new.succeeded), ("failed", old.failed, new.failed)] {
        let more = after.unwrap_or(0) - before.unwrap_or(0);
        if more > 0 {
            PODS_FINISHED.with(&[mode(job), result]).add(f64::from(more));
        }
    }
    for c in new.conditions.iter().flatten().filter(|c| c.status == "True") {
        let result = match c.type_.as_str() {
            "Complete" => "succeeded",
            "Failed" => "failed",
            _ => continue,
        };
        let reason = c.reason.as_deref().unwrap_or_default();
        let was = old.conditions.iter().flatten().any(|o| o.type_ == c.type_ && o.status == "True");
        if !was {
            FINISHED.with(&[mode(job), result, reason]).inc();
        }
    }
}

/// A rule of the failure policy was applied.
pub fn handled(action: &str) {
    HANDLED.with(&[action]).inc();
}

/// A pod with the finalizer ended, or lost it.
pub fn terminated(event: &str) {
    TERMINATED.with(&[event]).inc();
}

//! TTL after finished: Jobs that are over are deleted once their time is up.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use pintle_client::UnlessGone;
use pintle_client::clock::since;
use pintle_client::typed::decode;

use crate::context::{Context, Outcome};

const WORKERS: usize = 5;

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("ttl_jobs_to_delete");
    let jobs = cx.informers.of::<Job>();
    let q = queue.clone();
    jobs.on_change(move |change| {
        if change.now().is_some_and(|j| j.at(&["spec", "ttlSecondsAfterFinished"]).is_some()) {
            q.add(change.key().clone());
        }
    });
    let me = Arc::new((cx.clone(), jobs));
    cx.work(me, &queue, WORKERS, |me, key| async move {
        let (cx, jobs) = &*me;
        match jobs.get(&key) {
            Some(object) => sync(cx, decode(&object)?).await,
            None => Ok(None),
        }
    })
    .await;
}

/// Time left until a Job goes; `None` when it does not go by time.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ttl = u64::try_from(job.spec.as_ref()?.ttl_seconds_after_finished?).ok()?;
    let ends = job.status.as_ref()?.conditions.iter().flatten();
    let end = ends
        .filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
        .find_map(|c| c.last_transition_time.as_ref())?;
    Some(Duration::from_secs(ttl).saturating_sub(since(end.0, now)))
}

async fn sync(cx: &Context, job: Job) -> Outcome {
    match left(&job, cx.clock.now()) {
        None => return Ok(None),
        Some(left) if !left.is_zero() => return Ok(Some(left)),
        Some(_) => {}
    }
    let (namespace, name) = (job.metadata.namespace.unwrap_or_default(), job.metadata.name.unwrap_or_default());
    // The cache may not know that its time was changed.
    let api = cx.client.of::<Job>();
    let Some(fresh) = api.get_opt(&namespace, &name).await? else { return Ok(None) };
    match left(&fresh, cx.clock.now()) {
        Some(left) if left.is_zero() => {}
        other => return Ok(other),
    }
    let options = DeleteOptions {
        propagation_policy: Some("Foreground".into()),
        preconditions: Some(Preconditions { uid: fresh.metadata.uid, ..Preconditions::default() }),
        ..DeleteOptions::default()
    };
    api.delete_with(&namespace, &name, &options).await.unless_gone().map(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn time_left() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        for (ttl, kind, at, want) in [
            (json!(100), "Complete", "00:00:00", Some(40)),
            (json!(30), "Failed", "00:00:00", Some(0)),
            (json!(0), "Complete", "00:01:00", Some(0)),
            (json!(null), "Complete", "00:00:00", None),
            (json!(10), "Suspended", "00:00:00", None),
        ] {
            let job: Job = serde_json::from_value(json!({"spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": format!("2024-01-01T{at}Z")}]}}))
            .unwrap();
            assert_eq!(left(&job, now), want.map(Duration::from_secs), "{ttl} {kind}");
        }
    }
}

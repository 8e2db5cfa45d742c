//! One step of a CronJob.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use pintle_client::clock::time;

use super::schedule::Schedule;

/// Missed times beyond which something is wrong with the clock.
const MANY: usize = 100;
/// A little after the time, so that it has come for sure.
const LATER: Duration = Duration::from_millis(100);

/// What is decided on.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub cron: &'a CronJob,
    /// The Jobs it controls.
    pub jobs: Vec<Job>,
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// The Job to make, and the time it is of.
    pub create: Option<(Job, Time)>,
    /// Names of Jobs to delete.
    pub delete: Vec<String>,
    pub status: CronJobStatus,
    /// Whether normal, reason, message.
    pub events: Vec<(bool, &'static str, String)>,
    pub again: Option<Duration>,
}

fn ended(job: &Job) -> Option<&str> {
    let all = job.status.as_ref()?.conditions.iter().flatten();
    all.filter(|c| c.status == "True").map(|c| c.type_.as_str()).find(|t| matches!(*t, "Complete" | "Failed"))
}

pub fn is_finished(job: &Job) -> bool {
    ended(job).is_some()
}

fn name(job: &Job) -> String {
    job.metadata.name.clone().unwrap_or_default()
}

/// Notes that a Job was started.
pub fn started(status: &mut CronJobStatus, job: &Job, at: Time) {
    let m = &job.metadata;
    let active = status.active.get_or_insert_default();
    if !active.iter().any(|r| r.uid == m.uid) {
        active.push(ObjectReference {
            api_version: Some("batch/v1".into()),
            kind: Some("Job".into()),
            name: m.name.clone(),
            namespace: m.namespace.clone(),
            uid: m.uid.clone(),
            resource_version: m.resource_version.clone(),
            ..ObjectReference::default()
        });
    }
    status.last_schedule_time = Some(at);
}

pub fn decide(s: &Snapshot<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan { status: s.cron.status.clone().unwrap_or_default(), ..Plan::default() };
    follow(s, &mut plan);
    trim(s, &mut plan);
    schedule(s, now, &mut plan);
    if plan.status.active.as_ref().is_some_and(Vec::is_empty) {
        plan.status.active = None;
    }
    plan
}

/// Brings the list of running Jobs up to date.
fn follow(s: &Snapshot<'_>, plan: &mut Plan) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in &s.jobs {
        let listed = active.iter().any(|r| r.uid == job.metadata.uid);
        match ended(job) {
            None if !listed => {
                plan.events.push((
                    false,
                    "UnexpectedJob",
                    format!("Saw a job that the controller did not create or forgot: {}", name(job)),
                ));
            }
            Some(how) if listed => {
                active.retain(|r| r.uid != job.metadata.uid);
                plan.events.push((
                    true,
                    "SawCompletedJob",
                    format!("Saw completed job: {}, condition: {how}", name(job)),
                ));
            }
            _ => {}
        }
        if ended(job) == Some("Complete") {
            let at = job.status.as_ref().and_then(|s| s.completion_time.clone());
            if at.as_ref().map(|t| t.0) > plan.status.last_successful_time.as_ref().map(|t| t.0) {
                plan.status.last_successful_time = at;
            }
        }
    }
    active.retain(|r| {
        let there = s.jobs.iter().any(|j| j.metadata.uid == r.uid);
        if !there {
            plan.events.push((
                true,
                "MissingJob",
                format!("Active job went missing: {}", r.name.as_deref().unwrap_or_default()),
            ));
        }
        there
    });
    plan.status.active = Some(active);
}

/// Deletes the oldest finished Jobs beyond the history limits.
fn trim(s: &Snapshot<'_>, plan: &mut Plan) {
    let spec = &s.cron.spec;
    for (how, limit) in [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)] {
        let Some(limit) = limit else { continue };
        let mut jobs: Vec<&Job> =
            s.jobs.iter().filter(|j| ended(j) == Some(how) && j.metadata.deletion_timestamp.is_none()).collect();
        let began = |j: &Job| j.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        jobs.sort_by(|a, b| began(a).cmp(&began(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
        let excess = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        plan.delete.extend(jobs[..excess].iter().map(|j| name(j)));
    }
}

/// The last time at or before `now` after `from`, and whether too many were missed.
fn last_due(schedule: &Schedule, zone: &TimeZone, from: Timestamp, now: Timestamp) -> (Option<Timestamp>, bool) {
    let mut last = None;
    let mut t = from;
    for i in 0.. {
        match schedule.next(t, zone) {
            Some(next) if next <= now => {
                last = Some(next);
                t = next;
            }
            _ => break,
        }
        if i >= MANY {
            // Far behind: start over shortly before now instead of walking through all of it.
            let near =
                [1i64, 60, 1440, 46_080].iter().filter_map(|m| now.checked_sub(SignedDuration::from_mins(*m + 1)).ok());
            let found = near.filter(|n| *n > t).find_map(|n| schedule.next(n, zone).filter(|x| *x <= now));
            if let Some(mut f) = found {
                while let Some(next) = schedule.next(f, zone).filter(|x| *x <= now) {
                    f = next;
                }
                return (Some(f), true);
            }
        }
    }
    (last, false)
}

fn schedule(s: &Snapshot<'_>, now: Timestamp, plan: &mut Plan) {
    let spec = &s.cron.spec;
    if s.cron.metadata.deletion_timestamp.is_some() {
        return;
    }
    let zone_name = spec.time_zone.as_deref().filter(|z| !z.is_empty());
    let zone = match zone_name.map(TimeZone::get) {
        None => TimeZone::UTC,
        Some(Ok(zone)) => zone,
        Some(Err(e)) => {
            plan.events.push((
                false,
                "UnknownTimeZone",
                format!("invalid timeZone: {:?}: {e}", zone_name.unwrap_or_default()),
            ));
            return;
        }
    };
    if spec.suspend.unwrap_or(false) {
        return;
    }
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(e) => {
            plan.events.push((
                false,
                "UnparseableCronJobSchedule",
                format!("unparseable schedule: {:?} : {e}", spec.schedule),
            ));
            return;
        }
    };
    let next = schedule.next(now, &zone);
    plan.again = next.map(|n| pintle_client::clock::since(now, n) + LATER);
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    let mut from =
        plan.status.last_schedule_time.as_ref().or(s.cron.metadata.creation_timestamp.as_ref()).map_or(now, |t| t.0);
    if let Some(d) = deadline {
        from = from.max(now.checked_sub(d).unwrap_or(Timestamp::MIN));
    }
    let (due, many) = last_due(&schedule, &zone, from, now);
    if many {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.events.push((false, "TooManyMissedTimes", message.into()));
    }
    let Some(due) = due else { return };
    if deadline.is_some_and(|d| due.checked_add(d).is_ok_and(|end| end < now)) {
        plan.events.push((
            false,
            "MissSchedule",
            format!("Missed scheduled time to start a job: {}", pintle_api::time::format(due)),
        ));
        return;
    }
    let job = new_job(s.cron, due, &zone);
    let started = plan.status.last_schedule_time.as_ref().is_some_and(|t| t.0 == due)
        || s.jobs.iter().any(|j| j.metadata.name == job.metadata.name);
    if started {
        // It was made, and only the status is behind.
        plan.status.last_schedule_time = Some(time(due));
        return;
    }
    let active = plan.status.active.clone().unwrap_or_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((true, "JobAlreadyActive", message.into()));
            return;
        }
        Some("Replace") => {
            plan.delete.extend(active.iter().filter_map(|r| r.name.clone()));
            plan.status.active = None;
        }
        _ => {}
    }
    plan.create = Some((job, time(due)));
}

fn new_job(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let cron_name = cron.metadata.name.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let text = if *zone == TimeZone::UTC {
        pintle_api::time::format(at)
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    };
    annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".into(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{cron_name}-{}", at.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            creation_timestamp: None,
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".into(),
                kind: "CronJob".into(),
                name: cron_name,
                uid: cron.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2024-01-01T10:03:30Z".parse().unwrap()
    }

    fn cron(spec: Value, status: Value) -> CronJob {
        let mut all = json!({"schedule": "*/5 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}, "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1});
        for (k, v) in spec.as_object().unwrap() {
            all[k] = v.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "c", "creationTimestamp": "2024-01-01T09:58:00Z"}, "spec": all, "status": status})).unwrap()
    }

    /// `name minute [Complete|Failed]`.
    fn job(line: &str) -> Job {
        let f: Vec<&str> = line.split(' ').collect();
        let conditions: Vec<Value> = f.get(2).map(|t| json!({"type": t, "status": "True"})).into_iter().collect();
        let at = format!("2024-01-01T09:{}:00Z", f[1]);
        let done = (f.get(2) == Some(&"Complete")).then_some(at.clone());
        serde_json::from_value(json!({"metadata": {"name": f[0], "uid": f[0]}, "status": {"startTime": at, "completionTime": done, "conditions": conditions}})).unwrap()
    }

    fn run(c: &CronJob, jobs: &[&str]) -> Plan {
        decide(&Snapshot { cron: c, jobs: jobs.iter().map(|j| job(j)).collect() }, now())
    }

    fn reasons(p: &Plan) -> Vec<&str> {
        p.events.iter().map(|e| e.1).collect()
    }

    #[test]
    fn starts_what_is_due() {
        let active = json!({"active": [{"name": "old", "uid": "old"}], "lastScheduleTime": "2024-01-01T09:55:00Z"});
        for (spec, status, jobs, create, delete, events) in [
            (json!({}), json!({}), &[][..], true, &[][..], &[][..]),
            (json!({}), json!({"lastScheduleTime": "2024-01-01T10:00:00Z"}), &[], false, &[], &[]),
            (json!({"suspend": true}), json!({}), &[], false, &[], &[]),
            (json!({"startingDeadlineSeconds": 100}), json!({}), &[], false, &[], &[]),
            (json!({"startingDeadlineSeconds": 300}), json!({}), &[], true, &[], &[]),
            (json!({"schedule": "bad"}), json!({}), &[], false, &[], &["UnparseableCronJobSchedule"]),
            (json!({"timeZone": "No/Where"}), json!({}), &[], false, &[], &["UnknownTimeZone"]),
            (json!({"concurrencyPolicy": "Allow"}), active.clone(), &["old 55"], true, &[], &[]),
            (json!({"concurrencyPolicy": "Forbid"}), active.clone(), &["old 55"], false, &[], &["JobAlreadyActive"]),
            (json!({"concurrencyPolicy": "Replace"}), active.clone(), &["old 55"], true, &["old"], &[]),
            (
                json!({"concurrencyPolicy": "Forbid"}),
                active.clone(),
                &["old 55 Complete"],
                true,
                &[],
                &["SawCompletedJob"],
            ),
            (json!({}), active, &[], true, &[], &["MissingJob"]),
            (json!({}), json!({"lastScheduleTime": "2023-06-01T00:00:00Z"}), &[], true, &[], &["TooManyMissedTimes"]),
            (
                json!({}),
                json!({"lastScheduleTime": "2024-01-01T10:00:00Z"}),
                &["a 01 Complete", "b 02 Complete", "c 03 Failed", "d 01 Failed"],
                false,
                &["a", "d"],
                &[],
            ),
        ] {
            let p = run(&cron(spec.clone(), status), jobs);
            assert_eq!(
                (p.create.is_some(), p.delete.iter().map(String::as_str).collect::<Vec<_>>(), reasons(&p)),
                (create, delete.to_vec(), events.to_vec()),
                "{spec} {jobs:?}"
            );
        }
    }

    #[test]
    fn a_job_is_named_after_its_time() {
        let p = run(&cron(json!({"timeZone": "Asia/Kolkata"}), json!({})), &[]);
        let (job, at) = p.create.unwrap();
        assert_eq!(at.0.to_string(), "2024-01-01T10:00:00Z");
        assert_eq!(job.metadata.name.as_deref(), Some("c-28401720"));
        assert_eq!(
            job.metadata.annotations.unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
            "2024-01-01T15:30:00+05:30"
        );
        assert_eq!(p.again, Some(Duration::from_secs(90) + LATER));
        // Made, but the status was lost.
        let p = run(&cron(json!({}), json!({})), &["c-28401720 00"]);
        assert!(p.create.is_none() && p.status.last_schedule_time.is_some());
    }
}

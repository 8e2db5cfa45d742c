//! The batch group.

pub mod cron_job;
mod policies;
mod status;
mod validate;

pub use validate::domain_path;

use jiff::Timestamp;
use pintle_api::time;
use pintle_schema::cursor::Cursor;
use serde_json::{Value, json};

use super::core::pod::warnings;
use super::strategy::{Propagation, Sub};
use super::table::{self, Column, boolean, integer, text};
use super::{Ctx, Strategy, value, warn};

const CONTAINERS: Column = text("Containers", "Names of each container in the template.").wide();
const IMAGES: Column = text("Images", "Images referenced by each container in the template.").wide();

const TOO_MANY_INDEXES: &str = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher \
     than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";

/// The strategy of jobs. Their pods are orphaned unless the caller says otherwise, as they always were.
pub static JOB: Strategy = Strategy {
    warnings: job_warnings,
    selectable: &[("status.successful", &["status", "succeeded"], "0")],
    generation: &[&["spec"]],
    propagation: Propagation::Orphan,
    on_create: give_selector,
    full_meta_on_update: true,
    validate: validate::job,
    validate_change: validate::job_change,
    subresources: &[("status", Sub { validate: status::job_status, ..Sub::STATUS })],
    columns: &[
        Column::NAME,
        text("Status", "Status of the job."),
        text("Completions", "@JobStatus.succeeded"),
        text("Duration", "Time required to complete the job."),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        text("Selector", "@JobSpec.selector").wide(),
    ],
    row: job_row,
    ..Strategy::DEFAULT
};

/// The strategy of cron jobs.
pub static CRON_JOB: Strategy = Strategy {
    warnings: cron_job_warnings,
    validate: cron_job::cron_job,
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        text("Schedule", "@CronJobSpec.schedule"),
        text("Timezone", "@CronJobSpec.timeZone"),
        boolean("Suspend", "@CronJobSpec.suspend"),
        integer("Active", "@CronJobStatus.active"),
        text("Last Schedule", "@CronJobStatus.lastScheduleTime"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        text("Selector", "@JobSpec.selector").wide(),
    ],
    row: cron_row,
    ..Strategy::DEFAULT
};

fn job_warnings(_: &Ctx<'_>, job: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Vec<String> {
    job_spec_warnings(job, &job.get("spec"), old)
}

fn cron_job_warnings(_: &Ctx<'_>, job: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Vec<String> {
    job_spec_warnings(job, &job.get("spec").get("jobTemplate").get("spec"), old)
}

fn job_spec_warnings(object: &Cursor<'_>, spec: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Vec<String> {
    let mut out = if old.is_none() { warn::named(object, "Pod names and hostnames") } else { Vec::new() };
    let huge = spec.get("completions").int() > 100_000 && spec.get("parallelism").int() > 10_000;
    if huge && spec.get("completionMode").str() == "Indexed" {
        out.push(format!("{spec}: {TOO_MANY_INDEXES}"));
    }
    out.extend(warnings::template(object, &spec.get("template"), old));
    out
}

/// Unless the user manages the selector, a job selects the pods that carry its uid, and its pods carry it.
fn give_selector(_: &Ctx<'_>, job: &mut Value) {
    if value::bool_at(job, &["spec", "manualSelector"]) {
        return;
    }
    let uid = value::str_at(job, &["metadata", "uid"]).to_owned();
    let name = value::str_at(job, &["metadata", "name"]).to_owned();
    // What a user set stays and fails validation when it is something else.
    let labels = [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ];
    for (key, label) in labels {
        let path = ["spec", "template", "metadata", "labels", key];
        if value::at(job, &path).is_none() {
            value::set(job, &path, label.as_str());
        }
    }
    let path = ["spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid"];
    if value::at(job, &path).is_none() {
        value::set(job, &path, uid);
    }
}

fn job_row(job: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (job.get("spec"), job.get("status"));
    let succeeded = status.get("succeeded").int();
    let completions = match (spec.get("completions").opt_int(), spec.get("parallelism").int()) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let end = time::parse(status.get("completionTime").str()).unwrap_or(now);
    let duration = time::parse(status.get("startTime").str())
        .map(|start| time::human_duration(table::seconds(start, end)))
        .unwrap_or_default();
    let has = |kind| table::has_condition(job, kind);
    let state = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job.get("metadata").get("deletionTimestamp").is_present() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| has(kind)).unwrap_or("Running")
    };
    let [names, images] = table::containers(&spec.get("template").get("spec"));
    vec![
        table::name(job),
        state.into(),
        completions.into(),
        duration.into(),
        table::age(job, now),
        names,
        images,
        table::selector(&spec.get("selector")).into(),
    ]
}

fn cron_row(cron: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (cron.get("spec"), cron.get("status"));
    let job = spec.get("jobTemplate").get("spec");
    let [names, images] = table::containers(&job.get("template").get("spec"));
    let last = status.get("lastScheduleTime");
    let last = if last.is_absent() { "<none>".to_owned() } else { table::since(&last, now) };
    // A boolean column, but upstream's cell is text.
    let suspend = match spec.get("suspend").opt_bool() {
        Some(true) => json!("True"),
        Some(false) => json!("False"),
        None => json!("<unset>"),
    };
    vec![
        table::name(cron),
        spec.get("schedule").str().into(),
        spec.get("timeZone").opt_str().unwrap_or("<none>").into(),
        suspend,
        status.get("active").len().into(),
        last.into(),
        table::age(cron, now),
        names,
        images,
        table::selector(&job.get("selector")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{self, changed};

    fn job() -> Value {
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j", "uid": "u", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"parallelism": 1, "completions": 1, "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
            "status": {"startTime": "2024-01-01T00:00:10Z", "conditions": []},
        })
    }

    #[test]
    fn rows() {
        let check = |job: Value, expect: [&str; 3]| assert_eq!(testing::row(&job, 60)[1..4], expect);
        check(job(), ["Running", "0/1", "50s"]);
        let done = changed(&job(), "status/conditions/0", json!({"type": "Complete", "status": "True"}));
        check(changed(&done, "status/completionTime", json!("2024-01-01T00:00:15Z")), ["Complete", "0/1", "5s"]);
        let many = changed(&changed(&job(), "spec/completions", Value::Null), "spec/parallelism", json!(3));
        check(many, ["Running", "0/1 of 3", "50s"]);
        check(
            changed(&job(), "status/conditions/0", json!({"type": "Suspended", "status": "True"})),
            ["Suspended", "0/1", "50s"],
        );
    }

    #[test]
    fn selectors() {
        let mut made = job();
        testing::with_ctx("batch/v1", "Job", |ctx| JOB.prepare_create(ctx, &mut made));
        assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
        assert_eq!(
            made["spec"]["template"]["metadata"]["labels"],
            json!({"controller-uid": "u", "job-name": "j", "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"})
        );
        let mut own = changed(&job(), "spec/manualSelector", json!(true));
        testing::with_ctx("batch/v1", "Job", |ctx| JOB.prepare_create(ctx, &mut own));
        assert_eq!(own["spec"].get("selector"), None);
    }
}

//! Validation of cron jobs.

use pintle_api::cron::Schedule;
use pintle_schema::cursor::{Cursor, Errors};

use super::validate::job_spec;
use crate::kinds::value::nothing;
use crate::kinds::{Ctx, meta};

/// The longest name: that of a job has eleven characters more.
const NAME: usize = 52;

pub(super) fn cron_job<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let none = nothing();
    let (spec, before) = (object.get("spec"), old.unwrap_or(&none).get("spec"));
    schedule(&spec, before.get("schedule").str().contains("TZ"), errors);
    meta::not_negative(&spec.get("startingDeadlineSeconds"), errors);
    let zone = spec.get("timeZone");
    if zone.is_present() && zone.opt_str() != before.get("timeZone").opt_str() {
        time_zone(&zone, errors);
    }
    match spec.get("concurrencyPolicy").str() {
        "" => errors.required(spec.get("concurrencyPolicy"), ""),
        "Allow" | "Forbid" | "Replace" => {}
        other => errors.not_supported(spec.get("concurrencyPolicy"), other, &["Allow", "Forbid", "Replace"]),
    }
    let job = spec.get("jobTemplate").get("spec");
    job_spec(&job, &before.get("jobTemplate").get("spec"), errors);
    if job.get("selector").is_present() {
        errors.invalid(&job.get("selector"), "`selector` will be auto-generated");
    }
    if job.get("manualSelector").bool() {
        errors.not_supported(job.get("manualSelector"), true, &["nil", "false"]);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        meta::not_negative(&spec.get(field), errors);
    }
    let name = object.get("metadata").get("name");
    if old.is_none() && name.str().len() > NAME {
        errors.invalid(&name, format!("must be no more than {NAME} characters"));
    }
}

/// `zoned`: the stored schedule names its zone, so it may go on doing so.
fn schedule(spec: &Cursor<'_>, zoned: bool, errors: &mut Errors) {
    let schedule = spec.get("schedule");
    if schedule.is_empty() {
        return errors.required(&schedule, "");
    }
    if let Err(why) = Schedule::parse(schedule.str()) {
        errors.invalid(&schedule, why);
    }
    if !schedule.str().contains("TZ") {
        return;
    }
    if !zoned {
        errors.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if spec.get("timeZone").is_present() {
        errors.invalid(&schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn time_zone(zone: &Cursor<'_>, errors: &mut Errors) {
    let name = zone.str();
    if name.is_empty() {
        return errors.invalid(zone, "timeZone must be nil or non-empty string");
    }
    let unknown = format!("unknown time zone {name}");
    let part = |p: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
        (1..=14).contains(&p.len()) && !matches!(p, "." | "..") && !p.starts_with('-') && p.bytes().all(known)
    };
    if !name.split('/').all(part) {
        return errors.invalid(zone, unknown);
    }
    if name.eq_ignore_ascii_case("local") {
        errors.invalid(zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    // Only these are known without the data base; the case of the others counts.
    let known = matches!(name, "UTC" | "Local")
        || jiff::tz::TimeZone::get(name).is_ok_and(|found| found.iana_name() == Some(name));
    if !known {
        errors.invalid(zone, unknown);
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::batch::validate::tests::template;
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn cron() -> Value {
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {"spec": {"template": template()}}}})
    }

    #[test]
    fn cron_jobs() {
        let cron = cron();
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&cron, path, to)), expect, "{path}");
        };
        check("spec/suspend", json!(true), "");
        check("spec/schedule", json!(""), "spec.schedule: Required value");
        check(
            "spec/schedule",
            json!("* *"),
            "spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]",
        );
        check(
            "spec/schedule",
            json!("TZ=UTC * * * * *"),
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
        check(
            "spec/concurrencyPolicy",
            json!("Sometimes"),
            "spec.concurrencyPolicy: Unsupported value: \"Sometimes\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
        );
        check(
            "metadata/name",
            json!("x".repeat(53)),
            &format!("metadata.name: Invalid value: \"{}\": must be no more than 52 characters", "x".repeat(53)),
        );
        check("metadata/name", json!("x".repeat(52)), "");
        check(
            "spec/jobTemplate/spec/selector",
            json!({"matchLabels": {"a": "b"}}),
            "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
        );
        check(
            "spec/jobTemplate/spec/manualSelector",
            json!(true),
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
        );
        check(
            "spec/successfulJobsHistoryLimit",
            json!(-1),
            "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            "spec/jobTemplate/spec/backoffLimit",
            json!(-1),
            "spec.jobTemplate.spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
        );
    }

    #[test]
    fn time_zones() {
        let explicit = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        for (zone, expect) in [
            ("UTC", ""),
            ("Europe/Rome", ""),
            ("", "timeZone must be nil or non-empty string"),
            ("Nowhere/Land", "unknown time zone Nowhere/Land"),
            ("europe/rome", "unknown time zone europe/rome"),
            ("Europe//Rome", "unknown time zone Europe//Rome"),
            ("../Rome", "unknown time zone ../Rome"),
            ("Local", explicit),
        ] {
            let found = create_errors(&changed(&cron(), "spec/timeZone", json!(zone)));
            let expect = if expect.is_empty() {
                String::new()
            } else {
                format!("spec.timeZone: Invalid value: \"{zone}\": {expect}")
            };
            assert_eq!(found, expect);
        }
        // What is stored stays good.
        let old = changed(&cron(), "spec/timeZone", json!("Nowhere/Land"));
        assert_eq!(update_errors(&old, &old), "");
        let old = changed(&cron(), "spec/schedule", json!("TZ=UTC * * * * *"));
        assert_eq!(update_errors(&old, &old), "");
        assert_eq!(
            update_errors(&changed(&old, "spec/timeZone", json!("UTC")), &old),
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use both timeZone field and TZ or CRON_TZ in schedule"
        );
    }
}

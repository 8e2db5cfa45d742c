//! Validation of a job's status, which others than our controller may write (`spec.managedBy`).
//!
//! A rule is looked at only when what it speaks of changes: a status that broke it before can still be mended bit by
//! bit, and a change of the spec leaves the controller time to follow.

use std::collections::HashSet;

use pintle_api::time;
use pintle_schema::cursor::{BadValue, Cursor, Errors};
use serde_json::Value;

use super::policies::{common_index, count_indexes};
use crate::kinds::value::same;
use crate::kinds::{Ctx, meta};

/// Whether a status has a condition that is true.
pub(super) fn is_true(status: &Cursor<'_>, kind: &str) -> bool {
    has_condition(status, kind, "True")
}

fn has_condition(status: &Cursor<'_>, kind: &str, value: &str) -> bool {
    let all = status.get("conditions");
    let mut all = all.items();
    all.any(|c| c.get("type").str() == kind && c.get("status").str() == value)
}

/// A status, the one before, and what of it changes.
struct Change<'a> {
    new: Cursor<'a>,
    old: Cursor<'a>,
}

impl Change<'_> {
    fn field(&self, name: &'static str) -> bool {
        !same(self.new.get(name).value(), self.old.get(name).value())
    }

    fn condition(&self, kind: &str) -> bool {
        is_true(&self.new, kind) != is_true(&self.old, kind)
    }
}

fn is_finished(status: &Cursor<'_>) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

pub(super) fn job_status<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (spec, status) = (new.get("spec"), new.get("status"));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        meta::not_negative(&status.get(field), errors);
    }
    uncounted(&status.get("uncountedTerminatedPods"), errors);
    let change = Change { new: status.clone(), old: old.get("status") };
    conditions(&change, errors);
    times(&change, errors);
    finished(&spec, &change, errors);
    indexes(&spec, &change, errors);
    verdicts(&spec, &change, errors);
    progress(&spec, &change, errors);
}

fn uncounted(pods: &Cursor<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for field in ["succeeded", "failed"] {
        for uid in pods.get(field).items() {
            if uid.is_empty() {
                errors.invalid_value(&uid, "", "must not be empty");
            } else if seen.contains(&uid.str()) {
                errors.duplicate(&uid, uid.str());
            } else {
                seen.insert(uid.str());
            }
        }
    }
}

fn refuse(status: &Cursor<'_>, why: &str, errors: &mut Errors) {
    errors.invalid_value(status.get("conditions"), BadValue::Omitted, why);
}

/// Conditions that exclude or ask for each other.
fn conditions(change: &Change<'_>, errors: &mut Errors) {
    let status = &change.new;
    let complete = is_true(status, "Complete");
    let completes = change.condition("Complete");
    if complete && is_true(status, "Failed") && (completes || change.condition("Failed")) {
        refuse(status, "cannot set Complete=True and Failed=true conditions", errors);
    }
    if complete && is_true(status, "FailureTarget") && (completes || change.condition("FailureTarget")) {
        refuse(status, "cannot set Complete=True and FailureTarget=true conditions", errors);
    }
}

fn times(change: &Change<'_>, errors: &mut Errors) {
    let status = &change.new;
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    let complete = is_true(status, "Complete");
    let ends = change.field("completionTime");
    if ends || change.condition("Complete") {
        if end.is_present() && !complete {
            errors.invalid(&end, "cannot set completionTime when there is no Complete=True condition");
        }
        if end.is_absent() && complete {
            errors.required(&end, "completionTime is required for Complete jobs");
        }
    }
    if (ends || change.field("startTime"))
        && let (Some(start), Some(ended)) = (time::parse(start.str()), time::parse(end.str()))
        && ended < start
    {
        errors.invalid(&end, "must be equal to or after `startTime`");
    }
    let (failed, target) = (is_true(status, "Failed"), is_true(status, "FailureTarget"));
    if failed && !target && (change.condition("Failed") || change.field("failedIndexes")) {
        refuse(status, "cannot set Failed=True condition without the FailureTarget=true condition", errors);
    }
    let met = is_true(status, "SuccessCriteriaMet");
    if complete && !met && (change.condition("Complete") || change.condition("SuccessCriteriaMet")) {
        refuse(status, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition", errors);
    }
}

/// A job that is finished has started, and runs nothing.
fn finished(spec: &Cursor<'_>, change: &Change<'_>, errors: &mut Errors) {
    let status = &change.new;
    let at = |field: &'static str| status.get(field);
    let finishes = is_finished(status) != is_finished(&change.old);
    let concerns = |field| finishes || change.field(field);
    if is_finished(status) {
        if at("active").int() > 0 && concerns("active") {
            errors.invalid(&at("active"), "active>0 is invalid for finished job");
        }
        // One that has nothing to do is done even if it is suspended.
        let idle = spec.get("suspend").bool() && spec.get("completions").opt_int() == Some(0);
        if at("startTime").is_absent() && concerns("startTime") && !idle {
            errors.required(at("startTime"), "startTime is required for finished job");
        }
        let pods = at("uncountedTerminatedPods");
        let left = pods.get("succeeded").len() + pods.get("failed").len();
        if left > 0 && concerns("uncountedTerminatedPods") {
            errors.invalid(&pods, "must be empty for finished job");
        }
        if at("terminating").int() > 0 && concerns("terminating") {
            errors.invalid(&at("terminating"), "terminating>0 is invalid for finished job");
        }
    }
    let more = at("ready").int() > at("active").int();
    if at("ready").is_present() && more && (change.field("ready") || change.field("active")) {
        errors.invalid(&at("ready"), "cannot set more ready pods than active");
    }
}

fn indexes(spec: &Cursor<'_>, change: &Change<'_>, errors: &mut Errors) {
    let (completions, limit) = (spec.get("completions"), spec.get("backoffLimitPerIndex"));
    let (completed, failed) = (change.new.get("completedIndexes"), change.new.get("failedIndexes"));
    let (completes, fails) = (change.field("completedIndexes"), change.field("failedIndexes"));
    let check = |at: &Cursor<'_>, errors: &mut Errors| {
        if let Err(why) = count_indexes(at.str(), completions.int()) {
            let name = at.to_string();
            let name = name.rsplit('.').next().unwrap_or_default();
            errors.invalid(at, format!("error parsing {name}: {why}"));
        }
    };
    if completions.is_present() && completes {
        check(&completed, errors);
    }
    if completions.is_present() && limit.is_present() && fails {
        check(&failed, errors);
    }
    if completes && !completed.is_empty() && spec.get("completionMode").str() != "Indexed" {
        errors.invalid(&completed, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if fails && failed.is_present() && limit.is_absent() {
        errors.invalid(&failed, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if (completes || fails)
        && completions.is_present()
        && let Some(index) = common_index(completed.str(), failed.str(), completions.int())
    {
        errors.invalid(&failed, format!("failedIndexes and completedIndexes overlap at index: {index}"));
    }
}

/// What holds of the success criteria whatever changes.
fn verdicts(spec: &Cursor<'_>, change: &Change<'_>, errors: &mut Errors) {
    let status = &change.new;
    let met = is_true(status, "SuccessCriteriaMet");
    if met && is_true(status, "Failed") {
        refuse(status, "cannot set SuccessCriteriaMet=True and Failed=true conditions", errors);
    }
    if met && is_true(status, "FailureTarget") {
        refuse(status, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions", errors);
    }
    if spec.get("successPolicy").is_present() && !met && is_true(status, "Complete") {
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        refuse(status, why, errors);
    }
}

/// What was reached stays so.
fn progress(spec: &Cursor<'_>, change: &Change<'_>, errors: &mut Errors) {
    let (new, old) = (&change.new, &change.old);
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is_true(old, kind) && !is_true(new, kind) {
            refuse(new, &format!("cannot disable the terminal {kind}=True condition"), errors);
        }
    }
    // An indexed job that is as wide as it is long may be scaled down.
    let elastic = spec.get("completionMode").str() == "Indexed"
        && spec.get("completions").opt_int() == spec.get("parallelism").opt_int();
    for field in ["failed", "succeeded"] {
        let count = new.get(field);
        if count.int() < old.get(field).int() && !(elastic && field == "succeeded") {
            errors.invalid_value(&count, count.int(), format!("cannot decrease the {field} counter"));
        }
    }
    let end = new.get("completionTime");
    if end.is_present() && old.get("completionTime").is_present() && change.field("completionTime") {
        errors.invalid_value(&end, Value::from(end.str()), meta::IMMUTABLE);
    }
    let start = new.get("startTime");
    let resumes = is_true(old, "Suspended") && has_condition(new, "Suspended", "False");
    let fixed = old.get("startTime").is_present() && !spec.get("suspend").bool() && !resumes;
    if fixed && change.field("startTime") {
        let shown = start.value().cloned().unwrap_or(Value::Null);
        errors.invalid_value(&start, shown, "field is immutable for unsuspended job once set");
    }
    let (met, was_met) = (is_true(new, "SuccessCriteriaMet"), is_true(old, "SuccessCriteriaMet"));
    if was_met && !met {
        refuse(new, "cannot disable the SuccessCriteriaMet=True condition", errors);
    }
    if is_true(old, "Complete") && !was_met && met {
        refuse(new, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions", errors);
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, status_errors};
    use serde_json::{Value, json};

    fn job() -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
            "spec": {"completionMode": "Indexed", "completions": 5, "parallelism": 2, "backoffLimitPerIndex": 1},
            "status": {"active": 1, "ready": 1, "startTime": "2024-01-01T00:00:00Z"}})
    }

    fn with(job: &Value, status: &Value) -> Value {
        let mut out = job.clone();
        for (key, v) in status.as_object().unwrap() {
            out["status"][key] = v.clone();
        }
        out
    }

    fn conditions(kinds: &[&str]) -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    }

    #[test]
    fn statuses() {
        let (start, end) = ("2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z");
        let done = json!({"active": 0, "ready": 0, "completionTime": end, "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
        let failed = json!({"active": 0, "ready": 0, "conditions": conditions(&["FailureTarget", "Failed"])});
        let merged = |base: &Value, more: Value| {
            let mut out = base.clone();
            out.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            out
        };
        let check =
            |status: Value, expect: &str| assert_eq!(status_errors(&with(&job(), &status), &job()), expect, "{status}");
        check(done.clone(), "");
        check(failed.clone(), "");
        check(
            json!({"succeeded": -1}),
            "status.succeeded: Invalid value: -1: must be greater than or equal to 0\nstatus.succeeded: Invalid value: -1: cannot decrease the succeeded counter",
        );
        check(
            json!({"uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}),
            "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty\n\
             status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
        );
        check(
            merged(&done, json!({"completionTime": null})),
            "status.completionTime: Required value: completionTime is required for Complete jobs",
        );
        check(
            json!({"completionTime": end}),
            "status.completionTime: Invalid value: \"2024-01-01T00:01:00Z\": cannot set completionTime when there is no Complete=True condition",
        );
        check(
            merged(&done, json!({"completionTime": "2023-01-01T00:00:00Z"})),
            "status.completionTime: Invalid value: \"2023-01-01T00:00:00Z\": must be equal to or after `startTime`",
        );
        check(
            merged(&failed, json!({"conditions": conditions(&["Failed"])})),
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        );
        check(
            merged(&done, json!({"conditions": conditions(&["Complete"])})),
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
        check(
            merged(&done, json!({"active": 1})),
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
        );
        check(
            merged(&done, json!({"terminating": 1})),
            "status.terminating: Invalid value: 1: terminating>0 is invalid for finished job",
        );
        check(
            merged(&done, json!({"uncountedTerminatedPods": {"failed": ["a"]}})),
            "status.uncountedTerminatedPods: Invalid value: {\"failed\":[\"a\"]}: must be empty for finished job",
        );
        check(
            merged(&failed, json!({"startTime": null})),
            "status.startTime: Required value: startTime is required for finished job\nstatus.startTime: Invalid value: null: field is immutable for unsuspended job once set",
        );
        check(json!({"ready": 2}), "status.ready: Invalid value: 2: cannot set more ready pods than active");
        check(
            json!({"completedIndexes": "1,7"}),
            "status.completedIndexes: Invalid value: \"1,7\": error parsing completedIndexes: too large index: \"7\"",
        );
        check(
            json!({"failedIndexes": "2,1"}),
            "status.failedIndexes: Invalid value: \"2,1\": error parsing failedIndexes: non-increasing order, previous: 2, current: 1",
        );
        check(
            json!({"failedIndexes": "2", "completedIndexes": "0-3"}),
            "status.failedIndexes: Invalid value: \"2\": failedIndexes and completedIndexes overlap at index: 2",
        );
        check(
            json!({"conditions": conditions(&["SuccessCriteriaMet", "FailureTarget"])}),
            "status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        );
        check(
            json!({"active": 0, "ready": 0, "completionTime": end, "conditions": conditions(&["Complete", "SuccessCriteriaMet", "FailureTarget", "Failed"])}),
            "status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions\n\
             status.conditions: Invalid value: cannot set Complete=True and FailureTarget=true conditions\n\
             status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and Failed=true conditions\n\
             status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        );
        let plain = changed(
            &changed(&job(), "spec/completionMode", json!("NonIndexed")),
            "spec/backoffLimitPerIndex",
            Value::Null,
        );
        assert_eq!(
            status_errors(&with(&plain, &json!({"completedIndexes": "1", "failedIndexes": "2"})), &plain),
            "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed completion mode\n\
             status.failedIndexes: Invalid value: \"2\": cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        );
        // What was wrong already may stay.
        let odd = with(&job(), &json!({"completedIndexes": "1,7"}));
        assert_eq!(status_errors(&with(&odd, &json!({"failed": 1})), &odd), "");
        let _ = start;
    }

    #[test]
    fn what_was_reached_stays() {
        let done = with(
            &job(),
            &json!({"active": 0, "ready": 0, "succeeded": 5, "failed": 1, "completionTime": "2024-01-01T00:01:00Z", "conditions": conditions(&["SuccessCriteriaMet", "Complete"])}),
        );
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(status_errors(&changed(&done, path, to), &done), expect, "{path}");
        };
        check("status/terminating", json!(0), "");
        check("status/failed", json!(0), "status.failed: Invalid value: 0: cannot decrease the failed counter");
        check(
            "status/succeeded",
            json!(4),
            "status.succeeded: Invalid value: 4: cannot decrease the succeeded counter",
        );
        check(
            "status/completionTime",
            json!("2024-01-01T00:02:00Z"),
            "status.completionTime: Invalid value: \"2024-01-01T00:02:00Z\": field is immutable",
        );
        check(
            "status/startTime",
            json!("2024-01-01T00:00:30Z"),
            "status.startTime: Invalid value: \"2024-01-01T00:00:30Z\": field is immutable for unsuspended job once set",
        );
        check(
            "status/conditions",
            conditions(&["Complete"]),
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition\n\
             status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        );
        let failed =
            with(&job(), &json!({"active": 0, "ready": 0, "conditions": conditions(&["FailureTarget", "Failed"])}));
        assert_eq!(
            status_errors(&changed(&failed, "status/conditions", json!([])), &failed),
            "status.conditions: Invalid value: cannot disable the terminal Failed=True condition\n\
             status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition"
        );
        // A job that is resumed starts anew, and one that has nothing to do need never start.
        let suspended = with(&job(), &json!({"conditions": conditions(&["Suspended"])}));
        let resumed =
            json!({"startTime": "2024-01-02T00:00:00Z", "conditions": [{"type": "Suspended", "status": "False"}]});
        assert_eq!(status_errors(&with(&suspended, &resumed), &suspended), "");
        let mut idle = changed(&changed(&job(), "spec/completions", json!(0)), "status", json!({}));
        idle["spec"]["suspend"] = true.into();
        let done_at_once = json!({"completionTime": "2024-01-01T00:01:00Z", "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
        assert_eq!(status_errors(&with(&idle, &done_at_once), &idle), "");
        idle["spec"]["suspend"] = false.into();
        assert_eq!(
            status_errors(&with(&idle, &done_at_once), &idle),
            "status.startTime: Required value: startTime is required for finished job"
        );
        let mut elastic = done.clone();
        elastic["spec"]["parallelism"] = 5.into();
        assert_eq!(status_errors(&changed(&elastic, "status/succeeded", json!(4)), &elastic), "");
    }
}

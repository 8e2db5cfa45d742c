//! Validation of jobs and cron jobs.

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};

use super::cron;
use crate::kinds::apps::selects;
use crate::kinds::core::pod::spec::template;
use crate::kinds::value::{self, nothing, same};
use crate::kinds::{Ctx, checks, meta};

/// The most pods of an indexed job, at once or in all, whose failures are counted apart.
const MANY: i64 = 100_000;
const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";

pub(super) fn job<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    if old.is_none() {
        generated_selector(object, errors);
    }
    let none = nothing();
    job_spec(&spec, &old.unwrap_or(&none).get("spec"), errors);
    let selector = spec.get("selector");
    if selector.is_absent() {
        errors.required(&selector, "");
    } else {
        meta::label_selector(&selector, false, errors);
    }
    let labels = spec.get("template").get("metadata").get("labels");
    if !selects(&selector, &labels) {
        let shown = labels.value().cloned().unwrap_or(Value::Null);
        errors.invalid_value(&labels, shown, "`selector` does not match template `labels`");
    }
}

/// A selector the server made is still what it made.
fn generated_selector(job: &Cursor<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    let (uid, name, selector) = (job.get("metadata").get("uid"), job.get("metadata").get("name"), spec.get("selector"));
    if spec.get("manualSelector").bool() || selector.is_absent() {
        return;
    }
    if uid.is_empty() {
        errors.required(&uid, "");
    }
    let expected = [
        ("controller-uid", uid.str()),
        ("job-name", name.str()),
        ("batch.kubernetes.io/controller-uid", uid.str()),
        ("batch.kubernetes.io/job-name", name.str()),
    ];
    let labels = spec.get("template").get("metadata").get("labels");
    for (key, wanted) in expected {
        let label = labels.key(key);
        if label.is_absent() {
            errors.required(&label, format!("must be '{wanted}'"));
        } else if label.str() != wanted {
            errors.invalid_value(&label, labels.value().cloned().unwrap_or_default(), format!("must be '{wanted}'"));
        }
    }
    let made = json!({"controller-uid": uid.str(), "job-name": name.str(),
        "batch.kubernetes.io/controller-uid": uid.str(), "batch.kubernetes.io/job-name": name.str()});
    let root = Cursor::root(&made);
    let wrong = selector
        .get("matchLabels")
        .entries()
        .any(|(key, v)| root.object().and_then(|m| m.get(key)).and_then(Value::as_str) != Some(v.str()));
    if wrong || !selector.get("matchExpressions").is_empty() {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

fn job_spec<'a>(spec: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let at = |field: &'static str| spec.get(field);
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
    ] {
        meta::not_negative(&at(field), errors);
    }
    let indexed = at("completionMode").str() == "Indexed";
    per_index(spec, indexed, errors);
    let manager = at("managedBy");
    if manager.is_present() {
        domain_path(&manager, errors);
        if manager.str().len() > 63 {
            errors.too_long(&manager, 63);
        }
    }
    if at("completionMode").is_present() {
        checks::one_of(&at("completionMode"), &["Indexed", "NonIndexed"], false, errors);
        if indexed && at("completions").is_absent() {
            errors.required(at("completions"), "when completion mode is Indexed");
        }
        if indexed && at("parallelism").int() > MANY {
            let message = format!("must be less than or equal to {MANY} when completion mode is Indexed");
            errors.invalid(&at("parallelism"), message);
        }
    }
    failure_policy(spec, errors);
    success_policy(spec, indexed, errors);
    let replacement = at("podReplacementPolicy");
    if replacement.is_present() {
        if at("podFailurePolicy").is_present() {
            if replacement.str() != "Failed" {
                errors.not_supported(&replacement, replacement.str(), &["Failed"]);
            }
        } else {
            checks::one_of(&replacement, &["Failed", "TerminatingOrFailed"], false, errors);
        }
    }
    let before = old.get("template");
    template(&at("template"), before.is_present().then_some(&before), errors);
    let policy = at("template").get("spec").get("restartPolicy");
    match policy.str() {
        "" | "Always" => errors.required(&policy, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if at("podFailurePolicy").is_present() => {
            errors.invalid(&policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&policy, other, &["OnFailure", "Never"]),
    }
}

fn per_index(spec: &Cursor<'_>, indexed: bool, errors: &mut Errors) {
    let (limit, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    let (completions, parallelism) = (spec.get("completions").int(), spec.get("parallelism").int());
    if failed.is_present() {
        meta::not_negative(&failed, errors);
        if limit.is_absent() {
            errors.required(&limit, "when maxFailedIndexes is specified");
        }
        if spec.get("completions").is_present() && failed.int() > completions {
            errors.invalid(&failed, "must be less than or equal to completions");
        }
        if failed.int() > MANY {
            errors.invalid(&failed, format!("must be less than or equal to {MANY}"));
        }
    }
    if limit.is_present() && !indexed {
        errors.invalid(&limit, "requires indexed completion mode");
    }
    if limit.is_present() && completions > MANY {
        if failed.is_absent() {
            errors.required(&failed, format!("must be specified when completions is above {MANY}"));
        }
        if parallelism > 10_000 {
            let message = format!(
                "must be less than or equal to 10000 when completions are above {MANY} and used with backoff limit per index"
            );
            errors.invalid(&spec.get("parallelism"), message);
        }
        if failed.is_present() && failed.int() > 10_000 {
            let message = format!(
                "must be less than or equal to 10000 when completions are above {MANY} and used with backoff limit per index"
            );
            errors.invalid(&failed, message);
        }
    }
}

/// `example.com/path`
pub fn domain_path(at: &Cursor<'_>, errors: &mut Errors) {
    let text = at.str();
    if text.is_empty() {
        return errors.required(at, "");
    }
    let Some((host, path)) = text.split_once('/').filter(|(h, p)| !h.is_empty() && !p.is_empty()) else {
        return errors.invalid(at, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    for message in dns1123_subdomain(host) {
        errors.invalid_value(at, host, message);
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        errors.invalid_value(at, path, format!("Invalid path (regex used for validation is '{HTTP_PATH}')"));
    }
}

fn failure_policy(spec: &Cursor<'_>, errors: &mut Errors) {
    let rules = spec.get("podFailurePolicy").get("rules");
    if rules.len() > 20 {
        errors.too_many(&rules, rules.len(), 20);
    }
    let pod = spec.get("template").get("spec");
    let mut names: Vec<&str> = Vec::new();
    for field in ["containers", "initContainers"] {
        names.extend(pod.get(field).items().map(|c| c.get("name").str()));
    }
    for rule in rules.items() {
        let (action, codes, conditions) = (rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions"));
        match action.str() {
            "" => errors.required(&action, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if spec.get("backoffLimitPerIndex").is_absent() => {
                errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
            }
            "Count" | "FailIndex" | "FailJob" | "Ignore" => {}
            other => errors.not_supported(&action, other, &["Count", "FailIndex", "FailJob", "Ignore"]),
        }
        let (has_codes, has_conditions) = (codes.is_present(), !conditions.is_empty());
        if has_codes {
            exit_codes(&codes, &names, errors);
        }
        if conditions.len() > 20 {
            errors.too_many(&conditions, conditions.len(), 20);
        }
        for condition in conditions.items() {
            let (kind, status) = (condition.get("type"), condition.get("status"));
            for message in qualified_name(kind.str()) {
                errors.invalid_value(&kind, kind.str(), message);
            }
            checks::one_of(&status, &["False", "True", "Unknown"], true, errors);
        }
        match (has_codes, has_conditions) {
            (true, true) => errors.invalid(&rule, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, false) => errors.invalid(&rule, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

fn exit_codes(codes: &Cursor<'_>, containers: &[&str], errors: &mut Errors) {
    let (operator, container, values) = (codes.get("operator"), codes.get("containerName"), codes.get("values"));
    match operator.str() {
        "" => errors.required(&operator, "valid values: [\"In\" \"NotIn\"]"),
        "In" | "NotIn" => {}
        other => errors.not_supported(&operator, other, &["In", "NotIn"]),
    }
    if container.is_present() && !containers.contains(&container.str()) {
        errors.invalid(&container, "must be one of the container or initContainer names in the pod template");
    }
    match values.len() {
        0 => errors.invalid(&values, "at least one value is required"),
        n if n > 255 => errors.too_many(&values, n, 255),
        _ => {}
    }
    let list: Vec<i64> = values.items().map(|v| v.int()).collect();
    for (i, code) in list.iter().enumerate() {
        if *code == 0 && operator.str() == "In" {
            errors.invalid_value(values.index(i), 0, "must not be 0 for the In operator");
        }
        if list[..i].contains(code) {
            errors.duplicate(values.index(i), *code);
        }
    }
    if list.windows(2).any(|w| w[0] > w[1]) {
        errors.invalid(&values, "must be ordered");
    }
}

fn success_policy(spec: &Cursor<'_>, indexed: bool, errors: &mut Errors) {
    let policy = spec.get("successPolicy");
    if policy.is_absent() {
        return;
    }
    if !indexed {
        errors.invalid(&policy, "requires indexed completion mode");
    }
    let rules = policy.get("rules");
    if rules.is_empty() {
        errors.required(&rules, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > 20 {
        errors.too_many(&rules, rules.len(), 20);
    }
    let completions = spec.get("completions").int();
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if count.is_absent() && indexes.is_absent() {
            errors.required(&rule, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut listed = None;
        if indexes.is_present() {
            if indexes.str().len() > 65536 {
                errors.too_long(&indexes, 65536);
            }
            match count_indexes(indexes.str(), completions) {
                Ok(n) => listed = Some(n),
                Err(why) => errors.invalid(&indexes, format!("error parsing succeededIndexes: {why}")),
            }
        }
        if count.is_present() {
            if count.int() <= 0 {
                errors.invalid(&count, checks::NOT_POSITIVE);
            }
            if count.int() > completions {
                errors.invalid(
                    &count,
                    format!("must be less than or equal to {completions} (the number of specified completions)"),
                );
            }
            if let Some(n) = listed.filter(|n| count.int() > *n) {
                errors.invalid(&count, format!("must be less than or equal to {n} (the number of indexes in the specified succeededIndexes field)"));
            }
        }
    }
}

/// The number of indexes in `1,3-5,7`.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last) = (0, -1);
    for part in text.split(',') {
        let number =
            |t: &str| t.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: \"{t}\""));
        let (first, end) = match part.split('-').collect::<Vec<_>>()[..] {
            [one] => (number(one)?, number(one)?),
            [a, b] => (number(a)?, number(b)?),
            _ => {
                return Err(format!(
                    "the fragment \"{part}\" violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        for index in [first, end] {
            if index >= completions {
                return Err(format!("too large index: \"{index}\""));
            }
        }
        if first <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if part.contains('-') && end <= first {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        total += end - first + 1;
        last = end;
    }
    Ok(total)
}

pub(super) fn job_change<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    let completions = n.get("completions");
    if !same(completions.value(), o.get("completions").value()) {
        let elastic = |s: &Cursor<'a>| {
            s.get("completionMode").str() == "Indexed"
                && s.get("completions").opt_int() == s.get("parallelism").opt_int()
        };
        if n.get("completionMode").str() != "Indexed" {
            meta::immutable(&completions, &o.get("completions"), errors);
        } else if completions.is_absent() || !elastic(&n) || !elastic(&o) {
            let message = format!("can only be modified in tandem with {}", n.get("parallelism"));
            errors.invalid(&completions, message);
        }
    }
    meta::immutable(&n.get("selector"), &o.get("selector"), errors);
    template_change(new, old, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        meta::immutable(&n.get(field), &o.get(field), errors);
    }
}

/// The template stays, but where a job is suspended and has not started, its pods' place may still be chosen.
fn template_change<'a>(new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("spec").get("template"), old.get("spec").get("template"));
    let (Some(now), Some(before)) = (n.value(), o.value()) else { return };
    let suspended = old.get("spec").get("suspend").bool() && old.get("status").get("startTime").is_absent();
    let mut forgiven = now.clone();
    if suspended {
        for path in [
            &["spec", "affinity", "nodeAffinity"][..],
            &["spec", "nodeSelector"],
            &["spec", "tolerations"],
            &["spec", "schedulingGates"],
            &["metadata", "labels"],
            &["metadata", "annotations"],
        ] {
            value::copy(&mut forgiven, before, path);
        }
        let list = forgiven.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
        for (container, was) in list.into_iter().flatten().zip(value::items_at(before, &["spec", "containers"])) {
            value::copy(container, was, &["resources"]);
        }
    }
    if !same(Some(&forgiven), Some(before)) {
        errors.invalid_value(&n, now.clone(), meta::IMMUTABLE);
    }
}

pub(super) fn cron_job<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let none = nothing();
    let (spec, before) = (object.get("spec"), old.unwrap_or(&none).get("spec"));
    let name = object.get("metadata").get("name");
    if old.is_none() && name.str().len() > 52 {
        errors.invalid(&name, "must be no more than 52 characters");
    }
    let schedule = spec.get("schedule");
    if schedule.is_empty() {
        errors.required(&schedule, "");
    } else {
        if let Err(why) = cron::check(schedule.str()) {
            errors.invalid(&schedule, why);
        }
        let had = before.get("schedule").str().contains("TZ");
        if schedule.str().contains("TZ") && !had {
            errors.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
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
    job_spec(&spec.get("jobTemplate").get("spec"), &before.get("jobTemplate").get("spec"), errors);
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        meta::not_negative(&spec.get(field), errors);
    }
}

fn time_zone(zone: &Cursor<'_>, errors: &mut Errors) {
    if zone.is_empty() {
        errors.invalid(zone, "timeZone must be nil or non-empty string");
    } else if zone.str().eq_ignore_ascii_case("local") {
        errors.invalid(zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if zone.str() != "UTC" && jiff::tz::TimeZone::get(zone.str()).is_err() {
        errors.invalid(zone, format!("unknown time zone {}", zone.str()));
    }
}

pub(super) fn job_status(_: &Ctx<'_>, new: &Cursor<'_>, _: &Cursor<'_>, errors: &mut Errors) {
    let status = new.get("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        meta::not_negative(&status.get(field), errors);
    }
    let uncounted = status.get("uncountedTerminatedPods");
    let mut seen: Vec<&str> = Vec::new();
    for field in ["succeeded", "failed"] {
        for uid in uncounted.get(field).items() {
            if uid.is_empty() {
                errors.invalid_value(&uid, "", "must not be empty");
            } else if seen.contains(&uid.str()) {
                errors.duplicate(&uid, uid.str());
            } else {
                seen.push(uid.str());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn template() -> Value {
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]}})
    }

    fn job() -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
            "spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "completionMode": "NonIndexed", "completions": 1, "parallelism": 1, "template": template()}})
    }

    #[test]
    fn jobs() {
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&job(), path, to)), expect, "{path}");
        };
        check("spec/suspend", json!(true), "");
        check("spec/completions", json!(-1), "spec.completions: Invalid value: -1: must be greater than or equal to 0");
        check(
            "spec/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        );
        check(
            "spec/completionMode",
            json!("Odd"),
            "spec.completionMode: Unsupported value: \"Odd\": supported values: \"Indexed\", \"NonIndexed\"",
        );
        check(
            "spec/backoffLimitPerIndex",
            json!(1),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        );
        check(
            "spec/podFailurePolicy",
            json!({"rules": [{"action": "FailJob"}]}),
            "spec.podFailurePolicy.rules[0]: Invalid value: {\"action\":\"FailJob\"}: specifying one of OnExitCodes and OnPodConditions is required",
        );
        check(
            "spec/managedBy",
            json!("x"),
            "spec.managedBy: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        );
        assert_eq!(update_errors(&changed(&job(), "spec/parallelism", json!(3)), &job()), "");
        assert_eq!(
            update_errors(&changed(&job(), "spec/completions", json!(3)), &job()),
            "spec.completions: Invalid value: 3: field is immutable"
        );
        let image = update_errors(&changed(&job(), "spec/template/spec/containers/0/image", json!("j")), &job());
        assert!(
            image.starts_with("spec.template: Invalid value: {") && image.ends_with(": field is immutable"),
            "{image}"
        );
        let suspended = changed(&job(), "spec/suspend", json!(true));
        assert_eq!(
            update_errors(&changed(&suspended, "spec/template/spec/nodeSelector", json!({"a": "b"})), &suspended),
            ""
        );
    }

    #[test]
    fn cron_jobs() {
        let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {"spec": {"template": template()}}}});
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
            "spec/timeZone",
            json!("Nowhere/Land"),
            "spec.timeZone: Invalid value: \"Nowhere/Land\": unknown time zone Nowhere/Land",
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
    }
}

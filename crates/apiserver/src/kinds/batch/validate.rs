//! Validation of jobs.

use pintle_api::names::{dns1123_label, dns1123_subdomain};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Map, Value, json};

use super::policies::{failure_policy, success_policy};
use super::status;
use crate::kinds::apps::{odd_values, selects, selects_template};
use crate::kinds::core::pod::spec::template;
use crate::kinds::value::{self, nothing, same};
use crate::kinds::{Ctx, checks, meta};

/// The most pods of an indexed job, at once or in all, whose failures are counted apart.
const MANY: i64 = 100_000;
/// The most at once, and the most failures, of a job with more than [`MANY`] indexes.
const FEWER: i64 = 10_000;
const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";

pub(super) fn job<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let none = nothing();
    let (spec, before) = (object.get("spec"), old.unwrap_or(&none).get("spec"));
    let had = |label: &'static str| before.get("template").get("metadata").get("labels").key(label).is_present();
    let prefixed = old.is_none() || (had("batch.kubernetes.io/job-name") && had("batch.kubernetes.io/controller-uid"));
    generated_selector(object, prefixed, errors);
    job_spec(&spec, &before, errors);
    let selector = spec.get("selector");
    if selector.is_absent() {
        errors.required(&selector, "");
    } else {
        meta::label_selector(&selector, odd_values(&before.get("selector")), errors);
    }
    selects_template(&spec, errors);
    // The last index becomes part of a host name.
    let (name, completions) = (object.get("metadata").get("name"), spec.get("completions").int());
    if spec.get("completionMode").str() == "Indexed" && completions > 0 {
        let last = format!("{}-{}", name.str(), completions - 1);
        if !dns1123_label(&last).is_empty() {
            errors.invalid(&name, format!("will not able to create pod with invalid DNS label: {last}"));
        }
    }
}

/// A selector the server made is still what it made. `prefixed` is false of jobs older than half of its labels.
fn generated_selector(job: &Cursor<'_>, prefixed: bool, errors: &mut Errors) {
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
    let expected = if prefixed { &expected[..] } else { &expected[..2] };
    let labels = spec.get("template").get("metadata").get("labels");
    for (key, wanted) in expected {
        let label = labels.key(key);
        if label.is_absent() {
            errors.required(&label, format!("must be '{wanted}'"));
        } else if label.str() != *wanted {
            errors.invalid_value(&label, labels.value().cloned().unwrap_or_default(), format!("must be '{wanted}'"));
        }
    }
    let made: Value = expected.iter().map(|(key, v)| ((*key).to_owned(), Value::from(*v))).collect();
    let mut found = Errors::new();
    meta::label_selector(&selector, false, &mut found);
    if found.is_empty() && !selects(&selector, &Cursor::root(&made)) {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

pub(super) fn job_spec<'a>(spec: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
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
    let (mode, limit, failed) = (at("completionMode"), at("backoffLimitPerIndex"), at("maxFailedIndexes"));
    meta::not_negative(&failed, errors);
    if failed.is_present() && limit.is_absent() {
        errors.required(&limit, "when maxFailedIndexes is specified");
    }
    let manager = at("managedBy");
    if manager.is_present() {
        domain_path(&manager, errors);
        if manager.str().len() > 63 {
            errors.too_long(&manager, 63);
        }
    }
    if mode.is_present() && !matches!(mode.str(), "NonIndexed" | "Indexed") {
        errors.not_supported(&mode, mode.str(), &["NonIndexed", "Indexed"]);
    }
    if mode.str() == "Indexed" {
        indexed(spec, errors);
    }
    if mode.is_absent() || mode.str() == "NonIndexed" {
        for field in [&limit, &failed].into_iter().filter(|f| f.is_present()) {
            errors.invalid(field, "requires indexed completion mode");
        }
    }
    failure_policy(spec, errors);
    success_policy(spec, errors);
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

/// What is asked of a job whose pods have indexes.
fn indexed(spec: &Cursor<'_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let (limit, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if completions.is_absent() {
        errors.required(&completions, "when completion mode is Indexed");
    }
    if parallelism.int() > MANY {
        errors.invalid(&parallelism, format!("must be less than or equal to {MANY} when completion mode is Indexed"));
    }
    if completions.is_present() && failed.int() > completions.int() {
        errors.invalid(&failed, "must be less than or equal to completions");
    }
    if failed.int() > MANY {
        errors.invalid(&failed, format!("must be less than or equal to {MANY}"));
    }
    if completions.int() > MANY && limit.is_present() {
        if failed.is_absent() {
            errors.required(&failed, format!("must be specified when completions is above {MANY}"));
        }
        for count in [&parallelism, &failed].into_iter().filter(|c| c.int() > FEWER) {
            let message = format!(
                "must be less than or equal to {FEWER} when completions are above {MANY} and used with backoff limit per index"
            );
            errors.invalid(count, message);
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

pub(super) fn job_change<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    let completions = n.get("completions");
    if n.get("completionMode").str() != "Indexed" {
        meta::immutable(&completions, &o.get("completions"), errors);
    } else if completions.is_present()
        && completions.opt_int() != o.get("completions").opt_int()
        && completions.opt_int() != n.get("parallelism").opt_int()
    {
        errors.invalid(&completions, format!("can only be modified in tandem with {}", n.get("parallelism")));
    }
    meta::immutable(&n.get("selector"), &o.get("selector"), errors);
    template_change(new, old, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        meta::immutable(&n.get(field), &o.get(field), errors);
    }
}

/// The template stays; but of a job that is suspended and runs nothing, the place its pods go to and what they ask
/// for may still be chosen.
fn template_change<'a>(new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("spec").get("template"), old.get("spec").get("template"));
    let (Some(now), Some(before)) = (n.value(), o.value()) else { return };
    let status = old.get("status");
    let suspended = old.get("spec").get("suspend").bool();
    let idle = status::is_true(&status, "Suspended") && status.get("active").int() == 0;
    let mut before = before.clone();
    if suspended && (idle || status.get("startTime").is_absent()) {
        place_as_in(&mut before, now);
    }
    // Upstream then compares the specs alone.
    let (at, now) = if suspended && idle {
        for list in ["containers", "initContainers"] {
            resources_as_in(&mut before, now, list);
        }
        before = value::at(&before, &["spec"]).cloned().unwrap_or_default();
        (n.get("spec"), value::at(now, &["spec"]).cloned().unwrap_or_default())
    } else {
        (n, now.clone())
    };
    if !same(Some(&now), Some(&before)) {
        errors.invalid_value(&at, now, meta::IMMUTABLE);
    }
}

/// Makes what says where pods go as it is in `now`.
fn place_as_in(template: &mut Value, now: &Value) {
    let affinity = ["spec", "affinity"];
    let node = ["spec", "affinity", "nodeAffinity"];
    match (value::at(now, &affinity).is_some(), value::at(template, &affinity).is_some()) {
        // An affinity that was for nodes alone may go as a whole.
        (false, true) => {
            value::remove(template, &node);
            if value::at(template, &affinity).and_then(Value::as_object).is_some_and(Map::is_empty) {
                value::remove(template, &affinity);
            }
        }
        (true, was) => {
            if !was {
                value::set(template, &affinity, json!({}));
            }
            value::copy(template, now, &node);
        }
        (false, false) => {}
    }
    for path in [
        &["spec", "nodeSelector"][..],
        &["spec", "tolerations"],
        &["spec", "schedulingGates"],
        &["metadata", "labels"],
        &["metadata", "annotations"],
    ] {
        value::copy(template, now, path);
    }
}

/// Makes the resources of containers as they are in `now`, where both have the same containers.
fn resources_as_in(template: &mut Value, now: &Value, list: &str) {
    let wanted = value::items_at(now, &["spec", list]);
    let mine = template.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Value::as_array_mut);
    let Some(mine) = mine.filter(|m| m.len() == wanted.len()) else { return };
    for (container, wanted) in mine.iter_mut().zip(wanted) {
        if value::str_at(container, &["name"]) == value::str_at(wanted, &["name"]) {
            value::copy(container, wanted, &["resources"]);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

//! Validation of the workloads of the apps group.

use std::collections::BTreeSet;

use pintle_schema::cursor::{BadValue, Cursor, ErrorKind, Errors};
use serde_json::{Value, json};

use crate::kinds::core::pod::spec::{template, template_metadata};
use crate::kinds::core::volume::claim_spec;
use crate::kinds::value::{self, same};
use crate::kinds::{Ctx, checks, meta};

/// How the checks that all workloads share differ between them.
struct Workload {
    /// The selector must be there and hold none but good values, even when the stored one has others.
    strict: bool,
    /// What is said of a selector that cannot be read, in whose place no template can be judged.
    unreadable: Option<&'static str>,
    /// What is said of a selector that selects all.
    empty: &'static str,
    /// The name in messages.
    kind: &'static str,
}

const REPLICA_SET: Workload = Workload {
    strict: true,
    unreadable: Some("invalid label selector"),
    empty: "empty selector is invalid for deployment",
    kind: "ReplicaSet",
};
const STATEFUL_SET: Workload = Workload {
    strict: true,
    unreadable: Some(""),
    empty: "empty selector is invalid for statefulset",
    kind: "StatefulSet",
};
const DAEMON_SET: Workload =
    Workload { strict: false, unreadable: None, empty: "empty selector is invalid for daemonset", kind: "DaemonSet" };

/// What is wrong with a selector by the rules for new ones.
fn selector_errors(selector: &Cursor<'_>) -> Errors {
    let mut found = Errors::new();
    meta::label_selector(selector, false, &mut found);
    found
}

/// Whether a selector has values that no label may have; then it may keep them where [`Workload::strict`] is not set.
pub fn odd_values(selector: &Cursor<'_>) -> bool {
    selector_errors(selector).iter().any(|e| e.field.contains(".values["))
}

/// Checks the selector, and that it selects the template; says whether the template can be looked at further.
fn selector<'a>(object: &Cursor<'a>, old: Option<&Cursor<'a>>, rules: &Workload, errors: &mut Errors) -> bool {
    let spec = object.get("spec");
    let selector = spec.get("selector");
    if selector.is_absent() && rules.strict {
        errors.required(&selector, "");
    } else if selector.is_present() {
        let lenient = !rules.strict && old.is_some_and(|o| odd_values(&o.get("spec").get("selector")));
        meta::label_selector(&selector, lenient, errors);
        if meta::selects_all(&selector) {
            errors.invalid(&selector, rules.empty);
        }
    }
    if !selector_errors(&selector).is_empty() {
        if let Some(detail) = rules.unreadable {
            errors.invalid(&selector, detail);
        }
        return rules.unreadable.is_none();
    }
    selects_template(&spec, errors);
    true
}

/// The selector of a spec selects the pods of its template.
pub fn selects_template(spec: &Cursor<'_>, errors: &mut Errors) {
    let (selector, labels) = (spec.get("selector"), spec.get("template").get("metadata").get("labels"));
    if selector_errors(&selector).is_empty() && !selects(&selector, &labels) {
        let shown = labels.value().cloned().unwrap_or(Value::Null);
        errors.invalid_value(&labels, shown, "`selector` does not match template `labels`");
    }
}

/// The template of pods that run for good.
fn lasting<'a>(object: &Cursor<'a>, old: Option<&Cursor<'a>>, rules: &Workload, errors: &mut Errors) {
    let old = old.map(|o| o.get("spec").get("template"));
    template(&object.get("spec").get("template"), old.as_ref(), errors);
    never_ending(object, rules, errors);
}

/// Pods that run for good are always started again and have no deadline.
fn never_ending(object: &Cursor<'_>, rules: &Workload, errors: &mut Errors) {
    let spec = object.get("spec").get("template").get("spec");
    let (policy, deadline) = (spec.get("restartPolicy"), spec.get("activeDeadlineSeconds"));
    if policy.str() != "Always" {
        errors.not_supported(&policy, policy.str(), &["Always"]);
    }
    if deadline.is_present() {
        errors.forbidden(&deadline, format!("activeDeadlineSeconds in {} is not Supported", rules.kind));
    }
}

/// Whether a selector selects labels; one that is absent selects nothing.
pub fn selects(selector: &Cursor<'_>, labels: &Cursor<'_>) -> bool {
    let label = |key: &str| labels.object().and_then(|map| map.get(key)).and_then(Value::as_str);
    let matches = |term: Cursor<'_>| {
        let label = label(term.get("key").str());
        let listed = label.is_some_and(|l| term.get("values").items().any(|v| v.str() == l));
        match term.get("operator").str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            _ => true,
        }
    };
    selector.is_present()
        && selector.get("matchLabels").entries().all(|(key, v)| label(key) == Some(v.str()))
        && selector.get("matchExpressions").items().all(matches)
}

/// A strategy as upstream prints it: by the names of its code, every field there. `rolling` has the fields of
/// `rollingUpdate` and what stands for one that is absent.
fn strategy_text(strategy: &Cursor<'_>, rolling: &[(&'static str, &str)]) -> String {
    let update = strategy.get("rollingUpdate");
    let kind = Value::from(strategy.get("type").str());
    format!("{{\"Type\":{kind},\"RollingUpdate\":{}}}", rolling_text(&update, rolling))
}

fn rolling_text(update: &Cursor<'_>, fields: &[(&'static str, &str)]) -> String {
    if update.is_absent() {
        return "null".to_owned();
    }
    let parts = fields.iter().map(|(name, none)| {
        let shown = update.get(name).value().map_or_else(|| (*none).to_owned(), ToString::to_string);
        format!("\"{}{}\":{shown}", name[..1].to_uppercase(), &name[1..])
    });
    format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
}

const LIMITS: &[(&str, &str)] = &[("maxUnavailable", "0"), ("maxSurge", "0")];
const PARTITION: &[(&str, &str)] = &[("partition", "0"), ("maxUnavailable", "null")];

fn unknown_strategy(strategy: &Cursor<'_>, known: &str, errors: &mut Errors) {
    let detail = format!("{}: supported values: {known}", strategy_text(strategy, LIMITS));
    errors.add(ErrorKind::NotSupported, strategy, BadValue::Omitted, detail);
}

/// A count or a percentage; says what it is worth of a hundred.
pub fn count_or_percent(at: &Cursor<'_>, errors: &mut Errors) -> i64 {
    if let Some(text) = at.opt_str() {
        meta::invalid_each(at, checks::percent(text), errors);
        return text.trim_end_matches('%').parse().unwrap_or(0);
    }
    meta::not_negative(at, errors);
    at.int()
}

/// No more than all.
pub fn at_most_all(at: &Cursor<'_>, errors: &mut Errors) {
    let percent = at.opt_str().and_then(|t| t.strip_suffix('%')).and_then(|n| n.parse::<i64>().ok());
    if percent.is_some_and(|n| n > 100) {
        errors.invalid(at, "must not be greater than 100%");
    }
}

pub(super) fn replica_set<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    meta::not_negative(&spec.get("replicas"), errors);
    meta::not_negative(&spec.get("minReadySeconds"), errors);
    if selector(object, old, &REPLICA_SET, errors) {
        lasting(object, old, &REPLICA_SET, errors);
    }
}

pub(super) fn deployment<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    meta::not_negative(&spec.get("replicas"), errors);
    if selector(object, old, &REPLICA_SET, errors) {
        lasting(object, old, &REPLICA_SET, errors);
    }
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "Recreate" => {
            if rolling.is_present() {
                errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => {
            if rolling.is_absent() {
                errors.required(&rolling, "this should be defaulted and never be nil");
            } else {
                let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
                let down = count_or_percent(&unavailable, errors);
                let up = count_or_percent(&surge, errors);
                if down == 0 && up == 0 {
                    errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
                }
                at_most_all(&unavailable, errors);
            }
        }
        _ => unknown_strategy(&strategy, "\"Recreate\", \"RollingUpdate\"", errors),
    }
    meta::not_negative(&spec.get("minReadySeconds"), errors);
    meta::not_negative(&spec.get("revisionHistoryLimit"), errors);
    let deadline = spec.get("progressDeadlineSeconds");
    if let Some(seconds) = deadline.opt_int() {
        meta::not_negative(&deadline, errors);
        if seconds <= spec.get("minReadySeconds").int() {
            errors.invalid(&deadline, "must be greater than minReadySeconds");
        }
    }
}

pub(super) fn selector_stays(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    meta::immutable(&new.get("spec").get("selector"), &old.get("spec").get("selector"), errors);
}

pub(super) fn daemon_set<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    selector(object, old, &DAEMON_SET, errors);
    lasting(object, old, &DAEMON_SET, errors);
    meta::not_negative(&spec.get("minReadySeconds"), errors);
    let strategy = spec.get("updateStrategy");
    match strategy.get("type").str() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.get("rollingUpdate");
            if rolling.is_absent() {
                errors.required(&rolling, "");
            } else {
                let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
                let (down, up) = (count_or_percent(&unavailable, errors), count_or_percent(&surge, errors));
                at_most_all(&unavailable, errors);
                at_most_all(&surge, errors);
                match (down != 0, up != 0) {
                    (false, false) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                    (true, true) => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
                    _ => {}
                }
            }
        }
        _ => unknown_strategy(&strategy, "\"RollingUpdate\", \"OnDelete\"", errors),
    }
    meta::not_negative(&spec.get("revisionHistoryLimit"), errors);
}

/// Checks a stateful set. The template of one that is stored with a bad one is not checked again.
pub(super) fn stateful_set<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let bad_before = old.is_some_and(|o| {
        let mut found = Errors::new();
        stateful_set_spec(o, Some(o), true, &mut found);
        !found.is_empty()
    });
    stateful_set_spec(object, old, !bad_before, errors);
}

fn stateful_set_spec<'a>(object: &Cursor<'a>, old: Option<&Cursor<'a>>, with_template: bool, errors: &mut Errors) {
    let spec = object.get("spec");
    let at = |field: &'static str| spec.get(field);
    match at("podManagementPolicy").str() {
        "" => errors.required(at("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid_value(at("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = at("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "" => errors.required(&strategy, ""),
        "OnDelete" => {
            if rolling.is_present() {
                let shown = rolling_text(&rolling, PARTITION);
                let detail = format!("{shown}: only allowed for updateStrategy 'RollingUpdate'");
                errors.invalid_value(&rolling, BadValue::Omitted, detail);
            }
        }
        "RollingUpdate" => {
            meta::not_negative(&rolling.get("partition"), errors);
            let unavailable = rolling.get("maxUnavailable");
            if unavailable.is_present() {
                if count_or_percent(&unavailable, errors) == 0 {
                    errors.invalid(&unavailable, "cannot be 0");
                }
                at_most_all(&unavailable, errors);
            }
        }
        _ => {
            let detail = format!("{}: must be 'RollingUpdate' or 'OnDelete'", strategy_text(&strategy, PARTITION));
            errors.invalid_value(&strategy, BadValue::Omitted, detail);
        }
    }
    let retention = at("persistentVolumeClaimRetentionPolicy");
    if retention.is_present() {
        for field in ["whenDeleted", "whenScaled"] {
            let policy = retention.get(field);
            if !matches!(policy.str(), "Retain" | "Delete") {
                errors.not_supported(&policy, policy.str(), &["Retain", "Delete"]);
            }
        }
    }
    // What never changes is checked once.
    if old.is_none() {
        for claim in at("volumeClaimTemplates").items() {
            claim_spec(&claim.get("spec"), errors);
        }
    }
    meta::not_negative(&at("replicas"), errors);
    meta::not_negative(&at("minReadySeconds"), errors);
    meta::not_negative(&at("ordinals").get("start"), errors);
    let service = at("serviceName");
    if old.is_none() && !service.is_empty() {
        checks::label(&service, errors);
    }
    if selector(object, old, &STATEFUL_SET, errors) {
        let old = old.map(|o| o.get("spec").get("template"));
        let pods = json!({"spec": {"template": as_run(&spec)}});
        let pods = Cursor::root(&pods).get("spec").get("template");
        if with_template {
            template(&pods, old.as_ref(), errors);
        } else {
            template_metadata(&pods, errors);
        }
    }
    never_ending(object, &STATEFUL_SET, errors);
}

/// The template of a stateful set as its pods are: each has a name and a subdomain of the set's giving, and the
/// volumes of the claims, which come first and stand for those of the same name.
fn as_run(spec: &Cursor<'_>) -> Value {
    let mut template = spec.get("template").value().cloned().unwrap_or_else(|| json!({}));
    for field in ["subdomain", "hostname"] {
        value::remove(&mut template, &["spec", field]);
    }
    let claims: BTreeSet<&str> =
        spec.get("volumeClaimTemplates").items().map(|c| c.get("metadata").get("name").str()).collect();
    if !claims.is_empty() {
        let own = |v: &&Value| !claims.contains(value::str_at(v, &["name"]));
        let volumes: Vec<Value> = claims
            .iter()
            .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
            .chain(value::items_at(&template, &["spec", "volumes"]).iter().filter(own).cloned())
            .collect();
        value::set(&mut template, &["spec", "volumes"], volumes);
    }
    template
}

pub(super) fn stateful_set_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    const MAY: &[&str] = &[
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let (Some(n), Some(o)) = (new.get("spec").value(), old.get("spec").value()) else { return };
    let mut forgiven = n.clone();
    for field in MAY {
        value::copy(&mut forgiven, o, &[field]);
    }
    if !same(Some(&forgiven), Some(o)) {
        errors.forbidden(
            new.get("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

pub(super) fn revision(_: &Ctx<'_>, object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    meta::not_negative(&object.get("revision"), errors);
    let data = object.get("data");
    if old.is_some() {
        return;
    }
    if data.is_absent() {
        errors.required(&data, "data is mandatory");
    } else if data.object().is_none() {
        errors.required(&data, "data must be a valid JSON object");
    }
}

/// Numbers of a status, none below zero, and none of the later above `replicas`.
fn counts(status: &Cursor<'_>, all: &[&'static str], of_replicas: &[&'static str], errors: &mut Errors) {
    for field in all {
        meta::not_negative(&status.get(field), errors);
    }
    for field in of_replicas {
        let count = status.get(field);
        if count.int() > status.get("replicas").int() {
            errors.invalid(&count, "cannot be greater than status.replicas");
        }
    }
}

/// The status of replica sets and replication controllers.
pub fn replica_status(status: &Cursor<'_>, errors: &mut Errors) {
    counts(
        status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        errors,
    );
    ready_before_available(status, "readyReplicas", errors);
}

fn ready_before_available(status: &Cursor<'_>, name: &str, errors: &mut Errors) {
    let available = status.get("availableReplicas");
    if available.int() > status.get("readyReplicas").int() {
        errors.invalid(&available, format!("cannot be greater than {name}"));
    }
}

fn collisions(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let count = new.get("status").get("collisionCount");
    if count.int() < old.get("status").get("collisionCount").int() {
        errors.invalid_value(&count, count.int(), "cannot be decremented");
    }
}

pub(super) fn deployment_status(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let status = new.get("status");
    counts(
        &status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        errors,
    );
    ready_before_available(&status, "readyReplicas", errors);
    collisions(new, old, errors);
}

pub(super) fn daemon_set_status(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let all = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counts(&new.get("status"), &all, &[], errors);
    collisions(new, old, errors);
}

pub(super) fn stateful_set_status(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let status = new.get("status");
    counts(
        &status,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        errors,
    );
    ready_before_available(&status, "status.readyReplicas", errors);
    collisions(new, old, errors);
}

#[cfg(test)]
mod tests;

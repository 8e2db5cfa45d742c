//! Validation of the workloads of the apps group.

use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use crate::kinds::core::pod::spec::template;
use crate::kinds::value::{self, same};
use crate::kinds::{Ctx, checks, meta};

/// A selector, and a template whose labels it matches.
fn selector_and_template<'a>(
    object: &Cursor<'a>,
    old: Option<&Cursor<'a>>,
    empty: &str,
    deadline: &str,
    errors: &mut Errors,
) {
    let spec = object.get("spec");
    let (selector, pods) = (spec.get("selector"), spec.get("template"));
    if selector.is_absent() {
        errors.required(&selector, "");
    } else {
        let lenient = old.is_some_and(|o| {
            let mut found = Errors::new();
            meta::label_selector(&o.get("spec").get("selector"), false, &mut found);
            found.iter().any(|e| e.field.contains(".values["))
        });
        meta::label_selector(&selector, lenient, errors);
        if meta::selects_all(&selector) {
            errors.invalid(&selector, empty);
        }
    }
    let labels = pods.get("metadata").get("labels");
    if !selects(&selector, &labels) {
        let shown = labels.value().cloned().unwrap_or(Value::Null);
        errors.invalid_value(&labels, shown, "`selector` does not match template `labels`");
    }
    let old = old.map(|o| o.get("spec").get("template"));
    template(&pods, old.as_ref(), errors);
    let policy = pods.get("spec").get("restartPolicy");
    if policy.str() != "Always" {
        errors.not_supported(&policy, policy.str(), &["Always"]);
    }
    let seconds = pods.get("spec").get("activeDeadlineSeconds");
    if seconds.is_present() {
        if deadline.is_empty() {
            errors.invalid(&seconds, "must not be specified");
        } else {
            errors.forbidden(&seconds, deadline);
        }
    }
}

/// Whether a selector that says something matches labels.
pub fn selects<'a>(selector: &Cursor<'a>, labels: &Cursor<'a>) -> bool {
    let equal = selector.get("matchLabels").entries().all(|(key, v)| labels.key(key).opt_str() == Some(v.str()));
    equal
        && selector.get("matchExpressions").items().all(|term| {
            let label = labels.key(term.get("key").str()).opt_str();
            let listed = label.is_some_and(|l| term.get("values").items().any(|v| v.str() == l));
            match term.get("operator").str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => true,
            }
        })
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
    selector_and_template(
        object,
        old,
        "empty selector is invalid for deployment",
        "activeDeadlineSeconds in ReplicaSet is not Supported",
        errors,
    );
}

pub(super) fn deployment<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    meta::not_negative(&spec.get("replicas"), errors);
    selector_and_template(
        object,
        old,
        "empty selector is invalid for deployment",
        "activeDeadlineSeconds in ReplicaSet is not Supported",
        errors,
    );
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
        other => errors.not_supported(&strategy, other, &["Recreate", "RollingUpdate"]),
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
    selector_and_template(
        object,
        old,
        "empty selector is invalid for daemonset",
        "activeDeadlineSeconds in DaemonSet is not Supported",
        errors,
    );
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
                let down = count_or_percent(&unavailable, errors);
                at_most_all(&unavailable, errors);
                let up = count_or_percent(&surge, errors);
                at_most_all(&surge, errors);
                match (down, up) {
                    (0, 0) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                    (1.., 1..) => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
                    _ => {}
                }
            }
        }
        other => errors.not_supported(&strategy, other, &["RollingUpdate", "OnDelete"]),
    }
    meta::not_negative(&spec.get("revisionHistoryLimit"), errors);
}

pub(super) fn daemon_set_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    meta::immutable(&n.get("selector"), &o.get("selector"), errors);
    let generation = n.get("templateGeneration");
    let (now, before) = (generation.int(), o.get("templateGeneration").int());
    if now < before {
        errors.invalid_value(&generation, now, "must not be decremented");
    }
}

pub(super) fn stateful_set<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
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
                errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'");
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
        _ => errors.invalid(&strategy, "must be 'RollingUpdate' or 'OnDelete'"),
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
    meta::not_negative(&at("replicas"), errors);
    meta::not_negative(&at("minReadySeconds"), errors);
    meta::not_negative(&at("ordinals").get("start"), errors);
    meta::not_negative(&at("revisionHistoryLimit"), errors);
    if old.is_none() {
        let service = at("serviceName");
        if !service.is_empty() {
            checks::label(&service, errors);
        }
    }
    selector_and_template(object, old, "empty selector is invalid for statefulset", "", errors);
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

pub(super) fn revision(_: &Ctx<'_>, object: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    if object.get("data").is_absent() {
        errors.required(object.get("data"), "data is mandatory");
    }
    meta::not_negative(&object.get("revision"), errors);
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
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        errors,
    );
    ready_before_available(status, errors);
}

fn ready_before_available(status: &Cursor<'_>, errors: &mut Errors) {
    let available = status.get("availableReplicas");
    if available.int() > status.get("readyReplicas").int() {
        errors.invalid(&available, "cannot be greater than readyReplicas");
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
            "collisionCount",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        errors,
    );
    ready_before_available(&status, errors);
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
    ready_before_available(&status, errors);
    collisions(new, old, errors);
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn workload(kind: &str, spec: Value) -> Value {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w", "namespace": "ns", "resourceVersion": "1"},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                    "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
                    "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]}},
            },
        });
        for (k, v) in spec.as_object().unwrap() {
            object["spec"][k] = v.clone();
        }
        object
    }

    fn deployment() -> Value {
        let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
        workload(
            "Deployment",
            json!({"replicas": 1, "progressDeadlineSeconds": 600, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}),
        )
    }

    #[test]
    fn deployments() {
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&deployment(), path, to)), expect, "{path}");
        };
        check("spec/paused", json!(true), "");
        check("spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
        check("spec/selector", Value::Null, "spec.selector: Required value");
        check(
            "spec/selector",
            json!({"matchLabels": {"x": "y"}}),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        );
        check("spec/selector", json!({}), "spec.selector: Invalid value: {}: empty selector is invalid for deployment");
        check(
            "spec/template/metadata/labels",
            json!({"a": "b", "c": "d e"}),
            &format!("spec.template.labels: Invalid value: \"d e\": {}", pintle_api::names::label_value("d e")[0]),
        );
        check(
            "spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        );
        check(
            "spec/template/spec/containers/0/image",
            json!(""),
            "spec.template.spec.containers[0].image: Required value",
        );
        check(
            "spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        );
        check(
            "spec/strategy/rollingUpdate",
            json!({"maxSurge": 0, "maxUnavailable": "0%"}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        );
        check(
            "spec/progressDeadlineSeconds",
            json!(0),
            "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
        );
        assert_eq!(
            update_errors(
                &changed(
                    &changed(&deployment(), "spec/selector/matchLabels", json!({"a": "c"})),
                    "spec/template/metadata/labels",
                    json!({"a": "c"})
                ),
                &deployment()
            ),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"
        );
    }

    #[test]
    fn others() {
        let set = workload(
            "StatefulSet",
            json!({"replicas": 1, "serviceName": "s", "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"}}),
        );
        assert_eq!(create_errors(&set), "");
        assert_eq!(update_errors(&changed(&set, "spec/replicas", json!(3)), &set), "");
        assert!(
            update_errors(&changed(&set, "spec/serviceName", json!("t")), &set)
                .starts_with("spec: Forbidden: updates to statefulset spec for fields other than")
        );
        let daemons = workload(
            "DaemonSet",
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}),
        );
        assert_eq!(create_errors(&daemons), "");
        assert_eq!(
            create_errors(&changed(&daemons, "spec/updateStrategy/rollingUpdate/maxUnavailable", json!(0))),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
        );
        let replicas = workload("ReplicaSet", json!({"replicas": 1}));
        assert_eq!(create_errors(&replicas), "");
        let mut rc = workload("ReplicationController", json!({"replicas": 1, "selector": {"a": "b"}}));
        rc["apiVersion"] = "v1".into();
        assert_eq!(create_errors(&rc), "");
        assert_eq!(create_errors(&changed(&rc, "spec/selector", json!({}))), "spec.selector: Required value");
    }
}

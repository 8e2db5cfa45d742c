//! The autoscaling group. Autoscalers are stored in the form of `autoscaling/v2`.

use pintle_api::names::path_segment;
use pintle_schema::cursor::{Cursor, Errors};

use super::core::pod::resources::{container_resource_name, quantity};
use super::strategy::Sub;
use super::table::{self, Column, text};
use super::{Ctx, Strategy, checks, meta};

/// The strategy of horizontal pod autoscalers.
pub static HORIZONTAL_POD_AUTOSCALER: Strategy = Strategy {
    validate,
    subresources: &[(
        "status",
        Sub {
            validate: |_, new, _, errors| {
                for field in ["currentReplicas", "desiredReplicas"] {
                    meta::not_negative(&new.get("status").get(field), errors);
                }
            },
            ..Sub::STATUS
        },
    )],
    columns: &[
        Column::NAME,
        text("Reference", "@HorizontalPodAutoscalerSpec.scaleTargetRef"),
        text("Targets", "@HorizontalPodAutoscalerSpec.metrics"),
        text("MinPods", "@HorizontalPodAutoscalerSpec.minReplicas"),
        text("MaxPods", "@HorizontalPodAutoscalerSpec.maxReplicas"),
        text("Replicas", "@HorizontalPodAutoscalerStatus.currentReplicas"),
        Column::AGE,
    ],
    row: |o, now| {
        let (spec, status) = (o.get("spec"), o.get("status"));
        let target = spec.get("scaleTargetRef");
        let min = spec.get("minReplicas").opt_int().map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
        vec![
            table::name(o),
            format!("{}/{}", target.get("kind").str(), target.get("name").str()).into(),
            targets(&spec.get("metrics"), &status.get("currentMetrics")).into(),
            min.into(),
            spec.get("maxReplicas").int().into(),
            status.get("currentReplicas").int().into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

fn validate(_: &Ctx<'_>, object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    // A stored zero may stay.
    let least = i64::from(old.is_none_or(|o| o.get("spec").get("minReplicas").opt_int() != Some(0)));
    if min.opt_int().is_some_and(|n| n < least) {
        errors.invalid(&min, format!("must be greater than or equal to {least}"));
    }
    if max.int() < 1 {
        errors.invalid_value(&max, max.int(), "must be greater than 0");
    }
    if min.opt_int().is_some_and(|n| max.int() < n) {
        errors.invalid_value(&max, max.int(), "must be greater than or equal to `minReplicas`");
    }
    let target = spec.get("scaleTargetRef");
    let version = match old.map(|o| o.get("spec").get("scaleTargetRef")) {
        Some(o) if ["apiVersion", "kind"].iter().all(|f| o.get(f).str() == target.get(f).str()) => Version::Any,
        // The only kind of the core group that can be scaled.
        _ if target.get("kind").str() == "ReplicationController" => Version::AnyGroup,
        _ => Version::Group,
    };
    reference(&target, version, errors);
    let metrics = spec.get("metrics");
    let described = |m: &Cursor<'_>| m.get("object").get("describedObject").get("apiVersion").str().to_owned();
    let odd = old.is_some_and(|o| {
        let metrics = o.get("spec").get("metrics");
        metrics
            .items()
            .any(|m| m.get("type").str() == "Object" && wrong_version(&described(&m), Version::AnyGroup).is_some())
    });
    for metric in metrics.items() {
        metric_spec(&metric, if odd { Version::Any } else { Version::AnyGroup }, errors);
    }
    let from_outside = metrics.items().any(|m| matches!(m.get("type").str(), "Object" | "External"));
    if min.opt_int() == Some(0) && !from_outside {
        errors.forbidden(
            &metrics,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.get("behavior").get(direction);
        if rules.is_present() {
            scaling_rules(&rules, errors);
        }
    }
}

/// What the version of a reference must be.
#[derive(Clone, Copy)]
enum Version {
    Any,
    AnyGroup,
    Group,
}

fn wrong_version(version: &str, rule: Version) -> Option<String> {
    match rule {
        Version::Any => None,
        _ if version.matches('/').count() > 1 => Some(format!("unexpected GroupVersion string: {version}")),
        Version::Group if !version.contains('/') || version.starts_with('/') => {
            Some("apiVersion must specify API group".to_owned())
        }
        _ => None,
    }
}

fn reference(target: &Cursor<'_>, rule: Version, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let part = target.get(field);
        if part.is_empty() {
            errors.required(&part, "");
        } else {
            meta::invalid_each(&part, path_segment(part.str()), errors);
        }
    }
    let version = target.get("apiVersion");
    if let Some(message) = wrong_version(version.str(), rule) {
        errors.invalid_value(&version, version.str(), message);
    }
}

const SOURCES: &[(&str, &str)] = &[
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

fn metric_spec(metric: &Cursor<'_>, version: Version, errors: &mut Errors) {
    const KINDS: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.get("type");
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    if !KINDS.contains(&kind.str()) {
        errors.not_supported(&kind, kind.str(), KINDS);
    }
    let present: Vec<&str> = SOURCES.iter().map(|(f, _)| *f).filter(|f| metric.get(f).is_present()).collect();
    if let Some(first) = SOURCES.iter().map(|(f, _)| *f).find(|f| present.contains(f)) {
        metric_source(first, &metric.get(first), version, errors);
    }
    let expected = SOURCES.iter().find(|(_, k)| *k == kind.str()).map(|(field, _)| *field);
    match expected {
        Some(field) if !present.contains(&field) => {
            errors.required(metric.get(field), "must populate information for the given metric source");
        }
        Some(_) => {}
        // Upstream says it a second time.
        None => errors.not_supported(&kind, kind.str(), KINDS),
    }
    if present.len() != 1 {
        for (other, _) in SOURCES.iter().filter(|(f, _)| Some(*f) != expected && present.contains(f)) {
            errors.forbidden(metric.get(other), "must populate the given metric source only");
        }
    }
}

fn metric_source(kind: &str, source: &Cursor<'_>, version: Version, errors: &mut Errors) {
    let target = source.get("target");
    let at = |field: &'static str| target.get(field);
    if matches!(kind, "resource" | "containerResource") {
        let name = source.get("name");
        if name.is_empty() {
            errors.required(&name, "must specify a resource name");
        } else if kind == "containerResource" {
            container_resource_name(&name, name.str(), errors);
        }
        if kind == "containerResource" {
            let container = source.get("container");
            if container.is_empty() {
                errors.required(&container, "must specify a container");
            } else {
                checks::label(&container, errors);
            }
        }
    } else {
        if kind == "object" {
            reference(&source.get("describedObject"), version, errors);
        }
        let name = source.get("metric").get("name");
        if name.is_empty() {
            errors.required(&name, "must specify a metric name");
        } else {
            meta::invalid_each(&name, path_segment(name.str()), errors);
        }
    }
    metric_target(&target, errors);
    let (value, average, percent) =
        (at("value").is_present(), at("averageValue").is_present(), at("averageUtilization").is_present());
    match kind {
        "object" if !value && !average => {
            errors.required(at("averageValue"), "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            errors.required(at("averageValue"), "must set either a target value for metric or a per-pod target");
        }
        "external" if value && average => {
            errors.forbidden(at("value"), "may not set both a target value for metric and a per-pod target");
        }
        "pods" if !average => {
            errors.required(at("averageValue"), "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !percent && !average => {
            errors.required(at("averageUtilization"), "must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if percent && average => {
            errors.forbidden(at("averageValue"), "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn metric_target(target: &Cursor<'_>, errors: &mut Errors) {
    let kind = target.get("type");
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric target type");
    }
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        errors.invalid_value(&kind, kind.str(), "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if amount.is_present() && quantity(&amount).sign() <= 0 {
            errors.invalid(&amount, "must be positive");
        }
    }
    let percent = target.get("averageUtilization");
    if percent.opt_int().is_some_and(|n| n < 1) {
        errors.invalid(&percent, "must be greater than 0");
    }
}

fn scaling_rules(rules: &Cursor<'_>, errors: &mut Errors) {
    let (window, select, policies, tolerance) = (
        rules.get("stabilizationWindowSeconds"),
        rules.get("selectPolicy"),
        rules.get("policies"),
        rules.get("tolerance"),
    );
    if window.int() < 0 {
        errors.invalid(&window, "must be greater than or equal to zero");
    }
    if window.int() > 3600 {
        errors.invalid(&window, "must be less than or equal to 3600");
    }
    checks::one_of(&select, &["Disabled", "Max", "Min"], false, errors);
    if policies.is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let (kind, value, period) = (policy.get("type"), policy.get("value"), policy.get("periodSeconds"));
        if !matches!(kind.str(), "Pods" | "Percent") {
            errors.not_supported(&kind, kind.str(), &["Percent", "Pods"]);
        }
        if value.int() <= 0 {
            errors.invalid_value(&value, value.int(), checks::NOT_POSITIVE);
        }
        if period.int() <= 0 {
            errors.invalid_value(&period, period.int(), checks::NOT_POSITIVE);
        }
        if period.int() > 1800 {
            errors.invalid(&period, "must be less than or equal to 1800");
        }
    }
    if quantity(&tolerance).sign() < 0 {
        errors.invalid(&tolerance, meta::NOT_NEGATIVE);
    }
}

/// `cpu: 30%/80%, 5/10 (avg)`: what is against what is wanted, of the first two metrics.
fn targets(specs: &Cursor<'_>, statuses: &Cursor<'_>) -> String {
    let mut list: Vec<String> = specs.items().enumerate().map(|(i, spec)| target(&spec, &statuses.index(i))).collect();
    let count = list.len();
    list.truncate(2);
    match count {
        0 => "<none>".to_owned(),
        1 | 2 => list.join(", "),
        _ => format!("{} + {} more...", list.join(", "), count - 2),
    }
}

fn target(spec: &Cursor<'_>, status: &Cursor<'_>) -> String {
    let source = match spec.get("type").str() {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, current) = (spec.get(source).get("target"), status.get(source).get("current"));
    let now = |field| current.get(field).opt_str().unwrap_or("<unknown>");
    let average = wanted.get("averageValue");
    match source {
        "pods" => format!("{}/{}", now("averageValue"), average.str()),
        "external" | "object" if average.is_present() => format!("{}/{} (avg)", now("averageValue"), average.str()),
        "external" | "object" => format!("{}/{}", now("value"), wanted.get("value").str()),
        _ => {
            let name = spec.get(source).get("name").str();
            if average.is_present() {
                return format!("{name}: {}/{}", now("averageValue"), average.str());
            }
            let percent =
                |at: Cursor<'_>, none: &str| at.opt_int().map_or_else(|| none.to_owned(), |n| format!("{n}%"));
            let current = percent(current.get("averageUtilization"), "<unknown>");
            format!("{name}: {current}/{}", percent(wanted.get("averageUtilization"), "<auto>"))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"averageValue": "10"}}});
        let hpa = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [cpu, pods]},
            "status": {"currentReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 30}}}]},
        });
        assert_eq!(
            json!(testing::row(&hpa, 5)),
            json!(["h", "Deployment/d", "cpu: 30%/80%, <unknown>/10", "1", 5, 2, "5s"])
        );
        let more = testing::changed(&hpa, "spec/metrics/2", cpu);
        assert_eq!(testing::row(&more, 5)[2], "cpu: 30%/80%, <unknown>/10 + 1 more...");
    }

    #[test]
    fn checks() {
        use crate::kinds::testing::{changed, create_errors};
        let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}});
        let check =
            |path: &str, to, expect: &str| assert_eq!(create_errors(&changed(&hpa, path, to)), expect, "{path}");
        check("spec/behavior", json!({}), "");
        check(
            "spec/maxReplicas",
            json!(0),
            "spec.maxReplicas: Invalid value: 0: must be greater than 0\nspec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
        );
        check("spec/scaleTargetRef/kind", json!(""), "spec.scaleTargetRef.kind: Required value");
        check(
            "spec/scaleTargetRef/apiVersion",
            json!("v1"),
            "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
        );
        check("spec/scaleTargetRef", json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "r"}), "");
        let old = changed(&hpa, "spec/scaleTargetRef/apiVersion", json!("v1"));
        assert_eq!(crate::kinds::testing::update_errors(&old, &old), "");
        check(
            "spec/metrics/0/resource",
            json!(null),
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
        );
        check(
            "spec/behavior",
            json!({"scaleUp": {}}),
            "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
        );
    }
}

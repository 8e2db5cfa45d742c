//! ResourceQuotas and LimitRanges.

use std::collections::HashSet;

use jiff::Timestamp;
use pintle_api::quantity::{Format, Quantity};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::pod::resources::{amount, container_resource_name, is_huge_page, is_native, quantity, resource_name};
use crate::kinds::strategy::{Sub, keep_all_but_status};
use crate::kinds::table::{self, Column, text};
use crate::kinds::{Ctx, Strategy};

/// The strategy of limit ranges.
pub static LIMIT_RANGE: Strategy =
    Strategy { create_on_update: true, full_meta_on_update: true, validate: limit_range, ..Strategy::DEFAULT };

/// The strategy of resource quotas.
pub static RESOURCE_QUOTA: Strategy = Strategy {
    validate: |_, quota, _, errors| quota_spec(&quota.get("spec"), errors),
    validate_change: |_, new, old, errors| {
        let sorted = |o: &Cursor<'_>| {
            let mut scopes: Vec<String> = o.get("spec").get("scopes").items().map(|s| s.str().to_owned()).collect();
            scopes.sort_unstable();
            scopes
        };
        if sorted(new) != sorted(old) {
            let scopes = new.get("spec").get("scopes");
            errors.invalid_value(&scopes, scopes.value().cloned().unwrap_or_default(), crate::kinds::meta::IMMUTABLE);
        }
    },
    subresources: &[(
        "status",
        Sub {
            prepare: keep_all_but_status,
            validate: |_, new, _, errors| {
                for field in ["hard", "used"] {
                    quota_amounts(&new.get("status").get(field), errors);
                }
            },
            reset_fields: &[&["spec"]],
        },
    )],
    columns: &[
        Column::NAME,
        text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
        text(
            "Limit",
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
        Column::AGE,
    ],
    row,
    ..Strategy::DEFAULT
};

fn is_quota_resource(name: &str) -> bool {
    const KNOWN: &[&str] = &[
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "persistentvolumeclaims",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    ];
    KNOWN.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

fn quota_amounts(list: &Cursor<'_>, errors: &mut Errors) {
    for (name, hard) in list.entries() {
        resource_name(&hard, name, errors);
        if !name.contains('/') && !is_quota_resource(name) {
            errors.invalid_value(&hard, name, "must be a standard resource for quota");
        }
        amount(name, &hard, errors);
    }
}

/// Whether a scope can narrow a quota of this resource.
fn scope_fits(scope: &str, resource: &str) -> bool {
    const COMPUTE: &[&str] = &[
        "cpu",
        "memory",
        "limits.cpu",
        "limits.memory",
        "requests.cpu",
        "requests.memory",
        "ephemeral-storage",
        "limits.ephemeral-storage",
        "requests.ephemeral-storage",
    ];
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || COMPUTE.contains(&resource)
        }
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn quota_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    let hard = spec.get("hard");
    quota_amounts(&hard, errors);
    let scopes = spec.get("scopes");
    let limits: Vec<&str> = hard.entries().map(|(name, _)| name).filter(|n| is_quota_resource(n)).collect();
    let conflict = |has: &dyn Fn(&str) -> bool, errors: &mut Errors| {
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|s| has(s)) {
                errors.invalid_value(&scopes, scopes.value().cloned().unwrap_or_default(), "conflicting scopes");
            }
        }
    };
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.str()) {
            errors.invalid(&scopes, "unsupported scope");
        }
        for _ in limits.iter().filter(|l| !scope_fits(scope.str(), l)) {
            errors.invalid(&scopes, "unsupported scope applied to resource");
        }
    }
    conflict(&|s| scopes.items().any(|found| found.str() == s), errors);
    let selector = spec.get("scopeSelector");
    let terms = selector.get("matchExpressions");
    for term in terms.items() {
        // Upstream reports these at the list.
        let (scope, operator, values) = (term.get("scopeName").str(), term.get("operator").str(), term.get("values"));
        let at = |field: &str| format!("{terms}.{field}");
        if !SCOPES.contains(&scope) {
            errors.invalid_value(at("scopeName"), scope, "unsupported scope");
        }
        for _ in limits.iter().filter(|l| !scope_fits(scope, l)) {
            let shown = selector.value().cloned().unwrap_or_default();
            errors.invalid_value(&terms, shown, "unsupported scope applied to resource");
        }
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&scope)
            && operator != "Exists"
        {
            errors.invalid_value(at("operator"), operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    at("values"),
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let shown = values.value().cloned().unwrap_or_default();
                errors.invalid_value(
                    at("values"),
                    shown,
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid_value(at("operator"), other, "not a valid selector operator"),
        }
    }
    conflict(&|s| terms.items().any(|found| found.get("scopeName").str() == s), errors);
}

fn limit_range(_: &Ctx<'_>, range: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let mut kinds: HashSet<&str> = HashSet::new();
    for limit in range.get("spec").get("limits").items() {
        let kind = limit.get("type");
        let before = errors.len();
        for message in pintle_api::names::qualified_name(kind.str()) {
            errors.invalid_value(&kind, kind.str(), message);
        }
        let standard = matches!(kind.str(), "Pod" | "Container" | "PersistentVolumeClaim");
        if errors.len() == before && !standard && !kind.str().contains('/') {
            errors.invalid_value(&kind, kind.str(), "must be a standard limit type or fully qualified");
        }
        if kinds.contains(&kind.str()) {
            errors.duplicate(&kind, kind.str());
        }
        kinds.insert(kind.str());
        one_limit(&limit, kind.str(), errors);
    }
}

fn one_limit(limit: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    let mut names: Vec<&str> = Vec::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let list = limit.get(field);
        if kind == "Pod" && field.starts_with("default") {
            if !list.is_empty() {
                errors.forbidden(&list, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, at) in list.entries() {
            if matches!(kind, "Pod" | "Container") {
                container_resource_name(&at, name, errors);
            } else {
                resource_name(&at, name, errors);
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let storage = |field: &'static str| limit.get(field).key("storage").is_present();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        errors.required(
            limit.get("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    for name in names {
        bounds(limit, kind, name, errors);
    }
}

/// The five values of a resource against each other.
fn bounds<'a>(limit: &Cursor<'a>, kind: &str, name: &'a str, errors: &mut Errors) {
    let get = |field: &'static str| {
        let at = limit.get(field).key(name);
        (at.is_present() && !(kind == "Pod" && field.starts_with("default"))).then(|| quantity(&at))
    };
    let (min, max, default, request, ratio) =
        (get("min"), get("max"), get("default"), get("defaultRequest"), get("maxLimitRequestRatio"));
    let mut above =
        |a: Option<Quantity>, b: Option<Quantity>, field: &'static str, shown: Option<Quantity>, words: [&str; 2]| {
            if let (Some(a), Some(b), Some(shown)) = (a, b, shown)
                && a > b
            {
                let message = format!("{} value {a} is greater than {} value {b}", words[0], words[1]);
                errors.invalid_value(limit.get(field).key(name), shown.to_string(), message);
            }
        };
    above(min, max, "min", min, ["min", "max"]);
    above(min, request, "defaultRequest", request, ["min", "default request"]);
    above(request, max, "defaultRequest", request, ["default request", "max"]);
    above(request, default, "defaultRequest", request, ["default request", "default limit"]);
    above(min, default, "default", min, ["min", "default"]);
    above(default, max, "default", max, ["default", "max"]);
    if let Some(ratio) = ratio {
        let at = limit.get("maxLimitRequestRatio").key(name);
        if ratio < Quantity::new(1, Format::DecimalSi) {
            errors.invalid_value(&at, ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.as_f64() / min.as_f64();
            if ratio.as_f64() > most {
                errors.invalid_value(
                    &at,
                    ratio.to_string(),
                    format!("ratio {ratio} is greater than max/min = {most:.6}"),
                );
            }
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && default != request
        && (!is_native(name) || is_huge_page(name))
    {
        let message = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errors.invalid_value(limit.get("defaultRequest").key(name), request.to_string(), message);
    }
}

fn row(quota: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = quota.get("status").get("used");
    for (resource, hard) in quota.get("status").get("hard").entries() {
        let used = used.key(resource).opt_str().unwrap_or("0");
        let list = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{resource}: {used}/{}", hard.str()));
    }
    vec![table::name(quota), requests.join(", ").into(), limits.join(", ").into(), table::age(quota, now)]
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "status": {"hard": {"pods": "4", "limits.cpu": "2", "requests.cpu": "1"}, "used": {"pods": "1"}},
        });
        assert_eq!(testing::row(&quota, 5), ["q", "pods: 1/4, requests.cpu: 0/1", "limits.cpu: 0/2", "5s"]);
    }

    #[test]
    fn checks() {
        use crate::kinds::testing::{changed, create_errors};
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "ns"},
            "spec": {"hard": {"pods": "4", "requests.cpu": "1", "count/deployments.apps": "2"}}});
        assert_eq!(create_errors(&quota), "");
        assert_eq!(
            create_errors(&changed(&quota, "spec/hard", json!({"pods": "-1"}))),
            "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"
        );
        assert_eq!(
            create_errors(&changed(&quota, "spec/scopes", json!(["BestEffort"]))),
            "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"
        );
        let limits = |limit| json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": [limit]}});
        assert_eq!(create_errors(&limits(json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}}))), "");
        assert_eq!(
            create_errors(&limits(json!({"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}}))),
            "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"
        );
        assert_eq!(
            create_errors(&limits(json!({"type": "Pod", "default": {"cpu": "3"}}))),
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"
        );
    }
}

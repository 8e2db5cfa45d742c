//! Validation of the flowcontrol group.

use std::collections::HashSet;

use pintle_api::names::{dns1123_label, dns1123_subdomain};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use crate::kinds::value::{self, same};
use crate::kinds::{Ctx, bootstrap, meta};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MOST_QUEUES: i64 = 10_000_000;
/// The hash of a flow has so many bits to deal hands of queues with.
const HASH_BITS: f64 = 60.0;
/// Objects whose spec nobody may change.
const FIXED: &[&str] = &["exempt", "catch-all"];

/// The spec that the server itself gives an object of one of the fixed names.
fn fixed(object: &Cursor<'_>, all: fn() -> Vec<Value>) -> Option<Value> {
    let name = object.get("metadata").get("name").str();
    if !FIXED.contains(&name) {
        return None;
    }
    let mut own = all().into_iter().find(|o| value::str_at(o, &["metadata", "name"]) == name)?;
    let (api_version, kind) = (value::str_at(&own, &["apiVersion"]), value::str_at(&own, &["kind"]));
    if let Some(ty) = pintle_schema::kind(api_version, kind) {
        pintle_schema::apply_defaults(&mut own, ty);
    }
    Some(own["spec"].take())
}

pub(super) fn flow_schema(_: &Ctx<'_>, schema: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let (spec, own) = (schema.get("spec"), schema.get("metadata").get("name").str());
    let (precedence, method, level) =
        (spec.get("matchingPrecedence"), spec.get("distinguisherMethod"), spec.get("priorityLevelConfiguration"));
    if precedence.int() <= 0 {
        errors.invalid_value(&precedence, precedence.int(), "must be a positive value");
    }
    if precedence.int() > 10000 {
        errors.invalid(&precedence, "must not be greater than 10000");
    }
    if precedence.int() == 1 && own != "exempt" {
        errors.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if method.is_present() && !matches!(method.get("type").str(), "ByNamespace" | "ByUser") {
        // Upstream shows the whole method.
        let shown = method.value().cloned().unwrap_or_default();
        errors.not_supported(method.get("type"), shown, &["ByNamespace", "ByUser"]);
    }
    let name = level.get("name");
    if name.is_empty() {
        errors.required(&name, "must reference a priority level");
    } else {
        meta::invalid_each(&name, dns1123_subdomain(name.str()), errors);
    }
    for rule in spec.get("rules").items() {
        flow_rule(&rule, errors);
    }
    if fixed(schema, bootstrap::flow_schemas).is_some_and(|want| !same(Some(&want), spec.value())) {
        errors.invalid(&spec, format!("spec of '{own}' must equal the fixed value"));
    }
    conditions(schema, errors);
}

fn flow_rule(rule: &Cursor<'_>, errors: &mut Errors) {
    let (subjects, resources, paths) = (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
    for subject in subjects.items() {
        flow_subject(&subject, errors);
    }
    if subjects.is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    if resources.is_empty() && paths.is_empty() {
        errors.required(rule, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        verbs(&resource.get("verbs"), errors);
        some(&resource.get("apiGroups"), "resource rules must supply at least one api group", "api groups", errors);
        some(&resource.get("resources"), "resource rules must supply at least one resource", "resources", errors);
        let namespaces = resource.get("namespaces");
        if namespaces.is_empty() && resource.get("clusterScope").bool() {
            continue;
        }
        let none = "resource rules that are not cluster scoped must supply at least one namespace";
        if some(&namespaces, none, "namespaces", errors) {
            for namespace in namespaces.items() {
                for message in dns1123_label(namespace.str()) {
                    let message = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                    errors.invalid_value(&namespace, namespace.str(), message);
                }
            }
        }
    }
    for path in paths.items() {
        verbs(&path.get("verbs"), errors);
        let urls = path.get("nonResourceURLs");
        if some(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", errors) {
            for url in urls.items() {
                if let Some(message) = wrong_path(url.str()) {
                    errors.invalid_value(&url, url.str(), message);
                }
            }
        }
    }
}

/// A list that may not be empty, and of which `*` is all. Whether its members are to be looked at.
fn some(list: &Cursor<'_>, none: &str, others: &str, errors: &mut Errors) -> bool {
    if list.is_empty() {
        errors.required(list, none);
        return false;
    }
    let all = list.items().any(|i| i.str() == "*");
    if all && list.len() > 1 {
        errors.invalid(list, format!("if '*' is present, must not specify other {others}"));
    }
    !all
}

fn verbs(list: &Cursor<'_>, errors: &mut Errors) {
    if some(list, "verbs must contain at least one value", "verbs", errors)
        && list.items().any(|verb| !VERBS.contains(&verb.str()))
    {
        errors.not_supported(list, list.value().cloned().unwrap_or_default(), VERBS);
    }
}

/// What is wrong with the path of a rule.
fn wrong_path(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        p if !p.starts_with('/') => Some("must start with slash"),
        p if p.contains(' ') => Some("must not contain white-space"),
        p if p.contains("//") => Some("must not contain double slash"),
        p if stars > 1 || (stars == 1 && !p.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

fn flow_subject(subject: &Cursor<'_>, errors: &mut Errors) {
    const FORMS: &[(&str, &str)] = &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.get("kind");
    let Some((_, own)) = FORMS.iter().find(|(k, _)| *k == kind.str()) else {
        return errors.not_supported(&kind, kind.str(), &["Group", "ServiceAccount", "User"]);
    };
    let form = subject.get(own);
    let name = form.get("name");
    if form.is_absent() {
        errors.required(&form, format!("{own} is required when subject kind is '{}'", kind.str()));
    } else if name.is_empty() {
        errors.required(&name, "");
    } else if *own == "serviceAccount" && name.str() != "*" {
        meta::invalid_each(&name, dns1123_subdomain(name.str()), errors);
    }
    let namespace = form.get("namespace");
    if *own == "serviceAccount" && form.is_present() {
        if namespace.is_empty() {
            errors.required(&namespace, "must specify namespace for service account");
        } else {
            meta::invalid_each(&namespace, dns1123_label(namespace.str()), errors);
        }
    }
    for (word, other) in FORMS.iter().filter(|(_, f)| f != own && subject.get(f).is_present()) {
        errors.forbidden(subject.get(other), format!("{other} is forbidden when subject kind is not '{word}'"));
    }
}

pub(super) fn priority_level(_: &Ctx<'_>, level: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = level.get("spec");
    let name = level.get("metadata").get("name").str();
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (name == "exempt") != (kind.str() == "Exempt") {
        errors.invalid_value(&kind, kind.str(), "type must be 'Exempt' if and only if name is 'exempt'");
    }
    match kind.str() {
        "Exempt" => {
            if limited.is_present() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            if exempt.is_present() {
                shares(&exempt, errors);
            }
        }
        "Limited" => {
            if exempt.is_present() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if limited.is_absent() {
                errors.required(&limited, "must not be empty when type is Limited");
            } else {
                shares(&limited, errors);
                limit_response(&limited.get("limitResponse"), errors);
            }
        }
        other => errors.not_supported(&kind, other, &["Exempt", "Limited"]),
    }
    if let Some(mut want) = fixed(level, bootstrap::priority_levels) {
        // Of the one for all that is exempt, how much it counts may be set.
        let mut got = spec.value().cloned().unwrap_or_default();
        let but = if name == "exempt" { " except the 'spec.exempt' field" } else { "" };
        if name == "exempt" {
            value::remove(&mut want, &["exempt"]);
            value::remove(&mut got, &["exempt"]);
        }
        if !same(Some(&want), Some(&got)) {
            errors.invalid(&spec, format!("spec of '{name}'{but} must equal the fixed value"));
        }
    }
    conditions(level, errors);
}

fn shares(level: &Cursor<'_>, errors: &mut Errors) {
    let (shares, lendable, borrowing) =
        (level.get("nominalConcurrencyShares"), level.get("lendablePercent"), level.get("borrowingLimitPercent"));
    if shares.int() < 0 {
        errors.invalid(&shares, "must be a non-negative integer");
    }
    if !(0..=100).contains(&lendable.int()) {
        errors.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
    if borrowing.int() < 0 {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
}

fn limit_response(response: &Cursor<'_>, errors: &mut Errors) {
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.str() {
        "Reject" => {
            if queuing.is_present() {
                errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
            }
        }
        "Queue" if queuing.is_absent() => {
            errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => queues(&queuing, errors),
        other => errors.not_supported(&kind, other, &["Queue", "Reject"]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "queues are few")]
fn queues(queuing: &Cursor<'_>, errors: &mut Errors) {
    let (queues, hand, limit) = (queuing.get("queues"), queuing.get("handSize"), queuing.get("queueLengthLimit"));
    let (deck, cards) = (queues.int(), hand.int());
    if limit.int() <= 0 {
        errors.invalid_value(&limit, limit.int(), "must be positive");
    }
    if deck <= 0 {
        errors.invalid_value(&queues, deck, "must be positive");
    } else if deck > MOST_QUEUES {
        errors.invalid(&queues, format!("must not be greater than {MOST_QUEUES}"));
    }
    if cards <= 0 {
        errors.invalid_value(&hand, cards, "must be positive");
    } else if cards > deck {
        errors.invalid(&hand, format!("should not be greater than queues ({deck})"));
    } else if ((deck as f64).log2() * cards as f64).ceil() > HASH_BITS {
        let message = format!(
            "required entropy bits of deckSize {deck} and handSize {cards} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&hand, message);
    }
}

/// The `status` sub-resource of either.
pub(super) fn status(_: &Ctx<'_>, new: &Cursor<'_>, _: &Cursor<'_>, errors: &mut Errors) {
    conditions(new, errors);
}

fn conditions(object: &Cursor<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for condition in object.get("status").get("conditions").items() {
        let kind = condition.get("type");
        if seen.contains(&kind.str()) {
            errors.duplicate(&kind, kind.str());
        }
        seen.insert(kind.str());
        if kind.is_empty() {
            errors.required(&kind, "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::bootstrap;
    use crate::kinds::testing::{changed, create_errors};
    use serde_json::{Value, json};

    fn named(all: Vec<Value>, name: &str) -> Value {
        all.into_iter().find(|o| o["metadata"]["name"] == name).unwrap()
    }

    #[test]
    fn those_of_the_server() {
        for mut object in bootstrap::flow_schemas().into_iter().chain(bootstrap::priority_levels()) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let ty = pintle_schema::kind("flowcontrol.apiserver.k8s.io/v1", &kind).unwrap();
            pintle_schema::apply_defaults(&mut object, ty);
            assert_eq!(create_errors(&object), "", "{object}");
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let path = if kind == "FlowSchema" { "spec/matchingPrecedence" } else { "spec/limited/lendablePercent" };
            if super::FIXED.contains(&name.as_str()) {
                let errors = create_errors(&changed(&object, path, json!(77)));
                assert!(
                    errors.contains(&format!("spec of '{name}'")) && errors.contains("must equal the fixed value"),
                    "{errors}"
                );
            }
        }
        let exempt = named(bootstrap::priority_levels(), "exempt");
        assert_eq!(create_errors(&changed(&exempt, "spec/exempt/lendablePercent", json!(7))), "");
    }

    #[test]
    fn schemas() {
        let rule = json!({"subjects": [{"kind": "User", "user": {"name": "u"}}],
            "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["n"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/a/*"]}]});
        let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "s"},
            "spec": {"matchingPrecedence": 9, "priorityLevelConfiguration": {"name": "p"}, "rules": [rule]}});
        let check = |path: &str, to: Value, expect: &str| {
            let expect = if expect.is_empty() { String::new() } else { format!("spec.{expect}") };
            assert_eq!(create_errors(&changed(&schema, &format!("spec/{path}"), to)), expect, "{path}");
        };
        let (resource, path, subject) = ("rules/0/resourceRules/0", "rules/0/nonResourceRules/0", "rules/0/subjects/0");
        check("distinguisherMethod", json!({"type": "ByUser"}), "");
        check("matchingPrecedence", json!(0), "matchingPrecedence: Invalid value: 0: must be a positive value");
        check(
            "matchingPrecedence",
            json!(1),
            "matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
        );
        check(
            "distinguisherMethod",
            json!({"type": "X"}),
            "distinguisherMethod.type: Unsupported value: {\"type\":\"X\"}: supported values: \"ByNamespace\", \"ByUser\"",
        );
        check(
            &format!("{resource}/apiGroups"),
            json!([]),
            "rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
        );
        check(
            &format!("{resource}/resources"),
            json!(["*", "a"]),
            "rules[0].resourceRules[0].resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources",
        );
        check(
            &format!("{resource}/verbs"),
            json!(["eat"]),
            "rules[0].resourceRules[0].verbs: Unsupported value: [\"eat\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
        );
        check(
            &format!("{resource}/namespaces"),
            json!([]),
            "rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
        );
        check(&format!("{resource}/clusterScope"), json!(true), "");
        check(
            &format!("{path}/nonResourceURLs"),
            json!(["a"]),
            "rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
        );
        check(
            &format!("{path}/nonResourceURLs"),
            json!(["/a*"]),
            "rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do suffix matching",
        );
        check(
            subject,
            json!({"kind": "User"}),
            "rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
        );
        check(
            subject,
            json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}}),
            "rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
        );
        check(
            subject,
            json!({"kind": "User", "user": {"name": "u"}, "group": {"name": "g"}}),
            "rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
        );
    }

    #[test]
    fn levels() {
        let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "l"},
            "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue",
                "queuing": {"queues": 128, "handSize": 6, "queueLengthLimit": 50}}}}});
        let check = |path: &str, to: Value, expect: &str| {
            let expect = if expect.is_empty() { String::new() } else { format!("spec.{expect}") };
            assert_eq!(create_errors(&changed(&level, &format!("spec/{path}"), to)), expect, "{path}");
        };
        let queuing = "limited/limitResponse/queuing";
        check("limited/lendablePercent", json!(5), "");
        check(
            "limited/lendablePercent",
            json!(101),
            "limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
        );
        check(
            queuing,
            Value::Null,
            "limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
        );
        check(
            &format!("{queuing}/handSize"),
            json!(200),
            "limited.limitResponse.queuing.handSize: Invalid value: 200: should not be greater than queues (128)",
        );
        check(
            &format!("{queuing}/handSize"),
            json!(9),
            "limited.limitResponse.queuing.handSize: Invalid value: 9: required entropy bits of deckSize 128 and handSize 9 should not be greater than 60",
        );
        check(
            "type",
            json!("Exempt"),
            "type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'\nspec.limited: Forbidden: must be nil if the type is not Limited",
        );
    }
}

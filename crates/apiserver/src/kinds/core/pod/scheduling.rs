//! Validation of where a pod may run: selectors, affinity, tolerations, spreading.

use pintle_api::names::{dns1123_label, dns1123_subdomain, label_value};
use pintle_schema::cursor::{Cursor, Errors};

use super::spec::Rules;
use crate::kinds::{checks, meta};

pub(super) fn affinity(affinity: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = affinity.get("nodeAffinity");
    if node.get(REQUIRED).is_present() {
        node_selector(&node.get(REQUIRED), rules.lenient, errors);
    }
    for term in node.get(PREFERRED).items() {
        weight(&term, errors);
        node_term(&term.get("preference"), true, errors);
    }
    for pods in [affinity.get("podAffinity"), affinity.get("podAntiAffinity")] {
        for term in pods.get(REQUIRED).items() {
            pod_term(&term, rules, errors);
        }
        for term in pods.get(PREFERRED).items() {
            weight(&term, errors);
            pod_term(&term.get("podAffinityTerm"), rules, errors);
        }
    }
}

fn weight(term: &Cursor<'_>, errors: &mut Errors) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int()) {
        errors.invalid_value(&weight, weight.int(), "must be in the range 1-100");
    }
}

/// A node selector. With `lenient`, values that are no label values pass.
pub fn node_selector(selector: &Cursor<'_>, lenient: bool, errors: &mut Errors) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_term(&term, lenient, errors);
    }
}

fn node_term(term: &Cursor<'_>, lenient: bool, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        let (operator, values, key) = (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
        match operator.str() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
                }
            }
            other => errors.invalid_value(&operator, other, "not a valid selector operator"),
        }
        meta::label_key(&key, key.str(), errors);
        if !lenient {
            for value in values.items() {
                meta::invalid_each(&value, label_value(value.str()), errors);
            }
        }
    }
    for requirement in term.get("matchFields").items() {
        let (operator, values, key) = (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
        match operator.str() {
            "In" | "NotIn" if values.len() != 1 => errors
                .required(&values, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            "In" | "NotIn" => {}
            other => errors.invalid_value(&operator, other, "not a valid selector operator"),
        }
        if key.str() == "metadata.name" {
            for value in values.items() {
                meta::invalid_each(&value, dns1123_subdomain(value.str()), errors);
            }
        } else {
            errors.invalid_value(&key, key.str(), "not a valid field selector key");
        }
    }
}

fn pod_term(term: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let selector = term.get("labelSelector");
    meta::label_selector(&selector, rules.lenient, errors);
    meta::label_selector(&term.get("namespaceSelector"), rules.lenient, errors);
    for name in term.get("namespaces").items() {
        for message in dns1123_label(name.str()) {
            errors.invalid_value(term.get("namespace"), name.str(), message);
        }
    }
    match_keys(term, errors);
    let key = term.get("topologyKey");
    if key.is_empty() {
        errors.required(&key, "can not be empty");
    }
    meta::label_key(&key, key.str(), errors);
}

/// `matchLabelKeys` and `mismatchLabelKeys`, which the server itself merges into the selector.
fn match_keys(term: &Cursor<'_>, errors: &mut Errors) {
    let (selector, same, other) =
        (term.get("labelSelector"), term.get("matchLabelKeys"), term.get("mismatchLabelKeys"));
    for keys in [&same, &other] {
        if !keys.is_empty() && selector.is_absent() {
            errors.forbidden(keys, "must not be specified when labelSelector is not set");
            continue;
        }
        for key in keys.items() {
            meta::label_key(&key, key.str(), errors);
        }
    }
    let mut seen: Vec<&str> = selector.get("matchLabels").entries().map(|(k, _)| k).collect();
    for expression in selector.get("matchExpressions").items() {
        let key = expression.get("key").str();
        let index = same.items().position(|k| k.str() == key);
        if let (Some(index), true) = (index, seen.contains(&key)) {
            // Upstream reports these at the term.
            errors.invalid_value(format!("{term}[{index}]"), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
    for key in same.items().filter(|k| other.items().any(|o| o.str() == k.str())) {
        errors.invalid(&key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// Tolerations of taints; with `comparisons`, also those that compare numbers, a feature that is off.
pub fn tolerations(list: &Cursor<'_>, comparisons: bool, errors: &mut Errors) {
    for toleration in list.items() {
        let at = |field: &'static str| toleration.get(field);
        let (key, operator, value, effect) = (at("key"), at("operator"), at("value"), at("effect"));
        if key.is_empty() {
            if operator.str() != "Exists" {
                errors.invalid_value(
                    &operator,
                    operator.str(),
                    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                );
            }
        } else {
            meta::label_key(&key, key.str(), errors);
        }
        if at("tolerationSeconds").is_present() && effect.str() != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid_value(&effect, effect.str(), message);
        }
        match operator.str() {
            "Equal" | "" => {
                let found = label_value(value.str());
                if !found.is_empty() {
                    errors.invalid_value(&operator, value.str(), found.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid_value(&operator, value.str(), "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" if comparisons => {
                let decimal = value.str().strip_prefix('-').unwrap_or(value.str());
                let plain =
                    decimal == "0" || (!decimal.starts_with('0') && decimal.bytes().all(|b| b.is_ascii_digit()));
                if !plain || value.str().parse::<i64>().is_err() {
                    errors.invalid(&value, "must be a valid decimal integer in canonical form");
                }
            }
            other @ ("Lt" | "Gt") => errors.not_supported(&operator, other, &["Equal", "Exists", "Lt", "Gt"]),
            other => errors.not_supported(&operator, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            taint_effect(&effect, errors);
        }
    }
}

/// The effect of a taint.
pub fn taint_effect(effect: &Cursor<'_>, errors: &mut Errors) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    checks::one_of(effect, EFFECTS, true, errors);
}

pub(super) fn topology_spread(list: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let all: Vec<(&str, &str)> =
        list.items().map(|c| (c.get("topologyKey").str(), c.get("whenUnsatisfiable").str())).collect();
    for (i, constraint) in list.items().enumerate() {
        let (skew, key, action) =
            (constraint.get("maxSkew"), constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if skew.int() <= 0 {
            errors.invalid_value(&skew, skew.int(), checks::NOT_POSITIVE);
        }
        if key.is_empty() {
            errors.required(&key, "can not be empty");
        }
        if !matches!(action.str(), "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&action, action.str(), &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if all[i + 1..].contains(&all[i]) {
            errors.duplicate(
                format!("{constraint}.{{topologyKey, whenUnsatisfiable}}"),
                format!("{{{}, {}}}", all[i].0, all[i].1),
            );
        }
        let domains = constraint.get("minDomains");
        if let Some(least) = domains.opt_int() {
            if least <= 0 {
                errors.invalid(&domains, checks::NOT_POSITIVE);
            }
            if action.str() != "DoNotSchedule" {
                let message =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.str());
                errors.invalid(&domains, message);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            checks::one_of(&constraint.get(field), &["Honor", "Ignore"], false, errors);
        }
        match_keys(&constraint, errors);
        meta::label_selector(&constraint.get("labelSelector"), rules.lenient, errors);
    }
}

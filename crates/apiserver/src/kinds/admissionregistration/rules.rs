//! Validation of what webhooks and admission policies match: rules of resources, conditions, selectors.

use std::collections::HashSet;

use pintle_api::names::{path_segment, qualified_name};
use pintle_schema::cel::Type;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::expressions::{Expressions, Options};
use crate::kinds::{checks, meta};

const ALL: &str = "*";
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Nothing is left to mutate of what is deleted.
const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
/// The most conditions of a webhook or policy.
const CONDITIONS: usize = 64;

/// Conditions under which a webhook is called or a policy holds. `params`: whether they may speak of parameters.
pub(super) fn match_conditions(list: &Cursor<'_>, params: bool, errors: &mut Errors) {
    if list.len() > CONDITIONS {
        errors.too_many(list, list.len(), CONDITIONS);
    }
    let mut names: HashSet<&str> = HashSet::new();
    for condition in list.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        let text = expression.str().trim();
        if text.is_empty() {
            errors.required(&expression, "");
        } else {
            let options = Options { params, ..Options::default() };
            Expressions::default().check(&expression, text, text, options, &[Type::Bool], errors);
        }
        if name.is_empty() {
            errors.required(&name, "");
            continue;
        }
        meta::invalid_each(&name, qualified_name(name.str()), errors);
        if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        }
        names.insert(name.str());
    }
}

fn alone(list: &Cursor<'_>, what: &str, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, "");
    }
    if list.len() > 1 && list.items().any(|i| i.str() == ALL) {
        errors.invalid(list, format!("if '*' is present, must not specify other {what}"));
    }
}

/// Operations, groups, versions and resources; `*` stands alone.
pub(super) fn rule_with_operations(rule: &Cursor<'_>, errors: &mut Errors) {
    let operations = rule.get("operations");
    alone(&operations, "operations", errors);
    for operation in operations.items() {
        checks::one_of(&operation, OPERATIONS, false, errors);
    }
    alone(&rule.get("apiGroups"), "API groups", errors);
    let versions = rule.get("apiVersions");
    alone(&versions, "API versions", errors);
    for version in versions.items().filter(Cursor::is_empty) {
        errors.required(&version, "");
    }
    resources(&rule.get("resources"), errors);
    checks::one_of(&rule.get("scope"), &["*", "Cluster", "Namespaced"], false, errors);
}

/// Resources and sub-resources: none that a wildcard before it has already named.
fn resources(list: &Cursor<'_>, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, "");
    }
    let (mut of_all_parts, mut of_all_resources): (HashSet<&str>, HashSet<&str>) = Default::default();
    let mut whole = false;
    for item in list.items() {
        let text = item.str();
        let Some((resource, part)) = text.split_once('/') else {
            if text.is_empty() {
                errors.required(&item, "");
            } else {
                // Upstream remembers the last one.
                whole = text != ALL;
            }
            continue;
        };
        if of_all_parts.contains(&resource) {
            errors.invalid(&item, format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if of_all_resources.contains(&part) {
            errors.invalid(&item, format!("if '*/{part}' is present, must not specify {text}"));
        }
        if part == ALL {
            of_all_parts.insert(resource);
        }
        if resource == ALL {
            of_all_resources.insert(part);
        }
    }
    let has = |name: &str| list.items().any(|r| r.str() == name);
    if has("*/*") && list.len() > 1 {
        errors.invalid(list, "if '*/*' is present, must not specify other resources");
    }
    if has(ALL) && whole {
        errors.invalid(list, "if '*' is present, must not specify other resources without subresources");
    }
}

/// What a policy or its binding matches.
pub(super) fn match_resources(resources: &Cursor<'_>, errors: &mut Errors) {
    let policy = resources.get("matchPolicy");
    if policy.is_absent() {
        errors.required(&policy, "");
    }
    checks::one_of(&policy, &["Equivalent", "Exact"], false, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = resources.get(field);
        if selector.is_absent() {
            errors.required(&selector, "");
        }
        meta::label_selector(&selector, false, errors);
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.get(field).items() {
            named_rule(&rule, errors);
        }
    }
}

fn named_rule(rule: &Cursor<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for name in rule.get("resourceNames").items() {
        meta::invalid_each(&name, path_segment(name.str()), errors);
        if !seen.insert(name.str()) {
            errors.duplicate(&name, name.str());
        }
    }
    rule_with_operations(rule, errors);
}

/// The rules of what may be mutated.
pub(super) fn mutating_operations(resources: &Cursor<'_>, errors: &mut Errors) {
    let rules = resources.get("resourceRules");
    let at = format!("{rules}.operations");
    for operation in rules.items().flat_map(|rule| rule.get("operations").list()).filter_map(Value::as_str) {
        if !MUTATING_OPERATIONS.contains(&operation) {
            errors.not_supported(&at, operation, MUTATING_OPERATIONS);
        }
    }
}

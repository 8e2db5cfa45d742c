//! Validation of webhooks and admission policies, but for their expressions, which whoever compiles them checks.

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};

use crate::kinds::{Ctx, checks, meta};

const ALL: &str = "*";

pub(super) fn webhooks(ctx: &Ctx<'_>, configuration: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let mutating = ctx.resource.kind.starts_with("Mutating");
    let mut names: Vec<&str> = Vec::new();
    for hook in configuration.get("webhooks").items() {
        webhook(&hook, mutating, errors);
        let name = hook.get("name");
        if !name.is_empty() && names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        }
        names.push(name.str());
    }
}

fn webhook(hook: &Cursor<'_>, mutating: bool, errors: &mut Errors) {
    let at = |field: &'static str| hook.get(field);
    checks::fully_qualified(&at("name"), errors);
    review_versions(&at("admissionReviewVersions"), errors);
    for rule in at("rules").items() {
        rule_with_operations(&rule, errors);
    }
    checks::one_of(&at("failurePolicy"), &["Fail", "Ignore"], false, errors);
    checks::one_of(&at("matchPolicy"), &["Equivalent", "Exact"], false, errors);
    let effects = at("sideEffects");
    if effects.is_absent() {
        errors.required(&effects, "must specify one of None, NoneOnDryRun");
    } else {
        checks::one_of(&effects, &["None", "NoneOnDryRun"], false, errors);
    }
    let timeout = at("timeoutSeconds");
    if timeout.opt_int().is_some_and(|s| !(1..=30).contains(&s)) {
        errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    meta::label_selector(&at("namespaceSelector"), false, errors);
    meta::label_selector(&at("objectSelector"), false, errors);
    if mutating {
        checks::one_of(&at("reinvocationPolicy"), &["IfNeeded", "Never"], false, errors);
    }
    client_config(&at("clientConfig"), errors);
    match_conditions(&at("matchConditions"), errors);
}

fn review_versions(versions: &Cursor<'_>, errors: &mut Errors) {
    if versions.is_empty() {
        return errors.required(versions, "must specify one of v1, v1beta1");
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.str()) {
            errors.invalid(&version, "duplicate version");
            continue;
        }
        seen.push(version.str());
        for message in pintle_api::names::dns1035_label(version.str()) {
            errors.invalid(&version, message);
        }
    }
    if !seen.iter().any(|v| matches!(*v, "v1" | "v1beta1")) {
        let shown = versions.value().cloned().unwrap_or_default();
        errors.invalid_value(versions, shown, "must include at least one of v1, v1beta1");
    }
}

fn client_config(config: &Cursor<'_>, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    if url.is_present() == service.is_present() {
        return errors.required(config, "exactly one of url or service is required");
    }
    if url.is_present() {
        return webhook_url(&url, errors);
    }
    for (field, what) in [("name", "service name is required"), ("namespace", "service namespace is required")] {
        if service.get(field).is_empty() {
            errors.required(service.get(field), what);
        }
    }
    let (port, path) = (service.get("port"), service.get("path"));
    if port.is_present() {
        for message in checks::port_number(port.int()) {
            errors.invalid(&port, format!("port is not valid: {message}"));
        }
    }
    if path.is_present() {
        service_path(&path, errors);
    }
}

fn service_path(path: &Cursor<'_>, errors: &mut Errors) {
    let text = path.str();
    if text == "/" || text.is_empty() {
        return;
    }
    if text == "//" {
        return errors.invalid(path, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        errors.invalid(path, "must start with a '/'");
    }
    let inner = text.trim_start_matches('/').trim_end_matches('/');
    for (i, segment) in inner.split('/').enumerate() {
        if segment.is_empty() {
            errors.invalid(path, format!("segment[{i}] may not be empty"));
        }
        for failure in dns1123_subdomain(segment) {
            errors.invalid(path, format!("segment[{i}]: {failure}"));
        }
    }
}

fn webhook_url(url: &Cursor<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.str();
    let Some((scheme, rest)) = text.split_once("://") else {
        return errors.invalid(url, format!("'https' is the only allowed URL scheme{FORM}"));
    };
    if scheme != "https" {
        errors.invalid_value(url, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.is_empty() {
        errors.invalid_value(url, authority, format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.split_once('@') {
        errors.invalid_value(url, user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        errors.invalid_value(url, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = rest.split_once('?') {
        errors.invalid_value(url, query, "query parameters are not permitted in the URL");
    }
}

fn match_conditions(list: &Cursor<'_>, errors: &mut Errors) {
    if list.len() > 64 {
        errors.too_many(list, list.len(), 64);
    }
    let mut names: Vec<&str> = Vec::new();
    for condition in list.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.str().trim().is_empty() {
            errors.required(&expression, "");
        }
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            meta::invalid_each(&name, qualified_name(name.str()), errors);
            if names.contains(&name.str()) {
                errors.duplicate(&name, name.str());
            }
        }
        names.push(name.str());
    }
}

/// Operations, groups, versions and resources; `*` stands alone.
fn rule_with_operations(rule: &Cursor<'_>, errors: &mut Errors) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let operations = rule.get("operations");
    if operations.is_empty() {
        errors.required(&operations, "");
    }
    alone(&operations, "if '*' is present, must not specify other operations", errors);
    for operation in operations.items() {
        checks::one_of(&operation, OPERATIONS, false, errors);
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.get(field);
        if list.is_empty() {
            errors.required(&list, "");
        }
        alone(&list, &format!("if '*' is present, must not specify other {what}"), errors);
    }
    for version in rule.get("apiVersions").items().filter(Cursor::is_empty) {
        errors.required(&version, "");
    }
    let resources = rule.get("resources");
    if resources.is_empty() {
        errors.required(&resources, "");
    }
    for resource in resources.items().filter(Cursor::is_empty) {
        errors.required(&resource, "");
    }
    let has = |name: &str| resources.items().any(|r| r.str() == name);
    if has("*/*") && resources.len() > 1 {
        errors.invalid(&resources, "if '*/*' is present, must not specify other resources");
    } else if has(ALL) && resources.items().any(|r| r.str() != ALL && !r.str().contains('/')) {
        errors.invalid(&resources, "if '*' is present, must not specify other resources without subresources");
    }
    checks::one_of(&rule.get("scope"), &["*", "Cluster", "Namespaced"], false, errors);
}

fn alone(list: &Cursor<'_>, message: &str, errors: &mut Errors) {
    if list.len() > 1 && list.items().any(|i| i.str() == ALL) {
        errors.invalid(list, message);
    }
}

/// An admission policy: what it matches, and its `validations` or `mutations`.
pub(super) fn policy(policy: &Cursor<'_>, what: &'static str, errors: &mut Errors) {
    let spec = policy.get("spec");
    let (failure, kind, constraints, list) =
        (spec.get("failurePolicy"), spec.get("paramKind"), spec.get("matchConstraints"), spec.get(what));
    if failure.is_absent() {
        errors.required(&failure, "");
    } else {
        checks::one_of(&failure, &["Fail", "Ignore"], false, errors);
    }
    if kind.is_present() {
        for field in ["apiVersion", "kind"] {
            if kind.get(field).is_empty() {
                errors.required(kind.get(field), "");
            }
        }
    }
    if constraints.is_absent() {
        errors.required(&constraints, "");
    } else {
        match_resources(&constraints, true, errors);
    }
    match_conditions(&spec.get("matchConditions"), errors);
    let mut names: Vec<&str> = Vec::new();
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if name.is_empty() {
            errors.required(&name, "name is not specified");
        } else {
            meta::invalid_each(&name, checks::c_identifier(name.str()), errors);
            if names.contains(&name.str()) {
                errors.duplicate(&name, name.str());
            }
        }
        names.push(name.str());
        if expression.is_empty() {
            errors.required(&expression, "expression is not specified");
        }
    }
    let audits = spec.get("auditAnnotations");
    if list.is_empty() && (what == "mutations" || audits.is_empty()) {
        let message = if what == "mutations" {
            "mutations must contain at least one item"
        } else {
            "validations or auditAnnotations must contain at least one item"
        };
        errors.required(&list, message);
    }
    for item in list.items() {
        let expression = item.get("expression");
        if what == "validations" && expression.str().trim().is_empty() {
            errors.required(&expression, "expression is not specified");
        }
        if what == "mutations" {
            let kind = item.get("patchType");
            checks::one_of(&kind, &["ApplyConfiguration", "JSONPatch"], true, errors);
        }
        let message = item.get("message");
        if message.is_present() && message.str().trim().is_empty() {
            errors.invalid(&message, "message must be non-empty if specified");
        }
        let reason = item.get("reason");
        if reason.is_present() {
            let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
            checks::one_of(&reason, &reasons, false, errors);
        }
    }
    if what == "mutations" {
        checks::one_of(&spec.get("reinvocationPolicy"), &["IfNeeded", "Never"], true, errors);
    }
}

fn match_resources(resources: &Cursor<'_>, needs_rules: bool, errors: &mut Errors) {
    for field in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(&resources.get(field), false, errors);
    }
    let rules = resources.get("resourceRules");
    if rules.is_empty() && needs_rules {
        errors.required(&rules, "");
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.get(field).items() {
            rule_with_operations(&rule, errors);
        }
    }
    checks::one_of(&resources.get("matchPolicy"), &["Equivalent", "Exact"], false, errors);
}

pub(super) fn binding(binding: &Cursor<'_>, validating: bool, errors: &mut Errors) {
    let spec = binding.get("spec");
    let (policy, param, actions) = (spec.get("policyName"), spec.get("paramRef"), spec.get("validationActions"));
    if policy.is_empty() {
        errors.required(&policy, "");
    } else {
        checks::subdomain(&policy, errors);
    }
    if param.is_present() {
        let (name, selector) = (param.get("name"), param.get("selector"));
        match (name.is_empty(), selector.is_present()) {
            (true, false) => errors.required(&param, "one of name or selector must be specified"),
            (false, true) => errors.forbidden(&name, "name and selector are mutually exclusive"),
            _ => {}
        }
        meta::label_selector(&selector, false, errors);
        let missing = param.get("parameterNotFoundAction");
        checks::one_of(&missing, &["Allow", "Deny"], true, errors);
    }
    let resources = spec.get("matchResources");
    if resources.is_present() {
        match_resources(&resources, false, errors);
    }
    if !validating {
        return;
    }
    if actions.is_empty() {
        errors.required(&actions, "at least one validation action is required");
    }
    let mut seen: Vec<&str> = Vec::new();
    for action in actions.items() {
        checks::one_of(&action, &["Audit", "Deny", "Warn"], false, errors);
        if seen.contains(&action.str()) {
            errors.duplicate(&action, action.str());
        }
        seen.push(action.str());
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        errors.invalid(&actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors};
    use serde_json::{Value, json};

    #[test]
    fn hooks() {
        let hook = json!({"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "c"}, "webhooks": [hook]});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&configuration, path, to)), expect, "{path}");
        };
        check("webhooks/0/timeoutSeconds", json!(10), "");
        check(
            "webhooks/0/timeoutSeconds",
            json!(31),
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        );
        check(
            "webhooks/0/name",
            json!("a.b"),
            "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
        );
        check(
            "webhooks/0/sideEffects",
            Value::Null,
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
        );
        check(
            "webhooks/0/clientConfig",
            json!({}),
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        );
        check("webhooks/0/rules/0/operations", json!([]), "webhooks[0].rules[0].operations: Required value");
    }

    #[test]
    fn policies() {
        let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
            "spec": {"failurePolicy": "Fail", "validations": [{"expression": "true"}],
                "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}}});
        assert_eq!(create_errors(&policy), "");
        assert_eq!(
            create_errors(&changed(&policy, "spec/validations", json!([]))),
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item"
        );
        let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
        assert_eq!(create_errors(&binding), "");
        assert!(
            create_errors(&changed(&binding, "spec/validationActions", json!(["Deny", "Warn"])))
                .contains("must not contain both Deny and Warn")
        );
    }
}

//! Validation of webhooks.

use std::collections::HashSet;

use pintle_api::names::{dns1035_label, dns1123_subdomain};
use pintle_schema::cursor::{Cursor, Errors};

use super::rules::{match_conditions, rule_with_operations};
use super::url;
use crate::kinds::value::same;
use crate::kinds::{Ctx, checks, meta};

/// What the stored object breaks already, and its update may therefore break as well.
struct Lenient {
    side_effects: bool,
    versions: bool,
    names: bool,
    selectors: bool,
    /// None of the conditions changes, so none is looked at.
    conditions: bool,
}

const NO_SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];

fn has_known_version(versions: &Cursor<'_>) -> bool {
    versions.items().any(|v| matches!(v.str(), "v1" | "v1beta1"))
}

impl Lenient {
    fn of(new: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Self {
        let Some(old) = old else {
            return Lenient { side_effects: false, versions: false, names: false, selectors: false, conditions: false };
        };
        let (now, before) = (new.get("webhooks"), old.get("webhooks"));
        let hooks = || before.items();
        let (mut found, mut names) = (Errors::new(), HashSet::new());
        for (hook, field) in hooks().flat_map(|h| [(h.clone(), "namespaceSelector"), (h, "objectSelector")]) {
            meta::label_selector(&hook.get(field), false, &mut found);
        }
        let conditions = |hook: &Cursor<'_>| hook.get("matchConditions").value().cloned();
        Lenient {
            side_effects: !hooks().all(|h| NO_SIDE_EFFECTS.contains(&h.get("sideEffects").str())),
            versions: hooks().any(|h| {
                let versions = h.get("admissionReviewVersions");
                !versions.is_empty() && !has_known_version(&versions)
            }),
            names: hooks().any(|h| !names.insert(h.get("name").str())),
            selectors: !found.is_empty(),
            conditions: now.len() == before.len()
                && now.items().zip(hooks()).all(|(n, o)| same(conditions(&n).as_ref(), conditions(&o).as_ref())),
        }
    }
}

pub(super) fn webhooks(ctx: &Ctx<'_>, configuration: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let mutating = ctx.resource.kind.starts_with("Mutating");
    let lenient = Lenient::of(configuration, old);
    let mut names: HashSet<&str> = HashSet::new();
    for hook in configuration.get("webhooks").items() {
        webhook(&hook, mutating, &lenient, errors);
        review_versions(&hook.get("admissionReviewVersions"), &lenient, errors);
        let name = hook.get("name");
        if !name.is_empty() && names.contains(&name.str()) && !lenient.names {
            errors.duplicate(&name, name.str());
        }
        names.insert(name.str());
    }
}

fn webhook(hook: &Cursor<'_>, mutating: bool, lenient: &Lenient, errors: &mut Errors) {
    let at = |field: &'static str| hook.get(field);
    checks::fully_qualified(&at("name"), errors);
    for rule in at("rules").items() {
        rule_with_operations(&rule, errors);
    }
    checks::one_of(&at("failurePolicy"), &["Fail", "Ignore"], false, errors);
    checks::one_of(&at("matchPolicy"), &["Equivalent", "Exact"], false, errors);
    let effects = at("sideEffects");
    let allowed = if lenient.side_effects { SIDE_EFFECTS } else { NO_SIDE_EFFECTS };
    if effects.is_absent() {
        errors.required(&effects, format!("must specify one of {}", allowed.join(", ")));
    }
    checks::one_of(&effects, allowed, false, errors);
    let timeout = at("timeoutSeconds");
    if timeout.opt_int().is_some_and(|s| !(1..=30).contains(&s)) {
        errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    meta::label_selector(&at("namespaceSelector"), lenient.selectors, errors);
    meta::label_selector(&at("objectSelector"), lenient.selectors, errors);
    if mutating {
        checks::one_of(&at("reinvocationPolicy"), &["IfNeeded", "Never"], false, errors);
    }
    client_config(&at("clientConfig"), errors);
    if !lenient.conditions {
        match_conditions(&at("matchConditions"), false, errors);
    }
}

fn review_versions(versions: &Cursor<'_>, lenient: &Lenient, errors: &mut Errors) {
    if versions.is_empty() {
        return errors.required(versions, "must specify one of v1, v1beta1");
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for version in versions.items() {
        if seen.contains(&version.str()) {
            errors.invalid(&version, "duplicate version");
            continue;
        }
        seen.insert(version.str());
        meta::invalid_each(&version, dns1035_label(version.str()), errors);
    }
    if !lenient.versions && !has_known_version(versions) {
        errors.invalid(versions, "must include at least one of v1, v1beta1");
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
    // Upstream has the two the wrong way round, and users know its messages.
    for (field, named) in [("namespace", "name"), ("name", "namespace")] {
        if service.get(field).is_empty() {
            errors.required(service.get(named), "");
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
    // Upstream passes over the first byte whatever it is.
    let mut rest = text.chars();
    rest.next();
    let inner = rest.as_str();
    for (i, segment) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if segment.is_empty() {
            errors.invalid(path, format!("segment[{i}] may not be empty"));
            continue;
        }
        for failure in dns1123_subdomain(segment) {
            errors.invalid(path, format!("segment[{i}]: {failure}"));
        }
    }
}

fn webhook_url(at: &Cursor<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match url::parse(at.str()) {
        Ok(url) => url,
        Err(why) => return errors.required(at, format!("url must be a valid URL: {why}{FORM}")),
    };
    if url.scheme != "https" {
        errors.invalid_value(at, url.scheme.as_str(), format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        errors.invalid_value(at, url.host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = url.user {
        errors.invalid_value(at, user, "user information is not permitted in the URL");
    }
    if !url.fragment.is_empty() {
        errors.invalid_value(at, url.fragment, "fragments are not permitted in the URL");
    }
    if !url.query.is_empty() {
        errors.invalid_value(at, url.query, "query parameters are not permitted in the URL");
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn configuration(kind: &str) -> Value {
        let hook = json!({"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "c", "resourceVersion": "1"}, "webhooks": [hook]})
    }

    fn check(path: &str, to: Value, expect: &str) {
        let whole = changed(&configuration("ValidatingWebhookConfiguration"), &format!("webhooks/0/{path}"), to);
        let found = create_errors(&whole);
        let found: Vec<&str> = found.lines().map(|l| l.strip_prefix("webhooks[0].").unwrap_or(l)).collect();
        assert_eq!(found.join("\n"), expect, "{path}");
    }

    #[test]
    fn hooks() {
        check("timeoutSeconds", json!(10), "");
        check(
            "timeoutSeconds",
            json!(31),
            "timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        );
        check(
            "name",
            json!("a.b"),
            "name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
        );
        check("sideEffects", Value::Null, "sideEffects: Required value: must specify one of None, NoneOnDryRun");
        check(
            "sideEffects",
            json!("Some"),
            "sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
        );
        check(
            "admissionReviewVersions",
            json!([]),
            "admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        );
        check(
            "admissionReviewVersions",
            json!(["v2", "v2"]),
            "admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version\nadmissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
        );
        check(
            "matchConditions",
            json!([{"expression": " "}]),
            "matchConditions[0].expression: Required value\nmatchConditions[0].name: Required value",
        );
        check(
            "matchConditions",
            json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]),
            "matchConditions[1].name: Duplicate value: \"a\"",
        );
        check(
            "matchConditions",
            Value::from(vec![json!({"name": "", "expression": "true"}); 65]),
            &["matchConditions: Too many: 65: must have at most 64 items".to_owned()]
                .into_iter()
                .chain((0..65).map(|i| format!("matchConditions[{i}].name: Required value")))
                .collect::<Vec<_>>()
                .join("\n"),
        );
        let mut twice = configuration("MutatingWebhookConfiguration");
        let hook = twice["webhooks"][0].clone();
        twice["webhooks"].as_array_mut().unwrap().push(hook);
        twice["webhooks"][0]["reinvocationPolicy"] = "Odd".into();
        assert_eq!(
            create_errors(&twice),
            "webhooks[0].reinvocationPolicy: Unsupported value: \"Odd\": supported values: \"IfNeeded\", \"Never\"\n\
             webhooks[1].name: Duplicate value: \"a.b.c\""
        );
    }

    #[test]
    fn clients() {
        const FORM: &str = "; desired format: https://host[/path]";
        let subdomain = |segment: &str| pintle_api::names::dns1123_subdomain(segment)[0].clone();
        check("clientConfig", json!({}), "clientConfig: Required value: exactly one of url or service is required");
        check("clientConfig/service/namespace", json!(""), "clientConfig.service.name: Required value");
        check("clientConfig/service/name", json!(""), "clientConfig.service.namespace: Required value");
        check(
            "clientConfig/service/port",
            json!(0),
            "clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
        );
        check("clientConfig/service/path", json!("/a/b/"), "");
        check(
            "clientConfig/service/path",
            json!("//"),
            "clientConfig.service.path: Invalid value: \"//\": segment[0] may not be empty",
        );
        check(
            "clientConfig/service/path",
            json!("/a//"),
            "clientConfig.service.path: Invalid value: \"/a//\": segment[1] may not be empty",
        );
        check(
            "clientConfig/service/path",
            json!("xA"),
            &format!(
                "clientConfig.service.path: Invalid value: \"xA\": must start with a '/'\nclientConfig.service.path: Invalid value: \"xA\": segment[0]: {}",
                subdomain("A")
            ),
        );
        let url = |url: &str, expect: &str| check("clientConfig", json!({"url": url}), expect);
        url("https://a.b/c", "");
        url(
            "http://a.b",
            &format!("clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme{FORM}"),
        );
        url("https://", &format!("clientConfig.url: Invalid value: \"\": host must be specified{FORM}"));
        url(
            "https://u@a/?q#f",
            "clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL\n\
             clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL\n\
             clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
        );
        url(
            "1.2.3.4:5",
            &format!(
                "clientConfig.url: Required value: url must be a valid URL: parse \"1.2.3.4:5\": first path segment in URL cannot contain colon{FORM}"
            ),
        );
    }

    #[test]
    fn rules() {
        let check = |field: &str, to: Value, expect: &str| check(&format!("rules/0/{field}"), to, expect);
        check("operations", json!([]), "rules[0].operations: Required value");
        check(
            "operations",
            json!(["*", "CREATE"]),
            "rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
        );
        check(
            "operations",
            json!(["PATCH"]),
            "rules[0].operations[0]: Unsupported value: \"PATCH\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
        );
        check(
            "apiGroups",
            json!(["*", "a"]),
            "rules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other API groups",
        );
        check("apiVersions", json!([""]), "rules[0].apiVersions[0]: Required value");
        check(
            "scope",
            json!("Odd"),
            "rules[0].scope: Unsupported value: \"Odd\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
        );
        check("resources", json!(["*", "pods/status"]), "");
        check("resources", json!([""]), "rules[0].resources[0]: Required value");
        check(
            "resources",
            json!(["*", "pods"]),
            "rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
        );
        check(
            "resources",
            json!(["pods", "*/*"]),
            "rules[0].resources: Invalid value: [\"pods\",\"*/*\"]: if '*/*' is present, must not specify other resources",
        );
        check(
            "resources",
            json!(["pods/*", "pods/status"]),
            "rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
        );
        check(
            "resources",
            json!(["*/scale", "pods/scale"]),
            "rules[0].resources[1]: Invalid value: \"pods/scale\": if '*/scale' is present, must not specify pods/scale",
        );
    }

    /// What is stored with a fault of an older day may keep it; what is stored without may not get it.
    #[test]
    fn faults_that_are_stored() {
        let good = configuration("ValidatingWebhookConfiguration");
        for (path, to) in [
            ("sideEffects", json!("Some")),
            ("admissionReviewVersions", json!(["v2"])),
            ("namespaceSelector", json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["a b"]}]})),
            ("matchConditions", json!([{"name": "", "expression": ""}])),
        ] {
            let odd = changed(&good, &format!("webhooks/0/{path}"), to);
            assert_ne!(update_errors(&odd, &good), "", "{path}");
            assert_eq!(update_errors(&odd, &odd), "", "{path}");
        }
        let none = changed(&good, "webhooks/0/admissionReviewVersions", json!([]));
        assert_ne!(update_errors(&none, &none), "");
    }
}

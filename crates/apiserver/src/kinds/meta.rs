//! Checks of `metadata`, label selectors and conditions: what all kinds have in common.

use std::collections::HashSet;

use pintle_api::names::{dns1123_label, label_value, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};
use pintle_schema::quote::quoted;
use serde_json::Value;

use super::names::NameRule;
use super::value;

/// Upstream's words for a number below zero.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// Upstream's words for a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";
const ANNOTATIONS_MAX: usize = 256 * 1024;
const FIELD_MANAGER_MAX: usize = 128;

/// Checks the metadata of an object to be created.
pub fn validate(object: &Cursor<'_>, namespaced: bool, rule: NameRule, errors: &mut Errors) {
    validate_at(&object.get("metadata"), namespaced, rule, errors);
}

/// Checks an `ObjectMeta`.
pub fn validate_at(metadata: &Cursor<'_>, namespaced: bool, rule: NameRule, errors: &mut Errors) {
    let generate = metadata.get("generateName");
    if !generate.str().is_empty() {
        invalid_each(&generate, rule(generate.str(), true), errors);
    }
    let name = metadata.get("name");
    if name.str().is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        invalid_each(&name, rule(name.str(), false), errors);
    }
    let namespace = metadata.get("namespace");
    match (namespaced, namespace.str()) {
        (true, "") => errors.required(&namespace, ""),
        (true, ns) => invalid_each(&namespace, dns1123_label(ns), errors),
        (false, "") => {}
        (false, _) => errors.forbidden(&namespace, "not allowed on this type"),
    }
    not_negative(&metadata.get("generation"), errors);
    labels(&metadata.get("labels"), errors);
    annotations(&metadata.get("annotations"), errors);
    owner_references(&metadata.get("ownerReferences"), errors);
    finalizers(&metadata.get("finalizers"), errors);
    managed_fields(&metadata.get("managedFields"), errors);
}

/// Checks what an update may do to metadata.
pub fn validate_update(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let (new, old) = (new.get("metadata"), old.get("metadata"));
    if old.get("deletionTimestamp").is_present() {
        let had: Vec<&str> = old.get("finalizers").items().map(|f| f.str()).collect();
        let mut extra: Vec<&str> =
            new.get("finalizers").items().map(|f| f.str()).filter(|f| !had.contains(f)).collect();
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let list = extra.iter().map(|f| quoted(f)).collect::<Vec<_>>().join(", ");
            errors.forbidden(
                new.get("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
                ),
            );
        }
    }
    let version = new.get("resourceVersion");
    if version.str().is_empty() {
        errors.invalid_value(&version, "", "must be specified for an update");
    }
    let generation = new.get("generation");
    if generation.int() < old.get("generation").int() {
        errors.invalid_value(&generation, generation.int(), "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let now = new.get(field);
        if now.value() != old.get(field).value() && !(now.is_empty() && old.get(field).is_empty()) {
            let absent = if matches!(field, "name" | "namespace" | "uid") { Value::from("") } else { Value::Null };
            errors.invalid_value(&now, now.value().cloned().unwrap_or(absent), IMMUTABLE);
        }
    }
    labels(&new.get("labels"), errors);
    annotations(&new.get("annotations"), errors);
    owner_references(&new.get("ownerReferences"), errors);
    managed_fields(&new.get("managedFields"), errors);
}

/// `Invalid value: <value>: <message>` for each message.
pub fn invalid_each(at: &Cursor<'_>, messages: Vec<String>, errors: &mut Errors) {
    for message in messages {
        errors.invalid(at, message);
    }
}

/// Adds errors found at `from` and below as errors at `to`: upstream names some fields by another path than theirs.
pub fn moved(found: Errors, from: &str, to: &str, errors: &mut Errors) {
    for mut error in found {
        if let Some(rest) = error.field.strip_prefix(from) {
            error.field = format!("{to}{rest}");
        }
        errors.push(error);
    }
}

/// A number must not be below zero.
pub fn not_negative(number: &Cursor<'_>, errors: &mut Errors) {
    if number.int() < 0 {
        errors.invalid(number, NOT_NEGATIVE);
    }
}

/// A field must be what it was.
pub fn immutable(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    if !value::same(new.value(), old.value()) {
        errors.invalid_value(new, new.value().cloned().unwrap_or(Value::Null), IMMUTABLE);
    }
}

/// A map of labels; errors name the map, not the key, as upstream's do.
pub fn labels(map: &Cursor<'_>, errors: &mut Errors) {
    for (key, v) in map.entries() {
        label_key(map, key, errors);
        for message in label_value(v.str()) {
            errors.invalid_value(map, v.str(), message);
        }
    }
}

/// A label's key, complained of at `at`.
pub fn label_key(at: &Cursor<'_>, key: &str, errors: &mut Errors) {
    for message in qualified_name(key) {
        errors.invalid_value(at, key, message);
    }
}

/// A map of annotations.
pub fn annotations(map: &Cursor<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, v) in map.entries() {
        size += key.len() + v.str().len();
        for message in qualified_name(&key.to_lowercase()) {
            errors.invalid_value(map, key, message);
        }
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(map, ANNOTATIONS_MAX);
    }
}

fn owner_references(list: &Cursor<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in list.items() {
        let api_version = owner.get("apiVersion");
        let (group, version) = match api_version.str().split_once('/') {
            Some((g, v)) if !v.contains('/') => (g, v),
            Some(_) => ("", ""),
            None => ("", api_version.str()),
        };
        // Upstream reports owner references at the list, not at the item.
        if version.is_empty() {
            errors.invalid_value(list.get("apiVersion"), api_version.str(), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.get(field).str().is_empty() {
                errors.invalid_value(list.get(field), "", "must not be empty");
            }
        }
        if (group, version, owner.get("kind").str()) == ("", "v1", "Event") {
            errors.invalid_value(
                list,
                owner.value().cloned().unwrap_or_default(),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if owner.get("controller").bool() {
            let this = format!("{}/{}", owner.get("kind").str(), owner.get("name").str());
            match &controller {
                None => controller = Some(this),
                Some(first) => errors.invalid(
                    list,
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ),
            }
        }
    }
}

fn finalizers(list: &Cursor<'_>, errors: &mut Errors) {
    for finalizer in list.items() {
        for message in qualified_name(finalizer.str()) {
            errors.invalid_value(list, finalizer.str(), message);
        }
    }
    let has = |name: &str| list.items().any(|f| f.str() == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(list, "finalizer foregroundDeletion and orphan cannot be both set");
    }
}

/// A finalizer without a domain must be one of Kubernetes' own.
pub fn kube_finalizer(name: &str, at: &Cursor<'_>, errors: &mut Errors) {
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        errors.invalid_value(at, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// The finalizers of a built-in object are such; custom resources may have others.
pub fn kube_finalizers(object: &Cursor<'_>, errors: &mut Errors) {
    for finalizer in object.get("metadata").get("finalizers").items() {
        kube_finalizer(finalizer.str(), &finalizer, errors);
    }
}

fn managed_fields(list: &Cursor<'_>, errors: &mut Errors) {
    for entry in list.items() {
        let operation = entry.get("operation");
        if !matches!(operation.str(), "Apply" | "Update") {
            errors.invalid_value(&operation, operation.str(), "must be `Apply` or `Update`");
        }
        let kind = entry.get("fieldsType");
        if !matches!(kind.str(), "" | "FieldsV1") {
            errors.invalid(&kind, "must be `FieldsV1`");
        }
        let manager = entry.get("manager");
        if manager.str().len() > FIELD_MANAGER_MAX {
            errors.too_long(&manager, FIELD_MANAGER_MAX);
        }
        for (i, c) in manager.str().char_indices().filter(|(_, c)| c.is_control()) {
            errors.invalid(&manager, format!("invalid character U+{:04X} (at position {i})", u32::from(c)));
        }
        let subresource = entry.get("subresource");
        if subresource.str().len() > 256 {
            errors.too_long(&subresource, 256);
        }
    }
}

/// A `LabelSelector`. With `lenient_values`, values that break the rules pass, since the stored object had them.
pub fn label_selector(selector: &Cursor<'_>, lenient_values: bool, errors: &mut Errors) {
    labels(&selector.get("matchLabels"), errors);
    for term in selector.get("matchExpressions").items() {
        let (operator, values, key) = (term.get("operator"), term.get("values"), term.get("key"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid_value(&operator, other, "not a valid selector operator"),
        }
        label_key(&key, key.str(), errors);
        if !lenient_values {
            for v in values.items() {
                invalid_each(&v, label_value(v.str()), errors);
            }
        }
    }
}

/// Whether a `LabelSelector` selects everything because it says nothing.
pub fn selects_all(selector: &Cursor<'_>) -> bool {
    selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty()
}

/// A list of `metav1.Condition`.
pub fn conditions(list: &Cursor<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for condition in list.items() {
        let kind = condition.get("type");
        if seen.contains(&kind.str()) {
            errors.duplicate(&kind, kind.str());
        } else {
            seen.insert(kind.str());
        }
        label_key(&kind, kind.str(), errors);
        let status = condition.get("status");
        if !matches!(status.str(), "True" | "False" | "Unknown") {
            errors.not_supported(&status, status.str(), &["False", "True", "Unknown"]);
        }
        let observed = condition.get("observedGeneration");
        if observed.int() < 0 {
            errors.invalid(&observed, "must be greater than or equal to zero");
        }
        if condition.get("lastTransitionTime").is_empty() {
            errors.required(condition.get("lastTransitionTime"), "");
        }
        let reason = condition.get("reason");
        if reason.str().is_empty() {
            errors.required(&reason, "");
        } else {
            if !is_condition_reason(reason.str()) {
                errors.invalid(&reason, REASON_MESSAGE);
            }
            if reason.str().len() > 1024 {
                errors.too_long(&reason, 1024);
            }
        }
        let message = condition.get("message");
        if message.str().len() > 32 * 1024 {
            errors.too_long(&message, 32 * 1024);
        }
    }
}

const REASON_MESSAGE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

fn is_condition_reason(reason: &str) -> bool {
    let bytes = reason.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_')
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"_,:".contains(c))
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;
    use serde_json::json;

    #[test]
    fn creates() {
        let check = |metadata: Value, namespaced: bool, expect: &str| {
            let object = json!({ "metadata": metadata });
            let mut errors = Errors::new();
            validate(&Cursor::root(&object), namespaced, names::subdomain, &mut errors);
            let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(got.join("\n"), expect, "{object}");
        };
        check(json!({"name": "a", "namespace": "b"}), true, "");
        check(json!({"name": "a"}), false, "");
        check(json!({"namespace": "b"}), true, "metadata.name: Required value: name or generateName is required");
        check(json!({"name": "a"}), true, "metadata.namespace: Required value");
        check(json!({"name": "a", "namespace": "b"}), false, "metadata.namespace: Forbidden: not allowed on this type");
        check(
            json!({"name": "a", "generation": -1}),
            false,
            "metadata.generation: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            json!({"name": "a", "labels": {"x": "y z"}}),
            false,
            "metadata.labels: Invalid value: \"y z\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        );
        check(
            json!({"name": "a", "annotations": {"x": "y".repeat(256 * 1024)}}),
            false,
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        );
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        check(json!({"name": "a", "ownerReferences": [owner("x")]}), false, "");
        check(
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]}),
            false,
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
        );
        let object = json!({"metadata": {"name": "a", "ownerReferences": [owner("x"), owner("y")]}});
        let mut errors = Errors::new();
        validate(&Cursor::root(&object), false, names::subdomain, &mut errors);
        assert!(errors.to_string().ends_with("Found \"true\" in references for Pod/x and Pod/y"), "{errors}");
        check(
            json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}),
            false,
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer foregroundDeletion and orphan cannot be both set",
        );
    }

    #[test]
    fn updates() {
        let old = json!({"metadata": {"name": "a", "namespace": "n", "uid": "1", "resourceVersion": "5", "generation": 2,
            "creationTimestamp": "2024-01-01T00:00:00Z", "deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["x/y"]}});
        let check = |path: &[&str], to: Value, expect: &str| {
            let mut new = old.clone();
            value::set(&mut new, path, to);
            let mut errors = Errors::new();
            validate_update(&Cursor::root(&new), &Cursor::root(&old), &mut errors);
            let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(got.join("\n"), expect);
        };
        check(&["spec"], json!({}), "");
        check(&["metadata", "name"], json!("b"), "metadata.name: Invalid value: \"b\": field is immutable");
        check(&["metadata", "uid"], json!(null), "metadata.uid: Invalid value: \"\": field is immutable");
        check(&["metadata", "generation"], json!(1), "metadata.generation: Invalid value: 1: must not be decremented");
        check(
            &["metadata", "resourceVersion"],
            json!(""),
            "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
        );
        check(
            &["metadata", "finalizers"],
            json!(["x/y", "z/z"]),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"z/z\"}",
        );
    }

    #[test]
    fn selectors() {
        let check = |selector: Value, expect: &str| {
            let object = json!({ "selector": selector });
            let mut errors = Errors::new();
            label_selector(&Cursor::root(&object).get("selector"), false, &mut errors);
            let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(got.join("\n"), expect);
        };
        check(json!({"matchLabels": {"a": "b"}}), "");
        check(
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            "selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        );
        check(
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
            "selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        );
        check(
            json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
            "selector.matchExpressions[0].operator: Invalid value: \"Gt\": not a valid selector operator",
        );
    }
}

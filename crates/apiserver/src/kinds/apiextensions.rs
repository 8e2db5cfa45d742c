//! The apiextensions group.

use std::collections::HashSet;

use pintle_api::names::{dns1035_label, dns1123_subdomain};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};

use super::{Ctx, Strategy, checks, meta, value};

/// The strategy of custom resource definitions.
pub static CUSTOM_RESOURCE_DEFINITION: Strategy = Strategy {
    generation: &[&["spec"]],
    unconditional_update: false,
    full_meta_on_update: true,
    // Its own finalizer has no domain.
    free_finalizers: true,
    validate,
    validate_change: |_, new, old, errors| {
        let (n, o) = (new.get("spec"), old.get("spec"));
        // Names and scope of a definition that is served stay.
        let served = super::table::has_condition(old, "Established");
        if served {
            meta::immutable(&n.get("scope"), &o.get("scope"), errors);
            meta::immutable(&n.get("names").get("kind"), &o.get("names").get("kind"), errors);
        }
        meta::immutable(&n.get("group"), &o.get("group"), errors);
        meta::immutable(&n.get("names").get("plural"), &o.get("names").get("plural"), errors);
    },
    on_create: |_, o| store_version(o),
    on_update: |_: &Ctx<'_>, new, _| store_version(new),
    ..Strategy::DEFAULT
};

/// The version that is stored now is among those that were ever stored.
fn store_version(definition: &mut Value) {
    let storage = value::items_at(definition, &["spec", "versions"]).iter().find(|v| value::bool_at(v, &["storage"]));
    let Some(name) = storage.map(|v| value::str_at(v, &["name"]).to_owned()) else { return };
    let Some(list) = value::entry(definition, &["status", "storedVersions"]) else { return };
    match list.as_array_mut() {
        Some(list) if list.iter().any(|v| *v == name) => {}
        Some(list) => list.push(name.into()),
        None => *list = json!([name]),
    }
}

/// Checks a definition, but for its schemas, which whoever compiles them checks.
fn validate(_: &Ctx<'_>, definition: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = definition.get("spec");
    let (group, names, versions) = (spec.get("group"), spec.get("names"), spec.get("versions"));
    let name = definition.get("metadata").get("name");
    if name.str() != format!("{}.{}", names.get("plural").str(), group.str()) {
        errors.invalid(&name, "must be spec.names.plural+\".\"+spec.group");
    }
    let wrong = dns1123_subdomain(group.str());
    if group.is_empty() {
        errors.required(&group, "");
    } else if !wrong.is_empty() {
        errors.invalid(&group, wrong.join(","));
    } else if !group.str().contains('.') {
        errors.invalid(&group, "should be a domain with at least one dot");
    }
    checks::one_of(&spec.get("scope"), &["Cluster", "Namespaced"], true, errors);
    for version in versions.items() {
        let schema = version.get("schema").get("openAPIV3Schema");
        if schema.is_absent() {
            errors.required(&schema, "");
        }
    }
    let mut seen: HashSet<&str> = HashSet::new();
    let mut unique = true;
    for version in versions.items() {
        let name = version.get("name");
        unique &= !seen.contains(&name.str());
        seen.insert(name.str());
        let wrong = dns1035_label(name.str());
        if !wrong.is_empty() {
            errors.invalid_value(&name, name.str(), wrong.join(","));
        }
        for column in version.get("additionalPrinterColumns").items() {
            printer_column(&column, errors);
        }
        let scale = version.get("subresources").get("scale");
        if scale.is_present() {
            scale_paths(&scale, errors);
        }
    }
    let shown = || versions.value().cloned().unwrap_or(Value::Null);
    if !unique {
        errors.invalid_value(&versions, shown(), "must contain unique version names");
    }
    if versions.items().filter(|v| v.get("storage").bool()).count() != 1 {
        errors.invalid_value(&versions, shown(), "must have exactly one version marked as storage version");
    }
    definition_names(&names, errors);
    conversion(&spec.get("conversion"), errors);
    stored_versions(&definition.get("status").get("storedVersions"), &versions, errors);
}

fn definition_names(names: &Cursor<'_>, errors: &mut Errors) {
    let fields = ["plural", "singular", "kind", "listKind"];
    for name in fields.iter().map(|f| names.get(f)).filter(Cursor::is_empty) {
        errors.required(&name, "");
    }
    for field in fields {
        let name = names.get(field);
        let mixed = field.ends_with("ind");
        let wrong = dns1035_label(&if mixed { name.str().to_lowercase() } else { name.str().to_owned() });
        if !name.is_empty() && !wrong.is_empty() {
            let lead = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(&name, format!("{lead}{}", wrong.join(",")));
        }
    }
    for list in ["shortNames", "categories"] {
        for name in names.get(list).items() {
            let wrong = dns1035_label(name.str());
            if !wrong.is_empty() {
                errors.invalid(&name, wrong.join(","));
            }
        }
    }
    let list = names.get("listKind");
    if !list.is_empty() && list.str() == names.get("kind").str() {
        errors.invalid(&list, "kind and listKind may not be the same");
    }
}

fn printer_column(column: &Cursor<'_>, errors: &mut Errors) {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let (name, kind, format, path) =
        (column.get("name"), column.get("type"), column.get("format"), column.get("jsonPath"));
    if name.is_empty() {
        errors.required(&name, "");
    }
    let must = format!("must be one of {}", TYPES.join(","));
    if kind.is_empty() {
        errors.required(&kind, must);
    } else if !TYPES.contains(&kind.str()) {
        errors.invalid(&kind, must);
    }
    if !format.is_empty() && !FORMATS.contains(&format.str()) {
        errors.invalid(&format, format!("must be one of {}", FORMATS.join(",")));
    }
    // Upstream names this path as its older version did.
    let shown = format!("{column}.JSONPath");
    if path.is_empty() {
        errors.required(shown, "");
    } else if !path.str().starts_with('.') {
        errors.invalid_value(shown, path.str(), "must be a simple json path starting with .");
    }
}

fn scale_paths(scale: &Cursor<'_>, errors: &mut Errors) {
    for (field, under) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.get(field);
        if path.is_empty() {
            errors.required(&path, "");
        } else if !path.str().starts_with(under) {
            errors.invalid(&path, format!("should be a json path under {}", under.trim_end_matches('.')));
        }
    }
    let selector = scale.get("labelSelectorPath");
    let inside = selector.str().starts_with(".spec.") || selector.str().starts_with(".status.");
    if !selector.is_empty() && !inside {
        errors.invalid(&selector, "should be a json path under either .spec or .status");
    }
}

fn conversion(conversion: &Cursor<'_>, errors: &mut Errors) {
    if conversion.is_absent() {
        return;
    }
    let (strategy, webhook) = (conversion.get("strategy"), conversion.get("webhook"));
    checks::one_of(&strategy, &["None", "Webhook"], true, errors);
    // Upstream reports these by the names of its internal form.
    let at = |field: &str| format!("{conversion}.{field}");
    let (client, versions) = (webhook.get("clientConfig"), webhook.get("conversionReviewVersions"));
    if strategy.str() == "Webhook" {
        if client.is_absent() {
            errors.required(at("webhookClientConfig"), "required when strategy is set to Webhook");
        } else if client.get("url").is_present() == client.get("service").is_present() {
            errors.required(at("webhookClientConfig"), "exactly one of url or service is required");
        }
        if versions.is_empty() {
            errors.required(at("conversionReviewVersions"), "");
        }
    } else {
        if client.is_present() {
            let message = "should not be set when strategy is not set to Webhook";
            errors.forbidden(at("webhookClientConfig"), message);
        }
        if !versions.is_empty() {
            let message = "should not be set when strategy is not set to Webhook";
            errors.forbidden(at("conversionReviewVersions"), message);
        }
    }
}

fn stored_versions(stored: &Cursor<'_>, versions: &Cursor<'_>, errors: &mut Errors) {
    if stored.is_empty() {
        let shown = stored.value().cloned().unwrap_or(Value::Null);
        return errors.invalid_value(stored, shown, "must have at least one stored version");
    }
    for version in versions.items().filter(|v| v.get("storage").bool()) {
        let name = version.get("name").str();
        if !stored.items().any(|s| s.str() == name) {
            errors.invalid(stored, format!("must have the storage version {name}"));
        }
    }
    for gone in stored.items().filter(|s| !versions.items().any(|v| v.get("name").str() == s.str())) {
        let name = gone.str();
        errors.invalid(&gone, format!("missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::with_ctx;

    #[test]
    fn stored_versions() {
        let version = |name: &str, storage: bool| json!({"name": name, "storage": storage});
        let mut old =
            json!({"metadata": {"name": "a.b"}, "spec": {"versions": [version("v1", true), version("v2", false)]}});
        with_ctx("apiextensions.k8s.io/v1", "CustomResourceDefinition", |ctx| {
            CUSTOM_RESOURCE_DEFINITION.prepare_create(ctx, &mut old);
            assert_eq!(old["status"]["storedVersions"], json!(["v1"]));
            let mut new = old.clone();
            new["spec"]["versions"] = json!([version("v1", false), version("v2", true)]);
            CUSTOM_RESOURCE_DEFINITION.prepare_update(ctx, &mut new, &old);
            assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
            assert_eq!(new["metadata"]["generation"], 2);
        });
    }

    #[test]
    fn checks() {
        use crate::kinds::testing::{changed, create_errors};
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.a.b"},
            "spec": {"group": "a.b", "scope": "Namespaced", "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
            "status": {"storedVersions": ["v1"]}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&definition, path, to)), expect, "{path}");
        };
        check("spec/versions/0/served", json!(false), "");
        check(
            "metadata/name",
            json!("x.a.b"),
            "metadata.name: Invalid value: \"x.a.b\": must be spec.names.plural+\".\"+spec.group",
        );
        check("spec/scope", json!(""), "spec.scope: Required value");
        check("spec/versions/0/schema", json!({}), "spec.versions[0].schema.openAPIV3Schema: Required value");
        check(
            "spec/names/listKind",
            json!("Foo"),
            "spec.names.listKind: Invalid value: \"Foo\": kind and listKind may not be the same",
        );
        let none = create_errors(&changed(&definition, "spec/versions/0/storage", json!(false)));
        assert!(none.ends_with("must have exactly one version marked as storage version"), "{none}");
    }
}

//! The column definitions of Tables as they are written, made once.

use std::collections::HashMap;
use std::sync::LazyLock;

use pintle_api::resources::{self, Resource};
use serde_json::json;

use crate::kinds;
use crate::openapi::texts::{self, Texts};
use crate::openapi::type_name;

/// By group, version and resource.
type Definitions = HashMap<(&'static str, &'static str, &'static str), String>;

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let raw = texts::unpack();
    let texts = Texts::new(&raw);
    resources::all().iter().map(|r| ((r.group, r.version, r.resource), define(r, &texts))).collect()
});

/// The definitions of a resource's columns, as JSON text.
pub(super) fn definitions(resource: &Resource) -> Option<&'static str> {
    DEFINITIONS.get(&(resource.group, resource.version, resource.resource)).map(String::as_str)
}

fn define(resource: &Resource, texts: &Texts<'_>) -> String {
    let package = pintle_schema::kind(&resource.api_version(), resource.kind).map_or("", |t| t.package);
    let columns: Vec<_> = kinds::strategy(resource)
        .columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": describe(c.description, package, texts),
                "priority": c.priority})
        })
        .collect();
    json!(columns).to_string()
}

/// `@Type.field` is described as that field is.
fn describe(text: &str, package: &str, texts: &Texts<'_>) -> String {
    let Some((of, field)) = text.strip_prefix('@').and_then(|t| t.rsplit_once('.')) else { return text.to_owned() };
    // Versions of a kind share their columns, whose fields not every version has.
    [package, "core/v1", "meta/v1"]
        .iter()
        .filter_map(|package| pintle_schema::named(package, of))
        .chain(pintle_schema::types().filter(|t| t.name == of))
        .find_map(|ty| ty.field(field).and_then(|_| texts.of_field(&type_name(ty), field)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_described() {
        let mut missing = Vec::new();
        for r in resources::all() {
            let text = definitions(r).unwrap();
            assert!(!text.contains("\"@"), "{} {text}", r.resource);
            let columns: serde_json::Value = serde_json::from_str(text).unwrap();
            for c in columns.as_array().unwrap() {
                if c["description"] == "" {
                    missing.push(format!("{} {}", r.group_resource(), c["name"]));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }
}

//! The apiextensions group.

use serde_json::{Value, json};

use super::{Ctx, Strategy, value};

/// The strategy of custom resource definitions.
pub static CUSTOM_RESOURCE_DEFINITION: Strategy = Strategy {
    generation: &[&["spec"]],
    unconditional_update: false,
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
}

//! `APIGroupDiscoveryList`: everything in one document.

use pintle_api::resources::GroupVersion;
use serde_json::{Value, json};

use super::Group;

/// A reference to a kind; upstream leaves group and version empty when they are those of the resource.
fn kind(kind: &str, api_version: Option<&str>) -> Value {
    let gv = api_version.map_or(GroupVersion { group: "", version: "" }, GroupVersion::parse);
    json!({"group": gv.group, "version": gv.version, "kind": kind})
}

/// The document of these groups in a version of the form.
pub(super) fn list(groups: &[&Group], version: &str) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|g| {
            let versions: Vec<Value> = g
                .versions
                .iter()
                .map(|(v, list)| {
                    let resources: Vec<Value> = list
                        .iter()
                        .map(|r| {
                            let mut one = json!({
                                "resource": r.def.resource,
                                "responseKind": kind(r.def.kind, None),
                                "scope": if r.def.namespaced { "Namespaced" } else { "Cluster" },
                                "singularResource": r.def.singular,
                                "verbs": r.def.verbs,
                            });
                            if !r.def.short_names.is_empty() {
                                one["shortNames"] = json!(r.def.short_names);
                            }
                            if !r.def.categories.is_empty() {
                                one["categories"] = json!(r.def.categories);
                            }
                            if !r.def.subresources.is_empty() {
                                one["subresources"] = r
                                    .def
                                    .subresources
                                    .iter()
                                    .map(|s| {
                                        json!({
                                            "subresource": s.name,
                                            "responseKind": kind(s.kind, s.api_version),
                                            "verbs": s.verbs,
                                        })
                                    })
                                    .collect();
                            }
                            one
                        })
                        .collect();
                    json!({"version": v, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if g.name.is_empty() { json!({}) } else { json!({"name": g.name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

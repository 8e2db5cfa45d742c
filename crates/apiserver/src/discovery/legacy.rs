//! `APIVersions`, `APIGroupList`, `APIGroup` and `APIResourceList`.

use std::sync::Arc;

use base64::Engine;
use pintle_api::resources::GroupVersion;
use serde_json::{Value, json};

use super::Group;
use crate::registry::Res;

/// `/api`.
pub(super) fn versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub(super) fn groups(all: &[Group]) -> Value {
    let list: Vec<Value> = all.iter().filter(|g| !g.name.is_empty()).map(|g| group(g, false)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// `/apis/GROUP`, or its entry in the list.
pub(super) fn group(g: &Group, alone: bool) -> Value {
    let versions: Vec<Value> =
        g.versions.iter().map(|(v, _)| json!({"groupVersion": format!("{}/{v}", g.name), "version": v})).collect();
    let mut out = json!({
        "name": g.name,
        "versions": versions,
        "preferredVersion": versions.first().cloned().unwrap_or_default(),
    });
    if alone {
        out["kind"] = "APIGroup".into();
        out["apiVersion"] = "v1".into();
    }
    out
}

/// Upstream's hash of the stored version.
fn storage_hash(res: &Res) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(format!("{}/{}/{}", res.storage.group, res.storage.version, res.storage.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(super) fn resources(group_version: &str, list: &[Arc<Res>]) -> Value {
    let mut out = Vec::new();
    for r in list {
        let mut one = json!({
            "name": r.def.resource,
            "singularName": r.def.singular,
            "namespaced": r.def.namespaced,
            "kind": r.def.kind,
            "verbs": r.def.verbs,
        });
        if !r.def.short_names.is_empty() {
            one["shortNames"] = json!(r.def.short_names);
        }
        if !r.def.categories.is_empty() {
            one["categories"] = json!(r.def.categories);
        }
        if r.def.storage_key.is_some() {
            one["storageVersionHash"] = storage_hash(r).into();
        }
        out.push(one);
        for s in &r.def.subresources {
            let mut one = json!({
                "name": format!("{}/{}", r.def.resource, s.name),
                "singularName": "",
                "namespaced": r.def.namespaced,
                "kind": s.kind,
                "verbs": s.verbs,
            });
            if let Some(gv) = s.api_version.map(GroupVersion::parse) {
                one["group"] = gv.group.into();
                one["version"] = gv.version.into();
            }
            out.push(one);
        }
    }
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": out});
    if group_version != "v1" {
        list["apiVersion"] = "v1".into();
    }
    list
}

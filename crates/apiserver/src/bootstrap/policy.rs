//! RBAC's bootstrap policy, priority classes and flow control: made when missing, mended when something was taken.

use std::sync::Arc;

use pintle_api::Status;
use serde_json::Value;

use crate::Server;
use crate::authz::rbac::{Rule, uncovered};
use crate::http::context::Ctx;
use crate::kinds::bootstrap;
use crate::registry::create::Write;
use crate::registry::options::WriteOptions;
use crate::registry::update::Change;
use crate::registry::{Res, meta};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const FLOW_AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Makes and mends everything.
pub(super) async fn ensure(server: &Server) -> Result<(), Status> {
    for class in bootstrap::priority_classes() {
        server.ensure("scheduling.k8s.io", "v1", "priorityclasses", "", class).await?;
    }
    for level in bootstrap::priority_levels() {
        flow(server, "prioritylevelconfigurations", level).await?;
    }
    for schema in bootstrap::flow_schemas() {
        flow(server, "flowschemas", schema).await?;
    }
    for role in bootstrap::cluster_roles() {
        let mut role = role.clone();
        let more = bootstrap::gated_rules(meta::name(&role), &server.config.feature_gates);
        if let Some(rules) = role["rules"].as_array_mut() {
            rules.extend(more);
        }
        mend(server, "clusterroles", &role, add_rules).await?;
    }
    for binding in bootstrap::cluster_role_bindings() {
        mend(server, "clusterrolebindings", binding, add_subjects).await?;
    }
    for role in bootstrap::roles() {
        mend(server, "roles", role, add_rules).await?;
    }
    for binding in bootstrap::role_bindings() {
        mend(server, "rolebindings", binding, add_subjects).await?;
    }
    Ok(())
}

async fn flow(server: &Server, resource: &str, wanted: Value) -> Result<(), Status> {
    let group = "flowcontrol.apiserver.k8s.io";
    let res = server.registry.must(group, "v1", resource)?;
    server.ensure(group, "v1", resource, "", wanted.clone()).await?;
    change(server, res, "", meta::name(&wanted), &mut |present| {
        let mut new = present.clone();
        // The exempt level is not the user's to change; others are when they say so.
        let ours = meta::annotation(present, FLOW_AUTO_UPDATE) == Some("true");
        if ours && let Some(spec) = wanted.get("spec") {
            new["spec"] = spec.clone();
            res.default(&mut new);
        }
        new
    })
    .await
}

type Mend = fn(&mut Value, &Value);

async fn mend(server: &Server, resource: &str, wanted: &Value, add: Mend) -> Result<(), Status> {
    let res = server.registry.must(RBAC, "v1", resource)?;
    let namespace = meta::namespace(wanted);
    server.ensure(RBAC, "v1", resource, namespace, wanted.clone()).await?;
    change(server, res, namespace, meta::name(wanted), &mut |present| {
        let mut new = present.clone();
        if meta::annotation(present, AUTO_UPDATE) == Some("true") {
            add(&mut new, wanted);
            add_metadata(&mut new, wanted);
        }
        new
    })
    .await
}

async fn change(
    server: &Server,
    res: &Arc<Res>,
    namespace: &str,
    name: &str,
    f: &mut (dyn FnMut(&Value) -> Value + Send),
) -> Result<(), Status> {
    let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
    let w = Write { ctx: &ctx, res, namespace, subresource: "", options: &options };
    let mut make = |present: Option<&Value>| match present {
        Some(present) => Ok(f(present)),
        None => Err(res.not_found(name)),
    };
    match server.update(&w, &mut Change { name, allow_create: false, uid: None, make: &mut make }).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile; that is the user's will until the next start.
        Err(e) if e.is("NotFound") => Ok(()),
        Err(e) => Err(e),
    }
}

/// Adds the rules that those there do not cover. An aggregated role's rules are its controller's.
fn add_rules(new: &mut Value, wanted: &Value) {
    if let Some(aggregation) = wanted.get("aggregationRule") {
        if new.get("aggregationRule").is_none_or(Value::is_null) {
            new["aggregationRule"] = aggregation.clone();
        }
        return;
    }
    let read = |v: &Value| -> Vec<Rule> {
        v.get("rules").and_then(|r| serde_json::from_value(r.clone()).ok()).unwrap_or_default()
    };
    let missing = uncovered(&read(new), &read(wanted));
    if missing.is_empty() {
        return;
    }
    let mut rules = new.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
    rules.extend(missing.iter().filter_map(|r| serde_json::to_value(r).ok()));
    new["rules"] = rules.into();
}

fn add_subjects(new: &mut Value, wanted: &Value) {
    let same = |a: &Value, b: &Value| ["kind", "name", "namespace", "apiGroup"].iter().all(|k| a.get(k) == b.get(k));
    let mut have = new.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let before = have.len();
    for s in wanted.get("subjects").and_then(Value::as_array).into_iter().flatten() {
        if !have.iter().any(|h| same(h, s)) {
            have.push(s.clone());
        }
    }
    if have.len() != before {
        new["subjects"] = have.into();
    }
}

/// Adds labels and annotations that are missing.
fn add_metadata(new: &mut Value, wanted: &Value) {
    for place in ["labels", "annotations"] {
        let Some(want) = wanted.pointer(&format!("/metadata/{place}")).and_then(Value::as_object) else { continue };
        for (k, v) in want {
            let have = new.pointer(&format!("/metadata/{place}")).and_then(|m| m.get(k)).is_some();
            if !have {
                new["metadata"][place][k] = v.clone();
            }
        }
    }
}

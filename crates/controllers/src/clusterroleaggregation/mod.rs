//! Cluster role aggregation: roles made of the rules of others, chosen by label.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use pintle_api::selector::Selector;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key, Patch, WriteParams};
use serde_json::json;

use crate::context::{Context, Outcome};

const WORKERS: usize = 5;

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("ClusterRoleAggregator");
    let roles = cx.informers.of::<ClusterRole>();
    let (q, all) = (queue.clone(), roles.clone());
    roles.on_change(move |change| {
        // Any role may be a part of any that aggregates; there are few of those.
        for (k, role) in all.keys().into_iter().filter_map(|k| Some((k.clone(), all.get(&k)?))) {
            if role.at(&["aggregationRule"]).is_some() {
                q.add(k);
            }
        }
        let _ = change;
    });
    let me = Arc::new((cx.clone(), roles));
    cx.work(me, &queue, WORKERS, |me, key| async move { sync(&me.0, &me.1, &key).await }).await;
}

/// The rules a role aggregates, in the order of the roles' names, each once.
fn rules(role: &ClusterRole, all: &[ClusterRole]) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    let selectors = role.aggregation_rule.iter().flat_map(|a| a.cluster_role_selectors.iter().flatten());
    for selector in selectors.filter_map(|s| Selector::from_object(Some(s)).ok()) {
        for other in all {
            if other.metadata.name == role.metadata.name || !selector.matches_map(other.metadata.labels.as_ref()) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !out.contains(rule) {
                    out.push(rule.clone());
                }
            }
        }
    }
    out
}

async fn sync(cx: &Context, informer: &Informer, name: &Key) -> Outcome {
    let Some(object) = informer.get(name) else { return Ok(None) };
    let role: ClusterRole = decode(&object)?;
    if role.aggregation_rule.is_none() {
        return Ok(None);
    }
    let mut all: Vec<ClusterRole> = informer.list().iter().map(|o| decode(o)).collect::<Result<_, Error>>()?;
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let new = rules(&role, &all);
    if role.rules.as_deref().unwrap_or_default() == new {
        return Ok(None);
    }
    let apply = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": &**name}, "rules": new});
    let params = WriteParams {
        field_manager: "clusterrole-aggregation-controller".into(),
        force: true,
        ..WriteParams::default()
    };
    let body = pintle_client::client::encode(&apply)?;
    let resource = resource_of::<ClusterRole>();
    match cx.client.patch(resource, "", name, "", Patch::Apply(body), &params).await {
        // A server without server-side apply.
        Err(e) if e.code() == 415 => {
            let mut role = role;
            role.rules = Some(new);
            cx.client.of::<ClusterRole>().update(&role).await?;
            Ok(None)
        }
        Err(e) if e.is_not_found() => Ok(None),
        other => other.map(|_| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_by_label() {
        let role = |name: &str, labels: serde_json::Value, verbs: &[&str]| -> ClusterRole {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "rules": [{"verbs": verbs}]}))
                .unwrap()
        };
        let mut admin = role("admin", json!({"to": "admin"}), &["old"]);
        admin.aggregation_rule =
            serde_json::from_value(json!({"clusterRoleSelectors": [{"matchLabels": {"to": "admin"}}]})).unwrap();
        let all = [
            admin.clone(),
            role("a", json!({"to": "admin"}), &["get"]),
            role("b", json!({"to": "admin"}), &["get"]),
            role("c", json!({}), &["put"]),
        ];
        assert_eq!(rules(&admin, &all).iter().map(|r| r.verbs.clone()).collect::<Vec<_>>(), [["get"]]);
    }
}

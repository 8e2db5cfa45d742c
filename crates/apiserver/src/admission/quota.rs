//! `ResourceQuota`: what a namespace may use together, counted as it is asked for.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pintle_api::Status;
use pintle_api::quantity::Quantity;
use pintle_api::quota::{Usage, covers, quantities, usage};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::Server;

pub(super) struct ResourceQuota;

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(v: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    v.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn shown(usage: &Usage, keys: &[&String]) -> String {
    let zero = Quantity::default();
    let parts: Vec<String> = keys.iter().map(|k| format!("{k}={}", usage.get(*k).unwrap_or(&zero))).collect();
    parts.join(",")
}

/// Compute resources that a quota wants every container to state.
fn unstated(pod: &Value, hard: &Usage) -> Option<String> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in hard.keys() {
        let (part, name) = match key.as_str() {
            "cpu" | "requests.cpu" => ("requests", "cpu"),
            "memory" | "requests.memory" => ("requests", "memory"),
            "limits.cpu" => ("limits", "cpu"),
            "limits.memory" => ("limits", "memory"),
            _ => continue,
        };
        let whole = pod.pointer(&format!("/spec/resources/{part}/{name}")).is_some();
        for l in ["containers", "initContainers"] {
            for c in list(pod, &format!("/spec/{l}")) {
                if !whole && c.pointer(&format!("/resources/{part}/{name}")).is_none() {
                    missing.entry(key).or_default().push(text(c, "/name"));
                }
            }
        }
    }
    let all: Vec<String> = missing.iter().map(|(k, c)| format!("{k} for: {}", c.join(","))).collect();
    (!all.is_empty()).then(|| format!("must specify {}", all.join("; ")))
}

/// Whether `delta` fits; the parts that do not, else what is used then.
fn fits(quota: &Value, delta: &Usage) -> Result<Usage, (String, String, String)> {
    let hard = quantities(quota.pointer("/status/hard"));
    let used = quantities(quota.pointer("/status/used"));
    let zero = Quantity::default();
    let mut after = used.clone();
    let mut over = Vec::new();
    for (k, d) in delta.iter().filter(|(k, _)| hard.contains_key(*k)) {
        let sum = *used.get(k).unwrap_or(&zero) + *d;
        if *d > zero && sum > hard[k] {
            over.push(k);
        }
        after.insert(k.clone(), if sum < zero { zero } else { sum });
    }
    if over.is_empty() { Ok(after) } else { Err((shown(delta, &over), shown(&used, &over), shown(&hard, &over))) }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        let counted_on_update = matches!(a.res.def.resource, "services" | "persistentvolumeclaims");
        match a.operation {
            Operation::Create => a.subresource.is_empty() && a.res.def.namespaced && a.res.objects.is_some(),
            Operation::Update => {
                a.res.def.group.is_empty()
                    && (a.subresource.is_empty() && counted_on_update
                        || a.res.def.resource == "pods" && a.subresource == "resize")
            }
            _ => false,
        }
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let quotas = server.registry.must("", "v1", "resourcequotas")?;
        let snapshot = quotas.objects()?.fresh().await?;
        // Most namespaces have none: nothing is counted for them.
        if snapshot.iter(a.namespace).next().is_none() {
            return Ok(());
        }
        let (group, resource) = (a.res.storage.group, a.res.storage.resource);
        let is_pod = a.about("", "pods");
        let new = usage(resource, group, object);
        let old = a.old.map(|o| usage(resource, group, o)).unwrap_or_default();
        let mut delta = new;
        for (k, q) in &old {
            let have = delta.remove(k).unwrap_or_default();
            delta.insert(k.clone(), have - *q);
        }
        for quota in snapshot.iter(a.namespace) {
            let view: Value = quota.view().map_err(Status::internal)?;
            let hard = quantities(view.pointer("/status/hard"));
            if !delta.iter().any(|(k, d)| !d.is_zero() && hard.contains_key(k)) && !is_pod {
                continue;
            }
            if !covers(&view, object, is_pod) {
                continue;
            }
            let name = quota.name();
            if is_pod
                && a.operation == Operation::Create
                && let Some(why) = unstated(object, &hard)
            {
                return Err(a.forbidden(&format!("failed quota: {name}: {why}")));
            }
            if !delta.iter().any(|(k, d)| !d.is_zero() && hard.contains_key(k)) {
                continue;
            }
            let unknown: Vec<&str> = hard
                .keys()
                .filter(|k| {
                    delta.contains_key(*k) && view.pointer("/status/used").and_then(|u| u.get(k.as_str())).is_none()
                })
                .map(String::as_str)
                .collect();
            if !unknown.is_empty() {
                return Err(a.forbidden(&format!("status unknown for quota: {name}, resources: {}", unknown.join(","))));
            }
            server
                .modify(quotas, a.namespace, name, a.dry_run, &mut |q| match fits(q, &delta) {
                    Ok(after) => {
                        let used: serde_json::Map<String, Value> =
                            after.into_iter().map(|(k, v)| (k, v.to_string().into())).collect();
                        q["status"]["used"] = json!(used);
                        Ok(())
                    }
                    Err((requested, used, limited)) => Err(a.forbidden(&format!(
                        "exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"
                    ))),
                })
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}, {"name": "b", "resources": {"requests": {"cpu": "500m"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}]}})
    }

    #[test]
    fn counts_pods() {
        let u = usage("pods", "", &pod());
        assert_eq!(u["pods"].to_string(), "1");
        assert_eq!(u["requests.cpu"].to_string(), "3");
        assert_eq!(u["limits.cpu"].to_string(), "2");
        assert_eq!(u["count/pods"].to_string(), "1");
        let s = usage("services", "", &json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}));
        assert_eq!(s["services.nodeports"].to_string(), "2");
    }

    #[test]
    fn refuses_what_is_over() {
        let quota = json!({"status": {"hard": {"pods": "2", "cpu": "4"}, "used": {"pods": "1", "cpu": "2"}}});
        let delta = usage("pods", "", &pod());
        let (requested, used, limited) = fits(&quota, &delta).unwrap_err();
        assert_eq!((requested.as_str(), used.as_str(), limited.as_str()), ("cpu=3", "cpu=2", "cpu=4"));
        let hard = quantities(quota.pointer("/status/hard"));
        assert_eq!(
            unstated(&json!({"spec": {"containers": [{"name": "x"}]}}), &hard).unwrap(),
            "must specify cpu for: x"
        );
        assert_eq!(unstated(&pod(), &hard), None);
    }

    #[test]
    fn scopes() {
        let q = |s: &str| json!({"spec": {"scopes": [s]}});
        let be = json!({"spec": {"containers": [{"name": "a"}]}});
        assert!(covers(&q("BestEffort"), &be, true) && !covers(&q("NotBestEffort"), &be, true));
        assert!(covers(&q("NotTerminating"), &be, true) && !covers(&q("Terminating"), &be, true));
        assert!(!covers(&q("BestEffort"), &json!({}), false));
        let p = json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
        assert!(!covers(&p, &be, true));
        assert!(covers(&p, &json!({"spec": {"priorityClassName": "high"}}), true));
    }
}

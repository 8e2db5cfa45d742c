//! `ResourceQuota`: what a namespace may use together, counted as it is asked for.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pintle_api::Status;
use pintle_api::quantity::Quantity;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::registry::meta;

pub(super) struct ResourceQuota;

type Usage = BTreeMap<String, Quantity>;

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(v: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    v.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn quantities(v: Option<&Value>) -> Usage {
    v.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.parse().ok()?)))
        .collect()
}

fn one() -> Quantity {
    number(1)
}

fn number(n: usize) -> Quantity {
    // A decimal number is a quantity.
    n.to_string().parse().unwrap_or_else(|_| Quantity::default())
}

fn add(to: &mut Usage, key: &str, q: &Quantity) {
    let sum = to.remove(key).map_or_else(|| *q, |have| have + *q);
    to.insert(key.to_owned(), sum);
}

/// What the containers of a pod ask for together, with its overhead.
fn pod_sum(pod: &Value, part: &str) -> Usage {
    let of = |c: &Value| quantities(c.pointer(&format!("/resources/{part}")));
    let mut sum = Usage::new();
    for c in list(pod, "/spec/containers") {
        for (k, q) in of(c) {
            add(&mut sum, &k, &q);
        }
    }
    // Init containers run one after the other, beside those that stay.
    let mut staying = Usage::new();
    let mut most = Usage::new();
    for c in list(pod, "/spec/initContainers") {
        let stays = c["restartPolicy"] == "Always";
        for (k, q) in of(c) {
            let beside = staying.get(&k).map_or_else(|| q, |s| *s + q);
            if stays {
                add(&mut staying, &k, &q);
            }
            if most.get(&k).is_none_or(|m| *m < beside) {
                most.insert(k, beside);
            }
        }
    }
    for (k, q) in staying {
        add(&mut sum, &k, &q);
    }
    for (k, q) in most {
        if sum.get(&k).is_none_or(|s| *s < q) {
            sum.insert(k, q);
        }
    }
    for (k, q) in quantities(pod.pointer("/spec/overhead")) {
        if part == "requests" || sum.contains_key(&k) {
            add(&mut sum, &k, &q);
        }
    }
    for (k, q) in quantities(pod.pointer(&format!("/spec/resources/{part}"))) {
        sum.insert(k, q);
    }
    sum
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What an object uses, by the names of quotas.
fn usage(resource: &str, group: &str, object: &Value) -> Usage {
    let mut out = Usage::new();
    let counted = if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") };
    out.insert(counted, one());
    match (group, resource) {
        ("", "pods") => {
            if is_over(object) {
                return out;
            }
            out.insert("pods".into(), one());
            for (k, q) in pod_sum(object, "requests") {
                if matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") || k.starts_with("hugepages-") {
                    out.insert(k.clone(), q);
                }
                out.insert(format!("requests.{k}"), q);
            }
            for (k, q) in pod_sum(object, "limits") {
                if matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                    out.insert(format!("limits.{k}"), q);
                }
            }
        }
        ("", "services") => {
            out.insert("services".into(), one());
            let kind = text(object, "/spec/type");
            let node_ports = list(object, "/spec/ports").count();
            let shares = object.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false);
            if kind == "LoadBalancer" {
                out.insert("services.loadbalancers".into(), one());
            }
            if kind == "NodePort" || (kind == "LoadBalancer" && shares) {
                out.insert("services.nodeports".into(), number(node_ports));
            }
        }
        ("", "persistentvolumeclaims") => {
            out.insert("persistentvolumeclaims".into(), one());
            let class = text(object, "/spec/storageClassName");
            let storage = text(object, "/spec/resources/requests/storage").parse::<Quantity>().ok();
            if let Some(q) = &storage {
                out.insert("requests.storage".into(), *q);
            }
            if !class.is_empty() {
                let prefix = format!("{class}.storageclass.storage.k8s.io");
                out.insert(format!("{prefix}/persistentvolumeclaims"), one());
                if let Some(q) = storage {
                    out.insert(format!("{prefix}/requests.storage"), q);
                }
            }
        }
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            out.insert(resource.to_owned(), one());
        }
        _ => {}
    }
    out
}

fn best_effort(pod: &Value) -> bool {
    let named = |part: &str| {
        ["containers", "initContainers"].iter().any(|l| {
            list(pod, &format!("/spec/{l}")).any(|c| {
                quantities(c.pointer(&format!("/resources/{part}")))
                    .iter()
                    .any(|(k, q)| matches!(k.as_str(), "cpu" | "memory") && !q.is_zero())
            })
        })
    };
    !named("requests") && !named("limits")
}

fn cross_namespace(pod: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let term = |t: &Value| {
            t["namespaces"].as_array().is_some_and(|n| !n.is_empty())
                || t.get("namespaceSelector").is_some_and(|s| !s.is_null())
        };
        let at = |l: &str| format!("/spec/affinity/{kind}/{l}");
        list(pod, &at("requiredDuringSchedulingIgnoredDuringExecution")).any(term)
            || list(pod, &at("preferredDuringSchedulingIgnoredDuringExecution")).any(|p| term(&p["podAffinityTerm"]))
    })
}

/// Whether one scope of a quota covers an object.
fn in_scope(object: &Value, is_pod: bool, name: &str, operator: &str, values: &[String]) -> bool {
    let deadline = object.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|s| s >= 0);
    match name {
        "VolumeAttributesClass" if !is_pod => {
            let class = text(object, "/spec/volumeAttributesClassName").to_owned();
            selected(&class, operator, values)
        }
        _ if !is_pod => false,
        "Terminating" => deadline,
        "NotTerminating" => !deadline,
        "BestEffort" => best_effort(object),
        "NotBestEffort" => !best_effort(object),
        "PriorityClass" => selected(text(object, "/spec/priorityClassName"), operator, values),
        "CrossNamespacePodAffinity" => cross_namespace(object),
        _ => false,
    }
}

fn selected(value: &str, operator: &str, values: &[String]) -> bool {
    match operator {
        "In" => values.iter().any(|v| v == value),
        "NotIn" => !values.iter().any(|v| v == value),
        "DoesNotExist" => value.is_empty(),
        _ => !value.is_empty(),
    }
}

fn covers(quota: &Value, object: &Value, is_pod: bool) -> bool {
    list(quota, "/spec/scopes").filter_map(Value::as_str).all(|s| in_scope(object, is_pod, s, "Exists", &[]))
        && list(quota, "/spec/scopeSelector/matchExpressions").all(|e| {
            in_scope(object, is_pod, text(e, "/scopeName"), text(e, "/operator"), &meta::strings(e.get("values")))
        })
}

fn shown(usage: &Usage, keys: &[&String]) -> String {
    let zero = number(0);
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
    let zero = number(0);
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
        let (group, resource) = (a.res.storage.group, a.res.storage.resource);
        let is_pod = a.about("", "pods");
        let new = usage(resource, group, object);
        let old = a.old.map(|o| usage(resource, group, o)).unwrap_or_default();
        let mut delta = new;
        for (k, q) in &old {
            let have = delta.remove(k).unwrap_or_else(|| number(0));
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

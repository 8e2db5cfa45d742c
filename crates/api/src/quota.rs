//! What objects count in a ResourceQuota, and which of them a quota's scopes cover.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// Amounts by the names that quotas use.
pub type Usage = BTreeMap<String, Quantity>;

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(v: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    v.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

/// The amounts of a resource list.
#[must_use]
pub fn quantities(v: Option<&Value>) -> Usage {
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

/// Adds an amount.
pub fn add(to: &mut Usage, key: &str, q: &Quantity) {
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

fn strings(v: Option<&Value>) -> Vec<String> {
    v.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What an object uses, by the names of quotas.
#[must_use]
pub fn usage(resource: &str, group: &str, object: &Value) -> Usage {
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

/// Whether a quota's scopes cover an object.
#[must_use]
pub fn covers(quota: &Value, object: &Value, is_pod: bool) -> bool {
    list(quota, "/spec/scopes").filter_map(Value::as_str).all(|s| in_scope(object, is_pod, s, "Exists", &[]))
        && list(quota, "/spec/scopeSelector/matchExpressions")
            .all(|e| in_scope(object, is_pod, text(e, "/scopeName"), text(e, "/operator"), &strings(e.get("values"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts() {
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}],
            "initContainers": [{"resources": {"requests": {"cpu": "300m"}}}]}});
        let u = usage("pods", "", &pod);
        for (key, want) in
            [("pods", "1"), ("count/pods", "1"), ("requests.cpu", "300m"), ("cpu", "300m"), ("limits.cpu", "1")]
        {
            assert_eq!(u.get(key).map(ToString::to_string).as_deref(), Some(want), "{key}");
        }
        let mut over = pod.clone();
        over["status"] = json!({"phase": "Failed"});
        assert_eq!(usage("pods", "", &over).into_keys().collect::<Vec<_>>(), ["count/pods"]);
        assert!(usage("deployments", "apps", &json!({})).contains_key("count/deployments.apps"));
        let service = json!({"spec": {"type": "NodePort", "ports": [{}, {}]}});
        assert_eq!(usage("services", "", &service)["services.nodeports"].to_string(), "2");
        for (quota, want) in [
            (json!({"spec": {}}), true),
            (json!({"spec": {"scopes": ["BestEffort"]}}), false),
            (json!({"spec": {"scopes": ["NotBestEffort", "NotTerminating"]}}), true),
            (
                json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}}}),
                false,
            ),
        ] {
            assert_eq!(covers(&quota, &pod, true), want, "{quota}");
        }
    }
}

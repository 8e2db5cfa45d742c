//! `LimitRanger`: default requests and limits of a namespace, and their bounds.

use async_trait::async_trait;
use pintle_api::Status;
use pintle_api::quantity::Quantity;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::Server;

pub(super) struct LimitRanger;

type Map = serde_json::Map<String, Value>;

fn parse(v: &Value) -> Option<Quantity> {
    v.as_str()?.parse().ok()
}

fn limits(range: &Value) -> impl Iterator<Item = &Value> {
    range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten()
}

fn map<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    v.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// Fills the defaults of a range into a pod; answers what was set, for the annotation.
fn fill(pod: &mut Value, range: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    for limit in limits(range).filter(|l| l["type"] == "Container") {
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            let Some(all) = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) else { continue };
            for c in all {
                let mut set = |part: &str, source: &str| -> Vec<String> {
                    let mut done = Vec::new();
                    for (k, v) in map(limit, source) {
                        let Some(c) = c.as_object_mut() else { continue };
                        let r = c.entry("resources").or_insert_with(|| json!({}));
                        let Some(r) = r.as_object_mut() else { continue };
                        let p = r.entry(part).or_insert_with(|| json!({}));
                        let Some(p) = p.as_object_mut() else { continue };
                        if !p.contains_key(k) {
                            p.insert(k.clone(), v.clone());
                            done.push(k.clone());
                        }
                    }
                    done.sort();
                    done
                };
                let requests = set("requests", "defaultRequest");
                let capped = set("limits", "default");
                let name = c["name"].as_str().unwrap_or_default();
                if !requests.is_empty() {
                    notes.push(format!("{} request for {what} {name}", requests.join(", ")));
                }
                if !capped.is_empty() {
                    notes.push(format!("{} limit for {what} {name}", capped.join(", ")));
                }
            }
        }
    }
    notes
}

/// What is out of bounds in the requests and limits of one thing.
fn bounds(errors: &mut Vec<String>, limit: &Value, kind: &str, requests: &Map, limited: &Map) {
    for (k, v) in map(limit, "min") {
        let Some(min) = parse(v) else { continue };
        match requests.get(k).and_then(parse) {
            None => errors.push(format!("minimum {k} usage per {kind} is {}.  No request is specified", text(v))),
            Some(q) if q < min => {
                errors.push(format!(
                    "minimum {k} usage per {kind} is {}, but request is {}",
                    text(v),
                    text(&requests[k])
                ));
            }
            Some(_) => {}
        }
        if let Some(q) = limited.get(k).and_then(parse)
            && q < min
        {
            errors.push(format!("minimum {k} usage per {kind} is {}, but limit is {}", text(v), text(&limited[k])));
        }
    }
    for (k, v) in map(limit, "max") {
        let Some(max) = parse(v) else { continue };
        match limited.get(k).and_then(parse) {
            None => errors.push(format!("maximum {k} usage per {kind} is {}.  No limit is specified", text(v))),
            Some(q) if q > max => {
                errors.push(format!("maximum {k} usage per {kind} is {}, but limit is {}", text(v), text(&limited[k])));
            }
            Some(_) => {}
        }
        if let Some(q) = requests.get(k).and_then(parse)
            && q > max
        {
            errors.push(format!("maximum {k} usage per {kind} is {}, but request is {}", text(v), text(&requests[k])));
        }
    }
    for (k, v) in map(limit, "maxLimitRequestRatio") {
        let (Some(most), Some(r), Some(l)) =
            (parse(v), requests.get(k).and_then(parse), limited.get(k).and_then(parse))
        else {
            errors.push(format!(
                "{k} max limit to request ratio per {kind} is {}, but no request is specified or request is 0",
                text(v)
            ));
            continue;
        };
        let (r, l, most) = (r.as_f64(), l.as_f64(), most.as_f64());
        if r == 0.0 || l / r > most {
            let ratio = if r == 0.0 { 0.0 } else { l / r };
            errors.push(format!(
                "{k} max limit to request ratio per {kind} is {}, but provided ratio is {ratio:.6}",
                text(v)
            ));
        }
    }
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

fn resources(c: &Value, part: &str) -> Map {
    c.pointer(&format!("/resources/{part}")).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The sum over the containers; an init container counts when it alone needs more.
fn sum(pod: &Value, part: &str) -> Map {
    let mut out: std::collections::BTreeMap<String, Quantity> = std::collections::BTreeMap::new();
    let list = |k: &str| pod.pointer(&format!("/spec/{k}")).and_then(Value::as_array).into_iter().flatten();
    for c in list("containers") {
        for (k, v) in resources(c, part) {
            if let Some(q) = parse(&v) {
                let sum = out.remove(&k).map_or_else(|| q, |have| have + q);
                out.insert(k, sum);
            }
        }
    }
    for c in list("initContainers") {
        for (k, v) in resources(c, part) {
            if let Some(q) = parse(&v)
                && out.get(&k).is_none_or(|have| *have < q)
            {
                out.insert(k, q);
            }
        }
    }
    out.into_iter().map(|(k, v)| (k, v.to_string().into())).collect()
}

fn check(pod_or_claim: &Value, kind: &str, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in limits(range) {
        match (limit["type"].as_str().unwrap_or_default(), kind) {
            ("Container", "pods") => {
                for list in ["containers", "initContainers"] {
                    let all = pod_or_claim.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
                    for c in all.into_iter().flatten() {
                        bounds(&mut errors, limit, "Container", &resources(c, "requests"), &resources(c, "limits"));
                    }
                }
            }
            ("Pod", "pods") => {
                bounds(&mut errors, limit, "Pod", &sum(pod_or_claim, "requests"), &sum(pod_or_claim, "limits"));
            }
            ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                let requests = resources(&pod_or_claim["spec"], "requests");
                for (k, v) in map(limit, "min") {
                    if let (Some(min), Some(q)) = (parse(v), requests.get(k).and_then(parse))
                        && q < min
                    {
                        errors.push(format!(
                            "minimum {k} usage per PersistentVolumeClaim is {}, but request is {}",
                            text(v),
                            text(&requests[k])
                        ));
                    }
                }
                for (k, v) in map(limit, "max") {
                    if let (Some(max), Some(q)) = (parse(v), requests.get(k).and_then(parse))
                        && q > max
                    {
                        errors.push(format!(
                            "maximum {k} usage per PersistentVolumeClaim is {}, but request is {}",
                            text(v),
                            text(&requests[k])
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    errors
}

async fn ranges(server: &Server, namespace: &str) -> Result<Vec<Value>, Status> {
    let res = server.registry.must("", "v1", "limitranges")?;
    let all = res.objects()?.fresh().await?;
    all.iter(namespace).map(|o| o.view().map_err(Status::internal)).collect()
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        match a.operation {
            Operation::Create => a.is("", "pods") || a.is("", "persistentvolumeclaims"),
            Operation::Update => {
                a.is("", "persistentvolumeclaims") || (a.about("", "pods") && a.subresource == "resize")
            }
            _ => false,
        }
    }

    async fn admit(&self, server: &Server, a: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if !a.is("", "pods") || a.operation != Operation::Create {
            return Ok(());
        }
        let mut notes = Vec::new();
        for range in ranges(server, a.namespace).await? {
            notes.extend(fill(object, &range));
        }
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            crate::registry::meta::set_annotation(object, "kubernetes.io/limit-ranger", &note);
        }
        Ok(())
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        for range in ranges(server, a.namespace).await? {
            let errors = check(object, a.res.def.resource, &range);
            if !errors.is_empty() {
                let text = if let [one] = errors.as_slice() { one.clone() } else { format!("[{}]", errors.join(", ")) };
                return Err(a.forbidden(&text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_bounds() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"},
            "max": {"cpu": "2"}, "min": {"cpu": "50m"}}]}});
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}}]}});
        assert_eq!(fill(&mut pod, &range), ["cpu request for container a", "cpu limit for container a"]);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}})
        );
        assert_eq!(
            check(&pod, "pods", &range),
            [
                "maximum cpu usage per Container is 2, but limit is 3",
                "maximum cpu usage per Container is 2, but request is 3"
            ]
        );
        let claim = json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}});
        let range = json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]}});
        assert_eq!(check(&claim, "persistentvolumeclaims", &range).len(), 1);
    }
}

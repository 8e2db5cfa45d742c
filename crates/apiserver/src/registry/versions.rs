//! Turning an object of one version into another of the same resource.

use pintle_api::resources::Resource;
use serde_json::{Map, Value, json};

/// Turns an object of version `from` into version `to`.
pub(crate) fn convert(object: &mut Value, from: &Resource, to: &Resource) {
    if std::ptr::eq(from, to) {
        return;
    }
    match (from.resource, to.group, to.version) {
        ("events", "events.k8s.io", _) => rename(object, TO_EVENTS),
        ("events", "", _) => rename_back(object, TO_EVENTS),
        ("horizontalpodautoscalers", _, "v1") => hpa_to_v1(object),
        ("horizontalpodautoscalers", _, "v2") => hpa_to_v2(object),
        (resource, "resource.k8s.io", "v1beta1") => super::devices::to_v1beta1(object, resource),
        (resource, "resource.k8s.io", _) if from.version == "v1beta1" => super::devices::from_v1beta1(object, resource),
        _ => {}
    }
    object["apiVersion"] = to.api_version().into();
    object["kind"] = to.kind.into();
}

/// Fields of a core event and their names in events.k8s.io.
const TO_EVENTS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, names: &[(&str, &str)]) {
    let Some(m) = object.as_object_mut() else { return };
    for (a, b) in names {
        if let Some(v) = m.remove(*a) {
            m.insert((*b).to_owned(), v);
        }
    }
}

fn rename_back(object: &mut Value, names: &[(&str, &str)]) {
    let Some(m) = object.as_object_mut() else { return };
    for (a, b) in names {
        if let Some(v) = m.remove(*b) {
            m.insert((*a).to_owned(), v);
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu(metric: &Value) -> bool {
    metric.pointer("/type").and_then(Value::as_str) == Some("Resource")
        && metric.pointer("/resource/name").and_then(Value::as_str) == Some("cpu")
}

/// v1 knows one CPU target; everything else it carries in annotations.
fn hpa_to_v1(object: &mut Value) {
    let mut notes = Map::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut others = Vec::new();
        for metric in spec.remove("metrics").and_then(|m| m.as_array().cloned()).unwrap_or_default() {
            match metric.pointer("/resource/target/averageUtilization").filter(|_| is_cpu(&metric)) {
                Some(n) if !spec.contains_key("targetCPUUtilizationPercentage") => {
                    spec.insert("targetCPUUtilizationPercentage".into(), n.clone());
                }
                _ => others.push(metric_to_v1(&metric)),
            }
        }
        if !others.is_empty() {
            notes.insert(METRICS.into(), text(&Value::Array(others)));
        }
        if let Some(b) = spec.remove("behavior") {
            notes.insert(BEHAVIOR.into(), text(&b));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let mut others = Vec::new();
        for metric in status.remove("currentMetrics").and_then(|m| m.as_array().cloned()).unwrap_or_default() {
            if let Some(n) = metric.pointer("/resource/current/averageUtilization").filter(|_| is_cpu(&metric)) {
                status.insert("currentCPUUtilizationPercentage".into(), n.clone());
            }
            others.push(current_to_v1(&metric));
        }
        if !others.is_empty() {
            notes.insert(CURRENT.into(), text(&Value::Array(others)));
        }
        if let Some(c) = status.remove("conditions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty())) {
            notes.insert(CONDITIONS.into(), text(&c));
        }
    }
    for (k, v) in notes {
        super::meta::set_annotation(object, &k, v.as_str().unwrap_or_default());
    }
}

fn text(v: &Value) -> Value {
    Value::String(v.to_string())
}

fn metric_to_v1(metric: &Value) -> Value {
    let mut out = metric.clone();
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(m) = out.get_mut(source).and_then(Value::as_object_mut) else { continue };
        if let Some(t) = m.remove("target") {
            let (util, avg, val) = match source {
                "resource" | "containerResource" => ("targetAverageUtilization", "targetAverageValue", "targetValue"),
                "object" => ("targetAverageUtilization", "averageValue", "targetValue"),
                _ => ("targetAverageUtilization", "targetAverageValue", "targetValue"),
            };
            for (from, to) in [("averageUtilization", util), ("averageValue", avg), ("value", val)] {
                if let Some(v) = t.get(from) {
                    m.insert(to.into(), v.clone());
                }
            }
        }
        inline_metric(m);
        if let Some(d) = m.remove("describedObject") {
            m.insert("target".into(), d);
        }
    }
    out
}

fn inline_metric(m: &mut Map<String, Value>) {
    if let Some(metric) = m.remove("metric") {
        if let Some(n) = metric.get("name") {
            m.insert("metricName".into(), n.clone());
        }
        if let Some(s) = metric.get("selector") {
            m.insert("metricSelector".into(), s.clone());
        }
    }
}

fn current_to_v1(metric: &Value) -> Value {
    let mut out = metric.clone();
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(m) = out.get_mut(source).and_then(Value::as_object_mut) else { continue };
        if let Some(t) = m.remove("current") {
            for (from, to) in [
                ("averageUtilization", "currentAverageUtilization"),
                ("averageValue", "currentAverageValue"),
                ("value", "currentValue"),
            ] {
                if let Some(v) = t.get(from) {
                    m.insert(to.into(), v.clone());
                }
            }
        }
        inline_metric(m);
        if let Some(d) = m.remove("describedObject") {
            m.insert("target".into(), d);
        }
    }
    out
}

fn from_v1(metric: &Value, current: bool) -> Value {
    let mut out = metric.clone();
    let (prefix, place) = if current { ("current", "current") } else { ("target", "target") };
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(m) = out.get_mut(source).and_then(Value::as_object_mut) else { continue };
        if source == "object"
            && let Some(d) = m.remove("target")
        {
            m.insert("describedObject".into(), d);
        }
        if let Some(name) = m.remove("metricName") {
            let mut inner = Map::new();
            inner.insert("name".into(), name);
            if let Some(s) = m.remove("metricSelector") {
                inner.insert("selector".into(), s);
            }
            m.insert("metric".into(), inner.into());
        }
        let mut target = Map::new();
        for (suffix, to, kind) in [
            ("AverageUtilization", "averageUtilization", "Utilization"),
            ("AverageValue", "averageValue", "AverageValue"),
            ("Value", "value", "Value"),
        ] {
            let v = m.remove(&format!("{prefix}{suffix}"));
            let v = v.or_else(|| if suffix == "AverageValue" { m.remove("averageValue") } else { None });
            if let Some(v) = v {
                target.insert(to.into(), v);
                if !current {
                    target.entry("type").or_insert_with(|| kind.into());
                }
            }
        }
        m.insert(place.into(), target.into());
    }
    out
}

fn hpa_to_v2(object: &mut Value) {
    let mut notes: HashMapOf = HashMapOf::new();
    if let Some(a) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        for key in [METRICS, CONDITIONS, CURRENT, BEHAVIOR] {
            if let Some(v) = a.remove(key).and_then(|v| serde_json::from_str(v.as_str().unwrap_or_default()).ok()) {
                notes.insert(key, v);
            }
        }
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics: Vec<Value> = Vec::new();
        if let Some(n) = spec.remove("targetCPUUtilizationPercentage").filter(|n| !n.is_null()) {
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": n}}}));
        }
        if let Some(list) = notes.get(METRICS).and_then(Value::as_array) {
            metrics.extend(list.iter().map(|m| from_v1(m, false)));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".into(), metrics.into());
        }
        if let Some(b) = notes.remove(BEHAVIOR) {
            spec.insert("behavior".into(), b);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let cpu = status.remove("currentCPUUtilizationPercentage").filter(|n| !n.is_null());
        let current: Vec<Value> = match (notes.get(CURRENT).and_then(Value::as_array), cpu) {
            (Some(list), _) => list.iter().map(|m| from_v1(m, true)).collect(),
            (None, Some(n)) => {
                vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": n}}})]
            }
            (None, None) => Vec::new(),
        };
        if !current.is_empty() {
            status.insert("currentMetrics".into(), current.into());
        }
        if let Some(c) = notes.remove(CONDITIONS) {
            status.insert("conditions".into(), c);
        }
    }
}

type HashMapOf = std::collections::HashMap<&'static str, Value>;

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_api::resources::by_resource;

    #[test]
    fn events_both_ways() {
        let core = by_resource("", "v1", "events").unwrap();
        let new = by_resource("events.k8s.io", "v1", "events").unwrap();
        let original = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "a"}, "involvedObject": {"name": "p"},
            "message": "m", "reason": "r", "count": 2, "reportingComponent": "c", "type": "Normal"});
        let mut e = original.clone();
        convert(&mut e, core, new);
        assert_eq!(e["regarding"]["name"], "p");
        assert_eq!(
            (&e["note"], &e["deprecatedCount"], &e["apiVersion"]),
            (&json!("m"), &json!(2), &json!("events.k8s.io/v1"))
        );
        convert(&mut e, new, core);
        assert_eq!(e, original);
    }

    #[test]
    fn autoscalers_both_ways() {
        let v1 = by_resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let v2 = by_resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
        let original = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": {"name": "h", "annotations": {"a": "b"}},
            "spec": {"maxReplicas": 3, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "S", "name": "x"}, "metric": {"name": "h"}, "target": {"type": "Value", "value": "2"}}}],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3}}},
            "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "1"}}}]}});
        let mut h = original.clone();
        convert(&mut h, v2, v1);
        assert_eq!(h["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(h["status"]["currentCPUUtilizationPercentage"], 7);
        assert!(h["metadata"]["annotations"][METRICS].as_str().unwrap().contains("metricName"));
        convert(&mut h, v1, v2);
        assert_eq!(h, original);
    }
}

//! The computed defaults of each type, and what upstream's conversion to its inner types and back evens out.

use super::{Object, absent, default, default_empty, empty, items, made, object, pod, text};
use crate::table::Type;
use serde_json::{Value, json};

/// The function of a type, if it has one.
pub(super) fn hook(ty: &Type) -> Option<fn(&mut Object, &str)> {
    Some(match (ty.package, ty.name) {
        ("core/v1", "Pod") => |o, _| pod::pod(o),
        ("core/v1", "PodSpec") => |o, _| pod::pod_spec(o),
        ("core/v1", "PodStatus") => |o, _| pod::pod_status(o),
        ("core/v1", "Container" | "EphemeralContainer") => |o, _| pod::container(o),
        ("core/v1", "Volume") => |o, _| pod::volume(o),
        ("core/v1", "Service") => |o, _| service(o),
        ("core/v1", "ReplicationController") => |o, _| replication_controller(o),
        ("core/v1", "PersistentVolume") => |o, _| persistent_volume(o),
        ("core/v1", "PersistentVolumeClaim") => |o, _| {
            if let Some(status) = made(o, "status") {
                default_empty(status, "phase", "Pending");
            }
        },
        ("core/v1", "Namespace") => |o, _| namespace(o),
        ("core/v1", "NodeStatus") => |o, _| {
            if empty(o, "allocatable") && !empty(o, "capacity") {
                let capacity = o["capacity"].clone();
                o.insert("allocatable".to_owned(), capacity);
            }
        },
        ("core/v1", "NodeSpec") => |o, _| first_of_list(o, "podCIDR", "podCIDRs"),
        ("core/v1", "LimitRangeItem") => |o, _| limit_range_item(o),
        ("core/v1", "Secret") => |o, _| secret(o),
        ("apps/v1", "DeploymentSpec") => |o, _| {
            rolling_update(o, "strategy", &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))]);
        },
        ("apps/v1", "DaemonSetSpec") => |o, _| {
            rolling_update(o, "updateStrategy", &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))]);
        },
        ("apps/v1", "StatefulSetSpec") => |o, _| stateful_set(o),
        ("batch/v1", "Job") => |o, _| job(o),
        ("autoscaling/v1", "HorizontalPodAutoscaler") => |o, _| autoscaler_v1(o),
        ("autoscaling/v2", "HorizontalPodAutoscalerSpec") => |o, _| autoscaler(o),
        ("networking/v1", "NetworkPolicySpec") => |o, _| {
            if empty(o, "policyTypes") {
                let types = if empty(o, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
                o.insert("policyTypes".to_owned(), types);
            }
        },
        ("rbac/v1", "Subject") => |o, _| {
            if matches!(text(o, "kind"), "User" | "Group") {
                default_empty(o, "apiGroup", "rbac.authorization.k8s.io");
            }
        },
        ("apiextensions/v1", "CustomResourceDefinition") => |o, _| custom_resource_definition(o),
        (_, "ExactDeviceRequest" | "DeviceSubRequest") if ty.package.starts_with("resource/") => {
            |o, _| device_request(o)
        }
        ("resource/v1beta1", "DeviceRequest") => |o, _| {
            if !empty(o, "deviceClassName") {
                device_request(o);
            }
        },
        (_, "DeviceTaint") if ty.package.starts_with("resource/") => |o, now| {
            if !now.is_empty() {
                default(o, "timeAdded", now);
            }
        },
        _ => return None,
    })
}

/// A single value and the list it heads: the single one counts, and each is filled from the other.
fn first_of_list(o: &mut Object, single: &str, list: &str) {
    let first = o.get(list).and_then(|l| l.get(0)).and_then(Value::as_str).unwrap_or("").to_owned();
    let one = text(o, single).to_owned();
    if one.is_empty() && !first.is_empty() {
        o.insert(single.to_owned(), first.into());
    } else if !one.is_empty() && one != first {
        o.insert(list.to_owned(), json!([one]));
    }
}

fn service(o: &mut Object) {
    let mut balanced = false;
    if let Some(spec) = object(o, "spec") {
        default_empty(spec, "sessionAffinity", "None");
        default_empty(spec, "type", "ClusterIP");
        match text(spec, "sessionAffinity") {
            "None" => {
                spec.remove("sessionAffinityConfig");
            }
            "ClientIP" => {
                let timeout = spec.get("sessionAffinityConfig").and_then(|c| c.pointer("/clientIP/timeoutSeconds"));
                if timeout.is_none_or(Value::is_null) {
                    spec.insert("sessionAffinityConfig".to_owned(), json!({"clientIP": {"timeoutSeconds": 10800}}));
                }
            }
            _ => {}
        }
        for port in items(spec, "ports") {
            default_empty(port, "protocol", "TCP");
            let unset = match port.get("targetPort") {
                None | Some(Value::Null) => true,
                Some(Value::String(s)) => s.is_empty(),
                Some(v) => v.as_i64() == Some(0),
            };
            if unset {
                let number = port.get("port").cloned().unwrap_or_else(|| Value::from(0));
                port.insert("targetPort".to_owned(), number);
            }
        }
        let kind = text(spec, "type").to_owned();
        let outside =
            matches!(kind.as_str(), "LoadBalancer" | "NodePort") || kind == "ClusterIP" && !empty(spec, "externalIPs");
        if outside {
            default_empty(spec, "externalTrafficPolicy", "Cluster");
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
            default(spec, "internalTrafficPolicy", "Cluster");
        }
        balanced = kind == "LoadBalancer";
        if balanced {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
    }
    if balanced && let Some(balancer) = object(o, "status").and_then(|s| object(s, "loadBalancer")) {
        for ingress in items(balancer, "ingress") {
            if !empty(ingress, "ip") {
                default(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// The labels of a template in `spec.template`, unless there are none.
fn template_labels(o: &Object) -> Option<Value> {
    let labels = o.get("spec")?.pointer("/template/metadata/labels")?;
    labels.as_object().filter(|l| !l.is_empty())?;
    Some(labels.clone())
}

fn labels_from_template(o: &mut Object, labels: Value) {
    if let Some(metadata) = made(o, "metadata") {
        default_empty(metadata, "labels", labels);
    }
}

fn replication_controller(o: &mut Object) {
    if let Some(labels) = template_labels(o) {
        if let Some(spec) = object(o, "spec") {
            default_empty(spec, "selector", labels.clone());
        }
        labels_from_template(o, labels);
    }
}

fn persistent_volume(o: &mut Object) {
    if let Some(status) = made(o, "status") {
        default_empty(status, "phase", "Pending");
    }
    if let Some(spec) = made(o, "spec") {
        default_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
    }
}

fn namespace(o: &mut Object) {
    if let Some(metadata) = object(o, "metadata")
        && let Some(name) = metadata.get("name").cloned().filter(|n| n.as_str() != Some(""))
        && let Some(labels) = made(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
}

fn limit_range_item(o: &mut Object) {
    if text(o, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(Value::Object(source)) = o.get(from).cloned() else { continue };
        if source.is_empty() {
            continue;
        }
        if let Some(target) = made(o, to) {
            for (name, quantity) in source {
                target.entry(name).or_insert(quantity);
            }
        }
    }
}

/// What is written to `stringData` belongs to `data`.
fn secret(o: &mut Object) {
    use base64::Engine;
    let Some(Value::Object(strings)) = o.remove("stringData") else { return };
    if strings.is_empty() {
        return;
    }
    if let Some(data) = made(o, "data") {
        for (name, value) in strings {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or(""));
            data.insert(name, Value::from(encoded));
        }
    }
}

fn rolling_update(spec: &mut Object, strategy: &str, limits: &[(&str, Value)]) {
    let Some(strategy) = made(spec, strategy) else { return };
    default_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate"
        && let Some(update) = made(strategy, "rollingUpdate")
    {
        for (name, value) in limits {
            default(update, name, value.clone());
        }
    }
}

fn stateful_set(spec: &mut Object) {
    if let Some(strategy) = made(spec, "updateStrategy") {
        if empty(strategy, "type") {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
            made(strategy, "rollingUpdate");
        }
        if text(strategy, "type") == "RollingUpdate"
            && let Some(update) = object(strategy, "rollingUpdate")
        {
            default(update, "partition", 0);
        }
    }
    for template in items(spec, "volumeClaimTemplates") {
        template.insert("kind".to_owned(), "PersistentVolumeClaim".into());
        template.insert("apiVersion".to_owned(), "v1".into());
    }
}

fn job(o: &mut Object) {
    if let Some(spec) = made(o, "spec") {
        if absent(spec, "completions") && absent(spec, "parallelism") {
            spec.insert("completions".to_owned(), 1.into());
        }
        default(spec, "parallelism", 1);
        let limit = if absent(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
        default(spec, "backoffLimit", limit);
        default(spec, "completionMode", "NonIndexed");
        default(spec, "suspend", false);
        let replacement = if absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
        default(spec, "podReplacementPolicy", replacement);
        default(spec, "manualSelector", false);
    }
    if let Some(labels) = template_labels(o) {
        labels_from_template(o, labels);
    }
}

fn autoscaler_v1(o: &mut Object) {
    let other_metrics =
        o.get("metadata").and_then(|m| m.pointer("/annotations/autoscaling.alpha.kubernetes.io~1metrics")).is_some();
    if let Some(spec) = object(o, "spec")
        && !other_metrics
    {
        default(spec, "targetCPUUtilizationPercentage", 80);
    }
}

fn autoscaler(spec: &mut Object) {
    default_empty(
        spec,
        "metrics",
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
    );
    let Some(behavior) = object(spec, "behavior") else { return };
    if let Some(up) = made(behavior, "scaleUp") {
        default(up, "stabilizationWindowSeconds", 0);
        default(up, "selectPolicy", "Max");
        default(
            up,
            "policies",
            json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
    }
    if let Some(down) = made(behavior, "scaleDown") {
        default(down, "selectPolicy", "Max");
        default(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}

fn custom_resource_definition(o: &mut Object) {
    let mut stored = None;
    if let Some(spec) = made(o, "spec") {
        if let Some(names) = made(spec, "names") {
            let kind = text(names, "kind").to_owned();
            if !kind.is_empty() {
                default_empty(names, "singular", kind.to_lowercase());
                default_empty(names, "listKind", format!("{kind}List"));
            }
        }
        stored = items(spec, "versions")
            .find(|v| v.get("storage") == Some(&Value::Bool(true)))
            .map(|v| text(v, "name").to_owned());
    }
    if let (Some(name), Some(status)) = (stored, made(o, "status")) {
        default_empty(status, "storedVersions", json!([name]));
    }
}

fn device_request(o: &mut Object) {
    default_empty(o, "allocationMode", "ExactCount");
    let none = o.get("count").is_none_or(|c| c.as_i64() == Some(0));
    if text(o, "allocationMode") == "ExactCount" && none {
        o.insert("count".to_owned(), 1.into());
    }
}

//! Objects of storage for tests.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::cache::objects::{Delta, ObjectChange};
use crate::plugins::testing::cluster;

fn new<T: DeserializeOwned>(text: &Value) -> Delta<T> {
    let value = serde_json::from_value(text.clone()).unwrap();
    Delta { old: None, new: Some(Arc::new(value)) }
}

/// Takes in an object by its kind.
pub fn put(cache: &mut Cache, kind: &str, text: &Value) {
    let change = match kind {
        "claim" => ObjectChange::Claim(new(text)),
        "volume" => ObjectChange::Volume(new(text)),
        "class" => ObjectChange::StorageClass(new(text)),
        "csinode" => ObjectChange::CsiNode(new(text)),
        "driver" => ObjectChange::CsiDriver(new(text)),
        "capacity" => ObjectChange::StorageCapacity(new(text)),
        "attachment" => ObjectChange::Attachment(new(text)),
        other => panic!("unknown kind {other}"),
    };
    cache.apply(&change);
}

/// A pod with these claims.
pub fn pod(claims: &[&str]) -> Value {
    let volumes: Vec<Value> =
        claims.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}})).collect();
    json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": {"volumes": volumes}})
}

/// A claim of a class; bound when a volume is named.
pub fn claim(name: &str, class: &str, size: &str, volume: &str) -> Value {
    let annotations = if volume.is_empty() { json!({}) } else { json!({"pv.kubernetes.io/bind-completed": "yes"}) };
    json!({"metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": "5", "annotations": annotations},
        "spec": {"storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
}

/// A free volume of a class, usable from the named nodes, or from all.
pub fn volume(name: &str, class: &str, size: &str, nodes: &[&str]) -> Value {
    let affinity = json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "host", "operator": "In", "values": nodes}]}]}});
    let mut v = json!({"metadata": {"name": name, "resourceVersion": "7"}, "status": {"phase": "Available"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}}});
    if !nodes.is_empty() {
        v["spec"]["nodeAffinity"] = affinity;
    }
    v
}

/// A class.
pub fn class(name: &str, provisioner: &str, waits: bool) -> Value {
    let mode = if waits { "WaitForFirstConsumer" } else { "Immediate" };
    json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})
}

/// Nodes a and b, with a class of each kind: `now`, `wait` (nobody makes volumes) and `make`.
pub fn nodes() -> Cache {
    let node = |n: &str| {
        (
            json!({"metadata": {"name": n, "labels": {"host": n, "topology.kubernetes.io/zone": format!("z{n}")}}}),
            vec![],
        )
    };
    let mut cache = cluster(&[node("a"), node("b")]);
    put(&mut cache, "class", &class("now", "example.com/csi", false));
    put(&mut cache, "class", &class("wait", "kubernetes.io/no-provisioner", true));
    put(&mut cache, "class", &class("make", "example.com/csi", true));
    cache
}

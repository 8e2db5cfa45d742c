//! The Node objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use pintle_api::time;
use pintle_client::Meta;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::rules::{Condition, holds};

/// Annotation of simulated nodes, and what it says; the same as kwok's.
pub const FAKE: (&str, &str) = ("kwok.x-k8s.io/node", "fake");
/// Label that says which group of simulated nodes a node is of.
pub const GROUP: &str = "pintle.internal/sim";
/// The group of nodes that are simulated but say nothing of a group.
pub const DEFAULT_GROUP: &str = "sim";

/// What is read of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub(crate) metadata: Meta,
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub conditions: Vec<Condition>,
    pub addresses: Vec<Address>,
    pub capacity: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
}

impl Node {
    /// Whether it is a simulated node of this group. Those that kwok's manifests make say nothing of a group.
    pub(crate) fn is_of(&self, group: &str) -> bool {
        let fake = self.metadata.annotations.get(FAKE.0).is_some_and(|v| v == FAKE.1);
        fake && self.metadata.labels.get(GROUP).unwrap_or(DEFAULT_GROUP) == group
    }

    pub(crate) fn is_ready(&self) -> bool {
        holds(&self.status.conditions, "Ready")
    }

    /// The addresses that pods on its own network have.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let internal = self.status.addresses.iter().filter(|a| a.kind == "InternalIP");
        internal.filter_map(|a| a.address.parse().ok()).collect()
    }
}

/// The name of node number `i`.
pub fn name(config: &Config, i: usize) -> String {
    format!("{}-{i}", config.group)
}

/// The conditions of a node that is well, said now. Whether they were so before is for the one who writes them to know.
fn conditions(now: &str, changed: bool) -> Vec<Value> {
    [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    .into_iter()
    .map(|(kind, status, reason, message)| {
        let mut out =
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now});
        if changed {
            out["lastTransitionTime"] = now.into();
        }
        out
    })
    .collect()
}

/// A node's whole status.
fn status(config: &Config, name: &str, ips: &[IpAddr], now: &str) -> Value {
    let mut addresses: Vec<Value> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": name}));
    json!({
        "capacity": config.capacity,
        "allocatable": config.capacity,
        "conditions": conditions(now, true),
        "addresses": addresses,
        "nodeInfo": {
            "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "simulated", "osImage": "simulated",
            "containerRuntimeVersion": "sim://1.0.0", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
            "operatingSystem": "linux", "architecture": "amd64",
        },
    })
}

/// Node number `i`, ready from the first.
pub fn object(config: &Config, i: usize, ips: &[IpAddr], now: Timestamp) -> Value {
    let name = name(config, i);
    let mut labels: BTreeMap<&str, String> = [
        ("kubernetes.io/hostname", name.clone()),
        ("kubernetes.io/os", "linux".into()),
        ("kubernetes.io/arch", "amd64".into()),
        ("type", "kwok".into()),
        (GROUP, config.group.clone()),
    ]
    .into();
    if config.zones > 0 {
        labels.insert("topology.kubernetes.io/region", "sim".into());
        labels.insert("topology.kubernetes.io/zone", format!("zone-{}", i % config.zones));
    }
    labels.extend(config.labels.iter().map(|(k, v)| (k.as_str(), v.clone())));
    let mut annotations = config.annotations.clone();
    annotations.insert(FAKE.0.into(), FAKE.1.into());
    let taints: Vec<Value> =
        config.taints.iter().map(|t| json!({"key": t.key, "value": t.value, "effect": t.effect})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"taints": taints},
        "status": status(config, &name, ips, &time::format(now)),
    })
}

/// What makes a node ready that others made, or that was given up: as a patch of its status. What it says of its size
/// is left alone.
pub fn made_ready(config: &Config, node: &Node, ips: &[IpAddr], now: Timestamp) -> Value {
    let mut status = status(config, &node.metadata.name, ips, &time::format(now));
    if let Some(status) = status.as_object_mut().filter(|_| !node.status.capacity.is_empty()) {
        status.remove("capacity");
        status.remove("allocatable");
    }
    json!({"metadata": {"uid": node.metadata.uid}, "status": status})
}

/// What says that a node still is as it was: as a patch of its status.
pub fn still_ready(now: Timestamp) -> Value {
    json!({"status": {"conditions": conditions(&time::format(now), false)}})
}

/// A node's Lease.
pub fn lease(name: &str, uid: &str, seconds: u64, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": name, "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": time::format_micro(now)},
    })
}

/// What renews it.
pub fn renewal(now: Timestamp) -> Value {
    json!({"spec": {"renewTime": time::format_micro(now)}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_node_is() {
        let check = |metadata: Value, group: &str, want: bool| {
            let node: Node = serde_json::from_value(json!({"metadata": metadata})).unwrap();
            assert_eq!(node.is_of(group), want, "{metadata}");
        };
        let fake = || json!({FAKE.0: FAKE.1});
        check(json!({"annotations": fake(), "labels": {GROUP: "a"}}), "a", true);
        check(json!({"annotations": fake(), "labels": {GROUP: "a"}}), "b", false);
        check(json!({"annotations": fake()}), DEFAULT_GROUP, true);
        check(json!({"annotations": fake()}), "a", false);
        check(json!({"labels": {GROUP: "a"}}), "a", false);
        check(json!({}), DEFAULT_GROUP, false);
    }
}

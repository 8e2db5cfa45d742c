//! The parts of Pods and Nodes that scheduling reads, as they stand in the API: decoded once an event.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::resources::ResourceList;

/// Metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// As in the API.
    pub name: String,
    /// As in the API.
    pub namespace: String,
    /// As in the API.
    pub uid: String,
    /// As in the API.
    pub labels: BTreeMap<String, String>,
    /// As in the API.
    pub annotations: BTreeMap<String, String>,
    /// As in the API.
    pub creation_timestamp: Option<String>,
    /// As in the API.
    pub deletion_timestamp: Option<String>,
    /// As in the API.
    pub generation: i64,
}

/// A Pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// As in the API.
    pub metadata: Metadata,
    /// As in the API.
    pub spec: PodSpec,
    /// As in the API.
    pub status: PodStatus,
}

/// A Pod's spec.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// As in the API.
    pub node_name: String,
    /// As in the API.
    pub scheduler_name: String,
    /// As in the API.
    pub priority: i32,
    /// As in the API.
    pub preemption_policy: Option<String>,
    /// As in the API.
    pub host_network: bool,
    /// As in the API.
    pub overhead: ResourceList,
    /// As in the API.
    pub resources: Option<Requirements>,
    /// As in the API.
    pub node_selector: BTreeMap<String, String>,
    /// As in the API.
    pub affinity: Option<Affinity>,
    /// As in the API.
    pub tolerations: Vec<Toleration>,
    /// As in the API.
    pub scheduling_gates: Vec<Gate>,
    /// As in the API.
    pub containers: Vec<Container>,
    /// As in the API.
    pub init_containers: Vec<Container>,
}

/// A scheduling gate.
#[derive(Debug, Default, Deserialize)]
pub struct Gate {
    /// As in the API.
    pub name: String,
}

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// As in the API.
    pub image: String,
    /// As in the API.
    pub resources: Requirements,
    /// As in the API.
    pub ports: Vec<Port>,
    /// As in the API.
    pub restart_policy: Option<String>,
}

/// Resource requirements.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Requirements {
    /// As in the API.
    pub requests: ResourceList,
}

/// A container's port.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// As in the API.
    pub host_port: i32,
    #[serde(rename = "hostIP")]
    /// As in the API.
    pub host_ip: String,
    /// As in the API.
    pub protocol: String,
}

/// A Pod's status.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// As in the API.
    pub phase: String,
    /// As in the API.
    pub nominated_node_name: String,
    /// As in the API.
    pub conditions: Vec<Condition>,
}

/// A condition.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    /// As in the API.
    pub kind: String,
    /// As in the API.
    pub status: String,
    /// As in the API.
    pub reason: String,
    /// As in the API.
    pub message: String,
}

/// Affinity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Affinity {
    /// As in the API.
    pub node_affinity: Option<NodeAffinity>,
}

/// Node affinity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    /// As in the API.
    pub required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    /// As in the API.
    pub preferred: Vec<PreferredTerm>,
}

/// Terms of which one must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelector {
    /// As in the API.
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// A weighted term.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PreferredTerm {
    /// As in the API.
    pub weight: i32,
    /// As in the API.
    pub preference: NodeSelectorTerm,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelectorTerm {
    /// As in the API.
    pub match_expressions: Vec<Expression>,
    /// As in the API.
    pub match_fields: Vec<Expression>,
}

/// One condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Expression {
    /// As in the API.
    pub key: String,
    /// As in the API.
    pub operator: String,
    /// As in the API.
    pub values: Vec<String>,
}

/// A toleration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Toleration {
    /// As in the API.
    pub key: String,
    /// As in the API.
    pub operator: String,
    /// As in the API.
    pub value: String,
    /// As in the API.
    pub effect: String,
}

/// A Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// As in the API.
    pub metadata: Metadata,
    /// As in the API.
    pub spec: NodeSpec,
    /// As in the API.
    pub status: NodeStatus,
}

/// A Node's spec.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// As in the API.
    pub unschedulable: bool,
    /// As in the API.
    pub taints: Vec<Taint>,
}

/// A taint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Taint {
    /// As in the API.
    pub key: String,
    /// As in the API.
    pub value: String,
    /// As in the API.
    pub effect: String,
}

/// A Node's status.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// As in the API.
    pub allocatable: ResourceList,
    /// As in the API.
    pub images: Vec<Image>,
}

/// An image a node has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Image {
    /// As in the API.
    pub names: Vec<String>,
    /// As in the API.
    pub size_bytes: i64,
}

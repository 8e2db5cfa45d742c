//! The narrow form of a Node.

use jiff::Timestamp;
use pintle_client::informers::View;
use pintle_client::meta::HasMeta;
use pintle_client::{Informers, Meta};
use serde::{Deserialize, Serialize};

use crate::support::pods::Toleration;

/// Taint of a node that is known to be off; its pods may be deleted without its word.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A Node as controllers look at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Metadata.
    pub metadata: Meta,
    /// Part of the spec.
    pub spec: Spec,
    /// Part of the status.
    pub status: Status,
}

/// Part of a Node's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether new pods are kept off.
    pub unschedulable: bool,
    /// Pod address ranges.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

/// One taint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Its effect.
    pub effect: String,
    /// When it was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Timestamp>,
}

/// Part of a Node's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When the node last said so.
    pub last_heartbeat_time: Option<Timestamp>,
}

impl HasMeta for Node {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Node {
    /// The status of a condition; empty when it has none.
    #[must_use]
    pub fn condition(&self, kind: &str) -> &str {
        self.status.conditions.iter().find(|c| c.kind == kind).map_or("", |c| &c.status)
    }

    /// Whether it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready") == "True"
    }

    /// Whether it bears a taint of this key.
    #[must_use]
    pub fn has_taint(&self, key: &str) -> bool {
        self.spec.taints.iter().any(|t| t.key == key)
    }
}

/// Whether a toleration bears a taint.
#[must_use]
pub fn tolerates(t: &Toleration, taint: &Taint) -> bool {
    (t.effect.is_empty() || t.effect == taint.effect)
        && (t.key.is_empty() || t.key == taint.key)
        && match t.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !t.key.is_empty() && t.value == taint.value,
            _ => false,
        }
}

/// The shared view of all nodes.
#[must_use]
pub fn view(informers: &Informers) -> View<Node> {
    informers.of::<k8s_openapi::api::core::v1::Node>().view::<Node>()
}

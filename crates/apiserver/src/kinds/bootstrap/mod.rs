//! The objects of RBAC, flow control and priority that a cluster starts with. The API server creates those that are
//! missing and, where an object carries the auto-update annotation, puts back what was taken from it.

mod flowcontrol;
mod rbac;

pub use flowcontrol::{flow_schemas, priority_levels};
pub use rbac::{cluster_role_bindings, cluster_roles, gated_rules, role_bindings, roles};

use serde_json::{Value, json};

/// The priority classes of the system.
pub fn priority_classes() -> Vec<Value> {
    [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
    .into_iter()
    .map(|(name, value, description)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
            "preemptionPolicy": "PreemptLowerPriority",
        })
    })
    .collect()
}

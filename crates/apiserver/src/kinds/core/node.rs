//! Nodes.

use jiff::Timestamp;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

use crate::kinds::Strategy;
use crate::kinds::table::{self, Column, text};

/// The strategy of nodes. A kubelet registers itself with its status, so create keeps it.
pub static NODE: Strategy = Strategy {
    selectable: &[("spec.unschedulable", &["spec", "unschedulable"])],
    selectable_zero: &[("spec.unschedulable", "false")],
    create_resets_status: false,
    columns: &[
        Column::NAME,
        text("Status", "The status of the node"),
        text("Roles", "The roles of the node"),
        Column::AGE,
        text("Version", "@NodeSystemInfo.kubeletVersion"),
        text("Internal-IP", "@NodeStatus.addresses").wide(),
        text("External-IP", "@NodeStatus.addresses").wide(),
        text("OS-Image", "@NodeSystemInfo.osImage").wide(),
        text("Kernel-Version", "@NodeSystemInfo.kernelVersion").wide(),
        text("Container-Runtime", "@NodeSystemInfo.containerRuntimeVersion").wide(),
    ],
    row,
    ..Strategy::DEFAULT
};

fn row(node: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let status = node.get("status");
    // Upstream keeps the last of several conditions of one type.
    let ready = status.get("conditions").items().filter(|c| c.get("type").str() == "Ready").last();
    let mut state = match ready {
        None => "Unknown".to_owned(),
        Some(c) if c.get("status").str() == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if node.get("spec").get("unschedulable").bool() {
        state.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = status.get("addresses").items().find(|a| a.get("type").str() == kind);
        found.map_or("<none>", |a| a.get("address").str()).to_owned()
    };
    let info = |field| match status.get("nodeInfo").get(field).str() {
        "" => "<unknown>",
        text => text,
    };
    vec![
        table::name(node),
        state.into(),
        table::or_none(roles(node).join(",")).into(),
        table::age(node, now),
        status.get("nodeInfo").get("kubeletVersion").str().into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        info("kernelVersion").into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn roles<'a>(node: &Cursor<'a>) -> Vec<&'a str> {
    let mut roles: Vec<&str> = node
        .get("metadata")
        .get("labels")
        .entries()
        .filter_map(|(key, v)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(v.str()),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "creationTimestamp": "2024-01-01T00:00:00Z",
                "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "infra"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
        });
        assert_eq!(
            testing::row(&node, 60),
            [
                "n",
                "Ready,SchedulingDisabled",
                "control-plane,infra",
                "60s",
                "v1.36.0",
                "10.0.0.1",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]
        );
        assert_eq!(testing::row(&testing::changed(&node, "status", json!({})), 60)[1], "Unknown,SchedulingDisabled");
    }
}

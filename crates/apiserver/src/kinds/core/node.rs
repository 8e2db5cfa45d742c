//! Nodes.

use std::collections::HashSet;

use jiff::Timestamp;
use pintle_api::names::label_value;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::pod::{resources, scheduling};
use crate::kinds::strategy::{Sub, keep_all_but_status};
use crate::kinds::table::{self, Column, text};
use crate::kinds::{Ctx, Strategy, checks, meta};

/// The strategy of nodes. A kubelet registers itself with its status, so create keeps it.
pub static NODE: Strategy = Strategy {
    selectable: &[("spec.unschedulable", &["spec", "unschedulable"], "false")],
    create_resets_status: false,
    validate,
    validate_change,
    subresources: &[(
        "status",
        Sub {
            prepare: keep_all_but_status,
            validate: |ctx, new, old, errors| {
                capacities(new, errors);
                declared_features(new, errors);
                validate_change(ctx, new, old, errors);
            },
            reset_fields: &[&["spec"]],
        },
    )],
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

fn validate(_: &Ctx<'_>, node: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = node.get("spec");
    taints(&spec.get("taints"), errors);
    capacities(node, errors);
    declared_features(node, errors);
    if old.is_some() {
        return;
    }
    let cidrs = spec.get("podCIDRs");
    for cidr in cidrs.items() {
        checks::new_cidr(&cidr, errors);
    }
    let v6 = |c: &Cursor<'_>| checks::parse_cidr(c.str()).is_some_and(|(ip, _)| ip.is_ipv6());
    if cidrs.len() > 2 || (cidrs.len() == 2 && v6(&cidrs.index(0)) == v6(&cidrs.index(1))) {
        errors.invalid(&cidrs, "may specify no more than one CIDR for each IP family");
    }
}

/// Upstream names the place of taints under `metadata`.
fn taints(list: &Cursor<'_>, errors: &mut Errors) {
    let mut found = Errors::new();
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        meta::label_key(&key, key.str(), &mut found);
        let wrong = label_value(value.str());
        if !wrong.is_empty() {
            found.invalid_value(&value, value.str(), wrong.join(";"));
        }
        scheduling::taint_effect(&effect, &mut found);
        let pair = (key.str(), effect.str());
        if seen.contains(&pair) {
            let shown = taint.value().cloned().unwrap_or_default();
            let detail = "taints must be unique by key and effect pair";
            found.add(pintle_schema::cursor::ErrorKind::Duplicate, &taint, shown, detail);
        }
        seen.insert(pair);
    }
    meta::moved(found, "spec.taints", "metadata.taints", errors);
}

fn capacities(node: &Cursor<'_>, errors: &mut Errors) {
    for field in ["capacity", "allocatable"] {
        let list = node.get("status").get(field);
        for (name, amount) in list.entries() {
            let mut found = Errors::new();
            resources::amount(name, &amount, &mut found);
            meta::moved(found, &amount.path(), &format!("{list}.{name}"), errors);
        }
    }
}

/// Names of features, in order.
fn declared_features(node: &Cursor<'_>, errors: &mut Errors) {
    let list = node.get("status").get("declaredFeatures");
    let mut before: Option<&str> = None;
    for feature in list.items() {
        let name = feature.str();
        match before {
            Some(b) if b == name => errors.duplicate(&feature, name),
            Some(b) if b > name => errors.invalid(&feature, "list must be sorted alphabetically"),
            _ => {}
        }
        before = Some(name);
        if name.len() > 253 {
            let message = format!("invalid feature name {name:?}: must be no more than 253 characters");
            errors.invalid(&feature, message);
            continue;
        }
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) || !name.split('/').all(word) {
            let message = format!(
                "invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
            );
            errors.invalid(&feature, message);
        }
    }
}

fn validate_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let addresses = new.get("status").get("addresses");
    let mut seen = HashSet::new();
    for address in addresses.items() {
        if !seen.insert(address.value()) {
            errors.duplicate(&address, address.value().cloned().unwrap_or_default());
        }
    }
    let (n, o) = (new.get("spec"), old.get("spec"));
    let (cidrs, before) = (n.get("podCIDRs"), o.get("podCIDRs"));
    if !before.is_empty() && cidrs.list() != before.list() {
        errors.forbidden(&cidrs, "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = o.get("providerID");
    if !provider.is_empty() && provider.str() != n.get("providerID").str() {
        errors.forbidden(n.get("providerID"), "node updates may not change providerID except from \"\" to valid");
    }
}

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

    #[test]
    fn features() {
        use crate::kinds::testing::{changed, create_errors, status_errors};
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "resourceVersion": "1"}});
        let check = |list: serde_json::Value, expect: &str| {
            let told = changed(&node, "status/declaredFeatures", list);
            assert_eq!(create_errors(&told), expect);
            assert_eq!(status_errors(&told, &node), expect);
        };
        check(json!(["A", "B/c1"]), "");
        check(
            json!(["B", "A"]),
            "status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically",
        );
        check(json!(["A", "A"]), "status.declaredFeatures[1]: Duplicate value: \"A\"");
        check(
            json!(["a b"]),
            "status.declaredFeatures[0]: Invalid value: \"a b\": invalid feature name \"a b\": must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
        );
    }

    #[test]
    fn checks() {
        use crate::kinds::testing::{changed, create_errors, update_errors};
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "resourceVersion": "1"},
            "spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "x"}, "status": {"capacity": {"cpu": "2", "pods": "110"}}});
        assert_eq!(create_errors(&node), "");
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        assert_eq!(
            create_errors(&changed(&node, "spec/taints", json!([taint, taint]))),
            "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair"
        );
        assert_eq!(
            create_errors(&changed(&node, "status/capacity/pods", json!("1500m"))),
            "status.capacity.pods: Invalid value: \"1500m\": must be an integer"
        );
        assert_eq!(
            update_errors(&changed(&node, "spec/podCIDRs", json!(["10.0.1.0/24"])), &node),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"
        );
        assert_eq!(
            update_errors(&changed(&node, "spec/providerID", json!("y")), &node),
            "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid"
        );
    }
}

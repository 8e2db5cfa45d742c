//! Conditions and taints of a node.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::support::nodes::{Node, Taint};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taints that evict.
pub const EVICTING: [&str; 2] = [NOT_READY, UNREACHABLE];

/// Taints that keep new pods off, by condition and its status.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Old label names that follow the new ones.
const LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// The taints a node should have; `None` when it has them. `evict` allows an evicting taint to be added now.
pub fn taints(node: &Node, evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let has = |key: &str, effect: &str| node.spec.taints.iter().any(|t| t.key == key && t.effect == effect);
    let mut want: Vec<(&str, &str)> = Vec::new();
    for (condition, status, key) in BY_CONDITION {
        if node.condition(condition) == status {
            want.push((key, "NoSchedule"));
        }
    }
    if node.spec.unschedulable {
        want.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let evicting = match node.condition("Ready") {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    };
    // A node that evicts for one reason changes to the other without waiting for its turn.
    let evicts = EVICTING.iter().any(|k| has(k, "NoExecute"));
    if let Some(key) = evicting.filter(|_| evict || evicts) {
        want.push((key, "NoExecute"));
    }
    let ours = |t: &Taint| match t.effect.as_str() {
        "NoSchedule" => t.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, k)| *k == t.key),
        "NoExecute" => EVICTING.contains(&t.key.as_str()),
        _ => false,
    };
    // A node that never said anything keeps the taint it was registered with.
    let silent = node.condition("Ready").is_empty();
    let mut out: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|t| !ours(t) || want.contains(&(t.key.as_str(), t.effect.as_str())) || (silent && t.key == NOT_READY))
        .cloned()
        .collect();
    for (key, effect) in want {
        if !has(key, effect) {
            let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
            out.push(Taint { key: key.into(), effect: effect.into(), time_added: Some(at), ..Taint::default() });
        }
    }
    (out != node.spec.taints).then_some(out)
}

/// Labels to change, as a merge patch.
pub fn labels(node: &Node) -> Option<Value> {
    let labels = &node.metadata.labels;
    let mut out = Map::new();
    for (from, to) in LABELS {
        if let Some(v) = labels.get(from)
            && labels.get(to) != Some(v)
        {
            out.insert(to.into(), json!(v));
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// The conditions of a node that fell silent.
pub fn unknown(conditions: Value, ever: bool, created: &Value, now: Timestamp) -> Value {
    let mut all = match conditions {
        Value::Array(all) => all,
        _ => Vec::new(),
    };
    let now = pintle_api::time::format(now);
    let (reason, message) = if ever {
        ("NodeStatusUnknown", "Kubelet stopped posting node status.")
    } else {
        ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
    };
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match all.iter_mut().find(|c| c["type"] == kind) {
            Some(c) if c["status"] == "Unknown" => {}
            Some(c) => {
                c["status"] = json!("Unknown");
                c["reason"] = json!(reason);
                c["message"] = json!(message);
                c["lastTransitionTime"] = json!(now);
            }
            None => all.push(json!({"type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastHeartbeatTime": created, "lastTransitionTime": now})),
        }
    }
    Value::Array(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Conditions `type=status`, taints `key:effect`.
    fn node(conditions: &[&str], taints: &[&str], unschedulable: bool) -> Node {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|c| c.split_once('=').unwrap())
            .map(|(t, s)| json!({"type": t, "status": s}))
            .collect();
        let taints: Vec<Value> = taints
            .iter()
            .map(|t| t.split_once(':').unwrap())
            .map(|(k, e)| json!({"key": format!("node.kubernetes.io/{k}"), "effect": e}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints, "unschedulable": unschedulable}, "status": {"conditions": conditions}})).unwrap()
    }

    #[test]
    fn taints_follow_conditions() {
        for (conditions, have, evict, want) in [
            (&["Ready=True"][..], &[][..], true, None),
            (&["Ready=False"], &[], true, Some(&["not-ready:NoSchedule", "not-ready:NoExecute"][..])),
            (&["Ready=False"], &[], false, Some(&["not-ready:NoSchedule"])),
            (
                &["Ready=Unknown"],
                &["not-ready:NoExecute", "not-ready:NoSchedule", "other:NoExecute"],
                false,
                Some(&["other:NoExecute", "unreachable:NoSchedule", "unreachable:NoExecute"]),
            ),
            (
                &["Ready=True"],
                &["unreachable:NoExecute", "unreachable:NoSchedule", "other:NoSchedule"],
                true,
                Some(&["other:NoSchedule"]),
            ),
            (&["Ready=True", "DiskPressure=True"], &[], true, Some(&["disk-pressure:NoSchedule"])),
            (&[], &["not-ready:NoSchedule"], true, None),
        ] {
            let got = taints(&node(conditions, have, false), evict, Timestamp::UNIX_EPOCH).map(|t| {
                t.iter()
                    .map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect))
                    .collect::<Vec<_>>()
            });
            assert_eq!(
                got.as_deref().map(|v| v.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
                want,
                "{conditions:?} {have:?}"
            );
        }
        assert_eq!(
            taints(&node(&["Ready=True"], &[], true), true, Timestamp::UNIX_EPOCH).unwrap()[0].key,
            UNSCHEDULABLE
        );
    }

    #[test]
    fn silence_is_unknown() {
        let before =
            json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "x"}, {"type": "Own", "status": "True"}]);
        let after = unknown(before, true, &json!("c"), Timestamp::UNIX_EPOCH);
        assert_eq!(
            after[0],
            json!({"type": "Ready", "status": "Unknown", "lastHeartbeatTime": "x", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.", "lastTransitionTime": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(after[1]["status"], "True");
        assert_eq!(after[2]["reason"], "NodeStatusNeverUpdated");
        assert_eq!(after.as_array().unwrap().len(), 5);
    }
}

//! Which nodes get a daemon pod, and which daemon pods go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod as TypedPod, PodSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::support::history::HASH_LABEL;
use crate::support::int_or_string::scaled;
use crate::support::node_affinity;
use crate::support::nodes::{Node, Taint, tolerates};
use crate::support::pods::{Pod, Toleration as Bears};

/// Says from which version of the template a pod is, beside the hash, which says from what text.
const GENERATION_LABEL: &str = "pod-template-generation";

/// What is decided on.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub set: &'a DaemonSet,
    /// Version of the template now.
    pub hash: &'a str,
    pub nodes: Vec<Arc<Node>>,
    pub pods: Vec<Arc<Pod>>,
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes to make a pod for.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that ended, and whether they failed: to be deleted and made anew.
    pub ended: Vec<(Arc<Pod>, bool)>,
}

/// Taints that every daemon pod bears: `key`, `effect`.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub fn owner_reference(set: &DaemonSet) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".into(),
        kind: "DaemonSet".into(),
        name: set.metadata.name.clone().unwrap_or_default(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network =
        spec.host_network.unwrap_or(false).then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in BORNE.into_iter().chain(network) {
        let new = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !all.contains(&new) {
            all.push(new);
        }
    }
    all
}

/// Which version of the template it is, as the API server counts them; nothing when somebody wrote no number there.
fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get("deprecated.daemonset.template.generation")?.parse().ok()
}

/// A pod for a node.
pub fn pod(set: &DaemonSet, hash: &str, node: &str) -> TypedPod {
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut spec = template.spec.unwrap_or_default();
    spec.tolerations = Some(tolerations(&spec));
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        }]),
        ..NodeSelectorTerm::default()
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    let meta = template.metadata.unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    if let Some(generation) = template_generation(set) {
        labels.insert(GENERATION_LABEL.into(), generation.to_string());
    }
    TypedPod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// Whether a pod should be made for a node, and whether one that is there may stay.
fn should_run(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let Some(spec) = set.spec.as_ref().and_then(|s| s.template.spec.as_ref()) else { return (false, false) };
    let fits = node_affinity::matches(spec, &node.metadata.name, &node.metadata.labels)
        && spec.node_name.as_ref().is_none_or(|n| n.is_empty() || *n == node.metadata.name);
    if !fits {
        return (false, false);
    }
    let bears: Vec<Bears> = tolerations(spec)
        .into_iter()
        .map(|t| Bears {
            key: t.key.unwrap_or_default(),
            operator: t.operator.unwrap_or_default(),
            value: t.value.unwrap_or_default(),
            effect: t.effect.unwrap_or_default(),
            toleration_seconds: t.toleration_seconds,
        })
        .collect();
    let borne = |t: &Taint| bears.iter().any(|b| tolerates(b, t));
    let blocked = |effects: &[&str]| node.spec.taints.iter().any(|t| effects.contains(&t.effect.as_str()) && !borne(t));
    (!blocked(&["NoSchedule", "NoExecute"]), !blocked(&["NoExecute"]))
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

/// Most pods that may be unavailable, and most that may be too many, in a rolling update.
fn bounds(set: &DaemonSet, desired: usize) -> (usize, usize) {
    let rolling = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|u| u.rolling_update.as_ref());
    let desired = i32::try_from(desired).unwrap_or(i32::MAX);
    let of = |v: Option<&_>| usize::try_from(v.map_or(0, |v| scaled(v, desired, true))).unwrap_or(0);
    let (unavailable, surge) =
        (of(rolling.and_then(|r| r.max_unavailable.as_ref())), of(rolling.and_then(|r| r.max_surge.as_ref())));
    if unavailable == 0 && surge == 0 { (1, 0) } else { (unavailable, surge) }
}

fn is_rolling(set: &DaemonSet) -> bool {
    let kind = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|u| u.type_.as_deref());
    kind.is_none_or(|t| t == "RollingUpdate")
}

/// Whether a pod is of the newest template: its text tells, or its number.
fn is_new(pod: &Pod, s: &Snapshot<'_>) -> bool {
    let label = |name: &str| pod.metadata.labels.get(name).unwrap_or_default();
    let by_number = || template_generation(s.set).is_some_and(|n| label(GENERATION_LABEL) == n.to_string());
    (!s.hash.is_empty() && label(HASH_LABEL) == s.hash) || by_number()
}

fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<Arc<Pod>>> {
    let mut out: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    for p in pods {
        out.entry(p.target_node()).or_default().push(p.clone());
    }
    for list in out.values_mut() {
        // Bound before unbound, then older before newer.
        list.sort_by(|a, b| {
            let rank = |p: &Pod| (p.spec.node_name.is_empty(), p.metadata.creation_timestamp, p.metadata.name.clone());
            rank(a).cmp(&rank(b))
        });
    }
    out
}

pub fn decide(s: &Snapshot<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let on = by_node(&s.pods);
    let runs: Vec<(&Arc<Node>, bool, bool)> =
        s.nodes.iter().map(|n| (n, should_run(s.set, n))).map(|(n, (a, b))| (n, a, b)).collect();
    let desired = runs.iter().filter(|(_, run, _)| *run).count();
    let rolling = is_rolling(s.set);
    let (max_unavailable, surge) = bounds(s.set, desired);
    let surge = if rolling { surge } else { 0 };
    for (node, run, stay) in &runs {
        let pods = on.get(node.metadata.name.as_str()).map_or(&[][..], Vec::as_slice);
        if *run && pods.is_empty() {
            plan.create.push(node.metadata.name.clone());
        } else if *stay {
            manage(s, pods, surge > 0, now, &mut plan);
        } else {
            plan.delete.extend(pods.iter().filter(|p| !p.is_deleting()).cloned());
        }
    }
    // Pods for nodes that are no more are the pod garbage collector's, unless they were never bound.
    let known = |p: &Pod| s.nodes.iter().any(|n| n.metadata.name == p.target_node());
    plan.delete.extend(s.pods.iter().filter(|p| p.spec.node_name.is_empty() && !p.is_deleting() && !known(p)).cloned());
    if rolling && plan.create.is_empty() && plan.delete.is_empty() && plan.ended.is_empty() {
        let nodes: Vec<&Arc<Node>> = runs.iter().filter(|(_, run, _)| *run).map(|(n, ..)| *n).collect();
        roll(s, &on, &nodes, (max_unavailable, surge), now, &mut plan);
    }
    plan
}

/// Pods of one node: those that ended go, and so do all but one; with surge all but one of each version.
fn manage(s: &Snapshot<'_>, pods: &[Arc<Pod>], surge: bool, now: Timestamp, plan: &mut Plan) {
    let mut running = Vec::new();
    for p in pods.iter().filter(|p| !p.is_deleting()) {
        match p.status.phase.as_str() {
            "Failed" => plan.ended.push((p.clone(), true)),
            "Succeeded" => plan.ended.push((p.clone(), false)),
            _ => running.push(p.clone()),
        }
    }
    if running.len() <= 1 {
        return;
    }
    if !surge {
        plan.delete.extend(running.into_iter().skip(1));
        return;
    }
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| is_new(p, s));
    let replaced = new.first().is_some_and(|p| p.is_available(min_ready(s.set), now));
    plan.delete.extend(new.into_iter().skip(1));
    plan.delete.extend(old.into_iter().skip(usize::from(!replaced)));
}

fn roll(
    s: &Snapshot<'_>,
    on: &BTreeMap<&str, Vec<Arc<Pod>>>,
    nodes: &[&Arc<Node>],
    (max_unavailable, surge): (usize, usize),
    now: Timestamp,
    plan: &mut Plan,
) {
    let available = |p: &Pod| p.is_available(min_ready(s.set), now);
    let (mut unavailable, mut surging) = (0, 0);
    let (mut at_once, mut candidates) = (Vec::new(), Vec::new());
    for node in nodes {
        let pods = on.get(node.metadata.name.as_str()).map_or(&[][..], Vec::as_slice);
        let new = pods.iter().find(|p| is_new(p, s));
        let old = pods.iter().find(|p| !is_new(p, s));
        match (new, old) {
            (None, None) => unavailable += 1,
            (Some(_), Some(old)) if surge == 0 => {
                let _ = old;
                unavailable += 1;
            }
            (Some(new), Some(old)) => {
                surging += 1;
                if available(new) && !old.is_deleting() {
                    plan.delete.push(old.clone());
                }
            }
            (Some(new), None) => unavailable += usize::from(!available(new)),
            (None, Some(old)) if old.is_deleting() => unavailable += 1,
            (None, Some(old)) if available(old) => candidates.push((node.metadata.name.clone(), old.clone())),
            (None, Some(old)) => {
                unavailable += 1;
                at_once.push((node.metadata.name.clone(), old.clone()));
            }
        }
    }
    if surge == 0 {
        let room = max_unavailable.saturating_sub(unavailable);
        plan.delete.extend(at_once.into_iter().chain(candidates.into_iter().take(room)).map(|(_, p)| p));
    } else {
        let room = surge.saturating_sub(surging);
        plan.create.extend(at_once.into_iter().chain(candidates.into_iter().take(room)).map(|(n, _)| n));
    }
}

pub fn status(s: &Snapshot<'_>, now: Timestamp) -> DaemonSetStatus {
    let on = by_node(&s.pods);
    let mut out = DaemonSetStatus {
        collision_count: s.set.status.as_ref().and_then(|s| s.collision_count),
        conditions: s.set.status.as_ref().and_then(|s| s.conditions.clone()),
        observed_generation: s.set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in &s.nodes {
        let pods = on.get(node.metadata.name.as_str()).map_or(&[][..], Vec::as_slice);
        let (run, _) = should_run(s.set, node);
        if !run {
            out.number_misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        out.desired_number_scheduled += 1;
        // With surge there may be two: the newest counts as the version, any that is ready as ready.
        let Some(first) = pods.first() else { continue };
        out.current_number_scheduled += 1;
        let ready = pods.iter().find(|p| p.is_ready() && !p.is_deleting());
        out.number_ready += i32::from(ready.is_some());
        available += i32::from(pods.iter().any(|p| !p.is_deleting() && p.is_available(min_ready(s.set), now)));
        updated += i32::from(is_new(pods.last().unwrap_or(first), s));
    }
    let nonzero = |n: i32| (n > 0).then_some(n);
    out.updated_number_scheduled = nonzero(updated);
    out.number_available = nonzero(available);
    out.number_unavailable = nonzero(out.desired_number_scheduled - available);
    out
}

/// When the next pod becomes available by time alone.
pub fn next_available(s: &Snapshot<'_>, now: Timestamp) -> Option<Duration> {
    let waits = s.pods.iter().filter_map(|p| p.available_in(min_ready(s.set), now));
    waits.filter(|d| !d.is_zero()).min().map(|d| d + Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(strategy: Value) -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 2}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], "nodeSelector": {"os": "linux"}}}}}))
        .unwrap()
    }

    /// `name[!taint:effect]`.
    fn node(line: &str) -> Arc<Node> {
        let (name, taint) = line.split_once('!').unwrap_or((line, ""));
        let taints: Vec<Value> =
            taint.split_once(':').map(|(k, e)| json!({"key": k, "effect": e})).into_iter().collect();
        let os = if name.starts_with('w') { "windows" } else { "linux" };
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": name, "labels": {"os": os}}, "spec": {"taints": taints}}),
            )
            .unwrap(),
        )
    }

    /// `name node version state`, state one of r(eady), u(nready), f(ailed), s(ucceeded), d(eleting).
    fn pod_of(line: &str) -> Arc<Pod> {
        let f: Vec<&str> = line.split(' ').collect();
        let phase = match f[3] {
            "f" => "Failed",
            "s" => "Succeeded",
            _ => "Running",
        };
        let ready = if f[3] == "r" { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": f[0], "labels": {"controller-revision-hash": f[2]}, "deletionTimestamp": (f[3] == "d").then_some("2024-01-01T00:00:00Z")},
                "spec": {"nodeName": f[1]}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2024-01-01T00:00:00Z"}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn pods_tell_their_template() {
        for (generation, want) in [
            (json!({"deprecated.daemonset.template.generation": "7"}), Some("7")),
            (json!({}), None),
            (json!({"deprecated.daemonset.template.generation": "seven"}), None),
        ] {
            let mut set = set(json!({}));
            set.metadata.annotations = serde_json::from_value(generation).unwrap();
            let labels = pod(&set, "abc", "n1").metadata.labels.unwrap();
            assert_eq!(labels[HASH_LABEL], "abc");
            assert_eq!(labels.get(GENERATION_LABEL).map(String::as_str), want);
        }
    }

    fn run(strategy: Value, nodes: &[&str], pods: &[&str]) -> (Vec<String>, Vec<String>, DaemonSetStatus) {
        let set = set(strategy);
        let s = Snapshot {
            set: &set,
            hash: "v2",
            nodes: nodes.iter().map(|n| node(n)).collect(),
            pods: pods.iter().map(|p| pod_of(p)).collect(),
        };
        let now = "2024-01-01T00:10:00Z".parse().unwrap();
        let p = decide(&s, now);
        let gone = p
            .delete
            .iter()
            .map(|p| p.metadata.name.clone())
            .chain(p.ended.iter().map(|(p, _)| format!("{}!", p.metadata.name)))
            .collect();
        (p.create, gone, status(&s, now))
    }

    #[test]
    fn a_pod_on_every_node_that_fits() {
        let one = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
        let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
        for (strategy, nodes, pods, create, delete) in [
            (&one, &["a", "b", "w"][..], &[][..], &["a", "b"][..], &[][..]),
            (&one, &["a!x:NoSchedule", "b!node.kubernetes.io/unschedulable:NoSchedule"], &[], &["b"], &[]),
            // One that is there stays under a taint that only keeps new ones off.
            (&one, &["a!x:NoSchedule"], &["p a v2 r"], &[], &[]),
            (&one, &["a!x:NoExecute"], &["p a v2 r"], &[], &["p"]),
            (&one, &["w"], &["p w v2 r"], &[], &["p"]),
            (&one, &["a"], &["p a v2 r", "q a v2 r"], &[], &["q"]),
            (&one, &["a", "b"], &["p a v2 f", "q b v2 s"], &[], &["p!", "q!"]),
            // Rolling: one at a time, those that are not available anyhow at once.
            (&one, &["a", "b"], &["p a v1 r", "q b v1 r"], &[], &["p"]),
            (&one, &["a", "b"], &["p a v2 u", "q b v1 r"], &[], &[]),
            (&one, &["a", "b"], &["p a v2 r", "q b v1 r"], &[], &["q"]),
            (&one, &["a", "b"], &["p a v1 u", "q b v1 r"], &[], &["p"]),
            (&one, &["a", "b"], &["p a v1 d", "q b v1 r"], &[], &[]),
            (&json!({"type": "OnDelete"}), &["a"], &["p a v1 r"], &[], &[]),
            // Surge: the new one first, the old one once the new one is available.
            (&surge, &["a", "b"], &["p a v1 r", "q b v1 r"], &["a"], &[]),
            (&surge, &["a", "b"], &["p a v1 r", "p2 a v2 u", "q b v1 r"], &[], &[]),
            (&surge, &["a", "b"], &["p a v1 r", "p2 a v2 r", "q b v1 r"], &[], &["p"]),
        ] {
            let (c, d, _) = run(strategy.clone(), nodes, pods);
            assert_eq!(
                (c.iter().map(String::as_str).collect::<Vec<_>>(), d.iter().map(String::as_str).collect::<Vec<_>>()),
                (create.to_vec(), delete.to_vec()),
                "{strategy} {nodes:?} {pods:?}"
            );
        }
    }

    #[test]
    fn counts() {
        let (_, _, s) = run(json!({"type": "OnDelete"}), &["a", "b", "c", "w"], &["p a v1 r", "q b v2 u", "x w v1 r"]);
        assert_eq!(
            (s.desired_number_scheduled, s.current_number_scheduled, s.number_misscheduled, s.number_ready),
            (3, 2, 1, 1)
        );
        assert_eq!((s.updated_number_scheduled, s.number_available, s.number_unavailable), (Some(1), Some(1), Some(2)));
    }

    #[test]
    fn a_pod_is_new_by_its_text_or_its_number() {
        let mut set = set(json!({}));
        set.metadata.annotations =
            serde_json::from_value(json!({"deprecated.daemonset.template.generation": "7"})).unwrap();
        let s = Snapshot { set: &set, hash: "v2", nodes: Vec::new(), pods: Vec::new() };
        for (labels, new) in [
            (json!({HASH_LABEL: "v2"}), true),
            (json!({HASH_LABEL: "v1"}), false),
            (json!({HASH_LABEL: "v1", GENERATION_LABEL: "7"}), true),
            (json!({HASH_LABEL: "v1", GENERATION_LABEL: "6"}), false),
            (json!({}), false),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap();
            assert_eq!(is_new(&pod, &s), new, "{labels}");
        }
    }

    #[test]
    fn a_pod_is_for_one_node() {
        let p = pod(&set(json!({})), "v2", "a");
        let narrow: Pod = serde_json::from_value(serde_json::to_value(&p).unwrap()).unwrap();
        assert_eq!(narrow.target_node(), "a");
        assert_eq!(p.spec.unwrap().tolerations.unwrap().len(), 6);
        assert_eq!(p.metadata.labels.unwrap()[HASH_LABEL], "v2");
    }
}

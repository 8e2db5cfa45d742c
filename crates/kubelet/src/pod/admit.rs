//! Whether the node takes a pod that was bound to it. The scheduler has looked before, but the node may have changed
//! since, and pods may be bound by hand.

use super::spec::{self, PodRef};
use k8s_openapi::api::core::v1::{Container, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pintle_api::quantity::Quantity as Amount;
use pintle_api::selector::{Op, Requirement, Selector};
use std::collections::{BTreeMap, BTreeSet};

/// What admission looks at of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it has for pods.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Taints as (key, value, effect).
    pub taints: Vec<(String, String, String)>,
}

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`.
    pub reason: String,
    /// The rest, for the Event; the status puts `Pod was rejected: ` in front.
    pub message: String,
}

fn failed(predicate: &str, why: &str) -> Rejection {
    let message = if why.is_empty() {
        format!("Predicate {predicate} failed")
    } else {
        format!("Predicate {predicate} failed: {why}")
    };
    Rejection { reason: predicate.into(), message }
}

/// Whether the node takes `pod` next to `others`, the pods it has taken that are not over.
///
/// # Errors
/// Why not.
pub fn admit(pod: &Pod, others: &[&Pod], node: &NodeView) -> Result<(), Rejection> {
    let s = spec::spec(pod);
    if let Some(os) = s.os.as_ref().filter(|os| os.name != "linux") {
        return Err(Rejection {
            reason: "PodOSNotSupported".into(),
            message: format!("Failed to admit pod as the OS field doesn't match node OS: {}", os.name),
        });
    }
    if node
        .labels
        .get("kubernetes.io/os")
        .zip(s.node_selector.as_ref().and_then(|n| n.get("kubernetes.io/os")))
        .is_some_and(|(have, want)| have != want)
    {
        return Err(Rejection {
            reason: "PodOSSelectorNodeLabelDoesNotMatch".into(),
            message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label".into(),
        });
    }
    admit_resources(pod, others, node)?;
    if !matches_node(pod, node) {
        return Err(failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    if s.node_name.as_deref().is_some_and(|n| !n.is_empty() && n != node.name) {
        return Err(failed("NodeName", "node(s) didn't match the requested node name"));
    }
    let taken: BTreeSet<_> = others.iter().flat_map(|p| host_ports(p)).collect();
    if host_ports(pod).iter().any(|wanted| taken.iter().any(|t| ports_clash(wanted, t))) {
        return Err(failed("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    if !spec::is_static(pod) && !tolerates(pod, node) {
        return Err(failed("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    Ok(())
}

/// Whether the node has what the pod requests beside `others`.
///
/// # Errors
/// What it lacks.
pub fn admit_resources(pod: &Pod, others: &[&Pod], node: &NodeView) -> Result<(), Rejection> {
    let get = |name: &str| node.allocatable.get(name).and_then(|q| Amount::parse(&q.0).ok());
    let lacks = |name: &str, requested: i64, used: i64, capacity: i64| Rejection {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    if let Some(pods) = get("pods") {
        let used = i64::try_from(others.len()).unwrap_or(i64::MAX);
        if used + 1 > pods.value() {
            return Err(lacks("pods", 1, used, pods.value()));
        }
    }
    for name in requested_resources(pod) {
        // What the node does not offer at all is someone else's to check.
        let Some(capacity) = get(&name) else { continue };
        let number = |a: Amount| if name == "cpu" { a.milli_value() } else { a.value() };
        let want = spec::pod_total(pod, &name, false).map_or(0, number);
        if want == 0 {
            continue;
        }
        let used = others.iter().filter_map(|p| spec::pod_total(p, &name, false)).map(number).sum::<i64>();
        let capacity = number(capacity);
        if want > capacity - used {
            return Err(lacks(&name, want, used, capacity));
        }
    }
    Ok(())
}

/// The names of all resources the pod asks for: CPU, memory and ephemeral storage first.
fn requested_resources(pod: &Pod) -> Vec<String> {
    let mut names: Vec<String> = ["cpu", "memory", "ephemeral-storage"].map(String::from).to_vec();
    let all = spec::init_containers(pod).iter().chain(&spec::spec(pod).containers);
    let maps = all.filter_map(|c: &Container| c.resources.as_ref()).flat_map(|r| [&r.requests, &r.limits]);
    for name in maps.flatten().flat_map(BTreeMap::keys) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// (address, protocol, port) on the host.
type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    spec::spec(pod)
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let port = p.host_port.filter(|n| *n > 0)?;
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some((ip, p.protocol.clone().unwrap_or_else(|| "TCP".into()), port))
        })
        .collect()
}

fn ports_clash(a: &HostPort, b: &HostPort) -> bool {
    let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(&a.0) || any(&b.0))
}

fn requirement(r: &NodeSelectorRequirement) -> Option<Requirement> {
    let op = match r.operator.as_str() {
        "In" => Op::In,
        "NotIn" => Op::NotIn,
        "Exists" => Op::Exists,
        "DoesNotExist" => Op::DoesNotExist,
        "Gt" => Op::Gt,
        "Lt" => Op::Lt,
        _ => return None,
    };
    Requirement::new(&r.key, op, r.values.clone().unwrap_or_default()).ok()
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        // An empty term matches nothing.
        return false;
    }
    let all =
        |list: &[NodeSelectorRequirement]| list.iter().map(requirement).collect::<Option<Vec<_>>>().map(Selector::new);
    let (Some(labels), Some(fields)) = (all(labels), all(fields)) else { return false };
    labels.matches_map(Some(&node.labels)) && fields.matches(|k| (k == "metadata.name").then_some(node.name.as_str()))
}

fn matches_node(pod: &Pod, node: &NodeView) -> bool {
    let s = spec::spec(pod);
    if s.node_selector.iter().flatten().any(|(k, v)| node.labels.get(k) != Some(v)) {
        return false;
    }
    let required = s
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

/// Only taints that evict count: the others are about scheduling, which is over.
fn tolerates(pod: &Pod, node: &NodeView) -> bool {
    let tolerations = spec::spec(pod).tolerations.as_deref().unwrap_or_default();
    node.taints.iter().filter(|t| t.2 == "NoExecute").all(|(key, value, effect)| {
        tolerations.iter().any(|t| {
            t.effect.as_ref().is_none_or(|e| e.is_empty() || e == effect)
                && t.key.as_ref().is_none_or(|k| k.is_empty() || k == key)
                && match t.operator.as_deref() {
                    Some("Exists") => true,
                    None | Some("" | "Equal") => t.value.as_deref().unwrap_or_default() == value,
                    _ => false,
                }
        })
    })
}

/// Which of `others` to evict so that a critical `pod` fits: those of the lowest priority first, and of these the ones
/// that free the most. `None` when no choice helps.
#[must_use]
pub fn make_room<'a>(pod: &Pod, others: &[&'a Pod], node: &NodeView) -> Option<Vec<&'a Pod>> {
    let priority = |p: &Pod| spec::spec(p).priority.unwrap_or(0);
    let mut candidates: Vec<&Pod> =
        others.iter().copied().filter(|p| !spec::is_critical(p) && priority(p) < priority(pod).max(1)).collect();
    candidates.sort_by_key(|p| {
        (priority(p), std::cmp::Reverse(spec::pod_total(p, "memory", false).map_or(0, |a| a.value())))
    });
    let mut victims: Vec<&'a Pod> = vec![];
    for c in candidates {
        if admit_resources(pod, &without(others, &victims), node).is_ok() {
            break;
        }
        if let Some(found) = others.iter().find(|o| std::ptr::eq(**o, c)) {
            victims.push(found);
        }
    }
    // Give back those that turned out not to be needed, the most important first.
    let mut i = victims.len();
    while i > 0 {
        i -= 1;
        let kept = victims.remove(i);
        if admit_resources(pod, &without(others, &victims), node).is_err() {
            victims.insert(i, kept);
        }
    }
    admit_resources(pod, &without(others, &victims), node).is_ok().then_some(victims)
}

fn without<'a>(others: &[&'a Pod], victims: &[&Pod]) -> Vec<&'a Pod> {
    let gone: BTreeSet<PodRef> = victims.iter().map(|p| PodRef::of(p)).collect();
    others.iter().copied().filter(|p| !gone.contains(&PodRef::of(p))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn node() -> NodeView {
        let q = |s: &str| Quantity(s.into());
        NodeView {
            name: "n1".into(),
            labels: [("disk".into(), "ssd".into()), ("kubernetes.io/os".into(), "linux".into())].into(),
            allocatable: [("cpu".into(), q("2")), ("memory".into(), q("1Gi")), ("pods".into(), q("2"))].into(),
            taints: vec![
                ("k".into(), "v".into(), "NoExecute".into()),
                ("s".into(), String::new(), "NoSchedule".into()),
            ],
        }
    }

    #[test]
    fn admission() {
        let tolerant = "tolerations: [{key: k, value: v}]";
        let one = pod(
            "{metadata: {uid: other}, spec: {containers: [{name: a, ports: [{hostPort: 80}], resources: {requests: {cpu: 1500m}}}]}}",
        );
        let check = |spec: &str, others: &[&Pod], want: &str| {
            let p = pod(&format!("spec: {{{spec}}}"));
            let got =
                admit(&p, others, &node()).map_or_else(|r| format!("{}: {}", r.reason, r.message), |()| "ok".into());
            assert_eq!(got, want, "{spec}");
        };
        check(&format!("{tolerant}, containers: [{{name: a}}]"), &[], "ok");
        check(
            "containers: [{name: a}]",
            &[],
            "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        );
        let cpu = format!("{tolerant}, containers: [{{name: a, resources: {{requests: {{cpu: '1'}}}}}}]");
        check(&cpu, &[], "ok");
        check(
            &cpu,
            &[&one],
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000",
        );
        check(
            &cpu,
            &[&one, &one],
            "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2",
        );
        check(
            &format!("{tolerant}, containers: [{{name: a, ports: [{{hostPort: 80, hostIP: 1.2.3.4}}]}}]"),
            &[&one],
            "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        );
        let affinity = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(&format!("{tolerant}, nodeSelector: {{disk: hdd}}, containers: [{{name: a}}]"), &[], affinity);
        let required = |e: &str| {
            format!(
                "{tolerant}, containers: [{{name: a}}], affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{e}]}}}}}}"
            )
        };
        check(&required("{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}"), &[], "ok");
        check(&required("{matchExpressions: [{key: disk, operator: NotIn, values: [ssd]}]}"), &[], affinity);
        check(&required("{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}"), &[], "ok");
        check(&required("{}"), &[], affinity);
    }

    #[test]
    fn room_for_critical_pods() {
        let with = |uid: &str, priority: i32, cpu: &str| {
            pod(&format!(
                "{{metadata: {{uid: {uid}, name: {uid}}}, spec: {{priority: {priority}, containers: [{{name: a, resources: {{requests: {{cpu: {cpu}}}}}}}]}}}}"
            ))
        };
        let (low, mid, new) = (with("low", 1, "500m"), with("mid", 5, "1500m"), with("new", 2_000_001_000, "400m"));
        let mut node = node();
        node.allocatable.insert("pods".into(), Quantity("10".into()));
        let names = |v: Option<Vec<&Pod>>| v.map(|v| v.iter().map(|p| PodRef::of(p).name).collect::<Vec<_>>());
        assert_eq!(names(make_room(&new, &[&low, &mid], &node)), Some(vec!["low".into()]));
        let big = with("new", 2_000_001_000, "1200m");
        assert_eq!(names(make_room(&big, &[&low, &mid], &node)), Some(vec!["mid".into()]));
        assert_eq!(names(make_room(&with("new", 2_000_001_000, "3"), &[&low, &mid], &node)), None);
    }
}

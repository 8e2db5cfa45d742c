//! `NodeAffinity`: node selector, required and preferred node affinity.

use crate::cache::{Cache, NodeId};
use crate::framework::{ClusterEvent, Plugin, PreFilter, Rejection, State, default_normalize};
use crate::model::wire::{self, Expression, NodeSelector, NodeSelectorTerm};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
#[derive(Default)]
pub struct NodeAffinity {
    /// What is asked of nodes besides, for every pod of the profile.
    pub added: Option<wire::NodeAffinity>,
}

fn expression(e: &Expression, value: Option<&str>) -> bool {
    let listed = |v: &str| e.values.iter().any(|x| x == v);
    let number = |s: &str| s.parse::<i64>().ok();
    let limit = || e.values.first().and_then(|v| number(v));
    match e.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => matches!((value.and_then(number), limit()), (Some(have), Some(l)) if have > l),
        "Lt" => matches!((value.and_then(number), limit()), (Some(have), Some(l)) if have < l),
        _ => false,
    }
}

/// Whether a node meets a term. A term without conditions meets nothing, as upstream.
pub(crate) fn term(t: &NodeSelectorTerm, node: &Node) -> bool {
    !(t.match_expressions.is_empty() && t.match_fields.is_empty())
        && t.match_expressions.iter().all(|e| expression(e, node.labels.get(&e.key).map(String::as_str)))
        && t.match_fields.iter().all(|e| e.key == "metadata.name" && expression(e, Some(&node.name)))
}

/// Whether a node meets one of the terms.
pub(crate) fn selector(s: &NodeSelector, node: &Node) -> bool {
    s.node_selector_terms.iter().any(|t| term(t, node))
}

fn required(pod: &Pod) -> Option<&NodeSelector> {
    pod.node_affinity.as_ref().and_then(|a| a.required.as_ref())
}

/// Whether a node has what a pod's node selector and required node affinity ask for.
#[must_use]
pub fn matches(pod: &Pod, node: &Node) -> bool {
    pod.node_selector.iter().all(|(k, v)| node.labels.get(k).is_some_and(|has| has == v))
        && required(pod).is_none_or(|s| selector(s, node))
}

/// Whether a pod asks for nothing of its node.
pub(crate) fn is_free(pod: &Pod) -> bool {
    pod.node_selector.is_empty() && required(pod).is_none()
}

/// The node names that required affinity comes down to, when every term asks for one by name (as DaemonSets do).
fn named(pod: &Pod) -> Option<Vec<String>> {
    let terms = &required(pod)?.node_selector_terms;
    let mut out = Vec::new();
    for t in terms {
        let by_name =
            t.match_fields.iter().find(|f| f.key == "metadata.name" && f.operator == "In" && f.values.len() == 1)?;
        out.push(by_name.values[0].clone());
    }
    (!out.is_empty()).then_some(out)
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_filter(&self, pod: &Pod, _: &mut Cache) -> Result<PreFilter, Rejection> {
        let skip = is_free(pod) && self.added.as_ref().is_none_or(|a| a.required.is_none());
        Ok(PreFilter { skip, nodes: named(pod), state: None })
    }

    fn filters_locally(&self) -> bool {
        true
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        let added = self.added.as_ref().and_then(|a| a.required.as_ref());
        if added.is_some_and(|s| !selector(s, node)) {
            return Err(Rejection::unresolvable("node(s) didn't match scheduler-enforced node affinity"));
        }
        if matches(pod, node) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn scores(&self) -> bool {
        true
    }

    fn pre_score(&self, pod: &Pod, _: &[NodeId], _: &mut Cache) -> Option<State> {
        let mut all = pod.node_affinity.iter().chain(&self.added);
        all.any(|a| !a.preferred.is_empty()).then_some(None)
    }

    fn score(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> i64 {
        let preferred = pod.node_affinity.iter().chain(&self.added).flat_map(|a| &a.preferred);
        preferred.filter(|p| p.weight != 0 && term(&p.preference, node)).map(|p| i64::from(p.weight)).sum()
    }

    fn normalize(&self, _: &State, scores: &mut [i64]) {
        default_normalize(scores, false);
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(n) => matches(pod, n),
            ClusterEvent::NodeUpdated(old, new) => !matches(pod, old) && matches(pod, new),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{filter, scores};
    use serde_json::{Value, json};

    fn node(name: &str, labels: &Value) -> Value {
        json!({"metadata": {"name": name, "labels": labels}})
    }

    fn required(terms: &Value) -> Value {
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}})
    }

    #[test]
    fn filters() {
        let n = node("n", &json!({"disk": "ssd", "cores": "8"}));
        let check = |pod: &Value, ok: bool| {
            let got = filter(&NodeAffinity::default(), pod, &n, &[]);
            assert_eq!(got.is_empty(), ok, "{pod}: {got:?}");
        };
        check(&json!({}), true);
        check(&json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), true);
        check(&json!({"spec": {"nodeSelector": {"disk": "hdd"}}}), false);
        for (op, key, values, ok) in [
            ("In", "disk", json!(["hdd", "ssd"]), true),
            ("NotIn", "disk", json!(["ssd"]), false),
            ("NotIn", "other", json!(["ssd"]), true),
            ("Exists", "disk", json!([]), true),
            ("DoesNotExist", "disk", json!([]), false),
            ("Gt", "cores", json!(["7"]), true),
            ("Lt", "cores", json!(["8"]), false),
            ("Gt", "disk", json!(["1"]), false),
        ] {
            check(&required(&json!([{"matchExpressions": [{"key": key, "operator": op, "values": values}]}])), ok);
        }
        check(&required(&json!([{}])), false);
        check(&required(&json!([{}, {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}])), true);
        check(
            &required(&json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}])),
            true,
        );
        check(
            &required(&json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}])),
            false,
        );
    }

    #[test]
    fn what_the_profile_adds() {
        let added = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "good", "operator": "Exists"}]}}]});
        let plugin = NodeAffinity { added: Some(serde_json::from_value(added).unwrap()) };
        let refused = "node(s) didn't match scheduler-enforced node affinity";
        assert_eq!(filter(&plugin, &json!({}), &node("n", &json!({})), &[]), [refused]);
        assert!(filter(&plugin, &json!({}), &node("n", &json!({"pool": "p"})), &[]).is_empty());
        let nodes = [json!({"good": ""}), json!({})].map(|l| (node("n", &l), vec![]));
        assert_eq!(scores(&plugin, &json!({}), &nodes), [100, 0]);
    }

    #[test]
    fn prefers() {
        let pod = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 4, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
            {"weight": 1, "preference": {"matchExpressions": [{"key": "b", "operator": "Exists"}]}}]}}}});
        let nodes = [json!({"a": "", "b": ""}), json!({"a": ""}), json!({})].map(|l| (node("n", &l), vec![]));
        assert_eq!(scores(&NodeAffinity::default(), &pod, &nodes), [100, 80, 0]);
    }
}

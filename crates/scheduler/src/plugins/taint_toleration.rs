//! `TaintToleration`: taints keep pods away; `PreferNoSchedule` ones only lower the score.

use crate::cache::{Cache, NodeId};
use crate::framework::{ClusterEvent, Plugin, Rejection, State, default_normalize};
use crate::model::wire::{Taint, Toleration};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct TaintToleration;

/// Whether a toleration bears a taint, by upstream's rules: an empty effect means any, an empty key with `Exists` means
/// any.
#[must_use]
pub fn tolerates(t: &Toleration, taint: &Taint) -> bool {
    if !t.effect.is_empty() && t.effect != taint.effect {
        return false;
    }
    if !t.key.is_empty() && t.key != taint.key {
        return false;
    }
    let number = |s: &str| s.parse::<i64>().ok();
    match t.operator.as_str() {
        "" | "Equal" => t.value == taint.value && !t.key.is_empty(),
        "Exists" => true,
        "Lt" => matches!((number(&taint.value), number(&t.value)), (Some(have), Some(limit)) if have < limit),
        "Gt" => matches!((number(&taint.value), number(&t.value)), (Some(have), Some(limit)) if have > limit),
        _ => false,
    }
}

fn untolerated<'a>(pod: &'a Pod, node: &'a Node, effects: &'a [&str]) -> impl Iterator<Item = &'a Taint> {
    node.taints
        .iter()
        .filter(move |t| effects.contains(&t.effect.as_str()) && !pod.tolerations.iter().any(|x| tolerates(x, t)))
}

/// Whether a pod bears all the taints of a node that would keep it away.
pub(crate) fn bears_all(pod: &Pod, node: &Node) -> bool {
    untolerated(pod, node, HARD).next().is_none()
}

const HARD: &[&str] = &["NoSchedule", "NoExecute"];

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filters_locally(&self) -> bool {
        true
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        if node.taints.is_empty() {
            return Ok(());
        }
        match untolerated(pod, node, HARD).next() {
            Some(_) => Err(Rejection::unresolvable("node(s) had untolerated taint(s)")),
            None => Ok(()),
        }
    }

    fn scores(&self) -> bool {
        true
    }

    fn pre_score(&self, _pod: &Pod, _: &[NodeId], cache: &mut Cache) -> Option<State> {
        cache.has_soft_taints().then_some(None)
    }

    fn score(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> i64 {
        untolerated(pod, node, &["PreferNoSchedule"]).map(|_| 1).sum()
    }

    fn normalize(&self, _: &State, scores: &mut [i64]) {
        default_normalize(scores, true);
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        let refuses = |n: &Node| untolerated(pod, n, HARD).next().is_some();
        match event {
            ClusterEvent::NodeAdded(n) => !refuses(n),
            ClusterEvent::NodeUpdated(old, new) => refuses(old) && !refuses(new),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{filter, scores};
    use serde_json::{Value, json};

    fn node(taints: &Value) -> Value {
        json!({"metadata": {"name": "n"}, "spec": {"taints": taints}})
    }

    #[test]
    fn filters() {
        let check = |tolerations: Value, taint: Value, want: &[&str]| {
            let pod = json!({"spec": {"tolerations": tolerations}});
            assert_eq!(filter(&TaintToleration, &pod, &node(&json!([taint])), &[]), want, "{tolerations} {taint}");
        };
        let taint = || json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        let no = &["node(s) had untolerated taint(s)"][..];
        check(json!([]), taint(), no);
        check(json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]), taint(), &[]);
        check(json!([{"key": "k", "value": "v"}]), taint(), &[]);
        check(json!([{"key": "k", "operator": "Exists"}]), taint(), &[]);
        check(json!([{"operator": "Exists"}]), taint(), &[]);
        check(json!([{"key": "k", "value": "other"}]), taint(), no);
        check(json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}]), taint(), no);
        check(json!([]), json!({"key": "k", "effect": "PreferNoSchedule"}), &[]);
        check(json!([]), json!({"key": "k", "effect": "NoExecute"}), &["node(s) had untolerated taint(s)"]);
        check(
            json!([{"key": "k", "operator": "Gt", "value": "5"}]),
            json!({"key": "k", "value": "6", "effect": "NoSchedule"}),
            &[],
        );
    }

    #[test]
    fn prefers_fewer_taints() {
        let soft = |n: usize| {
            node(&json!(
                (0..n).map(|i| json!({"key": format!("k{i}"), "effect": "PreferNoSchedule"})).collect::<Vec<_>>()
            ))
        };
        assert_eq!(
            scores(&TaintToleration, &json!({}), &[(soft(0), vec![]), (soft(1), vec![]), (soft(2), vec![])]),
            [100, 50, 0]
        );
        assert!(scores(&TaintToleration, &json!({}), &[(soft(0), vec![])]).is_empty());
    }
}

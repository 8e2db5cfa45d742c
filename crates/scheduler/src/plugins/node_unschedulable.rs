//! `NodeUnschedulable`: cordoned nodes take only pods that tolerate it.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Plugin, Rejection, State};
use crate::model::wire::Taint;
use crate::model::{Node, NodeInfo, Pod};
use crate::plugins::taint_toleration::tolerates;

/// The plugin.
pub struct NodeUnschedulable;

fn refuses(pod: &Pod, node: &Node) -> bool {
    if !node.unschedulable {
        return false;
    }
    let taint =
        Taint { key: "node.kubernetes.io/unschedulable".into(), value: String::new(), effect: "NoSchedule".into() };
    !pod.tolerations.iter().any(|t| tolerates(t, &taint))
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filters_locally(&self) -> bool {
        true
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        if refuses(pod, node) {
            return Err(Rejection::unresolvable("node(s) were unschedulable"));
        }
        Ok(())
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(n) => !refuses(pod, n),
            ClusterEvent::NodeUpdated(old, new) => refuses(pod, old) && !refuses(pod, new),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::filter;
    use serde_json::json;

    #[test]
    fn cordoned() {
        let check = |pod: serde_json::Value, unschedulable: bool, ok: bool| {
            let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": unschedulable}});
            assert_eq!(filter(&NodeUnschedulable, &pod, &node, &[]).is_empty(), ok, "{pod}");
        };
        check(json!({}), false, true);
        check(json!({}), true, false);
        check(
            json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "operator": "Exists"}]}}),
            true,
            true,
        );
        check(json!({"spec": {"tolerations": [{"operator": "Exists"}]}}), true, true);
    }
}

//! `NodeDeclaredFeatures`: the node must declare the features that the pod needs.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Plugin, PreFilter, Rejection, State};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn filters(&self) -> bool {
        true
    }

    fn filters_locally(&self) -> bool {
        true
    }

    fn pre_filter(&self, pod: &Pod, _: &mut Cache) -> Result<PreFilter, Rejection> {
        Ok(PreFilter { skip: pod.features.is_empty(), ..PreFilter::default() })
    }

    fn filter(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        if pod.features.iter().all(|f| node.declared_features.iter().any(|d| d == f)) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's required features"))
    }

    fn hint(&self, event: ClusterEvent<'_>, _pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::NodeUpdated(old, new) => old.declared_features != new.declared_features,
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
    fn nodes_must_know_what_pods_need() {
        let no = ["node(s) didn't match Pod's required features"];
        let restarts = json!({"restartPolicyRules": [{"action": "RestartAllContainers"}]});
        let plain = json!({"containers": [{"restartPolicyRules": [{"action": "Restart"}]}]});
        let all = json!({"containers": [restarts]});
        let init = json!({"initContainers": [restarts], "containers": [{}]});
        let host = json!({"hostNetwork": true, "hostUsers": false, "containers": [{}]});
        let restart = "RestartAllContainersOnContainerExits";
        let users = "UserNamespacesHostNetworkSupport";
        for (spec, declared, want) in [
            (&plain, &[][..], &[][..]),
            (&all, &[], &no),
            (&init, &[users], &no),
            (&init, &["a", restart], &[]),
            (&all, &[restart], &[]),
            (&host, &[restart], &no),
            (&host, &[restart, users], &[]),
            (&json!({"hostNetwork": true, "containers": [{}]}), &[], &[]),
        ] {
            let node = json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": declared}});
            let said = filter(&NodeDeclaredFeatures, &json!({"spec": spec}), &node, &[]);
            assert_eq!(said, want, "{spec} {declared:?}");
        }
    }
}

//! `NodeName`: a pod that names a node goes there or nowhere.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Plugin, Rejection, State};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filters_locally(&self) -> bool {
        true
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        if pod.node_name.is_empty() || pod.node_name == node.name {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match the requested node name"))
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        matches!(event, ClusterEvent::NodeAdded(n) if n.name == pod.node_name)
    }
}

//! `NodePorts`: two pods cannot take the same port of a node.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Plugin, PreFilter, Rejection, State};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn pre_filter(&self, pod: &Pod, _: &mut Cache) -> Result<PreFilter, Rejection> {
        Ok(PreFilter { skip: pod.host_ports.is_empty(), ..PreFilter::default() })
    }

    fn filters_locally(&self) -> bool {
        true
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, _: &State, pod: &Pod, _: &Node, info: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        if pod.host_ports.iter().any(|p| info.port_taken(p)) {
            return Err(Rejection::new("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::PodGone(gone) => gone
                .host_ports
                .iter()
                .any(|have| pod.host_ports.iter().any(|want| have.port == want.port && have.protocol == want.protocol)),
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
    fn clashes() {
        let pod = |port: i32, protocol: &str| json!({"spec": {"containers": [{"ports": [{"hostPort": port, "protocol": protocol}]}]}});
        let node = json!({"metadata": {"name": "n"}});
        let check = |want: serde_json::Value, ok: bool| {
            assert_eq!(filter(&NodePorts, &want, &node, &[pod(80, "TCP")]).is_empty(), ok, "{want}");
        };
        check(pod(80, "TCP"), false);
        check(pod(80, "UDP"), true);
        check(pod(81, "TCP"), true);
        check(json!({}), true);
    }
}

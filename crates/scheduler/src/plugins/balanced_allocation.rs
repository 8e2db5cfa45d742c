//! `NodeResourcesBalancedAllocation`: nodes on which processor and memory are used in like shares score higher.

use crate::cache::{Cache, NodeId};
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, State};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn scores(&self) -> bool {
        true
    }

    fn pre_score(&self, pod: &Pod, _: &[NodeId], _: &mut Cache) -> Option<State> {
        // A pod that asks for nothing unbalances nothing.
        (pod.requests.milli_cpu > 0 || pod.requests.memory > 0).then_some(None)
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "shares between 0 and 1")]
    fn score(&self, _: &State, pod: &Pod, node: &Node, info: &NodeInfo, _: &Cache) -> i64 {
        let (have, used, want) = (&node.allocatable, &info.requested, &pod.requests);
        if have.milli_cpu == 0 || have.memory == 0 {
            return 0;
        }
        let share = |used: i64, have: i64| (used as f64 / have as f64).min(1.0);
        let cpu = share(used.milli_cpu + want.milli_cpu, have.milli_cpu);
        let memory = share(used.memory + want.memory, have.memory);
        // The standard deviation of two numbers is half of what is between them.
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    }

    fn hint(&self, _: ClusterEvent<'_>, _: &Pod, _: &Cache) -> bool {
        // It rejects nobody.
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::scores;
    use serde_json::json;

    #[test]
    fn like_shares_are_better() {
        let pod = |cpu: &str, memory: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
        let node = || json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "10", "memory": "10Gi"}}});
        let nodes = [(node(), vec![]), (node(), vec![pod("4", "0")])];
        assert_eq!(scores(&NodeResourcesBalancedAllocation, &pod("2", "2Gi"), &nodes), [100, 80]);
        assert!(scores(&NodeResourcesBalancedAllocation, &json!({}), &nodes).is_empty());
    }
}

//! `NodeResourcesBalancedAllocation`: nodes on which resources are used in like shares score higher.

use smallvec::SmallVec;

use crate::cache::{Cache, NodeId};
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, State};
use crate::model::{Node, NodeInfo, Pod};
use crate::plugins::node_resources_fit::{Weighted, amounts, default_resources};

/// The plugin.
pub struct NodeResourcesBalancedAllocation {
    /// The resources that count; all weigh the same.
    pub resources: Vec<Weighted>,
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self { resources: default_resources() }
    }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn scores_locally(&self) -> bool {
        true
    }

    fn scores(&self) -> bool {
        true
    }

    fn pre_score(&self, pod: &Pod, _: &[NodeId], _: &mut Cache) -> Option<State> {
        // A pod that asks for nothing unbalances nothing.
        self.resources.iter().any(|r| pod.requests.amount(&r.name) > 0).then_some(None)
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "shares between 0 and 1")]
    fn score(&self, _: &State, pod: &Pod, node: &Node, info: &NodeInfo, _: &Cache) -> i64 {
        let mut shares: SmallVec<[f64; 4]> = SmallVec::new();
        for r in &self.resources {
            if let Some((have, used)) = amounts(&r.name, &pod.requests, node, &info.requested) {
                shares.push((used as f64 / have as f64).min(1.0));
            }
        }
        let deviation = match shares.as_slice() {
            [] | [_] => 0.0,
            // Of two numbers it is half of what is between them.
            [a, b] => (a - b).abs() / 2.0,
            many => {
                let n = many.len() as f64;
                let mean = many.iter().sum::<f64>() / n;
                (many.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / n).sqrt()
            }
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
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
        let plugin = NodeResourcesBalancedAllocation::default();
        assert_eq!(scores(&plugin, &pod("2", "2Gi"), &nodes), [100, 80]);
        assert!(scores(&plugin, &json!({}), &nodes).is_empty());
    }

    #[test]
    fn three_resources() {
        let mut resources = default_resources();
        resources.push(Weighted { name: "example.com/gpu".into(), weight: 1 });
        let plugin = NodeResourcesBalancedAllocation { resources };
        let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "10", "memory": "10Gi", "example.com/gpu": "2"}}});
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "5", "memory": "5Gi", "example.com/gpu": "2"}}}]}});
        // Shares of a half, a half and a whole: a deviation of 0.2357.
        assert_eq!(scores(&plugin, &pod, &[(node, vec![])]), [76]);
    }
}

//! `NodeResourcesFit`: a node must have room for what a pod asks for; emptier nodes score higher (`LeastAllocated`).

use crate::cache::Cache;
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, Reason, Rejection, State};
use crate::model::{Node, NodeInfo, Pod, Resources};

/// The plugin.
pub struct NodeResourcesFit;

/// What a node lacks for a pod: the resources' names, and whether even an empty node would.
fn lacking<'p>(pod: &'p Pod, allocatable: &Resources, requested: &Resources) -> Vec<(&'p str, bool)> {
    let want = &pod.requests;
    let mut out = Vec::new();
    if requested.pods + 1 > allocatable.pods {
        out.push(("pods", allocatable.pods < 1));
    }
    let mut check = |name: &'p str, want: i64, have: i64, used: i64| {
        if want > 0 && want > have - used {
            out.push((name, want > have));
        }
    };
    check("cpu", want.milli_cpu, allocatable.milli_cpu, requested.milli_cpu);
    check("memory", want.memory, allocatable.memory, requested.memory);
    check("ephemeral-storage", want.ephemeral_storage, allocatable.ephemeral_storage, requested.ephemeral_storage);
    for (name, amount) in &want.scalar {
        check(name, *amount, allocatable.get(name), requested.get(name));
    }
    out
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, _: &State, pod: &Pod, node: &Node, info: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        let lacking = lacking(pod, &node.allocatable, &info.requested);
        if lacking.is_empty() {
            return Ok(());
        }
        let reason = |name: &str| match name {
            "pods" => Reason::Borrowed("Too many pods"),
            "cpu" => Reason::Borrowed("Insufficient cpu"),
            "memory" => Reason::Borrowed("Insufficient memory"),
            other => Reason::Owned(format!("Insufficient {other}")),
        };
        Err(Rejection {
            reasons: lacking.iter().map(|(name, _)| reason(name)).collect(),
            unresolvable: lacking.iter().any(|(_, never)| *never),
        })
    }

    fn scores(&self) -> bool {
        true
    }

    fn score(&self, _: &State, pod: &Pod, node: &Node, info: &NodeInfo, _: &Cache) -> i64 {
        let free = |have: i64, used: i64| if have == 0 || used > have { 0 } else { (have - used) * MAX_SCORE / have };
        let (have, used, want) = (&node.allocatable, &info.scored_requested, &pod.scored_requests);
        let mut sum = 0;
        let mut weights = 0;
        for (have, used) in
            [(have.milli_cpu, used.milli_cpu + want.milli_cpu), (have.memory, used.memory + want.memory)]
        {
            if have > 0 {
                sum += free(have, used);
                weights += 1;
            }
        }
        if weights == 0 { 0 } else { sum / weights }
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        match event {
            ClusterEvent::PodGone(gone) => {
                let (freed, want) = (&gone.requests, &pod.requests);
                freed.pods > 0
                    || (want.milli_cpu > 0 && freed.milli_cpu > 0)
                    || (want.memory > 0 && freed.memory > 0)
                    || (want.ephemeral_storage > 0 && freed.ephemeral_storage > 0)
                    || want.scalar.keys().any(|k| freed.get(k) > 0)
            }
            ClusterEvent::NodeAdded(n) => lacking(pod, &n.allocatable, &Resources::default()).is_empty(),
            ClusterEvent::NodeUpdated(old, new) => {
                old.allocatable != new.allocatable && lacking(pod, &new.allocatable, &Resources::default()).is_empty()
            }
            ClusterEvent::PodUpdated(old, new) => {
                let (before, now) = (&old.requests, &new.requests);
                ["cpu", "memory", "ephemeral-storage"].iter().any(|r| now.get(r) < before.get(r))
                    || before.scalar.iter().any(|(name, n)| now.get(name) < *n)
            }
            ClusterEvent::PodAssigned(_) | ClusterEvent::NodeGone(_) | ClusterEvent::Object(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{filter, scores};
    use serde_json::{Value, json};

    fn node(cpu: &str, memory: &str, pods: &str) -> Value {
        json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods, "example.com/gpu": "1"}}})
    }

    fn pod(requests: &Value) -> Value {
        json!({"spec": {"containers": [{"resources": {"requests": requests}}]}})
    }

    #[test]
    fn fits() {
        let check = |want: Value, want_reasons: &[&str]| {
            let on = [pod(&json!({"cpu": "1", "memory": "1Gi"}))];
            assert_eq!(filter(&NodeResourcesFit, &pod(&want), &node("2", "2Gi", "2"), &on), want_reasons, "{want}");
        };
        check(json!({}), &[]);
        check(json!({"cpu": "1", "memory": "1Gi"}), &[]);
        check(json!({"cpu": "1001m"}), &["Insufficient cpu"]);
        check(json!({"cpu": "2", "memory": "2Gi"}), &["Insufficient cpu", "Insufficient memory"]);
        check(json!({"example.com/gpu": "1"}), &[]);
        check(json!({"example.com/gpu": "2"}), &["Insufficient example.com/gpu"]);
        check(json!({"example.com/tpu": "1"}), &["Insufficient example.com/tpu"]);
        assert_eq!(
            filter(&NodeResourcesFit, &pod(&json!({})), &node("2", "2Gi", "1"), &[pod(&json!({}))]),
            ["Too many pods"]
        );
    }

    #[test]
    fn emptier_is_better() {
        let on = |n: usize| vec![pod(&json!({"cpu": "1", "memory": "1Gi"})); n];
        let nodes = [0, 1, 3].map(|n| (node("4", "4Gi", "9"), on(n)));
        assert_eq!(scores(&NodeResourcesFit, &pod(&json!({"cpu": "1", "memory": "1Gi"})), &nodes), [75, 50, 0]);
    }
}

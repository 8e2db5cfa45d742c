//! `NodeResourcesFit`: a node must have room for what a pod asks for; how full it would be makes its score.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, Reason, Rejection, State};
use crate::model::{Node, NodeInfo, Pod, ResourceName, Resources};

/// A resource and how much it weighs in a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// The resource.
    pub name: ResourceName,
    /// Its weight.
    pub weight: i64,
}

/// Processor and memory, alike.
#[must_use]
pub fn default_resources() -> Vec<Weighted> {
    [ResourceName::Cpu, ResourceName::Memory].map(|name| Weighted { name, weight: 1 }).into()
}

/// How fullness makes a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Emptier is better.
    LeastAllocated,
    /// Fuller is better.
    MostAllocated,
    /// By points of (utilisation, score), straight lines between.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// The plugin.
pub struct NodeResourcesFit {
    /// Resources other than upstream's own that are not looked at.
    pub ignored_resources: Vec<String>,
    /// The same by what stands before the slash.
    pub ignored_groups: Vec<String>,
    /// How fullness makes a score.
    pub strategy: Strategy,
    /// The resources that count for the score.
    pub resources: Vec<Weighted>,
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        Self {
            ignored_resources: Vec::new(),
            ignored_groups: Vec::new(),
            strategy: Strategy::LeastAllocated,
            resources: default_resources(),
        }
    }
}

/// A node's amount of a resource, and how much of it would be taken with the pod there. Nothing, where it does not count:
/// the node has none, or it is a device that the pod does not ask for.
#[inline]
pub(crate) fn amounts(name: &ResourceName, pod: &Resources, node: &Node, taken: &Resources) -> Option<(i64, i64)> {
    let want = pod.amount(name);
    if want == 0 && matches!(name, ResourceName::Other(_) | ResourceName::Pods) {
        return None;
    }
    let have = node.allocatable.amount(name);
    (have > 0).then(|| (have, taken.amount(name).saturating_add(want)))
}

/// The score at a utilisation, by points with straight lines between.
fn by_shape(shape: &[(i64, i64)], at: i64) -> i64 {
    let Some(after) = shape.iter().position(|(u, _)| at <= *u) else { return shape.last().map_or(0, |p| p.1) };
    let (u1, s1) = shape[after];
    let Some((u0, s0)) = after.checked_sub(1).map(|i| shape[i]) else { return s1 };
    s0 + (s1 - s0) * (at - u0) / (u1 - u0)
}

/// A part of something, in hundredths. Nodes say what they have, be it more than a hundredth of what a number can hold.
fn percent(part: i64, of: i64) -> i64 {
    part.checked_mul(MAX_SCORE).map_or_else(|| part / (of / MAX_SCORE), |n| n / of)
}

impl Strategy {
    /// The score of one resource.
    fn score(&self, have: i64, used: i64) -> i64 {
        match self {
            Self::LeastAllocated if used > have => 0,
            Self::LeastAllocated => percent(have - used, have),
            Self::MostAllocated => percent(used.min(have), have),
            Self::RequestedToCapacityRatio(shape) => by_shape(shape, percent(used.min(have), have)),
        }
    }
}

impl NodeResourcesFit {
    fn ignores(&self, name: &str) -> bool {
        let Some((group, _)) = name.split_once('/') else { return false };
        self.ignored_resources.iter().any(|r| r == name) || self.ignored_groups.iter().any(|g| g == group)
    }

    /// What a node lacks for a pod: the resources' names, and whether even an empty node would.
    fn lacking<'p>(&self, pod: &'p Pod, allocatable: &Resources, requested: &Resources) -> Vec<(&'p str, bool)> {
        let want = &pod.requests;
        let mut out = Vec::new();
        if requested.pods + 1 > allocatable.pods {
            out.push(("pods", false));
        }
        let mut check = |name: &'p str, want: i64, have: i64, used: i64| {
            if want > 0 && want > have - used {
                out.push((name, want > have));
            }
        };
        check("cpu", want.milli_cpu, allocatable.milli_cpu, requested.milli_cpu);
        check("memory", want.memory, allocatable.memory, requested.memory);
        check("ephemeral-storage", want.ephemeral_storage, allocatable.ephemeral_storage, requested.ephemeral_storage);
        for (name, amount) in want.scalar.iter().filter(|(name, _)| !self.ignores(name)) {
            check(name, *amount, allocatable.get(name), requested.get(name));
        }
        out
    }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filters_locally(&self) -> bool {
        true
    }

    fn scores_locally(&self) -> bool {
        true
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, _: &State, pod: &Pod, node: &Node, info: &NodeInfo, _: &Cache) -> Result<(), Rejection> {
        let lacking = self.lacking(pod, &node.allocatable, &info.requested);
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

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream rounds this way")]
    fn score(&self, _: &State, pod: &Pod, node: &Node, info: &NodeInfo, _: &Cache) -> i64 {
        let by_ratio = matches!(self.strategy, Strategy::RequestedToCapacityRatio(_));
        let (mut sum, mut weights) = (0, 0);
        for r in &self.resources {
            // Containers that ask for nothing are taken to need something.
            let Some((have, used)) = amounts(&r.name, &pod.scored_requests, node, &info.scored_requested) else {
                continue;
            };
            let score = self.strategy.score(have, used);
            if !by_ratio || score > 0 {
                sum += score * r.weight;
                weights += r.weight;
            }
        }
        match weights {
            0 => 0,
            w if by_ratio => (sum as f64 / w as f64).round() as i64,
            w => sum / w,
        }
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        let want = &pod.requests;
        let asks = |name: &str| want.get(name) > 0;
        match event {
            ClusterEvent::PodGone(gone) => {
                let freed = &gone.requests;
                freed.pods > 0
                    || (asks("cpu") && freed.milli_cpu > 0)
                    || (asks("memory") && freed.memory > 0)
                    || (asks("ephemeral-storage") && freed.ephemeral_storage > 0)
                    || want.scalar.keys().any(|k| freed.get(k) > 0)
            }
            ClusterEvent::NodeAdded(n) => self.lacking(pod, &n.allocatable, &Resources::default()).is_empty(),
            ClusterEvent::NodeUpdated(old, new) => {
                old.allocatable != new.allocatable
                    && self.lacking(pod, &new.allocatable, &Resources::default()).is_empty()
            }
            ClusterEvent::PodUpdated(old, new) => {
                let less = |name: &str| asks(name) && new.requests.get(name) < old.requests.get(name);
                ["cpu", "memory", "ephemeral-storage"].into_iter().any(less)
                    || want.scalar.keys().any(|name| less(name))
            }
            ClusterEvent::PodAdded(_)
            | ClusterEvent::PodAssigned(_)
            | ClusterEvent::NodeGone(_)
            | ClusterEvent::Object(_) => false,
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
            let plugin = NodeResourcesFit::default();
            assert_eq!(filter(&plugin, &pod(&want), &node("2", "2Gi", "2"), &on), want_reasons, "{want}");
        };
        check(json!({}), &[]);
        check(json!({"cpu": "1", "memory": "1Gi"}), &[]);
        check(json!({"cpu": "1001m"}), &["Insufficient cpu"]);
        check(json!({"cpu": "2", "memory": "2Gi"}), &["Insufficient cpu", "Insufficient memory"]);
        check(json!({"example.com/gpu": "1"}), &[]);
        check(json!({"example.com/gpu": "2"}), &["Insufficient example.com/gpu"]);
        check(json!({"example.com/tpu": "1"}), &["Insufficient example.com/tpu"]);
        let full = filter(&NodeResourcesFit::default(), &pod(&json!({})), &node("2", "2Gi", "1"), &[pod(&json!({}))]);
        assert_eq!(full, ["Too many pods"]);
    }

    #[test]
    fn ignores_what_it_is_told_to() {
        let want = pod(&json!({"example.com/tpu": "1", "other.com/x": "1"}));
        for (resources, groups, reasons) in [
            (vec![], vec![], &["Insufficient example.com/tpu", "Insufficient other.com/x"][..]),
            (vec!["example.com/tpu"], vec![], &["Insufficient other.com/x"]),
            (vec!["example.com/tpu"], vec!["other.com"], &[]),
        ] {
            let plugin = NodeResourcesFit {
                ignored_resources: resources.into_iter().map(Into::into).collect(),
                ignored_groups: groups.into_iter().map(Into::into).collect(),
                ..NodeResourcesFit::default()
            };
            assert_eq!(filter(&plugin, &want, &node("2", "2Gi", "9"), &[]), reasons);
        }
    }

    #[test]
    fn strategies() {
        let check = |strategy: Strategy, want: [i64; 3]| {
            let on = |n: usize| vec![pod(&json!({"cpu": "1", "memory": "1Gi"})); n];
            let nodes = [0, 1, 3].map(|n| (node("4", "4Gi", "9"), on(n)));
            let plugin = NodeResourcesFit { strategy, ..NodeResourcesFit::default() };
            assert_eq!(scores(&plugin, &pod(&json!({"cpu": "1", "memory": "1Gi"})), &nodes), want);
        };
        check(Strategy::LeastAllocated, [75, 50, 0]);
        check(Strategy::MostAllocated, [25, 50, 100]);
        check(Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]), [25, 50, 100]);
        check(Strategy::RequestedToCapacityRatio(vec![(0, 100), (50, 0)]), [50, 0, 0]);
        check(Strategy::RequestedToCapacityRatio(vec![(50, 20), (75, 60)]), [20, 20, 60]);
    }

    #[test]
    fn nodes_of_any_size() {
        let nodes = [(node("4", "8Ei", "9"), vec![])];
        for (memory, want) in [("2Ei", 75), ("8Ei", 0)] {
            let resources = vec![Weighted { name: "memory".into(), weight: 1 }];
            let plugin = NodeResourcesFit { resources, ..NodeResourcesFit::default() };
            assert_eq!(scores(&plugin, &pod(&json!({"memory": memory})), &nodes), [want], "{memory}");
        }
    }

    #[test]
    fn weights_and_devices() {
        let resources =
            vec![Weighted { name: "cpu".into(), weight: 3 }, Weighted { name: "example.com/gpu".into(), weight: 1 }];
        let plugin = NodeResourcesFit { resources, ..NodeResourcesFit::default() };
        let nodes = [(node("4", "4Gi", "9"), vec![])];
        // A device that is not asked for does not count.
        assert_eq!(scores(&plugin, &pod(&json!({"cpu": "1"})), &nodes), [75]);
        assert_eq!(scores(&plugin, &pod(&json!({"cpu": "1", "example.com/gpu": "1"})), &nodes), [56]);
    }
}

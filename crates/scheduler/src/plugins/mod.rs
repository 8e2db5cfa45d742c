//! The default plugins, one a file.

pub mod balanced_allocation;
pub mod dynamic_resources;
mod gang_scheduling;
mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
pub mod node_resources_fit;
mod node_unschedulable;
pub mod pod_topology_spread;
mod scheduling_gates;
mod taint_toleration;
pub mod volumes;

use pintle_api::features::{Feature, FeatureGates};

use crate::framework::Plugin;
use crate::framework::points::Point::{
    self, Bind, Filter, Permit, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score,
};
use crate::framework::points::Points;
use crate::framework::profile::{Enabled, Profile};

/// A plugin that there is.
pub struct Known {
    /// Upstream's name of it.
    pub name: &'static str,
    /// Weight of its score.
    pub weight: i64,
    /// The feature without which it does nothing.
    pub gate: Option<Feature>,
    /// Where it has a say.
    pub points: &'static [Point],
    /// Makes it with its default arguments; `None` for what is done by the queue, the engine or the binder itself.
    pub make: Option<fn() -> Box<dyn Plugin>>,
}

const fn known(
    name: &'static str,
    weight: i64,
    points: &'static [Point],
    make: Option<fn() -> Box<dyn Plugin>>,
) -> Known {
    Known { name, weight, gate: None, points, make }
}

impl Known {
    const fn behind(mut self, gate: Feature) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Whether it does anything; then it is on unless it is disabled.
    #[must_use]
    pub fn works(&self, gates: &FeatureGates) -> bool {
        self.gate.is_none_or(|gate| gates.on(gate))
    }
}

/// Every plugin, in upstream's order.
pub static KNOWN: &[Known] = &[
    known("SchedulingGates", 0, &[PreEnqueue], Some(|| Box::new(scheduling_gates::SchedulingGates))),
    known("PrioritySort", 0, &[QueueSort], None),
    known("NodeUnschedulable", 0, &[Filter], Some(|| Box::new(node_unschedulable::NodeUnschedulable))),
    known("NodeName", 0, &[Filter], Some(|| Box::new(node_name::NodeName))),
    known("TaintToleration", 3, &[Filter, PreScore, Score], Some(|| Box::new(taint_toleration::TaintToleration))),
    known(
        "NodeAffinity",
        2,
        &[PreFilter, Filter, PreScore, Score],
        Some(|| Box::<node_affinity::NodeAffinity>::default()),
    ),
    known("NodePorts", 0, &[PreFilter, Filter], Some(|| Box::new(node_ports::NodePorts))),
    known(
        "NodeResourcesFit",
        1,
        &[PreFilter, Filter, PreScore, Score],
        Some(|| Box::<node_resources_fit::NodeResourcesFit>::default()),
    ),
    known("VolumeRestrictions", 0, &[PreFilter, Filter], Some(|| Box::new(volumes::restrictions::VolumeRestrictions))),
    known("NodeVolumeLimits", 0, &[PreFilter, Filter], Some(|| Box::new(volumes::limits::NodeVolumeLimits))),
    known(
        "VolumeBinding",
        0,
        &[PreFilter, Filter, Reserve, PreBind, PreScore, Score],
        Some(|| Box::<volumes::binding::VolumeBinding>::default()),
    ),
    known("VolumeZone", 0, &[PreFilter, Filter], Some(|| Box::new(volumes::zone::VolumeZone))),
    known(
        "PodTopologySpread",
        2,
        &[PreFilter, Filter, PreScore, Score],
        Some(|| Box::<pod_topology_spread::PodTopologySpread>::default()),
    ),
    known(
        "InterPodAffinity",
        2,
        &[PreFilter, Filter, PreScore, Score],
        Some(|| Box::<inter_pod_affinity::InterPodAffinity>::default()),
    ),
    known(
        "DynamicResources",
        2,
        &[PreEnqueue, PreFilter, Filter, PostFilter, Reserve, PreBind],
        Some(|| Box::<dynamic_resources::DynamicResources>::default()),
    ),
    known("DefaultPreemption", 0, &[PostFilter, PreEnqueue], None),
    known(
        "NodeResourcesBalancedAllocation",
        1,
        &[PreScore, Score],
        Some(|| Box::<balanced_allocation::NodeResourcesBalancedAllocation>::default()),
    ),
    known("ImageLocality", 1, &[Score], Some(|| Box::new(image_locality::ImageLocality))),
    known("DefaultBinder", 0, &[Bind], None),
    known(
        "NodeDeclaredFeatures",
        0,
        &[PreFilter, Filter],
        Some(|| Box::new(node_declared_features::NodeDeclaredFeatures)),
    )
    .behind(Feature::NodeDeclaredFeatures),
    known("GangScheduling", 0, &[PreEnqueue, Permit], Some(|| Box::new(gang_scheduling::GangScheduling)))
        .behind(Feature::GangScheduling),
];

/// Upstream's default profile, under a scheduler name.
#[must_use]
pub fn default_profile(name: &str) -> Profile {
    profile_with(name, &FeatureGates::default())
}

/// Upstream's default profile with these features.
#[must_use]
pub fn profile_with(name: &str, gates: &FeatureGates) -> Profile {
    let enabled = |k: &Known| {
        let plugin = k.make.map(|make| make())?;
        Some(Enabled { plugin, weight: k.weight, points: Points::all(k.points) })
    };
    Profile {
        name: name.to_owned(),
        plugins: KNOWN.iter().filter(|k| k.works(gates)).filter_map(enabled).collect(),
        preemption: Some(crate::framework::preemption::Config::default()),
        serves_claims: true,
        percentage_of_nodes_to_score: 0,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Tables of pod, node, expectation.

    use std::sync::Arc;

    use serde_json::Value;

    use crate::cache::Cache;
    use crate::framework::{Plugin, Rejection};
    use crate::model::{Node, NodeInfo, Pod, wire};

    pub fn pod(text: &Value) -> Pod {
        serde_json::from_value::<wire::Pod>(text.clone()).expect("a pod").into()
    }

    pub fn node(text: &Value) -> Node {
        serde_json::from_value::<wire::Node>(text.clone()).expect("a node").into()
    }

    /// A node named `n` with these pods on it.
    pub fn info(node: &Node, pods: &[Value]) -> NodeInfo {
        let mut info = NodeInfo { node: Some(Arc::new(node.clone())), ..NodeInfo::default() };
        for (i, text) in pods.iter().enumerate() {
            let mut p = pod(text);
            p.uid = format!("on-node-{i}");
            info.add(Arc::new(p));
        }
        info
    }

    /// What a filter says: the reasons, or nothing.
    pub fn filter(plugin: &dyn Plugin, p: &Value, n: &Value, on_node: &[Value]) -> Vec<String> {
        let (p, n) = (pod(p), node(n));
        let info = info(&n, on_node);
        let mut cache = Cache::default();
        cache.set_node(Arc::new(n.clone()));
        let texts = |r: Rejection| r.reasons.iter().map(ToString::to_string).collect();
        match plugin.pre_filter(&p, &mut cache) {
            Err(r) => texts(r),
            Ok(pre) if pre.skip => Vec::new(),
            Ok(pre) => plugin.filter(&pre.state, &p, &n, &info, &cache).err().map(texts).unwrap_or_default(),
        }
    }

    /// Normalised scores of nodes, each with the pods on it.
    pub fn scores(plugin: &dyn Plugin, p: &Value, nodes: &[(Value, Vec<Value>)]) -> Vec<i64> {
        let p = pod(p);
        let mut cache = Cache::default();
        let nodes: Vec<(Node, NodeInfo)> = nodes
            .iter()
            .map(|(n, pods)| {
                let n = node(n);
                let info = info(&n, pods);
                (n, info)
            })
            .collect();
        for (n, _) in &nodes {
            cache.set_node(Arc::new(n.clone()));
        }
        let Some(state) = plugin.pre_score(&p, &[], &mut cache) else { return Vec::new() };
        let mut out: Vec<i64> = nodes.iter().map(|(n, i)| plugin.score(&state, &p, n, i, &cache)).collect();
        plugin.normalize(&state, &mut out);
        out
    }

    /// A cluster of nodes, each with the pods on it; a pod's uid is its name.
    pub fn cluster(nodes: &[(Value, Vec<Value>)]) -> Cache {
        let mut cache = Cache::default();
        for (n, pods) in nodes {
            let n = node(n);
            for p in pods {
                let mut p = pod(p);
                p.uid.clone_from(&p.name);
                p.node_name.clone_from(&n.name);
                cache.set_pod(Arc::new(p));
            }
            cache.set_node(Arc::new(n));
        }
        cache
    }

    /// What a filter says of each node of a cluster, in the order of names; empty where the pod can go.
    pub fn filter_all(plugin: &dyn Plugin, p: &Value, cache: &mut Cache) -> Vec<(String, String)> {
        let p = pod(p);
        let pre = match plugin.pre_filter(&p, cache) {
            Ok(pre) => pre,
            Err(r) => return vec![("*".into(), r.text())],
        };
        let mut out: Vec<(String, String)> = cache
            .iter()
            .map(|(n, info)| {
                let answer = if pre.skip { Ok(()) } else { plugin.filter(&pre.state, &p, n, info, cache) };
                (n.name.clone(), answer.err().map(|r| r.text()).unwrap_or_default())
            })
            .collect();
        out.sort();
        out
    }

    /// Normalised scores of all nodes of a cluster, in the order of names; none when the plugin has nothing to say.
    pub fn score_all(plugin: &dyn Plugin, p: &Value, cache: &mut Cache) -> Vec<(String, i64)> {
        let p = pod(p);
        let mut nodes: Vec<_> = cache.iter().map(|(n, info)| (n.name.clone(), info.id)).collect();
        nodes.sort();
        let ids: Vec<_> = nodes.iter().map(|(_, id)| *id).collect();
        let Some(state) = plugin.pre_score(&p, &ids, cache) else { return Vec::new() };
        let score = |id: &usize| cache.at(*id).map_or(0, |(n, info)| plugin.score(&state, &p, n, info, cache));
        let mut scores: Vec<i64> = ids.iter().map(score).collect();
        plugin.normalize(&state, &mut scores);
        nodes.into_iter().map(|(n, _)| n).zip(scores).collect()
    }
}

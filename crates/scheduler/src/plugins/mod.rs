//! The default plugins, one a file.

mod balanced_allocation;
mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod scheduling_gates;
mod taint_toleration;

use crate::framework::profile::{Enabled, Profile};

/// Upstream's default profile, under a scheduler name.
#[must_use]
pub fn default_profile(name: &str) -> Profile {
    let plugin = |plugin, weight| Enabled { plugin, weight };
    Profile {
        name: name.to_owned(),
        plugins: vec![
            plugin(Box::new(scheduling_gates::SchedulingGates), 0),
            plugin(Box::new(node_unschedulable::NodeUnschedulable), 0),
            plugin(Box::new(node_name::NodeName), 0),
            plugin(Box::new(taint_toleration::TaintToleration), 3),
            plugin(Box::new(node_affinity::NodeAffinity), 2),
            plugin(Box::new(node_ports::NodePorts), 0),
            plugin(Box::new(node_resources_fit::NodeResourcesFit), 1),
            plugin(Box::new(balanced_allocation::NodeResourcesBalancedAllocation), 1),
            plugin(Box::new(image_locality::ImageLocality), 1),
        ],
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Tables of pod, node, expectation.

    use std::sync::Arc;

    use serde_json::Value;

    use crate::cache::Cache;
    use crate::framework::Plugin;
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
        match plugin.pre_filter(&p, &cache) {
            Err(r) => r.reasons,
            Ok(pre) if pre.skip => Vec::new(),
            Ok(pre) => plugin.filter(&pre.state, &p, &n, &info).err().map(|r| r.reasons).unwrap_or_default(),
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
        let Some(state) = plugin.pre_score(&p, &cache) else { return Vec::new() };
        let mut out: Vec<i64> = nodes.iter().map(|(n, i)| plugin.score(&state, &p, n, i, &cache)).collect();
        plugin.normalize(&mut out);
        out
    }
}

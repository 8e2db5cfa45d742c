//! The scheduler's picture of the cluster: nodes, the pods on them, and pods assumed to be there while their binding is
//! on its way.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Node, NodeInfo, Pod};

/// Nodes and the pods on them.
#[derive(Debug, Default)]
pub struct Cache {
    infos: HashMap<String, NodeInfo>,
    /// Names of nodes whose object is known, interleaved by zone so that a search from anywhere spreads.
    order: Vec<String>,
    /// Node of each pod that has one, by uid; with whether the API has confirmed it.
    placed: HashMap<String, (String, bool)>,
    /// How many nodes have each image, by name.
    images: HashMap<String, usize>,
}

impl Cache {
    /// Names of the nodes, in the order they are tried.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.order
    }

    /// A node and the pods on it.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<(&Node, &NodeInfo)> {
        let info = self.infos.get(name)?;
        Some((info.node.as_deref()?, info))
    }

    /// Every node.
    pub fn iter(&self) -> impl Iterator<Item = (&Node, &NodeInfo)> {
        self.order.iter().filter_map(|n| self.node(n))
    }

    /// How many nodes have an image of this name.
    #[must_use]
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Takes a node's newest state; answers the one before.
    pub fn set_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let name = node.name.clone();
        for image in node.images.keys() {
            *self.images.entry(image.clone()).or_default() += 1;
        }
        let zone_of = |n: &Node| n.labels.get("topology.kubernetes.io/zone").cloned();
        let zone = zone_of(&node);
        let old = self.infos.entry(name).or_default().node.replace(node);
        self.forget_images(old.as_deref());
        if old.as_deref().map(zone_of) != Some(zone) {
            self.reorder();
        }
        old
    }

    /// Forgets a node; pods that still name it are kept until they go.
    pub fn remove_node(&mut self, name: &str) {
        let Some(info) = self.infos.get_mut(name) else { return };
        let old = info.node.take();
        if info.pods.is_empty() {
            self.infos.remove(name);
        }
        self.forget_images(old.as_deref());
        self.reorder();
    }

    fn forget_images(&mut self, node: Option<&Node>) {
        for image in node.into_iter().flat_map(|n| n.images.keys()) {
            if let Some(n) = self.images.get_mut(image) {
                *n -= 1;
                if *n == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    fn reorder(&mut self) {
        let mut zones: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        for node in self.infos.values().filter_map(|i| i.node.as_deref()) {
            let zone = node.labels.get("topology.kubernetes.io/zone").cloned().unwrap_or_default();
            zones.entry(zone).or_default().push(node.name.clone());
        }
        let mut lists: Vec<_> = zones
            .into_values()
            .map(|mut names| {
                names.sort_unstable();
                names.into_iter()
            })
            .collect();
        self.order.clear();
        loop {
            let before = self.order.len();
            self.order.extend(lists.iter_mut().filter_map(Iterator::next));
            if self.order.len() == before {
                break;
            }
        }
    }

    /// Puts a pod on the node chosen for it, until the API confirms or [`Cache::remove_pod`] takes it back.
    pub fn assume(&mut self, pod: &Arc<Pod>, node: &str) {
        self.place(pod.clone(), node, false);
    }

    /// Takes a pod as the API shows it, with its node.
    pub fn set_pod(&mut self, pod: Arc<Pod>) {
        let node = pod.node_name.clone();
        self.place(pod, &node, true);
    }

    fn place(&mut self, pod: Arc<Pod>, node: &str, confirmed: bool) {
        let uid = pod.uid.clone();
        if let Some((before, _)) = self.placed.get(&uid)
            && before != node
        {
            self.remove_pod(&uid);
        }
        self.infos.entry(node.to_owned()).or_default().add(pod);
        self.placed.insert(uid, (node.to_owned(), confirmed));
    }

    /// Whether a pod is on a node, assumed or confirmed.
    #[must_use]
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Whether a pod's placement is assumed and not yet confirmed.
    #[must_use]
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.placed.get(uid).is_some_and(|(_, confirmed)| !confirmed)
    }

    /// Takes a pod off its node.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let (node, _) = self.placed.remove(uid)?;
        let info = self.infos.get_mut(&node)?;
        let pod = info.remove(uid);
        if info.node.is_none() && info.pods.is_empty() {
            self.infos.remove(&node);
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, zone: &str) -> Arc<Node> {
        let labels = [("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into();
        Arc::new(Node { name: name.into(), labels, images: [("i".to_owned(), 5)].into(), ..Node::default() })
    }

    fn pod(uid: &str, node: &str) -> Arc<Pod> {
        let mut pod = Pod { uid: uid.into(), node_name: node.into(), ..Pod::default() };
        pod.requests.milli_cpu = 100;
        Arc::new(pod)
    }

    #[test]
    fn order_takes_zones_in_turn() {
        let mut c = Cache::default();
        for (n, z) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
            c.set_node(node(n, z));
        }
        assert_eq!(c.nodes(), ["a1", "b1", "a2", "a3"]);
        c.remove_node("a1");
        assert_eq!(c.nodes(), ["a2", "b1", "a3"]);
        assert_eq!(c.nodes_with_image("i"), 3);
    }

    #[test]
    fn pods_come_before_and_stay_after_their_node() {
        let mut c = Cache::default();
        c.set_pod(pod("p", "n"));
        assert!(c.node("n").is_none());
        c.set_node(node("n", ""));
        assert_eq!(c.node("n").unwrap().1.requested.milli_cpu, 100);
        c.remove_node("n");
        c.set_node(node("n", ""));
        assert_eq!(c.node("n").unwrap().1.requested.milli_cpu, 100);
        c.remove_pod("p");
        assert_eq!(c.node("n").unwrap().1.requested.milli_cpu, 0);
    }

    #[test]
    fn assumed_then_confirmed_or_taken_back() {
        let mut c = Cache::default();
        c.set_node(node("n", ""));
        c.set_node(node("m", ""));
        c.assume(&pod("p", ""), "n");
        assert!(c.is_assumed("p"));
        c.set_pod(pod("p", "n"));
        assert!(c.is_placed("p") && !c.is_assumed("p"));
        // Somebody else bound it elsewhere.
        c.set_pod(pod("p", "m"));
        assert_eq!(c.node("n").unwrap().1.requested.milli_cpu, 0);
        assert_eq!(c.node("m").unwrap().1.requested.milli_cpu, 100);
    }
}

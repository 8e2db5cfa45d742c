//! The scheduler's picture of the cluster: nodes, the pods on them, and pods assumed to be there while their binding is
//! on its way.

pub mod eligible;
pub mod groups;
pub mod index;
pub mod nominated;
pub mod objects;
mod router;
pub mod topology;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use crate::model::{Node, NodeInfo, Pod};
use eligible::Eligible;
use groups::Groups;
use index::PodIndex;
use nominated::Nominated;
use objects::{ObjectChange, Objects};
pub use topology::NodeId;

/// Nodes and the pods on them.
#[derive(Debug, Default)]
pub struct Cache {
    infos: Vec<NodeInfo>,
    ids: HashMap<String, NodeId>,
    free: Vec<NodeId>,
    /// Nodes whose object is known, interleaved by zone so that a search from anywhere spreads. Made when it is asked for:
    /// nodes come and go by the thousand.
    order: OnceLock<Vec<NodeId>>,
    /// Node of each pod that has one, by uid; with whether the API has confirmed it.
    placed: HashMap<String, (NodeId, bool)>,
    assumed: usize,
    /// Nodes on which pods came or went, in order; and how often it was begun anew, as it is when the nodes themselves
    /// change.
    changes: Vec<NodeId>,
    epoch: u64,
    /// How many nodes have each image, by name.
    images: HashMap<String, usize>,
    /// How many nodes have a taint that only lowers their score.
    soft_tainted: usize,
    /// How many pods on nodes use each claim, by `namespace/name`.
    claims_in_use: HashMap<String, usize>,
    /// Which nodes have what pods ask of them.
    pub eligible: Eligible,
    /// Pods counted by who means them.
    pub index: PodIndex,
    /// The objects besides pods and nodes.
    pub objects: Objects,
    /// Pods that wait for room on a node they were promised; changed by [`Cache::nominate`].
    pub nominated: Nominated,
    /// Who belongs to which pod group.
    pub groups: Groups,
}

/// So many changes are remembered.
const MAX_CHANGES: usize = 1 << 16;

fn is_soft_tainted(node: &Node) -> bool {
    node.taints.iter().any(|t| t.effect == "PreferNoSchedule")
}

impl Cache {
    /// The nodes, in the order they are tried.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        self.order.get_or_init(|| self.interleaved())
    }

    /// A node by number and the pods on it.
    #[must_use]
    pub fn at(&self, id: NodeId) -> Option<(&Node, &NodeInfo)> {
        let info = self.infos.get(id)?;
        Some((info.node.as_deref()?, info))
    }

    /// A node's number.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<NodeId> {
        self.ids.get(name).copied().filter(|id| self.infos[*id].node.is_some())
    }

    /// A node and the pods on it.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<(&Node, &NodeInfo)> {
        self.at(self.id(name)?)
    }

    /// Every node.
    pub fn iter(&self) -> impl Iterator<Item = (&Node, &NodeInfo)> {
        self.nodes().iter().filter_map(|n| self.at(*n))
    }

    /// How many nodes have an image of this name.
    #[must_use]
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Whether any node has a taint that only lowers its score.
    #[must_use]
    pub fn has_soft_taints(&self) -> bool {
        self.soft_tainted > 0
    }

    /// The slot of a name, made when it is new.
    fn slot(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.infos.push(NodeInfo::default());
            self.infos.len() - 1
        });
        self.infos[id] = NodeInfo { id, name: name.to_owned(), ..NodeInfo::default() };
        self.ids.insert(name.to_owned(), id);
        id
    }

    fn release(&mut self, id: NodeId) {
        let info = &mut self.infos[id];
        if info.node.is_none() && info.pods.is_empty() {
            self.ids.remove(&info.name);
            *info = NodeInfo::default();
            self.free.push(id);
        }
    }

    /// Takes a node's newest state; answers the one before.
    pub fn set_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let id = self.slot(&node.name);
        match self.infos[id].node.as_deref() {
            // A sign of life.
            Some(old) if *old == *node => return self.infos[id].node.replace(node),
            // What others score depends on who has which image, and on which scores there are at all.
            Some(old) if old.images == node.images && is_soft_tainted(old) == is_soft_tainted(&node) => {
                self.changed(id);
            }
            _ => self.new_epoch(),
        }
        self.eligible.changed(id);
        for image in node.images.keys() {
            *self.images.entry(image.clone()).or_default() += 1;
        }
        self.soft_tainted += usize::from(is_soft_tainted(&node));
        let zone_of = |n: &Node| n.labels.get("topology.kubernetes.io/zone").cloned();
        let zone = zone_of(&node);
        if self.infos[id].node.as_ref().is_none_or(|old| old.labels != node.labels) {
            self.recount(id, Some(node.clone()));
        }
        let old = self.infos[id].node.replace(node);
        self.forget(old.as_deref());
        if old.as_deref().map(zone_of) != Some(zone) {
            self.order.take();
        }
        old
    }

    /// Counts the pods of a node again, where its labels say now.
    fn recount(&mut self, id: NodeId, node: Option<Arc<Node>>) {
        let (info, namespaces) = (&self.infos[id], &self.objects.namespaces);
        if info.node.is_some() {
            info.pods.values().for_each(|p| self.index.remove(p, id, namespaces));
        }
        let known = node.is_some();
        self.index.set_node(id, node);
        if known {
            info.pods.values().for_each(|p| self.index.add(p, id, namespaces));
        }
    }

    /// Forgets a node; pods that still name it are kept until they go.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<Node>> {
        let id = self.id(name)?;
        self.new_epoch();
        self.eligible.changed(id);
        self.recount(id, None);
        let old = self.infos[id].node.take();
        self.release(id);
        self.forget(old.as_deref());
        self.order.take();
        old
    }

    /// What was counted of a node is counted no more.
    fn forget(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        self.soft_tainted -= usize::from(is_soft_tainted(node));
        for image in node.images.keys() {
            if let Some(n) = self.images.get_mut(image) {
                *n -= 1;
                if *n == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    fn interleaved(&self) -> Vec<NodeId> {
        let mut zones: BTreeMap<&str, Vec<(&str, NodeId)>> = BTreeMap::new();
        for info in &self.infos {
            let Some(node) = info.node.as_deref() else { continue };
            let zone = node.labels.get("topology.kubernetes.io/zone").map_or("", String::as_str);
            zones.entry(zone).or_default().push((&node.name, info.id));
        }
        let mut lists: Vec<_> = zones
            .into_values()
            .map(|mut names| {
                names.sort_unstable();
                names.into_iter()
            })
            .collect();
        let mut order = Vec::with_capacity(self.infos.len());
        loop {
            let before = order.len();
            order.extend(lists.iter_mut().filter_map(Iterator::next).map(|(_, id)| id));
            if order.len() == before {
                return order;
            }
        }
    }

    /// A pod is promised a node; an empty name takes back what it was promised.
    pub fn nominate(&mut self, pod: &Arc<Pod>, node: &str) {
        self.take_back_nomination(&pod.uid);
        if !node.is_empty() {
            self.nominated.set(pod, node);
            if let Some(id) = self.id(node) {
                self.changed(id);
            }
        }
    }

    /// A pod is promised nothing any more.
    pub fn take_back_nomination(&mut self, uid: &str) {
        self.look_again_for(uid);
        self.nominated.remove(uid);
    }

    /// A pod's promise stands in the way of others and not in its own, so what is known of that node for pods alike holds
    /// for the one or for the others: it is asked about again when it is the pod's turn, and after it.
    pub fn look_again_for(&mut self, uid: &str) {
        if let Some(id) = self.nominated.node_of(uid).and_then(|node| self.id(node)) {
            self.changed(id);
        }
    }

    /// Takes in a change of another object.
    pub fn apply(&mut self, change: &ObjectChange) {
        self.objects.apply(change);
        if let ObjectChange::Namespace(d) = change {
            let labels =
                |n: &Option<Arc<crate::model::objects::Namespace>>| n.as_ref().map(|n| n.metadata.labels.clone());
            if labels(&d.old) != labels(&d.new) {
                self.index.namespaces_changed();
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
        if let Some((id, was_confirmed)) = self.placed.get_mut(&pod.uid) {
            let info = &mut self.infos[*id];
            if confirmed
                && info.name == node
                && let Some(there) = info.pods.get_mut(&pod.uid).filter(|there| pod.counts_like(there))
            {
                // As assumed, or a change that is of no concern here; but who began when decides who has to go.
                let (id, began) = (*id, there.started != pod.started);
                there.clone_from(&pod);
                self.index.replace(&pod);
                self.assumed -= usize::from(!*was_confirmed);
                *was_confirmed = true;
                if began {
                    self.changed(id);
                }
                return;
            }
            self.remove_pod(&pod.uid);
        }
        let id = self.slot(node);
        self.changed(id);
        self.placed.insert(pod.uid.clone(), (id, confirmed));
        self.groups.placed(&pod);
        self.assumed += usize::from(!confirmed);
        if self.infos[id].node.is_some() {
            self.index.add(&pod, id, &self.objects.namespaces);
        }
        for claim in pod.claims() {
            *self.claims_in_use.entry(claim).or_default() += 1;
        }
        self.infos[id].add(pod);
    }

    /// Nodes on which pods came or went since the epoch began, in order, and the epoch.
    #[must_use]
    pub fn changes(&self) -> (u64, &[NodeId]) {
        (self.epoch, &self.changes)
    }

    fn changed(&mut self, node: NodeId) {
        if self.changes.len() >= MAX_CHANGES {
            self.new_epoch();
        }
        self.changes.push(node);
    }

    fn new_epoch(&mut self) {
        self.epoch += 1;
        self.changes.clear();
    }

    /// How many nodes there are, how many pods on nodes, and how many of these are assumed.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.nodes().len(), self.placed.len(), self.assumed)
    }

    /// How many pods on nodes use a claim, named `namespace/name`.
    #[must_use]
    pub fn claim_users(&self, claim: &str) -> usize {
        self.claims_in_use.get(claim).copied().unwrap_or(0)
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
        let (id, confirmed) = self.placed.remove(uid)?;
        self.assumed -= usize::from(!confirmed);
        let pod = self.infos[id].remove(uid)?;
        self.groups.unplaced(&pod);
        self.changed(id);
        if self.infos[id].node.is_some() {
            self.index.remove(&pod, id, &self.objects.namespaces);
        }
        for claim in pod.claims() {
            if let Some(n) = self.claims_in_use.get_mut(&claim) {
                *n -= 1;
                if *n == 0 {
                    self.claims_in_use.remove(&claim);
                }
            }
        }
        self.release(id);
        Some(pod)
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
        let names = |c: &Cache| c.iter().map(|(n, _)| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&c), ["a1", "b1", "a2", "a3"]);
        c.remove_node("a1");
        assert_eq!(names(&c), ["a2", "b1", "a3"]);
        assert_eq!(c.nodes_with_image("i"), 3);
    }

    #[test]
    fn only_what_bears_on_scores_is_a_change() {
        let mut c = Cache::default();
        c.set_node(node("n", "a"));
        let at_first = c.changes().0;
        c.set_node(node("n", "a"));
        assert_eq!(c.changes(), (at_first, &[][..]));
        c.set_node(node("n", "b"));
        assert_eq!((c.changes().0, c.changes().1.len()), (at_first, 1));
        c.set_node(Arc::new(Node { images: HashMap::new(), ..(*node("n", "b")).clone() }));
        assert_ne!(c.changes().0, at_first);
        let before = c.changes().0;
        c.assume(&pod("p", ""), "n");
        c.set_pod(pod("p", "n"));
        assert_eq!((c.changes().0, c.changes().1.len()), (before, 1));
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
        // What was assumed is counted once; and a resize, anew.
        assert_eq!((c.node("n").unwrap().1.requested.milli_cpu, c.sizes()), (100, (2, 1, 0)));
        let mut larger = Pod { uid: "p".into(), node_name: "n".into(), ..Pod::default() };
        larger.requests.milli_cpu = 300;
        c.set_pod(Arc::new(larger));
        assert_eq!(c.node("n").unwrap().1.requested.milli_cpu, 300);
        // Somebody else bound it elsewhere.
        c.set_pod(pod("p", "m"));
        assert_eq!(c.node("n").unwrap().1.requested.milli_cpu, 0);
        assert_eq!(c.node("m").unwrap().1.requested.milli_cpu, 100);
    }
}

//! What is known of nodes for pods that are alike: most pods come in many copies, and placing one changes one node.

use std::sync::Arc;

use super::Rejection;
use super::preemption::Candidate;
use crate::cache::{Cache, NodeId};
use crate::model::Pod;

/// So many kinds of pods are remembered.
const MAX_TABLES: usize = 8;

/// Tables by kind of pod, the last used first.
#[derive(Default)]
pub(super) struct Tables(Vec<Table>);

/// The plugin that rejects a node, and why.
pub type Rejected = (&'static str, Rejection);

/// What is known of a node.
struct Known {
    /// Its score, or why it cannot take a pod.
    outcome: Result<i64, Rejected>,
    /// What making room there would cost, once somebody asked.
    room: Option<Result<Arc<Candidate>, Rejection>>,
}

/// What each node says to pods of a kind, as far as only the node and the pods on it, or promised to it, matter.
pub(super) struct Table {
    like: Arc<Pod>,
    epoch: u64,
    /// How many changes of the epoch are taken in.
    seen: usize,
    /// How often budgets had changed when the costs of room were reckoned.
    budgets: u64,
    nodes: Vec<Option<Known>>,
}

impl Tables {
    /// The table of pods like this one.
    pub fn of(&mut self, pod: &Pod) -> &mut Table {
        let at = self.0.iter().position(|t| t.like.is_like(pod)).unwrap_or_else(|| {
            self.0.truncate(MAX_TABLES - 1);
            let like = Arc::new(pod.kind());
            self.0.push(Table { like, epoch: u64::MAX, seen: 0, budgets: 0, nodes: Vec::new() });
            self.0.len() - 1
        });
        self.0[..=at].rotate_right(1);
        &mut self.0[0]
    }
}

impl Table {
    /// Asks again about the nodes on which something changed, or about all of them when the nodes themselves did.
    pub fn refresh(&mut self, cache: &Cache, mut ask: impl FnMut(NodeId) -> Option<Result<i64, Rejected>>) {
        let mut known = |id| ask(id).map(|outcome| Known { outcome, room: None });
        let (epoch, changes) = cache.changes();
        if epoch != self.epoch || changes.len() - self.seen > cache.nodes().len() {
            self.nodes.clear();
            for id in cache.nodes() {
                if self.nodes.len() <= *id {
                    self.nodes.resize_with(id + 1, || None);
                }
                self.nodes[*id] = known(*id);
            }
        } else {
            for id in &changes[self.seen..] {
                // Pods come to nodes that are not known yet, too; nobody is placed there.
                if let Some(node) = self.nodes.get_mut(*id) {
                    *node = known(*id);
                }
            }
        }
        self.epoch = epoch;
        self.seen = changes.len();
        if self.budgets != cache.objects.budget_changes {
            self.budgets = cache.objects.budget_changes;
            self.nodes.iter_mut().flatten().for_each(|n| n.room = None);
        }
    }

    fn known(&self, node: NodeId) -> Option<&Known> {
        self.nodes.get(node)?.as_ref()
    }

    /// A node's score; nothing where it cannot take a pod.
    pub fn score(&self, node: NodeId) -> Option<i64> {
        self.known(node)?.outcome.as_ref().ok().copied()
    }

    /// Why a node cannot take a pod; nothing where it can.
    pub fn rejection(&self, node: NodeId) -> Option<&Rejected> {
        self.known(node)?.outcome.as_ref().err()
    }

    /// What making room on a node would cost, reckoned now unless it is known.
    pub fn room(
        &mut self,
        node: NodeId,
        reckon: impl FnOnce() -> Result<Arc<Candidate>, Rejection>,
    ) -> Result<Arc<Candidate>, Rejection> {
        match self.nodes.get_mut(node).and_then(Option::as_mut) {
            Some(known) => known.room.get_or_insert_with(reckon).clone(),
            None => reckon(),
        }
    }

    /// The node with the highest score; among equals `random` below a number decides.
    pub fn best(&self, cache: &Cache, mut random: impl FnMut(usize) -> usize) -> Option<NodeId> {
        let mut best: Option<(i64, NodeId)> = None;
        let mut equals = 0;
        for id in cache.nodes() {
            let Some(score) = self.score(*id) else { continue };
            match best {
                Some((top, _)) if score < top => continue,
                Some((top, _)) if score == top => {
                    equals += 1;
                    if random(equals) != 0 {
                        continue;
                    }
                }
                _ => equals = 1,
            }
            best = Some((score, *id));
        }
        best.map(|(_, id)| id)
    }
}

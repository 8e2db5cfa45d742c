//! What is known of nodes for pods that are alike: most pods come in many copies, and placing one changes one node.

use std::sync::Arc;

use crate::cache::{Cache, NodeId};
use crate::model::Pod;

/// So many kinds of pods are remembered.
const MAX_TABLES: usize = 8;

/// Tables by kind of pod, the last used first.
#[derive(Default)]
pub(super) struct Tables(Vec<Table>);

/// The score of each node for pods of a kind; nothing for those that cannot take one.
pub(super) struct Table {
    like: Arc<Pod>,
    epoch: u64,
    /// How many changes of the epoch are taken in.
    seen: usize,
    scores: Vec<Option<i64>>,
}

impl Tables {
    /// The table of pods like this one.
    pub fn of(&mut self, pod: &Pod) -> &mut Table {
        let at = self.0.iter().position(|t| t.like.is_like(pod)).unwrap_or_else(|| {
            self.0.truncate(MAX_TABLES - 1);
            self.0.push(Table { like: Arc::new(pod.kind()), epoch: u64::MAX, seen: 0, scores: Vec::new() });
            self.0.len() - 1
        });
        self.0[..=at].rotate_right(1);
        &mut self.0[0]
    }
}

impl Table {
    /// Asks again about the nodes on which something changed, or about all of them when the nodes themselves did.
    pub fn refresh(&mut self, cache: &Cache, mut score: impl FnMut(NodeId) -> Option<i64>) {
        let (epoch, changes) = cache.changes();
        if epoch != self.epoch || changes.len() - self.seen > cache.nodes().len() {
            self.scores.clear();
            for id in cache.nodes() {
                if self.scores.len() <= *id {
                    self.scores.resize(id + 1, None);
                }
                self.scores[*id] = score(*id);
            }
        } else {
            for id in &changes[self.seen..] {
                // Pods come to nodes that are not known yet, too; nobody is placed there.
                if let Some(s) = self.scores.get_mut(*id) {
                    *s = score(*id);
                }
            }
        }
        self.epoch = epoch;
        self.seen = changes.len();
    }

    /// A node's score; nothing where it cannot take a pod.
    pub fn score(&self, node: NodeId) -> Option<i64> {
        self.scores.get(node).copied().flatten()
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

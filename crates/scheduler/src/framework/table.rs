//! What is known of nodes for pods that are alike: most pods come in many copies, and placing one changes one node.

use std::collections::HashMap;
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
    /// Its score, or why it cannot take a pod: the number of a rejection.
    outcome: Result<i64, usize>,
    /// What making room there would cost, once somebody asked.
    room: Option<Room>,
}

/// What making room on a node would cost, or why none can be made.
pub(super) type Room = Result<Arc<Candidate>, Arc<Rejection>>;

/// What nodes are rejected for: many for few things.
#[derive(Default)]
struct Rejections {
    numbers: HashMap<Rejected, usize>,
    /// Each with how many nodes it is said of.
    list: Vec<(Rejected, usize)>,
    free: Vec<usize>,
}

impl Rejections {
    fn add(&mut self, rejected: Rejected) -> usize {
        let number = match self.numbers.get(&rejected) {
            Some(number) => *number,
            None => {
                let entry = (rejected.clone(), 0);
                let number = match self.free.pop() {
                    Some(number) => {
                        self.list[number] = entry;
                        number
                    }
                    None => {
                        self.list.push(entry);
                        self.list.len() - 1
                    }
                };
                self.numbers.insert(rejected, number);
                number
            }
        };
        self.list[number].1 += 1;
        number
    }

    fn take(&mut self, number: usize) {
        let (rejected, nodes) = &mut self.list[number];
        *nodes -= 1;
        if *nodes == 0 {
            self.numbers.remove(rejected);
            self.free.push(number);
        }
    }
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
    rejections: Rejections,
    /// How many nodes can take a pod.
    feasible: usize,
}

impl Tables {
    /// The table of pods like this one.
    pub fn of(&mut self, pod: &Pod) -> &mut Table {
        let at = self.0.iter().position(|t| t.like.is_like(pod)).unwrap_or_else(|| {
            self.0.truncate(MAX_TABLES - 1);
            let like = Arc::new(pod.kind());
            self.0.push(Table {
                like,
                epoch: u64::MAX,
                seen: 0,
                budgets: 0,
                nodes: Vec::new(),
                rejections: Rejections::default(),
                feasible: 0,
            });
            self.0.len() - 1
        });
        self.0[..=at].rotate_right(1);
        &mut self.0[0]
    }
}

impl Table {
    /// Asks again about the nodes on which something changed, or about all of them when the nodes themselves did.
    pub fn refresh(&mut self, cache: &Cache, mut ask: impl FnMut(NodeId) -> Option<Result<i64, Rejected>>) {
        let (epoch, changes) = cache.changes();
        if epoch != self.epoch || changes.len() - self.seen > cache.nodes().len() {
            self.nodes.clear();
            self.rejections = Rejections::default();
            self.feasible = 0;
            for id in cache.nodes() {
                if self.nodes.len() <= *id {
                    self.nodes.resize_with(id + 1, || None);
                }
                self.know(*id, ask(*id));
            }
        } else {
            let changes = &changes[self.seen..];
            for (i, id) in changes.iter().enumerate() {
                // Pods come to nodes that are not known yet, too; nobody is placed there. Of several changes of a node
                // in a row the last one tells.
                if *id < self.nodes.len() && changes.get(i + 1) != Some(id) {
                    self.know(*id, ask(*id));
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

    /// Takes what a node says now in place of what it said before.
    fn know(&mut self, node: NodeId, said: Option<Result<i64, Rejected>>) {
        match self.nodes[node].take().map(|k| k.outcome) {
            Some(Ok(_)) => self.feasible -= 1,
            Some(Err(number)) => self.rejections.take(number),
            None => {}
        }
        let outcome = match said {
            None => return,
            Some(Ok(score)) => {
                self.feasible += 1;
                Ok(score)
            }
            Some(Err(rejected)) => Err(self.rejections.add(rejected)),
        };
        self.nodes[node] = Some(Known { outcome, room: None });
    }

    fn known(&self, node: NodeId) -> Option<&Known> {
        self.nodes.get(node)?.as_ref()
    }

    /// A node's score; nothing where it cannot take a pod.
    pub fn score(&self, node: NodeId) -> Option<i64> {
        self.known(node)?.outcome.ok()
    }

    /// Whether some node can take a pod.
    pub fn any_feasible(&self) -> bool {
        self.feasible > 0
    }

    /// Why a node cannot take a pod; nothing where it can.
    pub fn rejection(&self, node: NodeId) -> Option<&Rejection> {
        let number = self.known(node)?.outcome.err()?;
        Some(&self.rejections.list[number].0.1)
    }

    /// What nodes are rejected for, and how many for each.
    pub fn rejections(&self) -> impl Iterator<Item = &(Rejected, usize)> {
        self.rejections.list.iter().filter(|(_, nodes)| *nodes > 0)
    }

    /// How many nodes the removal of pods might make fit.
    pub fn hopeful(&self) -> usize {
        self.rejections().filter(|((_, rejection), _)| !rejection.unresolvable).map(|(_, nodes)| nodes).sum()
    }

    /// What making room on a node would cost, reckoned now unless it is known.
    pub fn room(&mut self, node: NodeId, reckon: impl FnOnce() -> Room) -> Room {
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

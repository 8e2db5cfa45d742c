//! A profile: a named list of plugins with weights, and the one way through all of them for a pod.

use super::{ClusterEvent, Diagnosis, Plugin, Rejection, State};
use crate::cache::Cache;
use crate::model::{Node, NodeInfo, Pod};

/// At least so many feasible nodes are looked for before scoring, as upstream.
const MIN_FEASIBLE: usize = 100;

/// A plugin and the weight of its score.
pub struct Enabled {
    /// The plugin.
    pub plugin: Box<dyn Plugin>,
    /// Weight; 0 keeps its score out.
    pub weight: i64,
}

/// A named list of plugins.
pub struct Profile {
    /// `spec.schedulerName` of the pods it is for.
    pub name: String,
    /// Plugins in order.
    pub plugins: Vec<Enabled>,
}

/// Where the search for feasible nodes goes on for the next pod, so that all nodes get their turn, and the seed of the
/// choice among equals.
#[derive(Debug)]
pub struct Search {
    next: usize,
    random: u64,
}

impl Search {
    /// A search with this seed; the same seed and the same cluster give the same placements.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { next: 0, random: seed | 1 }
    }

    /// xorshift: quick, and good enough to spread ties.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }
}

/// Of so many nodes upstream looks for so many feasible ones: all up to 100, then a share that falls from 50 % by one
/// point for each 125 nodes, to 5 % at least.
fn wanted(nodes: usize) -> usize {
    if nodes <= MIN_FEASIBLE {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

impl Profile {
    /// Whether a pod may enter the queue.
    ///
    /// # Errors
    /// The plugin that keeps it out, and why.
    pub fn pre_enqueue(&self, pod: &Pod) -> Result<(), (&'static str, Rejection)> {
        self.plugins.iter().try_for_each(|p| p.plugin.pre_enqueue(pod).map_err(|r| (p.plugin.name(), r)))
    }

    /// Whether an event may let a pod be placed that these plugins rejected.
    #[must_use]
    pub fn hint(&self, rejected_by: &[&'static str], event: ClusterEvent<'_>, pod: &Pod) -> bool {
        rejected_by.is_empty()
            || self.plugins.iter().any(|p| rejected_by.contains(&p.plugin.name()) && p.plugin.hint(event, pod))
    }

    /// Finds the best node for a pod.
    ///
    /// # Errors
    /// Why there is none.
    pub fn place(&self, pod: &Pod, cache: &Cache, search: &mut Search) -> Result<String, Diagnosis> {
        let mut diagnosis = Diagnosis { nodes: cache.nodes().len(), ..Diagnosis::default() };
        let feasible = self.feasible(pod, cache, search, &mut diagnosis);
        match feasible.as_slice() {
            [] => Err(diagnosis),
            [(node, _)] => Ok(node.name.clone()),
            many => Ok(self.best(pod, many, cache, search).name.clone()),
        }
    }

    fn feasible<'c>(
        &self,
        pod: &Pod,
        cache: &'c Cache,
        search: &mut Search,
        diagnosis: &mut Diagnosis,
    ) -> Vec<(&'c Node, &'c NodeInfo)> {
        let mut filters: Vec<(&dyn Plugin, State)> = Vec::with_capacity(self.plugins.len());
        let mut only: Option<Vec<String>> = None;
        for p in &self.plugins {
            match p.plugin.pre_filter(pod, cache) {
                Ok(pre) => {
                    if let Some(nodes) = pre.nodes {
                        only = Some(match only.take() {
                            Some(before) => before.into_iter().filter(|n| nodes.contains(n)).collect(),
                            None => nodes,
                        });
                        if only.as_ref().is_some_and(Vec::is_empty) {
                            diagnosis.blame(p.plugin.name());
                        }
                    }
                    if !pre.skip {
                        filters.push((&*p.plugin, pre.state));
                    }
                }
                Err(rejection) => {
                    diagnosis.blame(p.plugin.name());
                    diagnosis.pre_filter = Some(rejection.reasons.join(", "));
                    return Vec::new();
                }
            }
        }
        let mut out = Vec::new();
        let mut try_node = |node: &'c Node, info: &'c NodeInfo, out: &mut Vec<_>| {
            for (plugin, state) in &filters {
                if let Err(rejection) = plugin.filter(state, pod, node, info) {
                    diagnosis.blame(plugin.name());
                    diagnosis.count(&rejection);
                    return;
                }
            }
            out.push((node, info));
        };
        if let Some(names) = only {
            for (node, info) in names.iter().filter_map(|n| cache.node(n)) {
                try_node(node, info, &mut out);
            }
            let left_out = cache.nodes().len().saturating_sub(names.len());
            if out.is_empty() && left_out > 0 {
                diagnosis.reasons.insert("node(s) didn't satisfy plugin(s) [NodeAffinity]".into(), left_out);
            }
            return out;
        }
        let nodes = cache.nodes();
        let wanted = wanted(nodes.len());
        let mut tried = 0;
        while tried < nodes.len() && out.len() < wanted {
            let at = (search.next + tried) % nodes.len();
            tried += 1;
            if let Some((node, info)) = cache.node(&nodes[at]) {
                try_node(node, info, &mut out);
            }
        }
        search.next = if nodes.is_empty() { 0 } else { (search.next + tried) % nodes.len() };
        out
    }

    fn best<'c>(
        &self,
        pod: &Pod,
        feasible: &[(&'c Node, &'c NodeInfo)],
        cache: &Cache,
        search: &mut Search,
    ) -> &'c Node {
        let mut totals = vec![0_i64; feasible.len()];
        let mut scores = vec![0_i64; feasible.len()];
        for p in self.plugins.iter().filter(|p| p.weight > 0 && p.plugin.scores()) {
            let Some(state) = p.plugin.pre_score(pod, cache) else { continue };
            for (score, (node, info)) in scores.iter_mut().zip(feasible) {
                *score = p.plugin.score(&state, pod, node, info, cache);
            }
            p.plugin.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * p.weight;
            }
        }
        let top = totals.iter().copied().max().unwrap_or(0);
        let mut chosen = 0;
        let mut equals = 0;
        for (i, _) in totals.iter().enumerate().filter(|(_, t)| **t == top) {
            equals += 1;
            if search.random(equals) == 0 {
                chosen = i;
            }
        }
        feasible[chosen].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_are_wanted() {
        for (nodes, want) in [(1, 1), (100, 100), (150, 100), (1000, 420), (5000, 500), (10_000, 500)] {
            assert_eq!(wanted(nodes), want, "{nodes}");
        }
    }
}

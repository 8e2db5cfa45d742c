//! `PodTopologySpread`: pods of a kind are spread evenly over places.

use std::sync::Arc;

use crate::cache::eligible::Answers;
use crate::cache::index::QueryId;
use crate::cache::topology::{Domain, TopologyId};
use crate::cache::{Cache, NodeId};
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, PreFilter, Rejection, State, state_as, state_as_mut};
use crate::model::affinity::{Spread, Who};
use crate::model::{Node, NodeInfo, Pod};
use crate::plugins::{node_affinity, taint_toleration};

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Score of a node that lacks a label, until scores are normalised.
const IGNORED: i64 = i64::MIN;

/// The plugin.
pub struct PodTopologySpread {
    /// What holds for pods that say nothing themselves.
    pub defaults: Vec<Spread>,
    /// Whether these are the system's own, which ask less of nodes' labels.
    pub system_defaults: bool,
}

impl Default for PodTopologySpread {
    fn default() -> Self {
        let soft = |topology_key: &str, max_skew| Spread {
            max_skew,
            topology_key: topology_key.into(),
            hard: false,
            who: None,
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        };
        Self { defaults: vec![soft(HOSTNAME, 3), soft("topology.kubernetes.io/zone", 5)], system_defaults: true }
    }
}

/// A constraint made ready for one pod.
struct Constraint {
    max_skew: i64,
    topology: TopologyId,
    hostname: bool,
    who: Arc<Who>,
    query: QueryId,
    min_domains: i64,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    /// Whether a node counts.
    fn counts(&self, pod: &Pod, node: &Node) -> bool {
        (!self.honor_affinity || node_affinity::matches(pod, node))
            && (!self.honor_taints || taint_toleration::bears_all(pod, node))
    }

    /// Whether no node could be left out for the pod's affinity or its taints.
    fn counts_all(&self, pod: &Pod) -> bool {
        !self.honor_taints && (!self.honor_affinity || node_affinity::is_free(pod))
    }
}

/// A constraint that must be kept, with the pods it counts in each place.
struct Hard {
    constraint: Constraint,
    /// `None` for places that do not count.
    by_domain: Vec<Option<i64>>,
    domains: i64,
    min: i64,
    self_match: i64,
}

impl Hard {
    fn find_min(&mut self) {
        let few = self.domains < self.constraint.min_domains;
        self.min = if few { 0 } else { self.by_domain.iter().flatten().copied().min().unwrap_or(0) };
    }
}

struct Soft {
    constraint: Constraint,
    weight: f64,
    /// Pods in each place; for host names they are counted on the node itself.
    by_domain: Vec<i64>,
}

struct Scoring {
    constraints: Vec<Soft>,
    all_keys: bool,
}

impl PodTopologySpread {
    /// The pod's constraints of one kind, made ready.
    fn constraints(&self, pod: &Pod, hard: bool, cache: &mut Cache) -> Vec<Constraint> {
        let own = !pod.spread.is_empty();
        let list = if own { &pod.spread[..] } else { &self.defaults[..] };
        if !list.iter().any(|s| s.hard == hard) {
            return Vec::new();
        }
        let group = if own {
            None
        } else {
            let Some(group) = cache.objects.group_of(pod) else { return Vec::new() };
            Some(Arc::new(Who::in_namespace(&pod.namespace, group)))
        };
        let mut out = Vec::new();
        for s in list.iter().filter(|s| s.hard == hard) {
            let Some(who) = s.who.clone().or_else(|| group.clone()) else { continue };
            out.push(Constraint {
                max_skew: s.max_skew,
                topology: cache.index.topology_id(&s.topology_key),
                hostname: s.topology_key == HOSTNAME,
                query: cache.index.query(std::slice::from_ref(&who), false, &cache.objects.namespaces),
                who,
                min_domains: i64::try_from(s.min_domains).unwrap_or(i64::MAX),
                honor_affinity: s.honor_affinity,
                honor_taints: s.honor_taints,
            });
        }
        out
    }
}

/// What is known of nodes for each of a pod's constraints; those that heed the same share it.
struct Eligibles {
    heeded: Vec<(bool, bool, Answers)>,
    of: Vec<usize>,
}

impl Eligibles {
    fn of(pod: &Pod, constraints: &[Constraint], cache: &mut Cache) -> Self {
        let mut all = Self { heeded: Vec::new(), of: Vec::new() };
        for c in constraints {
            let same = |(affinity, taints, _): &(bool, bool, Answers)| {
                (*affinity, *taints) == (c.honor_affinity, c.honor_taints)
            };
            let at = all.heeded.iter().position(same).unwrap_or_else(|| {
                let answers = cache.eligible.take(pod, c.honor_affinity, c.honor_taints);
                all.heeded.push((c.honor_affinity, c.honor_taints, answers));
                all.heeded.len() - 1
            });
            all.of.push(at);
        }
        all
    }

    /// Whether a node counts for a constraint, by its number.
    fn has(&mut self, constraint: usize, node: NodeId, find: impl FnOnce() -> bool) -> bool {
        self.heeded[self.of[constraint]].2.of(node, find)
    }

    fn keep(self, cache: &mut Cache) {
        self.heeded.into_iter().for_each(|(.., answers)| cache.eligible.keep(answers));
    }
}

fn has_all_keys(constraints: &[Constraint], node: NodeId, cache: &Cache) -> bool {
    constraints.iter().all(|c| cache.index.topology(c.topology).of(node).is_some())
}

fn add_at(counts: &mut Vec<Option<i64>>, domain: Domain, n: i64) {
    let d = domain as usize;
    if counts.len() <= d {
        counts.resize(d + 1, None);
    }
    counts[d] = Some(counts[d].unwrap_or(0) + n);
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn pre_filter(&self, pod: &Pod, cache: &mut Cache) -> Result<PreFilter, Rejection> {
        let constraints = self.constraints(pod, true, cache);
        if constraints.is_empty() {
            return Ok(PreFilter::skip());
        }
        let nodes = cache.nodes().len();
        let everywhere =
            constraints.iter().all(|c| c.counts_all(pod) && cache.index.topology(c.topology).placed() == nodes);
        let mut counts: Vec<Vec<Option<i64>>> = Vec::with_capacity(constraints.len());
        if everywhere {
            for c in &constraints {
                let size = cache.index.topology(c.topology).len();
                let by_domain = cache.index.by_domain(c.query, c.topology).to_vec();
                let t = cache.index.topology(c.topology);
                let of = |d: usize| i64::from(by_domain.get(d).copied().unwrap_or(0));
                counts.push((0..size).map(|d| t.exists(Domain::try_from(d).ok()?).then(|| of(d))).collect());
            }
        } else {
            counts.resize(constraints.len(), Vec::new());
            let mut eligible = Eligibles::of(pod, &constraints, cache);
            for (node, info) in cache.iter().filter(|(_, info)| has_all_keys(&constraints, info.id, cache)) {
                for (i, (c, counts)) in constraints.iter().zip(&mut counts).enumerate() {
                    let Some(d) = cache.index.topology(c.topology).of(info.id) else { continue };
                    let here = cache.index.on_node(c.query, info.id).into();
                    // A node without such pods only tells that its place counts.
                    let news = here > 0 || counts.get(d as usize).is_none_or(Option::is_none);
                    if news && eligible.has(i, info.id, || c.counts(pod, node)) {
                        add_at(counts, d, here);
                    }
                }
            }
            eligible.keep(cache);
        }
        let hard = constraints.into_iter().zip(counts).map(|(constraint, by_domain)| {
            let self_match = constraint.who.selector.matches_labels(&pod.labels).into();
            let domains = i64::try_from(by_domain.iter().flatten().count()).unwrap_or(i64::MAX);
            let mut h = Hard { constraint, by_domain, domains, min: 0, self_match };
            h.find_min();
            h
        });
        Ok(PreFilter::with::<Vec<Hard>>(hard.collect()))
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, state: &State, _: &Pod, _: &Node, info: &NodeInfo, cache: &Cache) -> Result<(), Rejection> {
        for h in state_as::<Vec<Hard>>(state).into_iter().flatten() {
            let Some(d) = cache.index.topology(h.constraint.topology).of(info.id) else {
                return Err(Rejection::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let here = h.by_domain.get(d as usize).copied().flatten().unwrap_or(0);
            if here + h.self_match - h.min > h.constraint.max_skew {
                return Err(Rejection::new("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    fn suppose(&self, state: &mut State, pod: &Pod, other: &Pod, info: &NodeInfo, added: bool, cache: &Cache) {
        let Some(all) = state_as_mut::<Vec<Hard>>(state) else { return };
        // Pods on their way out were not counted in the first place.
        if other.namespace != pod.namespace || other.deleting {
            return;
        }
        let Some(node) = info.node.as_deref() else { return };
        if !all.iter().all(|h| cache.index.topology(h.constraint.topology).of(info.id).is_some()) {
            return;
        }
        for h in all {
            if h.constraint.who.selector.matches_labels(&other.labels)
                && h.constraint.counts(pod, node)
                && let Some(d) = cache.index.topology(h.constraint.topology).of(info.id)
            {
                add_at(&mut h.by_domain, d, if added { 1 } else { -1 });
                h.find_min();
            }
        }
    }

    fn scores(&self) -> bool {
        true
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of nodes are small")]
    fn pre_score(&self, pod: &Pod, feasible: &[NodeId], cache: &mut Cache) -> Option<State> {
        let constraints = self.constraints(pod, false, cache);
        if constraints.is_empty() {
            return None;
        }
        if feasible.is_empty() {
            // It is only asked whether there is anything to score.
            return Some(None);
        }
        // By the system's defaults nodes without a zone are spread by host name all the same.
        let all_keys = !pod.spread.is_empty() || !self.system_defaults;
        let nodes = cache.nodes().len();
        let scored = feasible.iter().filter(|id| !all_keys || has_all_keys(&constraints, **id, cache)).count();
        // Host names are counted on the node itself, whatever the policies.
        let aggregate = constraints.iter().all(|c| {
            (c.hostname || c.counts_all(pod)) && (!all_keys || cache.index.topology(c.topology).placed() == nodes)
        });
        let mut out = Vec::with_capacity(constraints.len());
        let mut by_domain: Vec<Vec<i64>> = vec![Vec::new(); constraints.len()];
        let mut sizes = vec![scored; constraints.len()];
        for (i, c) in constraints.iter().enumerate().filter(|(_, c)| !c.hostname) {
            let t = cache.index.topology(c.topology);
            let mut seen = vec![false; t.len()];
            let mut nowhere = false;
            for id in feasible.iter().filter(|id| !all_keys || has_all_keys(&constraints, **id, cache)) {
                match t.of(*id) {
                    Some(d) => seen[d as usize] = true,
                    None => nowhere = true,
                }
            }
            sizes[i] = seen.iter().filter(|s| **s).count() + usize::from(nowhere);
            if aggregate {
                by_domain[i] = cache.index.by_domain(c.query, c.topology).iter().map(|n| i64::from(*n)).collect();
            }
        }
        if !aggregate {
            let mut eligible = Eligibles::of(pod, &constraints, cache);
            for (node, info) in cache.iter() {
                if all_keys && !has_all_keys(&constraints, info.id, cache) {
                    continue;
                }
                for (i, (c, counts)) in
                    constraints.iter().zip(&mut by_domain).enumerate().filter(|(_, (c, _))| !c.hostname)
                {
                    let here = i64::from(cache.index.on_node(c.query, info.id));
                    if here > 0
                        && let Some(d) = cache.index.topology(c.topology).of(info.id)
                        && eligible.has(i, info.id, || c.counts(pod, node))
                    {
                        counts.resize(counts.len().max(d as usize + 1), 0);
                        counts[d as usize] += here;
                    }
                }
            }
            eligible.keep(cache);
        }
        for ((constraint, by_domain), size) in constraints.into_iter().zip(by_domain).zip(sizes) {
            out.push(Soft { constraint, by_domain, weight: ((size + 2) as f64).ln() });
        }
        Some(Some(Box::new(Scoring { constraints: out, all_keys })))
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream rounds this way")]
    fn score(&self, state: &State, _: &Pod, _: &Node, info: &NodeInfo, cache: &Cache) -> i64 {
        let Some(s) = state_as::<Scoring>(state) else { return 0 };
        let mut score = 0.0;
        for c in &s.constraints {
            let Some(d) = cache.index.topology(c.constraint.topology).of(info.id) else {
                if s.all_keys {
                    return IGNORED;
                }
                continue;
            };
            let count = if c.constraint.hostname {
                cache.index.on_node(c.constraint.query, info.id).into()
            } else {
                c.by_domain.get(d as usize).copied().unwrap_or(0)
            };
            score += count as f64 * c.weight + (c.constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, _: &State, scores: &mut [i64]) {
        let counted = || scores.iter().copied().filter(|s| *s != IGNORED);
        let (min, max) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for s in scores {
            *s = match *s {
                IGNORED => 0,
                _ if max == 0 => MAX_SCORE,
                score => MAX_SCORE * (max + min - score) / max,
            };
        }
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, _: &Cache) -> bool {
        let list = if pod.spread.is_empty() { &self.defaults[..] } else { &pod.spread[..] };
        let hard = || list.iter().filter(|s| s.hard);
        let counted = |p: &Pod| {
            p.namespace == pod.namespace
                && hard().any(|s| s.who.as_ref().is_none_or(|w| w.selector.matches_labels(&p.labels)))
        };
        let placed = |n: &Node| hard().all(|s| n.labels.contains_key(&s.topology_key));
        match event {
            ClusterEvent::PodAssigned(p) | ClusterEvent::PodGone(p) => counted(p),
            ClusterEvent::PodUpdated(old, new) => old.labels != new.labels && (counted(old) || counted(new)),
            ClusterEvent::NodeAdded(n) | ClusterEvent::NodeGone(n) => placed(n),
            ClusterEvent::NodeUpdated(old, new) => {
                (old.labels != new.labels || old.taints != new.taints || old.unschedulable != new.unschedulable)
                    && (placed(old) || placed(new))
            }
            ClusterEvent::PodAdded(_) | ClusterEvent::Object(_) => false,
        }
    }
}

#[cfg(test)]
#[path = "pod_topology_spread_tests.rs"]
mod tests;

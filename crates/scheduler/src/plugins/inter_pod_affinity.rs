//! `InterPodAffinity`: pods that want, or do not want, certain others in the same place.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::topology::{Domain, TopologyId};
use crate::cache::{Cache, NodeId};
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, PreFilter, Rejection, State, state_as, state_as_mut};
use crate::model::affinity::{Hold, Namespaces, Term, Who};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct InterPodAffinity {
    /// What a pod's required affinity to another is worth to that other.
    pub hard_pod_affinity_weight: i64,
    /// Whether the wishes of pods that are there already count for nothing.
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

/// Pods a term means, by place.
struct Counts {
    topology: TopologyId,
    by_domain: Vec<i64>,
}

impl Counts {
    fn at(&self, node: NodeId, cache: &Cache) -> Option<i64> {
        let d = cache.index.topology(self.topology).of(node)?;
        Some(self.by_domain.get(d as usize).copied().unwrap_or(0))
    }

    fn change(&mut self, node: NodeId, by: i64, cache: &Cache) {
        if let Some(d) = cache.index.topology(self.topology).of(node) {
            let d = d as usize;
            self.by_domain.resize(self.by_domain.len().max(d + 1), 0);
            self.by_domain[d] += by;
        }
    }
}

struct Filter {
    /// For each required term, pods that *all* required terms mean.
    affinity: Vec<Counts>,
    /// For each required anti-affinity term, pods it means.
    anti: Vec<Counts>,
    /// Places kept from this pod by others, and by how many.
    repelled: HashMap<(TopologyId, Domain), i64>,
    /// The topologies among them.
    repelled_in: Vec<TopologyId>,
    /// Whether the pod itself is what its required terms want.
    wants_itself: bool,
}

impl Filter {
    fn repel(&mut self, topology: TopologyId, domain: Domain, by: i64) {
        *self.repelled.entry((topology, domain)).or_default() += by;
        if !self.repelled_in.contains(&topology) {
            self.repelled_in.push(topology);
        }
    }
}

/// What each place is worth, by topology.
#[derive(Default)]
struct Worth(Vec<(TopologyId, Vec<i64>)>);

impl Worth {
    fn add(&mut self, topology: TopologyId, domain: usize, worth: i64) {
        let at = self.0.iter().position(|(t, _)| *t == topology).unwrap_or_else(|| {
            self.0.push((topology, Vec::new()));
            self.0.len() - 1
        });
        let places = &mut self.0[at].1;
        if places.len() <= domain {
            places.resize(domain + 1, 0);
        }
        places[domain] += worth;
    }
}

fn counts(who: &[Arc<Who>], key: &str, cache: &mut Cache) -> Counts {
    let topology = cache.index.topology_id(key);
    let query = cache.index.query(who, true, &cache.objects.namespaces);
    let by_domain = cache.index.by_domain(query, topology).iter().map(|n| i64::from(*n)).collect();
    Counts { topology, by_domain }
}

fn who(t: &Arc<Term>) -> Arc<Who> {
    Arc::new(t.who.clone())
}

fn means(term: &Term, pod: &Pod, namespaces: &Namespaces) -> bool {
    term.who.matches(&pod.namespace, &pod.labels, namespaces)
}

fn means_all(terms: &[Arc<Term>], pod: &Pod, namespaces: &Namespaces) -> bool {
    !terms.is_empty() && terms.iter().all(|t| means(t, pod, namespaces))
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn pre_filter(&self, pod: &Pod, cache: &mut Cache) -> Result<PreFilter, Rejection> {
        let wants = &pod.affinity;
        let all: Vec<Arc<Who>> = wants.required.iter().map(who).collect();
        let affinity = wants.required.iter().map(|t| counts(&all, &t.topology_key, cache)).collect();
        let anti = wants.required_anti.iter().map(|t| counts(&[who(t)], &t.topology_key, cache)).collect();
        let namespaces = &cache.objects.namespaces;
        let mut f = Filter {
            affinity,
            anti,
            repelled: HashMap::new(),
            repelled_in: Vec::new(),
            wants_itself: means_all(&wants.required, pod, namespaces),
        };
        for h in cache.index.held_about(pod, namespaces).filter(|h| h.held.hold == Hold::Repels) {
            for (domain, n) in &h.places {
                f.repel(h.topology, *domain, i64::from(*n));
            }
        }
        if f.affinity.is_empty() && f.anti.is_empty() && f.repelled.is_empty() {
            return Ok(PreFilter::skip());
        }
        Ok(PreFilter::with(f))
    }

    fn filters(&self) -> bool {
        true
    }

    fn filter(&self, state: &State, _: &Pod, _: &Node, info: &NodeInfo, cache: &Cache) -> Result<(), Rejection> {
        let Some(f) = state_as::<Filter>(state) else { return Ok(()) };
        let mut alone = false;
        for c in &f.affinity {
            match c.at(info.id, cache) {
                // A node without the label is no place at all.
                None => return Err(Rejection::unresolvable("node(s) didn't match pod affinity rules")),
                Some(n) => alone |= n <= 0,
            }
        }
        // The first of pods that want each other has nobody to join.
        let first = || f.wants_itself && f.affinity.iter().all(|c| c.by_domain.iter().all(|n| *n <= 0));
        if alone && !first() {
            return Err(Rejection::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if f.anti.iter().any(|c| c.at(info.id, cache).is_some_and(|n| n > 0)) {
            return Err(Rejection::new("node(s) didn't match pod anti-affinity rules"));
        }
        let repelled = f.repelled_in.iter().any(|t| {
            let domain = cache.index.topology(*t).of(info.id);
            domain.and_then(|d| f.repelled.get(&(*t, d))).is_some_and(|n| *n > 0)
        });
        if repelled {
            return Err(Rejection::new("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn suppose(&self, state: &mut State, pod: &Pod, other: &Pod, info: &NodeInfo, added: bool, cache: &Cache) {
        let Some(f) = state_as_mut::<Filter>(state) else { return };
        let by = if added { 1 } else { -1 };
        let namespaces = &cache.objects.namespaces;
        if means_all(&pod.affinity.required, other, namespaces) {
            f.affinity.iter_mut().for_each(|c| c.change(info.id, by, cache));
        }
        for (term, c) in pod.affinity.required_anti.iter().zip(&mut f.anti) {
            if means(term, other, namespaces) {
                c.change(info.id, by, cache);
            }
        }
        for term in other.affinity.required_anti.iter().filter(|t| means(t, pod, namespaces)) {
            let known = cache.index.known_topology(&term.topology_key);
            if let Some((t, d)) = known.and_then(|t| Some((t, cache.index.topology(t).of(info.id)?))) {
                f.repel(t, d, by);
            }
        }
    }

    fn scores(&self) -> bool {
        true
    }

    fn pre_score(&self, pod: &Pod, _: &[NodeId], cache: &mut Cache) -> Option<State> {
        let mut worth = Worth::default();
        for (weight, term) in &pod.affinity.preferred {
            let c = counts(&[who(term)], &term.topology_key, cache);
            for (d, n) in c.by_domain.iter().enumerate().filter(|(_, n)| **n > 0) {
                worth.add(c.topology, d, weight * n);
            }
        }
        let wishes = !pod.affinity.preferred.is_empty();
        if wishes || !self.ignore_preferred_terms_of_existing_pods {
            for h in cache.index.held_about(pod, &cache.objects.namespaces) {
                let weight = match h.held.hold {
                    Hold::Repels => continue,
                    Hold::Requires => self.hard_pod_affinity_weight,
                    Hold::Prefers(_) if self.ignore_preferred_terms_of_existing_pods => continue,
                    Hold::Prefers(weight) => weight,
                };
                for (d, n) in h.places.iter().filter(|_| weight != 0) {
                    worth.add(h.topology, *d as usize, weight * i64::from(*n));
                }
            }
        }
        if worth.0.is_empty() { None } else { Some(Some(Box::new(worth))) }
    }

    fn score(&self, state: &State, _: &Pod, _: &Node, info: &NodeInfo, cache: &Cache) -> i64 {
        let Some(worth) = state_as::<Worth>(state) else { return 0 };
        worth.0.iter().filter_map(|(t, by_domain)| by_domain.get(cache.index.topology(*t).of(info.id)? as usize)).sum()
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream rounds this way")]
    fn normalize(&self, _: &State, scores: &mut [i64]) {
        let (min, max) = scores.iter().fold((i64::MAX, i64::MIN), |(lo, hi), s| (lo.min(*s), hi.max(*s)));
        for s in scores {
            *s = if max > min { (MAX_SCORE as f64 * ((*s - min) as f64 / (max - min) as f64)) as i64 } else { 0 };
        }
    }

    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, cache: &Cache) -> bool {
        let namespaces = &cache.objects.namespaces;
        let has_keys = |n: &Node| {
            let mut keys = pod.affinity.required.iter().chain(&pod.affinity.required_anti);
            keys.any(|t| n.labels.contains_key(&t.topology_key))
        };
        let wanted = |p: &Pod| means_all(&pod.affinity.required, p, namespaces);
        let repels = |p: &Pod| {
            pod.affinity.required_anti.iter().any(|t| means(t, p, namespaces))
                || p.affinity.required_anti.iter().any(|t| means(t, pod, namespaces))
        };
        match event {
            ClusterEvent::PodAssigned(p) => wanted(p),
            ClusterEvent::PodGone(p) => repels(p),
            ClusterEvent::PodUpdated(old, new) => (!wanted(old) && wanted(new)) || (repels(old) && !repels(new)),
            ClusterEvent::NodeAdded(n) => pod.affinity.required.iter().all(|t| n.labels.contains_key(&t.topology_key)),
            ClusterEvent::NodeUpdated(old, new) => old.labels != new.labels && (has_keys(old) || has_keys(new)),
            ClusterEvent::NodeGone(_) | ClusterEvent::PodAdded(_) | ClusterEvent::Object(_) => false,
        }
    }
}

#[cfg(test)]
#[path = "inter_pod_affinity_tests.rs"]
mod tests;

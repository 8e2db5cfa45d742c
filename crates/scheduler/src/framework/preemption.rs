//! Making room: which less important pods would have to go, on which node, for a pod to be placed there.
//!
//! As upstream's `DefaultPreemption`. Nothing is deleted here; the engine hands the victims to whoever carries it out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::extender::Victims;
use super::profile::{Filters, Search};
use super::table::{Room, Table};
use super::{Diagnosis, Rejection};
use crate::cache::{Cache, NodeId};
use crate::model::Pod;

/// How many candidates are looked for before the best of them is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least this share of the nodes, of a hundred.
    pub min_candidate_nodes_percentage: usize,
    /// At least so many.
    pub min_candidate_nodes_absolute: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

/// What becomes of a pod's nomination.
#[derive(Debug)]
pub enum Nomination {
    /// It stays as it is.
    Keep,
    /// Nothing can be promised.
    Clear,
    /// The node is promised; the victims, most important first, are to go.
    Node(String, Vec<Arc<Pod>>),
}

/// What came of looking for room.
#[derive(Debug)]
pub struct Preemption {
    /// Why there is none, in upstream's words; empty when there is.
    pub message: String,
    /// What becomes of the nomination.
    pub nomination: Nomination,
}

/// A node, and what it would cost to make room there.
#[derive(Debug)]
pub(super) struct Candidate {
    node: NodeId,
    victims: Vec<Arc<Pod>>,
    violations: usize,
    /// Fewest broken budgets are best; then the least important most important victim; then the least sum of
    /// priorities; then fewest victims.
    cost: (usize, i32, i64, usize),
}

impl Candidate {
    /// The victims come most important first.
    fn new(node: NodeId, victims: Vec<Arc<Pod>>, violations: usize) -> Arc<Self> {
        let highest = victims.first().map_or(i32::MIN, |p| p.priority);
        // Shifted to be positive, so that many unimportant victims weigh more than few.
        let sum: i64 = victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
        let cost = (violations, highest, sum, victims.len());
        Arc::new(Self { node, victims, violations, cost })
    }
}

fn refused(message: String) -> Preemption {
    Preemption { message: format!("preemption: {message}"), nomination: Nomination::Keep }
}

/// Order of importance: higher priority first, then who began earlier; who has not begun yet comes last.
fn importance(pod: &Pod) -> (Reverse<i32>, bool, &str, &str) {
    (Reverse(pod.priority), pod.started.is_empty(), &pod.started, &pod.uid)
}

/// Looks for room for a pod that no node takes. A table, where there is one, remembers what it would cost.
pub(super) fn preempt(
    config: &Config,
    pod: &Pod,
    cache: &Cache,
    filters: &mut Filters<'_>,
    diagnosis: &Diagnosis,
    search: &mut Search,
    table: Option<&mut Table>,
) -> Preemption {
    if pod.never_preempts {
        return refused("not eligible due to preemptionPolicy=Never.".into());
    }
    if waits_for_victims(pod, cache, diagnosis, table.as_deref()) {
        return refused("not eligible due to a terminating pod on the nominated node.".into());
    }
    let (candidates, rejected) = candidates(config, pod, cache, filters, diagnosis, search, table);
    let candidates = match ask_extenders(pod, candidates, cache, search) {
        Ok(candidates) => candidates,
        Err(why) => return refused(why),
    };
    match best(&candidates) {
        Some(c) => {
            let node = cache.at(c.node).map(|(n, _)| n.name.clone()).unwrap_or_default();
            Preemption { message: String::new(), nomination: Nomination::Node(node, c.victims.clone()) }
        }
        None => {
            let why = explain(diagnosis.nodes, &rejected);
            Preemption { message: format!("preemption: {why}"), nomination: Nomination::Clear }
        }
    }
}

/// What extenders leave of the candidates.
fn ask_extenders(
    pod: &Pod,
    mut candidates: Vec<Arc<Candidate>>,
    cache: &Cache,
    search: &Search,
) -> Result<Vec<Arc<Candidate>>, String> {
    for e in search.extenders.iter().filter(|e| e.is_interested(pod)) {
        if candidates.is_empty() {
            break;
        }
        let asked: BTreeMap<String, Victims> = candidates
            .iter()
            .filter_map(|c| {
                let victims = Victims { pods: c.victims.clone(), violations: c.violations };
                Some((cache.at(c.node)?.0.name.clone(), victims))
            })
            .collect();
        let said = match e.preempt(pod, &asked) {
            None => continue,
            Some(Ok(said)) => said,
            Some(Err(why)) if e.is_ignorable() => {
                tracing::warn!(extender = e.name(), why, "an extender that may be ignored failed");
                continue;
            }
            Some(Err(why)) => return Err(why),
        };
        candidates.clear();
        for (name, v) in said {
            match cache.id(&name) {
                Some(node) if !v.pods.is_empty() => {
                    let mut victims = v.pods;
                    victims.sort_by(|a, b| importance(a).cmp(&importance(b)));
                    candidates.push(Candidate::new(node, victims, v.violations));
                }
                _ if e.is_ignorable() => {}
                _ => return Err(format!("expected at least one victim pod on node {name:?}")),
            }
        }
    }
    Ok(candidates)
}

fn explain(nodes: usize, rejected: &[Arc<Rejection>]) -> String {
    let untried = Some("Preemption is not helpful for scheduling".into());
    let mut tally: HashMap<&Rejection, usize> = HashMap::new();
    rejected.iter().for_each(|r| *tally.entry(r).or_default() += 1);
    let tally = tally.into_iter().map(|(r, n)| (r.clone(), n)).collect();
    Diagnosis { nodes, tally, untried, ..Diagnosis::default() }.message()
}

/// What upstream says where no node could be mended by removing pods.
pub(super) fn not_helpful(nodes: usize) -> String {
    explain(nodes, &[])
}

/// Whether pods already are on their way off the node this one was promised, which may yet do.
fn waits_for_victims(pod: &Pod, cache: &Cache, diagnosis: &Diagnosis, table: Option<&Table>) -> bool {
    let Some((_, info)) = cache.nominated.node_of(&pod.uid).and_then(|n| cache.node(n)) else { return false };
    let hopeless = match table {
        Some(table) => table.rejection(info.id).is_some_and(|r| r.unresolvable),
        None => diagnosis.rejected.iter().any(|(id, r)| *id == info.id && r.unresolvable),
    };
    !hopeless && info.pods.values().any(|p| p.priority < pod.priority && p.deleting && p.preempted)
}

fn candidates(
    config: &Config,
    pod: &Pod,
    cache: &Cache,
    filters: &mut Filters<'_>,
    diagnosis: &Diagnosis,
    search: &mut Search,
    mut table: Option<&mut Table>,
) -> (Vec<Arc<Candidate>>, Vec<Arc<Rejection>>) {
    let (mut found, mut rejected) = (Vec::new(), Vec::new());
    let told: Vec<NodeId>;
    let (nodes, hopeful) = match &table {
        Some(table) => (cache.nodes(), table.hopeful()),
        None => {
            told = diagnosis.rejected.iter().filter(|(_, r)| !r.unresolvable).map(|(id, _)| *id).collect();
            (told.as_slice(), told.len())
        }
    };
    if hopeful == 0 {
        return (found, rejected);
    }
    let wanted =
        (hopeful * config.min_candidate_nodes_percentage / 100).max(config.min_candidate_nodes_absolute).min(hopeful);
    let (before, after) = nodes.split_at(search.random(nodes.len()));
    let mut harmless = false;
    for id in after.iter().chain(before).copied() {
        let mut reckon = || victims_on(pod, id, cache, filters);
        let room = match &mut table {
            Some(table) if table.rejection(id).is_none_or(|r| r.unresolvable) => continue,
            Some(table) => table.room(id, reckon),
            None => reckon(),
        };
        match room {
            Ok(candidate) => {
                harmless |= candidate.violations == 0;
                found.push(candidate);
            }
            Err(rejection) => rejected.push(rejection),
        }
        // One that breaks no budget must be among them, if there is any.
        if found.len() >= wanted && harmless {
            break;
        }
    }
    (found, rejected)
}

/// The fewest and least important pods of a node that must go. All less important ones are supposed gone; then as many
/// as possible are let back, those first whose budget allows no disruption.
pub(super) fn victims_on(pod: &Pod, id: NodeId, cache: &Cache, filters: &mut Filters<'_>) -> Room {
    let nothing = || Arc::new(Rejection::unresolvable("No preemption victims found for incoming pod"));
    let Some((node, there)) = cache.at(id) else { return Err(nothing()) };
    let mut lesser: Vec<Arc<Pod>> = there.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(nothing());
    }
    lesser.sort_by(|a, b| importance(a).cmp(&importance(b)));
    let mut info = there.clone();
    for p in &lesser {
        info.remove(&p.uid);
        filters.suppose(pod, p, &info, false, cache);
    }
    let mut gone: Vec<Arc<Pod>> = Vec::new();
    let answer = match filters.run_with_nominated(pod, node, &info, cache) {
        Err((_, rejection)) => {
            gone.clone_from(&lesser);
            Err(Arc::new(rejection))
        }
        Ok(()) => {
            let (violating, harmless) = by_budget(&lesser, cache);
            let mut violations = 0;
            for (p, violates) in violating.iter().map(|p| (p, true)).chain(harmless.iter().map(|p| (p, false))) {
                info.add((*p).clone());
                filters.suppose(pod, p, &info, true, cache);
                if filters.run_with_nominated(pod, node, &info, cache).is_err() {
                    info.remove(&p.uid);
                    filters.suppose(pod, p, &info, false, cache);
                    violations += usize::from(violates);
                    gone.push((*p).clone());
                }
            }
            gone.sort_by(|a, b| importance(a).cmp(&importance(b)));
            Ok(Candidate::new(id, gone.clone(), violations))
        }
    };
    // The states are as they were for the next node.
    for p in &gone {
        info.add(p.clone());
        filters.suppose(pod, p, &info, true, cache);
    }
    match answer {
        Ok(c) if c.victims.is_empty() => Err(nothing()),
        other => other,
    }
}

/// Parts pods into those whose removal would break a budget and the others, in order of importance.
fn by_budget<'p>(pods: &'p [Arc<Pod>], cache: &Cache) -> (Vec<&'p Arc<Pod>>, Vec<&'p Arc<Pod>>) {
    let mut left: HashMap<(&str, &str), i64> = HashMap::new();
    pods.iter().partition(|p| {
        let mut breaks = false;
        let budgets = cache.objects.budgets.get(&p.namespace);
        for (name, (budget, selector)) in budgets.into_iter().flatten() {
            let guards = !p.labels.is_empty()
                && !selector.is_everything()
                && selector.matches_labels(&p.labels)
                && !budget.status.disrupted_pods.contains_key(&p.name);
            if guards {
                let allowed = left.entry((p.namespace.as_str(), name)).or_insert(budget.status.disruptions_allowed);
                *allowed -= 1;
                breaks |= *allowed < 0;
            }
        }
        breaks
    })
}

/// The cheapest; among equals the one whose most important victims began last.
fn best(candidates: &[Arc<Candidate>]) -> Option<&Arc<Candidate>> {
    candidates.iter().min_by(|a, b| a.cost.cmp(&b.cost).then_with(|| began(b).cmp(&began(a))))
}

/// When the first of the most important victims began; who has not begun yet begins last.
fn began(c: &Candidate) -> (bool, &str) {
    c.victims.first().map_or((true, ""), |p| (p.started.is_empty(), p.started.as_str()))
}

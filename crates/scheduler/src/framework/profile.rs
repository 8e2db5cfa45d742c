//! A profile: a named list of plugins with weights, and the one way through all of them for a pod.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::extender::{self, Extender};
use super::points::{Point, Points};
use super::preemption::{self, Preemption};
use super::table::{Rejected, Table, Tables};
use super::{Action, ClusterEvent, Diagnosis, Permission, Plugin, PreFilter, Rejection, State};
use crate::cache::{Cache, NodeId};
use crate::model::{Node, NodeInfo, Pod};

/// At least so many feasible nodes are looked for before scoring, as upstream.
const MIN_FEASIBLE: usize = 100;

/// Upstream's name of a rejection that removing pods could not mend.
const UNRESOLVABLE: &str = "UnschedulableAndUnresolvable";

/// A plugin and the weight of its score.
pub struct Enabled {
    /// The plugin.
    pub plugin: Box<dyn Plugin>,
    /// Weight of its score.
    pub weight: i64,
    /// Where it is on.
    pub points: Points,
}

/// A named list of plugins.
pub struct Profile {
    /// `spec.schedulerName` of the pods it is for.
    pub name: String,
    /// Plugins in order.
    pub plugins: Vec<Enabled>,
    /// Whether pods may take the room of less important ones, and how hard it looks for it.
    pub preemption: Option<preemption::Config>,
    /// Whether pods' resource claims are served; what upstream then says of a pod that is placed nowhere differs.
    pub serves_claims: bool,
    /// Of how many of a hundred nodes feasible ones are looked for; by the number of nodes when 0.
    pub percentage_of_nodes_to_score: usize,
}

/// Where the search for feasible nodes goes on for the next pod, so that all nodes get their turn, and the seed of the
/// choice among equals.
pub struct Search {
    next: usize,
    random: u64,
    pub(crate) observer: Option<Box<dyn Observer>>,
    pub(crate) extenders: Vec<Arc<dyn Extender>>,
    tables: Tables,
    /// Whether they are used.
    pub(crate) batching: bool,
}

/// Who measures: the framework itself knows no clock.
pub trait Observer: Send {
    /// Seconds since some moment.
    fn now(&self) -> f64;
    /// All plugins of a point have had their say, which took so many seconds.
    fn point(&self, point: &'static str, status: &'static str, profile: &str, seconds: f64);
}

impl Search {
    /// A search with this seed; the same seed and the same cluster give the same placements.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            next: 0,
            random: seed | 1,
            observer: None,
            extenders: Vec::new(),
            tables: Tables::default(),
            batching: true,
        }
    }

    /// The moment, when somebody measures.
    fn now(&self) -> f64 {
        self.observer.as_ref().map_or(0.0, |o| o.now())
    }

    /// A point began at a moment and is over.
    fn over(&self, point: &'static str, status: &'static str, profile: &str, since: f64) {
        if let Some(o) = &self.observer {
            o.point(point, status, profile, o.now() - since);
        }
    }

    /// xorshift: quick, and good enough to spread ties.
    pub(crate) fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % (below.max(1) as u64)).unwrap_or(0)
    }
}

/// Of so many nodes upstream looks for so many feasible ones: all up to 100, then a share that falls from 50 % by one
/// point for each 125 nodes, to 5 % at least.
fn wanted(nodes: usize, percentage: usize) -> usize {
    if nodes <= MIN_FEASIBLE || percentage >= 100 {
        return nodes;
    }
    let percent = if percentage > 0 { percentage } else { 50_usize.saturating_sub(nodes / 125).max(5) };
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

/// The plugins that filter for one pod, with their states.
pub struct Filters<'p> {
    filters: Vec<(&'p dyn Plugin, State)>,
}

impl Filters<'_> {
    /// Asks every filter about a node as `info` has it.
    ///
    /// # Errors
    /// The first that rejects it, and why.
    pub fn run(&self, pod: &Pod, node: &Node, info: &NodeInfo, cache: &Cache) -> Result<(), Rejected> {
        for (plugin, state) in &self.filters {
            if let Err(rejection) = plugin.filter(state, pod, node, info, cache) {
                return Err((plugin.name(), rejection));
            }
        }
        Ok(())
    }

    /// The states follow a pod that is supposed to have come to a node or to have left it.
    pub fn suppose(&mut self, pod: &Pod, other: &Pod, info: &NodeInfo, added: bool, cache: &Cache) {
        for (plugin, state) in &mut self.filters {
            plugin.suppose(state, pod, other, info, added, cache);
        }
    }

    /// Asks every filter about a node, which must do with and without the pods that were promised room there and are as
    /// important as this one.
    ///
    /// # Errors
    /// The first that rejects it, and why.
    pub fn run_with_nominated(
        &mut self,
        pod: &Pod,
        node: &Node,
        info: &NodeInfo,
        cache: &Cache,
    ) -> Result<(), Rejected> {
        let promised = promised(pod, node, info, cache);
        if !promised.is_empty() {
            let mut with = info.clone();
            for p in &promised {
                with.add((*p).clone());
                self.suppose(pod, p, &with, true, cache);
            }
            let answer = self.run(pod, node, &with, cache);
            for p in &promised {
                self.suppose(pod, p, &with, false, cache);
            }
            answer?;
        }
        self.run(pod, node, info, cache)
    }

    /// The same of those filters alone for which only the node and the pods on it matter, which suppose nothing.
    fn run_locally(&self, pod: &Pod, node: &Node, info: &NodeInfo, cache: &Cache) -> Result<(), Rejected> {
        let ask = |info: &NodeInfo| {
            let mut local = self.filters.iter().filter(|(p, _)| p.filters_locally());
            local.try_for_each(|(p, state)| p.filter(state, pod, node, info, cache).map_err(|r| (p.name(), r)))
        };
        let promised = promised(pod, node, info, cache);
        if !promised.is_empty() {
            let mut with = info.clone();
            promised.into_iter().for_each(|p| with.add(p.clone()));
            ask(&with)?;
        }
        ask(info)
    }

    /// Whether only the node and the pods on it matter to every filter.
    fn are_local(&self) -> bool {
        self.filters.iter().all(|(p, _)| p.filters_locally())
    }
}

/// Pods that were promised room on a node, are not there yet, and are as important as this one.
fn promised<'c>(pod: &Pod, node: &Node, info: &NodeInfo, cache: &'c Cache) -> Vec<&'c Arc<Pod>> {
    let all = cache.nominated.on(&node.name).iter();
    all.filter(|p| p.priority >= pod.priority && p.uid != pod.uid && !info.pods.contains_key(&p.uid)).collect()
}

/// What came of trying to place a pod.
pub enum Attempt {
    /// The node chosen.
    Placed(String),
    /// No node takes it; what preemption makes of that, and what the pod gives back.
    Failed(Box<Diagnosis>, Option<Preemption>, Option<Box<Action>>),
    /// Something went wrong that is neither the pod's nor the nodes' fault.
    Error(String),
}

impl Profile {
    fn at(&self, point: Point) -> impl Iterator<Item = &Enabled> {
        self.plugins.iter().filter(move |p| p.points.contains(point))
    }

    /// Whether a pod may enter the queue.
    ///
    /// # Errors
    /// The plugin that keeps it out, and why.
    pub fn pre_enqueue(&self, pod: &Pod, cache: &Cache) -> Result<(), Rejected> {
        self.at(Point::PreEnqueue).try_for_each(|p| p.plugin.pre_enqueue(pod, cache).map_err(|r| (p.plugin.name(), r)))
    }

    /// Whether an event may let a pod be placed that these plugins rejected.
    #[must_use]
    pub fn hint(&self, rejected_by: &[&'static str], event: ClusterEvent<'_>, pod: &Pod, cache: &Cache) -> bool {
        rejected_by.is_empty()
            || self.plugins.iter().any(|p| rejected_by.contains(&p.plugin.name()) && p.plugin.hint(event, pod, cache))
    }

    /// Finds the best node for a pod or, where there is none, room that could be made.
    pub fn place(&self, pod: &Pod, cache: &mut Cache, search: &mut Search) -> Attempt {
        let mut tables = std::mem::take(&mut search.tables);
        let attempt = self.place_knowing(pod, cache, search, &mut tables);
        search.tables = tables;
        attempt
    }

    /// The same, with what is known of nodes for pods alike.
    fn place_knowing(&self, pod: &Pod, cache: &mut Cache, search: &mut Search, tables: &mut Tables) -> Attempt {
        let mut diagnosis = Diagnosis { nodes: cache.nodes().len(), ..Diagnosis::default() };
        let began = search.now();
        let found = self.pre_filter(pod, cache, &mut diagnosis);
        search.over("PreFilter", if found.is_some() { "Success" } else { UNRESOLVABLE }, &self.name, began);
        let Some((mut filters, only)) = found else {
            return self.failed(pod, diagnosis, None, true, cache);
        };
        let promised = cache.nominated.node_of(&pod.uid).and_then(|n| cache.id(n));
        if let Some(id) = promised
            && only.as_ref().is_none_or(|only| only.contains(&id))
            && let Some((node, info)) = cache.at(id)
            && filters.run_with_nominated(pod, node, info, cache).is_ok()
        {
            return Attempt::Placed(node.name.clone());
        }
        let table = (only.is_none() && search.extenders.is_empty() && search.batching)
            .then(|| self.table(pod, cache, &filters, tables));
        if let Some(table) = &table
            && let Some(node) = self.by_scores(pod, cache, &filters, table, search)
        {
            return Attempt::Placed(cache.at(node).map(|(n, _)| n.name.clone()).unwrap_or_default());
        }
        // Where other nodes matter too, it does not say all; else no node takes the pod.
        let began = search.now();
        if let Some(table) = table.filter(|t| filters.are_local() && !t.any_feasible()) {
            for ((plugin, rejection), nodes) in table.rejections() {
                diagnosis.blame(plugin);
                diagnosis.tally.push((rejection.clone(), *nodes));
            }
            search.over("Filter", "Unschedulable", &self.name, began);
            let preempt =
                |config| preemption::preempt(config, pod, cache, &mut filters, &diagnosis, search, Some(table));
            let made = self.preemption.as_ref().map(preempt);
            return self.failed(pod, diagnosis, made, false, cache);
        }
        let feasible = self.feasible(pod, cache, &mut filters, only.as_deref(), search, &mut diagnosis);
        let feasible = match ask_extenders(pod, feasible, cache, search, &mut diagnosis) {
            Ok(feasible) => feasible,
            Err(why) => return Attempt::Error(why),
        };
        search.over("Filter", if feasible.is_empty() { "Unschedulable" } else { "Success" }, &self.name, began);
        let chosen = match feasible.as_slice() {
            [] => {
                let preempt = |config| preemption::preempt(config, pod, cache, &mut filters, &diagnosis, search, None);
                let made = self.preemption.as_ref().map(preempt);
                return self.failed(pod, diagnosis, made, false, cache);
            }
            [one] => *one,
            many => {
                let began = search.now();
                let best = self.best(pod, many, cache, search);
                search.over("Score", "Success", &self.name, began);
                best
            }
        };
        // It is one of the nodes just tried, which all have their object.
        Attempt::Placed(cache.at(chosen).map(|(n, _)| n.name.clone()).unwrap_or_default())
    }

    /// What is known of nodes for pods like this one, brought up to date: nodes on which something changed are asked
    /// again, by the plugins for which only the node and the pods on it matter.
    fn table<'t>(&self, pod: &Pod, cache: &mut Cache, filters: &Filters<'_>, tables: &'t mut Tables) -> &'t mut Table {
        let local = self.at(Point::Score).filter(|p| p.weight > 0 && p.plugin.scores_locally());
        let local: Vec<(&Enabled, State)> =
            local.filter_map(|p| Some((p, p.plugin.pre_score(pod, &[], cache)?))).collect();
        let table = tables.of(pod);
        cache.look_again_for(&pod.uid);
        let known = &*cache;
        table.refresh(known, |id| {
            let (node, info) = known.at(id)?;
            let score =
                || local.iter().map(|(p, state)| p.plugin.score(state, pod, node, info, known) * p.weight).sum();
            Some(filters.run_locally(pod, node, info, known).map(|()| score()))
        });
        cache.look_again_for(&pod.uid);
        table
    }

    /// The best of the nodes that a table leaves, by the other plugins too. Nothing, where none will do or that cannot be
    /// told so.
    fn by_scores(
        &self,
        pod: &Pod,
        cache: &mut Cache,
        filters: &Filters<'_>,
        table: &Table,
        search: &mut Search,
    ) -> Option<NodeId> {
        if !table.any_feasible() {
            return None;
        }
        let scorers: Vec<&Enabled> =
            self.at(Point::Score).filter(|p| p.weight > 0 && !p.plugin.scores_locally()).collect();
        let global: Vec<&(&dyn Plugin, State)> = filters.filters.iter().filter(|(p, _)| !p.filters_locally()).collect();
        if !global.is_empty() && !cache.nominated.is_empty() {
            // Pods that were promised a node may matter on others.
            return None;
        }
        if global.is_empty() && !scorers.iter().any(|p| p.plugin.pre_score(pod, &[], cache).is_some()) {
            return table.best(cache, |n| search.random(n));
        }
        let nodes = cache.nodes();
        let wanted = wanted(nodes.len(), self.percentage_of_nodes_to_score);
        let (mut feasible, mut totals) = (Vec::with_capacity(wanted), Vec::with_capacity(wanted));
        let mut tried = 0;
        while tried < nodes.len() && feasible.len() < wanted {
            let id = nodes[(search.next + tried) % nodes.len()];
            tried += 1;
            let (Some(score), Some((node, info))) = (table.score(id), cache.at(id)) else { continue };
            if global.iter().all(|(plugin, state)| plugin.filter(state, pod, node, info, cache).is_ok()) {
                feasible.push(id);
                totals.push(score);
            }
        }
        if feasible.is_empty() {
            return None;
        }
        search.next = (search.next + tried) % nodes.len();
        add_scores(scorers.into_iter(), pod, &feasible, cache, &mut totals);
        Some(pick(&feasible, &totals, search))
    }

    /// Every node that takes a pod and its score, asked anew.
    #[cfg(test)]
    pub(crate) fn scores_of(&self, pod: &Pod, cache: &mut Cache) -> Vec<(String, i64)> {
        let Some((mut filters, _)) = self.pre_filter(pod, cache, &mut Diagnosis::default()) else { return Vec::new() };
        let takes = |(n, i): &(&Node, &NodeInfo)| filters.run_with_nominated(pod, n, i, cache).is_ok();
        let all: Vec<NodeId> = cache.iter().filter(takes).map(|(_, i)| i.id).collect();
        let mut totals = vec![0; all.len()];
        add_scores(self.at(Point::Score), pod, &all, cache, &mut totals);
        names(&all, cache).into_iter().zip(totals).collect()
    }

    /// What is remembered of the room that could be made on each node, beside what is reckoned anew.
    #[cfg(test)]
    pub(crate) fn rooms_of(&self, pod: &Pod, cache: &mut Cache, search: &mut Search) -> Vec<[String; 2]> {
        let Some((mut filters, None)) = self.pre_filter(pod, cache, &mut Diagnosis::default()) else {
            return Vec::new();
        };
        let table = self.table(pod, cache, &filters, &mut search.tables);
        let mut both = |id: &NodeId| {
            let mut reckon = || preemption::victims_on(pod, *id, cache, &mut filters);
            let anew = format!("{:?}", reckon());
            [format!("{:?}", table.room(*id, reckon)), anew]
        };
        cache.nodes().iter().map(&mut both).collect()
    }

    /// What came of making room, as upstream's chain of plugins words it.
    fn failed(
        &self,
        pod: &Pod,
        mut diagnosis: Diagnosis,
        made: Option<Preemption>,
        before_nodes: bool,
        cache: &Cache,
    ) -> Attempt {
        let mut says = Vec::new();
        let mut gives = None;
        if before_nodes {
            // The plugin of resource claims comes first and finds no state of its own.
            match (self.serves_claims, self.preemption.is_some()) {
                (true, _) => says.push("not found".to_owned()),
                (false, true) => says.push(format!("preemption: {}", preemption::not_helpful(diagnosis.nodes))),
                (false, false) => {}
            }
        } else if made.as_ref().is_none_or(|p| !p.message.is_empty()) {
            if self.serves_claims {
                gives =
                    self.at(Point::PostFilter).find_map(|p| p.plugin.give_back(pod, &diagnosis, cache)).map(Box::new);
                let said = match &gives {
                    Some(_) => "deallocation of ResourceClaim completed",
                    None if pod.resource_claims.is_empty() => "no new claims to deallocate",
                    None => "still not schedulable",
                };
                says.push(said.to_owned());
            }
            says.extend(made.as_ref().map(|p| p.message.clone()));
        }
        diagnosis.post_filter = says.join(", ");
        Attempt::Failed(Box::new(diagnosis), made, gives)
    }

    /// Asks every plugin about the pod; which nodes are worth trying, when not all are.
    fn pre_filter(
        &self,
        pod: &Pod,
        cache: &mut Cache,
        diagnosis: &mut Diagnosis,
    ) -> Option<(Filters<'_>, Option<Vec<NodeId>>)> {
        let mut filters: Vec<(&dyn Plugin, State)> = Vec::with_capacity(self.plugins.len());
        let mut only: Option<Vec<String>> = None;
        let mut chose: BTreeSet<&'static str> = BTreeSet::new();
        for p in &self.plugins {
            let filters_nodes = p.points.contains(Point::Filter);
            // Those without a state of their own filter by what the pod and the node say.
            let answer = if p.points.contains(Point::PreFilter) {
                p.plugin.pre_filter(pod, cache)
            } else {
                Ok(PreFilter { skip: !p.plugin.filters(), ..PreFilter::default() })
            };
            match answer {
                Ok(pre) => {
                    if let Some(nodes) = pre.nodes {
                        chose.insert(p.plugin.name());
                        only = Some(match only.take() {
                            Some(before) => before.into_iter().filter(|n| nodes.contains(n)).collect(),
                            None => nodes,
                        });
                        if only.as_ref().is_some_and(Vec::is_empty) {
                            chose.iter().for_each(|name| diagnosis.blame(name));
                            let names: Vec<&str> = chose.iter().copied().collect();
                            diagnosis.pre_filter = Some(match names.as_slice() {
                                [one] => format!("node(s) didn't satisfy plugin {one}"),
                                all => format!("node(s) didn't satisfy plugin(s) [{}] simultaneously", all.join(" ")),
                            });
                            return None;
                        }
                    }
                    if !pre.skip && filters_nodes {
                        filters.push((&*p.plugin, pre.state));
                    }
                }
                Err(rejection) => {
                    diagnosis.blame(p.plugin.name());
                    diagnosis.pre_filter = Some(rejection.text());
                    return None;
                }
            }
        }
        let only = only.map(|names| {
            chose.iter().for_each(|name| diagnosis.blame(name));
            let names_of = chose.iter().copied().collect::<Vec<_>>().join(" ");
            diagnosis.untried = Some(format!("node(s) didn't satisfy plugin(s) [{names_of}]").into());
            names.iter().filter_map(|n| cache.id(n)).collect()
        });
        Some((Filters { filters }, only))
    }

    fn feasible(
        &self,
        pod: &Pod,
        cache: &Cache,
        filters: &mut Filters<'_>,
        only: Option<&[NodeId]>,
        search: &mut Search,
        diagnosis: &mut Diagnosis,
    ) -> Vec<NodeId> {
        let nodes = only.unwrap_or(cache.nodes());
        let wanted = wanted(nodes.len(), self.percentage_of_nodes_to_score);
        let mut out = Vec::with_capacity(wanted);
        let mut tried = 0;
        let start = if only.is_some() { 0 } else { search.next };
        while tried < nodes.len() && out.len() < wanted {
            let id = nodes[(start + tried) % nodes.len()];
            tried += 1;
            let Some((node, info)) = cache.at(id) else { continue };
            match filters.run_with_nominated(pod, node, info, cache) {
                Ok(()) => out.push(id),
                Err((plugin, rejection)) => {
                    diagnosis.blame(plugin);
                    diagnosis.rejected.push((id, rejection));
                }
            }
        }
        if only.is_none() {
            search.next = if nodes.is_empty() { 0 } else { (search.next + tried) % nodes.len() };
        }
        out
    }

    fn best(&self, pod: &Pod, feasible: &[NodeId], cache: &mut Cache, search: &mut Search) -> NodeId {
        let mut totals = vec![0; feasible.len()];
        add_scores(self.at(Point::Score), pod, feasible, cache, &mut totals);
        add_extenders(pod, feasible, cache, search, &mut totals);
        pick(feasible, &totals, search)
    }

    /// Takes what a pod needs of the node chosen for it.
    ///
    /// # Errors
    /// The plugin that could not, and why; what others took is given back.
    pub fn reserve(&self, pod: &Pod, node: &str, cache: &mut Cache) -> Result<Vec<Action>, Rejected> {
        let mut actions = Vec::new();
        let Some(node) = cache.node(node).and_then(|(_, info)| info.node.clone()) else { return Ok(actions) };
        for p in self.at(Point::Reserve) {
            match p.plugin.reserve(pod, &node, cache) {
                Ok(more) => actions.extend(more),
                Err(rejection) => {
                    self.unreserve(pod, cache);
                    return Err((p.plugin.name(), rejection));
                }
            }
        }
        Ok(actions)
    }

    /// Asks whether a pod may be bound to the node it was put on; the plugins it has to wait for.
    ///
    /// # Errors
    /// The plugin that will not have it, and why.
    pub fn permit(&self, pod: &Pod, node: &str, cache: &Cache) -> Result<Vec<(&'static str, Permission)>, Rejected> {
        let mut waits = Vec::new();
        for p in self.at(Point::Permit) {
            match p.plugin.permit(pod, node, cache) {
                Ok(Permission::Allow) => {}
                Ok(wait) => waits.push((p.plugin.name(), wait)),
                Err(rejection) => return Err((p.plugin.name(), rejection)),
            }
        }
        Ok(waits)
    }

    /// The plugins that allow a waiting pod because they allowed another one.
    pub fn allow_too(&self, allowed: &Pod, waiting: &Pod) -> impl Iterator<Item = &'static str> {
        self.at(Point::Permit).filter(|p| p.plugin.allows_too(allowed, waiting)).map(|p| p.plugin.name())
    }

    /// Gives back what [`Profile::reserve`] took.
    pub fn unreserve(&self, pod: &Pod, cache: &mut Cache) {
        self.at(Point::Reserve).for_each(|p| p.plugin.unreserve(pod, cache));
    }
}

/// Adds what plugins think of nodes, weighed.
fn add_scores<'p>(
    scorers: impl Iterator<Item = &'p Enabled>,
    pod: &Pod,
    feasible: &[NodeId],
    cache: &mut Cache,
    totals: &mut [i64],
) {
    let mut scores = vec![0_i64; feasible.len()];
    for p in scorers.filter(|p| p.weight > 0) {
        let Some(state) = p.plugin.pre_score(pod, feasible, cache) else { continue };
        for (score, id) in scores.iter_mut().zip(feasible) {
            *score = cache.at(*id).map_or(0, |(node, info)| p.plugin.score(&state, pod, node, info, cache));
        }
        p.plugin.normalize(&state, &mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * p.weight;
        }
    }
}

/// One of the nodes with the highest score. There is at least one node.
fn pick(feasible: &[NodeId], totals: &[i64], search: &mut Search) -> NodeId {
    let top = totals.iter().copied().max().unwrap_or(0);
    let mut chosen = 0;
    let mut equals = 0;
    for (i, _) in totals.iter().enumerate().filter(|(_, t)| **t == top) {
        equals += 1;
        if search.random(equals) == 0 {
            chosen = i;
        }
    }
    feasible[chosen]
}

fn names(nodes: &[NodeId], cache: &Cache) -> Vec<String> {
    nodes.iter().filter_map(|id| Some(cache.at(*id)?.0.name.clone())).collect()
}

/// What extenders leave of the nodes that the plugins found.
fn ask_extenders(
    pod: &Pod,
    mut feasible: Vec<NodeId>,
    cache: &Cache,
    search: &Search,
    diagnosis: &mut Diagnosis,
) -> Result<Vec<NodeId>, String> {
    for e in search.extenders.iter().filter(|e| e.is_interested(pod)) {
        if feasible.is_empty() {
            break;
        }
        let said = match e.filter(pod, &names(&feasible, cache)) {
            None => continue,
            Some(Ok(said)) => said,
            Some(Err(why)) if e.is_ignorable() => {
                tracing::warn!(extender = e.name(), why, "an extender that may be ignored failed");
                continue;
            }
            Some(Err(why)) => return Err(why),
        };
        feasible.retain(|id| {
            let Some((node, _)) = cache.at(*id) else { return false };
            if said.nodes.contains(&node.name) {
                return true;
            }
            let rejection = match (said.unresolvable.get(&node.name), said.failed.get(&node.name)) {
                (Some(why), _) => Rejection::unresolvable(why.clone()),
                (None, why) => Rejection::new(why.cloned().unwrap_or_default()),
            };
            diagnosis.rejected.push((*id, rejection));
            false
        });
    }
    Ok(feasible)
}

/// Adds what extenders think of nodes.
fn add_extenders(pod: &Pod, feasible: &[NodeId], cache: &Cache, search: &Search, totals: &mut [i64]) {
    for e in search.extenders.iter().filter(|e| e.is_interested(pod)) {
        match e.prioritize(pod, &names(feasible, cache)) {
            None => {}
            Some(Ok(scores)) => {
                for (total, id) in totals.iter_mut().zip(feasible) {
                    let score = cache.at(*id).and_then(|(n, _)| scores.get(&n.name)).copied().unwrap_or(0);
                    let weighed = score.saturating_mul(super::MAX_SCORE / extender::MAX_EXTENDER_PRIORITY);
                    *total = total.saturating_add(weighed);
                }
            }
            Some(Err(why)) => tracing::warn!(extender = e.name(), why, "an extender gave no scores"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_are_wanted() {
        for (nodes, percentage, want) in [
            (1, 0, 1),
            (100, 0, 100),
            (150, 0, 100),
            (1000, 0, 420),
            (5000, 0, 500),
            (10_000, 0, 500),
            (1000, 100, 1000),
            (1000, 20, 200),
            (1000, 5, 100),
        ] {
            assert_eq!(wanted(nodes, percentage), want, "{nodes} {percentage}");
        }
    }
}

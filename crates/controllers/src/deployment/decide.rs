//! One step of a Deployment: what to write, and the status that follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::replicasets::{HASH_LABEL, by_age, desired, find_new, is_rolling, name_of, size, template_hash};
use super::{conditions, revision, scaling};
use crate::support::pods::Pod;

/// What a step is decided on.
#[derive(Debug)]
pub struct Snapshot {
    pub deployment: Deployment,
    pub replica_sets: Vec<ReplicaSet>,
    /// Pods of these ReplicaSets.
    pub pods: Vec<Arc<Pod>>,
}

/// One write, in order.
#[derive(Debug)]
pub enum Write {
    Create(Box<ReplicaSet>),
    Update(Box<ReplicaSet>),
    Delete(Box<ReplicaSet>),
    Deployment(Box<Deployment>),
    /// An Event about scaling, once the writes before it succeeded.
    Event(String),
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    pub writes: Vec<Write>,
    /// The new status, when it changes.
    pub status: Option<DeploymentStatus>,
    /// The Deployment's annotations, written with the status.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Other Events: reason, message, whether normal.
    pub events: Vec<(&'static str, String, bool)>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// A step in the making: the ReplicaSets as they are after the writes so far.
struct Step<'a> {
    d: Deployment,
    all: Vec<ReplicaSet>,
    new: Option<usize>,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    writes: Vec<Write>,
}

pub fn decide(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let d = &snapshot.deployment;
    let mut step = Step {
        d: d.clone(),
        new: find_new(d, &snapshot.replica_sets),
        all: snapshot.replica_sets.clone(),
        pods: &snapshot.pods,
        now,
        writes: Vec::new(),
    };
    if d.metadata.deletion_timestamp.is_some() {
        let status = conditions::status(&step.d, &step.all, step.new_set(), now);
        return step.finish(d, status);
    }
    if let Some(status) = conditions::paused(d, now) {
        step.d.status = Some(status);
    }
    let paused = d.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    if !paused && let Some(to) = revision::rollback_to(d) {
        let (back, event) = revision::roll_back(d, &step.all, to);
        return Plan { writes: vec![Write::Deployment(Box::new(back))], events: vec![event], ..Plan::default() };
    }
    if paused || scaling::is_scaling(d, &step.all) {
        step.revise();
        step.resize(scaling::proportional(d, &step.all, step.new));
        if paused {
            step.clean_up();
        }
        let status = conditions::status(&step.d, &step.all, step.new_set(), now);
        return step.finish(d, status);
    }
    if is_rolling(d) {
        step.roll();
    } else {
        step.recreate();
    }
    let status = conditions::rollout(&step.d, &step.all, step.new_set(), now);
    step.finish(d, status)
}

impl Step<'_> {
    fn new_set(&self) -> Option<&ReplicaSet> {
        self.new.map(|i| &self.all[i])
    }

    fn old_sets(&self) -> Vec<ReplicaSet> {
        self.all.iter().enumerate().filter(|(i, _)| Some(*i) != self.new).map(|(_, r)| r.clone()).collect()
    }

    fn finish(self, d: &Deployment, status: DeploymentStatus) -> Plan {
        let again = conditions::stuck_check(&self.d, &status, self.now);
        let changed = d.status.as_ref() != Some(&status) || d.metadata.annotations != self.d.metadata.annotations;
        Plan {
            writes: self.writes,
            status: changed.then_some(status),
            annotations: self.d.metadata.annotations,
            again,
            ..Plan::default()
        }
    }

    /// Brings the newest ReplicaSet's annotations, and the Deployment's revision, up to date.
    fn revise(&mut self) {
        let Some(i) = self.new else { return };
        let next = revision::next(&self.old_sets());
        let min_ready = self.d.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let rs = &mut self.all[i];
        let mut changed = revision::annotate_new(&self.d, rs, next, true);
        if let Some(spec) = &mut rs.spec
            && spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
        {
            spec.min_ready_seconds = min_ready;
            changed = true;
        }
        if changed {
            let rs = Box::new(rs.clone());
            self.writes.push(Write::Update(rs));
        }
        self.set_revision(revision::of(&self.all[i]));
        let status = self.d.status.get_or_insert_default();
        if conditions::has_deadline(&Deployment { spec: self.d.spec.clone(), ..Deployment::default() })
            && conditions::get(status, "Progressing").is_none()
        {
            let message = format!("Found new replica set {:?}", name_of(&self.all[i]));
            conditions::set(status, conditions::new("Progressing", "True", "FoundNewReplicaSet", message, self.now));
        }
    }

    fn set_revision(&mut self, n: i64) {
        self.d.metadata.annotations.get_or_insert_default().insert(revision::REVISION.into(), n.to_string());
    }

    /// Finds or makes the newest ReplicaSet.
    fn ensure_new(&mut self) {
        if self.new.is_some() {
            return self.revise();
        }
        let hash = template_hash(&self.d);
        let next = revision::next(&self.all);
        let mut rs = new_replica_set(&self.d, &hash);
        let replicas = scaling::new_size(&self.d, super::replicasets::sum(&self.all, size), 0);
        if let Some(spec) = &mut rs.spec {
            spec.replicas = Some(replicas);
        }
        revision::annotate_new(&self.d, &mut rs, next, false);
        let name = name_of(&rs).to_owned();
        self.writes.push(Write::Create(Box::new(rs.clone())));
        if replicas > 0 {
            self.writes.push(Write::Event(format!("Scaled up replica set {name} from 0 to {replicas}")));
        }
        self.all.push(rs);
        self.new = Some(self.all.len() - 1);
        self.set_revision(next);
        if conditions::has_deadline(&self.d) {
            let message = format!("Created new replica set {name:?}");
            let c = conditions::new("Progressing", "True", "NewReplicaSetCreated", message, self.now);
            conditions::set(self.d.status.get_or_insert_default(), c);
        }
    }

    /// Sets sizes; says whether one changed.
    fn resize(&mut self, sizes: scaling::Sizes) -> bool {
        let mut any = false;
        for (i, n) in sizes {
            let rs = &mut self.all[i];
            let before = size(rs);
            let annotated = revision::set_sizes(rs, &self.d);
            if before == n && !annotated {
                continue;
            }
            if let Some(spec) = &mut rs.spec {
                spec.replicas = Some(n);
            }
            let copy = Box::new(rs.clone());
            let name = name_of(rs).to_owned();
            // One write of an object a step: a second one would carry a resourceVersion that the first made old.
            self.writes.retain(|w| !matches!(w, Write::Update(r) if name_of(r) == name));
            self.writes.push(Write::Update(copy));
            if before != n {
                any = true;
                let way = if n > before { "up" } else { "down" };
                self.writes.push(Write::Event(format!("Scaled {way} replica set {name} from {before} to {n}")));
            }
        }
        any
    }

    fn roll(&mut self) {
        let made = self.new.is_none();
        self.ensure_new();
        let Some(new) = self.new.filter(|_| !made) else { return };
        if let Some(n) = scaling::roll_new(&self.d, &self.all, new) {
            self.resize(vec![(new, n)]);
            return;
        }
        if self.resize(scaling::roll_old(&self.d, &self.all, Some(new))) {
            return;
        }
        self.clean_up_when_complete();
    }

    fn recreate(&mut self) {
        if self.new.is_some() {
            self.revise();
        }
        let old: scaling::Sizes =
            (0..self.all.len()).filter(|i| Some(*i) != self.new && size(&self.all[*i]) > 0).map(|i| (i, 0)).collect();
        if self.resize(old) || self.old_pods_run() {
            return;
        }
        let made = self.new.is_none();
        if made {
            self.ensure_new();
            return;
        }
        if let Some(new) = self.new
            && size(&self.all[new]) != desired(&self.d)
        {
            self.resize(vec![(new, desired(&self.d))]);
        }
        self.clean_up_when_complete();
    }

    fn old_pods_run(&self) -> bool {
        let new_uid = self.new_set().and_then(|r| r.metadata.uid.as_deref());
        self.pods.iter().any(|p| !p.is_terminal() && p.metadata.controller().map(|o| o.uid.as_str()) != new_uid)
    }

    fn clean_up_when_complete(&mut self) {
        if self.d.status.as_ref().is_some_and(|s| conditions::complete(&self.d, s)) {
            self.clean_up();
        }
    }

    /// Deletes old ReplicaSets beyond the history limit.
    fn clean_up(&mut self) {
        let Some(limit) = self.d.spec.as_ref().and_then(|s| s.revision_history_limit).filter(|n| *n != i32::MAX) else {
            return;
        };
        let mut old: Vec<ReplicaSet> =
            self.old_sets().into_iter().filter(|r| r.metadata.deletion_timestamp.is_none()).collect();
        let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by(|a, b| revision::of(a).cmp(&revision::of(b)).then_with(|| by_age(a, b)));
        for rs in old.into_iter().take(excess) {
            let status = rs.status.clone().unwrap_or_default();
            if status.replicas == 0 && size(&rs) == 0 && rs.metadata.generation <= status.observed_generation {
                self.writes.push(Write::Delete(Box::new(rs)));
            }
        }
    }
}

fn new_replica_set(d: &Deployment, hash: &str) -> ReplicaSet {
    let spec = d.spec.clone().unwrap_or_default();
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.into());
    let name = d.metadata.name.clone().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: d.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name,
                uid: d.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

//! DaemonSet: one pod on every node that fits.

mod decide;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod as TypedPod;
use parking_lot::Mutex;
use pintle_api::selector::Selector;
use pintle_client::client::encode;
use pintle_client::informers::View;
use pintle_client::meta::key;
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Backoff, Error, Informer, Key};
use tokio::time::Instant;

use crate::context::{Context, Outcome, listen};
use crate::support::history::{self, Revisions, Synced};
use crate::support::nodes::{self, Node};
use crate::support::owned::{Kinds, Owned, Workload};
use crate::support::ownership::concerned;
use crate::support::pods::{self, Pod};
use crate::support::status;

use decide::{Plan, Snapshot};

const WORKERS: usize = 2;

struct Controller {
    cx: Context,
    sets: Informer,
    pods: Arc<Owned<Workload, Pod>>,
    nodes: View<Node>,
    revisions: Revisions,
    /// Pods that failed are made anew later and later, by set and node.
    failures: Mutex<std::collections::HashMap<(Key, String), (Backoff, Instant)>>,
}

/// The controller.
pub async fn run(cx: Context) {
    let sets = cx.informers.of::<DaemonSet>();
    let kinds = Kinds {
        owner: resource_of::<DaemonSet>(),
        owners: Workload::view(&sets),
        object: resource_of::<TypedPod>(),
        objects: pods::view(&cx.informers),
    };
    let me = Arc::new(Controller {
        sets,
        pods: Owned::start(&cx, "daemonset", kinds),
        nodes: nodes::view(&cx.informers),
        revisions: Revisions::new(&cx.informers),
        failures: Mutex::default(),
        cx: cx.clone(),
    });
    listen(&me.nodes, &me, |me, change| {
        let same = change.before().zip(change.now()).is_some_and(|(a, b)| {
            a.metadata.labels == b.metadata.labels
                && a.spec.taints == b.spec.taints
                && a.spec.unschedulable == b.spec.unschedulable
        });
        if !same {
            me.sets.keys().into_iter().for_each(|k| me.pods.queue.add(k));
        }
    });
    listen(&me.revisions.metas, &me, |me, change| {
        let m = &change.last().metadata;
        for owner in [concerned(change, resource_of::<DaemonSet>()).now].into_iter().flatten() {
            me.pods.queue.add(key(&m.namespace, &owner.name).into());
        }
    });
    let queue = me.pods.queue.clone();
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.sets.get(k) else {
            self.pods.expectations.forget(k);
            self.failures.lock().retain(|(s, _), _| s != k);
            return Ok(None);
        };
        let set: DaemonSet = decode(&object)?;
        let about = reference_of(&set);
        let Some(selector) = selector(&set) else { return Ok(None) };
        if selector.is_everything() {
            self.cx.recorder.warning(
                &about,
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.",
            );
            return Ok(None);
        }
        if object.is_deleting() {
            return Ok(None);
        }
        let Some(spec) = &set.spec else { return Ok(None) };
        let owner = history::Owner {
            reference: decide::owner_reference(&set),
            namespace: object.namespace(),
            collisions: set.status.as_ref().and_then(|s| s.collision_count),
        };
        let revisions = self.revisions.of_owner(object.uid())?;
        let current = match history::sync(&self.cx.client, &owner, &spec.template, &revisions).await? {
            Synced::Current(r) => *r,
            Synced::Collision => {
                let mut s = set.status.clone().unwrap_or_default();
                s.collision_count = Some(s.collision_count.unwrap_or(0).saturating_add(1));
                status::put(&self.cx.client, resource_of::<DaemonSet>(), &object, &s).await?;
                return Ok(None);
            }
        };
        let hash =
            current.metadata.labels.as_ref().and_then(|l| l.get(history::HASH_LABEL)).cloned().unwrap_or_default();
        let Some(owner) = self.pods.owners.get(k).filter(|o| o.metadata.uid == object.uid()) else { return Ok(None) };
        let pods = self.pods.claim(&owner, |p| !p.is_deleting()).await?;
        let now = self.cx.clock.now();
        let snapshot = Snapshot { set: &set, hash: &hash, nodes: self.nodes.list(), pods };
        let met = self.pods.expectations.met(k);
        let plan = if met { decide::decide(&snapshot, now) } else { Plan::default() };
        let (again, failed) = self.apply(k, &set, &hash, plan).await;

        let pods_hash =
            |r: &ControllerRevision| r.metadata.labels.as_ref().and_then(|l| l.get(history::HASH_LABEL)).cloned();
        let used = |r: &ControllerRevision| {
            r.metadata.name == current.metadata.name
                || snapshot.pods.iter().any(|p| p.metadata.labels.get(history::HASH_LABEL) == pods_hash(r).as_deref())
        };
        history::truncate(&self.cx.client, &revisions, spec.revision_history_limit.unwrap_or(10), used).await?;
        let new = decide::status(&snapshot, now);
        if set.status.as_ref() != Some(&new) {
            status::put(&self.cx.client, resource_of::<DaemonSet>(), &object, &new).await?;
        }
        match failed {
            Some(e) => Err(e),
            None => Ok([again, decide::next_available(&snapshot, now)].into_iter().flatten().min()),
        }
    }

    async fn apply(&self, k: &Key, set: &DaemonSet, hash: &str, plan: Plan) -> (Option<Duration>, Option<Error>) {
        let about = reference_of(set);
        let mut again: Option<Duration> = None;
        let mut doomed = plan.delete;
        for (pod, failed) in plan.ended {
            let node = pod.target_node().to_owned();
            let name = &pod.metadata.name;
            if failed {
                if let Some(wait) = self.wait_after_failure(k, &node) {
                    again = Some(again.map_or(wait, |a| a.min(wait)));
                    continue;
                }
                self.cx.recorder.warning(
                    &about,
                    "FailedDaemonPod",
                    format!(
                        "Found failed daemon pod {}/{name} on node {node}, will try to kill it",
                        pod.metadata.namespace
                    ),
                );
            } else {
                self.cx.recorder.normal(
                    &about,
                    "SucceededDaemonPod",
                    format!(
                        "Found succeeded daemon pod {}/{name} on node {node}, will try to delete it",
                        pod.metadata.namespace
                    ),
                );
            }
            doomed.push(pod);
        }
        if plan.create.is_empty() && doomed.is_empty() {
            return (again, None);
        }
        self.pods.expectations.expect(k, plan.create.len(), doomed.iter().map(|p| p.metadata.name.clone()));
        let bodies: Vec<TypedPod> = plan.create.iter().map(|node| decide::pod(set, hash, node)).collect();
        let error = self.pods.create(k, about.clone(), bodies.len(), move |i| encode(&bodies[i])).await;
        let failed = self.pods.delete(k, about, doomed).await;
        (again, error.or(failed))
    }

    /// How long a failed pod's successor has to wait; `None` when its time has come.
    fn wait_after_failure(&self, k: &Key, node: &str) -> Option<Duration> {
        let mut failures = self.failures.lock();
        let now = Instant::now();
        let id = (k.clone(), node.to_owned());
        if let Some((_, until)) = failures.get(&id).filter(|(_, until)| *until > now) {
            return Some(*until - now);
        }
        let fresh = || (Backoff::new(Duration::from_secs(1), Duration::from_secs(900), 0.0), now);
        let entry = failures.entry(id).or_insert_with(fresh);
        if now.duration_since(entry.1) > Duration::from_secs(1800) {
            *entry = fresh();
        }
        entry.1 = now + entry.0.next_delay();
        None
    }
}

fn selector(set: &DaemonSet) -> Option<Selector> {
    Selector::from_object(Some(&set.spec.as_ref()?.selector)).ok()
}

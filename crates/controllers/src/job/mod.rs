//! Job: pods that run to their end, each end counted exactly once. A pod keeps a finalizer until its end is in the
//! Job's status, so that no end is lost when the pod goes.

mod decide;
mod indexes;
mod policy;
mod template;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod as TypedPod;
use parking_lot::Mutex;
use pintle_api::selector::Selector;
use pintle_client::informers::BY_CONTROLLER;
use pintle_client::meta::{MetaOnly, key, split_key};
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Cache, Change, Error, Informer, Key, Patch, WorkQueue};
use serde_json::json;

use crate::context::{Context, Outcome};
use crate::support::expectations::Expectations;
use crate::support::ownership::{Claimer, concerned, controller_of};
use crate::support::pods::{self, Pod};
use crate::support::{batch, status};

use decide::{Plan, Snapshot};

const WORKERS: usize = 5;
/// Keeps a pod until its end was counted.
pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Keys of pods whose Job is gone: their finalizer must go too.
const ORPHAN: &str = "\0orphan/";

/// Failures of a Job's pods since the last success: what delays the next pod.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failures {
    pub count: u32,
    pub last: Option<Timestamp>,
}

struct Controller {
    cx: Context,
    jobs: Informer,
    pods: Cache<Pod>,
    expectations: Expectations,
    failures: Mutex<HashMap<Key, Failures>>,
    /// resourceVersion of each Job's last status. Ends that are in it, but not yet in the cache, would be missed.
    written: Mutex<HashMap<Key, u64>>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        jobs: cx.informers.of::<Job>(),
        pods: pods::view(&cx.informers),
        expectations: Expectations::default(),
        failures: Mutex::default(),
        written: Mutex::default(),
        queue: WorkQueue::default(),
        cx,
    });
    let weak = Arc::downgrade(&me);
    me.jobs.on_change(move |change| {
        let Some(me) = weak.upgrade() else { return };
        let replaced = change.before().zip(change.now()).is_some_and(|(a, b)| a.uid() != b.uid());
        if change.now().is_none() || replaced {
            me.expectations.forget(change.key());
            me.failures.lock().remove(change.key());
            me.written.lock().remove(change.key());
            me.release_all(change.last().uid());
        }
        me.queue.add(change.key().clone());
    });
    let weak = Arc::downgrade(&me);
    me.pods.on_change(move |change| {
        if let Some(me) = weak.upgrade() {
            me.pod_changed(change);
        }
    });
    let (cx, queue) = (me.cx.clone(), me.queue.clone());
    cx.work(&queue, WORKERS, move |key| {
        let me = me.clone();
        async move {
            match key.strip_prefix(ORPHAN) {
                Some(pod) => me.release(pod).await,
                None => me.sync(&key).await,
            }
        }
    })
    .await;
}

fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == FINALIZER)
}

impl Controller {
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.last();
        let concerned = concerned(change, resource_of::<Job>());
        let namespace = &pod.metadata.namespace;
        if let Some(owner) = &concerned.now {
            let k = key(namespace, &owner.name);
            match change {
                Change::Added(_, p) if !p.is_deleting() => self.expectations.created(&k, 1),
                _ if change.now().is_none_or(|p| p.is_deleting()) => self.expectations.deleted(&k, &pod.metadata.name),
                _ => {}
            }
            if self.jobs.get(&k).is_none_or(|j| j.uid() != owner.uid) && change.now().is_some() && has_finalizer(pod) {
                // Its Job may only be late in the cache: the check asks the API.
                self.queue.add(format!("{ORPHAN}{}", change.key()).into());
            }
        } else if change.now().is_some() && has_finalizer(pod) && pod.metadata.controller().is_none() {
            self.queue.add(format!("{ORPHAN}{}", change.key()).into());
        }
        for owner in [concerned.before, concerned.now].into_iter().flatten() {
            self.queue.add(key(namespace, &owner.name).into());
        }
        if concerned.orphan {
            for (k, object) in self.jobs.namespace_entries(namespace) {
                let selector = decode::<Job>(&object).ok().and_then(|j| selector(&j));
                if selector.is_some_and(|s| !s.is_everything() && s.matches_map(Some(&pod.metadata.labels))) {
                    self.queue.add(k);
                }
            }
        }
    }

    fn release_all(&self, job: &str) {
        for pod in self.pods.by_index(BY_CONTROLLER, job).iter().filter(|p| has_finalizer(p)) {
            self.queue.add(format!("{ORPHAN}{}", pod.metadata.key()).into());
        }
    }

    /// Takes the finalizer from a pod whose Job is no more.
    async fn release(&self, pod: &str) -> Outcome {
        let Some(pod) = self.pods.get(pod).filter(|p| has_finalizer(p)) else { return Ok(None) };
        if let Some(owner) = controller_of(&pod.metadata, resource_of::<Job>()) {
            let job = self.cx.client.of::<Job>().get_opt(&pod.metadata.namespace, &owner.name).await?;
            let lives = job.is_some_and(|j| j.metadata.uid.as_ref() == Some(&owner.uid) && decide::is_ours(&j));
            if lives {
                return Ok(None);
            }
        }
        self.drop_finalizer(&pod).await?;
        Ok(None)
    }

    async fn drop_finalizer(&self, pod: &Pod) -> Result<(), Error> {
        let m = &pod.metadata;
        let rest: Vec<&String> = m.finalizers.iter().filter(|f| *f != FINALIZER).collect();
        let patch = Patch::merge(
            &json!({"metadata": {"uid": m.uid, "resourceVersion": m.resource_version, "finalizers": rest}}),
        )?;
        match self.cx.client.of::<TypedPod>().patch(&m.namespace, &m.name, patch).await {
            // Someone changed it meanwhile: its event brings us back.
            Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
            _ => Ok(()),
        }
    }

    async fn sync(self: &Arc<Self>, k: &Key) -> Outcome {
        let Some(object) = self.jobs.get(k) else { return Ok(None) };
        if self.written.lock().get(k).is_some_and(|v| object.resource_version() < *v) {
            // The cache is behind our own write; its event brings us back.
            return Ok(None);
        }
        let job: Job = decode(&object)?;
        if decide::is_finished(&job) || !decide::is_ours(&job) {
            if decide::is_finished(&job) {
                self.failures.lock().remove(k);
                self.release_finished(&object).await?;
            }
            return Ok(None);
        }
        let Some(selector) = selector(&job) else { return Ok(None) };
        let meta: MetaOnly = decode(&object)?;
        let claimer = Claimer {
            client: &self.cx.client,
            owner_resource: resource_of::<Job>(),
            owner: &meta.metadata,
            resource: resource_of::<TypedPod>(),
        };
        let mut candidates = self.pods.by_index(BY_CONTROLLER, object.uid());
        let orphans = self.pods.by_index(BY_CONTROLLER, "");
        candidates.extend(orphans.into_iter().filter(|p| p.metadata.namespace == object.namespace()));
        let fits = |m: &pintle_client::Meta| !selector.is_everything() && selector.matches_map(Some(&m.labels));
        let pods = claimer.claim(candidates, fits, |p| !p.is_deleting()).await?;

        let now = self.cx.clock.now();
        let met = self.expectations.met(k);
        let failures = self.failures.lock().get(k).copied().unwrap_or_default();
        let snapshot = Snapshot { job: &job, pods, failures, may_scale: met };
        let plan = decide::decide(&snapshot, now);
        self.failures.lock().insert(k.clone(), plan.failures);
        self.apply(k, &object, &snapshot, plan).await
    }

    async fn apply(
        self: &Arc<Self>,
        k: &Key,
        object: &pintle_api::Object,
        snapshot: &Snapshot<'_>,
        plan: Plan,
    ) -> Outcome {
        let about = reference_of(snapshot.job);
        let mut error = None;
        if !plan.delete.is_empty() {
            error = self.delete(k, snapshot.job, plan.delete).await;
        }
        if !plan.create.is_empty() {
            let made = self.create(k, snapshot.job, plan.create).await;
            error = error.or(made);
        }
        // Ends are in the status before pods lose what keeps them.
        if snapshot.job.status.as_ref() != Some(&plan.status) {
            let new = status::put(&self.cx.client, resource_of::<Job>(), object, &plan.status).await?;
            self.written.lock().insert(k.clone(), new.resource_version());
            for (reason, message, normal) in plan.events {
                if normal {
                    self.cx.recorder.normal(&about, reason, message);
                } else {
                    self.cx.recorder.warning(&about, reason, message);
                }
            }
        }
        let counted = Arc::new(plan.release);
        let n = counted.len();
        let me = self.clone();
        let (_, failed) = batch::at_once(n, move |i| {
            let (me, counted) = (me.clone(), counted.clone());
            async move { me.drop_finalizer(&counted[i]).await }
        })
        .await;
        match error.or(failed) {
            Some(e) => Err(e),
            None => Ok(plan.again),
        }
    }

    /// Pods of a finished Job that still carry the finalizer: all was counted, so they may go.
    async fn release_finished(&self, job: &pintle_api::Object) -> Result<(), Error> {
        for pod in self.pods.by_index(BY_CONTROLLER, job.uid()).iter().filter(|p| has_finalizer(p)) {
            self.drop_finalizer(pod).await?;
        }
        Ok(())
    }

    async fn create(self: &Arc<Self>, k: &Key, job: &Job, new: Vec<TypedPod>) -> Option<Error> {
        let (namespace, n) = (split_key(k).0.to_owned(), new.len());
        tracing::debug!(job = %k, namespace, n, "creating pods");
        self.expectations.expect_creations(k, n);
        let (me, about, new) = (self.clone(), reference_of(job), Arc::new(new));
        let (made, error) = batch::slow_start(n, move |i| {
            let (me, about, new) = (me.clone(), about.clone(), new.clone());
            async move {
                match me.cx.client.of::<TypedPod>().create(&new[i]).await {
                    Ok(pod) => {
                        let name = pod.metadata.name.unwrap_or_default();
                        me.cx.recorder.normal(&about, "SuccessfulCreate", format!("Created pod: {name}"));
                        Ok(())
                    }
                    Err(e) => {
                        if !e.is_namespace_terminating() {
                            me.cx.recorder.warning(&about, "FailedCreate", format!("Error creating: {e}"));
                        }
                        Err(e)
                    }
                }
            }
        })
        .await;
        self.expectations.created(k, n - made);
        error.filter(|e| !e.is_namespace_terminating())
    }

    async fn delete(self: &Arc<Self>, k: &Key, job: &Job, doomed: Vec<Arc<Pod>>) -> Option<Error> {
        self.expectations.expect_deletions(k, doomed.iter().map(|p| p.metadata.name.clone()));
        let (me, about, key, n) = (self.clone(), reference_of(job), k.clone(), doomed.len());
        let doomed = Arc::new(doomed);
        let (_, error) = batch::at_once(n, move |i| {
            let (me, about, key, doomed) = (me.clone(), about.clone(), key.clone(), doomed.clone());
            async move {
                let m = &doomed[i].metadata;
                match me.cx.client.of::<TypedPod>().delete(&m.namespace, &m.name, Some(&m.uid)).await {
                    Ok(()) => {
                        me.cx.recorder.normal(&about, "SuccessfulDelete", format!("Deleted pod: {}", m.name));
                        Ok(())
                    }
                    Err(e) => {
                        me.expectations.deleted(&key, &m.name);
                        if e.is_not_found() {
                            return Ok(());
                        }
                        me.cx.recorder.warning(&about, "FailedDelete", format!("Error deleting: {e}"));
                        Err(e)
                    }
                }
            }
        })
        .await;
        error
    }
}

fn selector(job: &Job) -> Option<Selector> {
    Selector::from_object(job.spec.as_ref()?.selector.as_ref()).ok()
}

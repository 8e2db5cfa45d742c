//! Job: pods that run to their end, each end counted exactly once. A pod keeps a finalizer until its end is in the
//! Job's status, so that no end is lost when the pod goes.

mod decide;
mod indexes;
mod metrics;
mod policy;
mod template;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod as TypedPod;
use parking_lot::Mutex;
use pintle_client::client::encode;
use pintle_client::informers::BY_CONTROLLER;
use pintle_client::meta::key;
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Change, Error, Informer, Key, Patch, UnlessGone};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::support::owned::{Kinds, Owned, Workload};
use crate::support::ownership::controller_of;
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
    pods: Arc<Owned<Workload, Pod>>,
    failures: Mutex<HashMap<Key, Failures>>,
    /// resourceVersion of each Job's last status. Ends that are in it, but not yet in the cache, would be missed.
    written: Mutex<HashMap<Key, u64>>,
}

/// The controller.
pub async fn run(cx: Context) {
    let jobs = cx.informers.of::<Job>();
    let kinds = Kinds {
        owner: resource_of::<Job>(),
        owners: Workload::view(&jobs),
        object: resource_of::<TypedPod>(),
        objects: pods::view(&cx.informers),
    };
    let me = Arc::new(Controller {
        jobs,
        pods: Owned::start(&cx, "job", kinds),
        failures: Mutex::default(),
        written: Mutex::default(),
        cx: cx.clone(),
    });
    listen(&me.jobs, &me, |me, change| {
        let replaced = change.before().zip(change.now()).is_some_and(|(a, b)| a.uid() != b.uid());
        if change.now().is_none() || replaced {
            me.failures.lock().remove(change.key());
            me.written.lock().remove(change.key());
            me.release_all(change.last().uid());
        }
    });
    listen(&me.pods.objects, &me, |me, change| me.pod_changed(change));
    let queue = me.pods.queue.clone();
    cx.work(me, &queue, WORKERS, |me, key| async move {
        match key.strip_prefix(ORPHAN) {
            Some(pod) => me.release(pod).await,
            None => me.sync(&key).await,
        }
    })
    .await;
}

fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == FINALIZER)
}

impl Controller {
    /// A pod whose Job is gone is let go.
    fn pod_changed(&self, change: &Change<Pod>) {
        let held = |p: Option<&Arc<Pod>>| p.is_some_and(|p| p.is_terminal() && has_finalizer(p));
        match (held(change.before()), held(change.now())) {
            (false, true) => metrics::terminated("add"),
            (true, false) => metrics::terminated("delete"),
            _ => {}
        }
        let Some(pod) = change.now().filter(|p| has_finalizer(p)) else { return };
        let lives = match controller_of(&pod.metadata, resource_of::<Job>()) {
            // Its Job may only be late in the cache: the check asks the API.
            Some(owner) => {
                self.jobs.get(&key(&pod.metadata.namespace, &owner.name)).is_some_and(|j| j.uid() == owner.uid)
            }
            None => pod.metadata.controller().is_some(),
        };
        if !lives {
            self.pods.queue.add(format!("{ORPHAN}{}", change.key()).into());
        }
    }

    fn release_all(&self, job: &str) {
        for pod in self.pods.objects.by_index(BY_CONTROLLER, job).iter().filter(|p| has_finalizer(p)) {
            self.pods.queue.add(format!("{ORPHAN}{}", pod.metadata.key()).into());
        }
    }

    /// Takes the finalizer from a pod whose Job is no more.
    async fn release(&self, pod: &str) -> Outcome {
        let Some(pod) = self.pods.objects.get(pod).filter(|p| has_finalizer(p)) else { return Ok(None) };
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
        self.cx.client.of::<TypedPod>().patch(&m.namespace, &m.name, patch).await.unless_gone().map(drop)
    }

    async fn sync(self: &Arc<Self>, k: &Key) -> Outcome {
        let began = tokio::time::Instant::now();
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
        let Some(owner) = self.pods.owners.get(k).filter(|o| o.metadata.uid == object.uid()) else { return Ok(None) };
        let pods = self.pods.claim(&owner, |p| !p.is_deleting()).await?;

        let now = self.cx.clock.now();
        let met = self.pods.expectations.met(k);
        let failures = self.failures.lock().get(k).copied().unwrap_or_default();
        let snapshot = Snapshot { job: &job, pods, failures, may_scale: met };
        let plan = decide::decide(&snapshot, now);
        self.failures.lock().insert(k.clone(), plan.failures);
        let action = match () {
            () if !met => "reconciling",
            () if !plan.create.is_empty() => "pods_created",
            () if !plan.delete.is_empty() => "pods_deleted",
            () => "tracking",
        };
        let outcome = self.apply(k, &object, &snapshot, plan).await;
        metrics::synced(&job, outcome.is_ok(), action, began.elapsed());
        outcome
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
            self.pods.expectations.expect_deletions(k, plan.delete.iter().map(|p| p.metadata.name.clone()));
            error = self.pods.delete(k, about.clone(), plan.delete).await;
        }
        if !plan.create.is_empty() {
            self.pods.expectations.expect_creations(k, plan.create.len());
            let new = plan.create;
            let made = self.pods.create(k, about.clone(), new.len(), move |i| encode(&new[i])).await;
            error = error.or(made);
        }
        // Ends are in the status before pods lose what keeps them.
        if snapshot.job.status.as_ref() != Some(&plan.status) {
            let new = status::put(&self.cx.client, resource_of::<Job>(), object, &plan.status).await?;
            self.written.lock().insert(k.clone(), new.resource_version());
            metrics::written(snapshot.job, &plan.status);
            plan.handled.iter().for_each(|action| metrics::handled(action));
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
        for pod in self.pods.objects.by_index(BY_CONTROLLER, job.uid()).iter().filter(|p| has_finalizer(p)) {
            self.drop_finalizer(pod).await?;
        }
        Ok(())
    }
}

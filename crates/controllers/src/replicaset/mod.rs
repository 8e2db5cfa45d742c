//! ReplicaSet and ReplicationController: as many pods of a template as asked for. The two kinds differ in the form of
//! their selector only, and share everything else.

mod decide;
mod view;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod as TypedPod, ReplicationController};
use pintle_api::resources::Resource;
use pintle_client::informers::View;
use pintle_client::meta::key;
use pintle_client::recorder::reference;
use pintle_client::typed::resource_of;
use pintle_client::{Cache, Change, Error, Informer, Key, WorkQueue, WriteParams};

use crate::context::{Context, Outcome};
use crate::support::batch;
use crate::support::expectations::Expectations;
use crate::support::ownership::{Claimer, concerned};
use crate::support::pods::{self, Pod};
use crate::support::status;

use view::Owner;

/// Workers of one kind.
const WORKERS: usize = 5;
/// Pods made or deleted at one go; the rest waits until these were seen.
const BURST: usize = 1000;

struct Controller {
    cx: Context,
    resource: &'static Resource,
    informer: Informer,
    owners: View<Owner>,
    pods: Cache<Pod>,
    expectations: Expectations,
    queue: WorkQueue<Key>,
}

/// The ReplicaSet controller.
pub async fn run(cx: Context) {
    Controller::start(cx, resource_of::<ReplicaSet>()).await;
}

/// The ReplicationController controller.
pub async fn run_replication(cx: Context) {
    Controller::start(cx, resource_of::<ReplicationController>()).await;
}

impl Controller {
    async fn start(cx: Context, resource: &'static Resource) {
        let informer = cx.informers.get(resource);
        let owners = informer.view_with(Owner::decode);
        owners.add_index(view::BY_CONTROLLER, Owner::controller_index);
        let me = Arc::new(Self {
            resource,
            owners,
            informer,
            pods: pods::view(&cx.informers),
            expectations: Expectations::default(),
            queue: WorkQueue::default(),
            cx,
        });
        let weak = Arc::downgrade(&me);
        me.owners.on_change(move |change| {
            if let Some(me) = weak.upgrade() {
                me.owner_changed(change);
            }
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
            async move { me.sync(&key).await }
        })
        .await;
    }

    fn owner_changed(&self, change: &Change<Owner>) {
        // What was expected of one that is gone does not hold for a new one of the same name.
        let replaced = change.before().zip(change.now()).is_some_and(|(a, b)| a.metadata.uid != b.metadata.uid);
        if change.now().is_none() || replaced {
            self.expectations.forget(change.key());
        }
        self.queue.add(change.key().clone());
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.last();
        let concerned = concerned(change, self.resource);
        let namespace = &pod.metadata.namespace;
        for (owner, is_now) in [(&concerned.before, false), (&concerned.now, true)] {
            let Some(owner) = owner else { continue };
            let owner_key = key(namespace, &owner.name);
            if is_now {
                match change {
                    Change::Added(_, p) if !p.is_deleting() => self.expectations.created(&owner_key, 1),
                    _ if change.now().is_none_or(|p| p.is_deleting()) => {
                        self.expectations.deleted(&owner_key, &pod.metadata.name);
                    }
                    _ => {}
                }
            }
            if self.owners.get(&owner_key).is_some_and(|o| o.metadata.uid == owner.uid) {
                self.queue.add(owner_key.into());
            }
        }
        if concerned.orphan {
            for (k, o) in self.owners.namespace_entries(namespace) {
                if o.selector.matches_map(Some(&pod.metadata.labels)) {
                    self.queue.add(k);
                }
            }
        }
    }

    async fn sync(self: &Arc<Self>, k: &Key) -> Outcome {
        let Some(owner) = self.owners.get(k) else {
            self.expectations.forget(k);
            return Ok(None);
        };
        let met = self.expectations.met(k);
        let claimer = Claimer {
            client: &self.cx.client,
            owner_resource: self.resource,
            owner: &owner.metadata,
            resource: resource_of::<TypedPod>(),
        };
        let all = self.candidates(&owner);
        let all = claimer.claim(all, |m| owner.selector.matches_map(Some(&m.labels)), Pod::is_active).await?;
        let (active, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.is_active());
        let terminating = others.iter().filter(|p| p.is_deleting() && !p.is_terminal()).count();

        let now = self.cx.clock.now();
        let mut failed = None;
        if met && !owner.metadata.is_deleting() {
            match decide::scale(active.len(), owner.replicas, BURST) {
                decide::Scale::None => {}
                decide::Scale::Up(n) => failed = self.create(k, &owner, n).await,
                decide::Scale::Down(n) => {
                    let related = self.related(&owner);
                    let doomed = decide::to_delete(&active, &related, n, now);
                    failed = self.delete(k, &owner, doomed).await;
                }
            }
        }
        let new = decide::status(&owner, &active, terminating, failed.as_ref().map(ToString::to_string), now);
        if new != owner.status {
            // The status belongs to the generation decided on, so the object must be the one decided on.
            let object =
                self.informer.get(k).filter(|o| o.resource_version().to_string() == owner.metadata.resource_version);
            if let Some(object) = object {
                status::put(&self.cx.client, self.resource, &object, &new).await?;
            }
        }
        match failed {
            Some(e) => Err(e),
            None => Ok(decide::next_available(&active, owner.min_ready_seconds, now)),
        }
    }

    /// Pods it controls, and orphans of its namespace.
    fn candidates(&self, owner: &Owner) -> Vec<Arc<Pod>> {
        let mut all = self.pods.by_index(view::BY_CONTROLLER, &owner.metadata.uid);
        let orphans = self.pods.by_index(view::BY_CONTROLLER, "");
        all.extend(orphans.into_iter().filter(|p| p.metadata.namespace == owner.metadata.namespace));
        all
    }

    /// Pods of every owner with the same controller as this one: a Deployment's other ReplicaSets' count when pods
    /// are spread over nodes.
    fn related(&self, owner: &Owner) -> Vec<Arc<Pod>> {
        let Some(above) = owner.metadata.controller() else {
            return self.pods.by_index(view::BY_CONTROLLER, &owner.metadata.uid);
        };
        let siblings = self.owners.by_index(view::BY_CONTROLLER, &above.uid);
        siblings.iter().flat_map(|o| self.pods.by_index(view::BY_CONTROLLER, &o.metadata.uid)).collect()
    }

    async fn create(self: &Arc<Self>, k: &Key, owner: &Arc<Owner>, n: usize) -> Option<Error> {
        let body = Bytes::from(decide::pod(self.resource, owner));
        self.expectations.expect_creations(k, n);
        let (me, o, key) = (self.clone(), owner.clone(), k.clone());
        let (made, error) = batch::slow_start(n, move |_| {
            let (me, o, key, body) = (me.clone(), o.clone(), key.clone(), body.clone());
            async move { me.create_one(&key, &o, body).await }
        })
        .await;
        // Those that failed or were never tried will not be seen.
        self.expectations.created(k, n - made);
        error
    }

    async fn create_one(&self, k: &Key, owner: &Owner, body: Bytes) -> Result<(), Error> {
        let about = reference(self.resource, &owner.metadata);
        match self
            .cx
            .client
            .create(resource_of::<TypedPod>(), &owner.metadata.namespace, body, &WriteParams::default())
            .await
        {
            Ok(pod) => {
                self.cx.recorder.normal(&about, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                Ok(())
            }
            // Nothing can be made in a namespace that goes away, and nothing needs to be.
            Err(e) if e.is_namespace_terminating() => {
                self.expectations.created(k, 1);
                Ok(())
            }
            Err(e) => {
                self.cx.recorder.warning(&about, "FailedCreate", format!("Error creating: {e}"));
                Err(e)
            }
        }
    }

    async fn delete(self: &Arc<Self>, k: &Key, owner: &Arc<Owner>, doomed: Vec<Arc<Pod>>) -> Option<Error> {
        self.expectations.expect_deletions(k, doomed.iter().map(|p| p.metadata.name.clone()));
        let (me, o, key) = (self.clone(), owner.clone(), k.clone());
        let doomed = Arc::new(doomed);
        let n = doomed.len();
        let (_, error) = batch::at_once(n, move |i| {
            let (me, o, key, pod) = (me.clone(), o.clone(), key.clone(), doomed[i].clone());
            async move { me.delete_one(&key, &o, &pod).await }
        })
        .await;
        error
    }

    async fn delete_one(&self, k: &Key, owner: &Owner, pod: &Pod) -> Result<(), Error> {
        let about = reference(self.resource, &owner.metadata);
        let meta = &pod.metadata;
        match self.cx.client.of::<TypedPod>().delete(&meta.namespace, &meta.name, Some(&meta.uid)).await {
            Ok(()) => {
                self.cx.recorder.normal(&about, "SuccessfulDelete", format!("Deleted pod: {}", meta.name));
                Ok(())
            }
            Err(e) => {
                self.expectations.deleted(k, &meta.name);
                if e.is_not_found() {
                    return Ok(());
                }
                self.cx.recorder.warning(&about, "FailedDelete", format!("Error deleting: {e}"));
                Err(e)
            }
        }
    }
}

/// Delay after which a pod is looked at again at the latest, when one becomes available by time alone.
const SKEW: Duration = Duration::from_millis(10);

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
use pintle_client::informers::{BY_CONTROLLER, index_by_controller};
use pintle_client::recorder::reference;
use pintle_client::typed::resource_of;
use pintle_client::{Error, Informer, Key};

use crate::context::{Context, Outcome};
use crate::support::owned::{Kinds, Owned};
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
    pods: Arc<Owned<Owner, Pod>>,
}

/// The ReplicaSet controller.
pub async fn run(cx: Context) {
    Controller::start(cx, resource_of::<ReplicaSet>(), "replicaset").await;
}

/// The ReplicationController controller.
pub async fn run_replication(cx: Context) {
    Controller::start(cx, resource_of::<ReplicationController>(), "replicationmanager").await;
}

impl Controller {
    async fn start(cx: Context, resource: &'static Resource, queue: &'static str) {
        let informer = cx.informers.get(resource);
        let owners = informer.view_with(Owner::decode);
        index_by_controller(&owners);
        let kinds =
            Kinds { owner: resource, owners, object: resource_of::<TypedPod>(), objects: pods::view(&cx.informers) };
        let me = Arc::new(Self { resource, informer, pods: Owned::start(&cx, queue, kinds), cx: cx.clone() });
        let queue = me.pods.queue.clone();
        cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
    }

    async fn sync(&self, k: &Key) -> Outcome {
        let Some(owner) = self.pods.owners.get(k) else {
            self.pods.expectations.forget(k);
            return Ok(None);
        };
        let met = self.pods.expectations.met(k);
        let all = self.pods.claim(&owner, Pod::is_active).await?;
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

    /// Pods of every owner with the same controller as this one: a Deployment's other ReplicaSets' count when pods
    /// are spread over nodes.
    fn related(&self, owner: &Owner) -> Vec<Arc<Pod>> {
        let Some(above) = owner.metadata.controller() else {
            return self.pods.objects.by_index(BY_CONTROLLER, &owner.metadata.uid);
        };
        let siblings = self.pods.owners.by_index(BY_CONTROLLER, &above.uid);
        siblings.iter().flat_map(|o| self.pods.objects.by_index(BY_CONTROLLER, &o.metadata.uid)).collect()
    }

    async fn create(&self, k: &Key, owner: &Owner, n: usize) -> Option<Error> {
        let body = Bytes::from(decide::pod(self.resource, owner));
        self.pods.expectations.expect_creations(k, n);
        self.pods.create(k, reference(self.resource, &owner.metadata), n, move |_| Ok(body.clone())).await
    }

    async fn delete(&self, k: &Key, owner: &Owner, doomed: Vec<Arc<Pod>>) -> Option<Error> {
        self.pods.expectations.expect_deletions(k, doomed.iter().map(|p| p.metadata.name.clone()));
        self.pods.delete(k, reference(self.resource, &owner.metadata), doomed).await
    }
}

/// Delay after which a pod is looked at again at the latest, when one becomes available by time alone.
const SKEW: Duration = Duration::from_millis(10);

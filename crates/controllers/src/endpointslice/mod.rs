//! EndpointSlice: where the pods of each Service answer.

mod decide;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use pintle_client::informers::View;
use pintle_client::meta::{MetaOnly, key};
use pintle_client::recorder::reference;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key, WorkQueue};
use tokio::time::Instant;

use crate::context::{Context, Outcome, listen};
use crate::support::pods;
use crate::support::services::{self, Members, Service};

pub(crate) use decide::{Group, MANAGED_BY, Owner, SERVICE_NAME, Write, owner_reference, reconcile};

const WORKERS: usize = 5;
/// Value of the label that says who keeps a slice.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// How long a write is waited for in the cache.
const LOST: Duration = Duration::from_secs(5);
/// Index of slices by their Service's key.
const BY_SERVICE: &str = "service";

/// A slice that was written: its key, resourceVersion, and when.
type Written = (String, u64, Instant);

struct Controller {
    cx: Context,
    services: View<Service>,
    members: Arc<Members>,
    nodes: View<MetaOnly>,
    slices: Informer,
    slice_metas: View<MetaOnly>,
    /// What was written of each Service, and the cache may not have yet.
    written: Mutex<HashMap<String, Vec<Written>>>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        services: services::view(&cx.informers),
        members: Members::shared(&cx.informers),
        nodes: cx.informers.view::<Node, MetaOnly>(),
        slices: cx.informers.of::<EndpointSlice>(),
        slice_metas: cx.informers.view::<EndpointSlice, MetaOnly>(),
        written: Mutex::default(),
        queue: cx.queue("endpoint_slice"),
        cx,
    });
    index_by_service(&me.slice_metas);
    let queue = me.queue.clone();
    me.services.on_change(move |change| queue.add(change.key().clone()));
    let (queue, services) = (me.queue.clone(), me.services.clone());
    let pods = pods::view(&me.cx.informers);
    pods.on_change(move |change| services::of_pod(change, &services).into_iter().for_each(|k| queue.add(k)));
    let queue = me.queue.clone();
    me.slice_metas.on_change(move |change| {
        for m in [change.before(), change.now()].into_iter().flatten() {
            if m.metadata.labels.get(MANAGED_BY).is_some_and(|v| v == MANAGER) {
                service_keys(m).into_iter().for_each(|k| queue.add(k.into()));
            }
        }
    });
    listen(&me.nodes, &me, |me, change| {
        // A node's zone is copied to its endpoints; it rarely changes.
        if change.before().and_then(|m| zone(m)) != change.now().and_then(|m| zone(m)) {
            me.services.keys().into_iter().for_each(|k| me.queue.add(k));
        }
    });
    let (cx, queue) = (me.cx.clone(), me.queue.clone());
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

fn service_keys(m: &MetaOnly) -> Vec<String> {
    m.metadata.labels.get(SERVICE_NAME).map(|s| key(&m.metadata.namespace, s)).into_iter().collect()
}

/// Adds the index of slices by Service to a view.
pub(crate) fn index_by_service(view: &View<MetaOnly>) {
    view.add_index(BY_SERVICE, service_keys);
}

/// The slices of a Service that this manager keeps.
pub(crate) fn slices_of(
    metas: &View<MetaOnly>,
    slices: &Informer,
    service: &str,
    manager: &str,
) -> Result<Vec<EndpointSlice>, Error> {
    let metas = metas.by_index(BY_SERVICE, service);
    let own = metas.iter().filter(|m| m.metadata.labels.get(MANAGED_BY).is_some_and(|v| v == manager));
    own.filter_map(|m| slices.get(&m.metadata.key())).map(|o| decode(&o)).collect()
}

/// Applies writes; answers the resourceVersions by slice.
pub(crate) async fn apply(cx: &Context, namespace: &str, writes: Vec<Write>) -> Result<Vec<(String, u64)>, Error> {
    let api = cx.client.of::<EndpointSlice>();
    let mut out = Vec::new();
    for write in writes {
        let done = match write {
            Write::Create(s) => api.create(&s).await,
            Write::Update(s) => api.update(&s).await,
            Write::Delete(name) => match api.delete(namespace, &name, None).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => continue,
            },
        };
        let slice = match done {
            Err(e) if e.is_namespace_terminating() => return Ok(out),
            other => other?,
        };
        let version = slice.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        out.push((key(namespace, slice.metadata.name.as_deref().unwrap_or_default()), version));
    }
    Ok(out)
}

fn zone(node: &MetaOnly) -> Option<&str> {
    node.metadata.labels.get(decide::ZONE)
}

impl Controller {
    /// Whether the cache has caught up with what was written for this Service. Until it has, its event will come.
    fn caught_up(&self, service: &str) -> bool {
        let mut written = self.written.lock();
        let Some(slices) = written.get_mut(service) else { return true };
        // A slice that somebody deleted meanwhile never shows up: then the wait ends by time.
        slices.retain(|(slice, version, at)| {
            self.slices.get(slice).is_none_or(|o| o.resource_version() < *version) && at.elapsed() < LOST
        });
        let done = slices.is_empty();
        if done {
            written.remove(service);
        }
        done
    }

    async fn sync(&self, k: &Key) -> Outcome {
        let Some(service) = self.services.get(k) else {
            // The garbage collector takes its slices.
            self.written.lock().remove(&**k);
            return Ok(None);
        };
        if !service.has_selector() || service.spec.kind == "ExternalName" || service.metadata.is_deleting() {
            return Ok(None);
        }
        if !self.caught_up(k) {
            return Ok(Some(LOST));
        }
        let existing = slices_of(&self.slice_metas, &self.slices, k, MANAGER)?;
        let zone = |node: &str| self.nodes.get(node).and_then(|n| zone(&n).map(str::to_owned));
        let wanted = decide::wanted(&service, &self.members.of(&service), zone);
        let writes = reconcile(&decide::Owner::of(&service, MANAGER), wanted, existing);
        match apply(&self.cx, &service.metadata.namespace, writes).await {
            Ok(versions) => {
                let now = Instant::now();
                let written = versions.into_iter().map(|(s, v)| (s, v, now)).collect();
                self.written.lock().insert(k.to_string(), written);
                Ok(None)
            }
            Err(e) => {
                let about = reference(resource_of::<k8s_openapi::api::core::v1::Service>(), &service.metadata);
                let message = format!("Error updating Endpoint Slices for Service {k}: {e}");
                self.cx.recorder.warning(&about, "FailedToUpdateEndpointSlices", message);
                Err(e)
            }
        }
    }
}

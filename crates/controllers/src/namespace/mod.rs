//! Namespace: once its deletion is asked for, everything in it is deleted, and it says what blocks that.

mod decide;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_api::resources::Resource;
use pintle_client::client::encode;
use pintle_client::meta::MetaOnly;
use pintle_client::typed::{decode as typed, resource_of};
use pintle_client::{
    Cache, Client, Error, Informer, Key, ListParams, QueueOptions, UnlessGone, WorkQueue, WriteParams,
};

use crate::context::{Context, Outcome};
use crate::support::discovery;
use crate::support::namespaces::{self, Phase};
use crate::support::pods::{self, Pod};

use decide::{Found, Remaining};

const WORKERS: usize = 10;
/// Longest pause before a failure is tried again: somebody may be waiting for the name.
const LONGEST: Duration = Duration::from_secs(60);
const FINALIZER: &str = "kubernetes";
/// Pause before looking again at content that has no event of its own here.
const AGAIN: Duration = Duration::from_secs(5);

struct Controller {
    cx: Context,
    namespaces: Informer,
    pods: Cache<Pod>,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = WorkQueue::new(QueueOptions { max_delay: LONGEST, ..QueueOptions::named("namespace") });
    let view = namespaces::view(&cx.informers);
    let q = queue.clone();
    view.on_change(move |change| {
        // Only when it begins: our own words about what blocks must not cut short the pause before the next try.
        let going = |n: Option<&Arc<namespaces::Namespace>>| n.is_some_and(|n| n.phase() == Phase::Terminating);
        if going(change.now()) && !going(change.before()) {
            q.add(change.key().clone());
        }
    });
    let pods = pods::view(&cx.informers);
    let (q, v) = (queue.clone(), view.clone());
    pods.on_change(move |change| {
        let namespace = &change.last().metadata.namespace;
        if change.now().is_none() && v.get(namespace).is_some_and(|n| n.phase() == Phase::Terminating) {
            q.add(namespace.as_str().into());
        }
    });
    let me = Arc::new(Controller { namespaces: cx.informers.of::<Namespace>(), pods, cx: cx.clone() });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    async fn sync(&self, name: &Key) -> Outcome {
        let Some(object) = self.namespaces.get(name).filter(|n| n.is_deleting()) else { return Ok(None) };
        let ns: Namespace = typed(&object)?;
        let held =
            ns.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| f.iter().any(|f| f == FINALIZER));
        if !held {
            return Ok(None);
        }
        let mut found = Found::default();
        self.empty(name, &mut found).await;
        let ns = self.tell(ns, &found).await?;
        if found.is_clear() {
            return self.finalize(ns).await;
        }
        if let Some((_, error)) = found.failures.into_iter().next() {
            return Err(error);
        }
        Ok(Some(AGAIN))
    }

    /// Deletes what there is, pods before all else, and notes what stays.
    async fn empty(&self, name: &str, found: &mut Found) {
        let served = match discovery::preferred(&self.cx.client).await {
            Ok(served) => served,
            Err(e) => {
                found.discovery.push(("/apis".into(), e.to_string()));
                return;
            }
        };
        found.discovery.extend(served.failed);
        let mut all: Vec<&'static Resource> = served
            .resources
            .into_iter()
            .filter(|r| r.namespaced && r.has_verb("delete") && r.has_verb("list"))
            .collect();
        // Events go last: they tell what happened to the rest.
        all.sort_by_key(|r| match (r.group, r.resource) {
            ("", "pods") => 0,
            (_, "events") => 2,
            _ => 1,
        });
        for resource in all {
            match delete_all(&self.cx.client, resource, name).await {
                Ok(None) => {}
                Ok(Some(remaining)) => {
                    let pods = resource.resource == "pods" && resource.group.is_empty();
                    found.remaining.push(remaining);
                    if pods && self.pods.has_any(name) {
                        // Nothing that pods may still use goes before they do.
                        return;
                    }
                }
                // It went away with its definition, or cannot be listed at all.
                Err(e) if e.is_not_found() || e.code() == 405 => {}
                Err(e) => found.failures.push((resource, e)),
            }
        }
    }

    async fn tell(&self, mut ns: Namespace, found: &Found) -> Result<Namespace, Error> {
        let now = self.cx.clock.now();
        let status = ns.status.get_or_insert_default();
        if !decide::conditions(status, found, now) {
            return Ok(ns);
        }
        self.cx.client.of::<Namespace>().update_status(&ns).await
    }

    async fn finalize(&self, mut ns: Namespace) -> Outcome {
        if let Some(f) = ns.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            f.retain(|f| f != FINALIZER);
        }
        let name = ns.metadata.name.clone().unwrap_or_default();
        let params = WriteParams::default();
        self.cx
            .client
            .update(resource_of::<Namespace>(), "", &name, "finalize", encode(&ns)?, &params)
            .await
            .unless_gone()
            .map(|_| None)
    }
}

/// Deletes every object of a resource in a namespace. Answers what remains.
async fn delete_all(client: &Client, resource: &'static Resource, namespace: &str) -> Result<Option<Remaining>, Error> {
    let all = ListParams::default();
    let options = DeleteOptions { propagation_policy: Some("Background".into()), ..DeleteOptions::default() };
    let list = client.list(resource, namespace, &all).await?;
    if list.items.is_empty() {
        return Ok(None);
    }
    let going = list.items.iter().all(|o| o.is_deleting());
    if !going {
        if resource.has_verb("deletecollection") {
            client.delete_collection(resource, namespace, &all, &options).await?;
        } else {
            for object in list.items.iter() {
                client.delete(resource, namespace, object.name(), &options).await.unless_gone()?;
            }
        }
    }
    let list = if going { list } else { client.list(resource, namespace, &all).await? };
    if list.items.is_empty() {
        return Ok(None);
    }
    let mut remaining =
        Remaining { resource: resource.group_resource(), count: list.items.len(), finalizers: Vec::new() };
    for object in list.items.iter() {
        let meta: MetaOnly = typed(object)?;
        remaining.finalizers.extend(meta.metadata.finalizers);
    }
    Ok(Some(remaining))
}

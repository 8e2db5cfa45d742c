//! Garbage collector: what is owned goes with its owners, and owners that wait for it go after it.

mod absent;
mod graph;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use parking_lot::Mutex;
use pintle_api::Object;
use pintle_api::resources::{GroupVersion, Resource};
use pintle_client::meta::{MetaOnly, split_key};
use pintle_client::recorder::reference;
use pintle_client::typed::decode;
use pintle_client::{Backoff, Change, Error, Informer, Key, Meta, OwnerRef, Patch, UnlessGone, WorkQueue, WriteParams};
use serde_json::{Value, json};

use crate::context::{Context, Outcome};
use crate::support::discovery;

use absent::Absent;
use graph::{FOREGROUND, Graph, ORPHAN, Task, Ties};

/// As many as make good use of the store's group commit, when an owner of thousands goes.
const WORKERS: usize = 64;
/// How long one resource that cannot be listed may hold up the others at the start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after custom resources changed, so that a batch of them is looked at once.
const SETTLE: Duration = Duration::from_secs(1);

struct Controller {
    cx: Context,
    graph: Mutex<Graph>,
    /// Resources followed, by group and kind.
    followed: Mutex<HashMap<(&'static str, &'static str), Informer>>,
    absent: Mutex<Absent>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        graph: Mutex::default(),
        followed: Mutex::default(),
        absent: Mutex::default(),
        queue: cx.queue("garbage_collector_attempt_to_delete"),
        cx,
    });
    let changed = Arc::new(tokio::sync::Notify::new());
    let notify = changed.clone();
    me.cx.informers.of::<CustomResourceDefinition>().on_change(move |_| notify.notify_one());
    let complete = tokio::select! {
        complete = me.clone().start() => complete,
        () = me.cx.shutdown.cancelled() => return,
    };
    if !complete {
        changed.notify_one();
    }
    let follower = {
        let me = me.clone();
        tokio::spawn(async move {
            loop {
                changed.notified().await;
                let mut pause = Backoff::new(SETTLE, PATIENCE, 0.0);
                tokio::time::sleep(pause.next_delay()).await;
                // A group that cannot be asked now must not be left out for good.
                while !me.clone().follow().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot discover resources");
                    false
                }) {
                    tokio::time::sleep(pause.next_delay()).await;
                }
            }
        })
    };
    let (cx, queue) = (me.cx.clone(), me.queue.clone());
    cx.drive(me, &queue, WORKERS, |me, key| async move { me.work(&key).await }).await;
    follower.abort();
}

/// Whether the objects of a resource can be owners and owned here.
fn collects(r: &Resource) -> bool {
    ["delete", "list", "watch"].iter().all(|v| r.has_verb(v)) && r.resource != "events"
}

impl Controller {
    /// Follows everything there is; nothing is judged before all of it was seen. Answers whether all groups could
    /// be asked.
    async fn start(self: Arc<Self>) -> bool {
        let mut delay = Duration::from_millis(50);
        loop {
            match self.clone().follow().await {
                Ok(complete) => return complete,
                Err(error) => tracing::debug!(%error, "cannot discover resources yet"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(PATIENCE);
        }
    }

    /// Follows what is new and lets go of what is gone. Answers whether all groups could be asked.
    async fn follow(self: Arc<Self>) -> Result<bool, Error> {
        let served = discovery::preferred(&self.cx.client).await?;
        let complete = served.failed.is_empty();
        let resources: Vec<&'static Resource> = served.resources.into_iter().filter(|r| collects(r)).collect();
        let mut fresh = Vec::new();
        {
            let mut followed = self.followed.lock();
            let gone: Vec<&'static Resource> = followed
                .values()
                .map(Informer::resource)
                .filter(|r| {
                    served.failed.is_empty() && !resources.iter().any(|n| n.group == r.group && n.kind == r.kind)
                })
                .collect();
            for r in gone {
                followed.remove(&(r.group, r.kind));
                self.cx.informers.stop(r);
                let tasks = self.graph.lock().forget_resource(r);
                self.enqueue(tasks);
            }
            for r in resources {
                followed.entry((r.group, r.kind)).or_insert_with(|| {
                    let informer = self.cx.informers.get(r);
                    fresh.push(informer.clone());
                    informer
                });
            }
        }
        for informer in &fresh {
            let (me, r) = (Arc::downgrade(&self), informer.resource());
            informer.on_change(move |change| {
                if let Some(me) = me.upgrade() {
                    me.observe(r, change);
                }
            });
        }
        let all = async {
            for informer in &fresh {
                informer.synced().await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("some resources cannot be listed; what they own may stay");
        }
        Ok(complete)
    }

    fn observe(&self, resource: &'static Resource, change: &Change<Object>) {
        let tasks = match change {
            Change::Deleted(_, object) => self.graph.lock().forget(object.uid()),
            Change::Added(key, object) | Change::Modified(key, _, object) => {
                let mut graph = self.graph.lock();
                let mut tasks = Vec::new();
                if let Some(old) = change.before().filter(|o| o.uid() != object.uid()) {
                    tasks = graph.forget(old.uid());
                }
                if change.before().is_none_or(|old| !Ties::are_same(old, object)) {
                    match Ties::of(object) {
                        Ok(ties) => tasks.extend(graph.observe(resource, key, ties)),
                        Err(error) => tracing::error!(%error, "metadata does not decode"),
                    }
                }
                tasks
            }
        };
        self.enqueue(tasks);
    }

    fn enqueue(&self, tasks: Vec<Task>) {
        for task in tasks {
            self.queue.add(task.key());
        }
    }

    async fn work(&self, key: &Key) -> Outcome {
        match Task::parse(key) {
            Some(Task::Delete(uid)) => self.delete(&uid).await,
            Some(Task::Orphan(uid)) => self.orphan(&uid).await,
            None => Ok(None),
        }
    }

    /// The object as it is now; `None` when it is gone or another of its name came.
    async fn live(&self, resource: &'static Resource, key: &str, uid: &str) -> Result<Option<Meta>, Error> {
        let (namespace, name) = split_key(key);
        match self.cx.client.get(resource, namespace, name).await {
            Ok(object) => {
                let meta: MetaOnly = decode(&object)?;
                Ok((meta.metadata.uid == uid).then_some(meta.metadata))
            }
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn informer(&self, group: &str, kind: &str) -> Option<Informer> {
        self.followed.lock().get(&(group, kind)).cloned()
    }

    fn resource_of(&self, owner: &OwnerRef) -> Option<&'static Resource> {
        Some(self.informer(GroupVersion::parse(&owner.api_version).group, &owner.kind)?.resource())
    }

    /// An object as the informer has it, when that is enough to delete it by: nobody waits for it, and all its owners
    /// are known to be gone.
    fn doomed(&self, resource: &Resource, key: &str, uid: &str) -> Option<Meta> {
        let object = self.informer(resource.group, resource.kind)?.get(key)?;
        let meta = decode::<MetaOnly>(&object).ok()?.metadata;
        let plain = meta.uid == uid
            && !meta.is_deleting()
            && !meta.owner_references.is_empty()
            && !meta.finalizers.iter().any(|f| f == FOREGROUND || f == ORPHAN);
        let absent = self.absent.lock();
        (plain && meta.owner_references.iter().all(|o| absent.has(&meta.namespace, o))).then_some(meta)
    }

    async fn delete(&self, uid: &str) -> Outcome {
        let Some((resource, key)) = self.graph.lock().place(uid) else { return Ok(None) };
        if let Some(meta) = self.doomed(resource, &key, uid) {
            let known = Preconditions { uid: Some(meta.uid), resource_version: Some(meta.resource_version) };
            let options = DeleteOptions {
                propagation_policy: Some("Background".into()),
                preconditions: Some(known),
                ..DeleteOptions::default()
            };
            match self.cx.client.delete(resource, &meta.namespace, &meta.name, &options).await {
                // It changed, or is gone: look closer.
                Err(e) if e.is_conflict() || e.is_not_found() => {}
                other => return other.map(|_| None),
            }
        }
        let Some(meta) = self.live(resource, &key, uid).await? else {
            // The informer will say so too, but may be late; a repeated word does no harm.
            let tasks = self.graph.lock().forget(uid);
            self.enqueue(tasks);
            return Ok(None);
        };
        let foreground = meta.finalizers.iter().any(|f| f == FOREGROUND);
        if meta.is_deleting() {
            if !foreground {
                return Ok(None);
            }
            let blocking = self.graph.lock().blocking(uid);
            if blocking.is_empty() {
                return self.remove_finalizer(resource, &meta, FOREGROUND).await;
            }
            self.enqueue(blocking);
            return Ok(None);
        }
        if meta.owner_references.is_empty() {
            return Ok(None);
        }
        let (mut solid, mut dangling, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for owner in &meta.owner_references {
            match self.owner(&meta, owner).await? {
                None => dangling.push(owner),
                Some(o) if o.is_deleting() && o.finalizers.iter().any(|f| f == FOREGROUND) => waiting.push(owner),
                Some(_) => solid.push(owner),
            }
        }
        if !solid.is_empty() {
            if dangling.is_empty() && waiting.is_empty() {
                return Ok(None);
            }
            return self.set_owners(resource, &meta, solid.into_iter().cloned().collect()).await;
        }
        let policy = if !waiting.is_empty() && self.graph.lock().has_dependents(uid) {
            // Its own dependents that are on their way already would otherwise wait for it, and it for them.
            if self.graph.lock().cycle(uid) {
                let owners = meta.owner_references.iter();
                let owners = owners.map(|o| OwnerRef { block_owner_deletion: false, ..o.clone() }).collect();
                self.set_owners(resource, &meta, owners).await?;
            }
            "Foreground"
        } else if meta.finalizers.iter().any(|f| f == ORPHAN) {
            "Orphan"
        } else if foreground {
            "Foreground"
        } else {
            "Background"
        };
        let precise = waiting.is_empty().then(|| meta.resource_version.clone());
        let options = DeleteOptions {
            propagation_policy: Some(policy.into()),
            preconditions: Some(Preconditions { uid: Some(meta.uid.clone()), resource_version: precise }),
            ..DeleteOptions::default()
        };
        self.cx.client.delete(resource, &meta.namespace, &meta.name, &options).await.unless_gone().map(|_| None)
    }

    /// An owner as it is now; `None` when it does not exist where the reference says.
    async fn owner(&self, meta: &Meta, owner: &OwnerRef) -> Result<Option<Meta>, Error> {
        let Some(resource) = self.resource_of(owner) else {
            return Err(Error::Config(format!("no resource for owner {} {}", owner.api_version, owner.kind)));
        };
        if resource.namespaced && meta.namespace.is_empty() {
            // A cluster-scoped object cannot be owned by one in a namespace; upstream leaves it alone.
            return Ok(Some(Meta::default()));
        }
        if self.absent.lock().has(&meta.namespace, owner) {
            return Ok(None);
        }
        let namespace = if resource.namespaced { meta.namespace.as_str() } else { "" };
        let found = self.live(resource, &pintle_client::meta::key(namespace, &owner.name), &owner.uid).await?;
        if found.is_none() {
            self.absent.lock().add(&meta.namespace, owner);
            let elsewhere = self.graph.lock().place(&owner.uid).is_some_and(|(_, k)| split_key(&k).0 != namespace);
            if elsewhere && let Some((r, _)) = self.graph.lock().place(&meta.uid) {
                let message = format!(
                    "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
                    owner.api_version, owner.kind, owner.name, owner.uid
                );
                self.cx.recorder.warning(&reference(r, meta), "OwnerRefInvalidNamespace", message);
            }
        }
        Ok(found)
    }

    async fn orphan(&self, uid: &str) -> Outcome {
        let Some((resource, key)) = self.graph.lock().place(uid) else { return Ok(None) };
        let Some(meta) = self.live(resource, &key, uid).await? else { return Ok(None) };
        if !meta.is_deleting() || !meta.finalizers.iter().any(|f| f == ORPHAN) {
            return Ok(None);
        }
        let dependents = self.graph.lock().dependents(uid);
        for dependent in dependents {
            let Some((resource, key)) = self.graph.lock().place(&dependent) else { continue };
            let Some(meta) = self.live(resource, &key, &dependent).await? else { continue };
            if meta.owner_references.iter().any(|o| o.uid == uid) {
                let rest = meta.owner_references.iter().filter(|o| o.uid != uid);
                self.set_owners(resource, &meta, rest.cloned().collect()).await?;
            }
        }
        self.remove_finalizer(resource, &meta, ORPHAN).await
    }

    async fn patch(&self, resource: &'static Resource, meta: &Meta, mut patch: Value) -> Outcome {
        patch["uid"] = json!(meta.uid);
        patch["resourceVersion"] = json!(meta.resource_version);
        let body = Patch::merge(&json!({"metadata": patch}))?;
        self.cx
            .client
            .patch(resource, &meta.namespace, &meta.name, "", body, &WriteParams::default())
            .await
            .unless_gone()
            .map(|_| None)
    }

    async fn set_owners(&self, resource: &'static Resource, meta: &Meta, owners: Vec<OwnerRef>) -> Outcome {
        self.patch(resource, meta, json!({"ownerReferences": owners})).await
    }

    async fn remove_finalizer(&self, resource: &'static Resource, meta: &Meta, finalizer: &str) -> Outcome {
        let rest: Vec<&String> = meta.finalizers.iter().filter(|f| *f != finalizer).collect();
        self.patch(resource, meta, json!({"finalizers": rest})).await
    }
}

//! One informer a resource (and selectors) in a process, whoever asks, and the narrow views made from it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use pintle_api::Object;
use pintle_api::resources::Resource;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Change, Notice};
use crate::client::{Client, ListParams};
use crate::meta;
use crate::reflector::Reflector;

/// Which part of a resource an informer follows; by default all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Namespace; empty for all.
    pub namespace: String,
    /// Label selector.
    pub labels: String,
    /// Field selector, such as `spec.nodeName=n1`.
    pub fields: String,
}

/// The index by the uid of the managing controller, which [`index_by_controller`] adds.
pub const BY_CONTROLLER: &str = "controller";

/// Adds the index [`BY_CONTROLLER`] to a view.
pub fn index_by_controller<T: meta::HasMeta>(view: &View<T>) {
    view.add_index(BY_CONTROLLER, |v| {
        let m = v.meta();
        match m.controller() {
            Some(controller) => vec![controller.uid.clone()],
            None => {
                let with = m.labels.iter().map(Some);
                std::iter::once(None).chain(with).map(|label| orphans_of(&m.namespace, label)).collect()
            }
        }
    });
}

/// The value under which [`BY_CONTROLLER`] has the objects of a namespace that have no controller, all or those with a
/// label: those who may adopt them look there. No uid is like it.
#[must_use]
pub fn orphans_of(namespace: &str, label: Option<(&str, &str)>) -> String {
    match label {
        Some((key, value)) => format!("/{namespace}/{key}={value}"),
        None => format!("/{namespace}"),
    }
}

/// A shared informer's cache of whole objects.
#[derive(Clone, Debug)]
pub struct Informer {
    cache: Cache<Object>,
    views: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>,
    resource: &'static Resource,
}

impl Deref for Informer {
    type Target = Cache<Object>;
    fn deref(&self) -> &Cache<Object> {
        &self.cache
    }
}

/// A cache of narrow forms, each decoded once an event.
pub type View<T> = Cache<T>;

impl Informer {
    /// The resource it follows.
    #[must_use]
    pub fn resource(&self) -> &'static Resource {
        self.resource
    }

    /// The view of type `T`, decoded by its `Deserialize`; shared by all who ask for the same type. What does not
    /// decode is left out and logged.
    #[must_use]
    pub fn view<T: DeserializeOwned + Send + Sync + 'static>(&self) -> View<T> {
        self.view_with(|o: &Object| o.view::<T>())
    }

    /// The view of type `T`, decoded by `decode`; shared by all who ask for the same type, so a type must always come
    /// with the same function.
    #[must_use]
    pub fn view_with<T: Send + Sync + 'static>(
        &self,
        decode: impl Fn(&Object) -> serde_json::Result<T> + Send + Sync + 'static,
    ) -> View<T> {
        let mut views = self.views.lock();
        if let Some(view) = views.get(&TypeId::of::<T>()).and_then(|v| v.downcast_ref::<View<T>>()) {
            return view.clone();
        }
        let view = View::<T>::default();
        let into = view.clone();
        let resource = self.resource;
        self.cache.attach(Box::new(move |notice| match notice {
            Notice::Synced => into.set_synced(),
            Notice::Change(Change::Deleted(key, _)) => into.apply(key, None),
            Notice::Change(Change::Added(key, object) | Change::Modified(key, _, object)) => match decode(object) {
                Ok(value) => into.apply(key, Some(Arc::new(value))),
                Err(error) => {
                    tracing::error!(resource = resource.resource, %key, %error, "object does not decode");
                    into.apply(key, None);
                }
            },
        }));
        views.insert(TypeId::of::<T>(), Box::new(view.clone()));
        view
    }
}

struct Entry {
    informer: Informer,
    stop: CancellationToken,
}

struct Inner {
    client: Client,
    entries: Mutex<HashMap<(String, Scope), Entry>>,
    shared: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    shutdown: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The informers of a process. Cheap to clone; when the last clone goes, they stop.
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Inner>,
    /// What was asked for through this handle.
    asked: Arc<Mutex<Vec<Informer>>>,
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Informers({})", self.inner.entries.lock().len())
    }
}

impl Informers {
    /// Informers that read by this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let shutdown = CancellationToken::new();
        let inner = Inner { client, entries: Mutex::default(), shared: Mutex::default(), shutdown };
        Self { inner: Arc::new(inner), asked: Arc::default() }
    }

    /// The same informers by a handle of its own, which waits for those only that are asked for through it: one part
    /// of a process is not held up by what another cannot list.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self { inner: self.inner.clone(), asked: Arc::default() }
    }

    /// The client they read by.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The informer of all objects of a resource; started when it is asked for the first time.
    #[must_use]
    pub fn get(&self, resource: &'static Resource) -> Informer {
        self.scoped(resource, &Scope::default())
    }

    /// The informer of a part of a resource.
    #[must_use]
    pub fn scoped(&self, resource: &'static Resource, scope: &Scope) -> Informer {
        let informer = self.started(resource, scope);
        let mut asked = self.asked.lock();
        if !asked.iter().any(|i| Arc::ptr_eq(&i.views, &informer.views)) {
            asked.push(informer.clone());
        }
        informer
    }

    fn started(&self, resource: &'static Resource, scope: &Scope) -> Informer {
        let mut entries = self.inner.entries.lock();
        let id = (resource.path(None), scope.clone());
        if let Some(entry) = entries.get(&id) {
            return entry.informer.clone();
        }
        let cache = Cache::default();
        let stop = self.inner.shutdown.child_token();
        let reflector = Reflector {
            client: self.inner.client.clone(),
            resource,
            namespace: scope.namespace.clone(),
            params: ListParams { labels: scope.labels.clone(), fields: scope.fields.clone(), ..ListParams::default() },
            cache: cache.clone(),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(reflector.run()));
        let informer = Informer { cache, views: Arc::default(), resource };
        entries.insert(id, Entry { informer: informer.clone(), stop });
        informer
    }

    /// The informer of a typed kind.
    #[must_use]
    pub fn of<T: k8s_openapi::Resource>(&self) -> Informer {
        self.get(crate::typed::resource_of::<T>())
    }

    /// The view of type `T` of a typed kind `K`, with the index [`BY_CONTROLLER`].
    #[must_use]
    pub fn view<K: k8s_openapi::Resource, T: DeserializeOwned + meta::HasMeta + Send + Sync + 'static>(
        &self,
    ) -> View<T> {
        let view = self.of::<K>().view::<T>();
        index_by_controller(&view);
        view
    }

    /// What several users of these informers share beside views: made by the first who asks for its type. `make` may
    /// ask for views, but not for another such thing: the lock is held.
    #[must_use]
    pub fn shared<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut all = self.inner.shared.lock();
        if let Some(one) = all.get(&TypeId::of::<T>()).and_then(|one| one.clone().downcast::<T>().ok()) {
            return one;
        }
        let one = make();
        all.insert(TypeId::of::<T>(), one.clone());
        one
    }

    /// Ends the informers of a resource that is no longer served.
    pub fn stop(&self, resource: &'static Resource) {
        let path = resource.path(None);
        self.inner.entries.lock().retain(|(p, _), entry| {
            if *p == path {
                entry.stop.cancel();
            }
            *p != path
        });
    }

    /// Waits until every informer asked for through this handle so far is synced.
    pub async fn synced(&self) {
        let all = self.asked.lock().clone();
        for informer in all {
            informer.synced().await;
        }
    }
}

//! The ConfigMaps and Secrets that pods refer to: each is watched by itself (the node may read no others) for as long as
//! a pod needs it, and pods are told of changes.

use parking_lot::Mutex;
use pintle_client::{Client, Informers, Scope, View};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Told the uid of a pod when an object it refers to changed.
pub type OnChange = Arc<dyn Fn(&str) + Send + Sync>;

/// How long to wait for an object's first state.
const FIRST_STATE: Duration = Duration::from_secs(10);

struct Entry<T> {
    /// Dropping it ends the watch.
    _informers: Informers,
    view: View<T>,
    holders: Arc<Mutex<BTreeSet<String>>>,
}

/// Objects of one kind.
pub struct ObjectCache<T> {
    client: Client,
    kind: &'static str,
    on_change: OnChange,
    entries: Mutex<HashMap<(String, String), Entry<T>>>,
}

impl<T: pintle_client::typed::Kind> ObjectCache<T> {
    /// A cache; `kind` is the kind's name in messages, such as `configmap`.
    #[must_use]
    pub fn new(client: Client, kind: &'static str, on_change: OnChange) -> Arc<Self> {
        Arc::new(Self { client, kind, on_change, entries: Mutex::default() })
    }

    fn view(&self, namespace: &str, name: &str, uid: &str) -> View<T> {
        let mut entries = self.entries.lock();
        let entry = entries.entry((namespace.into(), name.into())).or_insert_with(|| {
            let informers = Informers::new(self.client.clone());
            let scope =
                Scope { namespace: namespace.into(), fields: format!("metadata.name={name}"), ..Default::default() };
            let informer = informers.scoped(pintle_client::typed::resource_of::<T>(), &scope);
            let view = informer.view::<T>();
            let holders: Arc<Mutex<BTreeSet<String>>> = Arc::default();
            let (told, tell): (Weak<_>, _) = (Arc::downgrade(&holders), self.on_change.clone());
            view.on_change(move |_| {
                let holders: Vec<String> =
                    told.upgrade().map(|h| h.lock().iter().cloned().collect()).unwrap_or_default();
                for uid in holders {
                    tell(&uid);
                }
            });
            Entry { _informers: informers, view, holders }
        });
        entry.holders.lock().insert(uid.into());
        entry.view.clone()
    }

    /// The object, for the pod with this uid, which is told of changes from now on. `None` if there is none.
    ///
    /// # Errors
    /// When the API does not say in time.
    pub async fn get(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<Arc<T>>, String> {
        let view = self.view(namespace, name, uid);
        if !view.is_synced() && tokio::time::timeout(FIRST_STATE, view.synced()).await.is_err() {
            return Err(format!("failed to sync {} cache: timed out waiting for the condition", self.kind));
        }
        Ok(view.get(&format!("{namespace}/{name}")))
    }

    /// All of `names` that exist.
    ///
    /// # Errors
    /// As [`ObjectCache::get`].
    pub async fn get_all(
        &self,
        namespace: &str,
        names: impl IntoIterator<Item = String>,
        uid: &str,
    ) -> Result<BTreeMap<String, Arc<T>>, String> {
        let names: BTreeSet<String> = names.into_iter().collect();
        // All watches begin before the first is waited for.
        for name in &names {
            self.view(namespace, name, uid);
        }
        let mut out = BTreeMap::new();
        for name in names {
            if let Some(found) = self.get(namespace, &name, uid).await? {
                out.insert(name, found);
            }
        }
        Ok(out)
    }

    /// The pod with this uid is gone: what nobody else needs is no longer watched.
    pub fn release(&self, uid: &str) {
        self.entries.lock().retain(|_, e| {
            let mut holders = e.holders.lock();
            holders.remove(uid);
            !holders.is_empty()
        });
    }
}

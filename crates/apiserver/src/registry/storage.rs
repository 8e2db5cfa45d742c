//! The objects of one resource: reads come from the watch cache, writes go to the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pintle_api::Status;
use pintle_api::object::{Object, SelectableField};
use pintle_api::resources::Resource;
use pintle_store::{Error, Expect, KeyValue, Outcome, Store, Txn, keys};
use tokio::sync::OnceCell;

use super::form::{Form, StorageMediaType};
use crate::cache::{Cache, Options, Snapshot, Watch, WatchOptions};
use crate::metrics::RECEIVED;

/// What a failed write found in its place.
pub(crate) enum Lost {
    /// The key's present state.
    Now(Option<Arc<Object>>),
    /// The store failed.
    Error(Status),
}

/// The objects of one resource.
pub(crate) struct Objects {
    store: Arc<dyn Store>,
    prefix: String,
    storage: &'static Resource,
    selectable: &'static [SelectableField],
    form: Arc<Form>,
    /// Loaded by the first who needs it.
    cache: OnceCell<Cache>,
}

/// A store's failure as the API tells it.
pub(crate) fn store_error(e: &Error) -> Status {
    match e {
        Error::Compacted { requested, compacted } => Status::too_old(*requested, *compacted),
        Error::FutureRevision { requested, current } => Status::too_large_version(*requested, *current),
        Error::NoSpace(text) => Status::internal(format!("no space left for the store: {text}")),
        Error::Unavailable(_) | Error::Closed => Status::timeout(&e.to_string(), 1),
        other => Status::internal(other),
    }
}

impl Objects {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        root: &str,
        storage_key: &str,
        storage: &'static Resource,
        selectable: &'static [SelectableField],
        media: StorageMediaType,
    ) -> Self {
        Self {
            store,
            prefix: format!("{root}/{storage_key}/"),
            storage,
            selectable,
            form: Arc::new(Form::new(storage, media)),
            cache: OnceCell::new(),
        }
    }

    /// The watch cache.
    pub(crate) async fn cache(&self) -> Result<&Cache, Status> {
        self.cache
            .get_or_try_init(|| {
                let (selectable, form) = (self.selectable, Arc::clone(&self.form));
                let decode = Arc::new(move |value: &[u8], revision| {
                    Object::from_stored(&form.open(value)?, revision, selectable).map_err(|e| e.to_string())
                });
                let received = RECEIVED.with(&[self.storage.group, self.storage.resource]);
                let options = Options { received: Some(received), ..Options::default() };
                Cache::start(Arc::clone(&self.store), &self.prefix, decode, options)
            })
            .await
    }

    /// The cache, if anybody has needed it yet.
    pub(crate) fn loaded(&self) -> Option<&Cache> {
        self.cache.get()
    }

    /// The key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        keys::object_key(&self.prefix, self.storage.namespaced.then_some(namespace), name)
    }

    fn object(&self, value: &[u8], revision: u64) -> Result<Arc<Object>, Status> {
        let value = self.form.open(value).map_err(Status::internal)?;
        Object::from_stored(&value, revision, self.selectable).map(Arc::new).map_err(Status::internal)
    }

    /// The newest state.
    pub(crate) async fn fresh(&self) -> Result<Snapshot, Status> {
        self.cache().await?.fresh().await
    }

    /// The newest state of one object.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        let namespace = if self.storage.namespaced { namespace } else { "" };
        Ok(self.fresh().await?.get(namespace, name).cloned())
    }

    /// Creates an object.
    pub(crate) async fn create(
        &self,
        namespace: &str,
        name: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Arc<Object>, Lost> {
        let key = self.key(namespace, name);
        let txn = Txn::default().when(key.as_str(), Expect::Absent);
        self.put(txn, &key, value, ttl).await
    }

    /// Replaces an object that was last written at `revision`.
    pub(crate) async fn update(
        &self,
        namespace: &str,
        name: &str,
        revision: u64,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Arc<Object>, Lost> {
        let key = self.key(namespace, name);
        let txn = Txn::default().when(key.as_str(), Expect::ModRevision(revision));
        self.put(txn, &key, value, ttl).await
    }

    async fn put(&self, txn: Txn, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Arc<Object>, Lost> {
        let sealed = self.form.seal(&value);
        let txn = match ttl {
            Some(ttl) => txn.put_with_ttl(key, sealed, ttl),
            None => txn.put(key, sealed),
        }
        .or_get(key);
        match self.store.txn(txn).await {
            Ok(Outcome::Succeeded { revision }) => match self.loaded().and_then(|cache| cache.written(key, revision)) {
                Some(object) => Ok(object),
                None => self.object(&value, revision).map_err(Lost::Error),
            },
            Ok(Outcome::Failed { current, .. }) => Err(self.lost(&current)),
            Err(e) => Err(Lost::Error(store_error(&e))),
        }
    }

    fn lost(&self, current: &[Option<KeyValue>]) -> Lost {
        let now = current.first().and_then(Option::as_ref);
        match now.map(|kv| self.object(&kv.value, kv.mod_revision)).transpose() {
            Ok(now) => Lost::Now(now),
            Err(e) => Lost::Error(e),
        }
    }

    /// Deletes an object that was last written at `revision`; answers the revision of the deletion.
    pub(crate) async fn delete(&self, namespace: &str, name: &str, revision: u64) -> Result<u64, Lost> {
        match self.store.txn(Txn::remove(self.key(namespace, name), revision)).await {
            Ok(Outcome::Succeeded { revision }) => Ok(revision),
            Ok(Outcome::Failed { current, .. }) => Err(self.lost(&current)),
            Err(e) => Err(Lost::Error(store_error(&e))),
        }
    }

    /// Starts a watch.
    pub(crate) async fn watch(&self, options: WatchOptions) -> Result<Watch, Status> {
        self.cache().await?.watch(options).await
    }
}

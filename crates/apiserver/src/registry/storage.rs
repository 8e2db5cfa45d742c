//! The objects of one resource in the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pintle_api::Status;
use pintle_api::object::{EventType, Object, SelectableField, WatchEvent};
use pintle_api::service::EventStream;
use pintle_store::{Error, KeyValue, ListRequest, Outcome, Store, Txn, WatchRequest, keys};

/// A page of a list.
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Object>>,
    /// Revision of the list.
    pub(crate) revision: u64,
    /// The key at which the next page begins, relative to the resource's prefix.
    pub(crate) next: Option<String>,
    /// How many follow after this page, when known.
    pub(crate) remaining: Option<u64>,
}

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
    namespaced: bool,
    selectable: &'static [SelectableField],
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
        namespaced: bool,
        selectable: &'static [SelectableField],
    ) -> Self {
        Self { store, prefix: format!("{root}/{storage_key}/"), namespaced, selectable }
    }

    /// The key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        keys::object_key(&self.prefix, self.namespaced.then_some(namespace), name)
    }

    fn object(&self, value: &[u8], revision: u64) -> Result<Arc<Object>, Status> {
        Object::from_stored(value, revision, self.selectable).map(Arc::new).map_err(Status::internal)
    }

    fn of(&self, kv: &KeyValue) -> Result<Arc<Object>, Status> {
        self.object(&kv.value, kv.mod_revision)
    }

    /// The newest state of one object.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        let got = self.store.get(&self.key(namespace, name)).await.map_err(|e| store_error(&e))?;
        got.kv.as_ref().map(|kv| self.of(kv)).transpose()
    }

    /// The store's revision.
    pub(crate) async fn revision(&self) -> Result<u64, Status> {
        self.store.current_revision().await.map_err(|e| store_error(&e))
    }

    /// Lists objects, of one namespace or (empty) all, from a key on, as of a revision or now.
    pub(crate) async fn list(
        &self,
        namespace: &str,
        at: Option<u64>,
        from: Option<&str>,
        limit: usize,
        matches: &(dyn Fn(&Object) -> bool + Send + Sync),
        filtered: bool,
    ) -> Result<Page, Status> {
        let prefix = if namespace.is_empty() { self.prefix.clone() } else { format!("{}{namespace}/", self.prefix) };
        let mut request = ListRequest::prefix(prefix);
        if let Some(r) = at {
            request = request.at(r);
        }
        if let Some(from) = from {
            request = request.from_key(format!("{}{from}", self.prefix));
        }
        // A filtered page is cut after filtering.
        if limit > 0 && !filtered {
            request = request.limit(limit);
        }
        let listed = self.store.list(request).await.map_err(|e| store_error(&e))?;
        let mut items = Vec::with_capacity(if limit > 0 { limit.min(listed.kvs.len()) } else { listed.kvs.len() });
        let mut next = None;
        let mut last: Option<&str> = None;
        for kv in &listed.kvs {
            let object = self.of(kv)?;
            if !matches(&object) {
                continue;
            }
            if limit > 0 && items.len() == limit {
                next = last.map(|k| format!("{}\0", &k[self.prefix.len()..]));
                break;
            }
            last = Some(&kv.key);
            items.push(object);
        }
        let mut remaining = None;
        if limit > 0 && !filtered && listed.remaining > 0 {
            next = last.map(|k| format!("{}\0", &k[self.prefix.len()..]));
            remaining = Some(listed.remaining);
        }
        Ok(Page { items, revision: listed.revision, next, remaining })
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
        let txn = Txn::default().when(key.as_str(), pintle_store::Expect::Absent);
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
        let txn = Txn::default().when(key.as_str(), pintle_store::Expect::ModRevision(revision));
        self.put(txn, &key, value, ttl).await
    }

    async fn put(&self, txn: Txn, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Arc<Object>, Lost> {
        let txn = match ttl {
            Some(ttl) => txn.put_with_ttl(key, value.clone(), ttl),
            None => txn.put(key, value.clone()),
        }
        .or_get(key);
        match self.store.txn(txn).await {
            Ok(Outcome::Succeeded { revision }) => self.object(&value, revision).map_err(Lost::Error),
            Ok(Outcome::Failed { current, .. }) => Err(self.lost(&current)),
            Err(e) => Err(Lost::Error(store_error(&e))),
        }
    }

    fn lost(&self, current: &[Option<KeyValue>]) -> Lost {
        match current.first().and_then(Option::as_ref).map(|kv| self.of(kv)).transpose() {
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

    /// Watches from after a revision.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        namespace: &str,
        after: u64,
        matches: Arc<dyn Fn(&Object) -> bool + Send + Sync>,
    ) -> Result<EventStream, Status> {
        let prefix = if namespace.is_empty() { self.prefix.clone() } else { format!("{}{namespace}/", self.prefix) };
        let watch =
            self.store.watch(WatchRequest::prefix(prefix).from(after + 1)).await.map_err(|e| store_error(&e))?;
        let this = Arc::clone(self);
        let stream = watch.flat_map(move |batch| {
            let mut out: VecDeque<Result<WatchEvent, Status>> = VecDeque::new();
            match batch {
                Err(e) => out.push_back(Err(store_error(&e))),
                Ok(batch) => {
                    for event in &batch.events {
                        match this.event(event, &*matches) {
                            Ok(Some(e)) => out.push_back(Ok(e)),
                            Ok(None) => {}
                            Err(e) => out.push_back(Err(e)),
                        }
                    }
                }
            }
            futures::stream::iter(out)
        });
        Ok(stream.boxed())
    }

    fn event(
        &self,
        e: &pintle_store::Event,
        matches: &(dyn Fn(&Object) -> bool + Send + Sync),
    ) -> Result<Option<WatchEvent>, Status> {
        let new = e.value.as_ref().map(|v| self.object(v, e.revision)).transpose()?;
        // The last state carries the revision of the deletion.
        let old = e.prev.as_ref().map(|kv| self.object(&kv.value, e.revision)).transpose()?;
        let (was, is) = (old.as_ref().is_some_and(|o| matches(o)), new.as_ref().is_some_and(|o| matches(o)));
        Ok(match (was, is, old, new) {
            (false, true, _, Some(object)) => Some(WatchEvent { kind: EventType::Added, object }),
            (true, true, _, Some(object)) => Some(WatchEvent { kind: EventType::Modified, object }),
            (true, false, Some(object), _) => Some(WatchEvent { kind: EventType::Deleted, object }),
            _ => None,
        })
    }
}

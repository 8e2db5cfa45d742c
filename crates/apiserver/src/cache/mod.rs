//! The watch cache: all objects of one resource in memory, with recent history.
//!
//! A [`Cache`] follows the store. It answers gets and lists from shared objects, at the newest revision, at least at a
//! given one, or exactly at an earlier one, and hands changes to any number of watchers, each event made and encoded
//! once. The store feeds it *before* a write is acknowledged when both are in one process, so a write never waits for
//! the cache and a read never misses it.
//!
//! ```text
//! store ── sink ──> State (objects, recent changes) ── dispatcher ──> watchers' queues ──> streams
//!                     └──> snapshots for GET and LIST
//! ```
#![allow(clippy::result_large_err, reason = "an error is the answer of the request: made once, never in a hot loop")]

mod dispatch;
mod event;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use pintle_api::Status;
use pintle_api::metrics::Series;
use pintle_api::object::Object;
use pintle_store::{Error, ListRequest, Store, WatchBatch, WatchHandle, WatchSink};
use tokio::sync::{Notify, watch as signal};
use tokio_util::sync::{CancellationToken, DropGuard};

use dispatch::Dispatch;
use event::Change;
pub use event::{Delivery, json_frame};
use state::{Map, Past, State};
pub use state::{Page, Snapshot};
pub use watch::{Start, Watch, WatchItem, WatchOptions};

/// Makes an object of a stored value and the revision it was written at.
pub type Decode = Arc<dyn Fn(&[u8], u64) -> Result<Object, String> + Send + Sync>;

/// How long a request for a revision that the cache has not seen waits for it.
const WAIT: Duration = Duration::from_secs(3);
/// While loading, the changes of at most so many revisions before are looked at.
const PAST: u64 = 20_000;
/// Keys read at once while loading.
const LOAD_PAGE: usize = 5000;

/// The bounds of a cache.
#[derive(Clone, Debug)]
pub struct Options {
    /// Recent changes kept for watches that start in the past: at most so many,
    pub history_events: usize,
    /// and at most so many bytes of them.
    pub history_bytes: usize,
    /// A watcher that is behind by more events than this goes back to the kept changes.
    pub queue: usize,
    /// Earlier states kept for lists that are read page by page.
    pub retained: usize,
    /// Counts the events the store tells of.
    pub received: Option<Arc<Series>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { history_events: 16_384, history_bytes: 16 << 20, queue: 1024, retained: 32, received: None }
    }
}

/// The cache of one resource. Clones are the same cache; it stops when the last is dropped.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

/// What the cache's users, its feeder and its dispatcher share.
struct Shared {
    store: Arc<dyn Store>,
    prefix: Arc<str>,
    decode: Decode,
    options: Options,
    state: Mutex<State>,
    dispatch: Mutex<Dispatch>,
    /// There are changes to hand out.
    changed: Notify,
    progress: signal::Sender<Progress>,
    /// Asks the store how far the watch has come.
    handle: Mutex<Option<WatchHandle>>,
    /// The store ended the watch.
    ended: Notify,
}

/// How far a cache has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Every change up to here has been applied.
    revision: u64,
    /// The cache has the state of the store and follows it.
    ready: bool,
}

/// Feeds the cache. Called by the store's writer: must be quick.
struct Feed(std::sync::Weak<Shared>);

impl WatchSink for Feed {
    fn deliver(&self, batch: &WatchBatch) {
        let Some(shared) = self.0.upgrade() else { return };
        if !batch.events.is_empty() {
            if let Some(received) = &shared.options.received {
                received.add(f64::from(u32::try_from(batch.events.len()).unwrap_or(u32::MAX)));
            }
            shared.apply(batch);
        }
        shared.progress.send_if_modified(|progress| {
            let news = batch.revision > progress.revision;
            progress.revision = progress.revision.max(batch.revision);
            news
        });
        if !batch.events.is_empty() {
            shared.changed.notify_one();
        }
    }

    fn ended(&self, error: &Error) {
        if let Some(shared) = self.0.upgrade() {
            // At shutdown every watch ends so.
            if matches!(error, Error::Closed) {
                tracing::debug!(prefix = &*shared.prefix, "the store was closed");
            } else {
                tracing::warn!(prefix = &*shared.prefix, %error, "the store ended a watch");
            }
            shared.progress.send_if_modified(|progress| std::mem::take(&mut progress.ready));
            shared.ended.notify_one();
        }
    }
}

impl Shared {
    fn object(&self, key: &str, value: &[u8], revision: u64) -> Option<Arc<Object>> {
        // The caller is the store's writer, which must survive whatever an object holds.
        let decoded = catch_unwind(AssertUnwindSafe(|| (self.decode)(value, revision)));
        match decoded.unwrap_or_else(|_| Err("decoding it panicked".into())) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::error!(key, revision, error, "an object in the store cannot be read; it is left out");
                None
            }
        }
    }

    fn apply(&self, batch: &WatchBatch) {
        // Decoded before the lock is taken.
        let objects: Vec<_> = batch
            .events
            .iter()
            .map(|event| event.value.as_ref().and_then(|value| self.object(&event.key, value, event.revision)))
            .collect();
        let mut state = self.state.lock();
        for (event, object) in batch.events.iter().zip(objects) {
            state.apply(&event.key, object, event.revision, &self.options);
        }
    }

    /// Reads the whole resource and then follows it.
    async fn load(self: &Arc<Self>) -> pintle_store::Result<()> {
        drop(self.handle.lock().take());
        let mut map = Map::new();
        let mut request = ListRequest::prefix(&*self.prefix).limit(LOAD_PAGE);
        let revision = loop {
            let listed = self.store.list(request.clone()).await?;
            let next = listed.more().then(|| listed.kvs.last().map(|kv| format!("{}\0", kv.key))).flatten();
            for kv in listed.kvs {
                if let Some(object) = self.object(&kv.key, &kv.value, kv.mod_revision) {
                    map.insert_cow(kv.key, object);
                }
            }
            match next {
                Some(next) => request = request.from_key(next).at(listed.revision),
                None => break listed.revision,
            }
        };
        let past = self.past(&map, revision).await;
        self.state.lock().replace(map, revision, past, &self.options);
        self.dispatch.lock().restart(self.state.lock().seq);
        let request = pintle_store::WatchRequest::prefix(&*self.prefix).from(revision + 1);
        let handle = self.store.watch_with(request, Arc::new(Feed(Arc::downgrade(self)))).await?;
        *self.handle.lock() = Some(handle);
        self.progress.send_modify(|progress| {
            progress.revision = progress.revision.max(revision);
            progress.ready = true;
        });
        Ok(())
    }

    /// What led to the state of a revision. A cache is loaded when it is first needed, perhaps after a restart; clients
    /// may know earlier revisions and want to go on from there. With a store that others share this would cost more
    /// than it saves.
    async fn past(&self, map: &Map, revision: u64) -> Past {
        let nothing = || Past { floor: revision, changes: Vec::new() };
        if self.store.local_revision().is_none() {
            return nothing();
        }
        match self.read_past(map, revision).await {
            Ok(past) => past,
            Err(error) => {
                tracing::debug!(prefix = &*self.prefix, %error, "a cache begins without a past");
                nothing()
            }
        }
    }

    async fn read_past(&self, map: &Map, revision: u64) -> pintle_store::Result<Past> {
        let floor = self.store.compacted_revision().await?.max(revision.saturating_sub(PAST)).max(1);
        let mut changes = Vec::new();
        if floor >= revision {
            return Ok(Past { floor: revision, changes });
        }
        let mut watch = self.store.watch(pintle_store::WatchRequest::prefix(&*self.prefix).from(floor + 1)).await?;
        watch.request_progress();
        // The states seen so far, so that each is decoded and held once.
        let mut seen: HashMap<Arc<str>, Arc<Object>> = HashMap::new();
        loop {
            let batch = watch.next().await.ok_or(Error::Closed)??;
            for event in batch.events.iter().filter(|event| event.revision <= revision) {
                let prev = event.prev.as_ref().and_then(|prev| {
                    let known = seen.get(&event.key).filter(|object| object.resource_version() == prev.mod_revision);
                    known.cloned().or_else(|| self.object(&event.key, &prev.value, prev.mod_revision))
                });
                let object = event.value.as_ref().and_then(|value| {
                    let known = map.get(&event.key).filter(|object| object.resource_version() == event.revision);
                    known.cloned().or_else(|| self.object(&event.key, value, event.revision))
                });
                match &object {
                    Some(object) => seen.insert(event.key.clone(), object.clone()),
                    None => seen.remove(&event.key),
                };
                let (key, revision) = (event.key.clone(), event.revision);
                changes.push(Change { seq: 0, revision, key, object, prev });
            }
            if batch.revision >= revision {
                return Ok(Past { floor, changes });
            }
        }
    }

    /// Loads again whenever the store ends the watch.
    async fn keep_loaded(self: Arc<Self>, stop: CancellationToken) {
        const FIRST: Duration = Duration::from_millis(50);
        let mut pause = FIRST;
        loop {
            tokio::select! { () = self.ended.notified() => {}, () = stop.cancelled() => return }
            self.dispatch.lock().end_all();
            while let Err(error) = self.load().await {
                if error == Error::Closed {
                    return;
                }
                tracing::warn!(prefix = &*self.prefix, %error, "loading a cache failed");
                tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            pause = FIRST;
        }
    }

    /// Waits until the cache has everything up to a revision.
    async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|progress| {
            progress.ready && progress.revision.max(self.store.local_revision().unwrap_or(0)) >= revision
        });
        if let Ok(Ok(_)) = tokio::time::timeout(WAIT, reached).await {
            return Ok(());
        }
        let progress = *self.progress.borrow();
        let current = progress.revision.max(self.store.local_revision().unwrap_or(0));
        if !progress.ready {
            return Err(Status::failure(429, "TooManyRequests", "storage is (re)initializing").retry_after(1));
        }
        if current >= revision { Ok(()) } else { Err(Status::too_large_version(revision, current)) }
    }

    /// Waits until the cache has what the store has now.
    async fn wait_until_fresh(&self) -> Result<(), Status> {
        if self.store.local_revision().is_some() {
            return if self.progress.borrow().ready { Ok(()) } else { self.wait_for(0).await };
        }
        let current = self.store.current_revision().await.map_err(|error| store_status(&error))?;
        let behind = self.progress.borrow().revision < current;
        if behind && let Some(handle) = &*self.handle.lock() {
            handle.request_progress();
        }
        self.wait_for(current).await
    }

    /// The present state and the revision it is known to be that of.
    fn now(&self) -> (Map, u64, u64) {
        // Asked first: everything up to there has been applied.
        let known = self.store.local_revision().unwrap_or(0).max(self.progress.borrow().revision);
        let state = self.state.lock();
        (state.map.clone(), known.max(state.applied), state.seq)
    }

    fn snapshot(&self) -> Snapshot {
        let (map, revision, _) = self.now();
        Snapshot { map, prefix: self.prefix.clone(), revision }
    }
}

impl Cache {
    /// Loads the resource kept under `prefix` (which ends with a slash) and follows it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(store: Arc<dyn Store>, prefix: &str, decode: Decode, options: Options) -> Result<Self, Status> {
        let shared = Arc::new(Shared {
            store,
            prefix: prefix.into(),
            decode,
            options,
            state: Mutex::default(),
            dispatch: Mutex::default(),
            changed: Notify::new(),
            progress: signal::Sender::new(Progress::default()),
            handle: Mutex::default(),
            ended: Notify::new(),
        });
        shared.load().await.map_err(|error| store_status(&error))?;
        let stop = CancellationToken::new();
        tokio::spawn(shared.clone().keep_loaded(stop.clone()));
        tokio::spawn(shared.clone().dispatch(stop.clone()));
        Ok(Self { shared, _stop: Arc::new(stop.drop_guard()) })
    }

    /// The newest state: it has every write acknowledged before the call.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn fresh(&self) -> Result<Snapshot, Status> {
        self.shared.wait_until_fresh().await?;
        Ok(self.shared.snapshot())
    }

    /// A state not older than a revision (`resourceVersion` with `NotOlderThan`; 0 is any state).
    ///
    /// # Errors
    /// 504 when the revision lies in the future and does not come soon.
    pub async fn at_least(&self, revision: u64) -> Result<Snapshot, Status> {
        self.shared.wait_for(revision).await?;
        Ok(self.shared.snapshot())
    }

    /// The state of exactly this revision (`resourceVersion` with `Exact`, continue tokens). What the cache does not
    /// know any more is read from the store.
    ///
    /// # Errors
    /// 410 when its history is gone, 504 when it lies in the future.
    pub async fn at(&self, revision: u64) -> Result<Snapshot, Status> {
        let shared = &self.shared;
        shared.wait_for(revision).await?;
        let prefix = shared.prefix.clone();
        if let Some(map) = shared.state.lock().at(revision) {
            return Ok(Snapshot { map, prefix, revision });
        }
        let listed = shared.store.list(ListRequest::prefix(&*prefix).at(revision)).await;
        let listed = listed.map_err(|error| store_status(&error))?;
        let objects = listed
            .kvs
            .into_iter()
            .filter_map(|kv| Some((kv.key.clone(), shared.object(&kv.key, &kv.value, kv.mod_revision)?)));
        Ok(Snapshot { map: objects.collect(), prefix, revision })
    }

    /// Keeps a state for a while because its next page will be asked for.
    pub fn retain(&self, snapshot: &Snapshot) {
        self.shared.state.lock().retain(snapshot.revision, &snapshot.map, self.shared.options.retained);
    }

    /// The object that a write just acknowledged at `revision` has put at this store key; `None` if it has been
    /// overwritten already, or (with a shared store) has not arrived yet.
    pub fn written(&self, key: &str, revision: u64) -> Option<Arc<Object>> {
        let state = self.shared.state.lock();
        state.map.get(key).filter(|object| object.resource_version() == revision).cloned()
    }

    /// The revision the cache has reached.
    pub fn revision(&self) -> u64 {
        self.shared.now().1
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// 410 when it starts in a past that is gone; 504 when its initial state lies in the future.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, Status> {
        Watch::start(self.shared.clone(), options).await
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.state.lock().map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has the state of the store and follows it.
    pub fn is_ready(&self) -> bool {
        self.shared.progress.borrow().ready
    }

    /// How many watches there are.
    pub fn watchers(&self) -> usize {
        self.shared.dispatch.lock().watchers()
    }
}

/// A store's failure as the API tells it.
fn store_status(error: &Error) -> Status {
    match error {
        Error::Compacted { requested, compacted } => Status::too_old(*requested, *compacted),
        Error::FutureRevision { requested, current } => Status::too_large_version(*requested, *current),
        other => Status::internal(other),
    }
}

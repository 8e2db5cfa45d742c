//! A store in memory: for tests and for clusters that need not outlive their process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::hub::{History, Hub};
use crate::store::{Store, Watch, WatchHandle, WatchSink};
use crate::{
    Error, Event, Expect, Got, Key, KeyValue, ListRequest, Listed, Op, Outcome, Result, Revision, Size, SnapshotInfo,
    Txn, WatchBatch, WatchRequest, snapshot,
};

/// A history of more changes than this is shortened from its old end.
const MAX_HISTORY: usize = 200_000;
/// How many changes a watch reads from history at once.
const HISTORY_CHUNK: usize = 1000;

/// A [`Store`] in memory. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    hub: Arc<Hub>,
    /// Wakes the task that deletes expired keys.
    expiry: Arc<Notify>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.expiry.notify_one();
    }
}

struct State {
    revision: Revision,
    compacted: Revision,
    current: BTreeMap<Key, Entry>,
    log: VecDeque<Arc<Event>>,
    bytes: usize,
    expiring: BTreeSet<(Instant, Key)>,
    expirer_runs: bool,
    closed: bool,
}

struct Entry {
    mod_revision: Revision,
    value: Bytes,
    expires: Option<Instant>,
}

impl Entry {
    fn kv(&self, key: &Key) -> KeyValue {
        KeyValue { key: key.clone(), value: self.value.clone(), mod_revision: self.mod_revision }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let state = State {
            revision: 1,
            compacted: 0,
            current: BTreeMap::new(),
            log: VecDeque::new(),
            bytes: 0,
            expiring: BTreeSet::new(),
            expirer_runs: false,
            closed: false,
        };
        let inner = Inner { state: Mutex::new(state), hub: Arc::new(Hub::new(1)), expiry: Arc::default() };
        Self { inner: Arc::new(inner) }
    }

    fn state(&self) -> Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.inner.state.lock();
        if state.closed { Err(Error::Closed) } else { Ok(state) }
    }
}

impl State {
    fn holds(&self, key: &Key, expect: Expect) -> bool {
        expect.holds(self.current.get(key).map(|entry| entry.mod_revision))
    }

    /// Makes the changes at the next revision and returns them.
    fn apply(&mut self, ops: Vec<Op>) -> Vec<Arc<Event>> {
        let revision = self.revision + 1;
        let mut events = Vec::with_capacity(ops.len());
        for op in ops {
            let (key, new) = match op {
                Op::Put { key, value, ttl } => {
                    let expires = ttl.map(|ttl| Instant::now() + ttl);
                    (key, Some(Entry { mod_revision: revision, value, expires }))
                }
                Op::Delete { key } => (key, None),
            };
            let value = new.as_ref().map(|entry| entry.value.clone());
            if let Some(expires) = new.as_ref().and_then(|entry| entry.expires) {
                self.expiring.insert((expires, key.clone()));
            }
            let old = match new {
                Some(entry) => self.current.insert(key.clone(), entry),
                None => self.current.remove(&key),
            };
            if let Some(expires) = old.as_ref().and_then(|old| old.expires) {
                let same = self.current.get(&key).and_then(|entry| entry.expires) == Some(expires);
                if !same {
                    self.expiring.remove(&(expires, key.clone()));
                }
            }
            if old.is_none() && value.is_none() {
                continue;
            }
            let prev = old.map(|old| old.kv(&key));
            self.bytes += value.as_ref().map_or(0, |value| key.len() + value.len());
            self.bytes -= prev.as_ref().map_or(0, |prev| key.len() + prev.value.len());
            events.push(Arc::new(Event { created: prev.is_none(), key, revision, value, prev }));
        }
        if !events.is_empty() {
            self.revision = revision;
            self.log.extend(events.iter().cloned());
            if self.log.len() > MAX_HISTORY {
                let cut = self.log[self.log.len() - MAX_HISTORY].revision;
                self.trim(cut.min(revision - 1));
            }
        }
        events
    }

    fn trim(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        let keep = self.log.partition_point(|event| event.revision <= self.compacted);
        self.log.drain(..keep);
    }

    fn check_readable(&self, revision: Revision) -> Result<()> {
        if revision > self.revision {
            return Err(Error::FutureRevision { requested: revision, current: self.revision });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        Ok(())
    }

    fn list(&self, request: &ListRequest) -> Result<Listed> {
        let revision = request.revision.unwrap_or(self.revision);
        self.check_readable(revision)?;
        let start = request.from_key.as_deref().unwrap_or("").max(request.prefix.as_str());
        let range = (Bound::Included(start), Bound::Unbounded);
        let current = self.current.range::<str, _>(range).take_while(|(key, _)| key.starts_with(&request.prefix));
        let limit = request.limit.unwrap_or(usize::MAX);
        if revision == self.revision {
            let mut current = current;
            let kvs = current.by_ref().take(limit).map(|(key, entry)| entry.kv(key)).collect();
            return Ok(Listed { kvs, revision, remaining: current.count() as u64 });
        }
        // Undo what happened since then, newest first.
        let mut then: BTreeMap<Key, KeyValue> = current.map(|(key, entry)| (key.clone(), entry.kv(key))).collect();
        let since = self.log.partition_point(|event| event.revision <= revision);
        let wanted = |event: &&Arc<Event>| event.key.starts_with(&request.prefix) && &*event.key >= start;
        for event in self.log.range(since..).rev().filter(wanted) {
            match &event.prev {
                Some(prev) => then.insert(event.key.clone(), prev.clone()),
                None => then.remove(&event.key),
            };
        }
        let mut then = then.into_values();
        let kvs = then.by_ref().take(limit).collect();
        Ok(Listed { kvs, revision, remaining: then.count() as u64 })
    }
}

impl Inner {
    /// Deletes keys as they expire, until the store is gone.
    async fn expire(this: Weak<Self>, changed: Arc<Notify>) {
        while let Some(inner) = this.upgrade() {
            let Some(next) = inner.delete_expired() else { return };
            drop(inner);
            match next {
                Some(at) => tokio::select! { () = tokio::time::sleep_until(at) => {}, () = changed.notified() => {} },
                None => changed.notified().await,
            }
        }
    }

    /// Deletes what has expired and returns when the next key will; `None` when the store is closed.
    fn delete_expired(&self) -> Option<Option<Instant>> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        while state.expiring.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(state.expiring.pop_first().map(|(_, key)| Op::Delete { key }));
        }
        let events = state.apply(due);
        if !events.is_empty() {
            self.hub.publish(&events, state.revision);
        }
        Some(state.expiring.first().map(|(at, _)| *at))
    }

    /// Wakes the task that deletes expired keys, or starts it.
    fn schedule_expiry(self: &Arc<Self>, state: &mut State) {
        if state.expiring.is_empty() {
            return;
        }
        if !std::mem::replace(&mut state.expirer_runs, true) {
            tokio::spawn(Self::expire(Arc::downgrade(self), self.expiry.clone()));
        }
        self.expiry.notify_one();
    }
}

#[async_trait]
impl History for Inner {
    async fn history(&self, after: Revision, request: &WatchRequest) -> Result<WatchBatch> {
        let state = self.state.lock();
        if after < state.compacted {
            return Err(Error::Compacted { requested: after + 1, compacted: state.compacted });
        }
        let mut events: Vec<Arc<Event>> = Vec::new();
        let start = state.log.partition_point(|event| event.revision <= after);
        for event in state.log.range(start..).filter(|event| request.matches(&event.key)) {
            if let Some(last) =
                events.last().filter(|last| events.len() >= HISTORY_CHUNK && last.revision < event.revision)
            {
                let revision = last.revision;
                return Ok(WatchBatch { events, revision });
            }
            events.push(event.clone());
        }
        Ok(WatchBatch { events, revision: state.revision })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Got> {
        let state = self.state()?;
        let kv = state.current.get_key_value(key).map(|(key, entry)| entry.kv(key));
        Ok(Got { kv, revision: state.revision })
    }

    async fn list(&self, request: ListRequest) -> Result<Listed> {
        self.state()?.list(&request)
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome> {
        txn.check()?;
        let mut state = self.state()?;
        if !txn.compares.iter().all(|compare| state.holds(&compare.key, compare.expect)) {
            let current = |key: &Key| state.current.get(key).map(|entry| entry.kv(key));
            let current = txn.on_failure.iter().map(current).collect();
            return Ok(Outcome::Failed { revision: state.revision, current });
        }
        let events = state.apply(txn.ops);
        if !events.is_empty() {
            self.inner.hub.publish(&events, state.revision);
        }
        self.inner.schedule_expiry(&mut state);
        Ok(Outcome::Succeeded { revision: state.revision })
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch> {
        drop(self.state()?);
        Ok(self.inner.hub.watch(self.inner.clone(), request))
    }

    async fn watch_with(&self, request: WatchRequest, sink: Arc<dyn WatchSink>) -> Result<WatchHandle> {
        self.inner.hub.watch_with(&*self.inner, request, sink).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.state()?.revision)
    }

    fn local_revision(&self) -> Option<Revision> {
        Some(self.inner.hub.published())
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        Ok(self.state()?.compacted)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let mut state = self.state()?;
        if revision > state.revision {
            return Err(Error::FutureRevision { requested: revision, current: state.revision });
        }
        if revision <= state.compacted {
            return Err(Error::Compacted { requested: revision, compacted: state.compacted });
        }
        state.trim(revision);
        Ok(())
    }

    async fn snapshot(&self, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<SnapshotInfo> {
        let (revision, records) = {
            let state = self.state()?;
            let now = Instant::now();
            let record = |(key, entry): (&Key, &Entry)| snapshot::Record {
                kv: entry.kv(key),
                ttl: entry.expires.map(|at| at.saturating_duration_since(now)),
            };
            (state.revision, state.current.iter().map(record).collect::<Vec<_>>())
        };
        let mut writer = snapshot::Writer::new(writer, revision).await?;
        for record in &records {
            writer.write(record).await?;
        }
        writer.finish().await
    }

    async fn restore(&self, reader: &mut (dyn AsyncRead + Send + Unpin), bump: Revision) -> Result<SnapshotInfo> {
        let mut reader = snapshot::Reader::new(reader).await?;
        let mut records = Vec::new();
        while let Some(record) = reader.next().await? {
            records.push(record);
        }
        let info = reader.info();
        let mut state = self.state()?;
        if state.revision != 1 {
            return Err(Error::Invalid("a snapshot can only be restored into an empty store".into()));
        }
        for snapshot::Record { kv, ttl } in records {
            let expires = ttl.map(|ttl| Instant::now() + ttl);
            state.bytes += kv.key.len() + kv.value.len();
            if let Some(expires) = expires {
                state.expiring.insert((expires, kv.key.clone()));
            }
            state.current.insert(kv.key, Entry { mod_revision: kv.mod_revision, value: kv.value, expires });
        }
        state.revision = info.revision + bump;
        state.compacted = state.revision;
        self.inner.hub.publish(&[], state.revision);
        self.inner.schedule_expiry(&mut state);
        Ok(info)
    }

    async fn size(&self) -> Result<Size> {
        let bytes = self.state()?.bytes as u64;
        Ok(Size { total: bytes, used: bytes })
    }

    async fn close(&self) -> Result<()> {
        self.inner.state.lock().closed = true;
        self.inner.hub.close(&Error::Closed);
        self.inner.expiry.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn history_is_bounded() {
        let store = MemoryStore::new();
        for _ in 0..MAX_HISTORY + 10 {
            store.txn(Txn::default().put("/a", "x")).await.unwrap();
        }
        assert!(store.inner.state.lock().log.len() <= MAX_HISTORY);
        assert!(store.compacted_revision().await.unwrap() > 0);
    }

    mod conformance {
        use super::super::MemoryStore;
        use crate::conformance::Fixture;

        async fn fixture() -> Fixture {
            Fixture::new(MemoryStore::new())
        }
        crate::conformance_tests!(fixture);
    }
}

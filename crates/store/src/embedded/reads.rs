//! Reading the file: all functions here see one consistent state and may wait for the disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::file::db_error;
use super::tables::{COMPACTED, CURRENT, Cell, EXPIRY, LOG, META, REVISION, decode_event, event_key};
use crate::hub::Hub;
use crate::{
    Error, Event, Got, Key, KeyValue, ListRequest, Listed, Result, Revision, WatchBatch, WatchRequest, snapshot,
};

/// A watch reads about this many bytes of history at once.
const HISTORY_BYTES: usize = 1 << 20;

fn meta(tx: &ReadTransaction, name: &str) -> Result<u64> {
    let table = tx.open_table(META).map_err(db_error)?;
    let value = table.get(name).map_err(db_error)?;
    Ok(value.map_or(0, |value| value.value()))
}

/// A number about the whole store; 0 if it was never set.
pub(super) fn number(db: &Database, name: &str) -> Result<u64> {
    meta(&db.begin_read().map_err(db_error)?, name)
}

pub(super) fn get(db: &Database, key: &str) -> Result<Got> {
    let tx = db.begin_read().map_err(db_error)?;
    let table = tx.open_table(CURRENT).map_err(db_error)?;
    let kv = match table.get(key).map_err(db_error)? {
        Some(cell) => Some(Cell::decode(cell.value())?.kv(key.into())),
        None => None,
    };
    Ok(Got { kv, revision: meta(&tx, REVISION)? })
}

/// The present state is what watches have been told of. The file may be a moment ahead; whoever waits for a watch to
/// reach a revision that nobody is told of yet, and that changed nothing it watches, would wait for ever.
pub(super) fn list(db: &Database, request: &ListRequest, hub: &Hub) -> Result<Listed> {
    let tx = db.begin_read().map_err(db_error)?;
    let current = meta(&tx, REVISION)?;
    let compacted = meta(&tx, COMPACTED)?;
    // Asked for after the file's state is fixed, so that the history in between is there.
    let revision = request.revision.unwrap_or_else(|| hub.published().min(current));
    if revision > current {
        return Err(Error::FutureRevision { requested: revision, current });
    }
    if revision < compacted {
        return Err(Error::Compacted { requested: revision, compacted });
    }
    let start = request.from_key.as_deref().unwrap_or("").max(request.prefix.as_str());
    // What the keys changed since then held then, by key.
    let mut then: BTreeMap<Key, Option<KeyValue>> = BTreeMap::new();
    if revision < current {
        let log = tx.open_table(LOG).map_err(db_error)?;
        for item in log.range((revision + 1, 0)..).map_err(db_error)? {
            let (id, bytes) = item.map_err(db_error)?;
            let key = event_key(bytes.value())?;
            if key.starts_with(&request.prefix) && key >= start && !then.contains_key(key) {
                let event = decode_event(id.value().0, bytes.value())?;
                then.insert(event.key, event.prev);
            }
        }
    }
    let mut page = Page { kvs: Vec::new(), limit: request.limit.unwrap_or(usize::MAX), remaining: 0 };
    let mut then = then.into_iter().peekable();
    let table = tx.open_table(CURRENT).map_err(db_error)?;
    for item in table.range::<&str>((Bound::Included(start), Bound::Unbounded)).map_err(db_error)? {
        let (key, cell) = item.map_err(db_error)?;
        let key = key.value();
        if !key.starts_with(&request.prefix) {
            break;
        }
        while let Some((_, old)) = then.next_if(|(old, _)| **old < *key) {
            page.push_old(old);
        }
        match then.next_if(|(old, _)| **old == *key) {
            Some((_, old)) => page.push_old(old),
            None => page.push(|| Ok(Cell::decode(cell.value())?.kv(key.into())))?,
        }
    }
    for (_, old) in then {
        page.push_old(old);
    }
    Ok(Listed { kvs: page.kvs, revision, remaining: page.remaining })
}

struct Page {
    kvs: Vec<KeyValue>,
    limit: usize,
    remaining: u64,
}

impl Page {
    fn push(&mut self, kv: impl FnOnce() -> Result<KeyValue>) -> Result<()> {
        if self.kvs.len() < self.limit {
            self.kvs.push(kv()?);
        } else {
            self.remaining += 1;
        }
        Ok(())
    }
    fn push_old(&mut self, old: Option<KeyValue>) {
        match old {
            Some(kv) if self.kvs.len() < self.limit => self.kvs.push(kv),
            Some(_) => self.remaining += 1,
            None => {}
        }
    }
}

/// The wanted changes after a revision, whole revisions, about [`HISTORY_BYTES`] of them.
pub(super) fn history(db: &Database, after: Revision, request: &WatchRequest) -> Result<WatchBatch> {
    let tx = db.begin_read().map_err(db_error)?;
    let compacted = meta(&tx, COMPACTED)?;
    if after < compacted {
        return Err(Error::Compacted { requested: after + 1, compacted });
    }
    let mut events: Vec<Arc<Event>> = Vec::new();
    let mut bytes_read = 0;
    let log = tx.open_table(LOG).map_err(db_error)?;
    for item in log.range((after + 1, 0)..).map_err(db_error)? {
        let (id, bytes) = item.map_err(db_error)?;
        let revision = id.value().0;
        if let Some(last) = events.last().filter(|last| bytes_read > HISTORY_BYTES && last.revision < revision) {
            let revision = last.revision;
            return Ok(WatchBatch { events, revision });
        }
        if request.matches(event_key(bytes.value())?) {
            bytes_read += bytes.value().len();
            events.push(Arc::new(decode_event(revision, bytes.value())?));
        }
    }
    Ok(WatchBatch { events, revision: meta(&tx, REVISION)? })
}

/// When the next key ends its life, in milliseconds since 1970.
pub(super) fn next_expiry(db: &Database) -> Result<Option<u64>> {
    let tx = db.begin_read().map_err(db_error)?;
    let table = tx.open_table(EXPIRY).map_err(db_error)?;
    let first = table.first().map_err(db_error)?;
    Ok(first.map(|(id, _)| id.value().0))
}

/// Reads all keys, handing them on in pieces; `now` is in milliseconds since 1970. Stops early when `send` says so.
pub(super) fn dump(
    db: &Database,
    now: u64,
    start: impl FnOnce(Revision) -> bool,
    send: impl Fn(Vec<snapshot::Record>) -> bool,
) -> Result<()> {
    const PIECE: usize = 1 << 20;
    let tx = db.begin_read().map_err(db_error)?;
    if !start(meta(&tx, REVISION)?) {
        return Ok(());
    }
    let table = tx.open_table(CURRENT).map_err(db_error)?;
    let mut piece = Vec::new();
    let mut bytes = 0;
    for item in table.range::<&str>(..).map_err(db_error)? {
        let (key, cell) = item.map_err(db_error)?;
        let cell = Cell::decode(cell.value())?;
        let ttl = (cell.expires > 0).then(|| Duration::from_millis(cell.expires.saturating_sub(now).max(1)));
        bytes += cell.value.len() + 100;
        piece.push(snapshot::Record { kv: cell.kv(key.value().into()), ttl });
        if bytes > PIECE {
            bytes = 0;
            if !send(std::mem::take(&mut piece)) {
                return Ok(());
            }
        }
    }
    send(piece);
    Ok(())
}

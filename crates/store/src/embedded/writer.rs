//! The one thread that writes. It takes all transactions that wait, writes them in one commit of the file (group
//! commit), and when that is durable tells watchers, then those who wrote.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Durability, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::oneshot;

use super::file::db_error;
use super::tables::{
    BYTES, COMPACTED, CURRENT, Cell, EXPIRY, FORMAT, FORMAT_VERSION, LOG, META, OPENED, REVISION, encode_event,
};
use super::{Shared, reads};
use crate::{Error, Event, Key, KeyValue, Op, Outcome, Result, Revision, SnapshotInfo, Txn, WatchRequest, snapshot};

/// At most so many transactions, or bytes, go into one commit.
const GROUP_TXNS: usize = 1024;
const GROUP_BYTES: usize = 16 << 20;
/// How many entries of old history, and expired keys, are deleted in one commit at most.
const TRIM_ENTRIES: usize = 2048;
/// How finely the age of history is known: this many steps make the time it is kept.
const AGE_STEPS: u32 = 30;

/// What the writer is asked to do.
pub(super) enum Request {
    Txn { txn: Txn, reply: oneshot::Sender<Result<Outcome>> },
    Compact { revision: Revision, reply: oneshot::Sender<Result<()>> },
    Restore { records: tokio::sync::mpsc::Receiver<Restore>, reply: oneshot::Sender<Result<()>> },
    Close { reply: oneshot::Sender<()> },
}

/// The parts of a snapshot being restored. Without the `End` nothing is kept.
pub(super) enum Restore {
    Records(Vec<snapshot::Record>),
    End { info: SnapshotInfo, bump: Revision },
}

/// The numbers of `META`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub revision: Revision,
    pub compacted: Revision,
    pub bytes: u64,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    /// As in the file.
    numbers: Numbers,
    /// The earliest end of a key's life, in milliseconds since 1970.
    next_expiry: Option<u64>,
    /// There may be history up to the compacted revision still to be deleted.
    trimming: bool,
    /// From when on which revision was reached; the oldest first.
    ages: VecDeque<(Instant, Revision)>,
    buffer: Vec<u8>,
}

/// Requests that go into one commit.
#[derive(Default)]
struct Group {
    items: Vec<Item>,
    bytes: usize,
    then: Option<Request>,
}

enum Item {
    Txn { txn: Txn, reply: oneshot::Sender<Result<Outcome>> },
    Compact { revision: Revision, reply: oneshot::Sender<Result<()>> },
}

/// What a commit does, and the answers that may be given once it is durable.
struct Effect {
    numbers: Numbers,
    events: Vec<Arc<Event>>,
    answers: Vec<Result<Outcome>>,
    trimming: bool,
    next_expiry: Option<u64>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, requests: Receiver<Request>, numbers: Numbers) -> Result<Self> {
        let next_expiry = shared.read(reads::next_expiry)?;
        let mut ages = VecDeque::new();
        // The age of history found in the file is not known; it is kept for the full time from now.
        if numbers.revision > numbers.compacted {
            ages.push_back((Instant::now(), numbers.revision));
        }
        Ok(Self { shared, requests, numbers, next_expiry, trimming: true, ages, buffer: Vec::new() })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Works until the store is closed or gone.
    pub(super) fn run(mut self) {
        loop {
            let mut group = Group::default();
            let first = match self.wait() {
                Some(wait) if wait.is_zero() => self.requests.try_recv().map_err(|error| match error {
                    std::sync::mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    std::sync::mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
                Some(wait) => self.requests.recv_timeout(wait),
                None => self.requests.recv().map_err(RecvTimeoutError::from),
            };
            match first {
                Ok(request) => group.add(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while group.has_room() {
                let Ok(request) = self.requests.try_recv() else { break };
                group.add(request);
            }
            let then = group.then.take();
            self.commit(group.items);
            match then {
                Some(Request::Restore { mut records, reply }) => {
                    let restored = self.restore(&mut records);
                    if let Err(error @ (Error::Io(_) | Error::NoSpace(_))) = &restored {
                        // If this fails too, the next request says so.
                        let _ = self.recover(error.clone());
                    }
                    let _ = reply.send(restored);
                }
                Some(Request::Close { reply }) => {
                    self.shared.shut(&Error::Closed);
                    let _ = reply.send(());
                    return;
                }
                Some(Request::Txn { .. } | Request::Compact { .. }) | None => {}
            }
        }
        self.shared.shut(&Error::Closed);
    }

    /// How long the writer may sleep if nobody wants anything; for ever if `None`.
    fn wait(&self) -> Option<Duration> {
        let expiry = self.next_expiry.map(|at| Duration::from_millis(at.saturating_sub(self.shared.now())));
        let kept = self.shared.options.history;
        let age = self.ages.front().map(|(since, _)| kept.saturating_sub(since.elapsed()));
        let trim = self.trimming.then_some(Duration::ZERO);
        [expiry, age, trim].into_iter().flatten().min()
    }

    fn commit(&mut self, items: Vec<Item>) {
        if let Err(error) = self.reopen_if_needed() {
            return fail(items, &error);
        }
        let committed = match self.write(&items) {
            Ok(effect) => Ok(effect),
            Err(failure) => {
                let (error, intended) = *failure;
                tracing::error!(%error, "writing the store failed");
                match self.recover(error) {
                    // The file says that the commit took place, though its end was reported as failed.
                    Ok(())
                        if intended.as_ref().is_some_and(|effect| effect.numbers.revision == self.numbers.revision) =>
                    {
                        intended.ok_or(Error::Closed)
                    }
                    Ok(()) => Err(self.shared.trouble().unwrap_or(Error::Closed)),
                    Err(error) => Err(error),
                }
            }
        };
        let effect = match committed {
            Ok(effect) => effect,
            Err(error) => {
                // Not at once again.
                self.trimming = false;
                self.next_expiry = self.next_expiry.map(|at| at.max(self.shared.now() + 1000));
                return fail(items, &error);
            }
        };
        self.adopt(&effect);
        if !effect.events.is_empty() && effect.numbers.revision > self.shared.hub.published() {
            self.shared.hub.publish(&effect.events, effect.numbers.revision);
        }
        for (item, answer) in items.into_iter().zip(effect.answers) {
            match item {
                Item::Txn { reply, .. } => drop(reply.send(answer)),
                Item::Compact { reply, .. } => drop(reply.send(answer.map(|_| ()))),
            }
        }
    }

    /// Takes over what a commit did.
    fn adopt(&mut self, effect: &Effect) {
        let now = Instant::now();
        if effect.numbers.revision > self.numbers.revision {
            let step = self.shared.options.history / AGE_STEPS;
            match self.ages.back_mut() {
                Some((since, revision)) if now.duration_since(*since) < step => *revision = effect.numbers.revision,
                _ => self.ages.push_back((now, effect.numbers.revision)),
            }
        }
        self.numbers = effect.numbers;
        self.trimming = effect.trimming;
        self.next_expiry = effect.next_expiry;
    }

    /// The revision up to which history is old enough to go, if that is news.
    fn outdated(&mut self) -> Option<Revision> {
        let kept = self.shared.options.history;
        let mut outdated = None;
        while let Some((since, revision)) = self.ages.front().copied() {
            // An entry also covers writes up to one step later.
            if since.elapsed() < kept {
                break;
            }
            outdated = Some(revision);
            self.ages.pop_front();
        }
        outdated.filter(|revision| *revision > self.numbers.compacted)
    }

    /// Writes a group in one transaction of the file. A failure comes with the effect if the commit itself failed, in
    /// which case it may yet have taken place.
    fn write(&mut self, items: &[Item]) -> Result<Effect, Box<(Error, Option<Effect>)>> {
        let shared = self.shared.clone();
        let outdated = self.outdated();
        let guard = shared.db.read();
        let db = guard.as_ref().ok_or(Box::new((Error::Closed, None)))?;
        let mut tx = db.begin_write().map_err(|error| Box::new((db_error(error), None)))?;
        durably(&mut tx, shared.durable).map_err(|error| Box::new((error, None)))?;
        let (effect, changed) = self.fill(&tx, items, outdated).map_err(|error| Box::new((error, None)))?;
        if !changed {
            tx.abort().map_err(|error| Box::new((db_error(error), None)))?;
            return Ok(effect);
        }
        match tx.commit() {
            Ok(()) => {
                // Without one the next commit does more, and nothing else is different.
                *shared.last.lock() = db.begin_read().ok();
                Ok(effect)
            }
            Err(error) => Err(Box::new((db_error(error), Some(effect)))),
        }
    }

    /// Makes the changes within a transaction of the file; says whether there are any.
    fn fill(&mut self, tx: &WriteTransaction, items: &[Item], outdated: Option<Revision>) -> Result<(Effect, bool)> {
        let mut batch = Batch::open(tx, self.numbers, &mut self.buffer)?;
        let mut answers = Vec::with_capacity(items.len());
        if self.next_expiry.is_some_and(|at| at <= self.shared.now()) {
            batch.expire(self.shared.now())?;
        }
        for item in items {
            answers.push(match item {
                Item::Txn { txn, .. } => batch.txn(txn, || self.shared.now())?,
                Item::Compact { revision, .. } => batch.compact(*revision),
            });
        }
        if let Some(revision) = outdated {
            batch.numbers.compacted = batch.numbers.compacted.max(revision.min(batch.numbers.revision));
        }
        let mut trimming = self.trimming || batch.numbers.compacted > self.numbers.compacted;
        if trimming {
            trimming = batch.trim()?;
        }
        let changed = batch.numbers != self.numbers;
        if changed {
            batch.store_numbers()?;
        }
        let next_expiry = batch.next_expiry()?;
        let effect = Effect { numbers: batch.numbers, events: batch.events, answers, trimming, next_expiry };
        Ok((effect, changed))
    }

    fn reopen_if_needed(&mut self) -> Result<()> {
        if self.shared.db.read().is_some() {
            return Ok(());
        }
        self.shared.hub_alive()?;
        self.reopen()
    }

    /// After a failed write: opens the file again, which brings it to its last durable state. `Ok` if that worked.
    fn recover(&mut self, error: Error) -> Result<()> {
        if self.shared.sync_has_failed() {
            let error = Error::Io(format!(
                "{error}; the operating system could not make writes durable: check the disk, then start again"
            ));
            self.shared.shut(&error);
            return Err(error);
        }
        self.shared.set_trouble(error);
        self.reopen()
    }

    fn reopen(&mut self) -> Result<()> {
        let trouble = |error: Error| {
            self.shared.set_trouble(error.clone());
            error
        };
        let mut slot = self.shared.db.write();
        self.shared.close_file(&mut slot);
        let db = self.shared.open_file().map_err(trouble)?;
        let mut numbers = read_numbers(&db).map_err(trouble)?;
        if numbers.revision > self.shared.hub.published() {
            // A commit reported as failed has taken place. Another one, whose success is certain, makes it so for ever.
            numbers = prepare(&db, self.shared.durable).map_err(trouble)?;
        }
        *slot = Some(db);
        drop(slot);
        self.numbers = numbers;
        self.trimming = true;
        self.next_expiry = self.shared.read(reads::next_expiry)?;
        let all = WatchRequest::prefix("");
        while self.shared.hub.published() < numbers.revision {
            let batch = self.shared.read(|db| reads::history(db, self.shared.hub.published(), &all))?;
            self.shared.hub.publish(&batch.events, batch.revision);
        }
        Ok(())
    }

    /// Fills the empty store from a snapshot, in one transaction.
    fn restore(&mut self, records: &mut tokio::sync::mpsc::Receiver<Restore>) -> Result<()> {
        let shared = self.shared.clone();
        let guard = shared.db.read();
        let db = guard.as_ref().ok_or(Error::Closed)?;
        if self.numbers.revision != 1 {
            return Err(Error::Invalid("a snapshot can only be restored into an empty store".into()));
        }
        let mut tx = db.begin_write().map_err(db_error)?;
        durably(&mut tx, shared.durable)?;
        let mut batch = Batch::open(&tx, self.numbers, &mut self.buffer)?;
        let now = shared.now();
        loop {
            match records.blocking_recv() {
                Some(Restore::Records(records)) => records.iter().try_for_each(|record| batch.restore(record, now))?,
                Some(Restore::End { info, bump }) => {
                    batch.numbers.revision = info.revision + bump;
                    batch.numbers.compacted = batch.numbers.revision;
                    break;
                }
                // The reader found the snapshot damaged.
                None => return Ok(()),
            }
        }
        batch.store_numbers()?;
        let (numbers, next_expiry) = (batch.numbers, batch.next_expiry()?);
        drop(batch);
        tx.commit().map_err(db_error)?;
        (self.numbers, self.next_expiry) = (numbers, next_expiry);
        shared.hub.publish(&[], numbers.revision);
        Ok(())
    }
}

impl Group {
    fn has_room(&self) -> bool {
        self.then.is_none() && self.items.len() < GROUP_TXNS && self.bytes < GROUP_BYTES
    }
    fn add(&mut self, request: Request) {
        match request {
            Request::Txn { txn, reply } => {
                let size = |op: &Op| if let Op::Put { value, .. } = op { value.len() } else { 0 };
                self.bytes += txn.ops.iter().map(size).sum::<usize>();
                self.items.push(Item::Txn { txn, reply });
            }
            Request::Compact { revision, reply } => self.items.push(Item::Compact { revision, reply }),
            other => self.then = Some(other),
        }
    }
}

fn fail(items: Vec<Item>, error: &Error) {
    for item in items {
        match item {
            Item::Txn { reply, .. } => drop(reply.send(Err(error.clone()))),
            Item::Compact { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}

/// A durable commit is of one phase and tells of itself by its check sums: one sync, and opening the file after a crash
/// takes as long as reading it through.
fn durably(tx: &mut WriteTransaction, durable: bool) -> Result<()> {
    let durability = if durable { Durability::Immediate } else { Durability::None };
    tx.set_durability(durability).map_err(|error| Error::Io(error.to_string()))
}

/// The numbers of a file opened before.
fn read_numbers(db: &redb::Database) -> Result<Numbers> {
    let number = |name| reads::number(db, name);
    Ok(Numbers { revision: number(REVISION)?, compacted: number(COMPACTED)?, bytes: number(BYTES)? })
}

/// Makes or checks the tables of a file just opened, and that it can be written.
pub(super) fn prepare(db: &redb::Database, durable: bool) -> Result<Numbers> {
    let mut tx = db.begin_write().map_err(db_error)?;
    durably(&mut tx, durable)?;
    let numbers = {
        let mut meta = tx.open_table(META).map_err(db_error)?;
        let number = |name| Ok(meta.get(name).map_err(db_error)?.map(|value| value.value()));
        let format: Option<u64> = number(FORMAT)?;
        if let Some(format) = format.filter(|format| *format != FORMAT_VERSION) {
            return Err(Error::Format(format!(
                "the store has format {format}; this program reads format {FORMAT_VERSION}. Use the version that \
                 wrote it, or restore a snapshot taken with that version"
            )));
        }
        let revision = number(REVISION)?.unwrap_or(1);
        let numbers =
            Numbers { revision, compacted: number(COMPACTED)?.unwrap_or(0), bytes: number(BYTES)?.unwrap_or(0) };
        let opened = number(OPENED)?.unwrap_or(0) + 1;
        for (name, value) in [(FORMAT, FORMAT_VERSION), (OPENED, opened), (REVISION, revision)] {
            meta.insert(name, value).map_err(db_error)?;
        }
        tx.open_table(CURRENT).map_err(db_error)?;
        tx.open_table(LOG).map_err(db_error)?;
        tx.open_table(EXPIRY).map_err(db_error)?;
        numbers
    };
    tx.commit().map_err(db_error)?;
    Ok(numbers)
}

/// The open tables of one commit.
struct Batch<'tx, 'w> {
    meta: redb::Table<'tx, &'static str, u64>,
    current: redb::Table<'tx, &'static str, &'static [u8]>,
    log: redb::Table<'tx, (u64, u32), &'static [u8]>,
    expiry: redb::Table<'tx, (u64, &'static str), ()>,
    numbers: Numbers,
    events: Vec<Arc<Event>>,
    buffer: &'w mut Vec<u8>,
}

impl<'tx, 'w> Batch<'tx, 'w> {
    fn open(tx: &'tx WriteTransaction, numbers: Numbers, buffer: &'w mut Vec<u8>) -> Result<Self> {
        Ok(Self {
            meta: tx.open_table(META).map_err(db_error)?,
            current: tx.open_table(CURRENT).map_err(db_error)?,
            log: tx.open_table(LOG).map_err(db_error)?,
            expiry: tx.open_table(EXPIRY).map_err(db_error)?,
            numbers,
            events: Vec::new(),
            buffer,
        })
    }

    /// Runs one transaction. Only a failure of the file is an `Err` outside.
    fn txn(&mut self, txn: &Txn, now: impl Fn() -> u64) -> Result<Result<Outcome>> {
        for compare in &txn.compares {
            let cell = self.current.get(&*compare.key).map_err(db_error)?;
            let mod_revision = match cell {
                Some(cell) => Some(Cell::decode(cell.value())?.mod_revision),
                None => None,
            };
            if !compare.expect.holds(mod_revision) {
                return Ok(Ok(self.failed(&txn.on_failure)?));
            }
        }
        let before = self.events.len();
        let revision = self.numbers.revision + 1;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, ttl } => {
                    let expires = ttl.map_or(0, |ttl| now() + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 4));
                    self.put(key, value, expires, revision)?;
                }
                Op::Delete { key } => self.delete(key, revision)?,
            }
        }
        if self.events.len() > before {
            self.log_events(before)?;
            self.numbers.revision = revision;
        }
        Ok(Ok(Outcome::Succeeded { revision: self.numbers.revision }))
    }

    fn failed(&self, keys: &[Key]) -> Result<Outcome> {
        let mut current = Vec::with_capacity(keys.len());
        for key in keys {
            current.push(match self.current.get(&**key).map_err(db_error)? {
                Some(cell) => Some(Cell::decode(cell.value())?.kv(key.clone())),
                None => None,
            });
        }
        Ok(Outcome::Failed { revision: self.numbers.revision, current })
    }

    fn put(&mut self, key: &Key, value: &Bytes, expires: u64, revision: Revision) -> Result<()> {
        Cell { mod_revision: revision, expires, value }.encode(self.buffer);
        let old = self.current.insert(&**key, self.buffer.as_slice()).map_err(db_error)?;
        let old = old.map(|old| own(key, old.value())).transpose()?;
        let prev = self.forget(key, old)?;
        if expires > 0 {
            self.expiry.insert((expires, &**key), ()).map_err(db_error)?;
        }
        self.numbers.bytes += Cell::weight(key, value);
        let event = Event { key: key.clone(), revision, value: Some(value.clone()), created: prev.is_none(), prev };
        self.events.push(Arc::new(event));
        Ok(())
    }

    fn delete(&mut self, key: &Key, revision: Revision) -> Result<()> {
        let old = self.current.remove(&**key).map_err(db_error)?;
        let old = old.map(|old| own(key, old.value())).transpose()?;
        if let Some(prev) = self.forget(key, old)? {
            let event = Event { key: key.clone(), revision, value: None, created: false, prev: Some(prev) };
            self.events.push(Arc::new(event));
        }
        Ok(())
    }

    /// Accounts for a cell that is gone.
    fn forget(&mut self, key: &str, old: Option<(KeyValue, u64)>) -> Result<Option<KeyValue>> {
        let Some((prev, expires)) = old else { return Ok(None) };
        if expires > 0 {
            self.expiry.remove((expires, key)).map_err(db_error)?;
        }
        self.numbers.bytes = self.numbers.bytes.saturating_sub(Cell::weight(key, &prev.value));
        Ok(Some(prev))
    }

    fn log_events(&mut self, from: usize) -> Result<()> {
        for (i, event) in self.events[from..].iter().enumerate() {
            encode_event(event, self.buffer);
            self.numbers.bytes += self.buffer.len() as u64;
            let number = u32::try_from(i).map_err(|_| Error::Invalid("the transaction is too large".into()))?;
            self.log.insert((event.revision, number), self.buffer.as_slice()).map_err(db_error)?;
        }
        Ok(())
    }

    /// Deletes keys whose life has ended, all at one revision.
    fn expire(&mut self, now: u64) -> Result<()> {
        let mut due: Vec<Key> = Vec::new();
        for item in self.expiry.range(..(now + 1, "")).map_err(db_error)?.take(TRIM_ENTRIES) {
            let (id, _) = item.map_err(db_error)?;
            due.push(id.value().1.into());
        }
        let before = self.events.len();
        let revision = self.numbers.revision + 1;
        for key in due {
            self.delete(&key, revision)?;
        }
        if self.events.len() > before {
            self.log_events(before)?;
            self.numbers.revision = revision;
        }
        Ok(())
    }

    fn compact(&mut self, revision: Revision) -> Result<Outcome> {
        let Numbers { revision: current, compacted, .. } = self.numbers;
        if revision > current {
            return Err(Error::FutureRevision { requested: revision, current });
        }
        if revision <= compacted {
            return Err(Error::Compacted { requested: revision, compacted });
        }
        self.numbers.compacted = revision;
        Ok(Outcome::Succeeded { revision: current })
    }

    /// Deletes some of the compacted history; says whether there is more.
    fn trim(&mut self) -> Result<bool> {
        // More than is added, or the file would grow for as long as it is busy.
        let most = TRIM_ENTRIES.max(2 * self.events.len());
        let mut ids = Vec::new();
        for item in self.log.range(..(self.numbers.compacted + 1, 0)).map_err(db_error)?.take(most) {
            let (id, bytes) = item.map_err(db_error)?;
            self.numbers.bytes = self.numbers.bytes.saturating_sub(bytes.value().len() as u64);
            ids.push(id.value());
        }
        for id in &ids {
            self.log.remove(id).map_err(db_error)?;
        }
        Ok(ids.len() == most)
    }

    fn store_numbers(&mut self) -> Result<()> {
        let Numbers { revision, compacted, bytes } = self.numbers;
        for (name, value) in [(REVISION, revision), (COMPACTED, compacted), (BYTES, bytes)] {
            self.meta.insert(name, value).map_err(db_error)?;
        }
        Ok(())
    }

    fn next_expiry(&self) -> Result<Option<u64>> {
        Ok(self.expiry.first().map_err(db_error)?.map(|(id, _)| id.value().0))
    }

    fn restore(&mut self, record: &snapshot::Record, now: u64) -> Result<()> {
        let snapshot::Record { kv, ttl } = record;
        let expires = ttl.map_or(0, |ttl| now + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 4));
        Cell { mod_revision: kv.mod_revision, expires, value: &kv.value }.encode(self.buffer);
        self.current.insert(&*kv.key, self.buffer.as_slice()).map_err(db_error)?;
        if expires > 0 {
            self.expiry.insert((expires, &*kv.key), ()).map_err(db_error)?;
        }
        self.numbers.bytes += Cell::weight(&kv.key, &kv.value);
        Ok(())
    }
}

/// A cell's content and end of life, copied out of the file.
fn own(key: &Key, cell: &[u8]) -> Result<(KeyValue, u64)> {
    let cell = Cell::decode(cell)?;
    Ok((cell.kv(key.clone()), cell.expires))
}

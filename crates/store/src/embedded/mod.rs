//! The durable store of a one-node cluster: one file, written by one thread, in pure Rust.
//!
//! The file is a copy-on-write B-tree (redb) with check sums throughout: whatever happens to the process or the machine,
//! opening the file gives the state after the last durable commit. A transaction is acknowledged after the commit that
//! contains it is durable. The file holds the present state and some minutes of history; gets and lists are read from
//! it, and the caches in front of the store answer most reads.

mod file;
mod reads;
#[cfg(test)]
mod simdisk;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadTransaction};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use self::file::Place;
use self::writer::{Numbers, Request, Restore, Writer};
use crate::hub::{History, Hub};
use crate::store::{Store, Watch, WatchHandle, WatchSink};
use crate::{
    Error, Got, ListRequest, Listed, Outcome, Result, Revision, Size, SnapshotInfo, Txn, WatchBatch, WatchRequest,
    snapshot,
};

/// How an [`EmbeddedStore`] works.
#[derive(Clone)]
pub struct Options {
    /// How long history is kept for watches and old lists.
    pub history: Duration,
    /// How much of the file may be held in memory, in bytes.
    pub cache: usize,
    /// A file of at most so many bytes has all its check sums verified when it is opened, which takes some seconds a
    /// gigabyte; damage to a larger one may be found late.
    pub verify: u64,
    /// The time by which keys with a limited life go away.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        let clock = Arc::new(SystemTime::now);
        Self { history: Duration::from_secs(300), cache: 16 << 20, verify: 64 << 20, clock }
    }
}

/// A [`Store`] in a directory of this machine. Clones are the same store.
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

/// What the writer and the readers share.
struct Shared {
    /// `None` after closing, or while the file cannot be opened again after a failed write.
    db: RwLock<Option<Database>>,
    /// A reader of the last commit. While there is one, the file's library frees the pages that a commit replaces in the
    /// next commit, as part of it; otherwise it adds a commit of its own to each to do so at once. It goes before the
    /// file does.
    last: Mutex<Option<ReadTransaction>>,
    hub: Arc<Hub>,
    place: Place,
    options: Options,
    /// Off only in the test that shows that the crash tests notice.
    durable: bool,
    sync_failed: Arc<AtomicBool>,
    /// Why the file is not open.
    trouble: Mutex<Option<Error>>,
    /// No more requests are taken.
    shut: AtomicBool,
}

impl Shared {
    fn open_file(&self) -> Result<Database> {
        self.place.open(&self.options, &self.sync_failed)
    }

    fn open(&self) -> Result<(Database, Numbers)> {
        self.place.create(|db| writer::prepare(db, true).map(drop))?;
        let db = self.open_file()?;
        let numbers = writer::prepare(&db, self.durable).map_err(|error| match error {
            Error::Corrupt(reason) => self.place.damaged(&reason),
            error => error,
        })?;
        Ok((db, numbers))
    }

    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        match self.db.read().as_ref() {
            Some(db) => read(db),
            None => Err(self.trouble().unwrap_or(Error::Closed)),
        }
    }

    /// Reads without holding up other tasks of the runtime.
    async fn read_apart<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read(read));
        // A damaged file may make the library panic. Otherwise the process is ending before the read began.
        read.await.unwrap_or_else(|end| {
            Err(if end.is_panic() { self.place.damaged(&"reading it failed") } else { Error::Closed })
        })
    }

    /// Milliseconds since 1970.
    fn now(&self) -> u64 {
        let since = (self.options.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX / 2)
    }

    fn trouble(&self) -> Option<Error> {
        self.trouble.lock().clone()
    }
    fn set_trouble(&self, error: Error) {
        *self.trouble.lock() = Some(error);
    }
    fn sync_has_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    /// The error to give once the store has been shut for good.
    fn hub_alive(&self) -> Result<()> {
        if self.shut.load(Ordering::Acquire) { Err(self.trouble().unwrap_or(Error::Closed)) } else { Ok(()) }
    }

    fn close_file(&self, slot: &mut Option<Database>) {
        drop(self.last.lock().take());
        drop(slot.take());
    }

    /// Ends everything for this reason and lets go of the file.
    fn shut(&self, reason: &Error) {
        if !self.shut.swap(true, Ordering::AcqRel) {
            self.set_trouble(reason.clone());
        }
        self.hub.close(reason);
        self.close_file(&mut self.db.write());
        self.place.unlock();
    }
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is made if need be. Only one process at a time can have it open.
    pub async fn open(directory: &Path, options: Options) -> Result<Self> {
        let directory = directory.to_owned();
        let open = tokio::task::spawn_blocking(move || Self::start(Place::directory(&directory)?, options, true));
        open.await.unwrap_or_else(|_| Err(Error::Corrupt("opening the store failed".into())))
    }

    fn start(place: Place, options: Options, durable: bool) -> Result<Self> {
        let mut shared = Shared {
            db: RwLock::new(None),
            last: Mutex::default(),
            hub: Arc::new(Hub::new(0)),
            place,
            options,
            durable,
            sync_failed: Arc::default(),
            trouble: Mutex::default(),
            shut: AtomicBool::new(false),
        };
        let (db, numbers) = shared.open()?;
        shared.hub = Arc::new(Hub::new(numbers.revision));
        shared.db = RwLock::new(Some(db));
        let shared = Arc::new(shared);
        let (requests, receiver) = mpsc::channel();
        let writer = Writer::new(shared.clone(), receiver, numbers)?;
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let shared = writer.shared();
                // A damaged file may make the library panic; nobody may wait for a writer that is gone.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run())).is_err() {
                    shared.shut(&shared.place.damaged(&"writing it failed"));
                }
            })
            .map_err(|error| file::io_error("starting the store's writer", &error))?;
        Ok(Self { shared, requests })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let gone = || self.shared.trouble().unwrap_or(Error::Closed);
        self.requests.send(request(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

#[async_trait]
impl History for Shared {
    async fn history(&self, after: Revision, request: &WatchRequest) -> Result<WatchBatch> {
        self.hub_alive()?;
        // One chunk is small; a thread of its own would cost more than the reading.
        self.read(|db| reads::history(db, after, request))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Got> {
        self.shared.read(|db| reads::get(db, key))
    }

    async fn list(&self, request: ListRequest) -> Result<Listed> {
        let hub = self.shared.hub.clone();
        self.shared.read_apart(move |db| reads::list(db, &request, &hub)).await
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome> {
        txn.check()?;
        self.shared.hub_alive()?;
        self.ask(|reply| Request::Txn { txn, reply }).await?
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch> {
        self.shared.hub_alive()?;
        Ok(self.shared.hub.watch(self.shared.clone(), request))
    }

    async fn watch_with(&self, request: WatchRequest, sink: Arc<dyn WatchSink>) -> Result<WatchHandle> {
        self.shared.hub_alive()?;
        self.shared.hub.watch_with(&*self.shared, request, sink).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.shared.hub_alive()?;
        Ok(self.shared.hub.published())
    }

    fn local_revision(&self) -> Option<Revision> {
        Some(self.shared.hub.published())
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        self.shared.read(|db| reads::number(db, tables::COMPACTED))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.shared.hub_alive()?;
        self.ask(|reply| Request::Compact { revision, reply }).await?
    }

    async fn snapshot(&self, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<SnapshotInfo> {
        let (start, started) = oneshot::channel();
        let (send, mut pieces) = tokio::sync::mpsc::channel(2);
        let now = self.shared.now();
        let shared = self.shared.clone();
        let dump = tokio::spawn(async move {
            shared
                .read_apart(move |db| {
                    let send = |piece| send.blocking_send(piece).is_ok();
                    reads::dump(db, now, |revision| start.send(revision).is_ok(), send)
                })
                .await
        });
        let mut written = None;
        if let Ok(revision) = started.await {
            let mut snapshot = snapshot::Writer::new(writer, revision).await?;
            while let Some(piece) = pieces.recv().await {
                for record in &piece {
                    snapshot.write(record).await?;
                }
            }
            written = Some(snapshot);
        }
        dump.await.unwrap_or(Err(Error::Closed))?;
        // Only a dump that came to its end without error is completed with the check sum.
        written.ok_or(Error::Closed)?.finish().await
    }

    async fn restore(&self, reader: &mut (dyn AsyncRead + Send + Unpin), bump: Revision) -> Result<SnapshotInfo> {
        const PIECE: usize = 256;
        self.shared.hub_alive()?;
        let mut reader = snapshot::Reader::new(reader).await?;
        let (send, records) = tokio::sync::mpsc::channel(2);
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Restore { records, reply }).map_err(|_| Error::Closed)?;
        let mut piece = Vec::new();
        let read = loop {
            let record = reader.next().await;
            let end = !matches!(record, Ok(Some(_)));
            if piece.len() >= PIECE || end {
                let full = Restore::Records(std::mem::take(&mut piece));
                // This fails when the writer has given up; the answer then says why.
                if send.send(full).await.is_err() {
                    break Ok(None);
                }
            }
            match record {
                Ok(Some(record)) => piece.push(record),
                Ok(None) => break Ok(Some(reader.info())),
                Err(error) => break Err(error),
            }
        };
        if let Ok(Some(info)) = read {
            let _ = send.send(Restore::End { info, bump }).await;
        }
        drop(send);
        answer.await.map_err(|_| Error::Closed)??;
        read?.ok_or(Error::Closed)
    }

    async fn size(&self) -> Result<Size> {
        let used = self.shared.read(|db| reads::number(db, tables::BYTES))?;
        let total = self.shared.place.disk_usage().unwrap_or(used);
        Ok(Size { total: total.max(used), used })
    }

    async fn close(&self) -> Result<()> {
        if self.shared.hub_alive().is_ok() {
            let _ = self.ask(|reply| Request::Close { reply }).await;
        }
        Ok(())
    }
}

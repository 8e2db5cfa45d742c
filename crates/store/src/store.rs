//! The trait every store implements.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Error, Got, ListRequest, Listed, Outcome, Result, Revision, Size, SnapshotInfo, Txn, WatchBatch, WatchRequest,
};

/// A revisioned key-value store with transactions and watches: what the API server needs of etcd.
///
/// * There is one global revision. It is 1 in an empty store and grows by exactly 1 with each transaction that changes
///   something; a transaction that changes nothing (conditions not met, no writes, deletes of absent keys) adds none.
/// * Reads are linearizable: they see every transaction acknowledged before they began.
/// * What a list shows, watches reach: one asked for progress afterwards answers with that revision or a later one.
/// * An acknowledged transaction is durable.
/// * History is kept until compacted, by [`Store::compact`] or by the implementation itself after some minutes. After
///   compaction up to `c` the state of `c` and later can be listed, and changes after `c` can be watched.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key.
    async fn get(&self, key: &str) -> Result<Got>;

    /// Reads the keys with a prefix, in order, now or as they were at an earlier revision.
    async fn list(&self, request: ListRequest) -> Result<Listed>;

    /// Runs a transaction and returns when its writes are durable.
    async fn txn(&self, txn: Txn) -> Result<Outcome>;

    /// Watches changes as a stream. A watch that cannot continue ends with one error: [`Error::Compacted`] when
    /// history it needs is gone (also when it was gone from the start), [`Error::Closed`] or [`Error::Unavailable`].
    /// A slow reader holds bounded memory: what it did not read in time is read again from history.
    async fn watch(&self, request: WatchRequest) -> Result<Watch>;

    /// Watches changes by calling `sink`. Returns once everything that was in the store at the time of the call has
    /// been delivered; the watch lasts until the handle is dropped.
    ///
    /// A local store (see [`Store::local_revision`]) calls the sink from its writer, *before* it acknowledges the
    /// transaction: whoever sees a write acknowledged knows that every sink has it. Other stores call it from a task
    /// of their own. Either way a sink must be quick and must not call the store.
    async fn watch_with(&self, request: WatchRequest, sink: Arc<dyn WatchSink>) -> Result<WatchHandle>;

    /// The store's revision, as seen by all its users.
    async fn current_revision(&self) -> Result<Revision>;

    /// The store's revision when this process is its only user and so knows it without asking anybody; every sink of
    /// [`Store::watch_with`] has been given all changes up to it. `None` for a store shared between processes.
    fn local_revision(&self) -> Option<Revision>;

    /// The revision up to which history has been thrown away; 0 if all of it is there.
    async fn compacted_revision(&self) -> Result<Revision>;

    /// Throws away history up to and including `revision`: states before it and changes up to it.
    /// Fails if that is in the future or has been compacted already.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// Writes the state of one revision, in a format every implementation can restore (see [`crate::snapshot`]).
    async fn snapshot(&self, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<SnapshotInfo>;

    /// Fills this store, which must be empty and unused, from a snapshot. A local store continues at the snapshot's
    /// revision, or `bump` later, so that clients never see revisions go backwards; its history starts there.
    async fn restore(&self, reader: &mut (dyn AsyncRead + Send + Unpin), bump: Revision) -> Result<SnapshotInfo>;

    /// How much room the store takes.
    async fn size(&self) -> Result<Size>;

    /// Finishes what was accepted, ends all watches and lets go of files and connections. Later calls fail with
    /// [`Error::Closed`].
    async fn close(&self) -> Result<()>;
}

/// A running watch: a stream of batches that ends with an error.
pub struct Watch {
    stream: BoxStream<'static, Result<WatchBatch>>,
    progress: ProgressRequester,
}

impl Watch {
    pub(crate) fn new(stream: BoxStream<'static, Result<WatchBatch>>, progress: ProgressRequester) -> Self {
        Self { stream, progress }
    }

    /// The same watch, asked for progress in another way.
    pub(crate) fn with_progress(self, progress: ProgressRequester) -> Self {
        Self { progress, ..self }
    }

    /// Asks for a batch that says how far the watch has come, even if there is no change.
    pub fn request_progress(&self) {
        self.progress.request();
    }

    /// A handle by which another task can ask for progress.
    pub fn progress_requester(&self) -> ProgressRequester {
        self.progress.clone()
    }
}

impl Stream for Watch {
    type Item = Result<WatchBatch>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Asks a watch to say how far it has come.
#[derive(Clone)]
pub struct ProgressRequester(Arc<dyn Fn() + Send + Sync>);

impl ProgressRequester {
    pub(crate) fn new(request: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(request))
    }
    /// Asks; the answer is a batch of the watch, with or without changes, whose revision is at least what the store's
    /// revision was now.
    pub fn request(&self) {
        (self.0)();
    }
}

/// Receives the changes of [`Store::watch_with`].
pub trait WatchSink: Send + Sync {
    /// Takes the next changes. Calls come in order of revision, one at a time.
    fn deliver(&self, batch: &WatchBatch);
    /// The watch has ended; no call follows.
    fn ended(&self, error: &Error);
}

/// Keeps a watch of [`Store::watch_with`] alive until dropped.
pub struct WatchHandle {
    stop: Option<Box<dyn FnOnce() + Send + Sync>>,
    progress: ProgressRequester,
}

impl WatchHandle {
    pub(crate) fn new(stop: impl FnOnce() + Send + Sync + 'static, progress: ProgressRequester) -> Self {
        Self { stop: Some(Box::new(stop)), progress }
    }
    /// The same handle, asking for progress in another way.
    pub(crate) fn with_progress(mut self, progress: ProgressRequester) -> Self {
        self.progress = progress;
        self
    }
    /// Something by which another task can ask for progress.
    pub fn progress_requester(&self) -> ProgressRequester {
        self.progress.clone()
    }
    /// Asks for a call of the sink that says how far the watch has come.
    pub fn request_progress(&self) {
        self.progress.request();
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

impl std::fmt::Debug for WatchHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchHandle").finish_non_exhaustive()
    }
}

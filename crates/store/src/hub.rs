//! Hands the changes of a local store to its watchers, and lets a watch change over from history to live changes
//! without gap or repetition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::{ProgressRequester, Watch, WatchHandle, WatchSink};
use crate::{Error, Event, Result, Revision, WatchBatch, WatchRequest};

/// A watch that is not read may hold this many bytes of changes; then they are dropped and later read from history.
const QUEUE_BYTES: usize = 8 << 20;

/// The kept history of a local store.
#[async_trait]
pub(crate) trait History: Send + Sync + 'static {
    /// The changes wanted by `request` after revision `after`, whole revisions, as many as are convenient at once.
    /// The batch's revision is how far it got, which is more than `after`.
    async fn history(&self, after: Revision, request: &WatchRequest) -> Result<WatchBatch>;
}

/// The watchers of a local store.
#[derive(Default)]
pub(crate) struct Hub {
    /// The last revision given to all watchers; only written under the lock.
    published: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    subscribers: BTreeMap<u64, Subscriber>,
    closed: Option<Error>,
}

struct Subscriber {
    request: Arc<WatchRequest>,
    /// Changes up to here it has had from history.
    after: Revision,
    sink: Arc<dyn WatchSink>,
    /// Nobody wants it any more. A handle may be dropped anywhere, even within a call of its sink, so it only sets this.
    gone: Arc<AtomicBool>,
}

impl Hub {
    pub(crate) fn new(published: Revision) -> Self {
        Self { published: AtomicU64::new(published), state: Mutex::default() }
    }

    /// The last revision given to all watchers.
    pub(crate) fn published(&self) -> Revision {
        self.published.load(Ordering::Acquire)
    }

    /// Gives everyone the changes they want. Called in order of revision, with all changes up to `revision`.
    pub(crate) fn publish(&self, events: &[Arc<Event>], revision: Revision) {
        let mut state = self.state.lock();
        let mut gone = Vec::new();
        for (id, subscriber) in &state.subscribers {
            if subscriber.gone.load(Ordering::Acquire) {
                gone.push(*id);
                continue;
            }
            let wanted =
                |event: &&Arc<Event>| event.revision > subscriber.after && subscriber.request.matches(&event.key);
            let mut wanted = events.iter().filter(wanted);
            if let Some(first) = wanted.next() {
                let events = std::iter::once(first).chain(wanted).cloned().collect();
                subscriber.sink.deliver(&WatchBatch { events, revision });
            }
        }
        let gone: Vec<_> = gone.iter().filter_map(|id| state.subscribers.remove(id)).collect();
        self.published.store(revision, Ordering::Release);
        drop(state);
        // Sinks are not ours: what dropping them does must not find the lock taken.
        drop(gone);
    }

    /// Ends all watches and refuses new ones.
    pub(crate) fn close(&self, error: &Error) {
        let subscribers = {
            let mut state = self.state.lock();
            state.closed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut state.subscribers)
        };
        for subscriber in subscribers.values() {
            subscriber.sink.ended(error);
        }
    }

    /// Adds a subscriber that has had everything up to `after`, unless more than that has been published meanwhile.
    fn subscribe(
        &self,
        request: &Arc<WatchRequest>,
        after: Revision,
        sink: Arc<dyn WatchSink>,
        gone: &Arc<AtomicBool>,
    ) -> Result<Option<u64>> {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        if self.published() > after {
            return Ok(None);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.subscribers.insert(id, Subscriber { request: request.clone(), after, sink, gone: gone.clone() });
        Ok(Some(id))
    }

    fn unsubscribe(&self, id: u64) {
        let removed = self.state.lock().subscribers.remove(&id);
        drop(removed);
    }

    /// Tells one subscriber how far it has come.
    fn progress(&self, id: u64) {
        let state = self.state.lock();
        if let Some(subscriber) =
            state.subscribers.get(&id).filter(|subscriber| !subscriber.gone.load(Ordering::Acquire))
        {
            subscriber.sink.deliver(&WatchBatch { events: Vec::new(), revision: self.published() });
        }
    }

    /// A watch as a stream.
    pub(crate) fn watch(self: &Arc<Self>, history: Arc<dyn History>, request: WatchRequest) -> Watch {
        let wanted = Arc::new(Wanted::default());
        let after = request.from_revision.map_or_else(|| self.published(), |from| from.max(1) - 1);
        let request = Arc::new(request);
        let mut reader = Reader { hub: self.clone(), history, request, after, live: None, wanted: wanted.clone() };
        // An error shows when the stream is read.
        let _ = reader.go_live();
        let stream = futures::stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(batch) => Some((Ok(batch), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Watch::new(Box::pin(stream), ProgressRequester::new(move || wanted.ask()))
    }

    /// A watch that calls `sink` from `publish`.
    pub(crate) async fn watch_with(
        self: &Arc<Self>,
        history: &dyn History,
        request: WatchRequest,
        sink: Arc<dyn WatchSink>,
    ) -> Result<WatchHandle> {
        let mut after = request.from_revision.map_or_else(|| self.published(), |from| from.max(1) - 1);
        let request = Arc::new(request);
        let gone = Arc::new(AtomicBool::new(false));
        let id = loop {
            if let Some(id) = self.subscribe(&request, after, sink.clone(), &gone)? {
                break id;
            }
            let batch = history.history(after, &request).await?;
            after = batch.revision;
            if !batch.events.is_empty() {
                sink.deliver(&batch);
            }
        };
        let ask = self.clone();
        Ok(WatchHandle::new(
            move || gone.store(true, Ordering::Release),
            ProgressRequester::new(move || ask.progress(id)),
        ))
    }
}

/// Whether the reader of a stream asked for progress.
#[derive(Default)]
struct Wanted {
    progress: AtomicBool,
    wake: Notify,
}

impl Wanted {
    fn ask(&self) {
        self.progress.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// The reading side of a watch stream.
struct Reader {
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    request: Arc<WatchRequest>,
    /// Everything up to here has been returned.
    after: Revision,
    live: Option<(u64, Arc<Queue>)>,
    wanted: Arc<Wanted>,
}

impl Reader {
    /// Receives changes as they happen, if everything before them has been returned.
    fn go_live(&mut self) -> Result<bool> {
        let queue = Arc::new(Queue::default());
        let id = self.hub.subscribe(&self.request, self.after, queue.clone(), &Arc::default())?;
        self.live = id.map(|id| (id, queue));
        Ok(id.is_some())
    }

    async fn next(&mut self) -> Result<WatchBatch> {
        loop {
            let Some((id, queue)) = &self.live else {
                if !self.go_live()? {
                    let batch = self.history.history(self.after, &self.request).await?;
                    self.after = batch.revision;
                    // Once up to date, a watch must not depend on history that may be compacted before it is read on.
                    self.go_live()?;
                    if !batch.events.is_empty() {
                        return Ok(batch);
                    }
                }
                continue;
            };
            match queue.take() {
                Taken::Batch(batch) => {
                    self.after = self.after.max(batch.revision);
                    return Ok(batch);
                }
                Taken::Ended(error) => return Err(error),
                Taken::Overflowed => {
                    self.hub.unsubscribe(*id);
                    self.live = None;
                }
                Taken::Nothing if self.wanted.progress.swap(false, Ordering::AcqRel) => self.hub.progress(*id),
                Taken::Nothing => {
                    tokio::select! {
                        () = queue.wake.notified() => {}
                        () = self.wanted.wake.notified() => {}
                    }
                }
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((id, _)) = self.live.take() {
            self.hub.unsubscribe(id);
        }
    }
}

/// Live changes waiting to be read by a stream.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    wake: Notify,
}

#[derive(Default)]
struct QueueState {
    batches: VecDeque<WatchBatch>,
    bytes: usize,
    overflowed: bool,
    ended: Option<Error>,
}

enum Taken {
    Batch(WatchBatch),
    Overflowed,
    Ended(Error),
    Nothing,
}

fn weight(batch: &WatchBatch) -> usize {
    batch.events.iter().map(|event| event.weight()).sum()
}

impl Queue {
    fn take(&self) -> Taken {
        let mut state = self.state.lock();
        if let Some(batch) = state.batches.pop_front() {
            state.bytes -= weight(&batch);
            Taken::Batch(batch)
        } else if let Some(error) = &state.ended {
            Taken::Ended(error.clone())
        } else if state.overflowed {
            Taken::Overflowed
        } else {
            Taken::Nothing
        }
    }
}

impl WatchSink for Queue {
    fn deliver(&self, batch: &WatchBatch) {
        let mut state = self.state.lock();
        let weight = weight(batch);
        if state.overflowed {
            return;
        }
        if state.bytes + weight > QUEUE_BYTES && !state.batches.is_empty() {
            state.overflowed = true;
        } else {
            state.bytes += weight;
            state.batches.push_back(batch.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    fn ended(&self, error: &Error) {
        self.state.lock().ended = Some(error.clone());
        self.wake.notify_one();
    }
}

//! One watch: the initial state or the kept changes first, then changes as they come.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Future, Stream};
use pintle_api::Status;
use pintle_api::object::{EventType, Object};
use pintle_api::selector::{FieldSelector, Selector};
use tokio::time::{Instant, Sleep};

use super::dispatch::{Filter, Taken, Watcher};
use super::event::{Delivery, Outcomes};
use super::{Shared, Snapshot};

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the changes after this revision.
    After(u64),
    /// With what happens from now on.
    Now,
    /// With the newest state as ADDED events.
    Fresh,
    /// With a state not older than this revision (0: any) as ADDED events.
    AtLeast(u64),
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Objects of this namespace only; empty for all.
    pub namespace: String,
    /// Objects with these labels only. An object that starts to match is ADDED, one that stops is DELETED.
    pub labels: Selector,
    /// Objects with these fields only.
    pub fields: FieldSelector,
    /// Where it begins.
    pub start: Start,
    /// After the initial state, a bookmark says that it is complete (`sendInitialEvents`).
    pub mark_initial: bool,
    /// Bookmarks say this often how far the watch has come.
    pub bookmarks: Option<Duration>,
}

impl WatchOptions {
    /// Everything, from a start on.
    pub fn all(start: Start) -> Self {
        Self {
            namespace: String::new(),
            labels: Selector::everything(),
            fields: FieldSelector::default(),
            start,
            mark_initial: false,
            bookmarks: None,
        }
    }
}

/// What a watch yields.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// An object came, changed or went.
    Event(Arc<Delivery>),
    /// Everything up to this revision has been sent.
    Bookmark {
        /// That revision.
        revision: u64,
        /// The initial state is complete with this.
        initial_events_end: bool,
    },
}

/// A stream of [`WatchItem`]s. It ends silently when the cache must begin anew, and with an error when the watch was
/// too slow; either way the client watches again from the last revision it saw.
pub struct Watch {
    shared: Arc<Shared>,
    filter: Filter,
    /// Objects of the initial state yet to be sent.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// The bookmark after the initial state.
    mark: Option<u64>,
    /// Kept changes yet to be sent.
    past: VecDeque<Arc<Delivery>>,
    watcher: Arc<Watcher>,
    /// The last change sent, or the one it began after.
    position: u64,
    /// The revision of that.
    revision: u64,
    bookmarks: Option<(Duration, Pin<Box<Sleep>>)>,
    ended: bool,
}

impl Watch {
    pub(super) async fn start(shared: Arc<Shared>, options: WatchOptions) -> Result<Self, Status> {
        let WatchOptions { namespace, labels, fields, start, mark_initial, bookmarks } = options;
        let filter = Filter { namespace, labels, fields };
        match start {
            Start::Fresh => shared.wait_until_fresh().await?,
            Start::AtLeast(revision) => shared.wait_for(revision).await?,
            Start::Now | Start::After(_) => shared.wait_for(0).await?,
        }
        let mut initial = Vec::new();
        let mut mark = None;
        let (position, revision) = match start {
            Start::Now => {
                let (_, revision, seq) = shared.now();
                (seq, revision)
            }
            Start::After(revision) => {
                let state = shared.state.lock();
                (state.seq_at(revision).ok_or_else(|| Status::too_old(revision, state.floor))?, revision)
            }
            Start::Fresh | Start::AtLeast(_) => {
                let (map, revision, seq) = shared.now();
                let snapshot = Snapshot { map, prefix: shared.prefix.clone(), revision };
                initial = snapshot.iter(&filter.namespace).filter(|object| filter.matches(object)).cloned().collect();
                mark = mark_initial.then_some(revision);
                (seq, revision)
            }
        };
        let mut watch = Self {
            watcher: Arc::new(Watcher::new(filter.clone(), position, revision, shared.options.queue)),
            shared,
            filter,
            initial: initial.into_iter(),
            mark,
            past: VecDeque::new(),
            position,
            revision,
            bookmarks: bookmarks.map(|every| (every, Box::pin(tokio::time::sleep(every)))),
            ended: false,
        };
        watch.join()?;
        Ok(watch)
    }

    /// Takes the changes since `position` that were handed out already, and waits in line for later ones.
    fn join(&mut self) -> Result<(), Status> {
        let mut dispatch = self.shared.dispatch.lock();
        let cursor = dispatch.cursor;
        if self.position < cursor {
            let state = self.shared.state.lock();
            let missed = state.after(self.position).ok_or_else(|| Status::too_old(self.revision, state.floor))?;
            for change in missed.take_while(|change| change.seq <= cursor) {
                self.past.extend(Outcomes::new(change).to(|object| self.filter.matches(object)));
            }
        }
        let after = self.position.max(cursor);
        // Several changes may have the revision of the last one sent; their numbers tell them apart. Only a start in
        // the future needs the revision.
        let after_revision = if self.position >= cursor { self.revision } else { 0 };
        self.watcher = Arc::new(Watcher::new(self.filter.clone(), after, after_revision, self.shared.options.queue));
        dispatch.add(self.watcher.clone());
        Ok(())
    }

    /// The revision up to which everything has been sent, if that is so: nothing waits in line.
    fn reached(&self) -> Option<u64> {
        let (_, known, seq) = self.shared.now();
        let dispatch = self.shared.dispatch.lock();
        (dispatch.cursor >= seq && self.watcher.is_idle()).then_some(known)
    }

    fn sent(&mut self, delivery: Arc<Delivery>) -> Poll<Option<Result<WatchItem, Status>>> {
        self.position = delivery.seq;
        self.revision = delivery.object.resource_version();
        event(delivery)
    }

    fn next_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchItem, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(object) = self.initial.next() {
            return event(Arc::new(Delivery::new(EventType::Added, object, 0)));
        }
        if let Some(revision) = self.mark.take() {
            return Poll::Ready(Some(Ok(WatchItem::Bookmark { revision, initial_events_end: true })));
        }
        if let Some(delivery) = self.past.pop_front() {
            return self.sent(delivery);
        }
        self.watcher.wake_by(cx.waker());
        match self.watcher.take() {
            Taken::Delivery(delivery) => return self.sent(delivery),
            Taken::Ended => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Taken::Overflowed => {
                self.shared.dispatch.lock().remove(&self.watcher);
                if let Err(too_slow) = self.join() {
                    self.ended = true;
                    return Poll::Ready(Some(Err(too_slow)));
                }
                return self.next_item(cx);
            }
            Taken::Nothing => {}
        }
        self.next_bookmark(cx)
    }

    fn next_bookmark(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchItem, Status>>> {
        loop {
            let Some((every, sleep)) = &mut self.bookmarks else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let next = Instant::now() + *every;
            sleep.as_mut().reset(next);
            if let Some(revision) = self.reached() {
                // Polled again at once, which registers the timer's waker.
                cx.waker().wake_by_ref();
                return Poll::Ready(Some(Ok(WatchItem::Bookmark { revision, initial_events_end: false })));
            }
        }
    }
}

fn event(delivery: Arc<Delivery>) -> Poll<Option<Result<WatchItem, Status>>> {
    Poll::Ready(Some(Ok(WatchItem::Event(delivery))))
}

impl Stream for Watch {
    type Item = Result<WatchItem, Status>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.next_item(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.dispatch.lock().remove(&self.watcher);
    }
}

//! Hands changes to the watchers concerned, and only to them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use pintle_api::object::Object;
use pintle_api::selector::{FieldSelector, Selector};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::event::{Change, Delivery, Outcomes};

/// Changes handed out before other work gets a turn.
const BATCH: usize = 128;

/// Which objects a watcher wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Empty: all.
    pub(super) namespace: String,
    pub(super) labels: Selector,
    pub(super) fields: FieldSelector,
}

impl Filter {
    pub(super) fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || self.namespace == object.namespace())
            && self.fields.matches_object(object)
            && self.labels.matches_object(object)
    }

    /// A field and the value it must have for the watcher to be concerned: the most telling one there is.
    fn index(&self) -> Option<(String, String)> {
        let name = self.fields.exact("metadata.name").map(|name| ("metadata.name", name));
        let field = || self.fields.terms.iter().find(|(_, _, equal)| *equal);
        let field = || field().map(|(field, value, _)| (field.as_str(), value.as_str()));
        let namespace = || (!self.namespace.is_empty()).then_some(("metadata.namespace", self.namespace.as_str()));
        let (field, value) = name.or_else(field).or_else(namespace)?;
        Some((field.to_owned(), value.to_owned()))
    }
}

/// One watcher as the dispatcher sees it.
pub(super) struct Watcher {
    filter: Filter,
    /// It has had the changes up to this one from elsewhere,
    after: u64,
    /// and wants none up to this revision.
    after_revision: u64,
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    most: usize,
}

#[derive(Default)]
struct Queue {
    deliveries: VecDeque<Arc<Delivery>>,
    state: QueueState,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum QueueState {
    #[default]
    Open,
    /// It got full; what follows is not in it.
    Overflowed,
    /// The cache begins anew.
    Ended,
}

/// What a watcher finds in its queue.
pub(super) enum Taken {
    Delivery(Arc<Delivery>),
    Nothing,
    Overflowed,
    Ended,
}

impl Watcher {
    pub(super) fn new(filter: Filter, after: u64, after_revision: u64, most: usize) -> Self {
        Self { filter, after, after_revision, queue: Mutex::default(), waker: AtomicWaker::new(), most }
    }

    pub(super) fn wake_by(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    pub(super) fn take(&self) -> Taken {
        let mut queue = self.queue.lock();
        match (queue.deliveries.pop_front(), queue.state) {
            (Some(delivery), _) => Taken::Delivery(delivery),
            (None, QueueState::Open) => Taken::Nothing,
            (None, QueueState::Overflowed) => Taken::Overflowed,
            (None, QueueState::Ended) => Taken::Ended,
        }
    }

    /// Whether nothing waits to be taken.
    pub(super) fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.deliveries.is_empty() && queue.state == QueueState::Open
    }

    fn give(&self, outcomes: &mut Outcomes<'_>, change: &Change) {
        if change.seq <= self.after || change.revision <= self.after_revision {
            return;
        }
        let Some(delivery) = outcomes.to(|object| self.filter.matches(object)) else { return };
        let mut queue = self.queue.lock();
        if queue.state != QueueState::Open {
            return;
        }
        if queue.deliveries.len() >= self.most {
            queue.state = QueueState::Overflowed;
        } else {
            queue.deliveries.push_back(delivery);
        }
        drop(queue);
        self.waker.wake();
    }

    fn close(&self, state: QueueState) {
        self.queue.lock().state = state;
        self.waker.wake();
    }
}

/// All watchers of a cache, by what concerns them.
#[derive(Default)]
pub(super) struct Dispatch {
    /// The last change handed out.
    pub(super) cursor: u64,
    everything: Vec<Arc<Watcher>>,
    /// By field, then by its value. The fields include `metadata.name` and `metadata.namespace`.
    by_field: HashMap<String, HashMap<String, Vec<Arc<Watcher>>>>,
}

impl Dispatch {
    pub(super) fn watchers(&self) -> usize {
        self.everything.len() + self.by_field.values().flat_map(HashMap::values).map(Vec::len).sum::<usize>()
    }

    pub(super) fn add(&mut self, watcher: Arc<Watcher>) {
        match watcher.filter.index() {
            Some((field, value)) => self.by_field.entry(field).or_default().entry(value).or_default().push(watcher),
            None => self.everything.push(watcher),
        }
    }

    pub(super) fn remove(&mut self, watcher: &Arc<Watcher>) {
        let drop_from = |watchers: &mut Vec<Arc<Watcher>>| {
            if let Some(at) = watchers.iter().position(|other| Arc::ptr_eq(other, watcher)) {
                watchers.swap_remove(at);
            }
        };
        let Some((field, value)) = watcher.filter.index() else { return drop_from(&mut self.everything) };
        let Some(values) = self.by_field.get_mut(&field) else { return };
        if let Some(watchers) = values.get_mut(&value) {
            drop_from(watchers);
            if watchers.is_empty() {
                values.remove(&value);
            }
        }
        if values.is_empty() {
            self.by_field.remove(&field);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Watcher>> {
        self.everything.iter().chain(self.by_field.values().flat_map(HashMap::values).flatten())
    }

    /// Ends all watches.
    pub(super) fn end_all(&self) {
        self.all().for_each(|watcher| watcher.close(QueueState::Ended));
    }

    /// Begins anew after this change: whoever watches has missed something.
    pub(super) fn restart(&mut self, seq: u64) {
        self.end_all();
        self.cursor = seq;
    }

    fn hand_out(&mut self, change: &Change) {
        let mut outcomes = Outcomes::new(change);
        for watcher in &self.everything {
            watcher.give(&mut outcomes, change);
        }
        for (field, values) in &self.by_field {
            let new = change.object.as_ref().and_then(|object| object.field(field));
            let old = change.prev.as_ref().and_then(|object| object.field(field)).filter(|old| Some(*old) != new);
            for watcher in [new, old].into_iter().flatten().filter_map(|value| values.get(value)).flatten() {
                watcher.give(&mut outcomes, change);
            }
        }
        self.cursor = change.seq;
    }
}

impl Shared {
    /// Hands out changes as they come.
    pub(super) async fn dispatch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! { () = self.changed.notified() => {}, () = stop.cancelled() => return }
            while self.dispatch_some() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Hands out some changes; says whether there may be more.
    fn dispatch_some(&self) -> bool {
        let mut dispatch = self.dispatch.lock();
        let changes: Vec<Arc<Change>> = {
            let state = self.state.lock();
            match state.after(dispatch.cursor) {
                Some(changes) => changes.take(BATCH).cloned().collect(),
                None => {
                    // More changes came at once than are kept. Watchers find out when they look for what they missed.
                    dispatch.all().for_each(|watcher| watcher.close(QueueState::Overflowed));
                    dispatch.cursor = state.seq;
                    return false;
                }
            }
        };
        for change in &changes {
            dispatch.hand_out(change);
        }
        changes.len() == BATCH
    }
}

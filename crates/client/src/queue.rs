//! `WorkQueue`: keys that wait for a worker. A key waits once however often it is added, and is with one worker at a
//! time; failures come back later and later.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pintle_api::metrics::{self, Family, Kind, Series, Stability};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::after;

/// Powers of ten from a microsecond on.
const SECONDS: Kind = Kind::Histogram(&[1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]);
static DEPTH: Family =
    Family::new("workqueue_depth", Kind::Gauge, Stability::Beta, &["name"], "Current depth of workqueue");
static ADDS: Family = Family::new(
    "workqueue_adds_total",
    Kind::Counter,
    Stability::Beta,
    &["name"],
    "Total number of adds handled by workqueue",
);
static WAITED: Family = Family::new(
    "workqueue_queue_duration_seconds",
    SECONDS,
    Stability::Beta,
    &["name"],
    "How long in seconds an item stays in workqueue before being requested.",
);
static WORKED: Family = Family::new(
    "workqueue_work_duration_seconds",
    SECONDS,
    Stability::Beta,
    &["name"],
    "How long in seconds processing an item from workqueue takes.",
);
static UNFINISHED: Family = Family::new(
    "workqueue_unfinished_work_seconds",
    Kind::Gauge,
    Stability::Beta,
    &["name"],
    "How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
);
static LONGEST: Family = Family::new(
    "workqueue_longest_running_processor_seconds",
    Kind::Gauge,
    Stability::Beta,
    &["name"],
    "How many seconds has the longest running processor for workqueue been running.",
);
static RETRIES: Family = Family::new(
    "workqueue_retries_total",
    Kind::Counter,
    Stability::Beta,
    &["name"],
    "Total number of retries handled by workqueue",
);

/// The series of a queue with a name.
struct Counted {
    depth: Arc<Series>,
    adds: Arc<Series>,
    waited: Arc<Series>,
    worked: Arc<Series>,
    retries: Arc<Series>,
}

impl Counted {
    fn new(name: &str) -> Self {
        Self {
            depth: DEPTH.with(&[name]),
            adds: ADDS.with(&[name]),
            waited: WAITED.with(&[name]),
            worked: WORKED.with(&[name]),
            retries: RETRIES.with(&[name]),
        }
    }
}

/// Limits of a queue.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// Delay of the first retry.
    pub first_delay: Duration,
    /// Longest delay of a retry.
    pub max_delay: Duration,
    /// Name in the metrics; a queue without one counts nothing.
    pub name: &'static str,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { first_delay: Duration::from_millis(5), max_delay: Duration::from_secs(1000), name: "" }
    }
}

impl QueueOptions {
    /// The default limits, counted under this name.
    #[must_use]
    pub fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }
}

struct State<K> {
    ready: VecDeque<K>,
    /// Waiting or to be queued again once done, with the time they were added.
    dirty: HashMap<K, Instant>,
    /// With a worker, since when.
    processing: HashMap<K, Instant>,
    /// By due time; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    closed: bool,
    counted: Option<Counted>,
}

impl<K: Clone + Eq + Hash> State<K> {
    fn push(&mut self, key: K, now: Instant) -> bool {
        if self.closed || self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), now);
        if let Some(c) = &self.counted {
            c.adds.inc();
        }
        if self.processing.contains_key(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn count_depth(&self) {
        if let Some(c) = &self.counted {
            c.depth.set(float(self.ready.len()));
        }
    }

    /// Moves what is due; answers when the next one is.
    fn move_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return Some(entry.key().0);
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.push(key, now);
        }
        None
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    options: QueueOptions,
}

/// A queue of keys. Cheap to clone; clones are the same queue.
pub struct WorkQueue<K>(Arc<Inner<K>>);

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> fmt::Debug for WorkQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkQueue({} ready)", self.0.state.lock().ready.len())
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new(QueueOptions::default())
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> WorkQueue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new(options: QueueOptions) -> Self {
        let name = options.name;
        let queue = Self(Arc::new(Inner {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashMap::new(),
                processing: HashMap::new(),
                delayed: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
                closed: false,
                counted: (!name.is_empty()).then(|| Counted::new(name)),
            }),
            changed: Notify::new(),
            options,
        }));
        if !name.is_empty() {
            let (unfinished, longest, weak) =
                (UNFINISHED.with(&[name]), LONGEST.with(&[name]), Arc::downgrade(&queue.0));
            metrics::before_write(move || {
                let Some(inner) = weak.upgrade() else { return false };
                let under_way: Vec<f64> =
                    inner.state.lock().processing.values().map(|t| t.elapsed().as_secs_f64()).collect();
                unfinished.set(under_way.iter().sum());
                longest.set(under_way.iter().copied().fold(0.0, f64::max));
                true
            });
        }
        queue
    }

    /// Adds a key, unless it waits already. A key that is with a worker is queued again when the worker is done.
    pub fn add(&self, key: K) {
        let mut state = self.0.state.lock();
        if state.push(key, Instant::now()) {
            state.count_depth();
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// Adds a key after a delay. Of several delays of one key the shortest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.0.state.lock();
        if state.closed {
            return;
        }
        let at = after(delay);
        if let Some(old) = state.due.get(&key).copied() {
            if old.0 <= at {
                return;
            }
            state.delayed.remove(&old);
        }
        state.sequence += 1;
        let slot = (at, state.sequence);
        let first = state.delayed.first_key_value().is_none_or(|(s, _)| slot < *s);
        state.due.insert(key.clone(), slot);
        state.delayed.insert(slot, key);
        drop(state);
        if first {
            self.0.changed.notify_one();
        }
    }

    /// Adds a key after a delay that doubles with each call since the last [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.0.state.lock();
            if let Some(c) = &state.counted {
                c.retries.inc();
            }
            let n = state.failures.entry(key.clone()).or_default();
            *n += 1;
            *n - 1
        };
        let o = &self.0.options;
        let delay = o.first_delay.checked_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).unwrap_or(o.max_delay);
        self.add_after(key, delay.min(o.max_delay));
    }

    /// Forgets a key's failures: it succeeded.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// How often a key failed since it was last forgotten.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// How many keys wait for a worker now.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut state = self.0.state.lock();
        state.move_due(Instant::now());
        state.ready.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing waits, now or later, and no worker has anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.dirty.is_empty() && state.processing.is_empty() && state.delayed.is_empty()
    }

    /// The next key, once there is one; `None` once the queue is shut down and empty. Give it back by
    /// [`WorkQueue::done`].
    pub async fn get(&self) -> Option<K> {
        loop {
            let changed = self.0.changed.notified();
            let next = {
                let mut state = self.0.state.lock();
                let now = Instant::now();
                let next = state.move_due(now);
                if let Some(key) = state.ready.pop_front() {
                    let since = state.dirty.remove(&key).unwrap_or(now);
                    state.processing.insert(key.clone(), now);
                    if let Some(c) = &state.counted {
                        c.waited.observe((now - since).as_secs_f64());
                    }
                    state.count_depth();
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more || next.is_some() {
                        // Another who waits takes over the rest, and the timer.
                        self.0.changed.notify_one();
                    }
                    return Some(key);
                }
                if state.closed {
                    drop(state);
                    self.0.changed.notify_waiters();
                    return None;
                }
                next
            };
            match next {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Says that a worker is through with a key; if it was added meanwhile it waits again.
    pub fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        if let (Some(since), Some(c)) = (state.processing.remove(key), &state.counted) {
            c.worked.observe(since.elapsed().as_secs_f64());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// Takes no more keys; those waiting are still handed out, delayed ones are dropped.
    pub fn shutdown(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.delayed.clear();
        state.due.clear();
        drop(state);
        self.0.changed.notify_waiters();
        self.0.changed.notify_one();
    }

    /// Works the queue until it is shut down, up to `workers` keys at once. An `Err` from `work` puts the key back
    /// with a growing delay; an `Ok(Some(delay))` puts it back after that delay; `Ok(None)` is done.
    pub async fn run<F, R, E>(&self, workers: usize, work: F)
    where
        F: Fn(K) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Option<Duration>, E>> + Send,
        E: fmt::Display + Send,
        K: fmt::Display,
    {
        let work = Arc::new(work);
        let slots = Arc::new(Semaphore::new(workers.max(1)));
        let mut tasks = JoinSet::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { break };
            let Some(key) = self.get().await else { break };
            // Ended tasks are collected on the way, so the set does not grow; a panic in one is its own and logged.
            while let Some(ended) = tasks.try_join_next() {
                report(ended);
            }
            let (queue, work) = (self.clone(), work.clone());
            tasks.spawn(async move {
                let _slot = slot;
                let guard = Done { queue: queue.clone(), key: key.clone() };
                match work(key.clone()).await {
                    Ok(None) => queue.forget(&key),
                    Ok(Some(delay)) => {
                        queue.forget(&key);
                        queue.add_after(key, delay);
                    }
                    Err(error) => {
                        tracing::debug!(%key, %error, "will try again");
                        queue.add_rate_limited(key);
                    }
                }
                drop(guard);
            });
        }
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn float(n: usize) -> f64 {
    n as f64
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a worker failed");
    }
}

/// Gives a key back even when its worker panics.
struct Done<K: Clone + Eq + Hash + Send + Sync + 'static> {
    queue: WorkQueue<K>,
    key: K,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Drop for Done<K> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queue.add_rate_limited(self.key.clone());
        }
        self.queue.done(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_with_one_worker() {
        let q = WorkQueue::<&str>::default();
        q.add("a");
        q.add("b");
        q.add("a");
        assert_eq!(q.len(), 2);
        assert_eq!(q.get().await, Some("a"));
        q.add("a");
        q.add("a");
        assert_eq!(q.len(), 1);
        assert_eq!(q.get().await, Some("b"));
        q.done(&"b");
        q.done(&"a");
        assert_eq!(q.get().await, Some("a"));
        q.done(&"a");
        assert!(q.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn delays() {
        let s = Duration::from_secs;
        let never = WorkQueue::<&str>::default();
        never.add_after("a", Duration::MAX);
        assert!(!never.is_idle() && never.is_empty());
        let q = WorkQueue::<&str>::default();
        let began = Instant::now();
        q.add_after("late", s(10));
        q.add_after("soon", s(2));
        q.add_after("late", s(5));
        q.add_after("late", s(7));
        for (want, at) in [("soon", 2), ("late", 5)] {
            assert_eq!(q.get().await, Some(want));
            assert_eq!(began.elapsed().as_secs(), at);
            q.done(&want);
        }
        assert!(q.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn retries_double_to_the_limit_until_forgotten() {
        let q = WorkQueue::<u8>::default();
        let mut waits = Vec::new();
        for _ in 0..20 {
            let began = Instant::now();
            q.add_rate_limited(1);
            assert_eq!(q.get().await, Some(1));
            q.done(&1);
            waits.push(began.elapsed().as_millis());
        }
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[19], 1_000_000);
        assert_eq!(q.failures(&1), 20);
        q.forget(&1);
        assert_eq!(q.failures(&1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn runs_in_parallel_and_retries_errors_and_panics() {
        let q = WorkQueue::<u32>::default();
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tries = Arc::new(Mutex::new(HashMap::<u32, u32>::new()));
        for k in 0..10 {
            q.add(k);
        }
        let runner = {
            let (q, tries, most) = (q.clone(), tries.clone(), most.clone());
            tokio::spawn(async move {
                q.run(4, move |key| {
                    let (busy, most, tries) = (busy.clone(), most.clone(), tries.clone());
                    async move {
                        most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        busy.fetch_sub(1, Ordering::SeqCst);
                        let n = {
                            let mut t = tries.lock();
                            let n = t.entry(key).or_default();
                            *n += 1;
                            *n
                        };
                        assert!(!(key == 3 && n == 1), "first try of 3");
                        if key == 2 && n < 4 { Err("again") } else { Ok(None) }
                    }
                })
                .await;
            })
        };
        while !q.is_idle() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        q.shutdown();
        runner.await.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 4);
        let tries = tries.lock();
        assert_eq!((tries[&2], tries[&3], tries[&5]), (4, 2, 1));
    }

    #[tokio::test]
    async fn shutdown_wakes_everybody() {
        let q = WorkQueue::<u8>::default();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let q = q.clone();
                tokio::spawn(async move { q.get().await })
            })
            .collect();
        tokio::task::yield_now().await;
        q.shutdown();
        for w in waiting {
            assert_eq!(w.await.unwrap(), None);
        }
        q.add(1);
        assert_eq!(q.get().await, None);
    }
}

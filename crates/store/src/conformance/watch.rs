//! Watching.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch::{Receiver, Sender, channel};

use super::{Fixture, PATIENCE, Rng, kv, next, ok, put, unique, until};
use crate::{Change, Error, Event, ListRequest, Revision, Txn, WatchBatch, WatchHandle, WatchRequest, WatchSink};

/// A watch without a start sees what happens after the call, and only its prefix.
pub async fn watches_from_now(f: &Fixture) {
    let (p, store) = (unique("watch"), &*f.store);
    let key = format!("{p}a");
    let before = put(store, &key, "0").await;
    let mut watch = store.watch(WatchRequest::prefix(&p)).await.unwrap();
    let r1 = put(store, &key, "1").await;
    put(store, &unique("elsewhere"), "x").await;
    let r2 = ok(store, Txn::remove(&*key, r1)).await;
    let r3 = put(store, &key, "2").await;
    let events = until(&mut watch, r3).await;
    let event = |revision, value: Option<&str>, prev: Option<crate::KeyValue>| Event {
        key: (&*key).into(),
        revision,
        value: value.map(|value| value.to_owned().into()),
        created: prev.is_none(),
        prev,
    };
    let expect = [
        event(r1, Some("1"), Some(kv(&key, "0", before))),
        event(r2, None, Some(kv(&key, "1", r1))),
        event(r3, Some("2"), None),
    ];
    assert_eq!(events.iter().map(|event| (**event).clone()).collect::<Vec<_>>(), expect);
    let changes: Vec<_> = events.iter().map(|event| event.change()).collect();
    assert_eq!(changes, [Change::Update, Change::Delete, Change::Create]);
}

/// A watch can start in the past.
pub async fn watches_the_past(f: &Fixture) {
    let (p, store) = (unique("watch"), &*f.store);
    let first = put(store, &format!("{p}a"), "0").await;
    for i in 1..10 {
        put(store, &format!("{p}a"), &i.to_string()).await;
        put(store, &unique("elsewhere"), "x").await;
    }
    let last = put(store, &format!("{p}b"), "x").await;
    for from in first..=last {
        let mut watch = store.watch(WatchRequest::prefix(&p).from(from)).await.unwrap();
        let revisions: Vec<_> = until(&mut watch, last).await.iter().map(|event| event.revision).collect();
        let expect: Vec<_> = (from..=last).filter(|r| *r == last || *r == first || (r - first) % 2 == 1).collect();
        assert_eq!(revisions, expect, "from {from}");
    }
}

/// One watch can have several prefixes.
pub async fn watches_several_prefixes(f: &Fixture) {
    let (p, store) = (unique("watch"), &*f.store);
    let from = store.current_revision().await.unwrap() + 1;
    let request = WatchRequest { prefixes: vec![format!("{p}a/"), format!("{p}c/")], from_revision: Some(from) };
    let mut watch = store.watch(request).await.unwrap();
    let mut last = 0;
    for _ in 0..3 {
        for name in ["a/1", "b/1", "c/1"] {
            last = put(store, &format!("{p}{name}"), "x").await;
        }
    }
    let events = until(&mut watch, last).await;
    let keys: Vec<_> = events.iter().map(|event| &event.key[p.len()..]).collect();
    assert_eq!(keys, ["a/1", "c/1", "a/1", "c/1", "a/1", "c/1"]);
}

/// The changes of a transaction come in one batch.
pub async fn watches_a_transaction_whole(f: &Fixture) {
    let (p, store) = (unique("watch"), &*f.store);
    let mut watch = store.watch(WatchRequest::prefix(&p)).await.unwrap();
    let mut txn = Txn::default();
    for i in 0..100 {
        txn = txn.put(format!("{p}{i:03}"), "x");
    }
    let revision = ok(store, txn).await;
    let batch = next(&mut watch).await;
    assert_eq!(batch.revision, revision);
    assert_eq!(batch.events.len(), 100);
    assert!(batch.events.iter().all(|event| event.revision == revision));
}

/// While writers write, watches started at any moment from the same past see all of it once, in order.
pub async fn watch_moves_from_past_to_present(f: &Fixture) {
    const WRITES: u64 = 600;
    let p = unique("watch");
    let base = f.store.current_revision().await.unwrap();
    let (done, last) = (Arc::new(Mutex::new(0)), base + WRITES);
    let writers = (0..4).map(|writer| {
        let (store, p, done) = (f.store.clone(), p.clone(), done.clone());
        tokio::spawn(async move {
            let mut rng = Rng::new(writer);
            for _ in 0..WRITES / 4 {
                put(&*store, &format!("{p}{}", rng.below(20)), &rng.next_u64().to_string()).await;
                *done.lock() += 1;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut watchers = Vec::new();
    for i in 0..12u64 {
        while *done.lock() < i * WRITES / 16 {
            tokio::task::yield_now().await;
        }
        let (store, p) = (f.store.clone(), p.clone());
        watchers.push(tokio::spawn(async move {
            let mut watch = store.watch(WatchRequest::prefix(&p).from(base + 1)).await.unwrap();
            until(&mut watch, last).await
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut seen: Option<Vec<Arc<Event>>> = None;
    for watcher in watchers {
        let events = watcher.await.unwrap();
        let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
        assert_eq!(revisions, (base + 1..=last).collect::<Vec<_>>());
        assert!(seen.as_ref().is_none_or(|seen| *seen == events), "two watches saw different things");
        seen = Some(events);
    }
}

/// A watch that is not read for long still delivers everything.
pub async fn slow_watch_loses_nothing(f: &Fixture) {
    let (p, store) = (unique("slow"), &*f.store);
    let mut watch = store.watch(WatchRequest::prefix(&p)).await.unwrap();
    let first = put(store, &format!("{p}a"), "x").await;
    assert_eq!(until(&mut watch, first).await.len(), 1);
    let value = "x".repeat(200_000);
    let mut last = first;
    for i in 0..100 {
        last = put(store, &format!("{p}{i}"), &value).await;
    }
    let events = until(&mut watch, last).await;
    let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (first + 1..=last).collect::<Vec<_>>());
    let after = put(store, &format!("{p}a"), "y").await;
    assert_eq!(until(&mut watch, after).await.len(), 1);
}

/// A quiet watch says on demand how far it has come.
pub async fn watch_tells_progress(f: &Fixture) {
    let (p, store) = (unique("quiet"), &*f.store);
    let mut watch = store.watch(WatchRequest::prefix(&p)).await.unwrap();
    for round in 0..5 {
        let mut revision = put(store, &unique("elsewhere"), "x").await;
        if round == 3 {
            revision = put(store, &format!("{p}a"), "x").await;
        }
        watch.request_progress();
        let events = until(&mut watch, revision).await;
        assert_eq!(events.len(), usize::from(round == 3));
    }
    // Asked by another task while this one already waits.
    let revision = put(store, &unique("elsewhere"), "x").await;
    let ask = watch.progress_requester();
    let waiting = tokio::spawn(async move { until(&mut watch, revision).await });
    tokio::task::yield_now().await;
    ask.request();
    assert!(waiting.await.unwrap().is_empty());
}

/// What a list shows a quiet watch reaches, however others write meanwhile.
pub async fn lists_are_reached_by_watches(f: &Fixture) {
    let (p, store) = (unique("quiet"), &*f.store);
    let mut watch = store.watch(WatchRequest::prefix(&p)).await.unwrap();
    let other = f.store.clone();
    let writes = tokio::spawn(async move {
        for _ in 0..100 {
            put(&*other, &unique("elsewhere"), "x").await;
        }
    });
    while !writes.is_finished() {
        let listed = store.list(ListRequest::prefix(&p)).await.unwrap();
        watch.request_progress();
        assert!(until(&mut watch, listed.revision).await.is_empty());
    }
    writes.await.unwrap();
}

/// A watch for a revision that does not exist yet waits for it.
pub async fn watch_waits_for_the_future(f: &Fixture) {
    let (p, store) = (unique("future"), &*f.store);
    let base = store.current_revision().await.unwrap();
    let mut watch = store.watch(WatchRequest::prefix(&p).from(base + 3)).await.unwrap();
    for _ in 0..4 {
        put(store, &format!("{p}a"), "x").await;
    }
    let revisions: Vec<_> = until(&mut watch, base + 4).await.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, [base + 3, base + 4]);
}

struct Sink {
    events: Mutex<Vec<Arc<Event>>>,
    reached: Sender<Revision>,
}

impl Sink {
    fn new() -> (Arc<Self>, Receiver<Revision>) {
        let (reached, receiver) = channel(0);
        (Arc::new(Self { events: Mutex::default(), reached }), receiver)
    }
    fn revisions(&self) -> Vec<Revision> {
        self.events.lock().iter().map(|event| event.revision).collect()
    }
}

impl WatchSink for Sink {
    fn deliver(&self, batch: &WatchBatch) {
        self.events.lock().extend(batch.events.iter().cloned());
        self.reached.send_if_modified(|reached| {
            assert!(batch.revision >= *reached);
            *reached = batch.revision;
            true
        });
    }
    fn ended(&self, _: &Error) {}
}

async fn reaches(reached: &mut Receiver<Revision>, revision: Revision) {
    tokio::time::timeout(PATIENCE, reached.wait_for(|reached| *reached >= revision)).await.unwrap().unwrap();
}

/// A sink gets each change once, in order; with a local store before the write is acknowledged; and none once its
/// handle is dropped.
pub async fn sinks_are_fed(f: &Fixture) {
    let p = unique("sink");
    let local = f.store.local_revision().is_some();
    let (sink, mut reached) = Sink::new();
    let handle = f.store.watch_with(WatchRequest::prefix(&p), sink.clone()).await.unwrap();
    let writers = (0..4).map(|writer| {
        let (store, p, sink) = (f.store.clone(), p.clone(), sink.clone());
        tokio::spawn(async move {
            let mut last = 0;
            for _ in 0..25 {
                last = put(&*store, &format!("{p}{writer}"), "x").await;
                assert!(!local || *sink.reached.borrow() >= last, "acknowledged before the sink had it");
            }
            last
        })
    });
    let mut last = 0;
    for writer in writers.collect::<Vec<_>>() {
        last = last.max(writer.await.unwrap());
    }
    reaches(&mut reached, last).await;
    assert_eq!(sink.revisions(), (last - 99..=last).collect::<Vec<_>>());

    let elsewhere = put(&*f.store, &unique("elsewhere"), "x").await;
    handle.request_progress();
    reaches(&mut reached, elsewhere).await;
    drop(handle);
    put(&*f.store, &format!("{p}0"), "x").await;
    let (other, mut reached) = Sink::new();
    let _handle = f.store.watch_with(WatchRequest::prefix(&p).from(last), other.clone()).await.unwrap();
    let end = put(&*f.store, &format!("{p}0"), "x").await;
    reaches(&mut reached, end).await;
    assert_eq!(sink.events.lock().len(), 100);
}

/// A sink that starts in the past has had it when the call returns; compacted history is an error.
pub async fn sinks_are_fed_the_past(f: &Fixture) {
    let (p, store) = (unique("sink"), &*f.store);
    let first = put(store, &format!("{p}a"), "x").await;
    for _ in 1..10 {
        put(store, &format!("{p}a"), "x").await;
    }
    let (sink, mut reached) = Sink::new();
    let _handle = store.watch_with(WatchRequest::prefix(&p).from(first + 2), sink.clone()).await.unwrap();
    assert_eq!(sink.revisions(), (first + 2..first + 10).collect::<Vec<_>>());
    let last = put(store, &format!("{p}a"), "x").await;
    reaches(&mut reached, last).await;
    assert_eq!(sink.revisions(), (first + 2..=last).collect::<Vec<_>>());
    store.compact(last).await.unwrap();
    let (sink, _reached) = Sink::new();
    let result = store.watch_with(WatchRequest::prefix(&p).from(first), sink).await;
    assert!(matches!(result, Err(Error::Compacted { .. })), "{result:?}");
}

/// A handle may be dropped, and the sink with it, while its own sink is being called.
pub async fn a_sink_may_end_itself(f: &Fixture) {
    struct Once {
        handle: Mutex<Option<WatchHandle>>,
        calls: Sender<u64>,
    }
    impl WatchSink for Once {
        fn deliver(&self, batch: &WatchBatch) {
            self.calls.send_modify(|calls| *calls += batch.events.len() as u64);
            drop(self.handle.lock().take());
        }
        fn ended(&self, _: &Error) {}
    }
    let (p, store) = (unique("sink"), &*f.store);
    let (calls, mut called) = channel(0);
    let sink = Arc::new(Once { handle: Mutex::default(), calls });
    let handle = store.watch_with(WatchRequest::prefix(&p), sink.clone()).await.unwrap();
    *sink.handle.lock() = Some(handle);
    drop(sink);
    put(store, &format!("{p}a"), "x").await;
    reaches(&mut called, 1).await;
    put(store, &format!("{p}a"), "x").await;
    // The store lets go of the sink, and with it of the sender.
    let gone = tokio::time::timeout(PATIENCE, called.wait_for(|calls| *calls > 1)).await.unwrap();
    assert!(gone.is_err(), "called after its handle was dropped");
}

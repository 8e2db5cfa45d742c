//! The cache on a store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use pintle_api::object::{EventType, Object, SelectableField};
use pintle_api::selector::{FieldSelector, Selector};
use pintle_store::{
    Error, Expect, Got, ListRequest, Listed, MemoryStore, Outcome, Result, Size, SnapshotInfo, Store, Txn, WatchBatch,
    WatchHandle, WatchRequest, WatchSink, keys,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Cache, Decode, Delivery, Options, Start, Watch, WatchItem, WatchOptions};

const PREFIX: &str = "/registry/pods/";
const FIELDS: &[SelectableField] = &[("spec.nodeName", &["spec", "nodeName"], "")];

fn decode() -> Decode {
    Arc::new(|bytes, revision| Object::from_stored(bytes, revision, FIELDS).map_err(|error| error.to_string()))
}

async fn cache(store: &MemoryStore, options: Options) -> Cache {
    Cache::start(Arc::new(store.clone()), PREFIX, decode(), options).await.unwrap()
}

fn pod(namespace: &str, name: &str, app: &str, node: &str) -> String {
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{{"app":"{app}"}}}},"spec":{{"nodeName":"{node}"}}}}"#
    )
}

fn key(namespace: &str, name: &str) -> String {
    keys::object_key(PREFIX, Some(namespace), name)
}

async fn run(store: &MemoryStore, txn: Txn) -> u64 {
    match store.txn(txn).await.unwrap() {
        Outcome::Succeeded { revision } => revision,
        Outcome::Failed { .. } => panic!("the condition should hold"),
    }
}

async fn put(store: &MemoryStore, name: &str, app: &str, node: &str) -> u64 {
    run(store, Txn::default().put(key("default", name), pod("default", name, app, node))).await
}

async fn delete(store: &MemoryStore, name: &str) -> u64 {
    run(store, Txn::default().when(key("default", name), Expect::Exists).delete(key("default", name))).await
}

async fn item(watch: &mut Watch) -> WatchItem {
    let item = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("an event comes");
    item.expect("the watch goes on").expect("the watch has no error")
}

async fn event(watch: &mut Watch) -> Arc<Delivery> {
    match item(watch).await {
        WatchItem::Event(delivery) => delivery,
        bookmark @ WatchItem::Bookmark { .. } => panic!("unexpected {bookmark:?}"),
    }
}

/// `KIND name@revision`
async fn told(watch: &mut Watch) -> String {
    let delivery = event(watch).await;
    let object = &delivery.object;
    format!("{} {}@{}", delivery.kind.as_str(), object.name(), object.resource_version())
}

fn selecting(start: Start, labels: &str, fields: &str) -> WatchOptions {
    let mut options = WatchOptions::all(start);
    options.labels = Selector::parse(labels).unwrap();
    options.fields = FieldSelector::parse(fields).unwrap();
    options
}

fn names(items: &[Arc<Object>]) -> Vec<&str> {
    items.iter().map(|object| object.name()).collect()
}

#[tokio::test]
async fn serves_what_was_there_and_what_comes() {
    let store = MemoryStore::new();
    put(&store, "old", "x", "").await;
    let cache = cache(&store, Options::default()).await;
    let revision = put(&store, "new", "x", "").await;
    let state = cache.fresh().await.unwrap();
    assert_eq!(state.revision(), revision);
    assert_eq!(state.len(), 2);
    let object = state.get("default", "new").unwrap();
    assert_eq!(object.resource_version(), revision);
    assert!(Arc::ptr_eq(object, &cache.written(&key("default", "new"), revision).unwrap()), "one object, not a copy");
    assert!(cache.written(&key("default", "new"), revision - 1).is_none());
    // A write elsewhere moves the revision of the next list.
    let elsewhere = run(&store, Txn::default().put("/registry/other/a", "x")).await;
    assert_eq!(cache.fresh().await.unwrap().revision(), elsewhere);
    delete(&store, "old").await;
    assert!(cache.fresh().await.unwrap().get("default", "old").is_none());
    assert_eq!(state.len(), 2, "a snapshot does not change");
}

#[tokio::test]
async fn lists_pages_of_one_state() {
    let store = MemoryStore::new();
    let cache = cache(&store, Options::default()).await;
    for namespace in ["a", "b", "c"] {
        for i in 0..10 {
            let name = format!("p{i}");
            let app = if i % 2 == 0 { "even" } else { "odd" };
            run(&store, Txn::default().put(key(namespace, &name), pod(namespace, &name, app, ""))).await;
        }
    }
    let first = cache.fresh().await.unwrap();
    cache.retain(&first);
    let all = |_: &Object| true;
    let mut seen = Vec::new();
    let mut from: Option<String> = None;
    loop {
        let state = cache.at(first.revision()).await.unwrap();
        let page = state.page("", from.as_deref(), 7, &all, true);
        seen.extend(page.items.iter().map(|object| object.key()));
        assert_eq!(page.remaining.unwrap_or(0), 30 - seen.len() as u64);
        put(&store, &format!("late{}", seen.len()), "x", "").await;
        run(&store, Txn::default().delete(key("c", "p9"))).await;
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 30);
    assert_eq!(seen[29], "c/p9");
    // One namespace only; filtered pages do not count what remains.
    let odd = |object: &Object| object.label("app") == Some("odd");
    let page = first.page("b", None, 3, &odd, false);
    assert_eq!((names(&page.items), page.remaining), (vec!["p1", "p3", "p5"], None));
    assert_eq!(page.next.as_deref(), Some("b/p5\0"));
    let page = first.page("b", page.next.as_deref(), 3, &odd, false);
    assert_eq!((names(&page.items), page.next), (vec!["p7", "p9"], None));
}

#[tokio::test]
async fn states_of_exact_revisions() {
    let store = MemoryStore::new();
    let start = put(&store, "a", "0", "").await;
    let options = Options { history_events: 10, ..Options::default() };
    let cache = cache(&store, options).await;
    let mut last = start;
    for i in 1..30 {
        last = put(&store, if i % 3 == 0 { "b" } else { "a" }, &i.to_string(), "").await;
    }
    // From the kept changes, from the store, and the present.
    for revision in start..=last {
        let state = cache.at(revision).await.unwrap();
        assert_eq!(state.revision(), revision);
        let i = revision - start;
        let newest = state.iter("").map(|object| object.resource_version()).max();
        assert_eq!(newest, Some(revision), "{i}");
    }
    store.compact(last - 15).await.unwrap();
    let gone = cache.at(last - 16).await.err().unwrap();
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    cache.at(last - 5).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_future_is_waited_for_in_vain() {
    let store = MemoryStore::new();
    let cache = cache(&store, Options::default()).await;
    let revision = put(&store, "a", "x", "").await;
    cache.at_least(revision).await.unwrap();
    for wanted in [cache.at_least(revision + 1).await.err(), cache.at(revision + 1).await.err()] {
        let status = wanted.unwrap();
        assert_eq!(status.code, 504);
        let text = format!("Too large resource version: {}, current: {revision}", revision + 1);
        assert!(status.message.contains(&text), "{}", status.message);
    }
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.at_least(revision + 1).await.map(|state| state.revision()) }
    });
    tokio::task::yield_now().await;
    put(&store, "b", "x", "").await;
    assert_eq!(waiting.await.unwrap(), Ok(revision + 1));
}

#[tokio::test]
async fn watches_from_a_revision() {
    let store = MemoryStore::new();
    let cache = cache(&store, Options::default()).await;
    let r1 = put(&store, "a", "x", "").await;
    let r2 = put(&store, "a", "y", "").await;
    let mut watch = cache.watch(WatchOptions::all(Start::After(r1))).await.unwrap();
    let r3 = delete(&store, "a").await;
    let r4 = put(&store, "a", "z", "").await;
    assert_eq!(told(&mut watch).await, format!("MODIFIED a@{r2}"));
    let deleted = event(&mut watch).await;
    assert_eq!((deleted.kind, deleted.object.resource_version()), (EventType::Deleted, r3));
    assert_eq!(deleted.object.label("app"), Some("y"), "the last state");
    assert_eq!(told(&mut watch).await, format!("ADDED a@{r4}"));
    let mut now = cache.watch(WatchOptions::all(Start::Now)).await.unwrap();
    let r5 = put(&store, "b", "x", "").await;
    assert_eq!(told(&mut now).await, format!("ADDED b@{r5}"));
}

/// A cache is loaded when it is first needed; clients may know revisions from before.
#[tokio::test]
async fn knows_what_was_before_it() {
    let store = MemoryStore::new();
    let r1 = put(&store, "a", "x", "").await;
    let r2 = put(&store, "a", "y", "").await;
    let r3 = put(&store, "b", "x", "").await;
    let r4 = delete(&store, "a").await;
    run(&store, Txn::default().put("/registry/other/a", "x")).await;
    let late = cache(&store, Options::default()).await;
    let mut watch = late.watch(WatchOptions::all(Start::After(r1))).await.unwrap();
    let mut selective = late.watch(selecting(Start::After(r1), "app=x", "")).await.unwrap();
    let r6 = put(&store, "a", "z", "").await;
    for expect in
        [format!("MODIFIED a@{r2}"), format!("ADDED b@{r3}"), format!("DELETED a@{r4}"), format!("ADDED a@{r6}")]
    {
        assert_eq!(told(&mut watch).await, expect);
    }
    assert_eq!(told(&mut selective).await, format!("DELETED a@{r2}"));
    assert_eq!(told(&mut selective).await, format!("ADDED b@{r3}"));
    for (revision, names_then) in [(r1, vec!["a"]), (r3, vec!["a", "b"]), (r4, vec!["b"])] {
        let state = late.at(revision).await.unwrap();
        assert_eq!(state.iter("").map(|object| object.name()).collect::<Vec<_>>(), names_then, "at {revision}");
    }
    // What the store has forgotten, no cache knows.
    store.compact(r3).await.unwrap();
    let later = cache(&store, Options::default()).await;
    assert_eq!(later.watch(WatchOptions::all(Start::After(r3 - 1))).await.err().unwrap().code, 410);
    let mut watch = later.watch(WatchOptions::all(Start::After(r3))).await.unwrap();
    assert_eq!(told(&mut watch).await, format!("DELETED a@{r4}"));
}

#[tokio::test]
async fn initial_state_then_bookmark_then_changes() {
    let store = MemoryStore::new();
    let cache = cache(&store, Options::default()).await;
    let a = put(&store, "a", "x", "").await;
    let b = put(&store, "b", "x", "").await;
    let mut options = WatchOptions::all(Start::Fresh);
    options.mark_initial = true;
    let mut watch = cache.watch(options).await.unwrap();
    let c = put(&store, "c", "x", "").await;
    assert_eq!(told(&mut watch).await, format!("ADDED a@{a}"));
    assert_eq!(told(&mut watch).await, format!("ADDED b@{b}"));
    let mark = item(&mut watch).await;
    assert!(matches!(mark, WatchItem::Bookmark { revision, initial_events_end: true } if revision == b), "{mark:?}");
    assert_eq!(told(&mut watch).await, format!("ADDED c@{c}"));
}

#[tokio::test]
async fn selectors_decide_what_a_change_is() {
    let store = MemoryStore::new();
    let cache = cache(&store, Options::default()).await;
    for (labels, fields) in [("app=x", ""), ("", "spec.nodeName=x"), ("app in (x),app!=y", "metadata.name=p")] {
        let mut watch = cache.watch(selecting(Start::Now, labels, fields)).await.unwrap();
        let put = async |value: &str| put(&store, "p", value, value).await;
        put("other").await;
        let r1 = put("x").await;
        let r2 = put("x").await;
        let r3 = put("other").await;
        put("other").await;
        let r4 = put("x").await;
        let r5 = delete(&store, "p").await;
        put("other").await;
        delete(&store, "p").await;
        let r6 = put("x").await;
        delete(&store, "p").await;
        let expect = [("ADDED", r1), ("MODIFIED", r2), ("DELETED", r3), ("ADDED", r4), ("DELETED", r5), ("ADDED", r6)];
        for (kind, revision) in expect {
            let delivery = event(&mut watch).await;
            let context = format!("{labels} {fields}");
            assert_eq!((delivery.kind.as_str(), delivery.object.resource_version()), (kind, revision), "{context}");
            assert_eq!(delivery.object.label("app"), Some("x"), "{context}: the state that matched");
        }
    }
}

#[tokio::test]
async fn events_are_made_once_for_all_watchers() {
    let store = MemoryStore::new();
    let cache = cache(&store, Options::default()).await;
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(cache.watch(WatchOptions::all(Start::Now)).await.unwrap());
        watches.push(cache.watch(selecting(Start::Now, "app=x", "spec.nodeName=n")).await.unwrap());
    }
    let revision = put(&store, "a", "x", "n").await;
    let mut frames = Vec::new();
    for watch in &mut watches {
        frames.push(event(watch).await.json_frame().clone());
    }
    assert!(frames.iter().all(|frame| frame.as_ptr() == frames[0].as_ptr()), "encoded more than once");
    let text = std::str::from_utf8(&frames[0]).unwrap();
    assert!(text.starts_with(r#"{"type":"ADDED","object":{"kind":"Pod","#) && text.ends_with("}}\n"), "{text}");
    assert!(text.contains(&format!(r#""resourceVersion":"{revision}""#)));
    serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(cache.watchers(), 10);
    drop(watches);
    assert_eq!(cache.watchers(), 0);
}

#[tokio::test]
async fn a_start_that_is_gone_is_refused() {
    let store = MemoryStore::new();
    let options = Options { history_events: 5, ..Options::default() };
    let cache = cache(&store, options).await;
    let first = put(&store, "a", "x", "").await;
    for _ in 0..10 {
        put(&store, "a", "x", "").await;
    }
    let gone = cache.watch(WatchOptions::all(Start::After(first))).await.err().unwrap();
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    assert!(gone.message.starts_with(&format!("too old resource version: {first} (")), "{}", gone.message);
    let mut watch = cache.watch(WatchOptions::all(Start::After(first + 5))).await.unwrap();
    for i in 6..=10 {
        assert_eq!(told(&mut watch).await, format!("MODIFIED a@{}", first + i));
    }
}

#[tokio::test]
async fn a_slow_watch_catches_up_or_is_cut() {
    let store = MemoryStore::new();
    let options = Options { history_events: 100, queue: 10, ..Options::default() };
    let cache = cache(&store, options).await;
    let mut watch = cache.watch(WatchOptions::all(Start::Now)).await.unwrap();
    let mut quiet = cache.watch(selecting(Start::Now, "app=never", "")).await.unwrap();
    let first = put(&store, "a", "x", "").await;
    for _ in 1..80 {
        put(&store, "a", "x", "").await;
        // Lets the dispatcher fill the queue.
        tokio::task::yield_now().await;
    }
    for i in 0..80 {
        assert_eq!(event(&mut watch).await.object.resource_version(), first + i);
    }
    // More than is kept: the watch ends with the reason, after what was in its queue.
    for _ in 0..300 {
        put(&store, "a", "x", "").await;
        tokio::task::yield_now().await;
    }
    let mut seen = first + 79;
    let cut = loop {
        match watch.next().await.unwrap() {
            Ok(WatchItem::Event(delivery)) => {
                seen += 1;
                assert_eq!(delivery.object.resource_version(), seen);
            }
            Ok(bookmark) => panic!("{bookmark:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(cut.code, 410);
    assert!(cut.message.contains(&format!("too old resource version: {seen} (")), "{}", cut.message);
    assert!(watch.next().await.is_none());
    // A watch nothing concerned is not slow.
    let last = put(&store, "b", "never", "").await;
    assert_eq!(told(&mut quiet).await, format!("ADDED b@{last}"));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_how_far_it_is() {
    let store = MemoryStore::new();
    let cache = cache(&store, Options::default()).await;
    let mut options = selecting(Start::Now, "app=x", "");
    options.bookmarks = Some(Duration::from_secs(60));
    let mut watch = cache.watch(options).await.unwrap();
    put(&store, "a", "other", "").await;
    let elsewhere = run(&store, Txn::default().put("/registry/other/a", "x")).await;
    let mark = item(&mut watch).await;
    assert!(
        matches!(mark, WatchItem::Bookmark { revision, initial_events_end: false } if revision == elsewhere),
        "{mark:?}"
    );
    let revision = put(&store, "a", "x", "").await;
    assert_eq!(told(&mut watch).await, format!("ADDED a@{revision}"));
    let mark = item(&mut watch).await;
    assert!(matches!(mark, WatchItem::Bookmark { revision: marked, .. } if marked == revision), "{mark:?}");
}

#[tokio::test]
async fn objects_that_cannot_be_read_are_left_out() {
    let store = MemoryStore::new();
    run(&store, Txn::default().put(key("default", "bad"), "{")).await;
    put(&store, "good", "x", "").await;
    let decode: Decode = Arc::new(|bytes, revision| {
        assert!(bytes != b"worst", "a bug");
        decode()(bytes, revision)
    });
    let cache = Cache::start(Arc::new(store.clone()), PREFIX, decode, Options::default()).await.unwrap();
    let mut watch = cache.watch(WatchOptions::all(Start::Now)).await.unwrap();
    run(&store, Txn::default().put(key("default", "worse"), "not json")).await;
    run(&store, Txn::default().put(key("default", "worst"), "worst")).await;
    let revision = put(&store, "good", "y", "").await;
    assert_eq!(told(&mut watch).await, format!("MODIFIED good@{revision}"));
    assert_eq!(cache.fresh().await.unwrap().len(), 1);
}

/// What a client knows after following a watch.
#[derive(Default)]
struct Client {
    objects: BTreeMap<String, Arc<Object>>,
    revision: u64,
}

impl Client {
    fn follow(&mut self, delivery: &Delivery, context: &str) {
        let object = &delivery.object;
        let known = self.objects.contains_key(&object.key());
        assert_eq!(known, delivery.kind != EventType::Added, "{context}: {} {object:?}", delivery.kind.as_str());
        if delivery.kind == EventType::Deleted {
            self.objects.remove(&object.key());
        } else {
            self.objects.insert(object.key(), object.clone());
        }
        assert!(delivery.seq == 0 || object.resource_version() >= self.revision, "{context}: back in time");
        self.revision = self.revision.max(object.resource_version());
    }
}

/// Random writes, and watches with random selectors that start anywhere: each client ends with what a list gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_end_with_what_a_list_gives() {
    for seed in 0..20 {
        let mut rng = pintle_store::conformance::Rng::new(seed);
        let store = MemoryStore::new();
        let options = Options { queue: 5, ..Options::default() };
        let cache = cache(&store, options).await;
        let mut clients = Vec::new();
        let mut states = Vec::new();
        for step in 0..400 {
            let (namespace, name) = (*rng.pick(&["a", "b"]), format!("p{}", rng.below(8)));
            let key = key(namespace, &name);
            if rng.one_in(4) {
                run(&store, Txn::default().delete(key)).await;
            } else {
                let (app, node) = (*rng.pick(&["x", "y"]), *rng.pick(&["n1", "n2", ""]));
                let value = pod(namespace, &name, app, node);
                run(&store, Txn::default().put(key, value)).await;
            }
            if rng.one_in(10) {
                states.push(cache.fresh().await.unwrap());
            }
            if rng.one_in(15) {
                let labels = *rng.pick(&["", "app=x", "app!=x"]);
                let fields = *rng.pick(&["", "spec.nodeName=n1", "metadata.name=p3", "spec.nodeName!=n1"]);
                let mut options = selecting(Start::Fresh, labels, fields);
                options.namespace = (*rng.pick(&["", "a"])).to_owned();
                let mut client = Client::default();
                if !states.is_empty() && rng.one_in(2) {
                    // A list, then a watch from there.
                    let state = rng.pick(&states);
                    options.start = Start::After(state.revision());
                    let wanted = |object: &&Arc<Object>| {
                        options.labels.matches_object(object) && options.fields.matches_object(object)
                    };
                    for object in state.iter(&options.namespace).filter(wanted) {
                        client.objects.insert(object.key(), object.clone());
                    }
                    client.revision = state.revision();
                }
                let context = format!("seed {seed} step {step} {options:?}");
                let watch = cache.watch(options.clone()).await.unwrap();
                clients.push((client, watch, options, context));
            }
        }
        // An end every watch can see.
        let last = cache.fresh().await.unwrap();
        for (mut client, mut watch, options, context) in clients {
            let wanted: Vec<_> = last
                .iter(&options.namespace)
                .filter(|object| options.labels.matches_object(object) && options.fields.matches_object(object))
                .collect();
            while !client.objects.values().eq_by_version(&wanted) {
                let delivery = event(&mut watch).await;
                client.follow(&delivery, &context);
            }
        }
    }
}

/// Comparing by identity and version is enough: objects do not change.
trait EqByVersion<'a> {
    fn eq_by_version(self, other: &[&Arc<Object>]) -> bool;
}

impl<'a, I: Iterator<Item = &'a Arc<Object>>> EqByVersion<'a> for I {
    fn eq_by_version(self, other: &[&Arc<Object>]) -> bool {
        self.map(|object| (object.key(), object.resource_version()))
            .eq(other.iter().map(|object| (object.key(), object.resource_version())))
    }
}

/// A store that others use too: it does not know its revision by itself, feeds sinks from a task, and may lose its
/// connection.
struct SharedStore {
    inner: MemoryStore,
    sinks: parking_lot::Mutex<Vec<(Arc<dyn WatchSink>, WatchHandle)>>,
}

impl SharedStore {
    fn lose_connection(&self) {
        for (sink, handle) in self.sinks.lock().drain(..) {
            drop(handle);
            sink.ended(&Error::Unavailable("the connection is gone".into()));
        }
    }
}

/// Hands batches over to a task.
struct Later(tokio::sync::mpsc::UnboundedSender<WatchBatch>);

impl WatchSink for Later {
    fn deliver(&self, batch: &WatchBatch) {
        let _ = self.0.send(batch.clone());
    }
    fn ended(&self, _: &Error) {}
}

#[async_trait::async_trait]
impl Store for SharedStore {
    async fn get(&self, key: &str) -> Result<Got> {
        self.inner.get(key).await
    }
    async fn list(&self, request: ListRequest) -> Result<Listed> {
        self.inner.list(request).await
    }
    async fn txn(&self, txn: Txn) -> Result<Outcome> {
        self.inner.txn(txn).await
    }
    async fn watch(&self, request: WatchRequest) -> Result<pintle_store::Watch> {
        self.inner.watch(request).await
    }
    async fn watch_with(&self, request: WatchRequest, sink: Arc<dyn WatchSink>) -> Result<WatchHandle> {
        let (send, mut batches) = tokio::sync::mpsc::unbounded_channel();
        let target = sink.clone();
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                tokio::task::yield_now().await;
                target.deliver(&batch);
            }
        });
        let handle = self.inner.watch_with(request.clone(), Arc::new(Later(send.clone()))).await?;
        self.sinks.lock().push((sink, handle));
        // A second watch only to ask for progress by.
        let asks = WatchRequest { prefixes: Vec::new(), from_revision: None };
        self.inner.watch_with(asks, Arc::new(Later(send))).await
    }
    async fn current_revision(&self) -> Result<u64> {
        self.inner.current_revision().await
    }
    fn local_revision(&self) -> Option<u64> {
        None
    }
    async fn compacted_revision(&self) -> Result<u64> {
        self.inner.compacted_revision().await
    }
    async fn compact(&self, revision: u64) -> Result<()> {
        self.inner.compact(revision).await
    }
    async fn snapshot(&self, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<SnapshotInfo> {
        self.inner.snapshot(writer).await
    }
    async fn restore(&self, reader: &mut (dyn AsyncRead + Send + Unpin), bump: u64) -> Result<SnapshotInfo> {
        self.inner.restore(reader, bump).await
    }
    async fn size(&self) -> Result<Size> {
        self.inner.size().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

async fn shared() -> (MemoryStore, Arc<SharedStore>, Cache) {
    let inner = MemoryStore::new();
    let store = Arc::new(SharedStore { inner: inner.clone(), sinks: parking_lot::Mutex::default() });
    let cache = Cache::start(store.clone(), PREFIX, decode(), Options::default()).await.unwrap();
    (inner, store, cache)
}

#[tokio::test]
async fn reads_of_a_shared_store_wait_for_what_others_wrote() {
    let (store, _, cache) = shared().await;
    for i in 0..20 {
        let revision = put(&store, "a", &i.to_string(), "").await;
        let state = cache.fresh().await.unwrap();
        assert!(state.revision() >= revision);
        assert_eq!(state.get("default", "a").unwrap().resource_version(), revision);
        let elsewhere = run(&store, Txn::default().put("/registry/other/a", "x")).await;
        assert!(cache.fresh().await.unwrap().revision() >= elsewhere);
        // A watch from a revision this cache has not seen yet does not go back.
        let revision = put(&store, "b", "x", "").await;
        let mut watch = cache.watch(WatchOptions::all(Start::After(revision))).await.unwrap();
        let next = put(&store, "c", "x", "").await;
        assert_eq!(event(&mut watch).await.object.resource_version(), next);
    }
}

#[tokio::test]
async fn a_lost_connection_ends_watches_and_is_made_again() {
    let (store, shared, cache) = shared().await;
    let seen = put(&store, "a", "x", "").await;
    cache.fresh().await.unwrap();
    let mut watch = cache.watch(WatchOptions::all(Start::Now)).await.unwrap();
    shared.lose_connection();
    let missed = put(&store, "b", "x", "").await;
    assert!(tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().is_none());
    let state = cache.fresh().await.unwrap();
    assert_eq!((state.len(), state.revision() >= missed), (2, true));
    // What happened in between is not known: clients list again.
    let gone = cache.watch(WatchOptions::all(Start::After(seen))).await.err().unwrap();
    assert_eq!(gone.code, 410);
    let mut watch = cache.watch(WatchOptions::all(Start::After(state.revision()))).await.unwrap();
    let revision = put(&store, "c", "x", "").await;
    assert_eq!(told(&mut watch).await, format!("ADDED c@{revision}"));
}

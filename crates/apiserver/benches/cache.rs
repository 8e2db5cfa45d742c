//! What the watch cache costs, beside what upstream's API server was measured to need (with its HTTP and encoding).

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::StreamExt;
use pintle_api::object::Object;
use pintle_api::selector::FieldSelector;
use pintle_apiserver::cache::{Cache, Options, Start, WatchItem, WatchOptions};
use pintle_store::{MemoryStore, Outcome, Store, Txn};

const PREFIX: &str = "/registry/pods/";

/// Processor time of all threads of this process, in milliseconds.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.filter_map(of).sum::<f64>() / 1e6
}

fn pod(i: usize, node: usize) -> (String, String) {
    let (namespace, name) = (format!("ns{}", i % 10), format!("pod-{i:06}"));
    let filler = "x".repeat(1400);
    let value = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"6a6e2a4c-1111-2222-3333-{i:012}","labels":{{"app":"a{}"}}}},"spec":{{"nodeName":"node-{node}","containers":[{{"name":"c","image":"{filler}"}}]}}}}"#,
        i % 7
    );
    (format!("{PREFIX}{namespace}/{name}"), value)
}

async fn put(store: &MemoryStore, i: usize, node: usize) -> u64 {
    let (key, value) = pod(i, node);
    match store.txn(Txn::default().put(key, value)).await.unwrap() {
        Outcome::Succeeded { revision } => revision,
        Outcome::Failed { .. } => unreachable!(),
    }
}

async fn watchers(store: &MemoryStore, cache: &Cache, count: usize, by_node: bool, writes: usize) {
    let (got, frames) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for i in 0..count {
        let mut options = WatchOptions::all(Start::Now);
        if by_node {
            options.fields = FieldSelector::parse(&format!("spec.nodeName=node-{i}")).unwrap();
        }
        let mut watch = cache.watch(options).await.unwrap();
        let (got, frames) = (got.clone(), frames.clone());
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(WatchItem::Event(delivery))) = watch.next().await {
                frames.fetch_add(delivery.json_frame().len() as u64, Ordering::Relaxed);
                got.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let (start, before) = (Instant::now(), cpu());
    let each = if by_node { 1 } else { count };
    for i in 0..writes {
        put(store, i % 1000, i % count).await;
        // As with a real client, writes follow deliveries: nobody is far behind.
        while got.load(Ordering::Relaxed) < (i * each) as u64 {
            tokio::task::yield_now().await;
        }
    }
    while got.load(Ordering::Relaxed) < (writes * each) as u64 {
        tokio::task::yield_now().await;
    }
    let events = writes * each;
    let (wall, used) = (start.elapsed(), cpu() - before);
    let kind = if by_node { "of one node each" } else { "of everything" };
    println!(
        "{count} watchers {kind}: {:.5} ms of CPU an event, write included, {events} events in {wall:.0?}   (upstream 0.039 with HTTP at 1,000; target 0.006)",
        used / events as f64
    );
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::main]
async fn main() {
    let store = MemoryStore::new();
    let fields: &'static [pintle_api::object::SelectableField] = &[("spec.nodeName", &["spec", "nodeName"], "")];
    let decode = Arc::new(move |bytes: &[u8], revision| {
        Object::from_stored(bytes, revision, fields).map_err(|error| error.to_string())
    });
    let cache = Cache::start(Arc::new(store.clone()), PREFIX, decode, Options::default()).await.unwrap();
    let (before, n) = (cpu(), 10_000);
    for i in 0..n {
        put(&store, i, i % 1000).await;
    }
    println!("write into the store in memory and the cache: {:.4} ms of CPU each", (cpu() - before) / n as f64);

    let before = cpu();
    let rounds = 20;
    let mut bytes = 0;
    for _ in 0..rounds {
        let state = cache.fresh().await.unwrap();
        let page = state.page("", None, 0, &|_| true, true);
        for object in &page.items {
            bytes += black_box(object.bytes()).len();
        }
    }
    println!(
        "LIST of {n} pods ({} MB): {:.2} ms of CPU without HTTP   (upstream 330 with; target 15)",
        bytes / rounds / 1_000_000,
        (cpu() - before) / f64::from(u32::try_from(rounds).unwrap())
    );
    let before = cpu();
    let page = cache.fresh().await.unwrap().page("", None, 0, &|object| object.label("app") == Some("a3"), false);
    println!("LIST with a label selector ({} of {n}): {:.2} ms of CPU", page.items.len(), cpu() - before);

    watchers(&store, &cache, 1000, false, 300).await;
    watchers(&store, &cache, 1000, true, 20_000).await;
    watchers(&store, &cache, 1, false, 20_000).await;
}

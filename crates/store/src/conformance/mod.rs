//! What every implementation of [`Store`] must do, as tests to be run against it.
//!
//! ```ignore
//! pintle_store::conformance_tests!(fixture); // async fn fixture() -> Fixture
//! ```
//!
//! Cases use keys of their own and count revisions from where they found the store, so an implementation may run them
//! all against one server, but not two at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod compaction;
mod kv;
pub mod model;
mod rng;
pub mod server;
mod snapshots;
mod watch;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

pub use compaction::*;
pub use kv::*;
pub use rng::Rng;
pub use snapshots::*;
pub use watch::*;

use crate::{Event, KeyValue, Outcome, Revision, Store, Txn, Watch, WatchBatch};

/// A store to test and whatever must live as long as it (a directory, a server).
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Dropped after it.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    /// A store that needs nothing else.
    pub fn new(store: impl Store) -> Self {
        Self::with(store, ())
    }
    /// A store together with what it needs.
    pub fn with(store: impl Store, keep: impl Any + Send + Sync) -> Self {
        Self { store: Arc::new(store), keep: Box::new(keep) }
    }
}

/// Makes one test of each case; the argument is an `async fn() -> Fixture` that returns an empty, unused store.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:path) => {
        $crate::conformance_tests!(@ $fixture:
            starts_empty writes_and_reads compares_decide transactions_are_atomic nothing_changed_no_revision
            bad_transactions_are_refused lists_in_order lists_in_pages counts lists_the_past any_value_is_kept
            concurrent_updates_do_not_get_lost keys_expire has_a_size closes
            compaction_forgets_the_past compaction_refuses_nonsense
            watches_from_now watches_the_past watches_several_prefixes watches_a_transaction_whole
            watch_moves_from_past_to_present slow_watch_loses_nothing watch_tells_progress
            lists_are_reached_by_watches sinks_are_fed sinks_are_fed_the_past a_sink_may_end_itself
            watch_waits_for_the_future
            snapshot_restores_to_memory snapshot_restores_from_memory bad_snapshot_changes_nothing
        );
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn agrees_with_the_model() {
            for seed in 0..$crate::conformance::model::SEEDS {
                let fixture = $fixture().await;
                $crate::conformance::model::check(&fixture, seed).await;
            }
        }
    };
    (@ $fixture:path: $($case:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::$case(&$fixture().await).await;
        }
    )* };
}

/// A prefix no other case uses.
fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("/test-{}-{}/{name}/", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a transaction that must succeed.
async fn ok(store: &dyn Store, txn: Txn) -> Revision {
    match store.txn(txn).await.expect("the transaction runs") {
        Outcome::Succeeded { revision } => revision,
        Outcome::Failed { current, .. } => panic!("the conditions should hold; the store has {current:?}"),
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    ok(store, Txn::default().put(key, value.to_owned())).await
}

fn kv(key: &str, value: &str, mod_revision: Revision) -> KeyValue {
    KeyValue { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), mod_revision }
}

/// Long enough for anything that is going to happen; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn next(watch: &mut Watch) -> WatchBatch {
    let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch delivers in time");
    item.expect("the watch goes on").expect("the watch has no error")
}

/// Reads batches until `revision` is reached; checks their order.
async fn until(watch: &mut Watch, revision: Revision) -> Vec<Arc<Event>> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    let mut reached = 0;
    while reached < revision {
        let batch = next(watch).await;
        assert!(batch.revision >= reached, "the watch went back from {reached} to {}", batch.revision);
        for event in &batch.events {
            assert!(event.revision > reached, "a batch up to {reached} was followed by {event:?}");
            assert!(event.revision <= batch.revision, "{event:?} in a batch up to {}", batch.revision);
            assert!(events.last().is_none_or(|last| last.revision <= event.revision), "events out of order");
            events.push(event.clone());
        }
        reached = batch.revision;
    }
    events
}

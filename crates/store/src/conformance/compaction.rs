//! Forgetting the past.

use futures::StreamExt;

use super::{Fixture, put, unique, until};
use crate::{Error, ListRequest, WatchRequest};

/// What was compacted cannot be read or watched; what is later can.
pub async fn compaction_forgets_the_past(f: &Fixture) {
    let (p, store) = (unique("compact"), &*f.store);
    let first = put(store, &format!("{p}0"), "x").await;
    for i in 1..10 {
        put(store, &format!("{p}{i}"), "x").await;
    }
    let mut running = store.watch(WatchRequest::prefix(&p).from(first)).await.unwrap();
    until(&mut running, first + 9).await;
    let middle = first + 5;
    store.compact(middle).await.unwrap();
    assert_eq!(store.compacted_revision().await.unwrap(), middle);
    assert_eq!(store.current_revision().await.unwrap(), first + 9, "compaction is not a change");

    for revision in first..middle {
        let listed = store.list(ListRequest::prefix(&p).at(revision)).await;
        assert!(matches!(listed, Err(Error::Compacted { .. })), "{revision}: {listed:?}");
        let mut watch = store.watch(WatchRequest::prefix(&p).from(revision)).await.unwrap();
        let item = tokio::time::timeout(super::PATIENCE, watch.next()).await.unwrap();
        assert!(matches!(item, Some(Err(Error::Compacted { .. }))), "{revision}: {item:?}");
        assert!(watch.next().await.is_none(), "the error is the last item");
    }
    for revision in middle..=first + 9 {
        let listed = store.list(ListRequest::prefix(&p).at(revision)).await.unwrap();
        assert_eq!(listed.kvs.len() as u64, revision - first + 1);
        if revision > middle {
            let mut watch = store.watch(WatchRequest::prefix(&p).from(revision)).await.unwrap();
            let events = until(&mut watch, first + 9).await;
            assert_eq!(events.len() as u64, first + 9 - revision + 1);
        }
    }
    // Current state is untouched, and a watch that is up to date goes on.
    assert_eq!(store.list(ListRequest::prefix(&p)).await.unwrap().kvs.len(), 10);
    let last = put(store, &format!("{p}a"), "x").await;
    assert_eq!(until(&mut running, last).await.len(), 1);
}

/// The future and what has been compacted already cannot be compacted.
pub async fn compaction_refuses_nonsense(f: &Fixture) {
    let (p, store) = (unique("compact"), &*f.store);
    let revision = put(store, &format!("{p}a"), "x").await;
    assert!(matches!(store.compact(revision + 1).await, Err(Error::FutureRevision { .. })));
    store.compact(revision).await.unwrap();
    assert!(matches!(store.compact(revision).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(revision - 1).await, Err(Error::Compacted { .. })));
    assert_eq!(store.compacted_revision().await.unwrap(), revision);
}

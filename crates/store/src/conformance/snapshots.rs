//! Snapshots go from every implementation to every other.

use std::time::Duration;

use super::{Fixture, ok, put, unique, until};
use crate::{Error, ListRequest, MemoryStore, Store, Txn, WatchRequest};

async fn fill(store: &dyn Store) {
    let p = unique("snapshot");
    for i in 0..50 {
        put(store, &format!("{p}{i}"), &"value".repeat(i * 10)).await;
    }
    for i in 0..10 {
        put(store, &format!("{p}{i}"), "updated").await;
        ok(store, Txn::default().delete(format!("{p}{}", i + 20))).await;
    }
    ok(store, Txn::default().put_with_ttl(format!("{p}ttl"), "x", Duration::from_secs(5000))).await;
}

/// Takes a snapshot of one store, restores it into another and compares.
async fn copy(from: &dyn Store, to: &dyn Store) {
    fill(from).await;
    let mut file = Vec::new();
    let info = from.snapshot(&mut file).await.unwrap();
    let before = from.list(ListRequest::prefix("/")).await.unwrap();
    assert_eq!(info.revision, before.revision);
    assert_eq!(info.keys, before.kvs.len() as u64);

    let bump = 1000;
    assert_eq!(to.restore(&mut &*file, bump).await.unwrap(), info);
    let after = to.list(ListRequest::prefix("/")).await.unwrap();
    let content =
        |listed: &crate::Listed| -> Vec<_> { listed.kvs.iter().map(|kv| (kv.key.clone(), kv.value.clone())).collect() };
    assert_eq!(content(&before), content(&after));
    if to.local_revision().is_some() {
        assert_eq!(before.kvs, after.kvs, "a local store keeps the modification revisions");
        assert_eq!(after.revision, info.revision + bump);
        assert_eq!(to.local_revision(), Some(info.revision + bump));
        let old = to.list(ListRequest::prefix("/").at(info.revision)).await;
        assert!(matches!(old, Err(Error::Compacted { .. })), "there is no history before the restore");
    }
    // Life goes on.
    let first = &after.kvs[0];
    let mut watch = to.watch(WatchRequest::prefix("/").from(after.revision + 1)).await.unwrap();
    let revision = ok(to, Txn::update(first.key.clone(), first.mod_revision, "new")).await;
    assert_eq!(revision, after.revision + 1);
    let events = until(&mut watch, revision).await;
    assert_eq!(events[0].prev.as_ref(), Some(first));

    let again = to.restore(&mut &*file, 0).await;
    assert!(matches!(again, Err(Error::Invalid(_))), "restored over data: {again:?}");
}

/// From the store under test to one in memory.
pub async fn snapshot_restores_to_memory(f: &Fixture) {
    copy(&*f.store, &MemoryStore::new()).await;
}

/// From one in memory to the store under test.
pub async fn snapshot_restores_from_memory(f: &Fixture) {
    copy(&MemoryStore::new(), &*f.store).await;
}

/// A damaged snapshot is refused and leaves the store empty and usable.
pub async fn bad_snapshot_changes_nothing(f: &Fixture) {
    let from = MemoryStore::new();
    fill(&from).await;
    let mut file = Vec::new();
    from.snapshot(&mut file).await.unwrap();
    let middle = file.len() / 2;
    let mut flipped = file.clone();
    flipped[middle] ^= 1;
    for bad in [&file[..middle], &flipped, b"something else entirely"] {
        let result = f.store.restore(&mut &*bad, 0).await;
        assert!(matches!(result, Err(Error::Corrupt(_) | Error::Format(_))), "{result:?}");
        assert!(f.store.list(ListRequest::prefix("/")).await.unwrap().kvs.is_empty());
        assert_eq!(f.store.current_revision().await.unwrap(), 1);
    }
    f.store.restore(&mut &*file, 0).await.unwrap();
}

//! Reading and writing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::{Fixture, kv, next, ok, put, unique};
use crate::{Change, Error, Expect, ListRequest, Outcome, Txn, WatchRequest};

/// A new store is at revision 1 and has no keys.
pub async fn starts_empty(f: &Fixture) {
    let got = f.store.get("/nothing").await.unwrap();
    assert_eq!(got.kv, None);
    assert_eq!(got.revision, 1);
    assert_eq!(f.store.current_revision().await.unwrap(), 1);
    assert_eq!(f.store.compacted_revision().await.unwrap(), 0);
    let listed = f.store.list(ListRequest::prefix("/")).await.unwrap();
    assert_eq!((listed.kvs.len(), listed.revision, listed.remaining), (0, 1, 0));
    assert!(f.store.local_revision().is_none_or(|revision| revision == 1));
}

/// Every write adds 1 to the revision and is seen by the next read.
pub async fn writes_and_reads(f: &Fixture) {
    let (p, store) = (unique("kv"), &*f.store);
    let key = format!("{p}a");
    let base = store.current_revision().await.unwrap();
    assert_eq!(ok(store, Txn::create(&*key, "1")).await, base + 1);
    assert_eq!(store.get(&key).await.unwrap().kv, Some(kv(&key, "1", base + 1)));
    assert_eq!(ok(store, Txn::update(&*key, base + 1, "2")).await, base + 2);
    let got = store.get(&key).await.unwrap();
    assert_eq!((got.kv, got.revision), (Some(kv(&key, "2", base + 2)), base + 2));
    assert_eq!(put(store, &format!("{p}b"), "x").await, base + 3);
    assert_eq!(
        store.get(&key).await.unwrap().kv,
        Some(kv(&key, "2", base + 2)),
        "another key's write changed this one"
    );
    assert_eq!(ok(store, Txn::remove(&*key, base + 2)).await, base + 4);
    let got = store.get(&key).await.unwrap();
    assert_eq!((got.kv, got.revision), (None, base + 4));
    assert_eq!(ok(store, Txn::create(&*key, "3")).await, base + 5);
    assert_eq!(store.current_revision().await.unwrap(), base + 5);
    assert!(store.local_revision().is_none_or(|revision| revision == base + 5));
}

/// Conditions on existence and revision; the failure shows what is there.
pub async fn compares_decide(f: &Fixture) {
    let (p, store) = (unique("cmp"), &*f.store);
    let (here, gone) = (format!("{p}here"), format!("{p}gone"));
    let at = put(store, &here, "1").await;
    let cases = [
        (&here, Expect::Absent, false),
        (&here, Expect::Exists, true),
        (&here, Expect::ModRevision(at), true),
        (&here, Expect::ModRevision(at - 1), false),
        (&here, Expect::ModRevision(at + 1), false),
        (&gone, Expect::Absent, true),
        (&gone, Expect::Exists, false),
        (&gone, Expect::ModRevision(at), false),
    ];
    for (key, expect, holds) in cases {
        let before = store.current_revision().await.unwrap();
        let target = format!("{p}target");
        let txn = Txn::default().when(&**key, expect).put(&*target, "x").or_get(&**key).or_get(&*gone);
        match store.txn(txn).await.unwrap() {
            Outcome::Succeeded { revision } => {
                assert!(holds, "{key} {expect:?}");
                assert_eq!(revision, before + 1);
            }
            Outcome::Failed { revision, current } => {
                assert!(!holds, "{key} {expect:?}");
                assert_eq!(revision, before);
                let state = (key == &here).then(|| kv(&here, "1", at));
                assert_eq!(current, [state, None]);
                assert_eq!(store.current_revision().await.unwrap(), before);
            }
        }
    }
    // All conditions must hold, not only some.
    let txn = Txn::default().when(&*here, Expect::Exists).when(&*gone, Expect::Exists).delete(&*here);
    assert!(matches!(store.txn(txn).await.unwrap(), Outcome::Failed { current, .. } if current.is_empty()));
    assert!(store.get(&here).await.unwrap().kv.is_some());
}

/// The writes of a transaction have one revision.
pub async fn transactions_are_atomic(f: &Fixture) {
    let (p, store) = (unique("txn"), &*f.store);
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{p}{name}"));
    let first = put(store, &c, "old").await;
    let revision = ok(store, Txn::default().put(&*a, "1").put(&*b, "2").delete(&*c)).await;
    assert_eq!(revision, first + 1);
    let listed = store.list(ListRequest::prefix(&p)).await.unwrap();
    assert_eq!(listed.kvs, [kv(&a, "1", revision), kv(&b, "2", revision)]);
}

/// What changes nothing adds no revision.
pub async fn nothing_changed_no_revision(f: &Fixture) {
    let (p, store) = (unique("noop"), &*f.store);
    let key = format!("{p}a");
    let base = put(store, &key, "1").await;
    assert_eq!(ok(store, Txn::default().delete(format!("{p}absent"))).await, base);
    assert_eq!(ok(store, Txn::default().when(&*key, Expect::Exists)).await, base);
    assert_eq!(store.current_revision().await.unwrap(), base);
    assert_eq!(put(store, &key, "1").await, base + 1, "writing the same value is a write");
    let mixed = Txn::default().delete(format!("{p}absent")).put(&*key, "2");
    assert_eq!(ok(store, mixed).await, base + 2);
}

/// Transactions that make no sense are refused and do nothing.
pub async fn bad_transactions_are_refused(f: &Fixture) {
    let (p, store) = (unique("bad"), &*f.store);
    let key = format!("{p}a");
    let before = store.current_revision().await.unwrap();
    let bad = [
        Txn::default().put(&*key, "1").put(&*key, "2"),
        Txn::default().put(&*key, "1").delete(&*key),
        Txn::default().put("", "1"),
        Txn::default().when("", Expect::Exists),
    ];
    for txn in bad {
        let result = store.txn(txn.clone()).await;
        assert!(matches!(result, Err(Error::Invalid(_))), "{txn:?} gave {result:?}");
    }
    assert_eq!(store.current_revision().await.unwrap(), before);
}

/// Lists are ordered by bytes and contain what has the prefix, no more.
pub async fn lists_in_order(f: &Fixture) {
    let (p, store) = (unique("list"), &*f.store);
    let names = ["a/z", "a/b", "a", "b", "a-b", "a/ä", "a/Z", "ab", "a/b/c"];
    for name in names {
        put(store, &format!("{p}{name}"), name).await;
    }
    let check = async |prefix: &str, expect: &[&str]| {
        let listed = store.list(ListRequest::prefix(format!("{p}{prefix}"))).await.unwrap();
        let keys: Vec<_> = listed.kvs.iter().map(|kv| kv.key[p.len()..].to_owned()).collect();
        assert_eq!(keys, expect, "prefix {prefix:?}");
        assert_eq!(listed.remaining, 0);
        assert_eq!(listed.revision, store.current_revision().await.unwrap());
        assert!(listed.kvs.iter().all(|kv| kv.value == kv.key[p.len()..].as_bytes()));
    };
    check("", &["a", "a-b", "a/Z", "a/b", "a/b/c", "a/z", "a/ä", "ab", "b"]).await;
    check("a/", &["a/Z", "a/b", "a/b/c", "a/z", "a/ä"]).await;
    check("a", &["a", "a-b", "a/Z", "a/b", "a/b/c", "a/z", "a/ä", "ab"]).await;
    check("a/b", &["a/b", "a/b/c"]).await;
    check("c", &[]).await;
}

/// A list can be read in pages that together are the whole, all at one revision.
pub async fn lists_in_pages(f: &Fixture) {
    let (p, store) = (unique("page"), &*f.store);
    let mut last = 0;
    for i in 0..25 {
        last = put(store, &format!("{p}{i:02}"), "x").await;
    }
    put(store, &format!("{}other", p.trim_end_matches('/')), "x").await;
    let mut from = None;
    let mut seen = Vec::new();
    loop {
        let mut request = ListRequest::prefix(&p).at(last).limit(10);
        request.from_key = from.take();
        let listed = store.list(request).await.unwrap();
        assert_eq!(listed.revision, last);
        seen.extend(listed.kvs.iter().map(|kv| kv.key.to_string()));
        assert_eq!(listed.remaining, 25 - seen.len() as u64);
        assert_eq!(listed.more(), seen.len() < 25);
        // Writes between pages do not show.
        put(store, &format!("{p}{:02}x", seen.len()), "late").await;
        ok(store, Txn::default().delete(format!("{p}24"))).await;
        if !listed.more() {
            break;
        }
        from = Some(format!("{}\0", listed.kvs[listed.kvs.len() - 1].key));
    }
    let expect: Vec<_> = (0..25).map(|i| format!("{p}{i:02}")).collect();
    assert_eq!(seen, expect);
    // A start before the prefix is the prefix's start; one beyond it finds nothing.
    let all = store.list(ListRequest::prefix(&p).at(last).from_key("/")).await.unwrap();
    assert_eq!(all.kvs.len(), 25);
    let none = store.list(ListRequest::prefix(&p).from_key("/zzz")).await.unwrap();
    assert_eq!((none.kvs.len(), none.remaining), (0, 0));
}

/// A limit of 0 counts.
pub async fn counts(f: &Fixture) {
    let (p, store) = (unique("count"), &*f.store);
    for i in 0..7 {
        put(store, &format!("{p}{i}"), "x").await;
    }
    let listed = store.list(ListRequest::prefix(&p).limit(0)).await.unwrap();
    assert_eq!((listed.kvs.len(), listed.remaining), (0, 7));
    let listed = store.list(ListRequest::prefix(&p).from_key(format!("{p}5")).limit(0)).await.unwrap();
    assert_eq!(listed.remaining, 2);
}

/// Earlier states can be read; later ones cannot.
pub async fn lists_the_past(f: &Fixture) {
    let (p, store) = (unique("past"), &*f.store);
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{p}{name}"));
    let r1 = put(store, &a, "1").await;
    let r2 = put(store, &b, "1").await;
    let r3 = put(store, &a, "2").await;
    let r4 = ok(store, Txn::default().delete(&*b).put(&*c, "1")).await;
    let r5 = put(store, &b, "2").await;
    let check = async |revision, expect: Vec<crate::KeyValue>| {
        let listed = store.list(ListRequest::prefix(&p).at(revision)).await.unwrap();
        assert_eq!(listed.kvs, expect, "at {revision}");
        assert_eq!(listed.revision, revision);
        for limit in 0..=expect.len() {
            let listed = store.list(ListRequest::prefix(&p).at(revision).limit(limit)).await.unwrap();
            assert_eq!(listed.kvs, expect[..limit], "at {revision} limit {limit}");
            assert_eq!(listed.remaining, (expect.len() - limit) as u64);
        }
    };
    check(r1 - 1, vec![]).await;
    check(r1, vec![kv(&a, "1", r1)]).await;
    check(r2, vec![kv(&a, "1", r1), kv(&b, "1", r2)]).await;
    check(r3, vec![kv(&a, "2", r3), kv(&b, "1", r2)]).await;
    check(r4, vec![kv(&a, "2", r3), kv(&c, "1", r4)]).await;
    check(r5, vec![kv(&a, "2", r3), kv(&b, "2", r5), kv(&c, "1", r4)]).await;
    let future = store.list(ListRequest::prefix(&p).at(r5 + 1)).await;
    assert_eq!(future, Err(Error::FutureRevision { requested: r5 + 1, current: r5 }));
}

/// Empty, binary and large values.
pub async fn any_value_is_kept(f: &Fixture) {
    let (p, store) = (unique("value"), &*f.store);
    let large: Vec<u8> = (0..1_400_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let values = [Bytes::new(), Bytes::from_static(&[0, 255, 0, 128]), Bytes::from(large)];
    for (i, value) in values.iter().enumerate() {
        let key = format!("{p}{i}");
        ok(store, Txn::create(&*key, value.clone())).await;
        assert_eq!(&store.get(&key).await.unwrap().kv.unwrap().value, value);
    }
    let listed = store.list(ListRequest::prefix(&p)).await.unwrap();
    assert!(listed.kvs.iter().map(|kv| &kv.value).eq(&values));
}

/// Many writers that compare and set one key lose no update; each sees its own write.
pub async fn concurrent_updates_do_not_get_lost(f: &Fixture) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 25;
    let key: Arc<str> = format!("{}n", unique("cas")).into();
    let base = put(&*f.store, &key, "0").await;
    let writers = (0..WRITERS).map(|_| {
        let (store, key) = (f.store.clone(), key.clone());
        tokio::spawn(async move {
            for _ in 0..EACH {
                let mut kv = store.get(&key).await.unwrap().kv.unwrap();
                loop {
                    let n: u64 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                    let txn = Txn::update(key.clone(), kv.mod_revision, (n + 1).to_string());
                    match store.txn(txn).await.unwrap() {
                        Outcome::Succeeded { revision } => {
                            let got = store.get(&key).await.unwrap();
                            assert!(got.revision >= revision, "a read does not see the write before it");
                            break;
                        }
                        Outcome::Failed { current, .. } => kv = current[0].clone().unwrap(),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let got = f.store.get(&key).await.unwrap();
    assert_eq!(got.kv, Some(kv(&key, &(WRITERS * EACH).to_string(), base + WRITERS * EACH)));
}

/// A key with a limited life goes away by itself, unless it is written again.
pub async fn keys_expire(f: &Fixture) {
    let (p, store) = (unique("ttl"), &*f.store);
    let [short, saved, long] = ["a", "b", "c"].map(|name| format!("{p}{name}"));
    let ttl = Duration::from_secs(1);
    let mut watch = store.watch(WatchRequest::prefix(&p)).await.unwrap();
    ok(store, Txn::default().put_with_ttl(&*short, "1", ttl)).await;
    ok(store, Txn::default().put_with_ttl(&*saved, "1", ttl)).await;
    put(store, &saved, "2").await;
    ok(store, Txn::default().put_with_ttl(&*long, "1", Duration::from_secs(1000))).await;
    let deleted = loop {
        let batch = next(&mut watch).await;
        if let Some(event) = batch.events.into_iter().find(|event| event.change() == Change::Delete) {
            break event;
        }
    };
    assert_eq!(&*deleted.key, short);
    assert_eq!(deleted.prev.as_ref().map(|prev| &*prev.value), Some(&b"1"[..]));
    assert_eq!(store.get(&short).await.unwrap().kv, None);
    assert_eq!(&*store.get(&saved).await.unwrap().kv.unwrap().value, b"2");
    assert!(store.get(&long).await.unwrap().kv.is_some());
}

/// The size is known and grows.
pub async fn has_a_size(f: &Fixture) {
    let (p, store) = (unique("size"), &*f.store);
    for i in 0..40 {
        put(store, &format!("{p}{i}"), &"x".repeat(50_000)).await;
    }
    // It may be counted some moments later.
    let counted = async {
        loop {
            let size = store.size().await.unwrap();
            assert!(size.total >= size.used, "{size:?}");
            if size.used >= 2_000_000 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, counted).await.unwrap();
}

/// After closing, calls fail and watches end.
pub async fn closes(f: &Fixture) {
    let (p, store) = (unique("close"), &*f.store);
    put(store, &format!("{p}a"), "x").await;
    let mut watch = store.watch(WatchRequest::prefix(&p)).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(Error::Closed))));
    assert!(watch.next().await.is_none());
    assert_eq!(store.get(&p).await, Err(Error::Closed));
    assert_eq!(store.list(ListRequest::prefix(&p)).await, Err(Error::Closed));
    assert_eq!(store.txn(Txn::create(&*p, "x")).await, Err(Error::Closed));
    assert!(matches!(store.watch(WatchRequest::prefix(&p)).await, Err(Error::Closed)));
    store.close().await.unwrap();
}

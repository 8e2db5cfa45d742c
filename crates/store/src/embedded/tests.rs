//! The conformance suite on a real directory, and everything that can happen to a disk.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;

use super::file::Place;
use super::simdisk::SimDisk;
use super::{EmbeddedStore, Options, tables};
use crate::conformance::{Fixture, Rng};
use crate::{Error, ListRequest, Outcome, Result, Revision, Store, Txn, WatchBatch, WatchRequest, WatchSink};

mod conformance {
    use super::*;

    async fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
        Fixture::with(store, dir)
    }
    crate::conformance_tests!(fixture);
}

fn on(disk: &SimDisk, options: Options) -> Result<EmbeddedStore> {
    start(disk, options, true)
}

fn start(disk: &SimDisk, options: Options, durable: bool) -> Result<EmbeddedStore> {
    let disk = disk.clone();
    EmbeddedStore::start(Place::Custom(Box::new(move || Ok(Box::new(disk.clone())))), options, durable)
}

async fn put(store: &EmbeddedStore, key: &str, value: impl Into<bytes::Bytes>) -> Result<Revision> {
    match store.txn(Txn::default().put(key, value)).await? {
        Outcome::Succeeded { revision } => Ok(revision),
        Outcome::Failed { .. } => unreachable!("there was no condition"),
    }
}

/// What one writer, which writes its keys in turn, knows.
#[derive(Clone, Copy, Default)]
struct Written {
    sent: u64,
    acknowledged: u64,
    revision: Revision,
}

const WRITERS: usize = 4;
const KEYS: u64 = 5;
/// A writer stops after so many transactions.
const MOST: u64 = 300;

/// Writers that go on until the store fails, or for long.
async fn write_until_failure(store: &EmbeddedStore, written: &Arc<Mutex<[Written; WRITERS]>>) {
    let writers = (0..WRITERS).map(|writer| {
        let (store, written) = (store.clone(), written.clone());
        tokio::spawn(async move {
            for _ in 0..MOST {
                let n = {
                    let mut written = written.lock();
                    written[writer].sent += 1;
                    written[writer].sent
                };
                // Values of very different sizes; each transaction also writes a key that all writers share.
                let value = format!("{n} {}", "x".repeat(usize::try_from(n * 7919 % 3000).unwrap()));
                let txn = Txn::default()
                    .put(format!("/w/{writer}/{}", n % KEYS), value.clone())
                    .put("/shared", format!("{writer} {n}"))
                    .delete(format!("/gone/{writer}/{}", n - 1))
                    .put(format!("/gone/{writer}/{n}"), "");
                let Ok(Outcome::Succeeded { revision }) = store.txn(txn).await else { return };
                let mut written = written.lock();
                written[writer].acknowledged = n;
                written[writer].revision = revision;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Whether the store holds everything acknowledged, and nothing that is not explained. Says what is missing.
async fn check(store: &EmbeddedStore, written: &[Written; WRITERS]) -> Result<(), String> {
    let listed = store.list(ListRequest::prefix("/")).await.map_err(|error| error.to_string())?;
    for (writer, known) in written.iter().enumerate() {
        if listed.revision < known.revision {
            return Err(format!("revision {} of {} is gone", known.revision, listed.revision));
        }
        let prefix = format!("/gone/{writer}/");
        let reached: Vec<u64> = listed.kvs.iter().filter_map(|kv| kv.key.strip_prefix(&prefix)?.parse().ok()).collect();
        let reached = match reached[..] {
            [] => 0,
            [reached] => reached,
            _ => return Err(format!("writer {writer} half deleted: {reached:?}")),
        };
        if !(known.acknowledged..=known.sent).contains(&reached) {
            return Err(format!("writer {writer} is at {reached}, acknowledged {}", known.acknowledged));
        }
        // All keys of the last transactions are there together.
        for n in reached.saturating_sub(KEYS - 1).max(1)..=reached {
            let key = format!("/w/{writer}/{}", n % KEYS);
            let value = listed.kvs.iter().find(|kv| *kv.key == key).map(|kv| kv.value.clone()).unwrap_or_default();
            if !value.starts_with(format!("{n} ").as_bytes()) {
                return Err(format!("{key} is not from transaction {n}"));
            }
        }
    }
    // History has every revision and leads to the present state.
    let from = store.compacted_revision().await.map_err(|error| error.to_string())?.max(1);
    let mut watch = store.watch(WatchRequest::prefix("/").from(from + 1)).await.map_err(|error| error.to_string())?;
    let mut revision = from;
    while revision < listed.revision {
        let batch = watch.next().await.ok_or("the watch ended")?.map_err(|error| error.to_string())?;
        for event in batch.events {
            if event.revision > revision + 1 || event.revision < revision {
                return Err(format!("history goes from {revision} to {}", event.revision));
            }
            revision = event.revision;
            let now = listed.kvs.iter().find(|kv| kv.key == event.key);
            let differs = now.is_none_or(|kv| kv.mod_revision == revision && event.value.as_ref() != Some(&kv.value));
            if event.value.is_some() && now.is_some() && differs {
                return Err(format!("{} differs from history", event.key));
            }
        }
    }
    Ok(())
}

/// Loses power at random moments, several times on one disk, and looks at what is left.
async fn lose_power(seed: u64, durable: bool) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut disk = SimDisk::default();
    // How the file comes into being without ever being half made is the directory's business.
    on(&disk, Options::default()).and_then(|store| futures::executor::block_on(store.close())).unwrap();
    let written = Arc::new(Mutex::new([Written::default(); WRITERS]));
    for _ in 0..3 {
        let most = *rng.pick(&[30, 300, 3000]);
        disk.power_for(rng.below(most));
        let history = Duration::from_secs(rng.below(2) * 300);
        let options = Options { history, verify: rng.below(2) << 30, ..Options::default() };
        // The power may be gone before the store is open.
        if let Ok(store) = start(&disk, options, durable) {
            write_until_failure(&store, &written).await;
            assert!(
                !disk.has_power() || written.lock().iter().all(|w| w.sent == w.acknowledged),
                "seed {seed}: it failed"
            );
            disk.power_for(0);
            store.close().await.map_err(|error| error.to_string())?;
        }
        disk = disk.after_power_loss(&mut rng);
        let options = Options { verify: rng.below(2) << 30, ..Options::default() };
        let store = on(&disk, options).map_err(|error| format!("cannot be opened: {error}"))?;
        // What a writer sent without an answer may be there or not; from now on that is settled.
        let known = *written.lock();
        check(&store, &known).await?;
        let listed = store.list(ListRequest::prefix("/gone/")).await.map_err(|error| error.to_string())?;
        for (writer, known) in written.lock().iter_mut().enumerate() {
            let prefix = format!("/gone/{writer}/");
            let reached = listed.kvs.iter().find_map(|kv| kv.key.strip_prefix(&prefix)?.parse().ok());
            *known =
                Written { sent: reached.unwrap_or(0), acknowledged: reached.unwrap_or(0), revision: known.revision };
        }
        store.close().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_loses_nothing_acknowledged() {
    let seeds = std::env::var("CRASH_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        if let Err(lost) = lose_power(seed, true).await {
            panic!("seed {seed}: {lost}");
        }
    }
}

/// The test above would notice a store that acknowledges before it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_is_noticed_without_durability() {
    let mut lost = 0;
    for seed in 0..20 {
        lost += u32::from(lose_power(seed, false).await.is_err());
    }
    assert!(lost >= 15, "only {lost} of 20 crashes of a store that is not durable were noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_survived() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::default();
        let store = on(&disk, Options::default()).unwrap();
        let mut watch = store.watch(WatchRequest::prefix("/")).await.unwrap();
        let mut last = 1;
        for i in 0..20 + rng.below(50) {
            last = put(&store, &format!("/a/{i}"), "x".repeat(3000)).await.unwrap();
        }
        disk.fill_up();
        let mut failed = 0;
        for i in 0..500 {
            match put(&store, &format!("/b/{i}"), "x".repeat(30_000)).await {
                Ok(revision) => last = revision,
                Err(Error::NoSpace(text)) => {
                    assert!(text.contains("free some space"), "{text}");
                    failed += 1;
                    if failed > 3 {
                        break;
                    }
                }
                Err(error) => panic!("seed {seed}: {error:?}"),
            }
        }
        assert!(failed > 3, "the disk never got full");
        // What was acknowledged can be read while the disk is full.
        let listed = store.list(ListRequest::prefix("/")).await.unwrap();
        assert_eq!((listed.revision, listed.kvs.len() as u64), (last, last - 1));
        disk.make_room();
        assert_eq!(put(&store, "/c", "x").await, Ok(last + 1));
        let mut seen = 1;
        while seen < last + 1 {
            let batch = watch.next().await.unwrap().unwrap();
            for event in batch.events {
                assert_eq!(event.revision, seen + 1, "a watch missed a change");
                seen = event.revision;
            }
        }
        store.close().await.unwrap();
        let store = on(&disk, Options::default()).unwrap();
        assert_eq!(store.list(ListRequest::prefix("/")).await.unwrap().kvs.len() as u64, last);
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_store() {
    let disk = SimDisk::default();
    let store = on(&disk, Options::default()).unwrap();
    put(&store, "/a", "1").await.unwrap();
    let mut watch = store.watch(WatchRequest::prefix("/")).await.unwrap();
    disk.fail_syncs();
    let failed = put(&store, "/a", "2").await.unwrap_err();
    assert!(matches!(&failed, Error::Io(text) if text.contains("check the disk")), "{failed}");
    assert_eq!(put(&store, "/a", "3").await, Err(failed.clone()));
    assert_eq!(watch.next().await, Some(Err(failed.clone())));
    assert_eq!(store.get("/a").await, Err(failed));
    store.close().await.unwrap();
}

/// Holds up whoever delivers to it.
struct Slow {
    entered: Mutex<std::sync::mpsc::Sender<()>>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl WatchSink for Slow {
    fn deliver(&self, _: &WatchBatch) {
        self.entered.lock().send(()).unwrap();
        self.go_on.lock().recv().unwrap();
    }
    fn ended(&self, _: &Error) {}
}

#[tokio::test]
async fn what_watches_were_not_told_of_is_not_listed() {
    let store = on(&SimDisk::default(), Options::default()).unwrap();
    let first = put(&store, "/a", "1").await.unwrap();
    let (entered, told) = std::sync::mpsc::channel();
    let (go, go_on) = std::sync::mpsc::channel();
    let slow = Arc::new(Slow { entered: Mutex::new(entered), go_on: Mutex::new(go_on) });
    let _handle = store.watch_with(WatchRequest::prefix("/"), slow).await.unwrap();
    let write = tokio::spawn({
        let store = store.clone();
        async move { (put(&store, "/a", "2").await.unwrap(), store) }
    });
    // It is in the file now, and the watch is being told.
    tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
    let listed = store.list(ListRequest::prefix("/")).await.unwrap();
    assert_eq!((listed.revision, &*listed.kvs[0].value), (first, &b"1"[..]));
    go.send(()).unwrap();
    let (second, store) = write.await.unwrap();
    let listed = store.list(ListRequest::prefix("/")).await.unwrap();
    assert_eq!((listed.revision, &*listed.kvs[0].value), (second, &b"2"[..]));
}

/// Many transactions that wait together share a commit.
#[tokio::test]
async fn commits_in_groups() {
    let disk = SimDisk::default();
    let store = on(&disk, Options::default()).unwrap();
    let before = disk.syncs();
    let txns = (0..200).map(|i| store.txn(Txn::default().put(format!("/{i}"), "x")));
    for outcome in futures::future::join_all(txns).await {
        outcome.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!((1..100).contains(&syncs), "{syncs} syncs for 200 transactions");
    assert_eq!(store.current_revision().await.unwrap(), 201);
}

/// Old history goes away by itself, from the file too.
#[tokio::test]
async fn history_is_trimmed_by_age() {
    let disk = SimDisk::default();
    let store = on(&disk, Options { history: Duration::ZERO, ..Options::default() }).unwrap();
    for i in 0..5000 {
        put(&store, &format!("/{}", i % 10), "x".repeat(200)).await.unwrap();
    }
    // Ten keys remain; the history of 5000 writes would be 2 MB.
    while store.compacted_revision().await.unwrap() < 5001 || store.size().await.unwrap().used > 10_000 {
        tokio::task::yield_now().await;
    }
    let listed = store.list(ListRequest::prefix("/").at(5000)).await;
    assert!(matches!(listed, Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn data_survives_closing() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
    let first = put(&store, "/a", "1").await.unwrap();
    let second = put(&store, "/a", "2").await.unwrap();
    store.txn(Txn::default().put_with_ttl("/t", "x", Duration::from_millis(1))).await.unwrap();
    store.close().await.unwrap();
    let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap().kv.unwrap().mod_revision, second);
    let old = store.list(ListRequest::prefix("/a").at(first)).await.unwrap();
    assert_eq!(&*old.kvs[0].value, b"1");
    let mut watch = store.watch(WatchRequest::prefix("/t").from(second + 2)).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().events[0].value.is_none(), "expired after opening again");
}

#[test]
fn a_read_that_the_end_of_the_process_keeps_from_beginning_finds_no_damage() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = runtime.block_on(EmbeddedStore::open(dir.path(), Options::default())).unwrap();
    let ended = runtime.handle().clone();
    runtime.shutdown_background();
    let _inside = ended.enter();
    assert_eq!(futures::executor::block_on(store.list(ListRequest::default())).unwrap_err(), Error::Closed);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
    let second = EmbeddedStore::open(dir.path(), Options::default()).await;
    let pid = std::process::id().to_string();
    let text = second.err().unwrap().to_string();
    assert!(text.contains(&pid) && text.contains(&dir.path().display().to_string()), "{text}");
    store.close().await.unwrap();
    let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
    drop(store);
    // Without closing, the lock goes when the writer notices that nobody is left.
    while let Err(error) = EmbeddedStore::open(dir.path(), Options::default()).await {
        assert!(matches!(error, Error::Locked(_)), "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_half_made_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.new"), b"half").unwrap();
    let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
    put(&store, "/a", "1").await.unwrap();
    assert!(!dir.path().join("store.new").exists());
}

#[tokio::test]
async fn a_file_of_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    EmbeddedStore::open(dir.path(), Options::default()).await.unwrap().close().await.unwrap();
    let db = redb::Database::create(dir.path().join("store.redb")).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(tables::META).unwrap().insert(tables::FORMAT, 99).unwrap();
    tx.commit().unwrap();
    drop(db);
    let error = EmbeddedStore::open(dir.path(), Options::default()).await.err().unwrap();
    assert!(matches!(&error, Error::Format(text) if text.contains("99")), "{error}");
}

/// A damaged file gives an error that says what to do, or the data; never a panic, never a hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
    for i in 0..300 {
        put(&store, &format!("/{i}"), "x".repeat(500)).await.unwrap();
    }
    store.close().await.unwrap();
    let good = std::fs::read(dir.path().join("store.redb")).unwrap();
    let open = async |content: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("store.redb"), content).unwrap();
        let store = EmbeddedStore::open(dir.path(), Options::default()).await?;
        let listed = store.list(ListRequest::prefix("/")).await;
        let _ = put(&store, "/new", "x").await;
        store.close().await?;
        listed.map(drop)
    };
    let helps = |error: &Error| assert!(error.to_string().contains("restore the latest snapshot"), "{error}");
    helps(&open(b"this is not a database, but it is long enough to look at").await.unwrap_err());
    helps(&open(&good[..good.len() / 2]).await.unwrap_err());
    helps(&open(&good[..100]).await.unwrap_err());
    let mut rng = Rng::new(1);
    let mut reported = 0;
    for _ in 0..150 {
        let mut bad = good.clone();
        for _ in 0..=rng.below(200) {
            let at = usize::try_from(rng.below(bad.len() as u64)).unwrap();
            bad[at] ^= 1 << rng.below(8);
        }
        reported += u32::from(open(&bad).await.is_err());
    }
    assert!(reported > 10, "hardly any damage was noticed ({reported})");
}

/// The same on a real, small file system: `mount -t tmpfs -o size=24m tmpfs DIR`, then
/// `SMALL_DISK=DIR cargo test -p pintle-store --lib small_disk -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a small file system to fill"]
async fn a_real_small_disk_fills_up_and_is_cleared() {
    let directory = std::path::PathBuf::from(std::env::var_os("SMALL_DISK").unwrap());
    let ballast = directory.join("ballast");
    std::fs::write(&ballast, vec![1; 6 << 20]).unwrap();
    let store = EmbeddedStore::open(&directory.join("data"), Options::default()).await.unwrap();
    for round in 0..3 {
        let mut failed = 0;
        let mut last = store.current_revision().await.unwrap();
        for i in 0.. {
            match put(&store, &format!("/{round}/{i}"), vec![b'x'; 20_000]).await {
                Ok(revision) => last = revision,
                Err(Error::NoSpace(_)) => failed += 1,
                Err(error) => panic!("{error:?}"),
            }
            if failed > 5 {
                break;
            }
        }
        let listed = store.list(ListRequest::prefix("/")).await.unwrap();
        assert_eq!((listed.revision, listed.kvs.len() as u64), (last, last - 1), "round {round}");
        let length = std::fs::metadata(&ballast).unwrap().len();
        std::fs::write(&ballast, vec![1; usize::try_from(length).unwrap() - (2 << 20)]).unwrap();
        assert_eq!(put(&store, &format!("/{round}/after"), "x").await, Ok(last + 1), "round {round}");
    }
    store.close().await.unwrap();
}

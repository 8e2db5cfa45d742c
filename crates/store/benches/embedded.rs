//! Durable commits of the embedded store, beside what the design measured for its parts.
//!
//! `cargo bench -p pintle-store`; a directory on the disk to be measured may follow after `--`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pintle_store::{EmbeddedOptions, EmbeddedStore, ListRequest, Store, Txn};

const KEYS: u64 = 10_000;
const VALUE: usize = 1024;
const TIME: Duration = Duration::from_secs(3);

/// Processor time of all threads of this process, in seconds.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.filter_map(of).sum::<f64>() / 1e9
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

async fn writes(store: &EmbeddedStore, writers: u64, design: &str) {
    let value = Bytes::from(vec![b'x'; VALUE]);
    let next = Arc::new(AtomicU64::new(0));
    let (start, cpu_before) = (Instant::now(), cpu());
    let tasks = (0..writers).map(|_| {
        let (store, next, value) = (store.clone(), next.clone(), value.clone());
        tokio::spawn(async move {
            while start.elapsed() < TIME {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let key = format!("/registry/things/default/{:06}", i * 7919 % KEYS);
                store.txn(Txn::default().put(key, value.clone())).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let count = next.load(Ordering::Relaxed);
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let each = (cpu() - cpu_before) * 1e6 / count as f64;
    println!("{writers:4} writers: {rate:9.0} durable writes/s, {each:6.1} µs of CPU each   (design: {design})");
}

/// How many small durable writes a second the disk does now, with whatever else it does.
fn syncs(directory: &Path) -> f64 {
    const N: u32 = 200;
    let file = std::fs::File::create(directory.join("syncs")).unwrap();
    file.write_all_at(&vec![0; 4096 * N as usize], 0).unwrap();
    file.sync_all().unwrap();
    let start = Instant::now();
    for i in 0..N {
        file.write_all_at(&[1; 4096], u64::from(i) * 4096).unwrap();
        file.sync_data().unwrap();
    }
    f64::from(N) / start.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let place =
        std::env::args().skip(1).find(|arg| !arg.starts_with('-')).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(place).unwrap();
    let options = EmbeddedOptions { history: Duration::from_secs(2), ..EmbeddedOptions::default() };
    println!("values of {VALUE} bytes over {KEYS} keys, in {}", directory.path().display());
    println!("the disk itself: {:.0} syncs/s of 4 KiB; a commit needs one", syncs(directory.path()));
    let store = EmbeddedStore::open(directory.path(), options.clone()).await.unwrap();
    writes(&store, 1, "3,844/s one at a time").await;
    writes(&store, 16, "32.6k/s in groups of 16").await;
    writes(&store, 128, "119k/s in groups of 128").await;
    writes(&store, 1024, "-").await;

    let (start, cpu_before) = (Instant::now(), cpu());
    let listed = store.list(ListRequest::prefix("/registry/things/")).await.unwrap();
    let (wall, cpu_used) = (start.elapsed(), cpu() - cpu_before);
    println!("list of {}: {wall:.1?}, {:.1} ms of CPU", listed.kvs.len(), cpu_used * 1e3);
    drop(listed);

    let (start, n) = (Instant::now(), 20_000);
    for i in 0..n {
        store.get(&format!("/registry/things/default/{:06}", i * 7919 % KEYS)).await.unwrap();
    }
    println!("get: {:.1?} each", start.elapsed() / u32::try_from(n).unwrap());

    let size = store.size().await.unwrap();
    let revision = store.current_revision().await.unwrap();
    println!(
        "after {revision} updates: {} MiB on disk, {} MiB of it in use, RSS {} MiB   (design: 57 MB and 63 MB after 1M)",
        size.total >> 20,
        size.used >> 20,
        rss_mib()
    );
    // As a crash leaves it: what was written is there, and nothing says where there is room.
    let crashed = directory.path().join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    std::fs::copy(directory.path().join("store.redb"), crashed.join("store.redb")).unwrap();
    let start = Instant::now();
    let options = EmbeddedOptions { verify: 0, ..options.clone() };
    let again = EmbeddedStore::open(&crashed, options.clone()).await.unwrap();
    println!("opening after a crash, without verification: {:.1?}", start.elapsed());
    assert_eq!(again.current_revision().await.unwrap(), revision);
    again.close().await.unwrap();
    store.close().await.unwrap();
    for (verify, what) in [(0, "without"), (u64::MAX, "with")] {
        let start = Instant::now();
        let options = EmbeddedOptions { verify, ..options.clone() };
        let store = EmbeddedStore::open(directory.path(), options).await.unwrap();
        println!("opening {what} verification: {:.1?}", start.elapsed());
        store.close().await.unwrap();
    }
}

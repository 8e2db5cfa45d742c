//! A real process with a real file is killed at random moments; every acknowledged write is found afterwards.
//!
//! The test starts itself again as the victim: a process that writes to the store and reports each acknowledgement.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use futures::StreamExt;
use pintle_store::conformance::Rng;
use pintle_store::{EmbeddedOptions, EmbeddedStore, ListRequest, Outcome, Store, Txn, WatchRequest};

const ROUNDS: u64 = 60;
const WRITERS: u64 = 4;
const KEYS: u64 = 50;
const DIRECTORY: &str = "PINTLE_STORE_VICTIM";

/// Not a test of its own: what the started process does. Writes until killed; `writer number revision` on standard
/// output is an acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other test"]
async fn victim() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = EmbeddedStore::open(Path::new(&directory), EmbeddedOptions::default()).await.unwrap();
    let start: u64 = store.current_revision().await.unwrap();
    // Number transactions so that they grow from one life to the next.
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in start.. {
                let value = format!("{n} {}", "x".repeat(usize::try_from(n * 7919 % 5000).unwrap()));
                let txn = Txn::default()
                    .put(format!("/w/{writer}/{}", n % KEYS), value)
                    .put(format!("/last/{writer}"), n.to_string());
                let Outcome::Succeeded { revision } = store.txn(txn).await.unwrap() else { unreachable!() };
                let line = format!("{writer} {n} {revision}\n");
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// The last acknowledgement of each writer: (number, revision).
type Acknowledged = BTreeMap<u64, (u64, u64)>;

/// Runs the victim, kills it after some acknowledgements (or at once), and reads all it had reported.
fn one_life(directory: &Path, kill_after: u64, acknowledged: &mut Acknowledged) -> u64 {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture", "--quiet"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(victim.stdout.take().unwrap());
    let mut count = 0;
    let mut line = String::new();
    if kill_after == 0 {
        victim.kill().unwrap();
    }
    loop {
        line.clear();
        if output.read_line(&mut line).unwrap() == 0 {
            break;
        }
        // The test harness's own lines are not acknowledgements; a line cut off by the kill is not one either.
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let ([writer, n, revision], true) = (&numbers[..], line.ends_with('\n')) {
            acknowledged.insert(*writer, (*n, *revision));
            count += 1;
            if count == kill_after {
                victim.kill().unwrap();
            }
        }
    }
    let status = victim.wait().unwrap();
    assert!(!status.success(), "the victim ended by itself");
    count
}

async fn check(directory: &Path, acknowledged: &Acknowledged, round: u64) {
    let store = EmbeddedStore::open(directory, EmbeddedOptions::default()).await.unwrap();
    let listed = store.list(ListRequest::prefix("/")).await.unwrap();
    for (writer, (n, revision)) in acknowledged {
        assert!(listed.revision >= *revision, "round {round}: revision {revision} is gone");
        let last = store.get(&format!("/last/{writer}")).await.unwrap().kv.unwrap();
        let last_n: u64 = std::str::from_utf8(&last.value).unwrap().parse().unwrap();
        assert!(last_n >= *n, "round {round}: writer {writer} acknowledged {n}, found {last_n}");
        // The other key of the last transaction is of the same transaction.
        let kv = store.get(&format!("/w/{writer}/{}", last_n % KEYS)).await.unwrap().kv.unwrap();
        assert!(kv.value.starts_with(format!("{last_n} ").as_bytes()), "round {round}: half a transaction");
        assert_eq!(kv.mod_revision, last.mod_revision);
    }
    // History is dense.
    let from = store.compacted_revision().await.unwrap().max(1);
    let mut watch = store.watch(WatchRequest::prefix("/").from(from + 1)).await.unwrap();
    let mut revision = from;
    while revision < listed.revision {
        for event in watch.next().await.unwrap().unwrap().events {
            assert!(event.revision == revision || event.revision == revision + 1, "round {round}: a hole in history");
            revision = event.revision;
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn killed_at_any_moment_it_loses_no_acknowledged_write() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut acknowledged = Acknowledged::new();
    let mut count = 0;
    for round in 0..ROUNDS {
        let kill_after = match rng.below(10) {
            0 => 0,
            1..=3 => 1 + rng.below(5),
            _ => 1 + rng.below(300),
        };
        count += one_life(directory.path(), kill_after, &mut acknowledged);
        check(directory.path(), &acknowledged, round).await;
    }
    assert!(count > ROUNDS * 10, "only {count} writes took place");
}

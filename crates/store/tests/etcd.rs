//! The conformance suite against a real etcd, which Debian has as `etcd-server`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::time::Duration;

use pintle_store::conformance::Fixture;
use pintle_store::conformance::server::{EtcdServer, plain, wait_until};
use pintle_store::{
    EmbeddedOptions, EmbeddedStore, Error, EtcdOptions, EtcdStore, ListRequest, Outcome, Store, Txn, WatchRequest,
};

async fn fixture() -> Fixture {
    // Two at a time, or they get in each other's way.
    static SLOTS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);
    let slot = SLOTS.acquire().await.unwrap();
    let (store, server) = EtcdServer::start(&[], plain).await;
    Fixture::with(store, (server, slot))
}

pintle_store::conformance_tests!(fixture);

async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    match store.txn(Txn::default().put(key, value.to_owned())).await.unwrap() {
        Outcome::Succeeded { revision } => revision,
        Outcome::Failed { .. } => unreachable!("there was no condition"),
    }
}

/// Two clusters in one etcd do not see each other.
#[tokio::test]
async fn prefixes_are_apart() {
    let (plain_store, server) = EtcdServer::start(&[], plain).await;
    let with = |prefix: &str| EtcdOptions { prefix: prefix.into(), ..plain(server.port) };
    let one = EtcdStore::connect(&with("/one")).await.unwrap();
    let two = EtcdStore::connect(&with("/two")).await.unwrap();
    let mut watch = one.watch(WatchRequest::prefix("/registry/")).await.unwrap();
    put(&two, "/registry/a", "2").await;
    let revision = put(&one, "/registry/a", "1").await;
    let batch = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert_eq!((&*batch.events[0].key, batch.events[0].revision), ("/registry/a", revision));
    for (store, value) in [(&one, "1"), (&two, "2")] {
        let listed = store.list(ListRequest::prefix("/")).await.unwrap();
        assert_eq!(listed.kvs.len(), 1);
        assert_eq!((&*listed.kvs[0].key, &*listed.kvs[0].value), ("/registry/a", value.as_bytes()));
    }
    let all = plain_store.list(ListRequest::prefix("/")).await.unwrap();
    assert_eq!(all.kvs.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), ["/one/registry/a", "/two/registry/a"]);
}

/// From the embedded store to etcd and back.
#[tokio::test]
async fn moves_to_etcd_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let open =
        async |name: &str| EmbeddedStore::open(&directory.path().join(name), EmbeddedOptions::default()).await.unwrap();
    let embedded = open("a").await;
    // More than one page, more than one transaction.
    for i in 0..1500 {
        put(&embedded, &format!("/registry/x/{i:05}"), &i.to_string()).await;
    }
    let long = Txn::default().put_with_ttl("/registry/events/e", "x", Duration::from_secs(1000));
    embedded.txn(long).await.unwrap();
    let (etcd, _server) = EtcdServer::start(&[], plain).await;
    let back = open("b").await;
    for (from, to) in [(&embedded as &dyn Store, &etcd as &dyn Store), (&etcd, &back)] {
        let mut file = Vec::new();
        from.snapshot(&mut file).await.unwrap();
        to.restore(&mut &*file, 0).await.unwrap();
    }
    let content = async |store: &dyn Store| -> Vec<_> {
        let listed = store.list(ListRequest::prefix("/")).await.unwrap();
        listed.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
    };
    let before = content(&embedded).await;
    assert_eq!(before.len(), 1501);
    assert_eq!(before, content(&etcd).await);
    assert_eq!(before, content(&back).await);
}

/// History goes after its time, even if several API servers see to it.
#[tokio::test]
async fn is_compacted_by_one_of_several() {
    let short = |port| EtcdOptions { compaction_interval: Some(Duration::from_millis(100)), ..plain(port) };
    let (store, server) = EtcdServer::start(&[], short).await;
    let other = EtcdStore::connect(&short(server.port)).await.unwrap();
    let first = put(&store, "/a", "1").await;
    wait_until("etcd is compacted", async || store.compacted_revision().await.unwrap() >= first + 5).await;
    let old = other.list(ListRequest::prefix("/").at(first)).await;
    assert!(matches!(old, Err(Error::Compacted { .. })), "{old:?}");
    // What they agree by is in no snapshot and in nobody's way.
    store.close().await.unwrap();
    let mut file = Vec::new();
    assert_eq!(other.snapshot(&mut file).await.unwrap().keys, 1);
    other.txn(Txn::default().delete("/a")).await.unwrap();
    other.restore(&mut &*file, 0).await.unwrap();
}

/// When etcd goes away calls fail and watches end; when it is back all goes on.
#[tokio::test]
async fn survives_a_restart_of_etcd() {
    let (store, mut server) = EtcdServer::start(&[], plain).await;
    let revision = put(&store, "/a", "1").await;
    let mut watch = store.watch(WatchRequest::prefix("/")).await.unwrap();
    server.kill();
    let ended = futures::StreamExt::next(&mut watch).await.unwrap();
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?}");
    assert!(matches!(store.txn(Txn::create("/b", "1")).await, Err(Error::Unavailable(_))));
    server.run_again();
    wait_until("etcd comes back", async || store.current_revision().await.is_ok()).await;
    let mut watch = store.watch(WatchRequest::prefix("/").from(revision)).await.unwrap();
    let batch = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert_eq!(batch.events[0].revision, revision);
}

#[tokio::test]
async fn speaks_tls_with_certificates() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let files = tempfile::tempdir().unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let issue = |names: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (server_cert, server_key) = issue(&["127.0.0.1", "localhost"]);
    let (client_cert, client_key) = issue(&["client"]);
    let file = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let tls = [
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", file("ca.crt", &ca_pem)),
        format!("--cert-file={}", file("server.crt", &server_cert)),
        format!("--key-file={}", file("server.key", &server_key)),
    ];
    let options = |port: u16| EtcdOptions {
        ca: Some(ca_pem.clone().into_bytes()),
        client: Some((client_cert.clone().into_bytes(), client_key.clone().into_bytes())),
        ..EtcdOptions::new([format!("https://127.0.0.1:{port}")])
    };
    let (store, server) = EtcdServer::start(&tls, options).await;
    put(&store, "/a", "1").await;
    let stranger = EtcdOptions { client: None, ..options(server.port) };
    let refused = EtcdStore::connect(&stranger).await.err();
    assert!(matches!(refused, Some(Error::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn says_what_is_wrong_with_endpoints() {
    let none = EtcdStore::connect(&EtcdOptions::new(Vec::<String>::new())).await.err();
    assert!(matches!(none, Some(Error::Invalid(_))), "{none:?}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = EtcdStore::connect(&plain(nobody)).await.err();
    assert!(matches!(refused, Some(Error::Unavailable(_))), "{refused:?}");
}

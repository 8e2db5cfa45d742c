//! Watches that begin in the middle of changes miss nothing: many writers, watchers that list and then watch from what
//! the list said, over TLS and HTTP/2 as clients do, with the store that is used by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::Cluster;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pintle_store::{EmbeddedOptions, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::sync::watch;

const OBJECTS: usize = 8;
const WRITES: usize = 60;
const WATCHERS: usize = 48;

/// A TLS connection of its own, with the administrator's certificate.
async fn tls(c: &Cluster, protocol: &[u8]) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(c.ca.pem.as_bytes()).unwrap()).unwrap();
    let (cert, key) = c.ca.client("admin", &["system:masters"]);
    let cert = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(cert, key)
        .unwrap();
    tls.alpn_protocols = vec![protocol.to_vec()];
    let stream = tokio::net::TcpStream::connect(c.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
}

async fn connect(c: &Cluster) -> SendRequest<Full<Bytes>> {
    let stream = tls(c, b"h2").await;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

async fn send(to: &mut SendRequest<Full<Bytes>>, method: Method, path: &str, body: &Value) -> (u16, Incoming) {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let uri = format!("https://localhost{path}");
    let r = Request::builder().method(method).uri(uri).header("content-type", kind).body(Full::new(body)).unwrap();
    let answer = to.send_request(r).await.unwrap();
    (answer.status().as_u16(), answer.into_body())
}

async fn call(to: &mut SendRequest<Full<Bytes>>, method: Method, path: &str, body: &Value) -> Value {
    let (code, body) = send(to, method, path, body).await;
    let bytes = body.collect().await.unwrap().to_bytes();
    assert!(code < 300, "{path}: {code} {}", String::from_utf8_lossy(&bytes));
    serde_json::from_slice(&bytes).unwrap()
}

/// Events of a watch's body, one by one.
struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.body.frame().await {
                Some(frame) => self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                None => return None,
            }
        }
    }
}

const BASE: &str = "/api/v1/namespaces/default/configmaps";

fn number(object: &Value) -> usize {
    object["data"]["n"].as_str().map_or(0, |n| n.parse().unwrap())
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// One watcher from its list to the object's last state. With a label selector every event is still checked against
/// what the object went through.
async fn watcher(c: Arc<Cluster>, seed: u64, mut done: watch::Receiver<usize>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut to = connect(&c).await;
    let object = rng.random_range(0..OBJECTS);
    let name = format!("c{object}");
    let labelled = rng.random_bool(0.3);
    let wide = !labelled && rng.random_bool(0.3);
    // Somewhere in the middle.
    let begin = rng.random_range(0..OBJECTS * WRITES * 3 / 4);
    done.wait_for(|n| *n >= begin).await.unwrap();
    let mut selector = if wide { String::new() } else { format!("&fieldSelector=metadata.name%3D{name}") };
    if labelled {
        selector.push_str("&labelSelector=odd%3Dyes");
    }
    let any = if rng.random_bool(0.5) { "&resourceVersion=0" } else { "" };
    let list = call(&mut to, Method::GET, &format!("{BASE}?limit=500{any}{selector}"), &Value::Null).await;
    let find =
        |v: &Value| v["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == name.as_str()).cloned();
    let mut from = version(&list);
    let mut now = find(&list);
    if let Some(o) = &now {
        assert!(version(o) <= from, "a list is not older than its objects");
    }
    if rng.random_bool(0.5) {
        // Some writes later.
        let then = (*done.borrow() + rng.random_range(0..20)).min(OBJECTS * WRITES);
        done.wait_for(|n| *n >= then).await.unwrap();
    }
    loop {
        let bookmarks = if rng.random_bool(0.5) { "&allowWatchBookmarks=true" } else { "" };
        let (code, body) = send(
            &mut to,
            Method::GET,
            &format!("{BASE}?watch=true&resourceVersion={from}{bookmarks}{selector}"),
            &Value::Null,
        )
        .await;
        assert_eq!(code, 200);
        let mut events = Events { body, buffer: BytesMut::new() };
        // Some come back in between.
        let mut left = if rng.random_bool(0.5) { rng.random_range(1..10) } else { usize::MAX };
        loop {
            let n = now.as_ref().map_or(0, number);
            if n == WRITES || (labelled && WRITES.is_multiple_of(2) && n >= WRITES - 1 && now.is_none()) {
                return;
            }
            if left == 0 {
                break;
            }
            left = left.saturating_sub(1);
            let wait = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
            let Ok(event) = wait else {
                let is = call(&mut to, Method::GET, &format!("{BASE}/{name}"), &Value::Null).await;
                panic!("watcher {seed} of {selector} from {from} waits in vain at {now:?}; it is {is}");
            };
            let Some(event) = event else { break };
            let o = event["object"].clone();
            let kind = event["type"].as_str().unwrap();
            assert!(version(&o) > from || kind == "BOOKMARK", "{event} after {from}");
            from = version(&o);
            if kind == "BOOKMARK" || o["metadata"]["name"] != name.as_str() {
                continue;
            }
            if labelled {
                // Odd numbers carry the label: each is ADDED, and the next write takes it away.
                let n = number(&o);
                assert_eq!(n % 2, 1, "{event}");
                match kind {
                    "ADDED" => {
                        assert!(now.is_none());
                        now = Some(o);
                    }
                    "DELETED" => {
                        assert_eq!(now.as_ref().map(number), Some(n));
                        now = None;
                        if n == WRITES - 1 {
                            return;
                        }
                    }
                    other => panic!("{other}"),
                }
            } else {
                if let Some(old) = &now {
                    assert_eq!(number(old) + 1, number(&o), "an event is missing");
                }
                now = Some(o);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_watcher_misses_the_last_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("db"), EmbeddedOptions::default()).await.unwrap());
    let c = Arc::new(Cluster::start_with(|config| config.store = store).await);
    let mut to = connect(&c).await;
    for i in 0..OBJECTS {
        let body = json!({"metadata": {"name": format!("c{i}")}, "data": {"n": "0"}});
        call(&mut to, Method::POST, BASE, &body).await;
    }
    let done = watch::Sender::new(0);
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..WATCHERS {
        tasks.spawn(watcher(Arc::clone(&c), seed.wrapping_add(i as u64), done.subscribe()));
    }
    for i in 0..OBJECTS {
        let (c, done) = (Arc::clone(&c), done.clone());
        tasks.spawn(async move {
            let mut to = connect(&c).await;
            for n in 1..=WRITES {
                let odd = if n % 2 == 1 { json!("yes") } else { Value::Null };
                let labels: BTreeMap<&str, Value> = BTreeMap::from([("odd", odd)]);
                let patch = json!({"metadata": {"labels": labels}, "data": {"n": n.to_string()}});
                call(&mut to, Method::PATCH, &format!("{BASE}/c{i}"), &patch).await;
                done.send_modify(|n| *n += 1);
                // Other resources move the revision too.
                if n % 4 == 0 {
                    let event = json!({"metadata": {"generateName": "e-"}, "data": {}});
                    call(&mut to, Method::POST, "/api/v1/namespaces/default/secrets", &event).await;
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

/// A watch as a WebSocket: frames as messages, text for JSON and binary for protobuf.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_websocket() {
    use futures::StreamExt;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::{Error, Message};

    let c = Cluster::start().await;
    let mut to = connect(&c).await;
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    call(&mut to, Method::POST, BASE, &object).await;
    for (accept, query) in [
        ("application/json", ""),
        ("application/vnd.kubernetes.protobuf", ""),
        ("application/json;as=Table;v=v1;g=meta.k8s.io", ""),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "&fieldSelector=metadata.name%3Da"),
    ] {
        let stream = tls(&c, b"http/1.1").await;
        let uri = format!("wss://localhost{BASE}?watch=true&fieldSelector=metadata.name%3Da{query}");
        let mut request = uri.into_client_request().unwrap();
        request.headers_mut().insert("accept", accept.parse().unwrap());
        let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(answer.status(), 101);
        let message = tokio::time::timeout(Duration::from_secs(30), socket.next()).await.unwrap().unwrap().unwrap();
        match message {
            Message::Text(text) => {
                assert!(accept.contains("json"));
                let event: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(event["type"], "ADDED");
                let kind = event["object"]["kind"].as_str().unwrap();
                let want = accept.split("as=").nth(1).and_then(|t| t.split(';').next()).unwrap_or("ConfigMap");
                assert_eq!(kind, want);
            }
            Message::Binary(bytes) => {
                assert!(accept.contains("protobuf"));
                // `WatchEvent.type`, field 1, without a length before it.
                assert!(bytes.starts_with(b"\x0a\x05ADDED"), "{bytes:?}");
            }
            other => panic!("{other:?}"),
        }
        socket.close(None).await.unwrap();
    }
    // Without a key it is no WebSocket.
    let stream = tls(&c, b"http/1.1").await;
    let mut request = format!("wss://localhost{BASE}?watch=true").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-version", "12".parse().unwrap());
    match tokio_tungstenite::client_async(request, stream).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 400),
        other => panic!("{other:?}"),
    }
}

/// Many who watch get the same frames as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_the_same_for_all() {
    let c = Cluster::start().await;
    let mut to = connect(&c).await;
    let mut all = Vec::new();
    for _ in 0..20 {
        let (code, body) =
            send(&mut to, Method::GET, &format!("{BASE}?watch=true&resourceVersion=1"), &Value::Null).await;
        assert_eq!(code, 200);
        all.push(Events { body, buffer: BytesMut::new() });
    }
    call(&mut to, Method::POST, BASE, &json!({"metadata": {"name": "a"}})).await;
    let mut seen = Vec::new();
    for events in &mut all {
        loop {
            let event = events.next().await.unwrap();
            if event["object"]["metadata"]["name"] == "a" {
                seen.push(event);
                break;
            }
        }
    }
    assert!(seen.windows(2).all(|w| w[0] == w[1]));
}

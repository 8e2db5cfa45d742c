//! Requests made by chance, through the whole handler: every one gets an answer that is none of a broken server; and
//! lists and watches agree with a simple model. `PINTLE_FUZZ_SECONDS` goes on with more seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../schema/tests/random/mod.rs"]
mod random;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pintle_api::service::{ApiService, Body, InProcessUser, UserInfo, full};
use pintle_apiserver::{ApiServer, Config};
use pintle_store::MemoryStore;
use random::Random;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Text that may mean something to a parser of selectors.
fn text(random: &mut Random) -> String {
    (0..random.below(8))
        .map(|_| {
            *random.of(&['a', 'b', '=', '!', ',', '(', ')', ' ', '.', '/', '\\', 'é', '\u{0}', '-', '1', '>', 'i', 'n'])
        })
        .collect()
}

fn more(seed: u64, n: u64, start: Instant) -> bool {
    let seconds = std::env::var("PINTLE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    seed < n || start.elapsed() < Duration::from_secs(seconds)
}

async fn service() -> ApiService {
    let api = ApiServer::new(Config::new(Arc::new(MemoryStore::new()))).unwrap();
    api.start().await.unwrap();
    api.service()
}

async fn send(api: &ApiService, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Response<Body> {
    let mut r = Request::builder().method(method).uri(path).header("content-type", kind).body(full(body)).unwrap();
    r.extensions_mut().insert(InProcessUser(Arc::new(UserInfo::authenticated("a", &["system:masters"]))));
    api.clone().oneshot(r).await.unwrap()
}

async fn ask(api: &ApiService, method: &str, path: &str, kind: &str, body: Vec<u8>) -> (u16, Value) {
    let answer = send(api, method, path, kind, body).await;
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn queries() {
    let api = service().await;
    for i in 0..5 {
        let body = json!({"metadata": {"name": format!("c{i}"), "labels": {"a": i.to_string()}}}).to_string();
        assert_eq!(ask(&api, "POST", MAPS, "application/json", body.into()).await.0, 201);
    }
    let good = ask(&api, "GET", &format!("{MAPS}?limit=2"), "", vec![]).await.1;
    let token = good["metadata"]["continue"].as_str().unwrap().to_owned();
    let start = Instant::now();
    let mut seed = 0;
    while more(seed, 500, start) {
        let r = &mut Random(seed);
        let name = *r.of(&[
            "labelSelector",
            "fieldSelector",
            "continue",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "timeoutSeconds",
            "includeObject",
            "dryRun",
            "fieldManager",
            "fieldValidation",
        ]);
        let value = match r.below(4) {
            0 => text(r),
            1 => (*r.of(&[
                "-1",
                "0",
                "1",
                "99999999999999999999",
                "Exact",
                "NotOlderThan",
                "a=b,c!=d",
                "x in (a, b)",
                "!x",
                "metadata.name=c1",
                "spec.x=1",
                "All",
                "Strict",
            ]))
            .to_owned(),
            _ => {
                // A token that was forged.
                let mut t: Vec<char> = token.chars().collect();
                for _ in 0..=r.below(3) {
                    let at = r.below(t.len());
                    t[at] = *r.of(&['A', 'z', '0', '_', '-', '=', '.']);
                }
                t.truncate(r.below(t.len() + 1));
                t.into_iter().collect()
            }
        };
        let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
        let path = format!("{MAPS}?{name}={value}&limit={}", r.below(3));
        let method: &&str = r.of(&["GET", "GET", "DELETE"]);
        let (code, said) = ask(&api, method, &format!("{path}&dryRun=All"), "", vec![]).await;
        assert!(code < 500 && (code == 200 || said["kind"] == "Status"), "{path}: {code} {said}");
        seed += 1;
    }
}

#[tokio::test]
async fn bodies() {
    let api = service().await;
    let body = json!({"metadata": {"name": "c"}, "data": {"a": "b"}}).to_string();
    assert_eq!(ask(&api, "POST", MAPS, "application/json", body.into()).await.0, 201);
    let whole = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a": "b"}, "finalizers": []}, "data": {"a": "c"}}).to_string();
    let start = Instant::now();
    let mut seed = 0;
    while more(seed, 500, start) {
        let r = &mut Random(seed);
        let mut bytes = match r.below(3) {
            0 => whole.clone().into_bytes(),
            1 => br#"[{"op":"add","path":"/data/b","value":"c"},{"op":"test","path":"/data/a","value":"b"}]"#.to_vec(),
            _ => [
                b"k8s\0".as_slice(),
                &[0x0a, 15, 0x0a, 2],
                b"v1",
                &[0x12, 9],
                b"ConfigMap",
                &[0x12, 5, 0x0a, 3, 0x0a, 1, b'c'],
            ]
            .concat(),
        };
        for _ in 0..r.below(4) {
            let at = r.below(bytes.len());
            match r.below(3) {
                0 => bytes[at] = r.next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, *r.of(b"{}[]\",:\\\0\xff0-")),
            }
        }
        let (method, path) = *r.of(&[
            ("POST", MAPS),
            ("PUT", "/api/v1/namespaces/default/configmaps/c"),
            ("PATCH", "/api/v1/namespaces/default/configmaps/c"),
            ("DELETE", "/api/v1/namespaces/default/configmaps/none"),
        ]);
        let kind = *r.of(&[
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
            "application/merge-patch+json",
            "application/json-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
            "text/plain",
            "\u{7f}",
        ]);
        let kind = if kind == "\u{7f}" { "a/b/c;=" } else { kind };
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let (code, said) =
            ask(&api, method, &format!("{path}?dryRun=All&fieldManager=m&force=true"), kind, bytes).await;
        // Upstream takes what its schema does not know in an applied configuration for a fault of the server, too.
        let typed = said["message"].as_str().is_some_and(|m| m.contains("failed to create typed patch object"));
        let answered = (code < 500 || typed) && (code < 300 || said["kind"] == "Status");
        assert!(answered, "{method} {path} {kind} {shown}: {code} {said}");
        seed += 1;
    }
}

/// Applies what a watch tells to what a list told, and compares it with what was written.
#[tokio::test]
async fn lists_and_watches_agree_with_a_model() {
    let start = Instant::now();
    let mut seed = 0;
    while more(seed, 6, start) {
        let r = &mut Random(seed);
        let api = service().await;
        // Name to (label, data).
        let mut model: BTreeMap<String, (String, String)> = BTreeMap::new();
        let selected = |m: &BTreeMap<String, (String, String)>| -> BTreeMap<String, String> {
            m.iter().filter(|(_, (l, _))| l == "1").map(|(n, (_, d))| (n.clone(), d.clone())).collect()
        };
        let mut view: BTreeMap<String, String> = BTreeMap::new();
        let mut since =
            ask(&api, "GET", &format!("{MAPS}?labelSelector=l%3D1"), "", vec![]).await.1["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .to_owned();
        for _ in 0..6 {
            for _ in 0..r.below(12) {
                let name = format!("m{}", r.below(5));
                let (label, data) = (r.below(2).to_string(), r.below(100).to_string());
                let body = json!({"metadata": {"name": name, "labels": {"l": label}}, "data": {"d": data}}).to_string();
                let one = format!("{MAPS}/{name}");
                let known = model.contains_key(&name);
                match r.below(4) {
                    0 => {
                        let code = ask(&api, "DELETE", &one, "", vec![]).await.0;
                        assert_eq!(code, if known { 200 } else { 404 });
                        model.remove(&name);
                    }
                    1 => {
                        let code = ask(&api, "PUT", &one, "application/json", body.into()).await.0;
                        assert_eq!(code, if known { 200 } else { 404 });
                        if known {
                            model.insert(name, (label, data));
                        }
                    }
                    _ => {
                        let code = ask(&api, "POST", MAPS, "application/json", body.into()).await.0;
                        assert_eq!(code, if known { 409 } else { 201 });
                        model.entry(name).or_insert((label, data));
                    }
                }
            }
            // Pages make up the whole, in order, at one moment.
            let (mut pages, mut token, limit) = (Vec::new(), String::new(), 1 + r.below(3));
            let mut version = Value::Null;
            loop {
                let token_text = utf8_percent_encode(&token, NON_ALPHANUMERIC).to_string();
                let page = ask(
                    &api,
                    "GET",
                    &format!("{MAPS}?limit={limit}&labelSelector=l%3D1&continue={token_text}"),
                    "",
                    vec![],
                )
                .await
                .1;
                for item in page["items"].as_array().unwrap() {
                    pages.push((
                        item["metadata"]["name"].as_str().unwrap().to_owned(),
                        item["data"]["d"].as_str().unwrap().to_owned(),
                    ));
                }
                if version.is_null() {
                    version = page["metadata"]["resourceVersion"].clone();
                }
                assert_eq!(page["metadata"]["resourceVersion"], version);
                token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(pages, selected(&model).into_iter().collect::<Vec<_>>(), "seed {seed}");
            // A watch from the last moment leads to the same.
            let target = version.as_str().unwrap().parse::<u64>().unwrap();
            let watch = format!(
                "{MAPS}?watch=true&labelSelector=l%3D1&resourceVersion={since}&timeoutSeconds=1&allowWatchBookmarks=true"
            );
            let mut body = send(&api, "GET", &watch, "", vec![]).await.into_body();
            let mut buffer = Vec::new();
            let mut last = 0;
            while view != selected(&model) {
                let Some(frame) = body.frame().await else { break };
                if let Ok(data) = frame.unwrap().into_data() {
                    buffer.extend_from_slice(&data);
                }
                while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let event: Value = serde_json::from_slice(&line).unwrap();
                    let object = &event["object"];
                    let revision: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                    assert!(
                        revision >= last && revision <= target,
                        "seed {seed}: {event} after {last}, before {target}"
                    );
                    last = revision;
                    let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else { continue };
                    let data = object["data"]["d"].as_str().unwrap_or_default().to_owned();
                    match event["type"].as_str().unwrap() {
                        "ADDED" => assert!(view.insert(name, data).is_none(), "seed {seed}: {event}"),
                        "MODIFIED" => assert!(view.insert(name, data).is_some(), "seed {seed}: {event}"),
                        "DELETED" => assert!(view.remove(&name).is_some(), "seed {seed}: {event}"),
                        other => assert_eq!(other, "BOOKMARK"),
                    }
                }
            }
            assert_eq!(view, selected(&model), "seed {seed}");
            since = target.to_string();
        }
        seed += 1;
    }
}

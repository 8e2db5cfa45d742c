//! LIST and WATCH to the letter: every combination of the options.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Answer, InProcess};
use http_body_util::BodyExt;
use pintle_apiserver::{ApiServer, Config};
use pintle_store::{MemoryStore, Store};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(answer: &Answer) -> String {
    let all = answer.body["items"].as_array().unwrap();
    all.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// A server with the ConfigMaps a to f, and the revisions at which they were made.
async fn six() -> (InProcess, MemoryStore, Vec<u64>) {
    let store = MemoryStore::new();
    let own = store.clone();
    let c = InProcess::start_with(|config| config.store = Arc::new(own)).await;
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        made.push(version(&c.create(MAPS, &json!({"metadata": {"name": name}})).await));
    }
    (c, store, made)
}

#[tokio::test]
async fn versions_and_limits_of_lists() {
    let (c, _, made) = six().await;
    let now = made[5];
    let then = made[2];
    let future = now + 1000;
    // Query; code; names; whether more follow, and how many; the list's revision.
    for (query, code, want, remaining, revision) in [
        (String::new(), 200, "abcdef", None, now),
        ("limit=2".into(), 200, "ab", Some(4), now),
        ("limit=6".into(), 200, "abcdef", None, now),
        // Any state.
        ("resourceVersion=0".into(), 200, "abcdef", None, now),
        ("resourceVersion=0&limit=2".into(), 200, "abcdef", None, now),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan".into(), 200, "abcdef", None, now),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=2".into(), 200, "abcdef", None, now),
        // A state not older.
        (format!("resourceVersion={then}"), 200, "abcdef", None, now),
        (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan"), 200, "abcdef", None, now),
        (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan&limit=2"), 200, "ab", Some(4), now),
        // Exactly that state.
        (format!("resourceVersion={then}&limit=2"), 200, "ab", Some(1), then),
        (format!("resourceVersion={then}&resourceVersionMatch=Exact"), 200, "abc", None, then),
        (format!("resourceVersion={then}&resourceVersionMatch=Exact&limit=1"), 200, "a", Some(2), then),
        // Selectors: what remains is not counted.
        ("limit=2&labelSelector=x!%3Dy".into(), 200, "ab", None, now),
        ("fieldSelector=metadata.name%3Dc".into(), 200, "c", None, now),
        ("fieldSelector=metadata.name%3Dc,metadata.namespace%3Dother".into(), 200, "", None, now),
    ] {
        let answer = c.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(answer.code, code, "{query}: {}", answer.text);
        assert_eq!(names(&answer), want, "{query}");
        let metadata = &answer.body["metadata"];
        assert_eq!(metadata["remainingItemCount"].as_u64(), remaining, "{query}");
        assert_eq!(
            metadata["continue"].is_string(),
            want.len() < 3 && query.contains("limit") && !want.is_empty(),
            "{query}"
        );
        assert_eq!(version(&answer.body), revision, "{query}");
    }
    for (query, code, reason, message) in [
        ("resourceVersion=x".into(), 400, "BadRequest", "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax".to_owned()),
        ("resourceVersionMatch=Exact".into(), 422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided".into()),
        ("resourceVersion=0&resourceVersionMatch=Exact".into(), 422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"".into()),
        ("sendInitialEvents=true".into(), 422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".into()),
        ("continue=!".into(), 400, "BadRequest", "invalid continue token: continue key is not valid: illegal base64 data at input byte 0".into()),
        (format!("continue={}", URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a"}"#)), 400, "BadRequest", "invalid continue token: continue key is not valid: server does not recognize this encoded version meta.k8s.io/v2".into()),
        (format!("continue={}", URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#)), 400, "BadRequest", "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()),
        (format!("continue={}", URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/"}"#)), 400, "BadRequest", "invalid continue token: continue key is not valid: ../secrets/".into()),
        (format!("continue={}&resourceVersion=5", URL_SAFE_NO_PAD.encode(format!(r#"{{"v":"meta.k8s.io/v1","rv":{now},"start":"a"}}"#))), 400, "BadRequest", "specifying resource version is not allowed when using continue".into()),
        (format!("resourceVersion=5&resourceVersionMatch=Exact&continue={}", URL_SAFE_NO_PAD.encode("{}")), 422, "Invalid", "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided".into()),
        ("fieldSelector=spec.x%3Dy".into(), 400, "BadRequest", "spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"".into()),
    ] {
        let answer = c.get(&format!("{MAPS}?{query}")).await;
        assert_eq!((answer.code, answer.body["reason"].as_str().unwrap()), (code, reason), "{query}: {}", answer.text);
        assert!(answer.body["message"].as_str().unwrap().contains(&message), "{query}: {}", answer.text);
    }
    let answer = c.get(&format!("{MAPS}?resourceVersion={future}&resourceVersionMatch=Exact")).await;
    assert_eq!((answer.code, &answer.body["reason"]), (504, &json!("Timeout")));
    assert!(answer.body["message"].as_str().unwrap().contains("Too large resource version"), "{}", answer.text);
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    let answer = c.get(&format!("{MAPS}/a?resourceVersion=x")).await;
    assert_eq!(answer.code, 500);
}

#[tokio::test]
async fn pages_are_of_one_state_until_it_is_gone() {
    let (c, store, _) = six().await;
    let first = c.get(&format!("{MAPS}?limit=2")).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap().to_owned();
    let decoded: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&token).unwrap()).unwrap();
    assert_eq!(decoded, json!({"v": "meta.k8s.io/v1", "rv": version(&first.body), "start": "b\u{0}"}));
    c.create(MAPS, &json!({"metadata": {"name": "bb"}})).await;
    c.send("DELETE", &format!("{MAPS}/d"), "", "").await;
    let second = c.get(&format!("{MAPS}?limit=3&continue={token}")).await;
    assert_eq!(names(&second), "cde");
    assert_eq!(version(&second.body), version(&first.body));
    assert_eq!(second.body["metadata"]["remainingItemCount"], 1);
    // Across namespaces the token names them.
    let all = c.get("/api/v1/configmaps?limit=1").await;
    let token = URL_SAFE_NO_PAD.decode(all.body["metadata"]["continue"].as_str().unwrap()).unwrap();
    assert!(String::from_utf8(token).unwrap().contains("\"start\":\"default/a\\u0000\""));

    // The state is thrown away, and a server begins that never knew it.
    let token = second.body["metadata"]["continue"].as_str().unwrap().to_owned();
    store.compact(store.current_revision().await.unwrap()).await.unwrap();
    let api = ApiServer::new(Config::new(Arc::new(store))).unwrap();
    api.start().await.unwrap();
    let late = InProcess { api, user: c.user.clone() };
    let gone = late.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((gone.code, &gone.body["reason"]), (410, &json!("Expired")));
    assert!(gone.body["message"].as_str().unwrap().starts_with("The provided continue parameter is too old"));
    // The token in the answer goes on with what there is now.
    let token = gone.body["metadata"]["continue"].as_str().unwrap();
    let decoded: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    assert_eq!(decoded["rv"], -1);
    let rest = late.get(&format!("{MAPS}?continue={token}")).await;
    assert_eq!((rest.code, names(&rest).as_str()), (200, "f"));
    let old = version(&first.body);
    let gone = late.get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await;
    assert_eq!(gone.code, 410);
    assert_eq!(gone.body["message"], "The resourceVersion for the provided list is too old.");
    // A watch from there ends with the same.
    let mut events = Events::open(&late, &format!("resourceVersion={old}")).await;
    let event = events.next().await;
    let status = if event.is_null() { events.refused.clone() } else { event["object"].clone() };
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")), "{status}");
}

struct Events {
    body: pintle_api::service::Body,
    text: Vec<u8>,
    refused: Value,
}

impl Events {
    async fn open(c: &InProcess, query: &str) -> Self {
        let request = http::Request::get(format!("{MAPS}?watch=1&{query}")).body(String::new()).unwrap();
        let answer = c.request(request).await;
        let code = answer.status();
        let mut body = answer.into_body();
        let mut refused = Value::Null;
        if code != 200 {
            refused = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            body = pintle_api::service::full("");
        }
        Self { body, text: Vec::new(), refused }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            match self.body.frame().await {
                Some(frame) => self.text.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                None => return Value::Null,
            }
        }
    }

    /// `A:name` and so on, of so many events.
    async fn told(&mut self, n: usize) -> String {
        let mut out = Vec::new();
        for _ in 0..n {
            let event = self.next().await;
            let kind = event["type"].as_str().unwrap();
            let metadata = &event["object"]["metadata"];
            let end = metadata["annotations"]["k8s.io/initial-events-end"] == "true";
            let name = metadata["name"].as_str().unwrap_or(if end { "end" } else { "" });
            out.push(format!("{}:{name}", &kind[..1]));
        }
        out.join(" ")
    }
}

#[tokio::test]
async fn where_watches_begin() {
    let (c, _, made) = six().await;
    let later = async || {
        c.create(MAPS, &json!({"metadata": {"name": "z"}})).await;
        c.send("DELETE", &format!("{MAPS}/z"), "", "").await;
    };
    for (query, want) in [
        // From the state of now or any, as watches always did.
        (String::new(), "A:a A:b A:c A:d A:e A:f A:z D:z"),
        ("resourceVersion=0".into(), "A:a A:b A:c A:d A:e A:f A:z D:z"),
        (format!("resourceVersion={}", made[3]), "A:e A:f A:z D:z"),
        (format!("resourceVersion={}", made[5]), "A:z D:z"),
        // Asked for or declined.
        (
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true".into(),
            "A:a A:b A:c A:d A:e A:f B:end A:z D:z",
        ),
        (
            format!(
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion={}",
                made[2]
            ),
            "A:a A:b A:c A:d A:e A:f B:end A:z D:z",
        ),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan".into(), "A:a A:b A:c A:d A:e A:f A:z D:z"),
        ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan".into(), "A:z D:z"),
        ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=0".into(), "A:z D:z"),
        (
            format!("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion={}", made[4]),
            "A:f A:z D:z",
        ),
        ("fieldSelector=metadata.name%3Db".into(), "A:b"),
        (format!("fieldSelector=metadata.name%3Dz&resourceVersion={}", made[5]), "A:z D:z"),
    ] {
        let mut events = Events::open(&c, &query).await;
        assert!(events.refused.is_null(), "{query}: {}", events.refused);
        // Each case sees its own changes only: those of the cases before lie behind it, unless it asked for the past.
        let from_past = query.contains("resourceVersion=")
            && !query.contains("resourceVersion=0")
            && !query.contains("sendInitialEvents=true");
        if from_past {
            let n = want.split(' ').count();
            let told = events.told(n.saturating_sub(2)).await;
            assert_eq!(told, want.trim_end_matches("A:z D:z").trim_end(), "{query}");
            continue;
        }
        later().await;
        assert_eq!(events.told(want.split(' ').count()).await, want, "{query}");
    }
    for (query, code, message) in [
        ("sendInitialEvents=true", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=5",
            422,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            "sendInitialEvents=true&resourceVersionMatch=Exact",
            422,
            "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"",
        ),
        (
            "resourceVersion=x",
            422,
            "configmaps \"\" is invalid: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
    ] {
        let events = Events::open(&c, query).await;
        assert_eq!(events.refused["code"], code, "{query}: {}", events.refused);
        assert!(events.refused["message"].as_str().unwrap().contains(message), "{query}: {}", events.refused);
    }
}

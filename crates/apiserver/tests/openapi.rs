//! OpenAPI as clients fetch it, and as kubectl explains it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod fields;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use common::{Cluster, has};
use fields::{fields, within};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use pintle_api::service::{ApiService, InProcessUser, UserInfo, full};
use pintle_apiserver::{ApiServer, Config, runtime_setting};
use pintle_store::MemoryStore;
use tower::ServiceExt;

const KUBECTL: &str = "/usr/bin/kubectl";
const OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const NEW: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

fn service() -> ApiService {
    let mut config = Config::new(Arc::new(MemoryStore::new()));
    config.runtime_config = vec![runtime_setting("api/all").unwrap()];
    ApiServer::new(config).unwrap().service()
}

async fn get(api: &ApiService, path: &str, headers: &[(&str, &str)]) -> (Response<()>, Vec<u8>) {
    let mut r = Request::builder().uri(path);
    for (k, v) in headers {
        r = r.header(*k, *v);
    }
    let mut r = r.body(full("")).unwrap();
    r.extensions_mut().insert(InProcessUser(Arc::new(UserInfo::authenticated("a", &["system:masters"]))));
    let (head, body) = api.clone().oneshot(r).await.unwrap().into_parts();
    (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn v2_in_both_forms() {
    let api = service();
    let (head, json) = get(&api, "/openapi/v2", &[]).await;
    assert_eq!(head.headers()["content-type"], "application/json");
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let tag = head.headers()["etag"].to_str().unwrap().to_owned();
    for accept in [OLD, NEW] {
        let (head, data) = get(&api, "/openapi/v2", &[("accept", accept), ("accept-encoding", "gzip")]).await;
        assert_eq!((head.status(), head.headers()["content-type"].to_str().unwrap()), (StatusCode::OK, NEW));
        assert_eq!(head.headers()["etag"].to_str().unwrap(), tag);
        assert_eq!(head.headers()["content-encoding"], "gzip");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(data.as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(get(&api, "/openapi/v2", &[("accept", accept)]).await.1, plain);
        // Definitions are pairs of name and schema; paths likewise.
        let definitions: BTreeMap<&str, &[u8]> = fields(within(&plain, 9))
            .into_iter()
            .map(|(_, d)| (std::str::from_utf8(within(d, 1)).unwrap(), within(d, 2)))
            .collect();
        let want: Vec<&str> = json["definitions"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(definitions.keys().copied().collect::<Vec<_>>(), want);
        let text = std::str::from_utf8(within(definitions["io.k8s.api.core.v1.Pod"], 4)).unwrap();
        assert_eq!(text, json["definitions"]["io.k8s.api.core.v1.Pod"]["description"]);
        let paths = fields(within(&plain, 8));
        assert_eq!(paths.len(), json["paths"].as_object().unwrap().len());
        assert!(paths.iter().all(|(number, _)| *number == 2));
    }
    let (head, body) = get(&api, "/openapi/v2", &[("accept", OLD), ("if-none-match", &tag)]).await;
    assert_eq!((head.status(), body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(get(&api, "/openapi/v2", &[("accept", "text/html")]).await.0.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn v3_by_group() {
    let api = service();
    let (_, index) = get(&api, "/openapi/v3", &[]).await;
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    for (path, entry) in index["paths"].as_object().unwrap() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let (head, body) = get(&api, url, &[]).await;
        assert_eq!(head.headers()["cache-control"], "public, immutable");
        assert!(head.headers().contains_key("expires"));
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(document["openapi"], "3.0.0");
        assert!(!document["paths"].as_object().unwrap().is_empty(), "{path}");
        for part in String::from_utf8(body).unwrap().split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{path} {name}");
        }
        let tag = head.headers()["etag"].to_str().unwrap().to_owned();
        let (head, _) = get(&api, &format!("/openapi/v3/{path}"), &[("if-none-match", &tag)]).await;
        assert_eq!(head.status(), StatusCode::NOT_MODIFIED);
        let (head, _) = get(&api, &format!("/openapi/v3/{path}?hash=OLD"), &[]).await;
        assert_eq!((head.status(), head.headers()["location"].to_str().unwrap()), (StatusCode::MOVED_PERMANENTLY, url));
    }
    assert_eq!(get(&api, "/openapi/v3/apis/nope/v1", &[]).await.0.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_explained() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start_with(|config| config.runtime_config = vec![runtime_setting("api/all").unwrap()]).await;
    // kubectl fetches each document once and keeps it.
    for r in pintle_api::resources::all() {
        let (gv, kind) = (r.api_version(), r.kind);
        let said = c.kubectl(&format!("explain {} --api-version={gv} --recursive", r.resource)).await;
        assert!(said.contains(&format!("KIND:       {kind}\n")), "{gv} {kind}: {said}");
        let ty = pintle_schema::kind(&gv, kind).unwrap();
        for f in &ty.fields {
            assert!(said.contains(&format!("\n  {}\t<", f.name)), "{gv} {kind} lacks {}: {said}", f.name);
        }
        assert!(!said.contains("DESCRIPTION:\n    <empty>"), "{gv} {kind}: {said}");
    }
    for (field, want) in [
        (
            "pod.spec.containers.image",
            "FIELD: image <string>\n\n\nDESCRIPTION:\n    Container image name. More info:\n    https://kubernetes.io/docs/concepts/containers/images This field is optional\n",
        ),
        ("pod.spec.restartPolicy", "FIELD: restartPolicy <string>\nENUM:\n    Always\n    Never\n    OnFailure\n"),
        ("deployment.spec.strategy.rollingUpdate.maxSurge", "FIELD: maxSurge <IntOrString>\n"),
        ("pod.spec.containers.env", "FIELD: env <[]EnvVar>\n"),
        ("pod.spec.containers.resources.limits", "FIELD: limits <map[string]Quantity>\n"),
        ("deployment.spec", "  selector\t<LabelSelector> -required-\n"),
    ] {
        let said = c.kubectl(&format!("explain {field}")).await;
        assert!(said.contains(want), "{field}: {said}");
    }
}

#[tokio::test]
async fn v3_as_protobuf() {
    let api = service();
    let accept = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let (head, body) = get(&api, "/openapi/v3/apis/apps/v1", &[("accept", accept)]).await;
    assert_eq!(head.headers()["content-type"], "application/com.github.proto-openapi.spec.v3.v1.0+protobuf");
    assert_eq!(within(&body, 1), b"3.0.0");
    // As many paths and schemas, of the same names, as in JSON.
    let (_, json) = get(&api, "/openapi/v3/apis/apps/v1", &[]).await;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let names = |message: &[u8]| -> Vec<String> {
        let entries = fields(message).into_iter().filter(|(n, _)| *n == 1);
        entries.map(|(_, e)| String::from_utf8(fields(e)[0].1.to_vec()).unwrap()).collect()
    };
    let keys = |at: &str| -> Vec<String> { json.pointer(at).unwrap().as_object().unwrap().keys().cloned().collect() };
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(sorted(names(within(&body, 4))), sorted(keys("/paths")));
    assert_eq!(sorted(names(within(within(&body, 5), 1))), sorted(keys("/components/schemas")));
}

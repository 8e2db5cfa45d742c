//! What the server serves beside resources.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;

use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use pintle_api::service::{ApiService, InProcessUser, UserInfo, full};
use pintle_apiserver::{ApiServer, Config};
use pintle_store::MemoryStore;
use tower::ServiceExt;

async fn get(api: &ApiService, path: &str, accept: &str) -> (u16, HeaderMap, String) {
    let mut r = Request::builder().uri(path).header("accept", accept).body(full("")).unwrap();
    r.extensions_mut().insert(InProcessUser(Arc::new(UserInfo::authenticated("admin", &["system:masters"]))));
    let (parts, body) = api.clone().oneshot(r).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers, text)
}

async fn server() -> ApiServer {
    let mut config = Config::new(Arc::new(MemoryStore::new()));
    config.flags = vec![("profiling".into(), "true".into()), ("etcd-prefix".into(), "/registry".into())];
    ApiServer::new(config).unwrap()
}

#[tokio::test]
async fn health_follows_the_start_and_the_end() {
    let server = server().await;
    let api = server.service();
    let (code, _, text) = get(&api, "/readyz", "*/*").await;
    assert_eq!(code, 500);
    assert!(
        text.contains("[+]ping ok\n")
            && text.contains("[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n"),
        "{text}"
    );
    server.start().await.unwrap();
    assert_eq!(get(&api, "/readyz", "*/*").await.2, "ok");
    let (code, _, text) = get(&api, "/readyz?verbose&exclude=etcd", "*/*").await;
    assert_eq!(code, 200);
    assert!(
        text.contains("[+]etcd excluded: ok\n") && text.ends_with("[+]shutdown ok\nreadyz check passed\n"),
        "{text}"
    );
    assert_eq!(get(&api, "/readyz/poststarthook/rbac/bootstrap-roles", "*/*").await.2, "ok");
    assert_eq!(get(&api, "/livez/shutdown", "*/*").await.0, 404);
    server.shutdown();
    assert_eq!(get(&api, "/readyz", "*/*").await.0, 500);
    assert_eq!(get(&api, "/readyz/shutdown", "*/*").await.2, "internal server error: process is shutting down\n");
    assert_eq!(get(&api, "/livez", "*/*").await.0, 200);
}

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let server = server().await;
    server.start().await.unwrap();
    let api = server.service();
    let (code, headers, _) = get(&api, "/api/v1/endpoints", "application/json").await;
    assert_eq!(code, 200);
    assert_eq!(
        headers["warning"],
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""
    );
    get(&api, "/readyz", "*/*").await;
    let (_, _, text) = get(&api, "/metrics", "*/*").await;
    for want in [
        "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"endpoints\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} ",
        "apiserver_request_duration_seconds_count{component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"endpoints\",",
        "apiserver_request_sli_duration_seconds_bucket{",
        "apiserver_response_sizes_count{component=\"apiserver\",group=\"\",resource=\"endpoints\",",
        "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} ",
        "apiserver_storage_objects{resource=\"namespaces\"} ",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"admit\"} ",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",",
        "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} ",
        "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} ",
        "process_resident_memory_bytes ",
        "apiserver_storage_size_bytes{storage_cluster_id=\"etcd-0\"} ",
        "apiserver_storage_events_received_total{group=\"\",resource=\"namespaces\"} ",
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
    // What nobody serves makes no series.
    assert_eq!(get(&api, "/api/v1/nonsenses", "*/*").await.0, 404);
    assert!(!get(&api, "/metrics", "*/*").await.2.contains("nonsenses"));
}

#[tokio::test]
async fn pages_about_the_server() {
    let server = server().await;
    server.start().await.unwrap();
    let api = server.service();
    let (_, _, text) = get(&api, "/flagz", "").await;
    assert!(text.starts_with("\nkube-apiserver flagz\nWarning: This endpoint is not meant"), "{text}");
    assert!(text.ends_with("etcd-prefix=/registry\nprofiling=true\n"), "{text}");
    let document = "application/json;v=v1beta1;g=config.k8s.io;as=Flagz";
    let (code, _, text) = get(&api, "/flagz", document).await;
    assert_eq!(code, 200);
    assert!(
        text.contains(r#""apiVersion":"config.k8s.io/v1beta1""#) && text.contains(r#""profiling":"true""#),
        "{text}"
    );
    let (code, headers, _) = get(&api, "/statusz", "application/json;v=v1alpha1;g=config.k8s.io;as=Statusz").await;
    assert_eq!(code, 200);
    assert!(headers["warning"].to_str().unwrap().contains("This version of the statusz endpoint is deprecated."));
    assert_eq!(get(&api, "/statusz", "application/json").await.0, 406);
    assert!(get(&api, "/configz", "*/*").await.2.contains("\"maxRequestsInflight\":400"));
    for (path, code) in
        [("/debug/pprof/", 200), ("/debug/pprof/cmdline", 200), ("/debug/pprof/heap", 200), ("/debug/pprof/mutex", 404)]
    {
        assert_eq!(get(&api, path, "*/*").await.0, code, "{path}");
    }
}

#[tokio::test]
async fn components_tell_how_they_are() {
    let server = server().await;
    server.start().await.unwrap();
    server.component("scheduler", || true);
    server.component("controller-manager", || false);
    let api = server.service();
    let (code, headers, text) = get(&api, "/api/v1/componentstatuses", "application/json").await;
    assert_eq!(code, 200);
    assert_eq!(headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["metadata"], serde_json::json!({}));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table: serde_json::Value =
        serde_json::from_str(&get(&api, "/api/v1/componentstatuses", table).await.2).unwrap();
    let cells: Vec<_> = table["rows"].as_array().unwrap().iter().map(|r| r["cells"].clone()).collect();
    assert_eq!(
        serde_json::Value::from(cells),
        serde_json::json!([
            ["scheduler", "Healthy", "ok", ""],
            ["controller-manager", "Unhealthy", "", "the controller-manager of this process has stopped"],
            ["etcd-0", "Healthy", "ok", ""],
        ])
    );
    let (code, _, text) = get(&api, "/api/v1/componentstatuses/etcd-0", "application/json").await;
    assert!(code == 200 && text.contains("\"type\":\"Healthy\""), "{text}");
    assert_eq!(get(&api, "/api/v1/componentstatuses/etcd-1", "application/json").await.0, 404);
}

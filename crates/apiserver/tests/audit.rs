//! Audit events, in a log and sent to a server.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::time::Duration;

use common::InProcess;
use pintle_apiserver::{AuditConfig, LogConfig, WebhookConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: RequestResponse
  users: [joe]
  verbs: [create, get]
  resources: [{group: "", resources: [configmaps]}]
- level: Metadata
  users: [joe, admin]
  resources: [{group: "", resources: [secrets, configmaps, pods]}]
"#;

fn lines(path: &std::path::Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test]
async fn events_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret,joe,1\n").unwrap();
    let c = InProcess::start_with(|config| {
        config.audit = AuditConfig { policy_file: Some(policy), log: Some(LogConfig::new(log.clone())), webhook: None };
        config.token_auth_file = Some(tokens);
    })
    .await;
    let joe = c.by("joe", &["system:masters"]);
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    joe.create("/api/v1/namespaces/default/configmaps", &map).await;
    joe.get("/api/v1/namespaces/default/configmaps/none").await;
    let plain = c.by("joe", &[]);
    assert_eq!(plain.get("/api/v1/namespaces/default/secrets").await.code, 403);
    // Nobody asked for these.
    joe.get("/api/v1/nodes").await;
    c.by("eve", &["system:masters"]).get("/api/v1/namespaces/default/secrets").await;
    let all = lines(&log);
    let brief: Vec<String> = all
        .iter()
        .map(|e| {
            let t = |p: &str| e.pointer(p).and_then(Value::as_str).unwrap_or("-").to_owned();
            format!(
                "{} {} {} {}/{} {} {}",
                t("/level"),
                t("/stage"),
                t("/verb"),
                t("/objectRef/resource"),
                t("/objectRef/name"),
                e["responseStatus"]["code"],
                t("/annotations/authorization.k8s.io~1decision")
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            "RequestResponse ResponseComplete create configmaps/m 201 allow",
            "RequestResponse ResponseComplete get configmaps/none 404 allow",
            "Metadata ResponseComplete list secrets/- 403 forbid",
        ]
    );
    let first = &all[0];
    assert_eq!((&first["kind"], &first["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!(first["requestObject"]["data"], json!({"k": "v"}));
    assert!(first["responseObject"]["metadata"]["uid"].is_string());
    assert_eq!(first["user"]["username"], "joe");
    assert_eq!(first["requestURI"], "/api/v1/namespaces/default/configmaps");
    assert_eq!(first["sourceIPs"], json!(["127.0.0.1"]));
    assert!(first["requestReceivedTimestamp"].as_str().unwrap().len() == "2024-01-01T00:00:00.000000Z".len());
    assert_eq!(all[1]["responseStatus"]["reason"], "NotFound");
    assert_eq!(all[1]["responseObject"]["kind"], "Status");
}

#[tokio::test]
async fn watches_end_and_pods_violate() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let c = InProcess::start_with(|config| {
        config.audit = AuditConfig { policy_file: Some(policy), log: Some(LogConfig::new(log.clone())), webhook: None };
    })
    .await;
    let watch = http::Request::get("/api/v1/secrets?watch=true").body(String::new()).unwrap();
    let stream = c.request(watch).await;
    assert_eq!(lines(&log).last().unwrap()["stage"], "ResponseStarted");
    drop(stream);
    assert_eq!(lines(&log).last().unwrap()["stage"], "ResponseComplete");
    let labels =
        json!({"pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/enforce": "baseline"});
    c.create("/api/v1/namespaces", &json!({"metadata": {"name": "strict", "labels": labels}})).await;
    c.create("/api/v1/namespaces/strict/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    c.create("/api/v1/namespaces/strict/pods", &pod).await;
    let last = lines(&log).pop().unwrap();
    let annotations = &last["annotations"];
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let violations = annotations["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{violations}"
    );
}

#[tokio::test]
async fn events_are_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (policy, config_file) = (dir.path().join("policy.yaml"), dir.path().join("kubeconfig"));
    std::fs::write(&policy, POLICY).unwrap();
    let server = format!("http://{}/audit", listener.local_addr().unwrap());
    std::fs::write(&config_file, format!("clusters: [{{name: k, cluster: {{server: '{server}'}}}}]\n")).unwrap();
    let c = InProcess::start_with(|config| {
        let webhook = WebhookConfig { batch: 2, backoff: Duration::from_millis(1), ..WebhookConfig::new(config_file) };
        config.audit = AuditConfig { policy_file: Some(policy), log: None, webhook: Some(webhook) };
    })
    .await;
    c.get("/api/v1/secrets").await;
    c.get("/api/v1/pods").await;
    // The first try fails; the same batch comes again.
    let mut bodies = Vec::new();
    for answer in ["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"]}\n") {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap();
            text.extend_from_slice(&piece[..n]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("POST /audit HTTP/1.1\r\n"), "{text}");
        bodies.push(text.split("\r\n\r\n").nth(1).unwrap().to_owned());
    }
    assert_eq!(bodies[0], bodies[1]);
    let list: Value = serde_json::from_str(&bodies[0]).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("EventList"), 2));
}

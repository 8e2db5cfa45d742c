//! Priority and fairness as clients meet it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::InProcess;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pintle_api::service::{Body, BoxError, full};
use serde_json::json;
use tower::ServiceExt;

async fn joe(c: &InProcess, method: &str, path: &str, body: Body) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("authorization", "Bearer secret");
    let request = request.header("content-type", "application/json").body(body).unwrap();
    c.api.service().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_full_level_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret,joe,1\n").unwrap();
    let c = InProcess::start_with(|config| config.token_auth_file = Some(tokens)).await;
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let role =
        json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]});
    c.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await;
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}]});
    c.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let schema = json!({"metadata": {"name": "joes"}, "spec": {"priorityLevelConfiguration": {"name": "tiny"}, "matchingPrecedence": 500,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "joe"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}});
    let schema = c.create(&format!("{group}/flowschemas"), &schema).await;
    let dangles = async |want: &str| loop {
        let now = c.get(&format!("{group}/flowschemas/joes")).await.body;
        if now["status"]["conditions"][0]["status"] == want {
            return now["status"]["conditions"][0]["message"].clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        dangles("True").await,
        "This FlowSchema references the PriorityLevelConfiguration object named \"tiny\" but there is no such object"
    );
    let level = json!({"metadata": {"name": "tiny"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}});
    let level = c.create(&format!("{group}/prioritylevelconfigurations"), &level).await;
    dangles("False").await;

    // Three seats, each taken by one that does not come to the end of its request.
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut slow = Vec::new();
    for _ in 0..3 {
        let (send, receive) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, BoxError>>();
        let body = BodyExt::boxed_unsync(StreamBody::new(receive));
        let mut request = Box::pin(joe(&c, "POST", maps, body));
        assert!(futures::poll!(&mut request).is_pending());
        slow.push((send, request));
    }
    let refused = joe(&c, "GET", maps, full("")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["x-kubernetes-pf-flowschema-uid"], schema["metadata"]["uid"].as_str().unwrap());
    assert_eq!(refused.headers()["x-kubernetes-pf-prioritylevel-uid"], level["metadata"]["uid"].as_str().unwrap());
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "Too many requests, please try again later.\n");
    // One that goes away gives its seat back.
    slow.pop();
    assert_eq!(joe(&c, "GET", maps, full("")).await.status(), 200);
    let (send, request) = slow.pop().unwrap();
    send.unbounded_send(Ok(Frame::data(json!({"metadata": {"name": "m"}}).to_string().into()))).unwrap();
    drop(send);
    assert_eq!(request.await.status(), 201);
    let text = c.get("/metrics").await.text;
    for want in [
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"joes\",priority_level=\"tiny\",reason=\"concurrency-limit\"} 1\n",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"tiny\"} 3\n",
        "apiserver_flowcontrol_current_executing_seats{flow_schema=\"joes\",priority_level=\"tiny\"} 1\n",
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
}

#[tokio::test]
async fn bodies_and_objects_are_bounded() {
    let c = InProcess::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let of = |size: usize| json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(size)}}).to_string();
    let answer = c.send("POST", maps, "", of(3 << 20)).await;
    assert_eq!((answer.code, answer.body["reason"].as_str().unwrap()), (413, "RequestEntityTooLarge"));
    assert_eq!(answer.body["message"], "Request entity too large: limit is 3145728");
    // A ConfigMap's own limit.
    let answer = c.send("POST", maps, "", of(2 << 20)).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    let node = json!({"metadata": {"name": "n"}, "status": {"nodeInfo": {"osImage": "x".repeat(1_600_000)}}});
    let answer = c.send("POST", "/api/v1/nodes", "", node.to_string()).await;
    assert_eq!(answer.code, 500, "{}", answer.text);
    assert_eq!(answer.body["message"], "etcdserver: request is too large");
}

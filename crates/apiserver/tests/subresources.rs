//! Writes through sub-resources and other versions.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::InProcess;
use serde_json::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn scale_is_applied() {
    let c = InProcess::start().await;
    let base = "/apis/apps/v1/namespaces/default/deployments";
    let made = c.send("POST", &format!("{base}?fieldManager=first"), "", deployment().to_string()).await;
    assert_eq!(made.code, 201);
    let scale =
        |n: i64| format!("apiVersion: autoscaling/v1\nkind: Scale\nmetadata: {{name: d}}\nspec: {{replicas: {n}}}\n");
    let path = format!("{base}/d/scale?fieldManager=scaler");
    let refused = c.send("PATCH", &path, APPLY, scale(4)).await;
    assert_eq!(refused.code, 409);
    let message = refused.body["message"].as_str().unwrap();
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"first\" using autoscaling/v1: .spec.replicas");
    let done = c.send("PATCH", &format!("{path}&force=true"), APPLY, scale(4)).await;
    assert_eq!((done.code, &done.body["spec"]["replicas"], &done.body["kind"]), (200, &json!(4), &json!("Scale")));
    let now = c.get(&format!("{base}/d")).await.body;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(4), &json!(2)));
    let owners = now["metadata"]["managedFields"].as_array().unwrap();
    let scaler = owners.iter().find(|o| o["manager"] == "scaler").unwrap();
    assert_eq!(
        (&scaler["operation"], &scaler["subresource"], &scaler["apiVersion"], &scaler["fieldsV1"]),
        (&json!("Apply"), &json!("scale"), &json!("apps/v1"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    for (body, code, want) in [
        (scale(-1), 422, "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1"),
        (scale(1).replace("name: d", "name: e"), 400, "does not match the name on the URL"),
        (scale(1).replace("autoscaling/v1", "apps/v1"), 400, "does not match the expected API version"),
        ("{".into(), 400, "error decoding patch"),
    ] {
        let answer = c.send("PATCH", &path, APPLY, body).await;
        assert_eq!(answer.code, code, "{}", answer.text);
        assert!(answer.body["message"].as_str().unwrap().contains(want), "{}", answer.text);
    }
    let strict = c
        .send("PATCH", &format!("{path}&fieldValidation=Strict"), APPLY, scale(4).replace("spec: {", "spec: {x: 1, "))
        .await;
    assert_eq!(strict.code, 400);
    assert!(strict.text.contains("unknown field \\\"spec.x\\\""), "{}", strict.text);
}

#[tokio::test]
async fn status_and_others_are_applied() {
    let c = InProcess::start().await;
    c.create("/apis/apps/v1/namespaces/default/deployments", &deployment()).await;
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "status": {"observedGeneration": 1}});
    let path = "/apis/apps/v1/namespaces/default/deployments/d/status?fieldManager=m";
    let done = c.send("PATCH", path, APPLY, status.to_string()).await;
    assert_eq!((done.code, &done.body["status"]["observedGeneration"]), (200, &json!(1)), "{}", done.text);
    let owners = done.body["metadata"]["managedFields"].as_array().unwrap();
    assert!(owners.iter().any(|o| o["manager"] == "m" && o["subresource"] == "status"));
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    c.create("/api/v1/namespaces/default/pods", &pod).await;
    let more = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    let path = "/api/v1/namespaces/default/pods/p/ephemeralcontainers?fieldManager=m";
    let done = c.send("PATCH", path, APPLY, more.to_string()).await;
    assert_eq!((done.code, &done.body["spec"]["ephemeralContainers"][0]["name"]), (200, &json!("e")), "{}", done.text);
}

/// What is created through the newer API of events has to be whole; the old one takes less. An update may change
/// anything, as upstream lets it.
#[tokio::test]
async fn events_of_both_apis() {
    let c = InProcess::start().await;
    let old = json!({"metadata": {"name": "a"}, "involvedObject": {"namespace": "default"}, "reason": "r"});
    c.create("/api/v1/namespaces/default/events", &old).await;
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let new = json!({"metadata": {"name": "b"}, "regarding": {"namespace": "default"}, "reason": "r"});
    let refused = c.send("POST", path, "", new.to_string()).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    assert!(refused.text.contains("eventTime: Required value"), "{}", refused.text);
    let whole = json!({"metadata": {"name": "b"}, "regarding": {"namespace": "default"}, "reason": "r", "type": "Normal",
        "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "x.y/z", "reportingInstance": "i", "action": "a"});
    let made = c.create(path, &whole).await;
    let mut changed = made.clone();
    changed["note"] = "other".into();
    let updated = c.send("PUT", &format!("{path}/b"), "", changed.to_string()).await;
    assert_eq!((updated.code, &updated.body["note"]), (200, &json!("other")), "{}", updated.text);
}

#[tokio::test]
async fn app_armor_annotations_become_fields() {
    let c = InProcess::start().await;
    let key = "container.apparmor.security.beta.kubernetes.io/";
    let pod = json!({"metadata": {"name": "p", "annotations": {format!("{key}a"): "runtime/default", format!("{key}b"): "localhost/x"}},
        "spec": {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}});
    let answer = c.send("POST", "/api/v1/namespaces/default/pods", "", pod.to_string()).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    let containers = &answer.body["spec"]["containers"];
    assert!(containers[0]["securityContext"]["appArmorProfile"].is_null());
    assert_eq!(
        containers[1]["securityContext"]["appArmorProfile"],
        json!({"type": "Localhost", "localhostProfile": "x"})
    );
    let warnings: Vec<&str> = answer.headers.get_all("warning").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(
        warnings,
        [format!(
            "299 - \"metadata.annotations[{key}b]: deprecated since v1.30; use the \\\"appArmorProfile\\\" field instead\""
        )]
    );
}

#[tokio::test]
async fn methods_that_a_path_does_not_take() {
    let c = InProcess::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let text = "the server does not allow this method on the requested resource";
    for (method, path, code, message) in [
        ("POST", "/api/v1/configmaps", 405, text),
        ("DELETE", "/api/v1/configmaps", 405, text),
        ("PUT", maps, 405, text),
        ("PATCH", maps, 405, text),
        ("POST", &format!("{maps}/x"), 405, text),
        ("DELETE", "/api/v1/namespaces", 405, text),
        ("GET", "/api/v1/configmaps/x", 404, "the server could not find the requested resource"),
        ("POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", 404, "the server could not find"),
        ("OPTIONS", "/api/v1/namespaces/default/pods/x/log", 405, text),
        ("OPTIONS", "/api/v1/namespaces/default/pods/x/proxy/", 404, "pods \"x\" not found"),
    ] {
        let body = json!({"metadata": {"name": "x"}}).to_string();
        let answer = c.send(method, path, "", body).await;
        let said = answer.body["message"].as_str().unwrap_or_default();
        assert!(answer.code == code && said.starts_with(message), "{method} {path}: {} {}", answer.code, answer.text);
    }
}

#[tokio::test]
async fn a_pod_has_at_least_a_second_to_end() {
    let c = InProcess::start().await;
    let pod = |seconds: i64| json!({"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": seconds, "containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    let made = c.create(pods, &pod(-1)).await;
    assert_eq!(made["spec"]["terminationGracePeriodSeconds"], 1);
    let again = json!({"spec": {"terminationGracePeriodSeconds": -5}}).to_string();
    let patched = c.send("PATCH", &format!("{pods}/p"), "application/merge-patch+json", again).await;
    assert_eq!((patched.code, &patched.body["spec"]["terminationGracePeriodSeconds"]), (200, &json!(1)));
    assert_eq!(patched.body["metadata"]["generation"], 1, "{}", patched.text);
}

//! Discovery in its three forms, and versions switched on and off.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;

use http::{Method, Request};
use http_body_util::BodyExt;
use pintle_api::service::{ApiService, InProcessUser, UserInfo, full};
use pintle_apiserver::{ApiServer, Config, runtime_setting};
use pintle_store::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn service(settings: &[&str]) -> ApiService {
    service_on(Arc::new(MemoryStore::new()), settings).await
}

async fn service_on(store: Arc<MemoryStore>, settings: &[&str]) -> ApiService {
    let mut config = Config::new(store);
    config.runtime_config = settings.iter().map(|s| runtime_setting(s).unwrap()).collect();
    let api = ApiServer::new(config).unwrap();
    api.start().await.unwrap();
    api.service()
}

async fn send(api: &ApiService, method: Method, path: &str, accept: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut r = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("accept", accept)
        .body(full(body))
        .unwrap();
    r.extensions_mut().insert(InProcessUser(Arc::new(UserInfo::authenticated("a", &["system:masters"]))));
    let answer = api.clone().oneshot(r).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn get(api: &ApiService, path: &str) -> Value {
    send(api, Method::GET, path, "application/json", None).await.1
}

fn names(list: &Value, field: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|v| v[field].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn groups_in_upstreams_order() {
    let api = service(&[]).await;
    let groups = get(&api, "/apis").await;
    assert_eq!(
        names(&groups["groups"], "name"),
        [
            "apiregistration.k8s.io",
            "apps",
            "events.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "autoscaling",
            "batch",
            "certificates.k8s.io",
            "networking.k8s.io",
            "policy",
            "rbac.authorization.k8s.io",
            "storage.k8s.io",
            "admissionregistration.k8s.io",
            "apiextensions.k8s.io",
            "scheduling.k8s.io",
            "coordination.k8s.io",
            "node.k8s.io",
            "discovery.k8s.io",
            "resource.k8s.io",
            "flowcontrol.apiserver.k8s.io",
        ]
    );
    let autoscaling = get(&api, "/apis/autoscaling").await;
    assert_eq!(names(&autoscaling["versions"], "version"), ["v2", "v1"]);
    assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
    for (group, version) in [("resource.k8s.io", "v1beta1"), ("networking.k8s.io", "v1beta1")] {
        assert_eq!(get(&api, &format!("/apis/{group}/{version}")).await, Value::Null);
    }
    let list = get(&api, "/api/v1").await;
    let by = |name: &str| list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap();
    for (name, hash) in [
        ("configmaps", "qFsyl6wFWjQ="),
        ("endpoints", "fWeeMqaN/OA="),
        ("nodes", "XwShjMxG9Fs="),
        ("pods", "xPOwRZ+Yhw8="),
        ("services", "0/CO1lhkEBI="),
    ] {
        assert_eq!(by(name)["storageVersionHash"], hash, "{name}");
    }
    assert_eq!(by("pods")["shortNames"], json!(["po"]));
    assert_eq!(by("pods")["categories"], json!(["all"]));
    assert_eq!(by("endpoints")["singularName"], "endpoints");
    assert_eq!(by("pods/eviction")["group"], "policy");
    assert!(by("bindings").get("storageVersionHash").is_none());
}

#[tokio::test]
async fn the_forms_agree() {
    let api = service(&["api/all"]).await;
    for version in ["v2", "v2beta1"] {
        for root in ["/api", "/apis"] {
            let accept = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            let (code, all) = send(&api, Method::GET, root, &accept, None).await;
            assert_eq!(
                (code, all["apiVersion"].as_str()),
                (200, Some(format!("apidiscovery.k8s.io/{version}").as_str()))
            );
            for group in all["items"].as_array().unwrap() {
                for v in group["versions"].as_array().unwrap() {
                    let version = v["version"].as_str().unwrap();
                    let path = match group["metadata"]["name"].as_str() {
                        Some(name) => format!("/apis/{name}/{version}"),
                        None => format!("/api/{version}"),
                    };
                    assert_eq!(v["freshness"], "Current");
                    let mut both = Vec::new();
                    for r in v["resources"].as_array().unwrap() {
                        let name = r["resource"].as_str().unwrap();
                        both.push(name.to_owned());
                        let subs = r["subresources"].as_array().into_iter().flatten();
                        both.extend(subs.map(|s| format!("{name}/{}", s["subresource"].as_str().unwrap())));
                    }
                    assert_eq!(names(&get(&api, &path).await["resources"], "name"), both, "{path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn versions_switched_on_and_off() {
    let api = service(&["networking.k8s.io/v1beta1/ipaddresses", "apps/v1/deployments=false", "batch/v1=false"]).await;
    let beta = get(&api, "/apis/networking.k8s.io/v1beta1").await;
    assert_eq!(names(&beta["resources"], "name"), ["ipaddresses"]);
    let apps = get(&api, "/apis/apps/v1").await;
    assert!(!names(&apps["resources"], "name").iter().any(|n| n.starts_with("deployments")));
    let (code, _) = send(&api, Method::GET, "/apis/apps/v1/deployments", "application/json", None).await;
    assert_eq!(code, 404);
    assert!(!names(&get(&api, "/apis").await["groups"], "name").contains(&"batch".to_owned()));
    let (_, index) = send(&api, Method::GET, "/openapi/v3", "application/json", None).await;
    assert!(index["paths"].get("apis/batch/v1").is_none() && index["paths"].get("apis/apps/v1").is_some());
}

#[tokio::test]
async fn an_object_in_each_version() {
    let api = service(&["api/all"]).await;
    let claim = json!({"apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceClaim", "metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "deviceClassName": "gpu", "count": 2}]}}});
    let slice = json!({"apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceSlice", "metadata": {"name": "s"},
        "spec": {"driver": "d.example", "nodeName": "n", "pool": {"name": "n", "resourceSliceCount": 1},
            "devices": [{"name": "a", "basic": {"attributes": {"model": {"string": "x"}}}}]}});
    let base = |v: &str| format!("/apis/resource.k8s.io/{v}");
    for (path, object) in [("/namespaces/default/resourceclaims", &claim), ("/resourceslices", &slice)] {
        let (code, said) = send(&api, Method::POST, &(base("v1beta1") + path), "application/json", Some(object)).await;
        assert_eq!(code, 201, "{said}");
    }
    let claim = |v: &str| format!("{}/namespaces/default/resourceclaims/c", base(v));
    for v in ["v1", "v1beta2"] {
        let got = get(&api, &claim(v)).await;
        assert_eq!(got["apiVersion"], format!("resource.k8s.io/{v}"));
        let want = json!({"deviceClassName": "gpu", "count": 2, "allocationMode": "ExactCount"});
        assert_eq!(got["spec"]["devices"]["requests"], json!([{"name": "r", "exactly": want}]));
        let got = get(&api, &(base(v) + "/resourceslices/s")).await;
        assert_eq!(got["spec"]["devices"], json!([{"name": "a", "attributes": {"model": {"string": "x"}}}]));
    }
    let got = get(&api, &claim("v1beta1")).await;
    let want = json!({"name": "r", "deviceClassName": "gpu", "count": 2, "allocationMode": "ExactCount"});
    assert_eq!(got["spec"]["devices"]["requests"], json!([want]));
    let list = get(&api, &(base("v1beta1") + "/resourceslices")).await;
    assert_eq!(list["items"][0]["spec"]["devices"][0]["basic"]["attributes"]["model"]["string"], "x");
    // These have the same fields in each version.
    for (group, old, resource, object) in [
        (
            "networking.k8s.io",
            "v1beta1",
            "servicecidrs",
            json!({"kind": "ServiceCIDR", "spec": {"cidrs": ["192.0.2.0/24"]}}),
        ),
        (
            "storage.k8s.io",
            "v1beta1",
            "volumeattributesclasses",
            json!({"kind": "VolumeAttributesClass", "driverName": "d", "parameters": {"a": "b"}}),
        ),
        (
            "admissionregistration.k8s.io",
            "v1alpha1",
            "mutatingadmissionpolicybindings",
            json!({"kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": "p"}}),
        ),
    ] {
        let mut object = object;
        object["apiVersion"] = format!("{group}/{old}").into();
        object["metadata"] = json!({"name": "x"});
        let (code, said) =
            send(&api, Method::POST, &format!("/apis/{group}/{old}/{resource}"), "application/json", Some(&object))
                .await;
        assert_eq!(code, 201, "{said}");
        let got = get(&api, &format!("/apis/{group}/v1/{resource}/x")).await;
        assert_eq!(got["apiVersion"], format!("{group}/v1"));
        for key in ["spec", "driverName", "parameters"] {
            assert_eq!(got.get(key), object.get(key), "{resource}");
        }
    }
}

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Waits until the status of an `APIService`, which is written by whoever follows these objects, says so.
async fn until_told(api: &ApiService, name: &str, reason: &str) {
    let uri = format!("{API_SERVICES}?watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds=30");
    let mut r = Request::builder().uri(uri).body(full("")).unwrap();
    r.extensions_mut().insert(InProcessUser(Arc::new(UserInfo::authenticated("a", &["system:masters"]))));
    let mut body = api.clone().oneshot(r).await.unwrap().into_body();
    let mut seen = String::new();
    while !seen.contains(reason) {
        let frame = body.frame().await.expect("the watch goes on").unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
}

fn remote(name: &str) -> Value {
    json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": format!("v1.{name}.example.com")},
        "spec": {"group": format!("{name}.example.com"), "version": "v1", "groupPriorityMinimum": 100,
            "versionPriority": 10, "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "m"}}})
}

#[tokio::test]
async fn what_is_served_is_registered() {
    let api = service(&[]).await;
    until_told(&api, "v1.apps", "Local").await;
    let path = API_SERVICES;
    let all = get(&api, path).await;
    let names: Vec<&str> =
        all["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1.rbac.authorization.k8s.io", "v1.resource.k8s.io"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!names.contains(&"v1.apiregistration.k8s.io"), "{names:?}");
    let apps = get(&api, &format!("{path}/v1.apps")).await;
    assert_eq!(apps["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}));
    let spec = json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15});
    assert_eq!(apps["spec"], spec);
    let condition = &apps["status"]["conditions"][0];
    assert_eq!(
        [&condition["type"], &condition["status"], &condition["reason"], &condition["message"]],
        ["Available", "True", "Local", "Local APIServices are always available"]
    );
}

#[tokio::test]
async fn what_others_are_to_serve_is_unavailable() {
    let api = service(&[]).await;
    let path = API_SERVICES;
    assert_eq!(send(&api, Method::GET, "/apis/metrics.example.com/v1", "*/*", None).await.0, 404);
    assert_eq!(send(&api, Method::POST, path, "application/json", Some(&remote("metrics"))).await.0, 201);
    until_told(&api, "v1.metrics.example.com", "FailedDiscoveryCheck").await;
    for path in ["/apis/metrics.example.com/v1", "/apis/metrics.example.com/v1/nodes"] {
        assert_eq!(send(&api, Method::GET, path, "*/*", None).await.0, 503, "{path}");
    }
    assert_eq!(send(&api, Method::DELETE, &format!("{path}/v1.metrics.example.com"), "*/*", None).await.0, 200);
}

#[tokio::test]
async fn what_is_registered_is_not_written_again() {
    let store = Arc::new(MemoryStore::new());
    let first = service_on(store.clone(), &[]).await;
    // Told one after the other, so these have been told when a later one has.
    let told = async |api: &ApiService, name: &str| {
        assert_eq!(send(api, Method::POST, API_SERVICES, "application/json", Some(&remote(name))).await.0, 201);
        until_told(api, &format!("v1.{name}.example.com"), "FailedDiscoveryCheck").await;
        let all = get(api, API_SERVICES).await;
        let local = all["items"].as_array().unwrap().iter().filter(|o| o["spec"].get("service").is_none());
        local.cloned().collect::<Vec<Value>>()
    };
    let before = told(&first, "a").await;
    assert!(before.len() > 20 && before.iter().all(|o| o["status"]["conditions"][0]["reason"] == "Local"));
    // One that is not as it should be is made right; one that somebody has taken over is left to them.
    let change = async |name: &str, labels: Value| {
        let path = format!("{API_SERVICES}/{name}");
        let mut object = get(&first, &path).await;
        object["metadata"]["labels"] = labels;
        object["spec"]["versionPriority"] = 1.into();
        assert_eq!(send(&first, Method::PUT, &path, "application/json", Some(&object)).await.0, 200);
    };
    change("v1.apps", before[0]["metadata"]["labels"].clone()).await;
    change("v1.batch", json!({})).await;
    let second = service_on(store, &[]).await;
    let after = told(&second, "b").await;
    assert_eq!(after.len(), before.len());
    let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
    let written = before.iter().zip(&after).filter(|(b, a)| version(b) != version(a));
    let seen: Vec<_> = written.map(|(_, a)| json!([a["metadata"]["name"], a["spec"]["versionPriority"]])).collect();
    assert_eq!(seen, [json!(["v1.apps", 15]), json!(["v1.batch", 1])]);
}

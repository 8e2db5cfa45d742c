//! Namespaces, service accounts, endpoints on the in-memory API.

use std::time::Duration;

use super::common::start;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use pintle_client::Patch;
use pintle_controllers::Config;
use serde_json::json;

fn namespace(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
}

#[tokio::test(start_paused = true)]
async fn a_namespace_comes_with_its_objects_and_goes_with_all() {
    let names = ["namespace-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller"];
    let c = start(&names, Config { root_ca: Some("CA".into()), ..Config::default() });
    c.create::<Namespace>(namespace("n")).await;
    c.until::<ServiceAccount>("n", "default account", |a| {
        a.len() == 1 && a[0].metadata.name.as_deref() == Some("default")
    })
    .await;
    let maps = c.until::<ConfigMap>("n", "root CA", |m| m.len() == 1).await;
    assert_eq!(
        (maps[0].metadata.name.as_deref(), maps[0].data.as_ref().unwrap()["ca.crt"].as_str()),
        (Some("kube-root-ca.crt"), "CA")
    );
    // Both come back when deleted or changed.
    c.client.of::<ServiceAccount>().delete("n", "default", None).await.unwrap();
    c.client
        .of::<ConfigMap>()
        .patch("n", "kube-root-ca.crt", Patch::merge(&json!({"data": {"ca.crt": "other"}})).unwrap())
        .await
        .unwrap();
    c.until::<ServiceAccount>("n", "again", |a| a.len() == 1).await;
    c.until::<ConfigMap>("n", "repaired", |m| m[0].data.as_ref().unwrap()["ca.crt"] == "CA").await;

    // A pod that is held blocks, and is named.
    c.create::<Pod>(json!({"metadata": {"name": "p", "namespace": "n", "finalizers": ["example.com/hold"]}})).await;
    c.client.of::<Namespace>().delete("", "n", None).await.unwrap();
    let told = c
        .until::<Namespace>("", "what blocks", |n| {
            n.first()
                .and_then(|n| n.status.as_ref()?.conditions.as_ref())
                .is_some_and(|c| c.iter().any(|c| c.type_ == "NamespaceFinalizersRemaining" && c.status == "True"))
        })
        .await;
    let conditions = told[0].status.as_ref().unwrap().conditions.as_ref().unwrap();
    let message = |kind: &str| conditions.iter().find(|c| c.type_ == kind).unwrap().message.clone().unwrap();
    assert_eq!(message("NamespaceContentRemaining"), "Some resources are remaining: pods has 1 resource instances");
    assert_eq!(
        message("NamespaceFinalizersRemaining"),
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    assert_eq!(c.list::<ConfigMap>("n").await.len(), 1, "nothing else goes before the pods");
    c.client
        .of::<Pod>()
        .patch("n", "p", Patch::merge(&json!({"metadata": {"finalizers": null}})).unwrap())
        .await
        .unwrap();
    c.until::<Namespace>("", "gone", <[_]>::is_empty).await;
    assert!(c.list::<ConfigMap>("n").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn endpoints_follow_pods_and_mirrors_follow_endpoints() {
    let c = start(
        &["endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller"],
        Config::default(),
    );
    c.create::<Service>(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"selector": {"a": "b"}, "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]}})).await;
    let pod = |i: i32| {
        json!({"metadata": {"name": format!("p{i}"), "namespace": "n", "labels": {"a": "b"}},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{i}"), "podIPs": [{"ip": format!("10.0.0.{i}")}], "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    for i in 1..=3 {
        c.create::<Pod>(pod(i)).await;
    }
    let count = |s: &[EndpointSlice]| s.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>();
    c.until::<EndpointSlice>("n", "three in a slice", |s| s.len() == 1 && count(s) == 3).await;
    c.until::<Endpoints>("n", "three addresses", |e| {
        e.len() == 1 && e[0].subsets.as_ref().is_some_and(|s| s[0].addresses.as_ref().unwrap().len() == 3)
    })
    .await;
    c.client
        .of::<Pod>()
        .patch_status(
            "n",
            "p1",
            Patch::merge(&json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})).unwrap(),
        )
        .await
        .unwrap();
    c.until::<Endpoints>("n", "one not ready", |e| {
        e[0].subsets.as_ref().is_some_and(|s| s[0].not_ready_addresses.as_ref().is_some_and(|a| a.len() == 1))
    })
    .await;
    c.client.of::<Pod>().delete("n", "p1", None).await.unwrap();
    c.until::<EndpointSlice>("n", "two", |s| count(s) == 2).await;

    // A Service without selector: Endpoints written by hand are mirrored, and the mirror follows.
    c.create::<Service>(json!({"metadata": {"name": "own", "namespace": "n"}, "spec": {"ports": [{"port": 80}]}}))
        .await;
    c.create::<Endpoints>(json!({"metadata": {"name": "own", "namespace": "n"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 8080}]}]})).await;
    let mirrors = |s: &[EndpointSlice]| {
        s.iter()
            .filter(|s| s.metadata.labels.as_ref().is_some_and(|l| l["kubernetes.io/service-name"] == "own"))
            .cloned()
            .collect::<Vec<_>>()
    };
    let slices = c.until::<EndpointSlice>("n", "mirrored", |s| mirrors(s).len() == 1).await;
    assert_eq!(mirrors(&slices)[0].endpoints.as_ref().unwrap()[0].addresses, ["192.0.2.1"]);
    c.client.of::<Endpoints>().delete("n", "own", None).await.unwrap();
    c.until::<EndpointSlice>("n", "mirror gone", |s| mirrors(s).is_empty()).await;
    c.settle().await;
    let before = c.api.requests().len();
    c.settle().await;
    assert_eq!(c.api.requests().len(), before, "nobody writes any more");
}

#[tokio::test(start_paused = true)]
async fn a_quotas_status_that_another_wrote_is_put_right() {
    let c = start(&["resourcequota-controller"], Config::default());
    c.create::<ResourceQuota>(json!({"metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": {"pods": "1"}}}))
        .await;
    let pods = |q: &[ResourceQuota]| Some(q[0].status.as_ref()?.hard.as_ref()?.get("pods")?.0.clone());
    c.until::<ResourceQuota>("n", "told", |q| pods(q).as_deref() == Some("1")).await;
    let other = Patch::merge(&json!({"status": {"hard": {"pods": "2"}}})).unwrap();
    c.client.of::<ResourceQuota>().patch_status("n", "q", other).await.unwrap();
    c.settle().await;
    assert_eq!(pods(&c.list("n").await).as_deref(), Some("2"), "nobody is told of what others write into it");
    c.pass(Duration::from_secs(301)).await;
    c.until::<ResourceQuota>("n", "right", |q| pods(q).as_deref() == Some("1")).await;
}

//! All controllers on the real API server, each under its own account and its bootstrap role.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Cluster;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_apiserver::ApiServer;
use pintle_client::{Clock, Patch};
use pintle_controllers::Config;
use pintle_store::MemoryStore;
use serde_json::{Value, json};

async fn cluster() -> Cluster {
    // RUST_LOG tells what controllers were refused.
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
    let server = ApiServer::new(pintle_apiserver::Config::new(Arc::new(MemoryStore::new()))).unwrap();
    server.start().await.unwrap();
    let config = Config { root_ca: Some("CA".into()), cluster_cidrs: vec!["10.244.0.0/16".into()], ..Config::default() };
    common::start_on(server.service(), Clock::system(), &["*"], config)
}

/// Plays kubelet and scheduler: pods are bound to a node and ready.
async fn make_ready(c: &Cluster, namespace: &str) {
    for pod in c.list::<Pod>(namespace).await {
        let name = pod.metadata.name.clone().unwrap();
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            let _ = c.client.of::<Pod>().delete_with(namespace, &name, &now).await;
        } else if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Running") {
            let at = pintle_api::time::format(c.clock.now());
            let ip = format!("10.1.{}.{}", name.len(), name.bytes().map(u32::from).sum::<u32>() % 250 + 1);
            let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}]}});
            let _ = c.client.of::<Pod>().patch_status(namespace, &name, Patch::strategic(&status).unwrap()).await;
        }
    }
}

async fn until<T: pintle_client::typed::Kind>(c: &Cluster, namespace: &str, what: &str, done: impl Fn(&[T]) -> bool) -> Vec<T> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        make_ready(c, namespace).await;
        let all = c.list::<T>(namespace).await;
        if done(&all) {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events: Vec<String> = c.list::<Event>(namespace).await.into_iter().map(|e| format!("{:?} {:?}", e.reason, e.message)).collect();
    panic!("never: {what}; {}\n{events:#?}", serde_json::to_string_pretty(&c.list::<T>(namespace).await).unwrap());
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

#[tokio::test]
async fn workloads_on_the_real_server() {
    let c = cluster().await;
    c.create::<Namespace>(json!({"metadata": {"name": "n"}})).await;
    until::<ServiceAccount>(&c, "n", "default account", |a| a.len() == 1).await;
    until::<ConfigMap>(&c, "n", "root CA", |m| m.len() == 1).await;

    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}})).await;
    c.create::<Service>(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})).await;
    let complete = |d: &[Deployment]| {
        d.first().and_then(|d| Some((d.metadata.generation, d.status.as_ref()?))).is_some_and(|(g, s)| {
            s.observed_generation == g && s.updated_replicas == Some(3) && s.replicas == Some(3) && s.available_replicas == Some(3)
                && s.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"))
        })
    };
    until::<Deployment>(&c, "n", "rolled out", complete).await;
    until::<EndpointSlice>(&c, "n", "slices", |s| s.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>() == 3).await;
    until::<Endpoints>(&c, "n", "endpoints", |e| e.first().is_some_and(|e| e.subsets.as_ref().is_some_and(|s| s[0].addresses.as_ref().is_some_and(|a| a.len() == 3)))).await;

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    c.client.of::<Deployment>().patch("n", "web", Patch::strategic(&image).unwrap()).await.unwrap();
    let d = until::<Deployment>(&c, "n", "rolled over", |d| complete(d) && d[0].metadata.annotations.as_ref().is_some_and(|a| a["deployment.kubernetes.io/revision"] == "2")).await;
    assert_eq!(c.list::<ReplicaSet>("n").await.len(), 2);
    assert_eq!(d[0].metadata.generation, Some(2), "the controller's writes are no new generation");
    let events = until::<Event>(&c, "n", "events", |e| e.iter().any(|e| e.reason.as_deref() == Some("ScalingReplicaSet"))).await;
    assert!(events.iter().all(|e| e.type_.as_deref() == Some("Normal")), "{events:#?}");

    // The Service's slices, and the Deployment's sets and pods, go with them.
    c.client.of::<Service>().delete("n", "web", None).await.unwrap();
    c.client.of::<Deployment>().delete("n", "web", None).await.unwrap();
    until::<EndpointSlice>(&c, "n", "no slices", <[_]>::is_empty).await;
    until::<Endpoints>(&c, "n", "no endpoints", <[_]>::is_empty).await;
    until::<ReplicaSet>(&c, "n", "no sets", <[_]>::is_empty).await;
    until::<Pod>(&c, "n", "no pods", <[_]>::is_empty).await;

    c.create::<StatefulSet>(json!({"metadata": {"name": "db", "namespace": "n"}, "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": template("v1"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})).await;
    until::<StatefulSet>(&c, "n", "in order", |s| s[0].status.as_ref().is_some_and(|s| s.ready_replicas == Some(2) && s.current_revision == s.update_revision)).await;
    assert_eq!(c.list::<PersistentVolumeClaim>("n").await.len(), 2);
    c.create::<Node>(json!({"metadata": {"name": "node"}})).await;
    c.create::<DaemonSet>(json!({"metadata": {"name": "ds", "namespace": "n"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "c", "image": "x"}]}}}})).await;
    until::<DaemonSet>(&c, "n", "a daemon", |d| d[0].status.as_ref().is_some_and(|s| s.number_ready == 1 && s.updated_number_scheduled == Some(1))).await;
    let node: Node = c.client.of::<Node>().get("", "node").await.unwrap();
    assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("10.244.0.0/24"));

    c.client.of::<Namespace>().delete("", "n", None).await.unwrap();
    let began = Instant::now();
    while c.client.of::<Namespace>().get_opt("", "n").await.unwrap().is_some() {
        make_ready(&c, "n").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let left = || async { serde_json::to_string_pretty(&c.client.of::<Namespace>().get("", "n").await.unwrap()).unwrap() };
        assert!(began.elapsed() < Duration::from_secs(30), "{}", left().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_replicas() {
    let c = cluster().await;
    until::<ServiceAccount>(&c, "default", "default account", |a| a.len() == 1).await;
    let began = Instant::now();
    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 1000, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}})).await;
    let pods = pintle_client::api::resources::by_kind("v1", "Pod").unwrap();
    while c.client.list(pods, "default", &pintle_client::ListParams::default()).await.unwrap().items.len() < 1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < Duration::from_secs(60), "a thousand pods take too long");
    }
    println!("a thousand pods after {:?}", began.elapsed());
}

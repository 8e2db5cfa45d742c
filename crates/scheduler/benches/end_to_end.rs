//! Pending pods until all are bound, through the real API server on the embedded store, in one process: what the
//! scheduler, its informers, the API server and the store take together. Beside it what upstream needs on a machine of
//! this kind.
//!
//! `cargo bench -p pintle-scheduler --bench end_to_end [-- NODES PODS ROUNDS]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use pintle_api::resources::{Resource, by_kind};
use pintle_api::service::UserInfo;
use pintle_apiserver::ApiServer;
use pintle_client::client::encode;
use pintle_client::{Client, Informers, ListParams, WriteParams};
use pintle_scheduler::Config;
use pintle_store::{EmbeddedOptions, EmbeddedStore};
use pintle_testkit::cpu;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn kind(name: &str) -> &'static Resource {
    by_kind("v1", name).expect("a built-in kind")
}

fn node(i: usize) -> Value {
    let name = format!("node-{i}");
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 10)});
    let room = json!({"cpu": "32", "memory": "128Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn pod(i: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{i}"), "labels": {"app": "load"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}

async fn create(client: &Client, kind: &'static Resource, namespace: &str, n: usize, make: fn(usize) -> Value) {
    let (began, used) = (Instant::now(), cpu());
    stream::iter(0..n)
        .for_each_concurrent(64, |i| async move {
            let body = encode(&make(i)).expect("it encodes");
            client.create(kind, namespace, body, &WriteParams::default()).await.expect("it is accepted");
        })
        .await;
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu() - used);
    println!(
        "{n:>6} {:<6} created   {:>8.0}/s  {:>6.3} ms of CPU each",
        kind.resource,
        n as f64 / took,
        cpu * 1e3 / n as f64
    );
}

#[tokio::main]
async fn main() {
    let given: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let at = |i: usize, default: usize| given.get(i).copied().unwrap_or(default);
    let (nodes, pods, rounds) = (at(0, 1000), at(1, 5000), at(2, 3));
    let dir = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(&dir.path().join("store"), EmbeddedOptions::default()).await.expect("a store");
    let mut config = pintle_apiserver::Config::new(Arc::new(store));
    config.advertise_address = [192, 0, 2, 1].into();
    config.disable_admission_plugins = vec!["ServiceAccount".into()];
    let server = ApiServer::new(config).expect("a server");
    server.start().await.expect("it starts");
    let client = Client::in_process(server.service(), UserInfo::authenticated("admin", &["system:masters"]));
    create(&client, kind("Node"), "", nodes, node).await;
    // As node lifecycle does for a node that is ready.
    for i in 0..nodes {
        let patch = pintle_client::Patch::merge(&json!({"spec": {"taints": null}})).expect("it encodes");
        let untainted = client.patch(kind("Node"), "", &format!("node-{i}"), "", patch, &WriteParams::default()).await;
        untainted.expect("a node takes it");
    }
    for round in 1..=rounds {
        create(&client, kind("Pod"), "default", pods, pod).await;
        let informers = Informers::new(client.clone());
        let seen = informers.get(kind("Pod"));
        seen.synced().await;
        let mut changes = seen.subscribe();
        let stop = CancellationToken::new();
        let (began, used) = (Instant::now(), cpu());
        let scheduler = client.as_user(UserInfo::authenticated("system:kube-scheduler", &[]));
        tokio::spawn(pintle_scheduler::run(scheduler, informers.clone(), Config::default(), stop.clone()));
        let (mut bound, mut first) = (0, Duration::ZERO);
        while bound < pods {
            let change = changes.next().await.expect("the watch goes on");
            let had = |o: &Arc<pintle_api::Object>| o.at(&["spec", "nodeName"]).is_some();
            if change.now().is_some_and(had) && !change.before().is_some_and(had) {
                first = if bound == 0 { began.elapsed() } else { first };
                bound += 1;
            }
        }
        let (took, cpu) = (began.elapsed(), cpu() - used);
        println!(
            "round {round}: {pods} pods on {nodes} nodes bound in {:.2} s (first after {:.0} ms): {:>6.0} pods/s, {:.3} ms of CPU a pod  | upstream 463 pods/s, 3.9 ms; target 5000 pods/s, 0.4 ms",
            took.as_secs_f64(),
            first.as_secs_f64() * 1e3,
            pods as f64 / took.as_secs_f64(),
            cpu * 1e3 / pods as f64,
        );
        stop.cancel();
        let now = serde_json::from_value(json!({"gracePeriodSeconds": 0})).expect("options");
        client.delete_collection(kind("Pod"), "default", &ListParams::default(), &now).await.expect("they go");
        while !seen.is_empty() {
            changes.next().await.expect("the watch goes on");
        }
    }
}

//! What one change costs while there are 1,000, 10,000 and 100,000 other pods in the same namespace: it must not depend
//! on how many there are. The real API server on the store in memory, and all controllers, in process.
//!
//! `cargo bench -p pintle-controllers --bench change [-- most]`.

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::Cluster;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use pintle_client::{Change, Patch};
use pintle_store::MemoryStore;
use pintle_testkit::cpu;
use serde_json::{Value, json};

/// How often each change is made.
const TIMES: u32 = 100;
/// Other pods behind one Service.
const SERVED: usize = 10;

fn pod(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": "x"}]}})
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}

/// Others, from one number of them to another.
async fn fill(c: &Cluster, have: usize, want: usize) {
    stream::iter(have..want)
        .for_each_concurrent(64, |i| async move {
            let app = format!("other-{}", i / SERVED);
            // A tenth of them is served: addresses of Services are few.
            if i % (10 * SERVED) == 0 {
                c.create::<Service>(service(&app)).await;
            }
            c.create::<Pod>(pod(&format!("other-{i}"), &app)).await;
        })
        .await;
}

/// A pod behind a Service becomes ready or unready, until its EndpointSlice says so.
async fn readiness(c: &Cluster) {
    let slices = c.informers.of::<EndpointSlice>();
    let mut changes = slices.subscribe();
    for i in 0..TIMES {
        let ready = i % 2 == 0;
        let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        let patch = Patch::strategic(&status).expect("it encodes");
        c.client.of::<Pod>().patch_status("default", "mine", patch).await.expect("it is accepted");
        loop {
            let change = changes.next().await.expect("the watch goes on");
            let slice: EndpointSlice = change.last().view().expect("it fits its type");
            let of = slice.endpoints.iter().flatten().filter(|e| e.addresses == ["10.0.0.1"]);
            let said = of.filter_map(|e| e.conditions.as_ref()?.ready).next();
            if said == Some(ready) {
                break;
            }
        }
    }
}

/// A pod of a ReplicaSet is deleted, until another is there.
async fn replacement(c: &Cluster) {
    let pods = c.informers.of::<Pod>();
    let mut changes = pods.subscribe();
    let mut doomed = None;
    while doomed.is_none() {
        let change = changes.next().await.expect("the watch goes on");
        doomed = change.now().map(|p| p.name().to_owned()).filter(|n| n.starts_with("set-"));
    }
    while changes.try_next().is_some() {}
    for _ in 0..TIMES {
        let name = doomed.take().expect("one is there");
        c.client.of::<Pod>().delete("default", &name, None).await.expect("it is deleted");
        while doomed.is_none() {
            if let Change::Added(_, p) = changes.next().await.expect("the watch goes on")
                && p.name().starts_with("set-")
            {
                doomed = Some(p.name().to_owned());
            }
        }
    }
}

/// An owner is deleted, until what it owns is gone.
async fn collection(c: &Cluster) {
    let maps = c.informers.of::<ConfigMap>();
    let mut changes = maps.subscribe();
    for _ in 0..TIMES {
        let owner: ConfigMap = c.create(json!({"metadata": {"name": "owner", "namespace": "default"}})).await;
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}]);
        let owned = json!({"metadata": {"name": "owned", "namespace": "default", "ownerReferences": owners}});
        c.create::<ConfigMap>(owned).await;
        c.client.of::<ConfigMap>().delete("default", "owner", None).await.expect("it is deleted");
        while !matches!(changes.next().await.expect("the watch goes on"), Change::Deleted(_, m) if m.name() == "owned")
        {
        }
    }
}

async fn measure(what: &str, others: usize, change: impl Future<Output = ()>) {
    let (began, used) = (Instant::now(), cpu());
    change.await;
    let times = f64::from(TIMES);
    let (took, used) = (began.elapsed().as_secs_f64() * 1e3 / times, (cpu() - used) * 1e3 / times);
    println!("{what:<50} {others:>7} others {took:>8.2} ms  cpu {used:>7.2} ms");
}

#[tokio::main]
async fn main() {
    let most: usize = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(100_000);
    let c = Cluster::start(Arc::new(MemoryStore::new())).await;
    c.create::<Service>(service("mine")).await;
    c.create::<Pod>(pod("mine", "mine")).await;
    let template = json!({"metadata": {"labels": {"app": "set"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "x"}]}});
    c.create::<ReplicaSet>(json!({"metadata": {"name": "set", "namespace": "default"},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "set"}}, "template": template}}))
        .await;
    let mut have = 0;
    for others in [1_000, 10_000, 100_000].into_iter().filter(|n| *n <= most) {
        fill(&c, have, others).await;
        have = others;
        measure("a pod becomes (un)ready, until its slice says so", others, readiness(&c)).await;
        measure("a pod of a ReplicaSet is deleted, until replaced", others, replacement(&c)).await;
        measure("an owner is deleted, until what it owns is gone", others, collection(&c)).await;
    }
}

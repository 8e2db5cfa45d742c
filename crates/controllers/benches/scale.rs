//! A Deployment of a thousand replicas on the real API server and store, in process: from its creation until a thousand
//! pods exist, and from its deletion until they are gone. Beside it what upstream needs on a machine of this kind.
//!
//! `cargo bench -p pintle-controllers --bench scale`.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Cluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_api::resources::by_kind;
use pintle_store::{EmbeddedOptions, EmbeddedStore};
use pintle_testkit::cpu;
use serde_json::json;

const REPLICAS: usize = 1000;

fn report(what: &str, took: Duration, cpu: f64, upstream: &str, target: f64) {
    let seconds = took.as_secs_f64();
    println!("{what:<34} {seconds:>7.3} s  cpu {cpu:>6.2} s  upstream {upstream}  target {target} s");
}

/// Waits until so many pods are there.
async fn until(cluster: &Cluster, n: usize) {
    let pods = cluster.informers.get(by_kind("v1", "Pod").expect("pods are built in"));
    let mut changes = pods.subscribe();
    while pods.len() != n {
        changes.next().await.expect("the watch goes on");
    }
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(&dir.path().join("store"), EmbeddedOptions::default()).await.expect("a store");
    let cluster = Cluster::start(Arc::new(store)).await;
    for round in 1..=5 {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "x"}]}}},
        });
        let (began, used) = (Instant::now(), cpu());
        cluster.create::<Deployment>(deployment).await;
        until(&cluster, REPLICAS).await;
        println!("round {round}");
        report("1,000 pods exist after", began.elapsed(), cpu() - used, "49.5 s (1.57 s raised)", 0.4);
        let (began, used) = (Instant::now(), cpu());
        let options = DeleteOptions { propagation_policy: Some("Background".into()), ..DeleteOptions::default() };
        cluster.client.of::<Deployment>().delete_with("default", "web", &options).await.expect("it is deleted");
        until(&cluster, 0).await;
        report("and are gone after", began.elapsed(), cpu() - used, "49.3 s (3.2 s raised)", 0.5);
    }
}

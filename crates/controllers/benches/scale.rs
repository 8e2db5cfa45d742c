//! A Deployment of a thousand replicas on the real API server and store, in process: from its creation until a thousand
//! pods exist, and from its deletion until they are gone. Beside it what upstream needs on a machine of this kind.
//!
//! `cargo bench -p pintle-controllers --bench scale`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_api::resources::by_kind;
use pintle_api::service::UserInfo;
use pintle_apiserver::ApiServer;
use pintle_client::{Client, Clock, Informers};
use pintle_controllers::Config;
use pintle_store::{EmbeddedOptions, EmbeddedStore};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const REPLICAS: usize = 1000;

/// Processor time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(") ").next().unwrap_or_default().to_owned();
    after.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn report(what: &str, took: Duration, cpu: f64, upstream: &str, target: f64) {
    let seconds = took.as_secs_f64();
    println!("{what:<34} {seconds:>7.3} s  cpu {cpu:>6.2} s  upstream {upstream}  target {target} s");
}

/// Waits until so many pods are there.
async fn until(informers: &Informers, n: usize) {
    let pods = informers.get(by_kind("v1", "Pod").expect("pods are built in"));
    let mut changes = pods.subscribe();
    while pods.len() != n {
        changes.next().await.expect("the watch goes on");
    }
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(&dir.path().join("store"), EmbeddedOptions::default()).await.expect("a store");
    let mut config = pintle_apiserver::Config::new(Arc::new(store));
    config.advertise_address = [192, 0, 2, 1].into();
    let server = ApiServer::new(config).expect("a server");
    server.start().await.expect("it starts");
    let client = Client::in_process(server.service(), UserInfo::authenticated("admin", &["system:masters"]));
    let manager = client.as_user(UserInfo::authenticated("system:kube-controller-manager", &[]));
    let (informers, stop) = (Informers::new(manager.clone()), CancellationToken::new());
    let config = Config { root_ca: Some("CA".into()), ..Config::default() };
    tokio::spawn(pintle_controllers::run(manager, informers.clone(), config, Clock::system(), stop.clone()));
    let accounts = informers.of::<ServiceAccount>();
    let mut changes = accounts.subscribe();
    while accounts.get("default/default").is_none() {
        changes.next().await.expect("the watch goes on");
    }
    for round in 1..=5 {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "x"}]}}},
        }))
        .expect("a Deployment");
        let (began, used) = (Instant::now(), cpu());
        client.of::<Deployment>().create(&deployment).await.expect("it is accepted");
        until(&informers, REPLICAS).await;
        println!("round {round}");
        report("1,000 pods exist after", began.elapsed(), cpu() - used, "49.5 s (1.57 s raised)", 0.4);
        let (began, used) = (Instant::now(), cpu());
        let options = DeleteOptions { propagation_policy: Some("Background".into()), ..DeleteOptions::default() };
        client.of::<Deployment>().delete_with("default", "web", &options).await.expect("it is deleted");
        until(&informers, 0).await;
        report("and are gone after", began.elapsed(), cpu() - used, "-", 0.5);
    }
    stop.cancel();
}

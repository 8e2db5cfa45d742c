//! A whole cluster in one process: start, idle, and pods from creation to Running, each beside what upstream Kubernetes
//! measured on a machine of this kind (its six processes together).
//!
//! `make bench`, or `cargo bench -p pintle-tests --bench node [-- seconds of idle]`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pintle_client::api::k8s_openapi::api::core::v1::Pod;
use pintle_client::api::resources::by_kind;
use pintle_client::client::encode;
use pintle_client::{Client, Informers, WriteParams};
use pintle_testkit::Cluster;
use pintle_testkit::cpu::of_process;
use serde_json::json;

fn report(what: &str, ours: f64, unit: &str, upstream: f64) {
    println!("{what:<44} {ours:>9.1} {unit:<4} upstream {upstream:>8.1} {unit:<4} ratio {:>6.3}", ours / upstream);
}

fn pod(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "pintle.internal/sample:latest", "imagePullPolicy": "IfNotPresent", "args": ["sample", "serve"]}],
        },
    })
}

/// Creates pods at once and answers how long each took to be Running, in milliseconds.
async fn run_pods(client: &Client, names: &[String]) -> Vec<f64> {
    let pods = by_kind("v1", "Pod").expect("pods are built in");
    let informers = Informers::new(client.clone());
    let view = informers.get(pods).view::<Pod>();
    view.synced().await;
    let mut changes = view.subscribe();
    let mut started = HashMap::new();
    let mut took = Vec::new();
    let creates = names.iter().map(|name| {
        started.insert(name.clone(), Instant::now());
        let body = encode(&pod(name)).expect("a pod encodes");
        async move { client.create(pods, "default", body, &WriteParams::default()).await.expect("a pod is accepted") }
    });
    let creates: Vec<_> = creates.collect();
    let (_, ()) = tokio::join!(futures::future::join_all(creates), async {
        while took.len() < names.len() {
            let change = changes.next().await.expect("the watch goes on");
            let Some(p) = change.now() else { continue };
            let name = p.metadata.name.clone().unwrap_or_default();
            let running = p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            if running && let Some(at) = started.remove(&name) {
                took.push(at.elapsed().as_secs_f64() * 1000.0);
            }
        }
    });
    for name in names {
        client.of::<Pod>().delete("default", name, None).await.expect("a pod can be deleted");
    }
    while view.list().iter().any(|p| names.contains(p.metadata.name.as_ref().unwrap_or(&String::new()))) {
        changes.next().await.expect("the watch goes on");
    }
    took.sort_by(f64::total_cmp);
    took
}

fn main() {
    let idle: u64 = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(60);
    let start = Instant::now();
    let cluster = Cluster::start();
    let up = start.elapsed().as_secs_f64() * 1000.0;
    let pid = cluster.pid().expect("it runs");
    // apiserver 2280, controller-manager 270, scheduler 280 (side by side), kubelet to node Ready 1100.
    report("start to node Ready and DNS answering", up, "ms", 3660.0);

    std::thread::sleep(Duration::from_secs(idle));
    let (rss, cpu) = of_process(pid);
    report(&format!("memory after {idle} s idle"), rss, "MiB", 638.0);
    std::thread::sleep(Duration::from_secs(idle));
    let (_, later) = of_process(pid);
    report("processor time of a minute idle", (later - cpu) * 1000.0 * 60.0 / idle.max(1) as f64, "ms", 1980.0);

    cluster.machine().enter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::from_kubeconfig(cluster.kubeconfig(), None).await.expect("the kubeconfig is good");
        let mut one = Vec::new();
        for i in 0..20 {
            one.extend(run_pods(&client, &[format!("one-{i}")]).await);
        }
        one.sort_by(f64::total_cmp);
        report("pod created to Running, p50 of 20", one[one.len() / 2], "ms", 599.0);
        let many: Vec<String> = (0..50).map(|i| format!("many-{i}")).collect();
        let (_, before) = of_process(pid);
        let took = run_pods(&client, &many).await;
        let (_, after) = of_process(pid);
        report("50 pods at once, all Running", took[took.len() - 1], "ms", 9500.0);
        // apiserver 70, containerd 117, kubelet 60.
        report("processor time a pod (without its shim)", (after - before) * 1000.0 / 50.0, "ms", 247.0);
    });
}

//! A large cluster on one machine: simulated nodes full of pods, then how fast a little more work is done there, beside
//! upstream's service level objectives. The API server's own histogram tells the latency of calls that change something,
//! a watch how long pods take from their creation to Running.
//!
//! `cargo bench -p pintle-tests --bench large [-- nodes [pods]]`; 5,000 nodes and 150,000 pods without arguments.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use pintle_client::api::resources::by_kind;
use pintle_client::client::encode;
use pintle_client::{Client, ListParams, WriteParams};
use pintle_testkit::cpu::of_process;
use pintle_testkit::{Cluster, Options, Sim};
use serde_json::{Value, json};

/// Pods of a Deployment, and Deployments of a namespace.
const REPLICAS: usize = 1000;
const DEPLOYMENTS: usize = 10;
/// Deployments made to see how long a pod takes, and their pods.
const PROBES: usize = 60;
const PROBE_PODS: usize = 10;
const PROBE_EVERY: Duration = Duration::from_secs(1);

fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeSelector": {"pintle.internal/sim": "sim"},
                    "containers": [{"name": "c", "image": "none", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}],
                },
            },
        },
    })
}

/// Counts of the API server's histogram of calls that change something, by upper bound in seconds.
async fn mutating(client: &Client) -> HashMap<String, f64> {
    let text = client.get_path("/metrics").await.expect("the API server has metrics");
    let text = String::from_utf8_lossy(&text);
    let mut all = HashMap::new();
    for line in text.lines().filter(|l| l.starts_with("apiserver_request_duration_seconds_bucket{")) {
        let label = |name: &str| Some(line.split_once(&format!("{name}=\""))?.1.split_once('"')?.0);
        if !matches!(label("verb"), Some("POST" | "PUT" | "PATCH" | "DELETE" | "APPLY")) {
            continue;
        }
        let count = line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        *all.entry(label("le").unwrap_or_default().to_owned()).or_default() += count;
    }
    all
}

/// The upper bound of the bucket in which 99 of 100 of the calls between two moments are, in seconds.
fn p99(before: &HashMap<String, f64>, after: &HashMap<String, f64>) -> f64 {
    let bound = |le: &str| le.parse::<f64>().unwrap_or(f64::INFINITY);
    let mut grown: Vec<(f64, f64)> =
        after.iter().map(|(le, n)| (bound(le), n - before.get(le).copied().unwrap_or(0.0))).collect();
    grown.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = grown.last().map_or(0.0, |(_, n)| *n);
    grown.iter().find(|(_, n)| *n >= all * 0.99).map_or(f64::INFINITY, |(le, _)| *le)
}

struct Bench {
    client: Client,
    pid: u32,
}

impl Bench {
    async fn create(&self, version: &str, kind: &str, namespace: &str, object: &Value) {
        let resource = by_kind(version, kind).expect("a built-in kind");
        let body = encode(object).expect("it encodes");
        self.client.create(resource, namespace, body, &WriteParams::default()).await.expect("it is accepted");
    }

    async fn namespace(&self, name: &str) {
        self.create("v1", "Namespace", "", &json!({"metadata": {"name": name}})).await;
    }

    /// Waits until so many pods of a namespace run; answers when each was seen to, by the Deployment it is of.
    async fn running(&self, namespace: &str, wanted: usize) -> Vec<(String, Instant)> {
        let pods = by_kind("v1", "Pod").expect("pods are built in");
        let mut seen = HashMap::new();
        while seen.len() < wanted {
            let list = self.client.list(pods, namespace, &ListParams::default()).await.expect("pods can be listed");
            let mut note = |object: &pintle_client::api::Object| {
                let text = |path: &[&str]| object.at(path).and_then(|t| serde_json::from_slice::<String>(t).ok());
                if text(&["status", "phase"]).as_deref() == Some("Running") && !seen.contains_key(object.name()) {
                    let app = object.label("app").unwrap_or_default().to_owned();
                    seen.insert(object.name().to_owned(), (app, Instant::now()));
                }
                seen.len()
            };
            list.items.iter().for_each(|o| {
                note(o);
            });
            let from = ListParams { resource_version: list.resource_version, ..ListParams::default() };
            let mut changes = self.client.watch(pods, namespace, &from, &[]).await.expect("pods can be watched");
            while let Some(Ok(event)) = changes.next().await {
                if note(&event.object) >= wanted {
                    break;
                }
            }
        }
        seen.into_values().collect()
    }

    async fn nodes(&self, wanted: usize) {
        let nodes = by_kind("v1", "Node").expect("nodes are built in");
        let only = ListParams { labels: "pintle.internal/sim=sim".into(), ..ListParams::default() };
        let list = self.client.list(nodes, "", &only).await.expect("nodes can be listed");
        let mut names: HashSet<String> = list.items.iter().map(|n| n.name().to_owned()).collect();
        let from = ListParams { resource_version: list.resource_version, ..only };
        let mut changes = self.client.watch(nodes, "", &from, &[]).await.expect("nodes can be watched");
        while names.len() < wanted {
            let event = changes.next().await.expect("the watch goes on").expect("the watch is good");
            names.insert(event.object.name().to_owned());
        }
    }

    fn memory(&self, when: &str) {
        let (rss, cpu) = of_process(self.pid);
        println!("{when:<48} {rss:>9.0} MiB in memory, {cpu:.0} s of processor time so far");
    }

    async fn all(&self, nodes: usize, pods: usize) {
        let began = Instant::now();
        self.nodes(nodes).await;
        println!("{nodes} nodes are there after {:.1} s", began.elapsed().as_secs_f64());
        let deployments = pods.div_ceil(REPLICAS);
        let began = Instant::now();
        for first in (0..deployments).step_by(DEPLOYMENTS) {
            let namespace = format!("load-{}", first / DEPLOYMENTS);
            self.namespace(&namespace).await;
            let here = (first..deployments.min(first + DEPLOYMENTS)).count();
            for i in 0..here {
                let one = deployment(&format!("d{i}"), REPLICAS.min(pods - (first + i) * REPLICAS));
                self.create("apps/v1", "Deployment", &namespace, &one).await;
            }
            let expected = (here * REPLICAS).min(pods - first * REPLICAS);
            self.running(&namespace, expected).await;
            let done = (first + here) * REPLICAS;
            self.memory(&format!("{} pods run after {:.0} s", done.min(pods), began.elapsed().as_secs_f64()));
        }
        println!("{:.0} pods a second created, bound and Running", pods as f64 / began.elapsed().as_secs_f64());
        self.probe().await;
        self.memory("at the end");
    }

    /// A little more work: a few pods each second.
    async fn probe(&self) {
        self.namespace("probe").await;
        let before = mutating(&self.client).await;
        let create = async {
            let mut made = HashMap::new();
            let mut tick = tokio::time::interval(PROBE_EVERY);
            for i in 0..PROBES {
                tick.tick().await;
                let name = format!("p{i}");
                made.insert(name.clone(), Instant::now());
                self.create("apps/v1", "Deployment", "probe", &deployment(&name, PROBE_PODS)).await;
            }
            made
        };
        let (made, running) = tokio::join!(create, self.running("probe", PROBES * PROBE_PODS));
        let mut took: Vec<f64> = running.iter().map(|(app, at)| (*at - made[app]).as_secs_f64()).collect();
        took.sort_by(f64::total_cmp);
        let of = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
        println!(
            "pod from its Deployment's creation to Running: p50 {:.3} s, p99 {:.3} s (objective 5 s)",
            of(50),
            of(99)
        );
        let calls = p99(&before, &mutating(&self.client).await);
        println!("calls that change something, meanwhile: p99 at most {calls} s (objective 1 s)");
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let (nodes, pods) = (numbers.next().unwrap_or(5000), numbers.next().unwrap_or(150_000));
    let cluster =
        Cluster::start_with(Options { args: vec!["--cluster-cidr=10.0.0.0/10".to_owned()], ..Options::default() });
    let sim = Sim::start(&cluster, &["--zones=10", &format!("--nodes={nodes}")]);
    cluster.machine().enter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::from_kubeconfig(cluster.kubeconfig(), None).await.expect("the kubeconfig is good");
        Bench { client, pid: cluster.pid().expect("it runs") }.all(nodes, pods).await;
    });
    drop(sim);
}

//! `pintle sim`: simulated nodes in a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pintle_client::api::duration;
use pintle_client::api::quantity::Quantity;
use pintle_client::{Client, Clock};
use pintle_sim::address::Pool;
use pintle_sim::rules::Rules;
use pintle_sim::{Config, Taint};
use tokio_util::sync::CancellationToken;

use crate::up::Stop;

const ABOUT: &str = "\
Adds nodes without a machine behind them to a cluster, as kwok does: the nodes stay Ready, pods bound to them become \
Running and Ready at once and have addresses, pods of Jobs end by themselves, and deleted pods are gone at once. Nothing \
runs: there are no logs, no exec and no traffic.

Nodes that others made take part when they have the annotation kwok.x-k8s.io/node=fake; their pods are simulated too.

A pod may say by annotations how long it runs (pintle.internal/run-for: 30s) and with what status it then ends \
(pintle.internal/exit-code: \"1\"); pods with a restart policy start again where the kubelet would start them again.";

/// Options of `pintle sim`.
#[derive(Args, Clone)]
#[command(long_about = ABOUT)]
pub struct Sim {
    /// How many nodes there are to be; those of an earlier run with the same group count.
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// Kubeconfig of the cluster.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The kubeconfig's context to use [default: its current one].
    #[arg(long)]
    context: Option<String>,
    /// Whose nodes they are; they are named GROUP-0, GROUP-1 and so on, and labelled pintle.internal/sim=GROUP.
    #[arg(long, default_value = pintle_sim::node::DEFAULT_GROUP)]
    group: String,
    /// A label of every node; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// An annotation of every node; may be given several times.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    annotations: Vec<(String, String)>,
    /// A taint of every node, as `kubectl taint` takes it; may be given several times.
    #[arg(long = "taint", value_name = "KEY=VALUE:EFFECT")]
    taints: Vec<Taint>,
    /// Spread the nodes among so many zones (zone-0, zone-1 and so on).
    #[arg(long, default_value_t = 0)]
    zones: usize,
    /// Processors of a node.
    #[arg(long, default_value = "32", value_parser = quantity)]
    cpu: String,
    /// Memory of a node.
    #[arg(long, default_value = "256Gi", value_parser = quantity)]
    memory: String,
    /// Disk space for pods of a node.
    #[arg(long, default_value = "1Ti", value_parser = quantity)]
    ephemeral_storage: String,
    /// How many pods a node takes.
    #[arg(long, default_value_t = 110)]
    pods_per_node: u32,
    /// More resources of a node, such as example.com/gpu=8; may be given several times.
    #[arg(long = "capacity", value_name = "RESOURCE=QUANTITY", value_parser = resource)]
    capacity: Vec<(String, String)>,
    /// Network of the nodes' addresses; two, with a comma between, for both families.
    #[arg(long, default_value = "198.18.0.0/15")]
    node_cidr: Pool,
    /// Network of the pods' addresses; two, with a comma between, for both families.
    #[arg(long, default_value = "100.64.0.0/10")]
    pod_cidr: Pool,
    /// How long a pod takes to start.
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    start_delay: Duration,
    /// How long pods of Jobs run before they end successfully.
    #[arg(long, default_value = "1s", value_parser = duration::parse)]
    job_runs_for: Duration,
    /// How long a node's Lease is good for; it is renewed four times in that time.
    #[arg(long, default_value = "40s", value_parser = duration::parse)]
    lease_duration: Duration,
    /// How often a node says that nothing changed.
    #[arg(long, default_value = "5m", value_parser = duration::parse)]
    status_interval: Duration,
    /// How many requests are under way at most.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// On exit remove the group's nodes, as they are and whatever made them.
    #[arg(long)]
    rm: bool,
    /// What to log, as `tracing` filters are written, such as `info` or `pintle_sim=debug`.
    #[arg(long, default_value = "warn", env = "PINTLE_LOG")]
    pub log: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(k, _)| !k.is_empty());
    pair.map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("{text:?} is no KEY=VALUE"))
}

fn quantity(text: &str) -> Result<String, String> {
    text.parse::<Quantity>().map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn resource(text: &str) -> Result<(String, String), String> {
    let (name, amount) = pair(text)?;
    Ok((name, quantity(&amount)?))
}

fn positive(what: Duration, flag: &str) -> anyhow::Result<Duration> {
    anyhow::ensure!(what >= Duration::from_secs(1), "{flag} must be a second at least");
    Ok(what)
}

/// Simulates until a signal.
///
/// # Errors
/// What keeps the nodes from being simulated, or removed.
pub async fn run(options: Sim) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let client = Client::from_kubeconfig(&options.kubeconfig, options.context.as_deref())
        .await
        .context("--kubeconfig names no cluster that can be used")?;
    let own = [
        ("cpu", options.cpu),
        ("memory", options.memory),
        ("ephemeral-storage", options.ephemeral_storage),
        ("pods", options.pods_per_node.to_string()),
    ];
    let capacity: BTreeMap<String, String> =
        own.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(options.capacity).collect();
    let config = Config {
        nodes: options.nodes,
        group: options.group,
        labels: options.labels.into_iter().collect(),
        annotations: options.annotations.into_iter().collect(),
        taints: options.taints,
        zones: options.zones,
        capacity,
        node_addresses: options.node_cidr,
        pod_addresses: options.pod_cidr,
        rules: Rules { start_delay: options.start_delay, job_runs_for: options.job_runs_for },
        lease_duration: positive(options.lease_duration, "--lease-duration")?,
        status_interval: positive(options.status_interval, "--status-interval")?,
        concurrency: options.concurrency.max(1),
        remove: options.rm,
    };
    let began = std::time::Instant::now();
    let ready = |n: usize| {
        eprintln!("{n} simulated nodes are Ready in {:.2} s", began.elapsed().as_secs_f64());
        eprintln!("Ctrl-C stops them{}", if options.rm { " and removes them" } else { "; they then become NotReady" });
    };
    let shutdown = CancellationToken::new();
    let client = client.with_user_agent(concat!("pintle-sim/", env!("CARGO_PKG_VERSION")));
    let simulated = pintle_sim::run(client, config, Clock::system(), shutdown.clone(), ready);
    tokio::pin!(simulated);
    tokio::select! {
        ended = &mut simulated => return Ok(ended?),
        () = stop.asked() => shutdown.cancel(),
    }
    Ok(simulated.await?)
}

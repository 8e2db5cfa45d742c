//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::sample::Sample;

/// Kubernetes, whole, in one binary.
#[derive(Parser)]
#[command(name = "pintle", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to be.
    #[command(subcommand)]
    pub command: Command,
}

/// The roles of the binary.
#[derive(Subcommand)]
pub enum Command {
    /// Run a whole one-node cluster in this process, in the foreground.
    Up(Box<Up>),
    /// Add simulated nodes to a cluster, in the foreground.
    Sim(Box<crate::sim::Sim>),
    /// The node's images: import, export, pull, list, remove, prune.
    #[command(subcommand)]
    Image(crate::image::Image),
    /// Day-2 work on a cluster.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Save the state of a cluster to a file, or restore it.
    #[command(subcommand)]
    Snapshot(crate::snapshot::Snapshot),
    /// The built-in sample: a web server that names its pod, and a client for it.
    #[command(subcommand)]
    Sample(Sample),
}

/// Day-2 work.
#[derive(Subcommand)]
pub enum Cluster {
    /// Remove everything a stopped cluster left on this machine: containers, links, rules, mounts and its data.
    Reset {
        /// The cluster's data directory.
        #[arg(long, default_value = "/var/lib/pintle", env = "PINTLE_DATA_DIR")]
        data_dir: PathBuf,
        /// Cgroup under which its pods run.
        #[arg(long, default_value = "/kubepods")]
        cgroup_root: String,
    },
}

/// Options of `pintle up`.
#[derive(Args, Clone)]
pub struct Up {
    /// Where everything is kept: store, certificates, images, pods.
    #[arg(long, default_value = "/var/lib/pintle", env = "PINTLE_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Where to write the administrator's kubeconfig [default: <data-dir>/admin.kubeconfig].
    #[arg(long)]
    pub write_kubeconfig: Option<PathBuf>,
    /// Address the API server listens on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port the API server listens on; 0 takes a free one.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address by which pods and other machines reach this one [default: that of the default route].
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// More names and addresses for the API server's certificate.
    #[arg(long, value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// The node's name [default: the host name].
    #[arg(long)]
    pub node_name: Option<String>,
    /// File with the scheduler's configuration (a `KubeSchedulerConfiguration`).
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<PathBuf>,
    /// Port of the node agent; 0 takes a free one.
    #[arg(long, default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Port of the node agent's local health check; 0 switches it off.
    #[arg(long, default_value_t = 10248)]
    pub healthz_port: u16,
    /// Networks of cluster IPs.
    #[arg(long, default_value = "10.96.0.0/12", value_delimiter = ',')]
    pub service_cluster_ip_range: Vec<String>,
    /// Ports for Services of type NodePort.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
    /// API versions and resources to switch on or off, such as `api/beta=true,resource.k8s.io/v1beta2=false`.
    #[arg(long, value_delimiter = ',', value_parser = pintle_apiserver::runtime_setting)]
    pub runtime_config: Vec<(String, bool)>,
    /// Features to switch on or off, such as `GenericWorkload=true,GangScheduling=true`.
    #[arg(long, value_parser = pintle_api::features::FeatureGates::parse, default_value = "")]
    pub feature_gates: pintle_api::features::FeatureGates,
    /// Networks of pod IPs.
    #[arg(long, default_value = "10.244.0.0/16", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// Controllers to run: names, `-name` to leave one out, `*` for all that are on by default.
    #[arg(long, default_value = "*", value_delimiter = ',', allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// Domain of the cluster's DNS names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Cgroup under which all pods run.
    #[arg(long, default_value = "/kubepods")]
    pub cgroup_root: String,
    /// File with a KubeletConfiguration (kubelet.config.k8s.io/v1beta1) for the node agent; what has a flag here is
    /// taken from the flag.
    #[arg(long)]
    pub kubelet_config: Option<PathBuf>,
    /// The API server and its store.
    #[command(flatten)]
    pub api: crate::up::api_flags::ApiFlags,
    /// Deploy the built-in sample and show it answering by DNS name and node port.
    #[arg(long)]
    pub demo: bool,
    /// How many seconds the demonstration may take before it is called a failure.
    #[arg(long, default_value_t = 120)]
    pub demo_timeout: u64,
    /// With --demo: end when it has answered; exit status 1 when it did not.
    #[arg(long, requires = "demo")]
    pub exit: bool,
    /// On exit remove everything that was made on this machine: containers, links, rules, mounts and the data directory.
    #[arg(long)]
    pub rm: bool,
    /// What to log, as `tracing` filters are written, such as `info` or `pintle_kubelet=debug`.
    #[arg(long, default_value = "warn,hickory_server=error", env = "PINTLE_LOG")]
    pub log: String,
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let range = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match range {
        Some((a, b)) if a > 0 && a <= b => Ok((a, b)),
        _ => Err("it must be two ports, as in 30000-32767".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_sound() {
        Cli::command().debug_assert();
        assert!(port_range("1-2").is_ok());
        for bad in ["", "5", "9-1", "0-5", "1-70000"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}

//! `pintle up`: a whole one-node cluster in this process.

pub(crate) mod api_flags;
mod control_plane;
mod demo;
mod node;
pub(crate) mod paths;
mod preflight;
mod progress;

use std::net::IpAddr;

use anyhow::Context;
use jiff::Timestamp;
use pintle_cluster::files::write_atomic;
use pintle_cluster::kubeconfig::Kubeconfig;
use pintle_cluster::pki::ClusterPki;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::Up;
use control_plane::ControlPlane;
use node::Node;
use paths::Paths;
use progress::Progress;

/// What every part of the cluster needs to know.
pub(crate) struct Facts {
    pub(crate) options: Up,
    pub(crate) paths: Paths,
    pub(crate) pki: ClusterPki,
    pub(crate) node_name: String,
    /// The address the node and the API server are reached at.
    pub(crate) address: IpAddr,
    /// The port the API server got.
    pub(crate) port: u16,
    /// The cluster DNS server's address.
    pub(crate) dns: IpAddr,
}

/// Runs it until a signal, or until the demonstration is over.
///
/// # Errors
/// What kept the cluster from starting, or the demonstration from answering.
pub async fn run(options: Up) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let mut progress = Progress::new();
    eprintln!("Pintle {}: starting a cluster below {}", env!("CARGO_PKG_VERSION"), options.data_dir.display());
    pintle_controllers::select(&options.controllers).map_err(anyhow::Error::msg)?;
    preflight::check(&options.data_dir)?;
    let paths = Paths::new(&options.data_dir);
    let lock = paths::lock(&paths.root)?;
    let Some(address) = options.advertise_address.or_else(preflight::default_address) else {
        anyhow::bail!("this machine has no default route: say by --advertise-address how pods may reach it");
    };
    let listener = preflight::listen(options.bind_address, options.secure_port, "the API server", "--secure-port")?;
    let port = listener.local_addr()?.port();
    let node_name = options.node_name.clone().unwrap_or_else(preflight::host_name);
    let (first, dns) = service_addresses(&options.service_cluster_ip_range)?;
    if options.kubelet_port != 0 {
        // Taken for a moment, so that a clash is told before anything is started.
        drop(preflight::listen(options.bind_address, options.kubelet_port, "the node agent", "--kubelet-port")?);
    }
    // What is wrong with the file is told before anything is started.
    control_plane::scheduler_config(options.scheduler_config.as_deref(), &options.feature_gates)?;
    let missing = pintle_network::preflight().await;
    if !missing.is_empty() {
        anyhow::bail!("this machine's kernel lacks:\n  - {}", missing.join("\n  - "));
    }
    progress.done("the machine has what is needed");

    let mut sans = options.tls_san.clone();
    sans.extend([first, address, IpAddr::from([127, 0, 0, 1])].map(|ip| ip.to_string()));
    if !options.bind_address.is_unspecified() {
        sans.push(options.bind_address.to_string());
    }
    let node_sans = [node_name.clone(), address.to_string(), "127.0.0.1".into()];
    let pki = ClusterPki::ensure(&paths.pki, Timestamp::now(), &node_name, &options.cluster_domain, &sans, &node_sans)?;
    let facts = Facts { options, paths, pki, node_name, address, port, dns };
    let kubeconfig = write_kubeconfig(&facts)?;
    progress.done("certificates");

    let shutdown = CancellationToken::new();
    let plane = ControlPlane::start(&facts, listener, &shutdown, &mut progress).await?;
    let node = tokio::select! {
        node = Node::start(&facts, plane.admin(), &shutdown, &mut progress) => node,
        () = stop.asked() => Err(anyhow::anyhow!("stopped before the node was ready")),
    };
    let node = match node {
        Ok(node) => node,
        Err(e) => {
            shutdown.cancel();
            plane.stop().await;
            return Err(e);
        }
    };

    progress.ready("The cluster is up");
    eprintln!("\n  export KUBECONFIG={}\n  kubectl get nodes\n", kubeconfig.display());

    let outcome = if facts.options.demo {
        let patience = std::time::Duration::from_secs(facts.options.demo_timeout);
        let shown = demo::run(plane.admin(), &facts.options.cluster_domain, facts.address, patience, &mut progress);
        tokio::select! {
            shown = shown => shown.context("the demonstration failed"),
            () = stop.asked() => Ok(()),
            () = shutdown.cancelled() => Ok(()),
        }
    } else {
        Ok(())
    };
    if !facts.options.exit {
        if let Err(e) = &outcome {
            eprintln!("{e:#}");
        }
        eprintln!("Ctrl-C stops it{}", if facts.options.rm { " and removes everything" } else { "; containers go on" });
        tokio::select! {
            () = stop.asked() => {}
            () = shutdown.cancelled() => {}
        }
    }
    let broken = shutdown.is_cancelled();
    eprintln!("stopping");
    shutdown.cancel();
    let runtime = node.runtime().clone();
    node.stop().await;
    plane.stop().await;
    if facts.options.rm {
        eprintln!("removing everything");
        crate::reset::remove(&facts.paths, &facts.options.cgroup_root, Some(runtime)).await?;
    }
    drop(lock);
    if broken && outcome.is_ok() {
        anyhow::bail!("a part of the cluster ended by itself; see above");
    }
    outcome
}

/// The wish to stop: SIGINT or SIGTERM.
pub(crate) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    asked: bool,
}

impl Stop {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            asked: false,
        })
    }

    pub(crate) async fn asked(&mut self) {
        if !self.asked {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            self.asked = true;
        }
    }
}

/// The first address of the service network (the API server's Service) and the tenth (the cluster DNS).
fn service_addresses(ranges: &[String]) -> anyhow::Result<(IpAddr, IpAddr)> {
    let range = ranges.first().context("--service-cluster-ip-range must name a network")?;
    let (base, _) =
        range.split_once('/').with_context(|| format!("{range} is no network: write it as 10.96.0.0/12"))?;
    let nth = |n: u8| match base.parse::<IpAddr>() {
        Ok(IpAddr::V4(v)) => Ok(IpAddr::from((u32::from(v) + u32::from(n)).to_be_bytes())),
        Ok(IpAddr::V6(v)) => Ok(IpAddr::from((u128::from(v) + u128::from(n)).to_be_bytes())),
        Err(_) => anyhow::bail!("{range} is no network: write it as 10.96.0.0/12"),
    };
    Ok((nth(1)?, nth(10)?))
}

fn write_kubeconfig(facts: &Facts) -> anyhow::Result<std::path::PathBuf> {
    let local = if facts.options.bind_address.is_unspecified() {
        IpAddr::from([127, 0, 0, 1])
    } else {
        facts.options.bind_address
    };
    let text = Kubeconfig {
        cluster: "pintle",
        user: "kubernetes-admin",
        server: &format!("https://{}", std::net::SocketAddr::new(local, facts.port)),
        ca_pem: &facts.pki.ca.cert,
        cert_pem: &facts.pki.admin.cert,
        key_pem: &facts.pki.admin.key,
    }
    .to_yaml();
    let path = facts.options.write_kubeconfig.clone().unwrap_or_else(|| facts.paths.kubeconfig.clone());
    write_atomic(&path, text.as_bytes(), 0o600)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_service_network() {
        let of = |r: &str| service_addresses(&[r.to_owned()]).map(|(a, b)| format!("{a} {b}")).ok();
        assert_eq!(of("10.96.0.0/12").as_deref(), Some("10.96.0.1 10.96.0.10"));
        assert_eq!(of("fd00::/112").as_deref(), Some("fd00::1 fd00::a"));
        assert_eq!(of("10.96.0.0"), None);
        assert_eq!(of("x/1"), None);
    }
}

//! The node of `pintle up`: runtime, pod network, node agent, service proxy, cluster DNS.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use jiff::Timestamp;
use pintle_client::api::k8s_openapi::api::core::v1::Node as NodeObject;
use pintle_client::api::service::UserInfo;
use pintle_client::{Client, Informers};
use pintle_kubelet::KubeletConfig;
use pintle_kubelet::config::ServingCert;
use pintle_network::addr::{Net, Protocol};
use pintle_network::dns::{Dns, Upstream};
use pintle_network::netns::NetNs;
use pintle_network::podnet::{self, HostPort, PodNetwork};
use pintle_network::{dns, policy, proxy};
use pintle_runtime::embedded::{Embedded, Options};
use pintle_runtime::image::BuiltinImage;
use pintle_runtime::{self as rt, NetworkSandbox, Runtime, SandboxFilter, SandboxNetwork};
use std::net::IpAddr;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::{Facts, demo};

/// A running node.
pub(crate) struct Node {
    runtime: Embedded,
    parts: Vec<JoinHandle<()>>,
    _dns: Arc<Dns>,
}

impl Node {
    pub(crate) async fn start(
        facts: &Facts,
        admin: &Client,
        shutdown: &CancellationToken,
        progress: &mut Progress,
    ) -> anyhow::Result<Self> {
        let network = Arc::new(Pods::default());
        let mut options = Options::new(&facts.paths.runtime);
        options.cgroup_root = "/".into();
        let runtime = Embedded::open(options, network.clone()).await.context("the container runtime cannot start")?;
        register_sample(&runtime)?;
        crate::image::service::serve(&facts.paths.image_socket(), runtime.clone(), shutdown.clone())?;
        progress.done("container runtime");

        let informers = Informers::new(admin.clone());
        let mut parts = Vec::new();
        let config = kubelet_config(facts)?;
        let client =
            admin.as_user(UserInfo::authenticated(format!("system:node:{}", facts.node_name), &["system:nodes"]));
        let (agent, stop) = (Arc::new(runtime.clone()) as Arc<dyn Runtime>, shutdown.clone());
        parts.push(tokio::spawn(async move {
            if let Err(e) = pintle_kubelet::run(config, client, agent, stop.clone()).await {
                eprintln!("the node agent stopped: {e}");
                stop.cancel();
            }
        }));

        let cidrs = nets(&facts.options.cluster_cidr, "--cluster-cidr")?;
        let proxy = proxy::Config {
            ns: NetNs::host(),
            node: facts.node_name.clone(),
            cluster_cidrs: cidrs.clone(),
            served_here: BTreeSet::from([facts.dns]),
            ..proxy::Config::default()
        };
        let (of_proxy, stop) = (informers.clone(), shutdown.clone());
        parts.push(tokio::spawn(async move {
            tokio::select! {
                ended = proxy::run(&of_proxy, proxy) => if let Err(e) = ended {
                    eprintln!("the service proxy stopped: {e}");
                    stop.cancel();
                },
                () = stop.cancelled() => {}
            }
        }));

        let (of_policy, stop, name, dns_ip) = (informers.clone(), shutdown.clone(), facts.node_name.clone(), facts.dns);
        parts.push(tokio::spawn(async move {
            let host = NetNs::host();
            tokio::select! {
                ended = policy::run(&of_policy, &host, &name, vec![dns_ip]) => if let Err(e) = ended {
                    eprintln!("network policies stopped: {e}");
                    stop.cancel();
                },
                () = stop.cancelled() => {}
            }
        }));

        let dns = dns::Config {
            ns: NetNs::host(),
            domain: facts.options.cluster_domain.clone(),
            cluster_ips: vec![facts.dns],
            node_ips: vec![facts.address],
            allowed: cidrs.clone(),
            upstream: Upstream::ResolvConf("/etc/resolv.conf".into()),
            serial: u32::try_from(Timestamp::now().as_second()).unwrap_or(u32::MAX),
        };
        let dns = dns::run(&informers, &dns, &facts.node_name).await.context("the cluster DNS cannot start")?;
        progress.done(format_args!("cluster DNS on {}", facts.dns));

        let (network, of_pods, runtime_of_pods, stop) = (network, informers.clone(), runtime.clone(), shutdown.clone());
        let (name, state_dir) = (facts.node_name.clone(), facts.paths.network.clone());
        parts.push(tokio::spawn(async move {
            tokio::select! {
                ended = network.run(&of_pods, &name, &state_dir, cidrs, &runtime_of_pods) => if let Err(e) = ended {
                    eprintln!("the pod network stopped: {e:#}");
                    stop.cancel();
                },
                () = stop.cancelled() => {}
            }
        }));
        wait_ready(&informers, &facts.node_name, shutdown).await?;
        progress.done(format_args!("node {} is Ready", facts.node_name));
        Ok(Self { runtime, parts, _dns: dns })
    }

    /// The container runtime.
    pub(crate) fn runtime(&self) -> &Embedded {
        &self.runtime
    }

    /// Waits for all parts to end after the shutdown was told. Containers go on.
    pub(crate) async fn stop(self) {
        for part in self.parts {
            let _ = part.await;
        }
    }
}

fn nets(texts: &[String], flag: &str) -> anyhow::Result<Vec<Net>> {
    texts.iter().map(|t| t.parse().with_context(|| format!("{flag}: {t} is no network"))).collect()
}

/// The image of the built-in sample: this program, under `/pintle`.
fn register_sample(runtime: &Embedded) -> anyhow::Result<()> {
    let image = BuiltinImage {
        name: demo::IMAGE.into(),
        path: "/pintle".into(),
        config: rt::ImageConfig {
            entrypoint: vec!["/pintle".into()],
            cmd: vec!["sample".into(), "serve".into()],
            ..rt::ImageConfig::default()
        },
    };
    let program = std::env::current_exe().context("this program's own file is not to be found")?;
    runtime.images().register_builtin(&image, &program).context("the sample image cannot be made")?;
    Ok(())
}

/// The file of `--kubelet-config`, or defaults; then what flags say.
fn kubelet_config(facts: &Facts) -> anyhow::Result<KubeletConfig> {
    let base = match &facts.options.kubelet_config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--kubelet-config: {} cannot be read", path.display()))?;
            KubeletConfig::from_yaml(&text).map_err(|e| anyhow::anyhow!("--kubelet-config: {}: {e}", path.display()))?
        }
        None => KubeletConfig::default(),
    };
    let mut config = KubeletConfig {
        node_name: facts.node_name.clone(),
        node_ips: vec![facts.address],
        root_dir: facts.paths.kubelet.clone(),
        pod_logs_dir: facts.paths.pod_logs.clone(),
        serving_cert: Some(ServingCert {
            cert_pem: facts.pki.kubelet_server.cert.clone(),
            key_pem: facts.pki.kubelet_server.key.clone(),
        }),
        port: facts.options.kubelet_port,
        healthz_port: facts.options.healthz_port,
        cluster_domain: facts.options.cluster_domain.clone(),
        cluster_dns: vec![facts.dns],
        cgroup_root: facts.options.cgroup_root.clone(),
        ..base
    };
    config.authentication.x509.client_ca_pem = Some(facts.pki.ca.cert.clone());
    Ok(config)
}

/// Waits until the Node says that it is ready.
async fn wait_ready(informers: &Informers, name: &str, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let nodes = informers.of::<NodeObject>().view::<NodeObject>();
    let mut changes = nodes.subscribe();
    let ready = |node: &NodeObject| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    loop {
        if nodes.get(name).is_some_and(|n| ready(&n)) {
            return Ok(());
        }
        tokio::select! {
            change = changes.next() => { change.context("the node cannot be watched")?; }
            () = shutdown.cancelled() => anyhow::bail!("a part of the cluster ended before the node was ready"),
        }
    }
}

/// The pod network as the runtime sees it. It is there once the Node has been given its block of addresses.
#[derive(Default)]
struct Pods(OnceCell<PodNetwork>);

impl Pods {
    /// Waits for the node's block, starts the network and keeps its routes.
    async fn run(
        &self,
        informers: &Informers,
        node: &str,
        state_dir: &Path,
        cluster_cidrs: Vec<Net>,
        runtime: &Embedded,
    ) -> anyhow::Result<()> {
        let nodes = informers.of::<NodeObject>().view::<NodeObject>();
        let mut changes = nodes.subscribe();
        let blocks = loop {
            let found = nodes.get(node).and_then(|n| n.spec.as_ref()?.pod_cidrs.clone());
            if let Some(found) = found.filter(|f| !f.is_empty()) {
                break nets(&found, "spec.podCIDRs")?;
            }
            changes.next().await.context("the node cannot be watched")?;
        };
        drop(changes);
        let config = podnet::Config {
            ns: NetNs::host(),
            state_dir: state_dir.to_owned(),
            pod_cidrs: blocks,
            cluster_cidrs,
            mtu: None,
            mode: podnet::Mode::default(),
        };
        let network = PodNetwork::start(config).await?;
        let living = runtime.list_pod_sandboxes(&SandboxFilter::default()).await?;
        network.retain(&living.into_iter().map(|s| s.id).collect()).await?;
        let network = self.0.get_or_init(|| async { network }).await;
        network.follow_nodes(informers, node).await;
        Ok(())
    }

    fn network(&self) -> rt::Result<&PodNetwork> {
        self.0.get().ok_or_else(|| rt::Error::precondition("the pod network waits for the node's podCIDR"))
    }
}

#[async_trait]
impl SandboxNetwork for Pods {
    async fn attach(&self, sandbox: &NetworkSandbox, netns: &Path) -> rt::Result<Vec<IpAddr>> {
        let ports: Vec<HostPort> = sandbox
            .port_mappings
            .iter()
            .filter(|p| p.host_port > 0)
            .map(|p| HostPort {
                host_ip: p.host_ip.filter(|ip| !ip.is_unspecified()),
                host_port: p.host_port,
                container_port: p.container_port,
                protocol: match p.protocol {
                    rt::Protocol::Tcp => Protocol::Tcp,
                    rt::Protocol::Udp => Protocol::Udp,
                    rt::Protocol::Sctp => Protocol::Sctp,
                },
            })
            .collect();
        let attached = self.network()?.attach(&sandbox.id, netns, &ports).await;
        attached.map(|a| a.ips).map_err(|e| rt::Error::unknown(format!("pod network: {e}")))
    }

    async fn detach(&self, sandbox: &NetworkSandbox, _netns: Option<&Path>) -> rt::Result<()> {
        self.network()?.detach(&sandbox.id).await.map_err(|e| rt::Error::unknown(format!("pod network: {e}")))
    }

    async fn ready(&self) -> rt::Result<()> {
        self.network().map(|_| ())
    }
}

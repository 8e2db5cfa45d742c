//! Cluster DNS, served by every node itself.
//!
//! The cluster address of DNS is an address of every node itself: a pod's question reaches the server on its
//! node with no translation and no tracking of connections in between.

mod forward;
mod run;
mod server;
#[cfg(test)]
mod tests;
mod zone;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::proto::rr::Name;
use parking_lot::RwLock;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use serde_json::{Value, json};

use forward::Forwarder;
pub use forward::Upstream;
pub use run::{publish, run};
use server::Handler;
pub use zone::{Answer, Zone};

use crate::addr::{Net, Protocol};
use crate::links::Links;
use crate::netns::NetNs;
use crate::nft::{Batch, Chain, Element, Expr, Family, Field, Hook, Key, Kind, Nft, Rule, Set, Table};

/// The port on which nodes answer on their own address, which the `kube-dns` Service's endpoints name.
pub const NODE_PORT: u16 = 10_053;
const PORT: u16 = 53;
const TABLES: [Table; 2] =
    [Table { family: Family::Ip, name: "pintle-dns" }, Table { family: Family::Ip6, name: "pintle-dns" }];
/// How long a TCP connection may be silent, and how many answers may wait to be sent on it.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_WAITING: usize = 32;

/// How DNS is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace of the node.
    pub ns: NetNs,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
    /// The cluster addresses of DNS, one a family.
    pub cluster_ips: Vec<IpAddr>,
    /// The node's own addresses, on which others of the cluster may ask too (at `NODE_PORT`).
    pub node_ips: Vec<IpAddr>,
    /// Who may ask there.
    pub allowed: Vec<Net>,
    /// Who is asked about names outside the cluster.
    pub upstream: Upstream,
    /// A number that grows from start to start, such as the time in seconds.
    pub serial: u32,
}

/// What went wrong with DNS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The domain is no name.
    #[error("invalid cluster domain {0:?}")]
    Domain(String),
    /// The link or its addresses were refused.
    #[error(transparent)]
    Link(#[from] crate::links::Error),
    /// The rules were refused.
    #[error(transparent)]
    Rules(#[from] crate::nft::Error),
    /// A socket failed.
    #[error("DNS on {at}: {source}")]
    Socket {
        /// Its address.
        at: String,
        /// Why.
        source: io::Error,
    },
}

/// A running DNS server.
pub struct Dns {
    zone: Arc<RwLock<Zone>>,
    servers: Vec<Server<Handler>>,
    addresses: Vec<SocketAddr>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Dns {
    /// Takes the cluster addresses of DNS and starts to answer on them; the zone is empty at first.
    ///
    /// # Errors
    /// When an address or port cannot be taken.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        take_addresses(config).await?;
        let mut dns = Self::answering(config, &[])?;
        let cluster: Vec<SocketAddr> = config.cluster_ips.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect();
        dns.listen(config, &cluster, None)?;
        let own: Vec<SocketAddr> = config.node_ips.iter().map(|ip| SocketAddr::new(*ip, NODE_PORT)).collect();
        let mut allowed = config.allowed.clone();
        allowed.extend(config.node_ips.iter().map(|ip| Net::single(*ip)));
        dns.listen(config, &own, Some(allowed.into()))?;
        Ok(dns)
    }

    /// Answers on any addresses, taking none.
    ///
    /// # Errors
    /// When a port cannot be taken.
    pub fn answering(config: &Config, addresses: &[SocketAddr]) -> Result<Self, Error> {
        let mut domain = Name::from_ascii(&config.domain).map_err(|_| Error::Domain(config.domain.clone()))?;
        domain.set_fqdn(true);
        let zone = Arc::new(RwLock::new(Zone::new(domain, config.cluster_ips.clone(), config.serial)));
        let mut dns = Self { zone, servers: Vec::new(), addresses: Vec::new() };
        dns.listen(config, addresses, None)?;
        Ok(dns)
    }

    fn listen(&mut self, config: &Config, addresses: &[SocketAddr], allowed: Option<Arc<[Net]>>) -> Result<(), Error> {
        if addresses.is_empty() {
            return Ok(());
        }
        let own = config.cluster_ips.iter().chain(&config.node_ips).copied().collect();
        let forwarder = Arc::new(Forwarder::new(config.upstream.clone(), own));
        let mut server = Server::new(Handler { zone: self.zone.clone(), forwarder, allowed });
        for at in addresses {
            let failed = |source| Error::Socket { at: at.to_string(), source };
            let (udp, tcp) = config.ns.run(|| bind(*at)).map_err(failed)?.map_err(failed)?;
            self.addresses.push(udp.local_addr().map_err(failed)?);
            server.register_socket(tokio::net::UdpSocket::from_std(udp).map_err(failed)?);
            server.register_listener(tokio::net::TcpListener::from_std(tcp).map_err(failed)?, TCP_IDLE, TCP_WAITING);
        }
        self.servers.push(server);
        Ok(())
    }

    /// What the server knows; told of objects through this.
    #[must_use]
    pub fn zone(&self) -> &Arc<RwLock<Zone>> {
        &self.zone
    }

    /// Where it answers.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops answering.
    pub async fn stop(mut self) {
        for server in &mut self.servers {
            if let Err(err) = server.shutdown_gracefully().await {
                tracing::debug!(%err, "stopping DNS");
            }
        }
    }
}

/// Both sockets of an address; with port 0 both get the same port.
fn bind(at: SocketAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    // A port that is free for UDP may be taken for TCP: then another one.
    const TRIES: usize = 16;
    let mut bound = bind_once(at);
    for _ in 1..TRIES {
        match &bound {
            Err(e) if at.port() == 0 && e.kind() == io::ErrorKind::AddrInUse => bound = bind_once(at),
            _ => break,
        }
    }
    bound
}

fn bind_once(at: SocketAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let udp: std::net::UdpSocket = socket(at, SocketType::DGRAM)?.into();
    let tcp = socket(udp.local_addr()?, SocketType::STREAM)?;
    rustix::net::listen(&tcp, 128)?;
    Ok((udp, tcp.into()))
}

fn socket(at: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // The cluster address is routed here but on no link, which an IPv6 socket does not take for its own by itself.
    if at.is_ipv4() {
        sockopt::set_ip_freebind(&fd, true)?;
    } else {
        sockopt::set_ipv6_freebind(&fd, true)?;
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    rustix::net::bind(&fd, &at)?;
    Ok(fd)
}

/// Makes the cluster addresses the node's own, and keeps their traffic out of connection tracking.
async fn take_addresses(config: &Config) -> Result<(), Error> {
    let opening = |source| Error::Socket { at: "the cluster address".into(), source };
    let links = Links::open(&config.ns).map_err(opening)?;
    for ip in &config.cluster_ips {
        links.add_local(*ip).await?;
    }
    write_rules(config)
}

/// Writes the rules, whatever is there.
fn write_rules(config: &Config) -> Result<(), Error> {
    let opening = |source| Error::Socket { at: "the cluster address".into(), source };
    let mut batch = Batch::new();
    for table in TABLES {
        untrack(&mut batch, table, &config.cluster_ips);
    }
    Ok(Nft::open(&config.ns).map_err(opening)?.apply(batch)?)
}

fn untrack(batch: &mut Batch, table: Table, ips: &[IpAddr]) {
    let family = table.family;
    batch.fresh_table(table, "Pintle: cluster DNS");
    batch.add_set(table, &Set::plain("served", vec![family.addr(), Kind::InetProto, Kind::InetService]));
    let mut elements = Vec::new();
    for ip in ips.iter().filter(|ip| Family::of(**ip) == family) {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            elements.push(Element::key(Key::new().ip(*ip).proto(protocol.number()).port(PORT)));
        }
    }
    batch.add_elements(table, "served", &elements);
    let to = [Field::Daddr(family), Field::L4Proto, Field::Dport];
    let from = [Field::Saddr(family), Field::L4Proto, Field::Sport];
    let untracked = |fields: &[Field]| Rule::new().in_set(fields, "served", true).with(Expr::Notrack);
    let raw = |point| Some(Hook::new("filter", point, -300));
    batch.chain(
        table,
        &Chain { name: "raw-prerouting", hook: raw(Hook::PREROUTING) },
        &[untracked(&to), untracked(&from)],
    );
    batch.chain(table, &Chain { name: "raw-output", hook: raw(Hook::OUTPUT) }, &[untracked(&to), untracked(&from)]);
}

/// Gives the cluster addresses up and removes what `start` made.
///
/// # Errors
/// When the kernel refuses.
pub async fn cleanup(ns: &NetNs) -> Result<(), Error> {
    let opening = |source| Error::Socket { at: "the cluster address".into(), source };
    Links::open(ns).map_err(opening)?.delete_locals().await?;
    let mut nft = Nft::open(ns).map_err(opening)?;
    for table in TABLES {
        crate::delete_table(&mut nft, table)?;
    }
    Ok(())
}

/// The `kube-dns` Service that users expect to find.
#[must_use]
pub fn service_object(cluster_ips: &[IpAddr]) -> Value {
    let ips: Vec<String> = cluster_ips.iter().map(ToString::to_string).collect();
    let families: Vec<&str> = cluster_ips.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": ips.first(),
            "clusterIPs": ips,
            "ipFamilies": families,
            "ipFamilyPolicy": if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" },
            "ports": [
                {"name": "dns", "port": PORT, "protocol": "UDP", "targetPort": NODE_PORT},
                {"name": "dns-tcp", "port": PORT, "protocol": "TCP", "targetPort": NODE_PORT},
            ],
            "type": "ClusterIP",
        },
    })
}

/// The EndpointSlice of that Service for one node and family: each node keeps its own, which goes when the node does.
#[must_use]
pub fn slice_object(node: &str, node_uid: &str, ip: IpAddr) -> Value {
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("kube-dns-{node}-{}", family.to_lowercase()),
            "namespace": "kube-system",
            "labels": {
                "kubernetes.io/service-name": "kube-dns",
                "endpointslice.kubernetes.io/managed-by": "dns.pintle.io",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}],
        },
        "addressType": family,
        "endpoints": [{
            "addresses": [ip.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": node,
        }],
        "ports": [
            {"name": "dns", "port": NODE_PORT, "protocol": "UDP"},
            {"name": "dns-tcp", "port": NODE_PORT, "protocol": "TCP"},
        ],
    })
}

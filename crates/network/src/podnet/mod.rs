//! The pod network of one node: each pod has a veth pair, its addresses are routed to it one by one, and there is no
//! bridge.
//!
//! The pod's default route leads to a gateway address that exists nowhere: the hardware addresses of both ends are told
//! to both ends, so nothing is ever resolved.

mod ipam;
mod nodes;
mod rules;
mod run;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use ipam::Allocation;
pub use nodes::{Mode, Peer};

use crate::addr::{Net, Protocol};
use crate::links::{self, LOOPBACK, Links, Route, VethPair};
use crate::netns::NetNs;
use crate::nft::{self, Batch, Nft};
use crate::sysctl;
use ipam::Ipam;

/// How the links of pods are named on the node.
const LINK_PREFIX: &str = "pin";
/// The hardware address of the node's end of every pair.
const NODE_MAC: [u8; 6] = [0xee; 6];
/// The pod's end: the first link after loopback.
const POD_INDEX: u32 = 2;
const POD_LINK: &str = "eth0";
const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The node's address it is bound to; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port of the node.
    pub host_port: u16,
    /// The port of the pod.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.host_ip {
            write!(f, "{ip}:")?;
        }
        write!(f, "{}/{}", self.host_port, self.protocol)
    }
}

/// How a node's pod network is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace of the node.
    pub ns: NetNs,
    /// Where records are kept.
    pub state_dir: PathBuf,
    /// The blocks pods get their addresses from (the Node's `spec.podCIDRs`), one a family.
    pub pod_cidrs: Vec<Net>,
    /// The blocks of all pods of the cluster: traffic to them keeps its source.
    pub cluster_cidrs: Vec<Net>,
    /// The largest packet of pods; the node's default link decides when absent.
    pub mtu: Option<u32>,
    /// How other nodes are reached.
    pub mode: Mode,
}

/// What a pod was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its addresses, the first being the one Kubernetes shows as `podIP`.
    pub ips: Vec<IpAddr>,
    /// The link on the node that leads to it.
    pub link: String,
}

/// What went wrong with the pod network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address, or its record failed.
    #[error(transparent)]
    Address(#[from] ipam::Error),
    /// A link, address or route was refused.
    #[error(transparent)]
    Link(#[from] links::Error),
    /// The rules were refused.
    #[error(transparent)]
    Rules(#[from] nft::Error),
    /// A namespace or kernel setting failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn io_error(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Error {
    let what = what.to_string();
    move |source| Error::Io { what, source }
}

/// The pod network of one node.
#[derive(Debug)]
pub struct PodNetwork {
    config: Config,
    links: Links,
    state: Mutex<State>,
    nodes: tokio::sync::Mutex<nodes::Nodes>,
    mtu: u32,
}

#[derive(Debug)]
struct State {
    ipam: Ipam,
    nft: Nft,
}

impl PodNetwork {
    /// Prepares the node: kernel settings, rules, and what is known of pods from before.
    ///
    /// # Errors
    /// When the kernel lacks something or the records cannot be read.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let ipam = Ipam::open(&config.state_dir.join("ipam"), &config.pod_cidrs)?;
        let v6 = config.pod_cidrs.iter().any(|net| !net.is_ipv4());
        let entering = || io_error("entering the node's network namespace");
        config.ns.run(|| prepare_node(v6)).map_err(entering())?.map_err(io_error("preparing the node"))?;
        let links = Links::open(&config.ns).map_err(io_error("opening the node's links"))?;
        let mut nft = Nft::open(&config.ns).map_err(io_error("opening nftables"))?;
        nft.apply(rules::all(&config.pod_cidrs, &config.cluster_cidrs, ipam.all()))?;
        let uplink_mtu = links.all().await?.iter().filter(|l| is_uplink(&l.name)).map(|l| l.mtu).min().unwrap_or(1500);
        let mtu = config.mtu.unwrap_or(uplink_mtu - config.mode.overhead());
        let nodes = tokio::sync::Mutex::new(nodes::Nodes::default());
        Ok(Self { config, links, state: Mutex::new(State { ipam, nft }), nodes, mtu })
    }

    /// Connects a sandbox's namespace. Asked again for the same sandbox, it completes what is missing and gives the same
    /// addresses.
    ///
    /// # Errors
    /// When no address is free, a host port is taken or the kernel refuses; nothing is left behind then.
    pub async fn attach(&self, id: &str, netns: &Path, ports: &[HostPort]) -> Result<Attachment, Error> {
        let pod = NetNs::open(netns).map_err(io_error(format!("opening the network namespace {}", netns.display())))?;
        let (known, allocation) = {
            let mut state = self.state.lock();
            (state.ipam.get(id).is_some(), state.ipam.allocate(id, ports)?)
        };
        let link = link_name(id);
        let connected = self.connect(&link, id, &pod, &allocation).await;
        let done = connected.and_then(|()| {
            let mut batch = Batch::new();
            rules::add_pod(&mut batch, &allocation);
            let applied = self.state.lock().nft.apply(batch);
            match applied {
                // Somebody removed our rules; all of them include this pod's.
                Err(err) if err.is_not_found() => self.rewrite_rules(),
                other => Ok(other?),
            }
        });
        match done {
            Ok(()) => Ok(Attachment { ips: allocation.ips, link }),
            Err(err) => {
                if !known && let Err(again) = self.detach(id).await {
                    tracing::warn!(id, %again, "undoing a failed attach");
                }
                Err(err)
            }
        }
    }

    /// Takes care of a sandbox that lives on from before a restart: whatever is missing of its records, link and rules is
    /// made again, with the addresses it has.
    ///
    /// # Errors
    /// When another sandbox has its address, or the kernel refuses.
    pub async fn restore(
        &self,
        id: &str,
        netns: &Path,
        ips: &[IpAddr],
        ports: &[HostPort],
    ) -> Result<Attachment, Error> {
        self.state.lock().ipam.adopt(id, ips, ports)?;
        self.attach(id, netns, ports).await
    }

    async fn connect(&self, link: &str, id: &str, pod: &NetNs, allocation: &Allocation) -> Result<(), Error> {
        let mac = pod_mac(&allocation.ips);
        let peer_ns = pod.fd().ok_or_else(|| {
            io_error("attaching a pod")(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a pod needs a namespace of its own",
            ))
        })?;
        let v6 = allocation.ips.iter().any(IpAddr::is_ipv6);
        let runtime = tokio::runtime::Handle::current();
        // One visit to the pod's namespace for its settings and its socket.
        let inside = pod
            .run(|| -> io::Result<Links> {
                let _runtime = runtime.enter();
                prepare_pod(v6)?;
                Links::open(&NetNs::host())
            })
            .map_err(io_error("entering the pod's network namespace"))?
            .map_err(io_error("preparing the pod"))?;
        let pair = VethPair {
            name: link,
            mac: NODE_MAC,
            peer: POD_LINK,
            peer_mac: mac,
            peer_index: POD_INDEX,
            peer_ns,
            mtu: self.mtu,
            alias: id,
        };
        let made = self.links.add_veth(&pair).await;
        match made {
            // Of this sandbox, from an attempt that was cut off, or of one whose namespace is gone.
            Err(err) if err.is_exists() => {
                if inside.by_name(POD_LINK).await.is_err() {
                    self.links.delete(link).await?;
                    self.links.add_veth(&pair).await?;
                }
            }
            other => other?,
        }
        self.settle_link(link, !allocation.ports.is_empty())?;
        inside.set_up(LOOPBACK).await?;
        inside.set_up(POD_INDEX).await?;
        let index = self.links.running(link).await?.index;
        for ip in &allocation.ips {
            let gateway = if ip.is_ipv4() { GATEWAY4 } else { GATEWAY6 };
            let everything =
                Net::new(if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }, 0);
            inside.add_address(POD_INDEX, *ip).await?;
            inside.set_neighbour(POD_INDEX, gateway, NODE_MAC).await?;
            let on_link = Route { to: Net::single(gateway), via: None, index: POD_INDEX, source: None };
            inside.set_route(&on_link).await?;
            if let Some(to) = everything {
                inside.set_route(&Route { to, via: Some(gateway), index: POD_INDEX, source: None }).await?;
            }
            self.links.set_neighbour(index, *ip, mac).await?;
            self.links.set_route(&Route { to: Net::single(*ip), via: None, index, source: None }).await?;
        }
        Ok(())
    }

    /// Kernel settings of the node's end of a pair.
    fn settle_link(&self, link: &str, host_ports: bool) -> Result<(), Error> {
        let settle = || {
            if host_ports {
                sysctl::set(&format!("ipv4/conf/{link}/route_localnet"), "1")?;
            }
            sysctl::set(&format!("ipv4/conf/{link}/rp_filter"), "1")
        };
        let settled = self.config.ns.run(settle).map_err(io_error("entering the node's network namespace"))?;
        settled.map_err(io_error(format!("settling the link {link}")))
    }

    /// Disconnects a sandbox and frees its addresses; that it is unknown or half gone is no error.
    ///
    /// # Errors
    /// When the kernel refuses or the record cannot be removed.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        self.links.delete(&link_name(id)).await?;
        let mut state = self.state.lock();
        let Some(allocation) = state.ipam.get(id).cloned() else { return Ok(()) };
        let mut batch = Batch::new();
        rules::remove_pod(&mut batch, &allocation);
        match state.nft.apply(batch) {
            // The rules were never added (a cut-off attach), or somebody removed them: say all of them anew.
            Err(err) if err.is_not_found() => {
                let others: Vec<Allocation> = state.ipam.all().filter(|a| a.id != id).cloned().collect();
                state.nft.apply(rules::all(&self.config.pod_cidrs, &self.config.cluster_cidrs, others.iter()))?;
            }
            other => other?,
        }
        state.ipam.release(id)?;
        Ok(())
    }

    /// What a sandbox has; `None` when it is not attached.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Attachment> {
        let state = self.state.lock();
        state.ipam.get(id).map(|found| Attachment { ips: found.ips.clone(), link: link_name(id) })
    }

    /// Frees what belongs to sandboxes that no longer live, after a restart.
    ///
    /// # Errors
    /// When the kernel refuses or a record cannot be removed.
    pub async fn retain(&self, living: &HashSet<String>) -> Result<(), Error> {
        let gone = self.state.lock().ipam.others_than(living);
        for id in gone {
            tracing::info!(id, "freeing the addresses of a sandbox that is gone");
            self.detach(&id).await?;
        }
        let keep: HashSet<String> = living.iter().map(|id| link_name(id)).collect();
        for link in self.links.all().await? {
            if is_pod_link(&link.name) && !keep.contains(&link.name) {
                self.links.delete(&link.name).await?;
            }
        }
        Ok(())
    }

    /// Writes the rules anew after somebody removed them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rewrite_rules(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        let batch = rules::all(&self.config.pod_cidrs, &self.config.cluster_cidrs, state.ipam.all());
        Ok(state.nft.apply(batch)?)
    }

    /// Replaces the blocks of all pods of the cluster.
    ///
    /// # Errors
    /// When the kernel refuses the rules.
    pub fn set_cluster_cidrs(&self, blocks: &[Net]) -> Result<(), Error> {
        let mut batch = Batch::new();
        rules::set_cluster(&mut batch, blocks);
        Ok(self.state.lock().nft.apply(batch)?)
    }

    /// Tells which other nodes there are; routes and tunnels follow.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_peers(&self, own: &[IpAddr], peers: &[Peer]) -> Result<(), Error> {
        let mut nodes = self.nodes.lock().await;
        nodes.apply(&self.links, &self.config, own, peers, self.mtu).await
    }

    /// The addresses of this node's pods.
    #[must_use]
    pub fn pod_ips(&self) -> Vec<IpAddr> {
        self.state.lock().ipam.all().flat_map(|a| a.ips.clone()).collect()
    }
}

/// Removes every link, route, rule and record of the pod network.
///
/// # Errors
/// When the kernel refuses.
pub async fn cleanup(ns: &NetNs, state_dir: &Path) -> Result<(), Error> {
    let links = Links::open(ns).map_err(io_error("opening the node's links"))?;
    for link in links.all().await? {
        if is_pod_link(&link.name) || link.name == nodes::VXLAN {
            links.delete(&link.name).await?;
        }
    }
    links.delete_own_routes().await?;
    let mut nft = Nft::open(ns).map_err(io_error("opening nftables"))?;
    for table in rules::TABLES {
        crate::delete_table(&mut nft, table)?;
    }
    match std::fs::remove_dir_all(state_dir.join("ipam")) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(io_error("removing the address records")(err)),
        _ => Ok(()),
    }
}

/// The name of the link to a sandbox: a prefix and 48 bits of the identifier's digest.
fn link_name(id: &str) -> String {
    format!("{LINK_PREFIX}{}", hex::encode(&Sha256::digest(id)[..6]))
}

fn is_pod_link(name: &str) -> bool {
    name.strip_prefix(LINK_PREFIX).is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether traffic to other machines may leave by a link, as far as its name tells.
fn is_uplink(name: &str) -> bool {
    name != "lo"
        && !is_pod_link(name)
        && !["pintle", "docker", "veth", "cni", "flannel", "virbr", "br-", "dummy"].iter().any(|p| name.starts_with(p))
}

/// A locally administered hardware address made from the pod's first address.
fn pod_mac(ips: &[IpAddr]) -> [u8; 6] {
    let tail = match ips.first() {
        Some(IpAddr::V4(ip)) => ip.octets(),
        Some(IpAddr::V6(ip)) => {
            let digest = Sha256::digest(ip.octets());
            [digest[0], digest[1], digest[2], digest[3]]
        }
        None => [0; 4],
    };
    [0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]]
}

/// Kernel settings of the node.
fn prepare_node(v6: bool) -> io::Result<()> {
    sysctl::set("ipv4/ip_forward", "1")?;
    // A pod that reaches itself by a Service leaves and enters by one link; it must not be told of a shorter way.
    sysctl::set("ipv4/conf/all/send_redirects", "0")?;
    sysctl::set("ipv4/conf/default/send_redirects", "0")?;
    if v6 {
        // A forwarding host ignores router advertisements unless told otherwise, and would lose its own default route.
        for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = format!("ipv6/conf/{name}/accept_ra");
            if name != "all" && name != "default" && sysctl::get(&path).is_ok_and(|value| value == "1") {
                sysctl::set(&path, "2")?;
            }
        }
        sysctl::set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Kernel settings inside a pod, before it has a link.
fn prepare_pod(v6: bool) -> io::Result<()> {
    if v6 {
        sysctl::set("ipv6/conf/all/disable_ipv6", "0")?;
        sysctl::set("ipv6/conf/default/accept_dad", "0")?;
        sysctl::set("ipv6/conf/default/accept_ra", "0")?;
    }
    Ok(())
}

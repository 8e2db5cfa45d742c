//! Routes to the pods of other nodes: over VXLAN, or plain where all nodes share a link.

use std::collections::HashSet;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::{Config, Error};
use crate::addr::Net;
use crate::links::{Links, Route};

/// The name of the VXLAN link.
pub const VXLAN: &str = "pintle-vxlan";
const VNI: u32 = 1;
const PORT: u16 = 8472;

/// How other nodes' pods are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// In VXLAN packets between the nodes' addresses; works wherever nodes reach each other.
    #[default]
    Vxlan,
    /// By plain routes through the nodes' addresses; needs all nodes on one link.
    Routes,
}

impl Mode {
    /// Bytes a packet grows by on its way.
    pub(super) fn overhead(self) -> u32 {
        match self {
            // Outer IPv6 header; over IPv4 it is 50.
            Self::Vxlan => 70,
            Self::Routes => 0,
        }
    }
}

/// Another node, as its Node object tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its `InternalIP` addresses.
    pub ips: Vec<IpAddr>,
    /// The blocks of its pods.
    pub pod_cidrs: Vec<Net>,
}

/// What was set up for other nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    routes: HashSet<Route>,
}

impl Nodes {
    pub(super) async fn apply(
        &mut self,
        links: &Links,
        config: &Config,
        own: &[IpAddr],
        peers: &[Peer],
        mtu: u32,
    ) -> Result<(), Error> {
        let mut wanted = HashSet::new();
        if !peers.is_empty() {
            match config.mode {
                Mode::Vxlan => {
                    let Some(local) = own.first() else { return Ok(()) };
                    let index = ensure_vxlan(links, config, *local, mtu).await?;
                    for peer in peers {
                        let Some(behind) = peer.ips.iter().find(|ip| ip.is_ipv4() == local.is_ipv4()) else { continue };
                        let mac = node_mac(*behind);
                        links.set_forwarding(index, mac, *behind).await?;
                        for block in &peer.pod_cidrs {
                            let via = node_ip(block);
                            links.set_neighbour(index, via, mac).await?;
                            let source =
                                config.pod_cidrs.iter().find(|net| net.is_ipv4() == block.is_ipv4()).map(node_ip);
                            wanted.insert(Route { to: *block, via: Some(via), index, source });
                        }
                    }
                }
                Mode::Routes => {
                    let addresses = links.addresses().await?;
                    for peer in peers {
                        for block in &peer.pod_cidrs {
                            let family = |ip: &&IpAddr| ip.is_ipv4() == block.is_ipv4();
                            let (Some(via), Some(mine)) = (peer.ips.iter().find(family), own.iter().find(family))
                            else {
                                continue;
                            };
                            let Some((index, _)) = addresses.iter().find(|(_, ip)| ip == mine) else { continue };
                            wanted.insert(Route { to: *block, via: Some(*via), index: *index, source: None });
                        }
                    }
                }
            }
        }
        for route in self.routes.difference(&wanted) {
            links.delete_route(route).await?;
        }
        for route in &wanted {
            links.set_route(route).await?;
        }
        self.routes = wanted;
        Ok(())
    }
}

async fn ensure_vxlan(links: &Links, config: &Config, local: IpAddr, mtu: u32) -> Result<u32, Error> {
    let mac = node_mac(local);
    match links.add_vxlan(VXLAN, VNI, PORT, local, mac, mtu).await {
        Err(err) if !err.is_exists() => return Err(err.into()),
        _ => {}
    }
    let index = links.by_name(VXLAN).await?.index;
    for block in &config.pod_cidrs {
        links.add_address(index, node_ip(block)).await?;
    }
    Ok(index)
}

/// The address of a node on the pod network: the first after its block's own.
fn node_ip(block: &Net) -> IpAddr {
    block.nth(1).unwrap_or(block.first())
}

/// The hardware address of a node's VXLAN link, known to all from the node's address.
fn node_mac(ip: IpAddr) -> [u8; 6] {
    let digest = match ip {
        IpAddr::V4(ip) => Sha256::digest(ip.octets()),
        IpAddr::V6(ip) => Sha256::digest(ip.octets()),
    };
    [0x0e, digest[0], digest[1], digest[2], digest[3], digest[4]]
}

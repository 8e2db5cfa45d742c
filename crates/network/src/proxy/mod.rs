//! The service proxy: makes the addresses of Services lead to their endpoints.

mod conntrack;
mod decide;
mod health;
mod layout;
mod program;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Net, Protocol};
use crate::netns::NetNs;
use crate::nft::{self, Family, Nft};
use crate::views::{Name, Node, Service, Slice};
use decide::{Decision, Local};
use health::HealthChecks;
pub use layout::NodePortAddresses;
use program::{Aftermath, Program};
pub use run::run;

/// How the proxy of a node works.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The namespace of the node.
    pub ns: NetNs,
    /// The name of the node.
    pub node: String,
    /// On which addresses node ports are served.
    pub node_port_addresses: NodePortAddresses,
    /// Whether the source of every call is replaced.
    pub masquerade_all: bool,
    /// The blocks of all pods; when known, callers from elsewhere are masqueraded.
    pub cluster_cidrs: Vec<Net>,
    /// Cluster addresses a server of this node answers itself (the cluster DNS); the proxy leaves them alone.
    pub served_here: BTreeSet<IpAddr>,
}

/// What went wrong with the proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules were refused.
    #[error(transparent)]
    Rules(#[from] nft::Error),
    /// The kernel could not be asked.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The proxy of one node: told of objects, it keeps the rules as they should be.
#[derive(Debug)]
pub struct Proxy {
    config: Config,
    nft: Nft,
    programs: [Program; 2],
    local: Local,
    services: HashMap<Name, Arc<Service>>,
    /// By Service, then by the slice's own name.
    slices: HashMap<Name, BTreeMap<String, Arc<Slice>>>,
    /// The Service each slice belongs to.
    owners: HashMap<Name, Name>,
    dirty: HashSet<Name>,
    health: HealthChecks,
    /// Whether the rules must be written anew.
    whole: bool,
}

impl Proxy {
    /// A proxy that knows nothing yet. Nothing is changed before the first `sync`.
    ///
    /// # Errors
    /// When the kernel offers no nftables.
    pub fn new(config: Config) -> io::Result<Self> {
        let nft = Nft::open(&config.ns)?;
        let addresses = &config.node_port_addresses;
        let programs = [Program::new(Family::Ip, addresses.clone()), Program::new(Family::Ip6, addresses.clone())];
        let local = Local {
            node: config.node.clone(),
            served_here: config.served_here.clone(),
            masquerade_all: config.masquerade_all,
            pods_known: !config.cluster_cidrs.is_empty(),
            ..Local::default()
        };
        Ok(Self {
            config,
            nft,
            programs,
            local,
            services: HashMap::new(),
            slices: HashMap::new(),
            owners: HashMap::new(),
            dirty: HashSet::new(),
            health: HealthChecks::default(),
            whole: true,
        })
    }

    /// A Service was made or changed.
    pub fn set_service(&mut self, service: impl Into<Arc<Service>>) {
        let service = service.into();
        if self.services.get(&service.name) != Some(&service) {
            self.dirty.insert(service.name.clone());
            self.services.insert(service.name.clone(), service);
        }
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, name: &Name) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    /// An EndpointSlice was made or changed; `None` when it is no longer one the proxy heeds.
    pub fn set_slice(&mut self, name: &Name, slice: Option<Arc<Slice>>) {
        let Some(slice) = slice else { return self.remove_slice(name) };
        if self.owners.get(name).is_some_and(|owner| *owner != slice.service) {
            self.remove_slice(name);
        }
        let of_service = self.slices.entry(slice.service.clone()).or_default();
        if of_service.get(&name.name) == Some(&slice) {
            return;
        }
        self.dirty.insert(slice.service.clone());
        self.owners.insert(name.clone(), slice.service.clone());
        of_service.insert(name.name.clone(), slice);
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, name: &Name) {
        let Some(owner) = self.owners.remove(name) else { return };
        if let Some(of_service) = self.slices.get_mut(&owner) {
            of_service.remove(&name.name);
            if of_service.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.insert(owner);
    }

    /// The Node object of this node was made or changed.
    pub fn set_node(&mut self, node: &Node) {
        if self.local.zone != node.zone || self.local.ips != node.ips {
            self.local.zone.clone_from(&node.zone);
            self.local.ips.clone_from(&node.ips);
            self.dirty.extend(self.services.keys().cloned());
        }
    }

    /// The rules are not what they were: the next `sync` writes all of them.
    pub fn write_anew(&mut self) {
        self.whole = true;
    }

    /// Whether there is anything for `sync` to do.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.whole || !self.dirty.is_empty()
    }

    fn slices_of(&self, name: &Name) -> impl Iterator<Item = &Slice> + Clone {
        self.slices.get(name).into_iter().flat_map(BTreeMap::values).map(Arc::as_ref)
    }

    fn decision(&self, name: &Name, family: Family) -> Decision {
        let Some(service) = self.services.get(name) else { return Decision::default() };
        decide::decide(service, self.slices_of(name), &self.local, family)
    }

    /// Brings the rules to what the objects say; must be called within a tokio runtime. What failed is done again with the
    /// next call.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sync(&mut self) -> Result<(), Error> {
        let dirty: Vec<Name> = self.dirty.drain().collect();
        let mut failed = None;
        for at in 0..self.programs.len() {
            let family = self.programs[at].family();
            let decisions: Vec<(Name, Decision)> =
                dirty.iter().map(|name| (name.clone(), self.decision(name, family))).collect();
            match self.sync_family(at, decisions) {
                Ok(()) => {}
                Err(err) => failed = Some(err),
            }
        }
        for name in &dirty {
            self.sync_health(name);
        }
        self.whole = failed.is_some();
        failed.map_or(Ok(()), Err)
    }

    fn sync_family(&mut self, at: usize, decisions: Vec<(Name, Decision)>) -> Result<(), Error> {
        let (program, nft) = (&mut self.programs[at], &mut self.nft);
        let aftermath = if self.whole {
            let mut aftermath = program.load(decisions);
            program.resync(nft)?;
            aftermath.stale_clients = true;
            aftermath
        } else {
            // Taken note of first, so that a refused change is part of the next whole.
            match program.apply(nft, decisions) {
                Ok(aftermath) => aftermath,
                Err(err) => {
                    tracing::warn!(%err, "the rules are not as they were left; writing all of them anew");
                    program.resync(nft)?;
                    Aftermath { stale_clients: true, ..Aftermath::default() }
                }
            }
        };
        program.set_places(nft, &self.config.cluster_cidrs, &self.local.ips)?;
        if aftermath.stale_clients {
            program.forget_stale_clients(nft)?;
        }
        if aftermath.moved.iter().any(|front| front.protocol() == Protocol::Udp) {
            let known = |front: &decide::Front| aftermath.moved.contains(front).then(|| program.target(front));
            let count = conntrack::forget_stale_flows(&self.config.ns, program.family(), known)?;
            tracing::debug!(count, "forgot stale UDP flows");
        }
        Ok(())
    }

    fn sync_health(&mut self, name: &Name) {
        let wanted = self.services.get(name).and_then(|service| decide::health_check(service)).map(|(_, port)| {
            let slices = self.slices_of(name);
            (port, decide::local_ready(slices, &self.local.node))
        });
        if let Err(err) = self.health.set(&self.config.ns, name, wanted) {
            let port = wanted.map(|(port, _)| port).unwrap_or_default();
            tracing::error!(service = %name, port, %err, "failed to start healthcheck");
        }
    }
}

/// Removes every rule of the proxy.
///
/// # Errors
/// When the kernel refuses.
pub fn cleanup(ns: &NetNs) -> Result<(), Error> {
    let mut nft = Nft::open(ns)?;
    for table in layout::TABLES {
        crate::delete_table(&mut nft, table)?;
    }
    Ok(())
}

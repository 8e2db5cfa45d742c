//! Which sandbox has which addresses: kept in memory and, one file a sandbox, on disk.
//!
//! A file is written beside its place and renamed into it, so it is there whole or not at all when the process dies.
//! It is not forced to the disk: after a loss of power no sandbox lives, and none of its addresses is in use.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::HostPort;
use crate::addr::Net;

/// Addresses at the start of a block that no pod gets: the network's own, and the one of the node on the pod network.
const RESERVED: u128 = 2;

/// What a sandbox was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The sandbox.
    pub id: String,
    /// Its addresses, one a block, in the order of the blocks.
    pub ips: Vec<IpAddr>,
    /// The ports of the node that lead to it.
    #[serde(default)]
    pub ports: Vec<HostPort>,
}

/// Why no address was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every address of a block is taken.
    #[error("no free address left in {0}")]
    Exhausted(Net),
    /// A host port is taken by another sandbox.
    #[error("host port {port} is in use by sandbox {holder}")]
    PortTaken {
        /// The port.
        port: HostPort,
        /// Who has it.
        holder: String,
    },
    /// An address a sandbox says it has is another's.
    #[error("address {ip} belongs to sandbox {holder}")]
    AddressTaken {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// The record could not be written.
    #[error("recording addresses in {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The addresses of one node.
#[derive(Debug)]
pub struct Ipam {
    dir: PathBuf,
    blocks: Vec<Net>,
    /// Where to look for a free address next, one a block: addresses are reused as late as possible.
    next: Vec<u128>,
    by_id: BTreeMap<String, Allocation>,
    taken: HashSet<IpAddr>,
}

impl Ipam {
    /// Reads what was given out before.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path, blocks: &[Net]) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut ipam = Self {
            dir: dir.to_owned(),
            blocks: blocks.to_vec(),
            next: vec![RESERVED; blocks.len()],
            by_id: BTreeMap::new(),
            taken: HashSet::new(),
        };
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let read = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Allocation>(&bytes).ok());
            match read {
                Some(found) if ipam.path(&found.id) == path => {
                    ipam.taken.extend(&found.ips);
                    ipam.by_id.insert(found.id.clone(), found);
                }
                // A leftover of a write that was cut off: the sandbox never got an answer.
                _ => {
                    tracing::warn!(path = %path.display(), "removing an unreadable address record");
                    fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
                }
            }
        }
        for (block, next) in ipam.blocks.iter().zip(&mut ipam.next) {
            let highest = ipam.by_id.values().flat_map(|a| &a.ips).filter_map(|ip| block.index_of(*ip)).max();
            *next = highest.map_or(RESERVED, |at| at + 1);
        }
        Ok(ipam)
    }

    /// A sandbox's identifier may hold anything; its file is named by digest.
    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{}.json", hex::encode(&Sha256::digest(id)[..16])))
    }

    /// What a sandbox has.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Allocation> {
        self.by_id.get(id)
    }

    /// What every sandbox has.
    pub fn all(&self) -> impl Iterator<Item = &Allocation> {
        self.by_id.values()
    }

    /// Gives a sandbox an address of each block; the same again when asked again.
    ///
    /// # Errors
    /// When a block is full, a host port is taken, or the record cannot be written; then nothing is given.
    pub fn allocate(&mut self, id: &str, ports: &[HostPort]) -> Result<Allocation, Error> {
        if let Some(found) = self.by_id.get(id) {
            return Ok(found.clone());
        }
        for other in self.by_id.values() {
            if let Some(port) = ports.iter().find(|port| other.ports.iter().any(|held| held.conflicts_with(port))) {
                return Err(Error::PortTaken { port: port.clone(), holder: other.id.clone() });
            }
        }
        let mut ips = Vec::with_capacity(self.blocks.len());
        for at in 0..self.blocks.len() {
            ips.push(self.free_in(at)?);
        }
        let allocation = Allocation { id: id.to_owned(), ips, ports: ports.to_vec() };
        self.write(&allocation)?;
        self.taken.extend(&allocation.ips);
        self.by_id.insert(id.to_owned(), allocation.clone());
        Ok(allocation)
    }

    /// Takes note of addresses a sandbox has from before, if nothing is known of it.
    ///
    /// # Errors
    /// When another sandbox has one of them, or the record cannot be written.
    pub fn adopt(&mut self, id: &str, ips: &[IpAddr], ports: &[HostPort]) -> Result<(), Error> {
        if self.by_id.contains_key(id) {
            return Ok(());
        }
        if let Some((ip, holder)) = ips.iter().find_map(|ip| {
            self.taken.contains(ip).then_some(())?;
            self.by_id.values().find(|other| other.ips.contains(ip)).map(|other| (*ip, other.id.clone()))
        }) {
            return Err(Error::AddressTaken { ip, holder });
        }
        let allocation = Allocation { id: id.to_owned(), ips: ips.to_vec(), ports: ports.to_vec() };
        self.write(&allocation)?;
        self.taken.extend(ips);
        self.by_id.insert(id.to_owned(), allocation);
        Ok(())
    }

    fn free_in(&mut self, at: usize) -> Result<IpAddr, Error> {
        let block = self.blocks[at];
        let count = block.index_of(block.last()).unwrap_or(0);
        // The last address of an IPv4 block is its broadcast address. A block too small to spare any gives all.
        let (low, high) = if count > RESERVED { (RESERVED, count - u128::from(block.is_ipv4())) } else { (0, count) };
        let size = high - low + 1;
        let start = self.next[at].clamp(low, high) - low;
        // At most one more try than there are addresses taken is needed.
        for step in 0..size.min(self.taken.len() as u128 + 1) {
            let index = low + (start + step) % size;
            if let Some(ip) = block.nth(index).filter(|ip| !self.taken.contains(ip)) {
                self.next[at] = if index == high { low } else { index + 1 };
                return Ok(ip);
            }
        }
        Err(Error::Exhausted(block))
    }

    fn write(&self, allocation: &Allocation) -> Result<(), Error> {
        let path = self.path(&allocation.id);
        let aside = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            fs::write(&aside, serde_json::to_vec(allocation)?)?;
            fs::rename(&aside, &path)
        };
        write().map_err(|source| Error::Io { path: path.clone(), source })
    }

    /// Takes a sandbox's addresses back; that it has none is no error.
    ///
    /// # Errors
    /// When the record cannot be removed; the addresses stay taken then.
    pub fn release(&mut self, id: &str) -> Result<Option<Allocation>, Error> {
        if !self.by_id.contains_key(id) {
            return Ok(None);
        }
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(Error::Io { path, source: err }),
            _ => {}
        }
        let gone = self.by_id.remove(id);
        for ip in gone.iter().flat_map(|allocation| &allocation.ips) {
            self.taken.remove(ip);
        }
        Ok(gone)
    }

    /// The sandboxes that are not among the living.
    #[must_use]
    pub fn others_than(&self, living: &HashSet<String>) -> Vec<String> {
        self.by_id.keys().filter(|id| !living.contains(*id)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn port(host_ip: Option<&str>, host_port: u16) -> HostPort {
        let protocol = crate::addr::Protocol::Tcp;
        HostPort { host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, container_port: 80, protocol }
    }

    #[test]
    fn addresses_are_unique_stable_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = nets(&["10.1.2.0/24", "fd00:1::/64"]);
        let mut ipam = Ipam::open(dir.path(), &blocks).unwrap();
        let a = ipam.allocate("a", &[]).unwrap();
        assert_eq!(a.ips, ["10.1.2.2".parse::<IpAddr>().unwrap(), "fd00:1::2".parse().unwrap()]);
        assert_eq!(ipam.allocate("a", &[]).unwrap(), a);
        let b = ipam.allocate("b", &[port(None, 8080)]).unwrap();
        assert_ne!(a.ips, b.ips);
        // A write that was cut off leaves no trace.
        fs::write(dir.path().join("x.tmp"), "{").unwrap();

        let mut again = Ipam::open(dir.path(), &blocks).unwrap();
        assert_eq!(again.get("b"), Some(&b));
        let c = again.allocate("c", &[]).unwrap();
        assert!(c.ips.iter().all(|ip| !a.ips.contains(ip) && !b.ips.contains(ip)));
        assert_eq!(again.release("a").unwrap(), Some(a.clone()));
        assert_eq!(again.release("a").unwrap(), None);
        // A freed address is not given out again at once.
        assert_ne!(again.allocate("d", &[]).unwrap().ips, a.ips);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        let living = HashSet::from(["b".to_owned()]);
        assert_eq!(again.others_than(&living), ["c", "d"]);
    }

    #[test]
    fn a_block_is_used_up_to_the_last_address_and_no_further() {
        for (block, count) in [("10.0.0.0/29", 5), ("10.0.0.0/30", 1), ("10.0.0.7/32", 1), ("fd00::/126", 2)] {
            let dir = tempfile::tempdir().unwrap();
            let mut ipam = Ipam::open(dir.path(), &nets(&[block])).unwrap();
            let mut seen = HashSet::new();
            for n in 0..count {
                assert!(seen.insert(ipam.allocate(&format!("{n}"), &[]).unwrap().ips[0]), "{block}");
            }
            assert!(matches!(ipam.allocate("more", &[]), Err(Error::Exhausted(_))), "{block}: {seen:?}");
            let free = ipam.release("0").unwrap().unwrap();
            assert_eq!(ipam.allocate("more", &[]).unwrap().ips, free.ips);
        }
    }

    #[test]
    fn what_sandboxes_have_from_before_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(dir.path(), &nets(&["10.0.0.0/24"])).unwrap();
        let two: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap()];
        ipam.adopt("old", &two, &[]).unwrap();
        ipam.adopt("old", &two, &[]).unwrap();
        assert!(matches!(ipam.adopt("thief", &two, &[]), Err(Error::AddressTaken { holder, .. }) if holder == "old"));
        assert_ne!(ipam.allocate("new", &[]).unwrap().ips, two);
        assert_eq!(Ipam::open(dir.path(), &nets(&["10.0.0.0/24"])).unwrap().get("old").unwrap().ips, two);
    }

    #[test]
    fn host_ports_are_held_by_one_sandbox() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(dir.path(), &nets(&["10.0.0.0/24"])).unwrap();
        ipam.allocate("a", &[port(Some("10.9.0.1"), 80)]).unwrap();
        ipam.allocate("b", &[port(Some("10.9.0.2"), 80)]).unwrap();
        assert!(matches!(ipam.allocate("c", &[port(None, 80)]), Err(Error::PortTaken { .. })));
        ipam.release("a").unwrap();
        ipam.release("b").unwrap();
        ipam.allocate("c", &[port(None, 80)]).unwrap();
    }
}

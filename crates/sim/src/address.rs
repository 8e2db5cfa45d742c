//! Addresses, given out from networks.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use pintle_client::api::addresses::masked;

/// Networks that addresses are of: one of each family at most, the first family first. Address number *n* is the *n*th
/// of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool(Vec<(IpAddr, u8)>);

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// An address of the same family.
fn like(ip: IpAddr, bits: u128) -> IpAddr {
    match ip {
        // An address of a network of 32 bits has no more.
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = text.split_once('/')?;
    let (ip, length): (IpAddr, u8) = (ip.parse().ok()?, length.parse().ok()?);
    (length <= width(ip) && masked(ip, length) == ip).then_some((ip, length))
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |n: &str| format!("{n:?} is no network such as 100.64.0.0/10");
        let all = text.split(',').map(|n| network(n).ok_or_else(|| bad(n))).collect::<Result<Vec<_>, _>>()?;
        if all.len() > 2 || (all.len() == 2 && all[0].0.is_ipv4() == all[1].0.is_ipv4()) {
            return Err(format!("{text:?}: one network of each family at most"));
        }
        Ok(Self(all))
    }
}

impl Pool {
    /// How many addresses there are, the network's own left out.
    fn len(&self) -> u32 {
        let of = |(ip, length): &(IpAddr, u8)| {
            1_u128.checked_shl((width(*ip) - length).into()).map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX))
        };
        self.0.iter().map(of).min().unwrap_or(0).saturating_sub(1)
    }

    /// Address number `n` of each family.
    fn address(&self, n: u32) -> Vec<IpAddr> {
        self.0.iter().map(|(base, _)| like(*base, bits(*base) + u128::from(n) + 1)).collect()
    }

    /// The number of an address of the first family.
    fn number(&self, ip: IpAddr) -> Option<u32> {
        let (base, _) = self.0.first().filter(|(b, _)| b.is_ipv4() == ip.is_ipv4())?;
        let n = bits(ip).checked_sub(bits(*base))?.checked_sub(1)?;
        u32::try_from(n).ok().filter(|n| *n < self.len())
    }
}

/// Addresses of a pool and who has them.
#[derive(Debug)]
pub struct Addresses {
    pool: Pool,
    next: u32,
    by_owner: HashMap<String, u32>,
    taken: HashSet<u32>,
}

impl Addresses {
    /// All of a pool, free.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, next: 0, by_owner: HashMap::new(), taken: HashSet::new() }
    }

    /// The addresses of an owner, which are given now unless it has some; `None` when all are given.
    pub fn take(&mut self, owner: &str) -> Option<Vec<IpAddr>> {
        if let Some(n) = self.by_owner.get(owner) {
            return Some(self.pool.address(*n));
        }
        let size = self.pool.len();
        if self.taken.len() >= size as usize {
            return None;
        }
        // In turn, so that an address is not given again at once.
        while self.taken.contains(&self.next) {
            self.next = (self.next + 1) % size;
        }
        let n = self.next;
        self.next = (n + 1) % size;
        self.give(owner, n);
        Some(self.pool.address(n))
    }

    fn give(&mut self, owner: &str, n: u32) {
        self.taken.insert(n);
        self.by_owner.insert(owner.to_owned(), n);
    }

    /// An owner has an address already. One of elsewhere, or another's, is left alone.
    pub fn note(&mut self, owner: &str, ip: IpAddr) {
        if let Some(n) = self.pool.number(ip).filter(|n| !self.taken.contains(n))
            && !self.by_owner.contains_key(owner)
        {
            self.give(owner, n);
        }
    }

    /// An owner is gone.
    pub fn give_back(&mut self, owner: &str) {
        if let Some(n) = self.by_owner.remove(owner) {
            self.taken.remove(&n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (text, good) in [
            ("10.0.0.0/8", true),
            ("10.0.0.0/8,fd00::/64", true),
            ("::/0", true),
            ("10.0.0.0/8,11.0.0.0/8", false),
            ("10.0.0.1/8", false),
            ("10.0.0.0/33", false),
            ("10.0.0.0", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Pool>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn each_has_its_own() {
        let mut a = Addresses::new("10.0.0.0/30,fd00::/64".parse().unwrap());
        let ips = |x: &str, y: &str| Some(vec![x.parse::<IpAddr>().unwrap(), y.parse().unwrap()]);
        a.note("old", "10.0.0.1".parse().unwrap());
        a.note("elsewhere", "10.0.1.1".parse().unwrap());
        assert_eq!(a.take("a"), ips("10.0.0.2", "fd00::2"));
        assert_eq!(a.take("a"), ips("10.0.0.2", "fd00::2"));
        assert_eq!(a.take("b"), ips("10.0.0.3", "fd00::3"));
        assert_eq!(a.take("c"), None);
        a.give_back("old");
        assert_eq!(a.take("c"), ips("10.0.0.1", "fd00::1"));
    }
}

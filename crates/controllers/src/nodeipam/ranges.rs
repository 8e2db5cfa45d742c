//! Address ranges cut into parts of equal size.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Parts of one range that are tracked at most: a larger range is used up to this many.
const MOST: u128 = 1 << 16;

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u128,
    length: u8,
    v6: bool,
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an address range");
        let (ip, length) = text.split_once('/').ok_or_else(bad)?;
        let (ip, length): (IpAddr, u8) = (ip.parse().map_err(|_| bad())?, length.parse().map_err(|_| bad())?);
        let (bits, width, v6) = match ip {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32, false),
            IpAddr::V6(ip) => (u128::from(ip), 128, true),
        };
        if length > width {
            return Err(bad());
        }
        let host = width - length;
        let base = bits.checked_shr(host.into()).unwrap_or(0).checked_shl(host.into()).unwrap_or(0);
        Ok(Self { base, length, v6 })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.v6 {
            write!(f, "{}/{}", Ipv6Addr::from(self.base), self.length)
        } else {
            write!(f, "{}/{}", Ipv4Addr::from(u32::try_from(self.base).unwrap_or(0)), self.length)
        }
    }
}

impl Cidr {
    fn host_bits(&self) -> u32 {
        (if self.v6 { 128 } else { 32 }) - u32::from(self.length)
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (bits, v6) = match ip {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), false),
            IpAddr::V6(ip) => (u128::from(ip), true),
        };
        v6 == self.v6 && (self.base..=self.last()).contains(&bits)
    }

    /// Whether all of another range is in it.
    #[must_use]
    pub fn contains_network(&self, other: &Self) -> bool {
        self.v6 == other.v6 && self.base <= other.base && other.last() <= self.last()
    }

    fn last(&self) -> u128 {
        let size = 1u128.checked_shl(self.host_bits()).map_or(u128::MAX, |s| s - 1);
        self.base | size
    }
}

/// A range and which of its parts are taken.
#[derive(Debug)]
pub struct Ranges {
    whole: Cidr,
    part: u8,
    taken: Vec<bool>,
    next: usize,
}

impl Ranges {
    /// Cuts a range into parts with prefixes of `v4` or `v6` bits.
    ///
    /// # Errors
    /// When the range does not parse or is smaller than one part.
    pub fn new(text: &str, v4: u8, v6: u8) -> Result<Self, String> {
        let whole: Cidr = text.parse()?;
        let part = if whole.v6 { v6 } else { v4 };
        if part < whole.length || part > if whole.v6 { 128 } else { 32 } {
            return Err(format!("a part of /{part} does not fit"));
        }
        let count = 1u128.checked_shl(u32::from(part - whole.length)).unwrap_or(MOST).min(MOST);
        Ok(Self { whole, part, taken: vec![false; usize::try_from(count).unwrap_or(0)], next: 0 })
    }

    fn at(&self, i: usize) -> Cidr {
        let width: u32 = if self.whole.v6 { 128 } else { 32 };
        let offset = (i as u128).checked_shl(width - u32::from(self.part)).unwrap_or(0);
        Cidr { base: self.whole.base + offset, length: self.part, v6: self.whole.v6 }
    }

    /// Takes the next free part, going round.
    pub fn take(&mut self) -> Option<Cidr> {
        let n = self.taken.len();
        let i = (0..n).map(|k| (self.next + k) % n).find(|i| !self.taken[*i])?;
        self.taken[i] = true;
        self.next = (i + 1) % n;
        Some(self.at(i))
    }

    fn set(&mut self, cidr: &Cidr, taken: bool) {
        if cidr.v6 != self.whole.v6 || cidr.base > self.whole.last() || cidr.last() < self.whole.base {
            return;
        }
        let width: u32 = if self.whole.v6 { 128 } else { 32 };
        let shift = width - u32::from(self.part);
        let index =
            |a: u128| usize::try_from((a - self.whole.base).checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX);
        let (from, to) = (index(cidr.base.max(self.whole.base)), index(cidr.last().min(self.whole.last())));
        for i in from..=to.min(self.taken.len().saturating_sub(1)) {
            self.taken[i] = taken;
        }
    }

    /// Marks every part that a range touches as taken.
    pub fn occupy(&mut self, cidr: &Cidr) {
        self.set(cidr, true);
    }

    /// Marks a part as free again.
    pub fn release(&mut self, cidr: &Cidr) {
        self.set(cidr, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(t: &str) -> Cidr {
        t.parse().unwrap()
    }

    #[test]
    fn parses_and_prints() {
        for (text, want) in
            [("10.1.2.3/16", "10.1.0.0/16"), ("0.0.0.0/0", "0.0.0.0/0"), ("fd00::1/64", "fd00::/64"), ("::/0", "::/0")]
        {
            assert_eq!(cidr(text).to_string(), want);
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "::/129"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_are_given_once() {
        let mut r = Ranges::new("10.244.0.0/22", 24, 64).unwrap();
        r.occupy(&cidr("10.244.1.128/25"));
        let got: Vec<String> = std::iter::from_fn(|| r.take()).map(|c| c.to_string()).collect();
        assert_eq!(got, ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
        r.release(&cidr("10.244.2.0/24"));
        assert_eq!(r.take(), Some(cidr("10.244.2.0/24")));
        r.release(&cidr("192.168.0.0/24"));
        assert_eq!(r.take(), None);
        let mut r = Ranges::new("fd00::/48", 24, 64).unwrap();
        assert_eq!(
            (r.take().unwrap().to_string(), r.take().unwrap().to_string()),
            ("fd00::/64".into(), "fd00:0:0:1::/64".into())
        );
        assert!(Ranges::new("10.0.0.0/25", 24, 64).is_err());
        // A range that covers all of it, and one far outside.
        let mut r = Ranges::new("10.0.0.0/23", 24, 64).unwrap();
        r.occupy(&cidr("0.0.0.0/0"));
        assert_eq!(r.take(), None);
    }
}

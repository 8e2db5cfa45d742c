//! Blocks of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses in CIDR form, its host bits cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net {
    ip: IpAddr,
    prefix: u8,
}

/// A text that is no address block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct ParseNetError(String);

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(bits & u128::from(u32::MAX)).unwrap_or_default().into()),
        IpAddr::V6(_) => IpAddr::V6(bits.into()),
    }
}

impl Net {
    /// The block around an address; `None` when the prefix is too long for the family.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        let whole = Self { ip, prefix };
        (prefix <= whole.width()).then(|| Self { ip: from_bits(ip, to_bits(ip) & !whole.host_mask()), prefix })
    }

    /// The block of one address.
    #[must_use]
    pub fn single(ip: IpAddr) -> Self {
        Self { ip, prefix: if ip.is_ipv4() { 32 } else { 128 } }
    }

    fn width(&self) -> u8 {
        if self.ip.is_ipv4() { 32 } else { 128 }
    }

    fn host_mask(&self) -> u128 {
        let bits = u32::from(self.width() - self.prefix);
        u128::MAX.checked_shr(128 - bits).unwrap_or(0)
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.ip
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        from_bits(self.ip, to_bits(self.ip) | self.host_mask())
    }

    /// The length of the prefix.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the block is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.ip.is_ipv4()
    }

    /// Whether an address is in the block.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && to_bits(ip) & !self.host_mask() == to_bits(self.ip)
    }

    /// The address at a distance from the first; `None` outside the block.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        (index <= self.host_mask()).then(|| from_bits(self.ip, to_bits(self.ip) + index))
    }

    /// How far an address is from the first; `None` outside the block.
    #[must_use]
    pub fn index_of(&self, ip: IpAddr) -> Option<u128> {
        self.contains(ip).then(|| to_bits(ip) - to_bits(self.ip))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for Net {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Self, ParseNetError> {
        let wrong = || ParseNetError(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        Self::new(ip.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?).ok_or_else(wrong)
    }
}

/// A transport protocol a Service or container port may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP packets.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of a Kubernetes name; the empty name means TCP.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        for (text, first, last) in [
            ("10.0.0.77/24", "10.0.0.0", "10.0.0.255"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("1.2.3.4/32", "1.2.3.4", "1.2.3.4"),
            ("fd00::5/64", "fd00::", "fd00::ffff:ffff:ffff:ffff"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let net: Net = text.parse().unwrap();
            assert_eq!((net.first(), net.last()), (first.parse().unwrap(), last.parse().unwrap()), "{text}");
            assert!(net.contains(net.first()) && net.contains(net.last()));
            assert_eq!(net.index_of(net.last()).and_then(|at| net.nth(at)), Some(net.last()));
        }
        let net: Net = "10.0.0.0/24".parse().unwrap();
        assert!(!net.contains("10.0.1.0".parse().unwrap()) && !net.contains("::1".parse().unwrap()));
        assert_eq!((net.nth(256), net.nth(3)), (None, Some("10.0.0.3".parse().unwrap())));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "x/1", "10.0.0.0/-1", "10.0.0.0/a"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }
}

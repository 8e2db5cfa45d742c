//! Addresses and prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first address of a prefix.
#[must_use]
pub fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (ip, length, first) in [
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 20, "10.1.0.0"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("10.1.2.3", 99, "10.1.2.3"),
            ("fd00::1:2", 112, "fd00::1:0"),
            ("fd00::1", 0, "::"),
        ] {
            assert_eq!(masked(ip.parse().unwrap(), length), first.parse::<IpAddr>().unwrap(), "{ip}/{length}");
        }
    }
}

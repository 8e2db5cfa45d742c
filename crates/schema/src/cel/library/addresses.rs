//! Addresses and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cel::objects::{Opaque, Value};
use cel::{DeclarationError, Env, ExecutionError};
use pintle_api::addresses::masked;

use super::{Outcome, Runtime, STRING_TYPE, fail, functions, opaque, string, text, value_of};

const IP: &str = "net.IP";
const CIDR: &str = "net.CIDR";

#[derive(Debug, PartialEq, Eq)]
struct CelIp(IpAddr);

#[derive(Debug, PartialEq, Eq)]
struct CelCidr {
    ip: IpAddr,
    bits: u8,
}

impl Opaque for CelIp {
    fn runtime_type_name(&self) -> &str {
        IP
    }
}

impl Opaque for CelCidr {
    fn runtime_type_name(&self) -> &str {
        CIDR
    }
}

/// An address; none with a zone, and no IPv4 dressed up as IPv6.
fn address(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = match text.split_once('%') {
        Some((ip, _)) if ip.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!("IP address {text:?} with zone value is not allowed"));
        }
        _ => text.parse().map_err(|_| format!("IP Address {text:?} parse error during conversion from string"))?,
    };
    match ip {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        ip => Ok(ip),
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn range(text: &str) -> Result<CelCidr, String> {
    let wrong = || format!("network address parse error during conversion from string: {text:?}");
    let (ip, bits) = text.rsplit_once('/').ok_or_else(wrong)?;
    if ip.contains('%') {
        return Err(wrong());
    }
    let ip = address(ip)?;
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits = bits.parse().ok().filter(|b| plain && *b <= width(ip)).ok_or_else(wrong)?;
    Ok(CelCidr { ip, bits })
}

impl CelCidr {
    fn masked(&self) -> IpAddr {
        masked(self.ip, self.bits)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && masked(ip, self.bits) == self.masked()
    }
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let ip_type = || Runtime::new_opaque_type(IP);
    let cidr_type = || Runtime::new_opaque_type(CIDR);
    env.add_type(ip_type())?;
    env.add_type(cidr_type())?;
    functions!(env;
        g "ip" (STRING_TYPE) |a| address(text(a, 0)?).map(|ip| opaque(CelIp(ip))).map_err(|e| fail("ip", e));
        g "isIP" (STRING_TYPE) |a| Ok(Value::Bool(address(text(a, 0)?).is_ok()));
        g "ip.isCanonical" (STRING_TYPE) |a| {
            let text = text(a, 0)?;
            address(text).map(|ip| Value::Bool(ip.to_string() == text)).map_err(|e| fail("ip.isCanonical", e))
        };
        m "family" (ip_type()) |a| Ok(Value::Int(if ip(a, 0)?.is_ipv4() { 4 } else { 6 }));
        m "isUnspecified" (ip_type()) |a| told(a, |ip| ip.is_unspecified());
        m "isLoopback" (ip_type()) |a| told(a, |ip| ip.is_loopback());
        m "isLinkLocalMulticast" (ip_type()) |a| told(a, |ip| match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        });
        m "isLinkLocalUnicast" (ip_type()) |a| told(a, link_local);
        m "isGlobalUnicast" (ip_type()) |a| told(a, |ip| {
            let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
            !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip))
        });
        g "string" (ip_type()) |a| Ok(string(ip(a, 0)?.to_string()));
        g "cidr" (STRING_TYPE) |a| range(text(a, 0)?).map(opaque).map_err(|e| fail("cidr", e));
        g "isCIDR" (STRING_TYPE) |a| Ok(Value::Bool(range(text(a, 0)?).is_ok()));
        m "containsIP" (cidr_type(), ip_type()) |a| Ok(Value::Bool(cidr(a, 0)?.contains(ip(a, 1)?)));
        m "containsIP" (cidr_type(), STRING_TYPE) |a| {
            let ip = address(text(a, 1)?).map_err(|e| fail("containsIP", e))?;
            Ok(Value::Bool(cidr(a, 0)?.contains(ip)))
        };
        m "containsCIDR" (cidr_type(), cidr_type()) |a| within(cidr(a, 0)?, cidr(a, 1)?);
        m "containsCIDR" (cidr_type(), STRING_TYPE) |a| {
            within(cidr(a, 0)?, &range(text(a, 1)?).map_err(|e| fail("containsCIDR", e))?)
        };
        m "ip" (cidr_type()) |a| Ok(opaque(CelIp(cidr(a, 0)?.ip)));
        m "prefixLength" (cidr_type()) |a| Ok(Value::Int(cidr(a, 0)?.bits.into()));
        m "masked" (cidr_type()) |a| {
            let of = cidr(a, 0)?;
            Ok(opaque(CelCidr { ip: of.masked(), bits: of.bits }))
        };
        g "string" (cidr_type()) |a| {
            let of = cidr(a, 0)?;
            Ok(string(format!("{}/{}", of.ip, of.bits)))
        };
    )
}

fn ip(args: &[Value], at: usize) -> Result<IpAddr, ExecutionError> {
    value_of::<CelIp>(args, at).map(|ip| ip.0)
}

fn cidr(args: &[Value], at: usize) -> Result<&CelCidr, ExecutionError> {
    value_of(args, at)
}

fn told(args: &[Value], what: fn(IpAddr) -> bool) -> Outcome {
    Ok(Value::Bool(what(ip(args, 0)?)))
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the shape of all functions")]
fn within(outer: &CelCidr, inner: &CelCidr) -> Outcome {
    Ok(Value::Bool(outer.bits <= inner.bits && outer.contains(inner.masked())))
}

//! Forgetting UDP flows whose endpoint is gone: UDP has no connections that would end by themselves, so a client that
//! keeps sending from one port would keep being sent to where its first packet went.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::addr::Protocol;
use crate::netns::NetNs;
use crate::nft::Family;
use crate::nl::{Attrs, Socket, Writer, flags};

use super::decide::{Front, Target};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NESTED: u16 = 0x8000;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
/// `nfgenmsg` before the attributes.
const HEAD: usize = 4;

/// One side of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
}

fn tuple(attrs: Attrs<'_>) -> Option<Tuple> {
    let (ip, proto) = (attrs.inside(1), attrs.inside(2));
    let address = |v4, v6| {
        let four = ip.get(v4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(IpAddr::from);
        four.or_else(|| ip.get(v6).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(IpAddr::from))
    };
    let port = |kind| Some(u16::from_be_bytes(proto.get(kind)?.try_into().ok()?));
    Some(Tuple {
        source: SocketAddr::new(address(1, 3)?, port(2)?),
        destination: SocketAddr::new(address(2, 4)?, port(3)?),
        protocol: *proto.get(1)?.first()?,
    })
}

/// Deletes the UDP flows of the frontends `target_of` knows that lead to something that is not an endpoint of theirs.
/// `Some(None)` stands for a frontend that is gone.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn forget_stale_flows<'t>(
    ns: &NetNs,
    family: Family,
    target_of: impl Fn(&Front) -> Option<Option<&'t Target>>,
) -> io::Result<usize> {
    let mut socket = Socket::open(ns)?;
    let mut request = Writer::new();
    let mark = request.begin_netfilter(SUBSYSTEM << 8 | GET, flags::REQUEST | flags::DUMP, 1, family.number(), 0);
    request.end(mark);
    let mut deletions = Writer::new();
    let mut count = 0u32;
    let mut visit = |_, body: &[u8]| {
        let Some(attrs) = body.get(HEAD..).map(Attrs) else { return };
        let (Some(orig), Some(reply)) = (tuple(attrs.inside(TUPLE_ORIG)), tuple(attrs.inside(TUPLE_REPLY))) else {
            return;
        };
        if orig.protocol != Protocol::Udp.number() {
            return;
        }
        let fronts = [
            Front::Ip(orig.destination.ip(), Protocol::Udp, orig.destination.port()),
            Front::Port(Protocol::Udp, orig.destination.port()),
        ];
        let Some(target) = fronts.iter().find_map(&target_of) else { return };
        let current = target.is_some_and(|target| {
            let outside = target.outside.iter().flat_map(|list| list.iter());
            target.endpoints.iter().chain(outside).any(|at| *at == reply.source)
        });
        if current {
            return;
        }
        count += 1;
        let mark = deletions.begin_netfilter(SUBSYSTEM << 8 | DELETE, flags::REQUEST, count, family.number(), 0);
        deletions.put(TUPLE_ORIG | NESTED, attrs.get(TUPLE_ORIG).unwrap_or_default());
        if let Some(zone) = attrs.get(ZONE) {
            deletions.put(ZONE, zone);
        }
        deletions.end(mark);
    };
    match socket.dump(request.bytes(), &mut visit) {
        // Flows came and went meanwhile; those of interest are older than this.
        Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
        other => other?,
    }
    if count > 0 {
        // That a flow ended by itself meanwhile is fine.
        if let Some(nack) = socket.batch(deletions.bytes())?.into_iter().find(|nack| nack.errno != libc::ENOENT) {
            return Err(nack.into_io());
        }
    }
    Ok(count as usize)
}

//! Tables, chains, sets and their elements, as values.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use crate::nl::Writer;

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Both IP families in one table.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Ip } else { Self::Ip6 }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    /// The set type of an address of this family.
    #[must_use]
    pub fn addr(self) -> Kind {
        if self == Self::Ip6 { Kind::Ip6Addr } else { Kind::IpAddr }
    }
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
}

/// Where a base chain is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// The point in the packet's path: `NF_INET_*`.
    pub point: u32,
    /// The order among chains at that point; lower runs first.
    pub priority: i32,
    /// Whether what no rule decides is dropped.
    pub drop: bool,
}

impl Hook {
    /// Packets as they arrive.
    pub const PREROUTING: u32 = 0;
    /// Packets for this host.
    pub const INPUT: u32 = 1;
    /// Packets passing through.
    pub const FORWARD: u32 = 2;
    /// Packets of this host's processes.
    pub const OUTPUT: u32 = 3;
    /// Packets as they leave.
    pub const POSTROUTING: u32 = 4;

    /// A hook that accepts what no rule decides.
    #[must_use]
    pub const fn new(kind: &'static str, point: u32, priority: i32) -> Self {
        Self { kind, point, priority, drop: false }
    }
}

/// A chain; a base chain when it has a hook.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is attached, for a base chain.
    pub hook: Option<Hook>,
}

/// The type of one part of a set's key or data. The numbers are those of the `nft` tool, which needs them to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A verdict (data only).
    Verdict,
    /// A plain 32-bit number in host order.
    Integer,
    /// An IPv4 address.
    IpAddr,
    /// An IPv6 address.
    Ip6Addr,
    /// A transport protocol.
    InetProto,
    /// A port.
    InetService,
    /// A packet mark.
    Mark,
    /// An interface name.
    IfName,
}

impl Kind {
    const fn number(self) -> u32 {
        match self {
            Self::Verdict => 0xffff_ff00,
            Self::Integer => 4,
            Self::IpAddr => 7,
            Self::Ip6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::IfName => 41,
        }
    }

    pub(crate) const fn len(self) -> u32 {
        match self {
            Self::Verdict | Self::Ip6Addr | Self::IfName => 16,
            Self::Integer | Self::IpAddr | Self::Mark => 4,
            Self::InetProto => 1,
            Self::InetService => 2,
        }
    }

    const fn host_order(self) -> bool {
        matches!(self, Self::Integer | Self::Mark | Self::IfName)
    }
}

/// The type number and length of a key or of data made of `parts`: parts after the first are packed six bits each, and
/// each part of a concatenation fills whole 32-bit registers.
fn concat(parts: &[Kind]) -> (u32, u32) {
    match parts {
        [one] => (one.number(), one.len()),
        _ => {
            parts.iter().fold((0, 0), |(ty, len), part| (ty << 6 | part.number(), len + part.len().next_multiple_of(4)))
        }
    }
}

/// A set, or a map when it has data.
#[derive(Debug, Clone)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// The parts of its key.
    pub key: Cow<'static, [Kind]>,
    /// The parts of its data, for a map.
    pub data: Cow<'static, [Kind]>,
    /// Whether keys are ranges.
    pub interval: bool,
    /// Whether rules may add elements, and when those go if no other time is given.
    pub dynamic: Option<Duration>,
    /// The most elements; needed for dynamic sets, which otherwise grow without bound.
    pub size: Option<u32>,
}

impl<'a> Set<'a> {
    /// A plain set.
    #[must_use]
    pub fn plain(name: &'a str, key: impl Into<Cow<'static, [Kind]>>) -> Self {
        Self { name, key: key.into(), data: Cow::Borrowed(&[]), interval: false, dynamic: None, size: None }
    }

    /// A map.
    #[must_use]
    pub fn map(name: &'a str, key: impl Into<Cow<'static, [Kind]>>, data: impl Into<Cow<'static, [Kind]>>) -> Self {
        Self { data: data.into(), ..Self::plain(name, key) }
    }

    /// A map to verdicts.
    #[must_use]
    pub fn vmap(name: &'a str, key: impl Into<Cow<'static, [Kind]>>) -> Self {
        Self::map(name, key, &[Kind::Verdict][..])
    }

    /// The same with ranges as keys.
    #[must_use]
    pub fn with_intervals(self) -> Self {
        Self { interval: true, ..self }
    }

    /// The same, filled by rules.
    #[must_use]
    pub fn filled_by_rules(self, timeout: Duration, size: u32) -> Self {
        Self { dynamic: Some(timeout), size: Some(size), ..self }
    }

    pub(super) fn write(&self, w: &mut Writer, id: u32) {
        const INTERVAL: u32 = 0x4;
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const CONCAT: u32 = 0x80;
        let (key_type, key_len) = concat(&self.key);
        let mut flags = 0;
        if self.interval {
            flags |= INTERVAL;
            if self.key.len() > 1 {
                flags |= CONCAT;
            }
        }
        if !self.data.is_empty() {
            flags |= MAP;
        }
        if self.dynamic.is_some() {
            flags |= TIMEOUT | EVAL;
        }
        w.u32(3, flags);
        w.u32(4, key_type);
        w.u32(5, key_len);
        if !self.data.is_empty() {
            let (data_type, data_len) = concat(&self.data);
            w.u32(6, data_type);
            w.u32(7, data_len);
        }
        if self.size.is_some() || (self.interval && self.key.len() > 1) {
            w.nest(9, |w| {
                if let Some(size) = self.size {
                    w.u32(1, size);
                }
                if self.interval && self.key.len() > 1 {
                    w.nest(2, |w| {
                        for part in self.key.iter() {
                            w.nest(1, |w| w.u32(1, part.len()));
                        }
                    });
                }
            });
        }
        w.u32(10, id);
        if let Some(timeout) = self.dynamic {
            w.u64(11, millis(timeout));
        }
        w.put(13, &self.user_data());
    }

    /// What the `nft` tool keeps for itself: the byte order of key and data, without which it prints host-order numbers
    /// the wrong way round.
    fn user_data(&self) -> Vec<u8> {
        let order = |parts: &[Kind]| if parts.len() == 1 && parts[0].host_order() { 1u32 } else { 2 };
        let mut out = vec![0, 4];
        out.extend_from_slice(&order(&self.key).to_ne_bytes());
        if !self.data.is_empty() && self.data[0] != Kind::Verdict {
            out.extend_from_slice(&[1, 4]);
            out.extend_from_slice(&order(&self.data).to_ne_bytes());
        }
        out
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let it pass this hook.
    Accept,
    /// Drop it.
    Drop,
    /// Go on after the rule that jumped here.
    Return,
    /// Go on with the next rule.
    Continue,
    /// Run a chain and come back.
    Jump(Cow<'static, str>),
    /// Run a chain instead of the rest of this one.
    Goto(Cow<'static, str>),
}

impl Verdict {
    /// A jump.
    pub fn jump(chain: impl Into<Cow<'static, str>>) -> Self {
        Self::Jump(chain.into())
    }

    /// A goto.
    pub fn goto(chain: impl Into<Cow<'static, str>>) -> Self {
        Self::Goto(chain.into())
    }

    pub(super) fn write(&self, w: &mut Writer) {
        let (code, chain) = match self {
            Self::Drop => (0i32, None),
            Self::Accept => (1, None),
            Self::Continue => (-1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        w.nest(2, |w| {
            w.put(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                w.str(2, chain);
            }
        });
    }
}

/// The bytes of a key or of data: its parts in packet order, each filling whole 32-bit registers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    bytes: KeyBytes,
}

/// Keys are short and there are very many; most fit without an allocation.
type KeyBytes = smallvec::SmallVec<[u8; 24]>;

impl Key {
    /// No parts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the bytes the kernel showed.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self { bytes: KeyBytes::from_slice(bytes) }
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        // A part after another starts at a register; a lone part keeps its own length.
        let start = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn ip(self, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.part(&ip.octets()),
            IpAddr::V6(ip) => self.part(&ip.octets()),
        }
    }

    /// Adds a transport protocol.
    #[must_use]
    pub fn proto(self, proto: u8) -> Self {
        self.part(&[proto])
    }

    /// Adds a port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes())
    }

    /// Adds a number in host order.
    #[must_use]
    pub fn number(self, number: u32) -> Self {
        self.part(&number.to_ne_bytes())
    }

    /// Adds an interface name.
    #[must_use]
    pub fn ifname(self, name: &str) -> Self {
        let mut bytes = [0u8; 16];
        for (to, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        self.part(&bytes)
    }

    /// The bytes, the last part of several padded to its register.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn write(&self, w: &mut Writer, kind: u16) {
        w.nest(kind, |w| {
            if self.bytes.len() > 4 && !self.bytes.len().is_multiple_of(4) {
                let mut padded = self.bytes.clone();
                padded.resize(padded.len().next_multiple_of(4), 0);
                w.put(1, &padded);
            } else {
                w.put(1, &self.bytes);
            }
        });
    }
}

/// What a map holds for a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Data {
    /// A verdict.
    Verdict(Verdict),
    /// A value.
    Value(Key),
}

/// How a range ends. The kernel keeps ranges of one-part keys as two entries, those of concatenations as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// The last key, of one part.
    Simple(Key),
    /// The last key, of several parts.
    Concat(Key),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its key, or where its range begins.
    pub key: Key,
    /// The last key of its range, for sets of ranges.
    pub end: Option<RangeEnd>,
    /// What the map holds for it.
    pub data: Option<Data>,
    /// A remark users see when they list the rules.
    pub comment: Option<String>,
}

impl Element {
    /// An element of a set.
    #[must_use]
    pub fn key(key: Key) -> Self {
        Self { key, end: None, data: None, comment: None }
    }

    /// A range of one-part keys.
    #[must_use]
    pub fn range(first: Key, last: Key) -> Self {
        Self { end: Some(RangeEnd::Simple(last)), ..Self::key(first) }
    }

    /// A range of keys of several parts: each part within its own bounds.
    #[must_use]
    pub fn ranges(first: Key, last: Key) -> Self {
        Self { end: Some(RangeEnd::Concat(last)), ..Self::key(first) }
    }

    /// The addresses of a block, as a range.
    #[must_use]
    pub fn block(net: crate::addr::Net) -> Self {
        Self::range(Key::new().ip(net.first()), Key::new().ip(net.last()))
    }

    /// An entry of a verdict map.
    #[must_use]
    pub fn verdict(key: Key, verdict: Verdict) -> Self {
        Self { data: Some(Data::Verdict(verdict)), ..Self::key(key) }
    }

    /// An entry of a map.
    #[must_use]
    pub fn value(key: Key, value: Key) -> Self {
        Self { data: Some(Data::Value(value)), ..Self::key(key) }
    }

    /// The same with a remark.
    #[must_use]
    pub fn commented(self, comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }

    /// Writes the element; a range in a set of single-part keys is two entries, start and (exclusive) end.
    pub(super) fn write(&self, w: &mut Writer, with_data: bool) {
        w.nest(1, |w| {
            self.key.write(w, 1);
            if let Some(RangeEnd::Concat(end)) = &self.end {
                end.write(w, 10);
            }
            if !with_data {
                return;
            }
            match &self.data {
                Some(Data::Verdict(verdict)) => w.nest(2, |w| verdict.write(w)),
                Some(Data::Value(value)) => value.write(w, 2),
                None => {}
            }
            if let Some(comment) = &self.comment {
                w.put(6, &remark(comment));
            }
        });
        if let Some(RangeEnd::Simple(end)) = &self.end
            && let Some(after) = successor(end)
        {
            w.nest(1, |w| {
                after.write(w, 1);
                w.u32(3, 1);
            });
        }
    }
}

/// A remark in the form the `nft` tool reads: type 0, length, text with its zero.
pub(super) fn remark(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(127)];
    let mut out = Vec::with_capacity(text.len() + 3);
    out.extend_from_slice(&[0, u8::try_from(text.len() + 1).unwrap_or(128)]);
    out.extend_from_slice(text);
    out.push(0);
    out
}

/// The next key in order; `None` after the last.
fn successor(key: &Key) -> Option<Key> {
    let mut next = key.clone();
    for byte in next.bytes.iter_mut().rev() {
        let (value, carry) = byte.overflowing_add(1);
        *byte = value;
        if !carry {
            return Some(next);
        }
    }
    None
}

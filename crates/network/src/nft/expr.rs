//! Rules: lists of expressions over the kernel's sixteen 32-bit registers.

use std::borrow::Cow;
use std::time::Duration;

use super::object::{Family, Key, Verdict, millis, remark};
use crate::nl::Writer;

/// What `meta` can load or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// The packet mark.
    Mark = 3,
    /// The name of the interface it came in by.
    IifName = 6,
    /// The name of the interface it leaves by.
    OifName = 7,
    /// The network protocol family.
    NfProto = 15,
    /// The transport protocol.
    L4Proto = 16,
}

/// What `ct` can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// The state bits: invalid 1, established 2, related 4, new 8, untracked 64.
    State = 0,
    /// The status bits: destination NAT is 0x20.
    Status = 2,
    /// The port the connection was opened to.
    OriginalDport = 12,
    /// The IPv4 address that opened the connection.
    OriginalSaddr = 19,
    /// The IPv4 address the connection was opened to.
    OriginalDaddr = 20,
    /// The IPv6 address that opened the connection.
    OriginalSaddr6 = 21,
    /// The IPv6 address the connection was opened to.
    OriginalDaddr6 = 22,
}

/// How registers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq = 0,
    /// Different.
    Ne = 1,
}

/// What a rule does to a dynamic set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DynsetOp {
    /// Add if absent.
    Add = 0,
    /// Add, or start its time anew.
    Update = 1,
    /// Delete.
    Delete = 2,
}

/// Which address is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// The source.
    Source = 0,
    /// The destination.
    Destination = 1,
}

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// ICMP port unreachable, in the packet's own family.
    PortUnreachable,
    /// TCP reset.
    TcpReset,
}

/// One part of a packet that a key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The source address.
    Saddr(Family),
    /// The destination address.
    Daddr(Family),
    /// The transport protocol.
    L4Proto,
    /// The source port.
    Sport,
    /// The destination port.
    Dport,
    /// The source address before any translation.
    OriginalSaddr(Family),
    /// The destination address before any translation.
    OriginalDaddr(Family),
    /// The destination port before any translation.
    OriginalDport,
    /// The interface it came in by.
    IifName,
    /// The interface it leaves by.
    OifName,
}

impl Field {
    /// The registers it fills.
    fn registers(self) -> u32 {
        match self {
            Self::Saddr(Family::Ip6)
            | Self::Daddr(Family::Ip6)
            | Self::OriginalSaddr(Family::Ip6)
            | Self::OriginalDaddr(Family::Ip6)
            | Self::IifName
            | Self::OifName => 4,
            _ => 1,
        }
    }

    fn load(self, dreg: u32) -> Expr {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let payload = |base, offset, len| Expr::Payload { base, offset, len, dreg };
        match self {
            Self::Saddr(Family::Ip6) => payload(NETWORK, 8, 16),
            Self::Saddr(_) => payload(NETWORK, 12, 4),
            Self::Daddr(Family::Ip6) => payload(NETWORK, 24, 16),
            Self::Daddr(_) => payload(NETWORK, 16, 4),
            Self::Sport => payload(TRANSPORT, 0, 2),
            Self::Dport => payload(TRANSPORT, 2, 2),
            Self::OriginalSaddr(Family::Ip6) => Expr::Ct { key: CtKey::OriginalSaddr6, dreg },
            Self::OriginalSaddr(_) => Expr::Ct { key: CtKey::OriginalSaddr, dreg },
            Self::OriginalDaddr(Family::Ip6) => Expr::Ct { key: CtKey::OriginalDaddr6, dreg },
            Self::OriginalDaddr(_) => Expr::Ct { key: CtKey::OriginalDaddr, dreg },
            Self::OriginalDport => Expr::Ct { key: CtKey::OriginalDport, dreg },
            Self::L4Proto => Expr::Meta { key: MetaKey::L4Proto, dreg },
            Self::IifName => Expr::Meta { key: MetaKey::IifName, dreg },
            Self::OifName => Expr::Meta { key: MetaKey::OifName, dreg },
        }
    }
}

/// An expression. Registers are counted from 0 to 15, four bytes each.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the kernel's own names; see nf_tables.h")]
pub enum Expr {
    Payload { base: u32, offset: u32, len: u32, dreg: u32 },
    Meta { key: MetaKey, dreg: u32 },
    MetaSet { key: MetaKey, sreg: u32 },
    Ct { key: CtKey, dreg: u32 },
    Numgen { modulus: u32, dreg: u32 },
    Fib { saddr: bool, dreg: u32 },
    Cmp { op: CmpOp, sreg: u32, data: Key },
    Bitwise { sreg: u32, dreg: u32, mask: Vec<u8>, xor: Vec<u8> },
    Lookup { set: Cow<'static, str>, sreg: u32, dreg: Option<u32>, verdict: bool, invert: bool },
    Dynset { set: Cow<'static, str>, op: DynsetOp, key: u32, data: Option<u32>, timeout: Option<Duration> },
    Immediate { dreg: u32, data: Key },
    Verdict(Verdict),
    Nat { kind: NatKind, family: Family, addr: u32, port: Option<u32> },
    Masquerade { fully_random: bool },
    Redirect { port: u32 },
    Counter,
    Reject(Reject, Family),
    Notrack,
}

/// The kernel's number of a 32-bit register.
const fn reg(index: u32) -> u32 {
    8 + index
}

impl Expr {
    pub(super) fn write(&self, w: &mut Writer) {
        let mark = w.begin_nest(1);
        w.str(1, self.name());
        w.nest(2, |w| self.write_data(w));
        w.end_nest(mark);
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::MetaSet { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Numgen { .. } => "numgen",
            Self::Fib { .. } => "fib",
            Self::Cmp { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Dynset { .. } => "dynset",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Nat { .. } => "nat",
            Self::Masquerade { .. } => "masq",
            Self::Redirect { .. } => "redir",
            Self::Counter => "counter",
            Self::Reject(..) => "reject",
            Self::Notrack => "notrack",
        }
    }

    fn write_data(&self, w: &mut Writer) {
        match self {
            Self::Payload { base, offset, len, dreg } => {
                w.u32(1, reg(*dreg));
                w.u32(2, *base);
                w.u32(3, *offset);
                w.u32(4, *len);
            }
            Self::Meta { key, dreg } => {
                w.u32(2, *key as u32);
                w.u32(1, reg(*dreg));
            }
            Self::MetaSet { key, sreg } => {
                w.u32(2, *key as u32);
                w.u32(3, reg(*sreg));
            }
            Self::Ct { key, dreg } => {
                w.u32(2, *key as u32);
                w.u32(1, reg(*dreg));
                if !matches!(key, CtKey::State | CtKey::Status) {
                    w.put(3, &[0]); // the original direction
                }
            }
            Self::Numgen { modulus, dreg } => {
                w.u32(1, reg(*dreg));
                w.u32(2, *modulus);
                w.u32(3, 1); // random
                w.u32(4, 0);
            }
            Self::Fib { saddr, dreg } => {
                w.u32(1, reg(*dreg));
                w.u32(2, 3); // the type of the address
                w.u32(3, if *saddr { 1 } else { 2 });
            }
            Self::Cmp { op, sreg, data } => {
                w.u32(1, reg(*sreg));
                w.u32(2, *op as u32);
                data.write(w, 3);
            }
            Self::Bitwise { sreg, dreg, mask, xor } => {
                w.u32(1, reg(*sreg));
                w.u32(2, reg(*dreg));
                w.u32(3, u32::try_from(mask.len()).unwrap_or_default());
                w.nest(4, |w| w.put(1, mask));
                w.nest(5, |w| w.put(1, xor));
            }
            Self::Lookup { set, sreg, dreg, verdict, invert } => {
                w.str(1, set);
                w.u32(2, reg(*sreg));
                if *verdict {
                    w.u32(3, 0);
                } else if let Some(dreg) = dreg {
                    w.u32(3, reg(*dreg));
                }
                if *invert {
                    w.u32(5, 1);
                }
            }
            Self::Dynset { set, op, key, data, timeout } => {
                w.str(1, set);
                w.u32(3, *op as u32);
                w.u32(4, reg(*key));
                if let Some(data) = data {
                    w.u32(5, reg(*data));
                }
                if let Some(timeout) = timeout {
                    w.u64(6, millis(*timeout));
                }
            }
            Self::Immediate { dreg, data } => {
                w.u32(1, reg(*dreg));
                data.write(w, 2);
            }
            Self::Verdict(verdict) => {
                w.u32(1, 0);
                w.nest(2, |w| verdict.write(w));
            }
            Self::Nat { kind, family, addr, port } => {
                w.u32(1, *kind as u32);
                w.u32(2, u32::from(family.number()));
                w.u32(3, reg(*addr));
                if let Some(port) = port {
                    w.u32(5, reg(*port));
                }
            }
            Self::Masquerade { fully_random } => {
                if *fully_random {
                    w.u32(1, 1 << 4);
                }
            }
            Self::Redirect { port } => w.u32(1, reg(*port)),
            Self::Counter => {
                w.u64(1, 0);
                w.u64(2, 0);
            }
            Self::Reject(how, family) => match (how, family) {
                (Reject::TcpReset, _) => {
                    w.u32(1, 1);
                    w.put(2, &[0]);
                }
                (Reject::PortUnreachable, Family::Inet) => {
                    w.u32(1, 2);
                    w.put(2, &[1]);
                }
                (Reject::PortUnreachable, Family::Ip) => {
                    w.u32(1, 0);
                    w.put(2, &[3]);
                }
                (Reject::PortUnreachable, Family::Ip6) => {
                    w.u32(1, 0);
                    w.put(2, &[4]);
                }
            },
            Self::Notrack => {}
        }
    }
}

/// A rule, built from left to right as `nft` would write it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    exprs: Vec<Expr>,
    comment: Option<String>,
}

impl Rule {
    /// A rule that matches everything and does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any expression.
    #[must_use]
    pub fn with(mut self, expr: Expr) -> Self {
        self.exprs.push(expr);
        self
    }

    /// Adds a remark that listings show.
    #[must_use]
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }

    /// Loads fields side by side from register `from` on.
    #[must_use]
    pub fn load_at(mut self, from: u32, fields: &[Field]) -> Self {
        let mut at = from;
        for field in fields {
            self.exprs.push(field.load(at));
            at += field.registers();
        }
        self
    }

    /// Loads fields side by side from the first register on.
    #[must_use]
    pub fn load(self, fields: &[Field]) -> Self {
        self.load_at(0, fields)
    }

    fn cmp(self, op: CmpOp, data: Key) -> Self {
        self.with(Expr::Cmp { op, sreg: 0, data })
    }

    /// Goes on when a field equals a value.
    #[must_use]
    pub fn eq(self, field: Field, data: Key) -> Self {
        self.load(&[field]).cmp(CmpOp::Eq, data)
    }

    /// Goes on when a field differs from a value.
    #[must_use]
    pub fn ne(self, field: Field, data: Key) -> Self {
        self.load(&[field]).cmp(CmpOp::Ne, data)
    }

    /// Goes on when a destination address is (or is not) in the block.
    #[must_use]
    pub fn not_in_loopback(self, family: Family) -> Self {
        if family == Family::Ip6 {
            return self.ne(Field::Daddr(family), Key::new().ip(std::net::Ipv6Addr::LOCALHOST.into()));
        }
        self.load(&[Field::Daddr(family)])
            .with(Expr::Bitwise { sreg: 0, dreg: 0, mask: vec![255, 0, 0, 0], xor: vec![0; 4] })
            .cmp(CmpOp::Ne, Key::new().ip(std::net::Ipv4Addr::new(127, 0, 0, 0).into()))
    }

    /// Goes on when any of the connection state's bits is set.
    #[must_use]
    pub fn ct(self, key: CtKey, bits: u32) -> Self {
        self.with(Expr::Ct { key, dreg: 0 })
            .with(Expr::Bitwise { sreg: 0, dreg: 0, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] })
            .cmp(CmpOp::Ne, Key::new().number(0))
    }

    /// Goes on when the mark has (or lacks) the bit.
    #[must_use]
    pub fn mark_has(self, bit: u32, has: bool) -> Self {
        self.with(Expr::Meta { key: MetaKey::Mark, dreg: 0 })
            .with(Expr::Bitwise { sreg: 0, dreg: 0, mask: bit.to_ne_bytes().to_vec(), xor: vec![0; 4] })
            .cmp(if has { CmpOp::Ne } else { CmpOp::Eq }, Key::new().number(0))
    }

    /// Sets or clears a bit of the mark.
    #[must_use]
    pub fn mark_set(self, bit: u32, on: bool) -> Self {
        let xor = if on { bit } else { 0 };
        self.with(Expr::Meta { key: MetaKey::Mark, dreg: 0 })
            .with(Expr::Bitwise {
                sreg: 0,
                dreg: 0,
                mask: (!bit).to_ne_bytes().to_vec(),
                xor: xor.to_ne_bytes().to_vec(),
            })
            .with(Expr::MetaSet { key: MetaKey::Mark, sreg: 0 })
    }

    /// Goes on when the source (or destination) is an address of this host.
    #[must_use]
    pub fn fib_local(self, saddr: bool) -> Self {
        const RTN_LOCAL: u32 = 2;
        self.with(Expr::Fib { saddr, dreg: 0 }).cmp(CmpOp::Eq, Key::new().number(RTN_LOCAL))
    }

    /// Goes on when the fields are (or are not) in a set.
    #[must_use]
    pub fn in_set(self, fields: &[Field], set: impl Into<Cow<'static, str>>, within: bool) -> Self {
        self.load(fields).with(Expr::Lookup { set: set.into(), sreg: 0, dreg: None, verdict: false, invert: !within })
    }

    /// Does what a verdict map says for the fields.
    #[must_use]
    pub fn vmap(self, fields: &[Field], map: impl Into<Cow<'static, str>>) -> Self {
        self.load(fields).with(Expr::Lookup { set: map.into(), sreg: 0, dreg: None, verdict: true, invert: false })
    }

    /// Ends with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.with(Expr::Verdict(verdict))
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.nest(4, |w| {
            for expr in &self.exprs {
                expr.write(w);
            }
        });
        if let Some(comment) = &self.comment {
            w.put(7, &remark(comment));
        }
    }
}

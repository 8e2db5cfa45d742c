//! The rules of the proxy: what is fixed, and what is made of maps.
//!
//! A frontend is an entry of a verdict map that leads to a chain shared by all frontends with as many endpoints and the
//! same wishes (`lb-3`, `lb-3-snat`). That chain draws a number and goes to `sel-<number>`, which rewrites the destination
//! to what the frontend has in the map `eps-<number>`. So a Service is nothing but map entries: adding one costs the same
//! however many there are.
//!
//! Frontends by address and by node port differ in their key, and a frontend may have other endpoints for callers from
//! outside than for pods: that makes four pools, each with chains and maps of its own.

use std::borrow::Cow;
use std::time::Duration;

use crate::addr::Net;
use crate::nft::{
    Batch, Chain, CtKey, DynsetOp, Element, Expr, Family, Field, Hook, Key, Kind, NatKind, Reject, Rule, Set, Table,
    Verdict,
};

use super::decide::Masquerade;

/// The tables, one a family.
pub const TABLES: [Table; 2] =
    [Table { family: Family::Ip, name: "pintle-proxy" }, Table { family: Family::Ip6, name: "pintle-proxy" }];

/// The bit of the packet mark that says "replace the source"; the one kube-proxy uses.
pub const MARK: u32 = 0x4000;

pub const SERVICE_IPS: &str = "service-ips";
pub const SERVICE_PORTS: &str = "service-nodeports";
pub const NO_ENDPOINT_IPS: &str = "no-endpoint-services";
pub const NO_ENDPOINT_PORTS: &str = "no-endpoint-nodeports";
pub const FIREWALL_IPS: &str = "firewall-ips";
pub const CLUSTER_IPS: &str = "cluster-ips";
pub const HAIRPIN: &str = "hairpin";
pub const PODS: &str = "pods";
pub const NODE_IPS: &str = "nodeport-ips";
pub const AFFINITY: &str = "affinity";
pub const AFFINITY_IPS: &str = "affinity-services";
pub const AFFINITY_PORTS: &str = "affinity-nodeports";
pub const REJECT: &str = "reject";
const MARK_CHAIN: &str = "mark-for-masquerade";
const SERVICES: &str = "services";
const NO_ENDPOINTS: &str = "service-endpoints-check";
const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";
const RECORD: &str = "record-affinity";
const STATE_NEW: u32 = 8;
const STATUS_DNAT: u32 = 0x20;
/// The most clients whose endpoint is remembered.
const AFFINITY_SIZE: u32 = 1 << 20;

/// Where the endpoints of a frontend are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pool {
    /// By address.
    Ip,
    /// By address, for callers from outside.
    IpOutside,
    /// By node port.
    Port,
    /// By node port, for callers from outside.
    PortOutside,
}

impl Pool {
    pub const ALL: [Self; 4] = [Self::Ip, Self::IpOutside, Self::Port, Self::PortOutside];

    pub fn new(by_port: bool, outside: bool) -> Self {
        match (by_port, outside) {
            (false, false) => Self::Ip,
            (false, true) => Self::IpOutside,
            (true, false) => Self::Port,
            (true, true) => Self::PortOutside,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Ip => "",
            Self::IpOutside => "-outside",
            Self::Port => "-port",
            Self::PortOutside => "-port-outside",
        }
    }

    fn by_port(self) -> bool {
        matches!(self, Self::Port | Self::PortOutside)
    }

    fn fields(self, family: Family) -> &'static [Field] {
        match (self.by_port(), family) {
            (true, _) => &[Field::L4Proto, Field::Dport],
            (false, Family::Ip6) => &[Field::Daddr(Family::Ip6), Field::L4Proto, Field::Dport],
            (false, _) => &[Field::Daddr(Family::Ip), Field::L4Proto, Field::Dport],
        }
    }

    /// The map of the endpoints at a place.
    pub fn eps(self, slot: u32) -> String {
        format!("eps{}-{slot}", self.suffix())
    }

    fn sel(self, slot: u32) -> String {
        format!("sel{}-{slot}", self.suffix())
    }

    fn pick(self) -> &'static str {
        match self {
            Self::Ip => "pick",
            Self::IpOutside => "pick-outside",
            Self::Port => "pick-port",
            Self::PortOutside => "pick-port-outside",
        }
    }
}

/// A set or map that Services have entries in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetId {
    /// One that is always there.
    Fixed(&'static str),
    /// The endpoints at a place of a pool.
    Eps(Pool, u32),
}

impl SetId {
    /// The set's name.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Fixed(name) => name.into(),
            Self::Eps(pool, slot) => pool.eps(slot).into(),
        }
    }
}

/// A chain made when a frontend first needs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shared {
    /// Spreads calls over so many endpoints.
    Lb { pool: Pool, count: u32, masquerade: Masquerade, affinity: bool },
    /// Spreads calls from outside over some endpoints and those of pods and the node over others.
    Split { by_port: bool, inside: u32, outside: u32, affinity: bool },
    /// Remembers the endpoint of a client for so many seconds.
    Affinity(u32),
    /// Lets only some callers pass.
    Firewall(std::sync::Arc<[Net]>),
}

impl Shared {
    /// The chain's name.
    pub fn name(&self) -> String {
        let sticky = |affinity: &bool| if *affinity { "-sticky" } else { "" };
        match self {
            Self::Lb { pool, count, masquerade, affinity } => {
                let snat = match masquerade {
                    Masquerade::Never => "",
                    Masquerade::NotPods => "-snat-nonpods",
                    Masquerade::Always => "-snat",
                };
                format!("lb{}-{count}{snat}{}", pool.suffix(), sticky(affinity))
            }
            Self::Split { by_port, inside, outside, affinity } => {
                format!("split{}-{inside}-{outside}{}", if *by_port { "-port" } else { "" }, sticky(affinity))
            }
            Self::Affinity(seconds) => format!("affinity-{seconds}"),
            Self::Firewall(ranges) => {
                use sha2::{Digest, Sha256};
                let text: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                format!("firewall-{}", hex::encode(&Sha256::digest(text.join(","))[..8]))
            }
        }
    }

    /// The chains this one goes to.
    pub fn needs(&self) -> Vec<Self> {
        let Self::Split { by_port, inside, outside, affinity } = *self else { return Vec::new() };
        let lb =
            |outside, count, masquerade| Self::Lb { pool: Pool::new(by_port, outside), count, masquerade, affinity };
        let mut out = Vec::new();
        if inside > 0 {
            out.push(lb(false, inside, Masquerade::Never));
            out.push(lb(false, inside, Masquerade::Always));
        }
        if outside > 0 {
            out.push(lb(true, outside, Masquerade::Never));
        }
        out
    }

    /// Adds the chain.
    pub fn add(&self, batch: &mut Batch, table: Table) {
        let family = table.family;
        let name = self.name();
        let mut rules = Vec::new();
        match self {
            Self::Lb { pool, count, masquerade, affinity } => {
                let mark = Verdict::jump(MARK_CHAIN);
                match masquerade {
                    Masquerade::Never => {}
                    Masquerade::NotPods => {
                        rules.push(Rule::new().in_set(&[Field::Saddr(family)], PODS, false).verdict(mark))
                    }
                    Masquerade::Always => rules.push(Rule::new().verdict(mark)),
                }
                if *affinity {
                    rules.push(dnat(
                        family,
                        &[Field::Saddr(family), Field::Daddr(family), Field::L4Proto, Field::Dport],
                        AFFINITY,
                    ));
                }
                rules.push(match count {
                    1 => Rule::new().verdict(Verdict::goto(pool.sel(0))),
                    _ => Rule::new().with(Expr::Numgen { modulus: *count, dreg: 0 }).with(Expr::Lookup {
                        set: pool.pick().into(),
                        sreg: 0,
                        dreg: None,
                        verdict: true,
                        invert: false,
                    }),
                });
            }
            Self::Split { by_port, inside, outside, affinity } => {
                let lb = |outside, count, masquerade| {
                    Verdict::goto(
                        Self::Lb { pool: Pool::new(*by_port, outside), count, masquerade, affinity: *affinity }.name(),
                    )
                };
                if *inside > 0 {
                    let pods = Rule::new().in_set(&[Field::Saddr(family)], PODS, true);
                    rules.push(pods.verdict(lb(false, *inside, Masquerade::Never)));
                    rules.push(Rule::new().fib_local(true).verdict(lb(false, *inside, Masquerade::Always)));
                }
                if *outside > 0 {
                    rules.push(Rule::new().verdict(lb(true, *outside, Masquerade::Never)));
                }
            }
            Self::Affinity(seconds) => {
                let data = if family == Family::Ip6 { 10 } else { 4 };
                rules.push(
                    Rule::new()
                        .load(&[
                            Field::OriginalSaddr(family),
                            Field::OriginalDaddr(family),
                            Field::L4Proto,
                            Field::OriginalDport,
                            Field::Daddr(family),
                            Field::Dport,
                        ])
                        .with(Expr::Dynset {
                            set: AFFINITY.into(),
                            op: DynsetOp::Update,
                            key: 0,
                            data: Some(data),
                            timeout: Some(Duration::from_secs((*seconds).into())),
                        }),
                );
            }
            Self::Firewall(ranges) => {
                batch.add_set(table, &Set::plain(&name, vec![family.addr()]).with_intervals());
                batch.add_elements(table, &name, &ranges.iter().copied().map(Element::block).collect::<Vec<_>>());
                rules.push(Rule::new().in_set(&[Field::Saddr(family)], name.clone(), false).verdict(Verdict::Drop));
            }
        }
        batch.chain(table, &Chain { name: &name, hook: None }, &rules);
    }

    /// Deletes the chain.
    pub fn delete(&self, batch: &mut Batch, table: Table) {
        let name = self.name();
        batch.delete_chain(table, &name);
        if matches!(self, Self::Firewall(_)) {
            batch.delete_set(table, &name);
        }
    }
}

/// `dnat to <fields> map @<map>`: passes on where the map has no entry.
fn dnat(family: Family, fields: &[Field], map: impl Into<Cow<'static, str>>) -> Rule {
    // The key takes at most ten registers, and the address found at most four.
    let found = if fields.len() > 3 { 10 } else { 8 };
    let port = found + if family == Family::Ip6 { 4 } else { 1 };
    Rule::new()
        .load(fields)
        .with(Expr::Lookup { set: map.into(), sreg: 0, dreg: Some(found), verdict: false, invert: false })
        .with(Expr::Nat { kind: NatKind::Destination, family, addr: found, port: Some(port) })
}

/// Makes room for endpoints at the places from `have` to `want` in a pool.
pub fn add_slots(batch: &mut Batch, table: Table, pool: Pool, have: u32, want: u32) {
    let family = table.family;
    let addr = family.addr();
    for slot in have..want {
        let (map, chain) = (pool.eps(slot), pool.sel(slot));
        let key = if pool.by_port() {
            vec![Kind::InetProto, Kind::InetService]
        } else {
            vec![addr, Kind::InetProto, Kind::InetService]
        };
        batch.add_set(table, &Set::map(&map, key, vec![addr, Kind::InetService]));
        batch.chain(table, &Chain { name: &chain, hook: None }, &[dnat(family, pool.fields(family), map.clone())]);
        batch.add_elements(table, pool.pick(), &[Element::verdict(Key::new().number(slot), Verdict::goto(chain))]);
    }
}

/// Which addresses node ports are served on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// All of the node's but loopback.
    #[default]
    All,
    /// Those the Node object names.
    Primary,
}

/// Adds everything that is there without any Service. Existing chains must be empty, and only the affinity map may hold
/// anything.
pub fn skeleton(batch: &mut Batch, table: Table, addresses: &NodePortAddresses) {
    let family = table.family;
    let addr = family.addr();
    let service = || vec![addr, Kind::InetProto, Kind::InetService];
    let port = || vec![Kind::InetProto, Kind::InetService];
    batch.add_table(table, "Pintle: Services");
    for map in [SERVICE_IPS, NO_ENDPOINT_IPS, FIREWALL_IPS, AFFINITY_IPS] {
        batch.add_set(table, &Set::vmap(map, service()));
    }
    for map in [SERVICE_PORTS, NO_ENDPOINT_PORTS, AFFINITY_PORTS] {
        batch.add_set(table, &Set::vmap(map, port()));
    }
    for pool in Pool::ALL {
        batch.add_set(table, &Set::vmap(pool.pick(), &[Kind::Integer][..]));
    }
    batch.add_set(table, &Set::plain(CLUSTER_IPS, vec![addr]));
    batch.add_set(table, &Set::plain(HAIRPIN, vec![addr, addr]));
    batch.add_set(table, &Set::plain(PODS, vec![addr]).with_intervals());
    batch.add_set(table, &Set::plain(NODE_IPS, vec![addr]));
    let affinity =
        Set::map(AFFINITY, vec![addr, addr, Kind::InetProto, Kind::InetService], vec![addr, Kind::InetService]);
    batch.add_set(table, &affinity.filled_by_rules(Duration::from_secs(10_800), AFFINITY_SIZE));

    let plain = |name| Chain { name, hook: None };
    let (saddr, daddr) = (Field::Saddr(family), Field::Daddr(family));
    let by_ip = [daddr, Field::L4Proto, Field::Dport];
    let by_port = [Field::L4Proto, Field::Dport];
    let node_port = || match addresses {
        NodePortAddresses::All => Rule::new().fib_local(false).not_in_loopback(family),
        NodePortAddresses::Primary => Rule::new().in_set(&[daddr], NODE_IPS, true),
    };
    batch.chain(table, &plain(MARK_CHAIN), &[Rule::new().mark_set(MARK, true)]);
    batch.chain(table, &plain(REJECT), &[Rule::new().with(Expr::Reject(Reject::PortUnreachable, family))]);
    batch.chain(
        table,
        &plain(SERVICES),
        &[Rule::new().vmap(&by_ip, SERVICE_IPS), node_port().vmap(&by_port, SERVICE_PORTS)],
    );
    batch.chain(
        table,
        &plain(NO_ENDPOINTS),
        &[Rule::new().vmap(&by_ip, NO_ENDPOINT_IPS), node_port().vmap(&by_port, NO_ENDPOINT_PORTS)],
    );
    batch.chain(
        table,
        &plain(CLUSTER_IPS_CHECK),
        &[Rule::new().in_set(&[daddr], CLUSTER_IPS, true).verdict(Verdict::goto(REJECT))],
    );
    let original = [Field::OriginalDaddr(family), Field::L4Proto, Field::OriginalDport];
    batch.chain(
        table,
        &plain(RECORD),
        &[Rule::new().vmap(&original, AFFINITY_IPS), Rule::new().vmap(&original[1..], AFFINITY_PORTS)],
    );

    let new = || Rule::new().ct(CtKey::State, STATE_NEW);
    let firewall = || new().vmap(&by_ip, FIREWALL_IPS);
    let endpoints = || new().verdict(Verdict::jump(NO_ENDPOINTS));
    let cluster_ips = || new().verdict(Verdict::jump(CLUSTER_IPS_CHECK));
    let services = || Rule::new().verdict(Verdict::jump(SERVICES));
    let record = || Rule::new().ct(CtKey::Status, STATUS_DNAT).verdict(Verdict::jump(RECORD));
    const DSTNAT: i32 = -100;
    const SRCNAT: i32 = 100;
    let base = [
        // Whom a load balancer's address is meant for is decided before that address is rewritten.
        ("filter-prerouting", "filter", Hook::PREROUTING, DSTNAT - 10, vec![firewall()]),
        ("filter-output-pre-dnat", "filter", Hook::OUTPUT, DSTNAT - 10, vec![firewall()]),
        ("filter-input", "filter", Hook::INPUT, 0, vec![endpoints()]),
        ("filter-forward", "filter", Hook::FORWARD, 0, vec![endpoints(), cluster_ips()]),
        ("filter-output", "filter", Hook::OUTPUT, 0, vec![endpoints(), cluster_ips()]),
        ("nat-prerouting", "nat", Hook::PREROUTING, DSTNAT, vec![services()]),
        ("nat-output", "nat", Hook::OUTPUT, DSTNAT, vec![services()]),
        ("nat-input", "nat", Hook::INPUT, SRCNAT, vec![record()]),
        (
            "nat-postrouting",
            "nat",
            Hook::POSTROUTING,
            SRCNAT,
            vec![
                record(),
                Rule::new().in_set(&[saddr, daddr], HAIRPIN, true).with(Expr::Masquerade { fully_random: true }),
                Rule::new().mark_has(MARK, false).verdict(Verdict::Return),
                Rule::new().mark_set(MARK, false),
                Rule::new().with(Expr::Masquerade { fully_random: true }),
            ],
        ),
    ];
    for (name, kind, point, priority, rules) in base {
        batch.chain(table, &Chain { name, hook: Some(Hook::new(kind, point, priority)) }, &rules);
    }
}

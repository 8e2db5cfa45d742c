//! The nftables rules of the pod network: host ports, and source NAT of traffic that leaves the cluster.

use std::net::{IpAddr, Ipv4Addr};

use super::HostPort;
use super::ipam::Allocation;
use crate::addr::Net;
use crate::nft::{
    Batch, Chain, CmpOp, Element, Expr, Family, Field, Hook, Key, Kind, NatKind, Rule, Set, Table, Verdict,
};

/// The tables of the pod network, one a family.
pub const TABLES: [Table; 2] =
    [Table { family: Family::Ip, name: "pintle-podnet" }, Table { family: Family::Ip6, name: "pintle-podnet" }];

const CLUSTER: &str = "cluster-pods";
const LOCAL: &str = "node-pods";
const HAIRPIN: &str = "hairpin";
const PORTS: &str = "host-ports";
const PORTS_IP: &str = "host-ip-ports";

/// The element kinds a pod adds to one family's table.
struct PodElements {
    hairpin: Vec<Element>,
    ports: Vec<Element>,
    ports_ip: Vec<Element>,
}

fn of_family<T>(table: Table, items: &[T], ip: impl Fn(&T) -> IpAddr) -> impl Iterator<Item = &T> {
    items.iter().filter(move |item| Family::of(ip(item)) == table.family)
}

fn pod_elements(table: Table, pod: &Allocation) -> PodElements {
    let mut out = PodElements { hairpin: Vec::new(), ports: Vec::new(), ports_ip: Vec::new() };
    for ip in of_family(table, &pod.ips, |ip| *ip) {
        out.hairpin.push(Element::key(Key::new().ip(*ip).ip(*ip)));
        for port in &pod.ports {
            let to = Key::new().ip(*ip).port(port.container_port);
            let number = port.protocol.number();
            match port.host_ip.filter(|host| !host.is_unspecified()) {
                None => out.ports.push(Element::value(Key::new().proto(number).port(port.host_port), to)),
                Some(host) if Family::of(host) == table.family => {
                    out.ports_ip.push(Element::value(Key::new().ip(host).proto(number).port(port.host_port), to));
                }
                Some(_) => {}
            }
        }
    }
    out
}

/// Adds what a pod needs.
pub fn add_pod(batch: &mut Batch, pod: &Allocation) {
    for table in TABLES {
        let elements = pod_elements(table, pod);
        batch.add_elements(table, HAIRPIN, &elements.hairpin);
        batch.add_elements(table, PORTS, &elements.ports);
        batch.add_elements(table, PORTS_IP, &elements.ports_ip);
    }
}

/// Removes what `add_pod` added.
pub fn remove_pod(batch: &mut Batch, pod: &Allocation) {
    for table in TABLES {
        let elements = pod_elements(table, pod);
        batch.delete_elements(table, HAIRPIN, &elements.hairpin);
        batch.delete_elements(table, PORTS, &elements.ports);
        batch.delete_elements(table, PORTS_IP, &elements.ports_ip);
    }
}

/// Replaces the blocks of the whole cluster.
pub fn set_cluster(batch: &mut Batch, blocks: &[Net]) {
    for table in TABLES {
        batch.flush_set(table, CLUSTER);
        batch.add_elements(table, CLUSTER, &blocks_of(table, blocks));
    }
}

fn blocks_of(table: Table, blocks: &[Net]) -> Vec<Element> {
    let mut nets: Vec<Net> = of_family(table, blocks, Net::first).copied().collect();
    nets.sort();
    // The kernel refuses overlapping ranges; a block inside an earlier one says nothing new.
    let mut kept: Vec<Net> = Vec::new();
    for net in nets {
        if !kept.iter().any(|outer| outer.contains(net.first()) && outer.contains(net.last())) {
            kept.push(net);
        }
    }
    kept.into_iter().map(Element::block).collect()
}

/// The whole of the pod network's rules, replacing what was there.
#[must_use]
pub fn all<'p>(local: &[Net], cluster: &[Net], pods: impl Iterator<Item = &'p Allocation>) -> Batch {
    let mut batch = Batch::new();
    for table in TABLES {
        skeleton(&mut batch, table, &blocks_of(table, local));
    }
    set_cluster(&mut batch, cluster);
    for pod in pods {
        add_pod(&mut batch, pod);
    }
    batch
}

fn skeleton(batch: &mut Batch, table: Table, local: &[Element]) {
    let family = table.family;
    let addr = family.addr();
    let (saddr, daddr) = (Field::Saddr(family), Field::Daddr(family));
    batch.fresh_table(table, "Pintle: the pod network");
    batch.add_set(table, &Set::plain(CLUSTER, vec![addr]).with_intervals());
    batch.add_set(table, &Set::plain(LOCAL, vec![addr]).with_intervals());
    batch.add_set(table, &Set::plain(HAIRPIN, vec![addr, addr]));
    let to = vec![addr, Kind::InetService];
    batch.add_set(table, &Set::map(PORTS, vec![Kind::InetProto, Kind::InetService], to.clone()));
    batch.add_set(table, &Set::map(PORTS_IP, vec![addr, Kind::InetProto, Kind::InetService], to));
    batch.add_elements(table, LOCAL, local);

    let port = if family == Family::Ip6 { 12 } else { 9 };
    let dnat = |rule: Rule, fields: &[Field], map: &'static str| {
        rule.load(fields)
            .with(Expr::Lookup { set: map.into(), sreg: 0, dreg: Some(8), verdict: false, invert: false })
            .with(Expr::Nat { kind: NatKind::Destination, family, addr: 8, port: Some(port) })
    };
    let here = || Rule::new().fib_local(false);
    batch.chain(
        table,
        &Chain { name: "host-ports", hook: None },
        &[
            dnat(Rule::new(), &[daddr, Field::L4Proto, Field::Dport], PORTS_IP),
            dnat(Rule::new(), &[Field::L4Proto, Field::Dport], PORTS),
        ],
    );
    for (name, point) in [("nat-prerouting", Hook::PREROUTING), ("nat-output", Hook::OUTPUT)] {
        let chain = Chain { name, hook: Some(Hook::new("nat", point, -100)) };
        batch.chain(table, &chain, &[here().verdict(Verdict::jump("host-ports"))]);
    }

    let mut post = vec![
        Rule::new()
            .in_set(&[saddr, daddr], HAIRPIN, true)
            .with(Expr::Masquerade { fully_random: false })
            .comment("a pod that reaches itself by a host port"),
    ];
    if family == Family::Ip {
        // A process of the node that called a host port on 127.0.0.1 cannot be answered there.
        post.push(
            in_loopback(saddr, CmpOp::Eq).in_set(&[daddr], LOCAL, true).with(Expr::Masquerade { fully_random: false }),
        );
    }
    post.push(
        Rule::new()
            .in_set(&[saddr], LOCAL, true)
            .in_set(&[daddr], CLUSTER, false)
            .with(multicast(family))
            .with(Expr::Bitwise { sreg: 0, dreg: 0, mask: vec![multicast_mask(family)], xor: vec![0] })
            .with(Expr::Cmp { op: CmpOp::Ne, sreg: 0, data: Key::new().proto(multicast_mask(family)) })
            .with(Expr::Masquerade { fully_random: true })
            .comment("pods that leave the cluster"),
    );
    let chain = Chain { name: "nat-postrouting", hook: Some(Hook::new("nat", Hook::POSTROUTING, 100)) };
    batch.chain(table, &chain, &post);

    if family == Family::Ip {
        // Pods with host ports have route_localnet on their link, which must not open the node's loopback to them.
        let guard = Rule::new()
            .ne(Field::IifName, Key::new().ifname("lo"))
            .load(&[daddr])
            .with(Expr::Bitwise { sreg: 0, dreg: 0, mask: vec![255, 0, 0, 0], xor: vec![0; 4] })
            .with(Expr::Cmp { op: CmpOp::Eq, sreg: 0, data: Key::new().ip(Ipv4Addr::new(127, 0, 0, 0).into()) })
            .verdict(Verdict::Drop);
        let chain = Chain { name: "loopback-guard", hook: Some(Hook::new("filter", Hook::PREROUTING, -300)) };
        batch.chain(table, &chain, &[guard]);
    }
}

fn in_loopback(field: Field, op: CmpOp) -> Rule {
    Rule::new()
        .load(&[field])
        .with(Expr::Bitwise { sreg: 0, dreg: 0, mask: vec![255, 0, 0, 0], xor: vec![0; 4] })
        .with(Expr::Cmp { op, sreg: 0, data: Key::new().ip(Ipv4Addr::new(127, 0, 0, 0).into()) })
}

/// Loads the first byte of the destination.
fn multicast(family: Family) -> Expr {
    Expr::Payload { base: 1, offset: if family == Family::Ip6 { 24 } else { 16 }, len: 1, dreg: 0 }
}

/// The bits all set in the first byte of a multicast destination: 224.0.0.0/4 (and the reserved block after it), ff00::/8.
fn multicast_mask(family: Family) -> u8 {
    if family == Family::Ip6 { 0xff } else { 0xe0 }
}

impl HostPort {
    /// Whether two ports cannot both be held.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let any = |ip: Option<IpAddr>| ip.filter(|ip| !ip.is_unspecified());
        let same_ip = match (any(self.host_ip), any(other.host_ip)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        same_ip && self.host_port == other.host_port && self.protocol == other.protocol
    }
}

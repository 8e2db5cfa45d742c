//! What each Service needs on this node: pure functions from the objects to frontends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::addr::{Net, Protocol};
use crate::nft::{Family, Key};
use crate::views::{Endpoint, Name, Service, ServicePort, ServiceType, Slice};

/// What the decisions depend on besides the objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Local {
    /// The name of this node.
    pub node: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Cluster addresses this node answers itself, which the proxy leaves alone.
    pub served_here: BTreeSet<IpAddr>,
    /// Whether everything is to be masqueraded.
    pub masquerade_all: bool,
    /// Whether it is known which sources are pods.
    pub pods_known: bool,
}

/// What clients call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Front {
    /// An address and port.
    Ip(IpAddr, Protocol, u16),
    /// A port on every address of the node.
    Port(Protocol, u16),
}

impl Front {
    /// As a key of the rules.
    #[must_use]
    pub fn key(&self) -> Key {
        match *self {
            Self::Ip(ip, protocol, port) => Key::new().ip(ip).proto(protocol.number()).port(port),
            Self::Port(protocol, port) => Key::new().proto(protocol.number()).port(port),
        }
    }

    /// Its protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Ip(_, protocol, _) | Self::Port(protocol, _) => *protocol,
        }
    }
}

/// Whose source addresses are replaced by the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Masquerade {
    /// Nobody's.
    Never,
    /// Those that are not pods.
    NotPods,
    /// Everybody's.
    Always,
}

/// What becomes of calls that find no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refuse {
    /// There is none anywhere.
    Reject,
    /// There is none here, and traffic must stay here.
    Drop,
}

/// Where calls of one frontend go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The endpoints, in order.
    pub endpoints: Arc<[SocketAddr]>,
    /// With the external policy `Local`: the endpoints for callers from outside; the others are for pods and the node.
    pub outside: Option<Arc<[SocketAddr]>>,
    /// Whose source is replaced.
    pub masquerade: Masquerade,
    /// For how many seconds a client keeps its endpoint.
    pub affinity: Option<u32>,
    /// What becomes of calls that find no endpoint.
    pub refuse: Option<Refuse>,
    /// Who may call; everybody when absent.
    pub allowed: Option<Arc<[Net]>>,
}

/// All frontends of a Service of one family, and what else belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// The frontends with where they lead to and what listings say of them.
    pub fronts: Vec<(Front, Target, Arc<str>)>,
    /// Addresses on which nothing but the frontends is served: calls to other ports are rejected.
    pub cluster_ips: Vec<IpAddr>,
    /// Endpoints that may be on this node, whose calls to themselves need a detour.
    pub near: BTreeSet<IpAddr>,
}

/// The endpoints of one Service port in order, one an address and port.
fn endpoints_of<'s>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'s Slice>,
    family: Family,
) -> BTreeMap<SocketAddr, &'s Endpoint> {
    let mut out: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for slice in slices.filter(|slice| !slice.not_proxied) {
        let wanted = |p: &&crate::views::SlicePort| p.name == port.name && p.protocol == port.protocol;
        for number in slice.ports.iter().filter(wanted).map(|p| p.port) {
            for endpoint in &slice.endpoints {
                let Some(ip) = endpoint.addresses.first().filter(|ip| Family::of(**ip) == family) else { continue };
                let place = out.entry(SocketAddr::new(*ip, number)).or_insert(endpoint);
                // While an endpoint moves between slices it is in two; one that is ready counts.
                if endpoint.ready && !place.ready {
                    *place = endpoint;
                }
            }
        }
    }
    out
}

/// Which hints are heeded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    Any,
    SameNode,
    SameZone,
}

/// Hints count only if every ready endpoint has one and at least one is meant for here.
fn topology(endpoints: &BTreeMap<SocketAddr, &Endpoint>, local: &Local) -> Topology {
    let ready = || endpoints.values().filter(|endpoint| endpoint.ready);
    let usable = |hints: fn(&Endpoint) -> &BTreeSet<String>, here: Option<&String>| {
        ready().all(|endpoint| !hints(endpoint).is_empty())
            && here.is_some_and(|here| ready().any(|endpoint| hints(endpoint).contains(here)))
    };
    if usable(|e| &e.node_hints, Some(&local.node)) {
        Topology::SameNode
    } else if usable(|e| &e.zone_hints, local.zone.as_ref()) {
        Topology::SameZone
    } else {
        Topology::Any
    }
}

/// The usable endpoints: the ready ones that pass, or, if none is, those that still serve while terminating.
fn usable(
    endpoints: &BTreeMap<SocketAddr, &Endpoint>,
    pass: impl Fn(&Endpoint) -> bool,
    going: impl Fn(&Endpoint) -> bool,
) -> Arc<[SocketAddr]> {
    let ready: Arc<[SocketAddr]> = endpoints.iter().filter(|(_, e)| e.ready && pass(e)).map(|(at, _)| *at).collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.iter().filter(|(_, e)| e.serving && e.terminating && going(e)).map(|(at, _)| *at).collect()
}

/// Decides for one Service and family.
pub fn decide<'s>(
    service: &Service,
    slices: impl Iterator<Item = &'s Slice> + Clone,
    local: &Local,
    family: Family,
) -> Decision {
    let mut out = Decision::default();
    let of_family =
        |ips: &[IpAddr]| -> Vec<IpAddr> { ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect() };
    let cluster_ips = of_family(&service.cluster_ips);
    let Some(cluster_ip) = cluster_ips.first().copied().filter(|ip| !local.served_here.contains(ip)) else {
        return out;
    };
    if service.kind == ServiceType::ExternalName || service.other_proxy {
        return out;
    }
    out.cluster_ips = cluster_ips;
    let external_ips = of_family(&service.external_ips);
    let ingress_ips = of_family(&service.ingress_ips);
    for port in &service.ports {
        let text: Arc<str> =
            if port.name.is_empty() { service.name.to_string() } else { format!("{}:{}", service.name, port.name) }
                .into();
        let endpoints = endpoints_of(port, slices.clone(), family);
        let outward = port.node_port != 0 || !external_ips.is_empty() || !ingress_ips.is_empty();
        let is_near = |e: &Endpoint| e.node.as_deref() == Some(local.node.as_str());

        let none: Arc<[SocketAddr]> = Arc::new([]);
        let here = usable(&endpoints, is_near, is_near);
        // Even a purely local policy lets pods and the node use every endpoint of external addresses.
        let cluster = if !service.internal_local || outward {
            let topology = topology(&endpoints, local);
            let fits = |e: &Endpoint| match topology {
                Topology::Any => true,
                Topology::SameNode => e.node_hints.contains(&local.node),
                Topology::SameZone => local.zone.as_ref().is_some_and(|zone| e.zone_hints.contains(zone)),
            };
            usable(&endpoints, fits, |_| true)
        } else {
            none.clone()
        };
        let anywhere = endpoints.values().any(|e| e.ready || (e.serving && e.terminating));
        let refuse = |reached: &[SocketAddr]| match (anywhere, reached.is_empty()) {
            (false, _) => Some(Refuse::Reject),
            (true, true) => Some(Refuse::Drop),
            (true, false) => None,
        };
        out.near.extend(endpoints.iter().filter(|(_, e)| e.node.is_none() || is_near(e)).map(|(at, _)| at.ip()));

        let internal = if service.internal_local { here.clone() } else { cluster.clone() };
        let masquerade = match (local.masquerade_all, local.pods_known) {
            (true, _) => Masquerade::Always,
            (false, true) => Masquerade::NotPods,
            (false, false) => Masquerade::Never,
        };
        let target = Target {
            refuse: refuse(&internal),
            endpoints: internal,
            outside: None,
            masquerade,
            affinity: service.affinity,
            allowed: None,
        };
        out.fronts.push((Front::Ip(cluster_ip, port.protocol, port.port), target, text.clone()));

        if !outward {
            continue;
        }
        let external = Target {
            refuse: refuse(if service.external_local { &here } else { &cluster }),
            endpoints: cluster,
            outside: service.external_local.then_some(here),
            masquerade: if service.external_local { Masquerade::Never } else { Masquerade::Always },
            affinity: service.affinity,
            allowed: None,
        };
        let ranges: Vec<Net> =
            service.source_ranges.iter().copied().filter(|net| net.is_ipv4() == (family == Family::Ip)).collect();
        let allowed = (!ranges.is_empty()).then(|| allowed(ranges, &ingress_ips, local));
        for ip in &ingress_ips {
            let target = Target { allowed: allowed.clone(), ..external.clone() };
            out.fronts.push((Front::Ip(*ip, port.protocol, port.port), target, text.clone()));
        }
        for ip in external_ips.iter().filter(|ip| !ingress_ips.contains(ip)) {
            out.fronts.push((Front::Ip(*ip, port.protocol, port.port), external.clone(), text.clone()));
        }
        if port.node_port != 0 {
            out.fronts.push((Front::Port(port.protocol, port.node_port), external, text));
        }
    }
    out
}

/// Who may call a load balancer's address. Where that address is one of the node's own, the node's calls to it come from
/// the address itself; they are allowed when the node is.
fn allowed(mut ranges: Vec<Net>, ingress_ips: &[IpAddr], local: &Local) -> Arc<[Net]> {
    if ranges.iter().any(|net| local.ips.iter().any(|ip| net.contains(*ip))) {
        ranges.extend(ingress_ips.iter().map(|ip| Net::single(*ip)));
    }
    ranges.sort();
    let mut kept: Vec<Net> = Vec::new();
    for net in ranges {
        if !kept.iter().any(|outer| outer.contains(net.first()) && outer.contains(net.last())) {
            kept.push(net);
        }
    }
    kept.into()
}

/// How many ready endpoints of a Service this node has: what its health check answers.
pub fn local_ready<'s>(slices: impl Iterator<Item = &'s Slice>, node: &str) -> usize {
    let ips: BTreeSet<IpAddr> = slices
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node))
        .filter_map(|endpoint| endpoint.addresses.first().copied())
        .collect();
    ips.len()
}

/// The health checks that Services ask for.
#[must_use]
pub fn health_check(service: &Service) -> Option<(&Name, u16)> {
    (service.health_check_node_port != 0 && !service.other_proxy)
        .then_some((&service.name, service.health_check_node_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endpoint: its last address byte, node, state (r ready, t serving and terminating, n neither), zone and node hints.
    fn endpoint(text: &str) -> Endpoint {
        let parts: Vec<&str> = text.split(' ').collect();
        let hints = |at: usize| {
            parts.get(at).filter(|h| !h.is_empty() && **h != "-").map(|h| (*h).to_owned()).into_iter().collect()
        };
        Endpoint {
            addresses: vec![format!("10.0.0.{}", parts[0]).parse().unwrap()],
            node: Some(parts[1].into()),
            hostname: None,
            ready: parts[2] == "r",
            serving: parts[2] != "n",
            terminating: parts[2] == "t",
            zone_hints: hints(3),
            node_hints: hints(4),
        }
    }

    fn slice(endpoints: &[&str]) -> Slice {
        Slice {
            ports: vec![crate::views::SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 80 }],
            endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
            ..Slice::default()
        }
    }

    fn last_bytes(list: &[SocketAddr]) -> Vec<u8> {
        list.iter().map(|at| if let IpAddr::V4(ip) = at.ip() { ip.octets()[3] } else { 0 }).collect()
    }

    fn local() -> Local {
        Local { node: "here".into(), zone: Some("a".into()), pods_known: true, ..Local::default() }
    }

    fn service(internal_local: bool, external_local: bool, node_port: u16) -> Service {
        Service {
            name: Name::new("ns", "s"),
            cluster_ips: vec!["10.96.0.1".parse().unwrap(), "fd96::1".parse().unwrap()],
            ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port }],
            internal_local,
            external_local,
            ..Service::default()
        }
    }

    #[test]
    fn endpoints_of_the_cluster_address() {
        for (name, internal_local, endpoints, want, refuse) in [
            ("ready ones", false, &["1 here r", "2 far r", "3 far n"][..], &[1, 2][..], None),
            ("while all go, those that serve", false, &["1 here t", "2 far t", "3 far n"], &[1, 2], None),
            ("one ready is enough", false, &["1 here t", "2 far r"], &[2], None),
            ("none", false, &["3 far n"], &[], Some(Refuse::Reject)),
            ("nothing at all", false, &[], &[], Some(Refuse::Reject)),
            ("local only", true, &["1 here r", "2 far r"], &[1], None),
            ("local going", true, &["1 here t", "2 far r"], &[1], None),
            ("none local", true, &["2 far r"], &[], Some(Refuse::Drop)),
            ("none anywhere", true, &["2 far n"], &[], Some(Refuse::Reject)),
            ("zones", false, &["1 x r a", "2 y r b"], &[1], None),
            ("a hint is missing", false, &["1 x r a", "2 y r"], &[1, 2], None),
            ("no hint for here", false, &["1 x r c", "2 y r b"], &[1, 2], None),
            ("what is not ready has no say", false, &["1 x r a", "2 y n"], &[1], None),
            ("nodes before zones", false, &["1 here r a here", "2 y r a y"], &[1], None),
            ("no node hint for here", false, &["1 x r a x", "2 y r b y"], &[1], None),
            ("local policy heeds no hints", true, &["1 here r b", "2 y r a"], &[1], None),
        ] {
            let slices = [slice(endpoints)];
            let got = decide(&service(internal_local, false, 0), slices.iter(), &local(), Family::Ip);
            let [(front, target, _)] = &got.fronts[..] else { panic!("{name}: {got:?}") };
            assert_eq!(*front, Front::Ip("10.96.0.1".parse().unwrap(), Protocol::Tcp, 80), "{name}");
            assert_eq!((&last_bytes(&target.endpoints)[..], target.refuse), (want, refuse), "{name}");
            assert_eq!(target.masquerade, Masquerade::NotPods);
        }
    }

    #[test]
    fn endpoints_of_outside_addresses() {
        for (name, external_local, endpoints, inside, outside, refuse) in [
            ("cluster", false, &["1 here r", "2 far r"][..], &[1, 2][..], None, None),
            ("local", true, &["1 here r", "2 far r"], &[1, 2], Some(&[1][..]), None),
            ("none local", true, &["2 far r"], &[2], Some(&[]), Some(Refuse::Drop)),
            ("none", true, &[], &[], Some(&[]), Some(Refuse::Reject)),
            ("none, cluster", false, &["1 here n"], &[], None, Some(Refuse::Reject)),
        ] {
            let slices = [slice(endpoints)];
            let got = decide(&service(false, external_local, 30000), slices.iter(), &local(), Family::Ip);
            let (_, target, _) = got.fronts.iter().find(|(front, ..)| matches!(front, Front::Port(..))).unwrap();
            assert_eq!(last_bytes(&target.endpoints), inside, "{name}");
            assert_eq!(target.outside.as_ref().map(|list| last_bytes(list)).as_deref(), outside, "{name}");
            assert_eq!(target.refuse, refuse, "{name}");
        }
    }

    #[test]
    fn what_is_left_alone_and_what_is_merged() {
        let slices = [slice(&["1 here n"]), slice(&["1 here r"])];
        let ready = decide(&service(false, false, 0), slices.iter(), &local(), Family::Ip);
        assert_eq!(last_bytes(&ready.fronts[0].1.endpoints), [1]);
        let other = Service { other_proxy: true, ..service(false, false, 1) };
        let alias = Service { kind: ServiceType::ExternalName, ..service(false, false, 1) };
        for left in [other, alias] {
            assert_eq!(decide(&left, slices.iter(), &local(), Family::Ip), Decision::default());
        }
        let here = Local { served_here: BTreeSet::from(["10.96.0.1".parse().unwrap()]), ..local() };
        assert_eq!(decide(&service(false, false, 1), slices.iter(), &here, Family::Ip), Decision::default());
        // Slices are of one family; the other has no endpoints.
        let six = decide(&service(false, false, 0), slices.iter(), &local(), Family::Ip6);
        assert_eq!(six.fronts[0].1.refuse, Some(Refuse::Reject));
        let skipped = [Slice { not_proxied: true, ..slice(&["1 here r"]) }];
        assert!(
            decide(&service(false, false, 0), skipped.iter(), &local(), Family::Ip).fronts[0].1.endpoints.is_empty()
        );
        assert_eq!(local_ready(slices.iter(), "here"), 1);
    }
}

//! What cluster DNS knows: the names of Services, their endpoints and pods, by the Kubernetes DNS specification 1.1.0.
//! Pure: objects in, answers out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use crate::views::{self, Endpoint, Service, ServiceType, Slice};

/// How long answers may be kept, in seconds.
pub const TTL: u32 = 5;
const VERSION: &str = "1.1.0";
const VERSION_TTL: u32 = 28_800;

/// What the zone has to say to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// These records, and others the asker will want next.
    Records(Vec<Record>, Vec<Record>),
    /// The name stands for another, which is to be looked up.
    Alias(Box<Record>, Name),
    /// The name exists, but has no such records.
    NoData,
    /// There is no such name.
    NoName,
    /// Others know about this name.
    NotOurs,
}

/// The zone.
#[derive(Debug)]
pub struct Zone {
    domain: Name,
    /// The labels of the domain, lower case.
    labels: Vec<String>,
    /// Where this server is reached.
    servers: Vec<IpAddr>,
    serial: u32,
    namespaces: HashSet<String>,
    services: HashMap<views::Name, Arc<Service>>,
    /// By Service, then by the slice's own name.
    slices: HashMap<views::Name, BTreeMap<String, Arc<Slice>>>,
    /// The Service each slice belongs to.
    owners: HashMap<views::Name, views::Name>,
    /// Which Services have an address, and which have an endpoint of it.
    by_cluster_ip: HashMap<IpAddr, BTreeSet<views::Name>>,
    by_endpoint_ip: HashMap<IpAddr, BTreeMap<views::Name, usize>>,
}

/// A name of the zone, taken apart.
struct Question<'q> {
    namespace: &'q str,
    service: &'q str,
    endpoint: Option<&'q str>,
    /// A port's name and protocol.
    port: Option<(&'q str, &'q str)>,
}

/// An address behind a name, and the port and name a service record shows for it.
struct Found {
    ip: IpAddr,
    port: Option<u16>,
    target: Name,
}

impl Zone {
    /// An empty zone for a domain such as `cluster.local.`, served at some addresses. The serial number should grow from
    /// start to start.
    #[must_use]
    pub fn new(domain: Name, servers: Vec<IpAddr>, serial: u32) -> Self {
        let labels = domain.iter().map(|label| String::from_utf8_lossy(label).to_lowercase()).collect();
        Self {
            domain,
            labels,
            servers,
            serial,
            namespaces: HashSet::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            owners: HashMap::new(),
            by_cluster_ip: HashMap::new(),
            by_endpoint_ip: HashMap::new(),
        }
    }

    /// A namespace is there or gone.
    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        if exists {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
        }
    }

    /// A Service was made or changed.
    pub fn set_service(&mut self, service: impl Into<Arc<Service>>) {
        let service = service.into();
        self.remove_service(&service.name.clone());
        for ip in &service.cluster_ips {
            self.by_cluster_ip.entry(*ip).or_default().insert(service.name.clone());
        }
        self.services.insert(service.name.clone(), service);
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, name: &views::Name) {
        let Some(old) = self.services.remove(name) else { return };
        for ip in &old.cluster_ips {
            if let Some(names) = self.by_cluster_ip.get_mut(ip) {
                names.remove(name);
                if names.is_empty() {
                    self.by_cluster_ip.remove(ip);
                }
            }
        }
    }

    /// An EndpointSlice was made or changed; `None` when it no longer belongs to a Service.
    pub fn set_slice(&mut self, name: &views::Name, slice: Option<Arc<Slice>>) {
        self.remove_slice(name);
        let Some(slice) = slice else { return };
        for ip in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            *self.by_endpoint_ip.entry(*ip).or_default().entry(slice.service.clone()).or_default() += 1;
        }
        self.owners.insert(name.clone(), slice.service.clone());
        self.slices.entry(slice.service.clone()).or_default().insert(name.name.clone(), slice);
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, name: &views::Name) {
        let Some(owner) = self.owners.remove(name) else { return };
        let Some(of_service) = self.slices.get_mut(&owner) else { return };
        let old = of_service.remove(&name.name);
        if of_service.is_empty() {
            self.slices.remove(&owner);
        }
        for ip in old.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| &endpoint.addresses) {
            if let Some(names) = self.by_endpoint_ip.get_mut(ip) {
                if let Some(count) = names.get_mut(&owner) {
                    *count -= 1;
                    if *count == 0 {
                        names.remove(&owner);
                    }
                }
                if names.is_empty() {
                    self.by_endpoint_ip.remove(ip);
                }
            }
        }
    }

    /// The record that goes with answers that something is not there.
    #[must_use]
    pub fn soa(&self) -> Record {
        let name = |labels: &[&str]| self.below(labels).unwrap_or_else(|| self.domain.clone());
        let data = SOA::new(name(&["ns", "dns"]), name(&["hostmaster"]), self.serial, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.domain.clone(), TTL, RData::SOA(data))
    }

    /// A name of the zone; `None` when it would be too long.
    fn below(&self, labels: &[&str]) -> Option<Name> {
        let own = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
        own.append_domain(&self.domain).ok()
    }

    /// Answers a question.
    #[must_use]
    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let Some(labels) =
            name.iter().map(|l| std::str::from_utf8(l).map(str::to_lowercase).ok()).collect::<Option<Vec<_>>>()
        else {
            return if self.domain.zone_of(name) { Answer::NoName } else { Answer::NotOurs };
        };
        let Some(own) = labels.strip_suffix(&self.labels[..]) else { return self.reverse(name, kind) };
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        match own[..] {
            [] => self.apex(name, kind),
            ["dns-version"] if kind == RecordType::TXT => {
                let data = RData::TXT(TXT::new(vec![VERSION.into()]));
                Answer::Records(vec![Record::from_rdata(name.clone(), VERSION_TTL, data)], Vec::new())
            }
            ["ns", "dns"] => some(addresses(name, kind, self.servers.iter().copied())),
            ["svc" | "pod"] => Answer::NoData,
            [.., namespace, "svc" | "pod"] if !self.namespaces.contains(namespace) => Answer::NoName,
            [_, "svc" | "pod"] => Answer::NoData,
            [pod, _, "pod"] => match pod_ip(pod) {
                Some(ip) => some(addresses(name, kind, [ip])),
                None => Answer::NoName,
            },
            [service, namespace, "svc"] => {
                self.service(name, kind, &Question { namespace, service, endpoint: None, port: None })
            }
            [endpoint, service, namespace, "svc"] => {
                self.service(name, kind, &Question { namespace, service, endpoint: Some(endpoint), port: None })
            }
            [port, protocol, service, namespace, "svc"] => {
                let port =
                    Some((port.strip_prefix('_').unwrap_or(port), protocol.strip_prefix('_').unwrap_or(protocol)));
                self.service(name, kind, &Question { namespace, service, endpoint: None, port })
            }
            _ => Answer::NoName,
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => Answer::Records(vec![self.soa()], Vec::new()),
            RecordType::NS => {
                let Some(server) = self.below(&["ns", "dns"]) else { return Answer::NoData };
                let more = [RecordType::A, RecordType::AAAA].into_iter();
                let more = more.flat_map(|kind| addresses(&server, kind, self.servers.iter().copied())).collect();
                Answer::Records(vec![Record::from_rdata(name.clone(), TTL, RData::NS(NS(server)))], more)
            }
            _ => Answer::NoData,
        }
    }

    fn service(&self, name: &Name, kind: RecordType, question: &Question<'_>) -> Answer {
        let key = views::Name::new(question.namespace, question.service);
        let Some(service) = self.services.get(&key) else { return Answer::NoName };
        if service.kind == ServiceType::ExternalName {
            return external(name, kind, service, question);
        }
        let found = if question.endpoint.is_some() || service.headless {
            self.endpoints(&key, question)
        } else {
            self.cluster_ips(service, question)
        };
        if found.is_empty() {
            // The name of a headless Service is there even while it has no endpoints.
            let bare = question.endpoint.is_none() && question.port.is_none();
            return if bare && service.headless && self.slices.contains_key(&key) {
                Answer::NoData
            } else {
                Answer::NoName
            };
        }
        match kind {
            RecordType::SRV => service_records(name, &found),
            _ => some(addresses(name, kind, found.iter().map(|found| found.ip))),
        }
    }

    fn cluster_ips(&self, service: &Service, question: &Question<'_>) -> Vec<Found> {
        let Some(target) = self.below(&[&service.name.name, &service.name.namespace, "svc"]) else { return Vec::new() };
        let mut found = Vec::new();
        for port in &service.ports {
            if matches(question, &port.name, port.protocol) {
                found.extend(service.cluster_ips.iter().map(|ip| Found {
                    ip: *ip,
                    port: Some(port.port),
                    target: target.clone(),
                }));
            }
        }
        found
    }

    fn endpoints(&self, key: &views::Name, question: &Question<'_>) -> Vec<Found> {
        let mut found = Vec::new();
        for slice in self.slices.get(key).into_iter().flat_map(BTreeMap::values) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
                for ip in &endpoint.addresses {
                    let host = endpoint_name(endpoint, *ip);
                    if question.endpoint.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&host)) {
                        continue;
                    }
                    let Some(target) = self.below(&[&host, &key.name, &key.namespace, "svc"]) else { continue };
                    if slice.ports.is_empty() && question.port.is_none() {
                        found.push(Found { ip: *ip, port: None, target: target.clone() });
                    }
                    for port in slice.ports.iter().filter(|port| matches(question, &port.name, port.protocol)) {
                        found.push(Found { ip: *ip, port: Some(port.port), target: target.clone() });
                    }
                }
            }
        }
        found
    }

    fn reverse(&self, name: &Name, kind: RecordType) -> Answer {
        let Some(ip) = reverse_ip(name) else { return Answer::NotOurs };
        let mut targets = Vec::new();
        for service in self.by_cluster_ip.get(&ip).into_iter().flatten() {
            targets.extend(self.below(&[&service.name, &service.namespace, "svc"]));
        }
        if targets.is_empty() {
            for service in self.by_endpoint_ip.get(&ip).into_iter().flat_map(BTreeMap::keys) {
                let slices = self.slices.get(service).into_iter().flat_map(BTreeMap::values);
                let endpoints = slices.flat_map(|slice| &slice.endpoints);
                for endpoint in endpoints.filter(|endpoint| endpoint.ready && endpoint.addresses.contains(&ip)) {
                    targets.extend(self.below(&[
                        &endpoint_name(endpoint, ip),
                        &service.name,
                        &service.namespace,
                        "svc",
                    ]));
                }
            }
            targets.sort();
            targets.dedup();
        }
        match (targets.is_empty(), kind) {
            (true, _) => Answer::NotOurs,
            (false, RecordType::PTR) => {
                let record = |target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)));
                Answer::Records(targets.into_iter().map(record).collect(), Vec::new())
            }
            (false, _) => Answer::NoData,
        }
    }
}

/// Whether a port is asked for.
fn matches(question: &Question<'_>, name: &str, protocol: crate::addr::Protocol) -> bool {
    question.port.is_none_or(|(port, wanted)| port == name && wanted.eq_ignore_ascii_case(&protocol.to_string()))
}

/// An endpoint's host name: its own, or one made of its address.
fn endpoint_name(endpoint: &Endpoint, ip: IpAddr) -> String {
    match &endpoint.hostname {
        Some(name) => name.to_lowercase(),
        None => ip.to_string().replace(['.', ':'], "-"),
    }
}

/// The address in a pod's name: `1-2-3-4` or `fd00--1`.
fn pod_ip(label: &str) -> Option<IpAddr> {
    if label.bytes().filter(|b| *b == b'-').count() == 3 && !label.contains("--") {
        return label.replace('-', ".").parse().ok();
    }
    label.replace('-', ":").parse().ok()
}

/// The address a name under `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_ip(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&str> = name.iter().map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    let (digits, [family, root]) = labels.split_last_chunk::<2>()?;
    if !root.eq_ignore_ascii_case("arpa") {
        return None;
    }
    if family.eq_ignore_ascii_case("in-addr") && digits.len() == 4 {
        let text: Vec<&str> = digits.iter().rev().copied().collect();
        return text.join(".").parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4);
    }
    if family.eq_ignore_ascii_case("ip6") && digits.len() == 32 && digits.iter().all(|digit| digit.len() == 1) {
        let text: String = digits.iter().rev().copied().collect();
        return u128::from_str_radix(&text, 16).ok().map(|bits| IpAddr::V6(bits.into()));
    }
    None
}

fn some(records: Vec<Record>) -> Answer {
    if records.is_empty() { Answer::NoData } else { Answer::Records(records, Vec::new()) }
}

/// Address records of the asked kind, each address once.
fn addresses(name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>) -> Vec<Record> {
    let mut seen = HashSet::new();
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    ips.into_iter()
        .filter(|ip| seen.insert(*ip))
        .filter_map(|ip| match (ip, kind) {
            (IpAddr::V4(ip), RecordType::A) => Some(record(RData::A(A(ip)))),
            (IpAddr::V6(ip), RecordType::AAAA) => Some(record(RData::AAAA(AAAA(ip)))),
            _ => None,
        })
        .collect()
}

/// Service records, and the addresses of the names in them.
fn service_records(name: &Name, found: &[Found]) -> Answer {
    let with_port: Vec<(&Found, u16)> = found.iter().filter_map(|found| Some((found, found.port?))).collect();
    let weight = u16::try_from(100 / with_port.len().max(1)).unwrap_or(0);
    let (mut records, mut more) = (Vec::new(), Vec::new());
    let (mut seen, mut seen_addresses) = (HashSet::new(), HashSet::new());
    for (found, port) in with_port {
        if seen.insert((&found.target, port)) {
            let data = SRV::new(0, weight, port, found.target.clone());
            records.push(Record::from_rdata(name.clone(), TTL, RData::SRV(data)));
        }
        if seen_addresses.insert((&found.target, found.ip)) {
            let kind = if found.ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
            more.extend(addresses(&found.target, kind, [found.ip]));
        }
    }
    if records.is_empty() { Answer::NoData } else { Answer::Records(records, more) }
}

fn external(name: &Name, kind: RecordType, service: &Service, question: &Question<'_>) -> Answer {
    if question.endpoint.is_some() || question.port.is_some() {
        return Answer::NoName;
    }
    if let Ok(ip) = service.external_name.parse::<IpAddr>() {
        return some(addresses(name, kind, [ip]));
    }
    let Ok(mut target) = Name::from_ascii(&service.external_name) else { return Answer::NoData };
    target.set_fqdn(true);
    let record = Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target.clone())));
    match kind {
        RecordType::CNAME => Answer::Records(vec![record], Vec::new()),
        RecordType::A | RecordType::AAAA => Answer::Alias(Box::new(record), target),
        _ => Answer::NoData,
    }
}

//! What is wrong between services and what is recorded of them: ports and `IPAddress` objects that somebody holds and
//! nobody recorded, that are recorded and nobody holds, or that several hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use pintle_api::time;
use serde_json::Value;

use super::alloc::{Family, address_object};
use super::plan::HEALTH_CHECK_PORT;
use super::ports::{Bounds, PortError, Ports, range_text};
use super::{cluster_ips, is_headless, needs_cluster_ip};
use crate::kinds::{checks, value};

/// So often a port that nobody holds is seen before it is free again: its service may be about to be written.
const ROUNDS: u8 = 3;
/// As long an address without its service stays: the service may be about to be written.
const GRACE: i64 = 60;

/// Something to be told of an object, as an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// What it is about.
    pub about: &'a Value,
    /// The reason.
    pub reason: &'static str,
    /// The action.
    pub action: &'static str,
    /// The message.
    pub message: String,
}

/// Ports that were seen without a service, and how many more times they may be.
pub type Leaks = BTreeMap<u16, u8>;

/// The node ports of a service, twice those that it wrongly has twice.
fn held(service: &Value) -> Vec<i64> {
    let mut seen: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    let mut ports = Vec::new();
    for port in value::items_at(service, &["spec", "ports"]) {
        let number = value::int_at(port, &["nodePort"]);
        let new = !seen.contains_key(&number);
        if number != 0 && (!seen.entry(number).or_default().insert(value::str_at(port, &["protocol"])) || new) {
            ports.push(number);
        }
    }
    let health = value::int_at(service, HEALTH_CHECK_PORT);
    if health != 0 && seen.get(&health).is_none_or(|protocols| protocols.contains("TCP")) {
        ports.push(health);
    }
    ports
}

/// What should be on record, given what is.
pub fn ports<'a>(
    bounds: Bounds,
    recorded: &BTreeSet<u16>,
    services: &'a [Value],
    leaks: &mut Leaks,
) -> (Ports, Vec<Note<'a>>) {
    let mut rebuilt = Ports::new(bounds);
    let mut notes = Vec::new();
    let mut used = BTreeSet::new();
    for service in services {
        for port in held(service) {
            let (reason, message) = match rebuilt.take(port) {
                Ok(port) => {
                    leaks.remove(&port);
                    used.insert(port);
                    if recorded.contains(&port) {
                        continue;
                    }
                    ("PortNotAllocated", format!("Port {port} is not allocated; repairing"))
                }
                Err(PortError::Allocated) => (
                    "PortAlreadyAllocated",
                    format!("Port {port} was assigned to multiple services; please recreate service"),
                ),
                Err(PortError::NotInRange(bounds)) => (
                    "PortOutOfRange",
                    format!("Port {port} is not within the port range {}; please recreate service", range_text(bounds)),
                ),
            };
            notes.push(Note { about: service, reason, action: "", message });
        }
    }
    for port in recorded.difference(&used) {
        let left = leaks.entry(*port).or_insert(ROUNDS - 1);
        // One outside of the range is of an old configuration.
        if *left > 0 && rebuilt.take((*port).into()).is_ok() {
            *left -= 1;
        } else {
            leaks.remove(port);
            tracing::warn!(port, "a node port of no service is free again");
        }
    }
    (rebuilt, notes)
}

/// A mend of the `IPAddress` objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// Create this object, in place of one of its name.
    Put(Value),
    /// Delete the object of this name.
    Delete(String),
}

/// The services, by namespace and name.
type ByName<'a> = BTreeMap<(&'a str, &'a str), &'a Value>;

fn name_of(object: &Value) -> (&str, &str) {
    (value::str_at(object, &["metadata", "namespace"]), value::str_at(object, &["metadata", "name"]))
}

/// The service that an `IPAddress` says it is of; `Err` when it says something else.
fn parent(address: &Value) -> Result<(&str, &str), ()> {
    let of = |field| value::str_at(address, &["spec", "parentRef", field]);
    if of("group").is_empty() && of("resource") == "services" { Ok((of("namespace"), of("name"))) } else { Err(()) }
}

fn managed(address: &Value) -> bool {
    value::str_at(address, &["metadata", "labels", "ipaddress.kubernetes.io/managed-by"]) == "ipallocator.k8s.io"
}

/// What must be done with the `IPAddress` objects. `in_network` says whether any network has an address.
pub fn addresses<'a>(
    services: &'a [Value],
    addresses: &'a [Value],
    in_network: impl Fn(IpAddr) -> bool,
    now: Timestamp,
) -> (Vec<Mend>, Vec<Note<'a>>) {
    let by_name: ByName<'_> = services.iter().map(|s| (name_of(s), s)).collect();
    let objects: BTreeMap<&str, &Value> = addresses.iter().map(|a| (name_of(a).1, a)).collect();
    let (mut mends, mut notes) = (Vec::new(), Vec::new());
    for service in services.iter().filter(|s| needs_cluster_ip(s) && !is_headless(s)) {
        for text in cluster_ips(service) {
            let Some(ip) = checks::parse_ip(text) else { continue };
            let (put, reason, message) = of_service(service, ip, &objects, &by_name, &in_network);
            if let Some(reason) = reason {
                notes.push(Note { about: service, reason, action: "ClusterIPAllocation", message });
            }
            mends.extend(put.then(|| Mend::Put(address_object(ip, service))));
        }
    }
    let replaced: BTreeSet<String> =
        mends.iter().filter_map(|m| if let Mend::Put(o) = m { Some(name_of(o).1.to_owned()) } else { None }).collect();
    for address in addresses.iter().filter(|a| managed(a) && !replaced.contains(name_of(a).1)) {
        if let Some((reason, message)) = of_address(address, &by_name, now) {
            notes.push(Note { about: address, reason, action: "IPAddressAllocation", message });
            mends.push(Mend::Delete(name_of(address).1.to_owned()));
        }
    }
    (mends, notes)
}

/// Whether the object of a service's address must be written, and what there is to tell.
fn of_service(
    service: &Value,
    ip: IpAddr,
    objects: &BTreeMap<&str, &Value>,
    by_name: &ByName<'_>,
    in_network: &impl Fn(IpAddr) -> bool,
) -> (bool, Option<&'static str>, String) {
    let (family, (namespace, name)) = (Family::of(ip).name(), name_of(service));
    let not_allocated = Some("ClusterIPNotAllocated");
    if !in_network(ip) {
        let message =
            format!("Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service");
        return (false, Some("ClusterIPOutOfRange"), message);
    }
    let Some(object) = objects.get(&*ip.to_string()) else {
        return (true, not_allocated, format!("Cluster IP [{family}]: {ip} is not allocated; repairing"));
    };
    let wrong =
        || format!("the ClusterIP [{family}]: {ip} for Service {namespace}/{name} has a wrong reference; repairing");
    match parent(object) {
        Err(()) => return (true, not_allocated, wrong()),
        Ok(of) if of != (namespace, name) => match by_name.get(&of) {
            None => return (true, not_allocated, wrong()),
            Some(other) if cluster_ips(other).contains(&&*ip.to_string()) => {
                let message =
                    format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service");
                return (false, Some("ClusterIPAlreadyAllocated"), message);
            }
            Some(_) => {}
        },
        Ok(_) => {}
    }
    let labelled = value::str_at(object, &["metadata", "labels", "ipaddress.kubernetes.io/ip-family"]) == family;
    (!labelled || !managed(object), None, String::new())
}

/// Why an `IPAddress` must go.
fn of_address(address: &Value, by_name: &ByName<'_>, now: Timestamp) -> Option<(&'static str, String)> {
    let ip = name_of(address).1;
    let Ok((namespace, name)) = parent(address) else {
        let of = |field| value::str_at(address, &["spec", "parentRef", field]);
        let reference = format!("&{{{} {} {} {}}}", of("group"), of("resource"), of("namespace"), of("name"));
        let message =
            format!("IPAddress {ip} appears to have been modified, not referencing a Service {reference}: cleaning up");
        return Some(("IPAddressNotAllocated", message));
    };
    match by_name.get(&(namespace, name)) {
        None => {
            let made = time::parse(value::str_at(address, &["metadata", "creationTimestamp"]));
            let old = made.is_none_or(|made| now.as_second() - made.as_second() > GRACE);
            let message = format!("IPAddress: {ip} for Service {namespace}/{name} appears to have leaked: cleaning up");
            old.then_some(("IPAddressNotAllocated", message))
        }
        Some(service) if cluster_ips(service).contains(&ip) => None,
        Some(_) => {
            let message = format!("IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning up");
            Some(("IPAddressWrongReference", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, ip: &str, ports: &[i64]) -> Value {
        let ports: Vec<Value> = ports.iter().map(|p| json!({"port": 80, "protocol": "TCP", "nodePort": p})).collect();
        json!({"metadata": {"namespace": "n", "name": name},
            "spec": {"type": "NodePort", "clusterIP": ip, "clusterIPs": [ip], "ports": ports}})
    }

    fn reasons(notes: &[Note<'_>]) -> Vec<(String, &'static str)> {
        notes.iter().map(|n| (name_of(n.about).1.to_owned(), n.reason)).collect()
    }

    #[test]
    fn of_ports() {
        let services = [
            service("a", "10.0.0.1", &[30001, 30002]),
            service("b", "10.0.0.2", &[30002]),
            service("c", "10.0.0.3", &[80]),
        ];
        let mut leaks = Leaks::new();
        let recorded = BTreeSet::from([30001, 30009]);
        let mut check = |recorded: &BTreeSet<u16>, expect: &[u16], told: &[(&str, &'static str)]| {
            let (ports, notes) = ports((30000, 32767), recorded, &services, &mut leaks);
            assert_eq!(ports.taken().collect::<Vec<_>>(), expect);
            let told: Vec<_> = told.iter().map(|(name, reason)| ((*name).to_owned(), *reason)).collect();
            assert_eq!(reasons(&notes), told);
            ports.taken().collect::<BTreeSet<u16>>()
        };
        let twice = [("b", "PortAlreadyAllocated"), ("c", "PortOutOfRange")];
        let first = [("a", "PortNotAllocated"), twice[0], twice[1]];
        // What nobody holds goes at the third time.
        let next = check(&recorded, &[30001, 30002, 30009], &first);
        let next = check(&next, &[30001, 30002, 30009], &twice);
        check(&next, &[30001, 30002], &twice);
        assert!(leaks.is_empty());
    }

    #[test]
    fn ports_of_one_service() {
        let mut both = service("a", "10.0.0.1", &[30001, 30001]);
        assert_eq!(held(&both), [30001, 30001]);
        both["spec"]["ports"][1]["protocol"] = "UDP".into();
        assert_eq!(held(&both), [30001]);
        both["spec"]["healthCheckNodePort"] = 30005.into();
        assert_eq!(held(&both), [30001, 30005]);
    }

    #[test]
    fn of_addresses() {
        let now: Timestamp = "2024-01-01T00:02:00Z".parse().unwrap();
        let services = [service("a", "10.0.0.1", &[]), service("b", "10.0.0.2", &[]), service("c", "192.0.2.1", &[])];
        let object = |ip: &str, of: &str, made: &str| {
            let mut object = address_object(ip.parse().unwrap(), &service(of, ip, &[]));
            object["metadata"]["creationTimestamp"] = made.into();
            object
        };
        let (old, new) = ("2024-01-01T00:00:00Z", "2024-01-01T00:01:30Z");
        let check = |objects: &[Value], mended: &[Mend], told: &[(&str, &'static str)]| {
            let in_network = |ip: IpAddr| ip.to_string().starts_with("10.");
            let (mends, notes) = addresses(&services, objects, in_network, now);
            assert_eq!(mends, mended);
            let mut want = vec![("c".to_owned(), "ClusterIPOutOfRange")];
            want.extend(told.iter().map(|(name, reason)| ((*name).to_owned(), *reason)));
            let mut got = reasons(&notes);
            want.sort();
            got.sort();
            assert_eq!(got, want);
        };
        let (a, b) = (object("10.0.0.1", "a", old), object("10.0.0.2", "b", old));
        let put = |name: &str, ip: &str| Mend::Put(address_object(ip.parse().unwrap(), &service(name, ip, &[])));
        check(&[a.clone(), b.clone()], &[], &[]);
        check(std::slice::from_ref(&a), &[put("b", "10.0.0.2")], &[("b", "ClusterIPNotAllocated")]);
        // Left behind: at once only when nobody may be about to need it.
        let leaked = object("10.0.0.9", "gone", old);
        check(
            &[a.clone(), b.clone(), leaked],
            &[Mend::Delete("10.0.0.9".into())],
            &[("10.0.0.9", "IPAddressNotAllocated")],
        );
        check(&[a.clone(), b.clone(), object("10.0.0.9", "soon", new)], &[], &[]);
        check(
            &[a.clone(), b.clone(), object("10.0.0.9", "a", new)],
            &[Mend::Delete("10.0.0.9".into())],
            &[("10.0.0.9", "IPAddressWrongReference")],
        );
        let mut bare = b.clone();
        bare["metadata"]["labels"] = json!({});
        check(&[a.clone(), bare], &[put("b", "10.0.0.2")], &[]);
        let mut other = b;
        other["spec"]["parentRef"]["resource"] = "gateways".into();
        check(&[a, other], &[put("b", "10.0.0.2")], &[("b", "ClusterIPNotAllocated")]);
    }
}

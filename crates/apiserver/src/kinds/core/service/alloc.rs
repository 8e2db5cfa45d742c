//! What services hold of the cluster: cluster IPs and node ports.
//!
//! The registry calls [`ServiceAllocator::begin_create`] or [`ServiceAllocator::begin_update`] before a service is
//! prepared and validated, and [`ServiceAllocator::finish`] when it is stored or was refused;
//! [`ServiceAllocator::deleted`] when it is gone. At start [`ServiceAllocator::observe`] is called for every service
//! there is. Several API servers may give out addresses and ports at once. An `IPAddress` object stands for each address
//! in use ([`AddressObjects`]), so that what each server has in memory need only be nearly right; ports are on one record
//! ([`NodePorts`]).

use pintle_api::addresses::masked;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use super::families::Family;
use super::families::{self, families};
use super::plan::{HEALTH_CHECK_PORT, Plan, all_ports, lacks_ports};
use super::ports::{NodePorts, PortRecord};
use super::ranges::Range;
use super::{cluster_ips, is_headless, kind, needs_cluster_ip, needs_health_check_port, needs_node_port, node_ports};
use crate::kinds::{checks, value};

const ALLOCATED_IP: &str = "provided IP is already allocated";
pub(super) const FULL: &str = "range is full";
const NO_RANGE: &str = "the provided network does not match the current range";

/// Why nothing was allocated.
#[derive(Debug)]
pub enum AllocError {
    /// What was asked for cannot be had: `422 Invalid`.
    Invalid(Errors),
    /// Nothing is left, or the objects could not be written: `500 InternalError` with this text.
    Internal(String),
}

/// Writes the `IPAddress` objects that stand for addresses in use.
pub trait AddressObjects: Send + Sync {
    /// Creates the object; false when there is one of this name.
    fn create(&self, object: Value) -> BoxFuture<'_, Result<bool, String>>;
    /// Deletes the object of this name, if any.
    fn delete(&self, name: String) -> BoxFuture<'_, Result<(), String>>;
}

/// A future as a trait's method returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One prefix to take addresses from.
#[derive(Debug)]
struct Prefix {
    family: Family,
    range: Range,
}

#[derive(Debug)]
struct State {
    families: Vec<Family>,
    /// By their text, as ServiceCIDR objects have it. Ranges may overlap: an address is taken in each that has it.
    prefixes: BTreeMap<String, Prefix>,
    random: u64,
}

/// Gives out addresses and ports.
pub struct ServiceAllocator {
    state: Mutex<State>,
    objects: Option<Box<dyn AddressObjects>>,
    ports: NodePorts,
}

/// What a write has taken, and what it gives up once it is stored.
#[derive(Debug, Default)]
#[must_use = "finish it, or what it took stays taken"]
pub struct Reservation {
    taken_ips: Vec<IpAddr>,
    taken_ports: Vec<u16>,
    released_ips: Vec<IpAddr>,
    released_ports: Vec<u16>,
    dry_run: bool,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // Only numbers of the range of an IPv4 prefix come here, and they fit.
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl Prefix {
    fn parse(cidr: &str) -> Option<Prefix> {
        let (ip, length) = checks::parse_cidr(cidr)?;
        let family = Family::of(ip);
        let bits: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let host_bits = bits.checked_sub(u32::from(length))?;
        // All but the first address, and for IPv4 all but the last, which is the broadcast address.
        let size = if host_bits >= 127 { u128::MAX / 2 } else { 1 << host_bits };
        let spare = if family == Family::V4 { 2 } else { 1 };
        let first = number(masked(ip, length)) + 1;
        Some(Prefix { family, range: Range::new(first, u128::saturating_sub(size, spare), 16, 16, 256) })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family && self.range.contains(number(ip))
    }
}

impl State {
    fn random(&mut self) -> u64 {
        // xorshift: the numbers need only be spread out.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Takes an address in every range that has it.
    fn take_ip(&mut self, ip: IpAddr) -> Result<(), &'static str> {
        let holders: Vec<&mut Prefix> = self.prefixes.values_mut().filter(|p| p.contains(ip)).collect();
        if holders.is_empty() {
            return Err(NO_RANGE);
        }
        let mut free = true;
        for prefix in holders {
            free &= prefix.range.take(number(ip));
        }
        if free { Ok(()) } else { Err(ALLOCATED_IP) }
    }

    fn take_next_ip(&mut self, family: Family) -> Option<IpAddr> {
        let random = self.random();
        let ranges = self.prefixes.values_mut().filter(|p| p.family == family);
        let ip = ranges.into_iter().find_map(|p| p.range.take_next(random)).map(|n| address(family, n))?;
        for prefix in self.prefixes.values_mut().filter(|p| p.contains(ip)) {
            prefix.range.take(number(ip));
        }
        Some(ip)
    }

    fn give_back_ip(&mut self, ip: IpAddr) {
        for prefix in self.prefixes.values_mut().filter(|p| p.contains(ip)) {
            prefix.range.give_back(number(ip));
        }
    }
}

impl ServiceAllocator {
    /// Gives out addresses of these prefixes, of which the first says the default family, and ports of `ports`, both
    /// included, that are recorded in `record`. `seed` says where in the ranges to begin.
    ///
    /// # Errors
    /// Names the prefix that does not parse.
    pub fn new(
        cidrs: &[&str],
        ports: (u16, u16),
        seed: u64,
        objects: Option<Box<dyn AddressObjects>>,
        record: Box<dyn PortRecord>,
    ) -> Result<Self, String> {
        let mut state = State { families: Vec::new(), prefixes: BTreeMap::new(), random: seed | 1 };
        for cidr in cidrs {
            let prefix = Prefix::parse(cidr).ok_or_else(|| format!("{cidr} is not a valid CIDR"))?;
            if !state.families.contains(&prefix.family) {
                state.families.push(prefix.family);
            }
            state.prefixes.insert((*cidr).to_owned(), prefix);
        }
        Ok(ServiceAllocator { state: Mutex::new(state), objects, ports: NodePorts::new(ports, record) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one call that cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a prefix, as a ready ServiceCIDR object names it. What is taken of it must be observed again.
    pub fn add_prefix(&self, cidr: &str) -> bool {
        let mut state = self.state();
        let Some(prefix) = Prefix::parse(cidr) else { return false };
        state.prefixes.entry(cidr.to_owned()).or_insert(prefix);
        true
    }

    /// Gives out no more addresses of a prefix.
    pub fn remove_prefix(&self, cidr: &str) {
        self.state().prefixes.remove(cidr);
    }

    /// Notes the addresses that a stored service holds.
    pub fn observe(&self, service: &Value) {
        let mut state = self.state();
        for ip in cluster_ips(service).into_iter().filter_map(checks::parse_ip) {
            // An address outside of all ranges is kept, not given out.
            let _ = state.take_ip(ip);
        }
    }

    /// The node ports on record.
    pub fn node_ports(&self) -> &NodePorts {
        &self.ports
    }

    /// Whether an address is of one of the networks.
    pub fn has_network_of(&self, ip: IpAddr) -> bool {
        self.state().prefixes.values().any(|p| p.contains(ip))
    }

    /// Records an address that an `IPAddress` object names.
    pub fn observe_address(&self, name: &str) {
        if let Some(ip) = checks::parse_ip(name) {
            let _ = self.state().take_ip(ip);
        }
    }

    /// Forgets an address whose `IPAddress` object is gone, when no service here has it.
    pub fn forget_address(&self, name: &str) {
        if let Some(ip) = checks::parse_ip(name) {
            self.state().give_back_ip(ip);
        }
    }

    /// Fills in and takes what a new service needs.
    ///
    /// # Errors
    /// Nothing stays taken.
    pub async fn begin_create(&self, service: &mut Value, dry_run: bool) -> Result<Reservation, AllocError> {
        self.begin(service, None, dry_run).await
    }

    /// Fills in what the new state leaves out and the old has, and takes and gives up the difference.
    ///
    /// # Errors
    /// Nothing stays taken.
    pub async fn begin_update(&self, new: &mut Value, old: &Value, dry_run: bool) -> Result<Reservation, AllocError> {
        patch_allocated(new, old);
        self.begin(new, Some(old), dry_run).await
    }

    async fn begin(&self, new: &mut Value, old: Option<&Value>, dry_run: bool) -> Result<Reservation, AllocError> {
        families::pair_cluster_ips(new, old);
        let configured = self.state().families.clone();
        families::fill(new, old, &configured).map_err(AllocError::Invalid)?;
        let mut reservation = Reservation { dry_run, ..Reservation::default() };
        let done = match self.cluster_ips(new, old, &mut reservation).await {
            Ok(()) => self.ports(new, old, &mut reservation).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(reservation),
            Err(error) => {
                // What led here is the better error to report.
                let _ = self.finish(reservation, false).await;
                Err(error)
            }
        }
    }

    /// Ends a write: what it took stays taken or is given back, and what it gives up goes when it was stored.
    ///
    /// # Errors
    /// When an `IPAddress` object could not be deleted or the ports not be recorded as free; all else is done.
    pub async fn finish(&self, reservation: Reservation, stored: bool) -> Result<(), String> {
        let Reservation { taken_ips, taken_ports, released_ips, released_ports, dry_run } = reservation;
        let keep = stored && !dry_run;
        let (ips, ports) = if keep { (released_ips, released_ports) } else { (taken_ips, taken_ports) };
        let mut done = Ok(());
        for ip in ips {
            done = done.and(self.release_ip(ip, !dry_run).await);
        }
        // A dry run recorded no ports.
        done.and(self.release_ports(if dry_run { &[] } else { &ports }).await)
    }

    /// Gives back what a deleted service held.
    ///
    /// # Errors
    /// When an `IPAddress` object could not be deleted or the ports not be recorded as free; all else is done.
    pub async fn deleted(&self, service: &Value) -> Result<(), String> {
        let mut done = Ok(());
        for ip in cluster_ips(service).into_iter().filter_map(checks::parse_ip) {
            done = done.and(self.release_ip(ip, true).await);
        }
        let ports: Vec<u16> = all_ports(service).into_iter().filter_map(|p| u16::try_from(p).ok()).collect();
        done.and(self.release_ports(&ports).await)
    }

    async fn release_ports(&self, ports: &[u16]) -> Result<(), String> {
        if ports.is_empty() {
            return Ok(());
        }
        let given_back = self.ports.change(false, |on_record| {
            for port in ports {
                on_record.give_back(*port);
            }
            Ok(())
        });
        given_back.await.map_err(|e| match e {
            AllocError::Internal(text) => text,
            AllocError::Invalid(errors) => errors.to_string(),
        })
    }

    async fn release_ip(&self, ip: IpAddr, written: bool) -> Result<(), String> {
        if written && let Some(objects) = &self.objects {
            // While its object stands the address stays taken; whoever sees the object go calls `forget_address`.
            objects.delete(ip.to_string()).await?;
        }
        self.state().give_back_ip(ip);
        Ok(())
    }

    async fn cluster_ips(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        reservation: &mut Reservation,
    ) -> Result<(), AllocError> {
        let held = |service: &Value| -> Vec<IpAddr> {
            if !needs_cluster_ip(service) || is_headless(service) {
                return Vec::new();
            }
            cluster_ips(service).into_iter().filter_map(checks::parse_ip).collect()
        };
        let before = old.map(held).unwrap_or_default();
        if needs_cluster_ip(new) && !is_headless(new) {
            let given: Vec<String> = value::items_at(new, &["spec", "clusterIPs"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let mut ips = Vec::new();
            for (i, family) in families(new).into_iter().enumerate() {
                let ip = match given.get(i).filter(|ip| !ip.is_empty()) {
                    None => Some(self.next_ip(family, new, reservation).await?.to_string()),
                    Some(text) => {
                        let ip = checks::parse_ip(text)
                            .ok_or_else(|| AllocError::Internal(format!("failed to parse service IP \"{text}\"")))?;
                        if !before.contains(&ip) {
                            self.claim_ip(ip, text, new, reservation).await?;
                        }
                        Some(text.clone())
                    }
                };
                ips.extend(ip);
            }
            if let Some(first) = ips.first() {
                value::set(new, &["spec", "clusterIP"], first.as_str());
                value::set(new, &["spec", "clusterIPs"], ips);
            }
        }
        let after = held(new);
        reservation.released_ips.extend(before.into_iter().filter(|ip| !after.contains(ip)));
        Ok(())
    }

    async fn next_ip(
        &self,
        family: Family,
        service: &Value,
        reservation: &mut Reservation,
    ) -> Result<IpAddr, AllocError> {
        loop {
            let next = self.state().take_next_ip(family);
            let ip = next.ok_or_else(|| AllocError::Internal(format!("failed to allocate a serviceIP: {FULL}")))?;
            // An address that another server gave out stays taken here, and the next is tried.
            if self.write_object(ip, service, reservation.dry_run).await? {
                reservation.taken_ips.push(ip);
                return Ok(ip);
            }
        }
    }

    async fn claim_ip(
        &self,
        ip: IpAddr,
        text: &str,
        service: &Value,
        reservation: &mut Reservation,
    ) -> Result<(), AllocError> {
        let taken = self.state().take_ip(ip);
        let taken = match taken {
            Ok(()) if self.write_object(ip, service, reservation.dry_run).await? => {
                reservation.taken_ips.push(ip);
                return Ok(());
            }
            Ok(()) => ALLOCATED_IP,
            Err(why) => why,
        };
        let mut errors = Errors::new();
        let at = Cursor::root(service).get("spec").get("clusterIPs");
        errors.invalid(&at, format!("failed to allocate IP {text}: {taken}"));
        Err(AllocError::Invalid(errors))
    }

    /// Writes the object that stands for an address; false when there is one.
    async fn write_object(&self, ip: IpAddr, service: &Value, dry_run: bool) -> Result<bool, AllocError> {
        let Some(objects) = self.objects.as_ref().filter(|_| !dry_run) else { return Ok(true) };
        let written = objects.create(address_object(ip, service)).await;
        written.map_err(|error| {
            self.state().give_back_ip(ip);
            AllocError::Internal(format!("failed to allocate a serviceIP: {error}"))
        })
    }

    async fn ports(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        reservation: &mut Reservation,
    ) -> Result<(), AllocError> {
        let before = old.map(node_ports).unwrap_or_default();
        let (may_have, update) = (matches!(kind(new), "NodePort" | "LoadBalancer"), old.is_some());
        if lacks_ports(new, old) {
            let planned = self.ports.change(reservation.dry_run, |on_record| {
                let mut plan = Plan::new(new.clone(), on_record);
                let random = &mut || self.state().random();
                if may_have {
                    plan.node_ports(&before, update, random)?;
                }
                plan.health_check_port(old, random)?;
                Ok((plan.service, plan.taken))
            });
            (*new, reservation.taken_ports) = planned.await?;
        }
        // Where the type needs none any more, preparing the update drops them, or validation refuses.
        let after = if may_have { node_ports(new) } else { Vec::new() };
        let mut given_up: Vec<i64> = before.into_iter().filter(|p| !after.contains(p)).collect();
        if let Some(old) = old.filter(|o| needs_health_check_port(o) && !needs_health_check_port(new)) {
            given_up.push(value::int_at(old, HEALTH_CHECK_PORT));
        }
        reservation
            .released_ports
            .extend(given_up.into_iter().filter_map(|p| u16::try_from(p).ok()).filter(|p| *p != 0));
        Ok(())
    }
}

/// The object that stands for an address of a service.
pub(super) fn address_object(ip: IpAddr, service: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": Family::of(ip).name(),
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "resource": "services",
            "namespace": value::str_at(service, &["metadata", "namespace"]),
            "name": value::str_at(service, &["metadata", "name"]),
        }},
    })
}

/// Gives an update that left out what was allocated (a PUT of the manifest, say) the values the service has.
fn patch_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        let path = &["spec", "clusterIP"];
        if value::str_at(new, path).is_empty() {
            value::copy(new, old, path);
        }
        if value::items_at(new, &["spec", "clusterIPs"]).is_empty() && value::at(new, path) == value::at(old, path) {
            value::copy(new, old, &["spec", "clusterIPs"]);
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let used = node_ports(new);
        let by_name: BTreeMap<&str, i64> = value::items_at(old, &["spec", "ports"])
            .iter()
            .map(|p| (value::str_at(p, &["name"]), value::int_at(p, &["nodePort"])))
            .collect();
        let ports = value::entry(new, &["spec", "ports"]).and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter(|p| value::int_at(p, &["nodePort"]) == 0) {
            let had = by_name.get(value::str_at(port, &["name"])).copied().unwrap_or(0);
            if had != 0 && !used.contains(&had) {
                value::set(port, &["nodePort"], had);
            }
        }
    }
    if needs_health_check_port(old)
        && needs_health_check_port(new)
        && value::int_at(new, &["spec", "healthCheckNodePort"]) == 0
    {
        value::copy(new, old, &["spec", "healthCheckNodePort"]);
    }
}

#[cfg(test)]
mod tests;

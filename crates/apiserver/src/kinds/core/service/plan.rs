//! Which node ports a service is given.

use std::collections::BTreeMap;

use pintle_schema::cursor::Errors;
use serde_json::Value;

use super::alloc::{AllocError, FULL};
use super::ports::Ports;
use super::{kind, needs_health_check_port, needs_node_port, node_ports};
use crate::kinds::value;

pub(super) const HEALTH_CHECK_PORT: &[&str] = &["spec", "healthCheckNodePort"];

/// Whether there is a port to take: one is missing, or asked for by number and not held before.
pub(super) fn lacks_ports(new: &Value, old: Option<&Value>) -> bool {
    let had = old.map(all_ports).unwrap_or_default();
    let wants = |port: i64, needed: bool| if port == 0 { needed } else { !had.contains(&port) };
    let ports = value::items_at(new, &["spec", "ports"]);
    let node_ports = matches!(kind(new), "NodePort" | "LoadBalancer")
        && ports.iter().any(|p| wants(value::int_at(p, &["nodePort"]), needs_node_port(new)));
    node_ports || (needs_health_check_port(new) && wants(value::int_at(new, HEALTH_CHECK_PORT), true))
}

/// A service that is given its ports.
pub(super) struct Plan<'a> {
    pub(super) service: Value,
    ports: &'a mut Ports,
    /// What it was given beyond what it had.
    pub(super) taken: Vec<u16>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(service: Value, ports: &'a mut Ports) -> Self {
        Plan { service, ports, taken: Vec::new() }
    }

    fn next(&mut self, what: &str, random: &mut dyn FnMut() -> u64) -> Result<i64, AllocError> {
        let next = self.ports.take_next(random());
        let next = next.ok_or_else(|| AllocError::Internal(format!("failed to allocate a {what}: {FULL}")))?;
        self.taken.push(next);
        Ok(next.into())
    }

    /// Sets and takes the node ports of the service's ports. Ports of one number (for several protocols) share one.
    pub(super) fn node_ports(
        &mut self,
        before: &[i64],
        update: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), AllocError> {
        let needs = needs_node_port(&self.service);
        let ports = value::items_at(&self.service, &["spec", "ports"]);
        let facts: Vec<(i64, i64)> =
            ports.iter().map(|p| (value::int_at(p, &["port"]), value::int_at(p, &["nodePort"]))).collect();
        let mut chosen: BTreeMap<i64, i64> = BTreeMap::new();
        let mut taken: Vec<i64> = Vec::new();
        for (i, (port, asked)) in facts.iter().copied().enumerate() {
            if asked == 0 && !needs {
                continue;
            }
            // On create, a port without a node port takes that of a later or earlier port of the same number.
            let shared =
                if update { 0 } else { facts.iter().find(|(p, n)| *p == port && *n != 0).map_or(0, |(_, n)| *n) };
            let wanted = match (asked, chosen.get(&port)) {
                (0, Some(have)) if !update => *have,
                (0, _) => shared,
                (asked, _) => asked,
            };
            let node_port = if wanted == 0 {
                self.next("nodePort", random)?
            } else {
                let again = taken.contains(&wanted) && (update || asked == 0 || chosen.get(&port) == Some(&wanted));
                if !again && !before.contains(&wanted) {
                    let took = self.ports.take(wanted).map_err(|why| {
                        let mut errors = Errors::new();
                        errors.invalid_value(format!("spec.ports[{i}].nodePort"), wanted, why.to_string());
                        AllocError::Invalid(errors)
                    })?;
                    self.taken.push(took);
                }
                wanted
            };
            taken.push(node_port);
            chosen.entry(port).or_insert(node_port);
            let ports = value::entry(&mut self.service, &["spec", "ports"]).and_then(Value::as_array_mut);
            if let Some(port) = ports.and_then(|list| list.get_mut(i)) {
                value::set(port, &["nodePort"], node_port);
            }
        }
        Ok(())
    }

    /// Sets and takes the port at which load balancers ask for health.
    pub(super) fn health_check_port(
        &mut self,
        old: Option<&Value>,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), AllocError> {
        if !needs_health_check_port(&self.service) {
            return Ok(());
        }
        let had = old.filter(|o| needs_health_check_port(o)).map_or(0, |o| value::int_at(o, HEALTH_CHECK_PORT));
        match value::int_at(&self.service, HEALTH_CHECK_PORT) {
            0 => {
                let next = self.next("HealthCheck NodePort <nil>", random)?;
                value::set(&mut self.service, HEALTH_CHECK_PORT, next);
            }
            // A change of it is refused by validation.
            _ if had != 0 => {}
            asked => {
                let took = self.ports.take(asked).map_err(|why| {
                    AllocError::Internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
                })?;
                self.taken.push(took);
            }
        }
        Ok(())
    }
}

/// The node ports and health check port of a stored service.
pub(super) fn all_ports(service: &Value) -> Vec<i64> {
    let mut ports = node_ports(service);
    ports.extend(Some(value::int_at(service, HEALTH_CHECK_PORT)).filter(|p| *p != 0));
    ports
}

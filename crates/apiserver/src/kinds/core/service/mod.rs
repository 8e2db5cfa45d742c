//! Services.

pub mod alloc;
mod families;
mod plan;
pub mod ports;
mod ranges;
pub mod repair;
pub mod table;
mod validate;

pub use validate::{endpoint_ip, ingress_host, ingress_ip, ingress_ips};

use serde_json::Value;

use crate::kinds::strategy::{Sub, keep_all_but_status};
use crate::kinds::{Ctx, Strategy, names, value};

/// The strategy of services.
pub static SERVICE: Strategy = Strategy {
    // Since 1.36 a name may begin with a digit.
    name: names::label,
    selectable: &[("spec.clusterIP", &["spec", "clusterIP"], ""), ("spec.type", &["spec", "type"], "")],
    create_on_update: true,
    on_update: drop_fields_of_old_type,
    validate: validate::validate,
    validate_change: validate::validate_change,
    warnings: validate::warnings,
    subresources: &[(
        "status",
        Sub { prepare: keep_all_but_status, validate: validate::validate_status, reset_fields: &[&["spec"]] },
    )],
    columns: table::COLUMNS,
    row: table::row,
    ..Strategy::DEFAULT
};

fn kind(service: &Value) -> &str {
    value::str_at(service, &["spec", "type"])
}

/// Whether services of its type have cluster IPs.
fn needs_cluster_ip(service: &Value) -> bool {
    matches!(kind(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether its ports need node ports.
fn needs_node_port(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => value::at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether a load balancer asks its nodes if they have endpoints.
fn needs_health_check_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && value::str_at(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

/// Whether it is reached from outside and so may have an external traffic policy.
fn externally_accessible(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
        || (kind(service) == "ClusterIP" && !value::items_at(service, &["spec", "externalIPs"]).is_empty())
}

/// When the type changes, fields of the old type that the user left as they were go.
fn drop_fields_of_old_type(_: &Ctx<'_>, new: &mut Value, old: &Value) {
    let unchanged =
        |new: &Value, field: &str| value::same(value::at(new, &["spec", field]), value::at(old, &["spec", field]));
    let drop = |new: &mut Value, field: &str| {
        if unchanged(new, field) {
            value::remove(new, &["spec", field]);
        }
    };
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if unchanged(new, "clusterIP") && unchanged(new, "clusterIPs") {
            value::remove(new, &["spec", "clusterIP"]);
            value::remove(new, &["spec", "clusterIPs"]);
        }
        drop(new, "ipFamilies");
        drop(new, "ipFamilyPolicy");
    }
    if needs_node_port(old) && !needs_node_port(new) && node_ports(new) == node_ports(old) {
        let ports = value::entry(new, &["spec"]).and_then(|s| s.get_mut("ports")).and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            value::remove(port, &["nodePort"]);
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) {
        drop(new, "healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        drop(new, "allocateLoadBalancerNodePorts");
        drop(new, "loadBalancerClass");
    }
    if externally_accessible(old) && !externally_accessible(new) {
        drop(new, "externalTrafficPolicy");
    }
}

/// The node ports it has, in order of its ports.
fn node_ports(service: &Value) -> Vec<i64> {
    let ports = value::items_at(service, &["spec", "ports"]);
    ports.iter().map(|p| value::int_at(p, &["nodePort"])).filter(|p| *p != 0).collect()
}

/// The cluster IPs it has; none when headless.
fn cluster_ips(service: &Value) -> Vec<&str> {
    let ips = value::items_at(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    ips.filter(|ip| !ip.is_empty() && *ip != "None").collect()
}

/// Whether it has DNS records of its endpoints and no address of its own.
fn is_headless(service: &Value) -> bool {
    matches!(value::items_at(service, &["spec", "clusterIPs"]), [one] if one == "None")
}

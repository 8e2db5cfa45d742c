//! Validation of services.

use std::collections::HashSet;

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::{externally_accessible, is_headless, kind, needs_health_check_port};
use crate::kinds::{Ctx, checks, meta, warn};

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const CHANGED: &str = "may not change once set";

/// The whole value under a cursor at the root; an object has one.
fn value<'a>(service: &Cursor<'a>) -> &'a Value {
    service.value().unwrap_or(&Value::Null)
}

pub(super) fn validate(_: &Ctx<'_>, service: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = service.get("spec");
    let annotations = service.get("metadata").get("annotations");
    let (hints, mode) = (annotations.key(HINTS), annotations.key(TOPOLOGY_MODE));
    if hints.is_present() && mode.is_present() && hints.str() != mode.str() {
        errors.invalid(&mode, format!("must match annotations[{HINTS}] when both are specified"));
    }
    let headless = is_headless(value(service));
    if spec.get("ports").is_empty() && !headless && kind(value(service)) != "ExternalName" {
        errors.required(spec.get("ports"), "");
    }
    of_type(&spec, headless, errors);
    ports(&spec, errors);
    meta::labels(&spec.get("selector"), errors);
    session_affinity(&spec, errors);
    cluster_ip_fields(service, old, errors);
    let stored = stored(old, "externalIPs");
    for ip in spec.get("externalIPs").items() {
        let before = errors.len();
        checks::legacy_ip(&ip, &stored, errors);
        if errors.len() == before {
            endpoint_ip(&ip, errors);
        }
    }
    checks::one_of(&spec.get("type"), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], true, errors);
    node_ports(&spec, errors);
    source_ranges(service, old, errors);
    let balancer = kind(value(service)) == "LoadBalancer";
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if allocate.is_present() && !balancer {
        errors.forbidden(&allocate, ONLY_LOAD_BALANCER);
    }
    if allocate.is_absent() && balancer {
        errors.required("allocateLoadBalancerNodePorts", "");
    }
    let class = spec.get("loadBalancerClass");
    if class.is_present() && balancer {
        meta::invalid_each(&class, qualified_name(class.str()), errors);
    } else if class.is_present() {
        errors.forbidden(&class, ONLY_LOAD_BALANCER);
    }
    traffic_policies(service, &spec, errors);
}

fn of_type(spec: &Cursor<'_>, headless: bool, errors: &mut Errors) {
    match spec.get("type").str() {
        kind @ ("LoadBalancer" | "NodePort") if headless => {
            let ip = spec.get("clusterIPs").index(0);
            errors.invalid(&ip, format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.get(field).is_empty() {
                    errors.forbidden(spec.get(field), "may not be set for ExternalName services");
                }
            }
            let name = spec.get("externalName");
            let text = name.str().strip_suffix('.').unwrap_or(name.str());
            if text.is_empty() {
                errors.required(&name, "");
            } else {
                for message in dns1123_subdomain(text) {
                    errors.invalid_value(&name, text, message);
                }
            }
        }
        _ => {}
    }
}

fn ports(spec: &Cursor<'_>, errors: &mut Errors) {
    let list = spec.get("ports");
    let mut names: HashSet<&str> = HashSet::new();
    for port in list.items() {
        let name = port.get("name");
        if name.str().is_empty() {
            if list.len() > 1 {
                errors.required(&name, "");
            }
        } else {
            checks::label(&name, errors);
            if names.contains(&name.str()) {
                errors.duplicate(&name, name.str());
            } else {
                names.insert(name.str());
            }
        }
        for message in checks::port_number(port.get("port").int()) {
            errors.invalid_value(port.get("port"), port.get("port").int(), message);
        }
        checks::one_of(&port.get("protocol"), &["SCTP", "TCP", "UDP"], true, errors);
        checks::port(&port.get("targetPort"), errors);
        let app = port.get("appProtocol");
        if app.is_present() {
            meta::invalid_each(&app, qualified_name(app.str()), errors);
        }
    }
}

fn session_affinity(spec: &Cursor<'_>, errors: &mut Errors) {
    checks::one_of(&spec.get("sessionAffinity"), &["ClientIP", "None"], true, errors);
    let config = spec.get("sessionAffinityConfig");
    match spec.get("sessionAffinity").str() {
        "ClientIP" => {
            let timeout = config.get("clientIP").get("timeoutSeconds");
            for part in [&config, &config.get("clientIP"), &timeout] {
                if part.is_absent() {
                    return errors.required(part, "when session affinity type is ClientIP");
                }
            }
            if !(1..=86400).contains(&timeout.int()) {
                errors.invalid(&timeout, "must be greater than 0 and less than 86400");
            }
        }
        "None" if config.is_present() => {
            errors.forbidden(&config, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn node_ports(spec: &Cursor<'_>, errors: &mut Errors) {
    if spec.get("type").str() == "ClusterIP" {
        for port in spec.get("ports").items().filter(|p| p.get("nodePort").int() != 0) {
            errors.forbidden(port.get("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let (mut node_ports, mut ports) = (HashSet::new(), HashSet::new());
    for port in spec.get("ports").items() {
        let key = (port.get("protocol").str(), port.get("nodePort").int());
        if key.1 != 0 && node_ports.contains(&key) {
            errors.duplicate(port.get("nodePort"), key.1);
        }
        node_ports.insert(key);
    }
    for port in spec.get("ports").items() {
        let key = (port.get("protocol").str(), port.get("port").int());
        if ports.contains(&key) {
            // Upstream reports a ServicePort that has but these two.
            let value = serde_json::json!({"protocol": key.0, "port": key.1, "targetPort": 0});
            errors.duplicate(&port, value);
        }
        ports.insert(key);
    }
}

/// The texts of a list of the stored object's spec.
fn stored<'a>(old: Option<&Cursor<'a>>, field: &'static str) -> HashSet<&'a str> {
    let list = old.map(|o| o.get("spec").get(field));
    list.iter().flat_map(Cursor::items).map(|text| text.str().trim()).collect()
}

fn source_ranges(service: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = service.get("spec");
    let balancer = spec.get("type").str() == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges");
    let annotation = service.get("metadata").get("annotations").key(SOURCE_RANGES);
    if !ranges.is_empty() {
        // Upstream spells this path with a capital.
        let path = "spec.LoadBalancerSourceRanges";
        if !balancer {
            errors.forbidden(path, ONLY_LOAD_BALANCER);
        }
        let stored = stored(old, "loadBalancerSourceRanges");
        for (i, range) in ranges.items().enumerate() {
            let text = range.str().trim();
            if let Some(wrong) = checks::cidr_text(text).filter(|_| !stored.contains(text)) {
                errors.invalid_value(format!("{path}[{i}]"), text, wrong);
            }
        }
    } else if annotation.is_present() {
        if !balancer {
            errors.forbidden(&annotation, ONLY_LOAD_BALANCER);
        }
        let stored = old.map(|o| o.get("metadata").get("annotations").key(SOURCE_RANGES));
        if stored.is_some_and(|s| s.opt_str() == annotation.opt_str()) || annotation.str().trim().is_empty() {
            return;
        }
        for text in annotation.str().trim().split(',').map(str::trim) {
            if let Some(wrong) = checks::cidr_text(text) {
                errors.invalid_value(&annotation, text, wrong);
            }
        }
    }
}

fn traffic_policies(service: &Cursor<'_>, spec: &Cursor<'_>, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    if externally_accessible(value(service)) {
        checks::one_of(&external, &["Cluster", "Local"], true, errors);
    } else if !external.str().is_empty() {
        errors.invalid(&external, "may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    if needs_health_check_port(value(service)) {
        if health.int() == 0 {
            errors.required(&health, "");
        } else {
            meta::invalid_each(&health, checks::port_number(health.int()), errors);
        }
    } else if health.int() != 0 {
        errors.invalid(&health, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
    }
    let internal = spec.get("internalTrafficPolicy");
    if internal.is_absent() && matches!(spec.get("type").str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        errors.required(&internal, "");
    }
    if internal.is_present() && !matches!(internal.str(), "Cluster" | "Local") {
        errors.not_supported(&internal, internal.str(), &["Cluster", "Local"]);
    }
    let distribution = spec.get("trafficDistribution");
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if distribution.is_present() && !known.contains(&distribution.str()) {
        errors.not_supported(&distribution, distribution.str(), &known);
    }
}

/// Checks the cluster IPs, families and policy of a service.
pub(super) fn cluster_ip_fields(service: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = service.get("spec");
    if spec.get("type").str() == "ExternalName" {
        return;
    }
    let (ips, families, policy) = (spec.get("clusterIPs"), spec.get("ipFamilies"), spec.get("ipFamilyPolicy"));
    match (spec.get("clusterIP").str(), ips.index(0).str()) {
        ("", _) if !ips.is_empty() => errors.invalid(&ips, "must be empty when `clusterIP` is not specified"),
        ("", _) => {}
        (_, _) if ips.is_empty() => errors.required(&ips, ""),
        (one, first) if one != first => errors.invalid(&ips, "first value must match `clusterIP`"),
        _ => {}
    }
    let mut seen = HashSet::new();
    for family in families.items() {
        checks::one_of(&family, &["IPv4", "IPv6"], false, errors);
        if seen.contains(&family.str()) {
            errors.duplicate(&family, family.str());
        }
        seen.insert(family.str());
    }
    if policy.is_present() {
        checks::one_of(&policy, &["PreferDualStack", "RequireDualStack", "SingleStack"], false, errors);
    }
    let stored = stored(old, "clusterIPs");
    let mut invalid = false;
    for (i, ip) in ips.items().enumerate() {
        if i == 0 && ip.str() == "None" {
            if ips.len() > 1 {
                invalid = true;
                errors.invalid(&ips, "'None' must be the first and only value");
            }
            continue;
        }
        let before = errors.len();
        checks::legacy_ip(&ip, &stored, errors);
        invalid |= errors.len() != before;
    }
    if ips.len() > 2 {
        errors.invalid(&ips, "may only hold up to 2 values");
    }
    if invalid {
        return;
    }
    let is_v6 = |ip: &Cursor<'_>| checks::parse_ip(ip.str()).is_some_and(|ip| ip.is_ipv6());
    if ips.len() > 1 {
        let (v4, v6) = (ips.items().any(|ip| !is_v6(&ip)), ips.items().any(|ip| is_v6(&ip)));
        if !(v4 && v6) {
            errors.invalid(&ips, "may specify no more than one IP for each IP family");
        }
    }
    if ips.index(0).str() == "None" {
        return;
    }
    for (i, (ip, family)) in ips.items().zip(families.items()).enumerate() {
        match family.str() {
            expected @ "IPv4" if is_v6(&ip) => {
                errors.invalid(&ip, format!("expected an {expected} value as indicated by `ipFamilies[{i}]`"));
            }
            expected @ "IPv6" if !is_v6(&ip) => {
                errors.invalid(&ip, format!("expected an {expected} value as indicated by `ipFamilies[{i}]`"));
            }
            _ => {}
        }
    }
}

/// An address that traffic may be sent to.
pub fn endpoint_ip(at: &Cursor<'_>, errors: &mut Errors) {
    use std::net::IpAddr;
    let Some(ip) = checks::parse_ip(at.str()) else {
        return errors.invalid(at, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    };
    let (link_local, link_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.invalid(at, format!("may not be unspecified ({ip})"));
    }
    if ip.is_loopback() {
        errors.invalid(at, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(at, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_multicast {
        errors.invalid(at, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub(super) fn validate_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    let kinds = (n.get("type").str(), o.get("type").str());
    if kinds.0 != "ExternalName" && kinds.1 != "ExternalName" {
        let headless = (is_headless(value(new)), is_headless(value(old)));
        if headless != (true, true) {
            keep_first(&n, &o, "clusterIPs", errors);
        }
        if headless == (false, false) {
            keep_first(&n, &o, "ipFamilies", errors);
        }
    }
    if kinds == ("LoadBalancer", "LoadBalancer") {
        let class = n.get("loadBalancerClass");
        if class.opt_str() != o.get("loadBalancerClass").opt_str() {
            errors.invalid_value(&class, class.value().cloned().unwrap_or_default(), CHANGED);
        }
    }
    if needs_health_check_port(value(new)) && needs_health_check_port(value(old)) {
        let port = n.get("healthCheckNodePort");
        if port.int() != o.get("healthCheckNodePort").int() {
            errors.forbidden(&port, "field is immutable");
        }
    }
}

/// A list of one or two keeps its first; the second comes and goes with the policy.
fn keep_first(new: &Cursor<'_>, old: &Cursor<'_>, field: &'static str, errors: &mut Errors) {
    let (n, o) = (new.get(field), old.get(field));
    let all = n.value().cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    let one_word = if field == "clusterIPs" { "clusterIP" } else { "ipFamily" };
    if n.len() == o.len() {
        for (i, (a, b)) in n.items().zip(o.items()).enumerate() {
            if a.str() != b.str() {
                let at = if field == "clusterIPs" { n.index(i) } else { n.index(0) };
                errors.invalid_value(at, all.clone(), CHANGED);
            }
        }
        return;
    }
    if n.is_empty() {
        errors.invalid_value(n.index(0), all.clone(), format!("primary {one_word} can not be unset"));
    } else if !o.is_empty() && n.index(0).str() != o.index(0).str() {
        errors.invalid_value(n.index(0), all, CHANGED);
    }
    let policy = new.get("ipFamilyPolicy");
    if o.len() > n.len() && n.len() == 1 && policy.str() != "SingleStack" {
        let message = format!("must be set to 'SingleStack' when releasing the secondary {one_word}");
        errors.invalid_value(&policy, policy.value().cloned().unwrap_or_default(), message);
    }
}

pub(super) fn validate_status(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let ingress = new.get("status").get("loadBalancer").get("ingress");
    if new.get("spec").get("type").str() != "LoadBalancer" {
        if !ingress.is_empty() {
            errors.forbidden(&ingress, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    let stored = ingress_ips(old);
    for entry in ingress.items() {
        let (ip, mode) = (entry.get("ip"), entry.get("ipMode"));
        ingress_ip(&entry, &stored, errors);
        if mode.is_absent() {
            if !ip.is_empty() {
                errors.required(&mode, "must be specified when `ip` is set");
            }
        } else if ip.is_empty() {
            errors.forbidden(&mode, "may not be specified when `ip` is not set");
        } else {
            checks::one_of(&mode, &["Proxy", "VIP"], false, errors);
        }
        ingress_host(&entry, errors);
    }
}

/// The addresses of the ingress points of an object's load balancer.
pub fn ingress_ips<'a>(object: &Cursor<'a>) -> HashSet<&'a str> {
    object.get("status").get("loadBalancer").get("ingress").items().map(|s| s.get("ip").str()).collect()
}

/// The address of an ingress point of a load balancer; those that are stored may stay.
pub fn ingress_ip(point: &Cursor<'_>, stored: &HashSet<&str>, errors: &mut Errors) {
    let ip = point.get("ip");
    if !ip.is_empty() && !stored.contains(ip.str()) {
        checks::new_ip(&ip, errors);
    }
}

/// The name of an ingress point of a load balancer.
pub fn ingress_host(point: &Cursor<'_>, errors: &mut Errors) {
    let host = point.get("hostname");
    if !host.is_empty() {
        checks::subdomain(&host, errors);
        if checks::parse_ip(host.str()).is_some() {
            errors.invalid(&host, "must be a DNS name, not an IP address");
        }
    }
}

pub(super) fn warnings(_: &Ctx<'_>, service: &Cursor<'_>, _: Option<&Cursor<'_>>) -> Vec<String> {
    let spec = service.get("spec");
    let mut out = Vec::new();
    if service.get("metadata").get("annotations").key(HINTS).is_present() {
        out.push(format!("annotation {HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let kind = spec.get("type").str();
    let headless = spec.get("clusterIP").str() == "None";
    for address in spec.get("clusterIPs").items().filter(|_| kind != "ExternalName" && !headless) {
        warn::ip(&address, &mut out);
    }
    if kind == "ClusterIP" && headless {
        for (field, name) in [
            ("loadBalancerIP", "loadBalancerIP"),
            ("externalIPs", "externalIPs"),
            ("sessionAffinity", "SessionAffinity"),
        ] {
            if !spec.get(field).is_empty() {
                out.push(format!("spec.{name} is ignored for headless services"));
            }
        }
    }
    for address in spec.get("externalIPs").items() {
        warn::ip(&address, &mut out);
    }
    warn::ip(&spec.get("loadBalancerIP"), &mut out);
    for range in spec.get("loadBalancerSourceRanges").items() {
        warn::cidr(&range, &mut out);
    }
    if kind == "ExternalName" && !spec.get("externalIPs").is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.get("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn service() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n", "resourceVersion": "1"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]},
        })
    }

    #[test]
    fn creates() {
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&service(), path, to)), expect, "{path}");
        };
        check("metadata/labels", json!({}), "");
        check("spec/ports", json!([]), "spec.ports: Required value");
        check(
            "spec/ports/0/port",
            json!(0),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        );
        check(
            "spec/ports/0/protocol",
            json!("tcp"),
            "spec.ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        );
        check(
            "spec/ports/0/targetPort",
            json!("-x"),
            "spec.ports[0].targetPort: Invalid value: \"-x\": must not begin or end with a hyphen",
        );
        check(
            "spec/ports/0/nodePort",
            json!(30000),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        );
        check(
            "spec/ports/1",
            json!({"name": "x", "port": 80, "protocol": "TCP", "targetPort": 1}),
            "spec.ports[0].name: Required value\nspec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\",\"targetPort\":0}",
        );
        check("spec/type", Value::Null, "spec.type: Required value");
        check(
            "spec/type",
            json!("LoadBalancer"),
            "allocateLoadBalancerNodePorts: Required value\nspec.externalTrafficPolicy: Required value",
        );
        check(
            "spec/sessionAffinity",
            json!("ClientIP"),
            "spec.sessionAffinityConfig: Required value: when session affinity type is ClientIP",
        );
        check(
            "spec/externalIPs",
            json!(["127.0.0.1"]),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)\nspec.externalTrafficPolicy: Required value",
        );
        check(
            "spec/clusterIPs",
            json!(["10.0.0.2"]),
            "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`",
        );
        check(
            "spec/ipFamilies",
            json!(["IPv6"]),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        );
        check(
            "spec/loadBalancerSourceRanges",
            json!(["x"]),
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'\nspec.LoadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        );
        check(
            "spec/trafficDistribution",
            json!("Far"),
            "spec.trafficDistribution: Unsupported value: \"Far\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
        );
        let external = json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "a_b"});
        assert!(
            create_errors(&changed(&service(), "spec", external))
                .starts_with("spec.externalName: Invalid value: \"a_b\"")
        );
    }

    #[test]
    fn updates() {
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(update_errors(&changed(&service(), path, to), &service()), expect, "{path}");
        };
        check("spec/selector", json!({"x": "y"}), "");
        let mut moved = service();
        moved["spec"]["clusterIP"] = "10.0.0.2".into();
        moved["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
        assert_eq!(
            update_errors(&moved, &service()),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
        );
        check("spec/ipFamilies", json!([]), "spec.ipFamilies[0]: Invalid value: []: primary ipFamily can not be unset");
    }
}

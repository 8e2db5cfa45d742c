//! Validation of the networking and discovery groups.

use std::collections::HashSet;

use pintle_api::addresses::masked;
use pintle_api::names::{dns1123_label, dns1123_subdomain, label_value, path_segment, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;
use std::net::IpAddr;

use crate::kinds::core::service::{endpoint_ip, ingress_host, ingress_ip, ingress_ips};
use crate::kinds::value::nothing;
use crate::kinds::{Ctx, checks, meta};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) fn ingress<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let class = spec.get("ingressClassName");
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && backend.is_absent() {
        let shown = rules.value().cloned().unwrap_or(Value::Null);
        errors.invalid_value(&spec, shown, "either `defaultBackend` or `rules` must be specified");
    }
    if backend.is_present() {
        ingress_backend(&backend, errors);
    }
    // What was stored when less was asked for may stay.
    let none = nothing();
    let was = old.unwrap_or(&none).get("spec");
    let odd_wildcards = was.get("rules").items().any(|rule| {
        let mut found = Errors::new();
        ingress_rule(&rule, &mut found);
        rule.get("host").str().contains('*') && !found.is_empty()
    });
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.is_empty() {
            if checks::parse_ip(host.str()).is_some() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
            dns_name(&host, errors);
        }
        if !(odd_wildcards && host.str().contains('*')) {
            ingress_rule(&rule, errors);
        }
    }
    let is_name = |secret: &str| secret.is_empty() || dns1123_subdomain(secret).is_empty();
    let odd_secrets = was.get("tls").items().any(|t| !is_name(t.get("secretName").str()));
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            dns_name(&host, errors);
        }
        let secret = tls.get("secretName");
        if !odd_secrets && !is_name(secret.str()) {
            checks::subdomain(&secret, errors);
        }
    }
    if class.is_present() {
        meta::invalid_each(&class, dns1123_subdomain(class.str()), errors);
    }
    let annotation = object.get("metadata").get("annotations").key(CLASS_ANNOTATION);
    if old.is_none() && annotation.is_present() && class.is_present() && annotation.str() != class.str() {
        // Upstream leaves `metadata` out of this path.
        let message = "must match `ingressClassName` when both are specified";
        errors.invalid_value(format!("annotations.{CLASS_ANNOTATION}"), annotation.str(), message);
    }
}

fn ingress_rule(rule: &Cursor<'_>, errors: &mut Errors) {
    let http = rule.get("http");
    if http.is_present() && http.get("paths").is_empty() {
        errors.required(http.get("paths"), "");
    }
    for path in http.get("paths").items() {
        ingress_path(&path, errors);
    }
}

/// The `status` sub-resource of an ingress.
pub(super) fn ingress_status(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let stored = ingress_ips(old);
    for point in new.get("status").get("loadBalancer").get("ingress").items() {
        ingress_ip(&point, &stored, errors);
        ingress_host(&point, errors);
    }
}

fn dns_name(host: &Cursor<'_>, errors: &mut Errors) {
    let found =
        if host.str().contains('*') { checks::wildcard_subdomain(host.str()) } else { dns1123_subdomain(host.str()) };
    meta::invalid_each(host, found, errors);
}

fn ingress_path(path: &Cursor<'_>, errors: &mut Errors) {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    match kind.str() {
        _ if kind.is_absent() => return errors.required(&kind, "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.str().starts_with('/') {
                errors.invalid_value(&text, text.str(), "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.str().contains(sequence) {
                    errors.invalid(&text, format!("must not contain '{sequence}'"));
                }
            }
            for suffix in ["/..", "/."] {
                if text.str().ends_with(suffix) {
                    errors.invalid(&text, format!("cannot end with '{suffix}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.str().starts_with('/') {
                errors.invalid(&text, "must be an absolute path");
            }
        }
        other => errors.not_supported(&kind, other, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    ingress_backend(&path.get("backend"), errors);
}

fn ingress_backend(backend: &Cursor<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_present(), resource.is_present()) {
        (true, true) => return errors.invalid_value(backend, "", "cannot set both resource and service backends"),
        (false, false) => return errors.invalid_value(backend, "", "resource or service backend is required"),
        (false, true) => return typed_reference(&resource, errors),
        (true, false) => {}
    }
    let name = service.get("name");
    if name.is_empty() {
        errors.required(&name, "");
    } else {
        meta::invalid_each(&name, dns1123_label(name.str()), errors);
    }
    let port = service.get("port");
    let (number, named) = (port.get("number"), port.get("name"));
    match (number.int() != 0, !named.is_empty()) {
        (true, true) => errors.invalid_value(backend, "", "cannot set both port name & port number"),
        (true, false) => meta::invalid_each(&number, checks::port_number(number.int()), errors),
        (false, true) => meta::invalid_each(&named, checks::port_name(named.str()), errors),
        (false, false) => errors.required(backend, "port name or number is required"),
    }
}

fn typed_reference(reference: &Cursor<'_>, errors: &mut Errors) {
    let group = reference.get("apiGroup");
    if group.is_present() {
        meta::invalid_each(&group, dns1123_subdomain(group.str()), errors);
    }
    segments(reference, &["kind", "name"], errors);
}

/// Fields that must be there and can stand in a path.
fn segments(of: &Cursor<'_>, fields: &[&'static str], errors: &mut Errors) {
    for field in fields {
        let part = of.get(field);
        if part.is_empty() {
            errors.required(&part, "");
        } else {
            meta::invalid_each(&part, path_segment(part.str()), errors);
        }
    }
}

pub(super) fn ingress_class(_: &Ctx<'_>, object: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let controller = spec.get("controller");
    if controller.is_empty() {
        errors.required(&controller, "");
    } else {
        if controller.str().len() > 250 {
            errors.too_long(&controller, 250);
        }
        crate::kinds::batch::domain_path(&controller, errors);
    }
    let parameters = spec.get("parameters");
    if parameters.is_absent() {
        return;
    }
    typed_reference(&parameters, errors);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.str() {
        _ if scope.is_absent() => errors.required(&scope, ""),
        "Namespace" if namespace.is_absent() => {
            errors.required(&namespace, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => meta::invalid_each(&namespace, dns1123_label(namespace.str()), errors),
        "Cluster" if namespace.is_present() => {
            errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        other => errors.not_supported(&scope, other, &["Cluster", "Namespace"]),
    }
}

/// What a stored policy had already may stay, though it would not be taken anew.
struct Stored<'a> {
    lenient: bool,
    cidrs: Vec<&'a str>,
}

pub(super) fn network_policy(_: &Ctx<'_>, object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let none = nothing();
    let was = old.unwrap_or(&none).get("spec");
    let mut found = Errors::new();
    meta::label_selector(&was.get("podSelector"), false, &mut found);
    let mut stored = Stored { lenient: !found.is_empty(), cidrs: Vec::new() };
    for (field, peers) in DIRECTIONS {
        for block in was
            .get(field)
            .items()
            .flat_map(|rule| rule.get(peers).items().map(|p| p.get("ipBlock")).collect::<Vec<_>>())
        {
            stored.cidrs.push(block.get("cidr").str());
            stored.cidrs.extend(block.get("except").items().map(|e| e.str()));
        }
    }
    meta::label_selector(&spec.get("podSelector"), stored.lenient, errors);
    for (field, peers) in DIRECTIONS {
        for rule in spec.get(field).items() {
            for port in rule.get("ports").items() {
                policy_port(&port, errors);
            }
            for peer in rule.get(peers).items() {
                policy_peer(&peer, &stored, errors);
            }
        }
    }
    let kinds = spec.get("policyTypes");
    if kinds.len() > 2 {
        return errors.invalid(&kinds, "may not specify more than two policyTypes");
    }
    for kind in kinds.items().filter(|k| !matches!(k.str(), "Ingress" | "Egress")) {
        errors.not_supported(&kind, kind.str(), &["Ingress", "Egress"]);
    }
}

/// The rules of a policy, and the peers of a rule.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

fn policy_port(entry: &Cursor<'_>, errors: &mut Errors) {
    let (protocol, port, end) = (entry.get("protocol"), entry.get("port"), entry.get("endPort"));
    if protocol.is_present() && !PROTOCOLS.contains(&protocol.str()) {
        errors.not_supported(&protocol, protocol.str(), &["TCP", "UDP", "SCTP"]);
    }
    if let Some(name) = port.opt_str() {
        if end.is_present() {
            errors.invalid(&end, "may not be specified when `port` is non-numeric");
        }
        meta::invalid_each(&port, checks::port_name(name), errors);
    } else if port.is_present() {
        meta::invalid_each(&port, checks::port_number(port.int()), errors);
        if end.is_present() {
            if end.int() < port.int() {
                errors.invalid(&end, "must be greater than or equal to `port`");
            }
            meta::invalid_each(&end, checks::port_number(end.int()), errors);
        }
    } else if end.is_present() {
        errors.invalid(&end, "may not be specified when `port` is not specified");
    }
}

fn policy_peer(peer: &Cursor<'_>, stored: &Stored<'_>, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.get("podSelector"), peer.get("namespaceSelector"), peer.get("ipBlock"));
    meta::label_selector(&pods, stored.lenient, errors);
    meta::label_selector(&namespaces, stored.lenient, errors);
    let selectors = usize::from(pods.is_present()) + usize::from(namespaces.is_present());
    if block.is_present() {
        ip_block(&block, stored, errors);
    }
    if selectors == 0 && block.is_absent() {
        errors.required(peer, "must specify a peer");
    } else if block.is_present() && selectors > 0 {
        errors.forbidden(peer, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &Cursor<'_>, stored: &Stored<'_>, errors: &mut Errors) {
    let cidr = block.get("cidr");
    if cidr.is_empty() {
        return errors.required(&cidr, "");
    }
    let mut parse = |at: &Cursor<'_>| {
        if !stored.cidrs.contains(&at.str()) {
            checks::new_cidr(at, errors);
        }
        checks::parse_cidr(at.str())
    };
    let Some((base, length)) = parse(&cidr) else { return };
    let inside = |ip: IpAddr| ip.is_ipv4() == base.is_ipv4() && masked(ip, length) == masked(base, length);
    let excepts: Vec<_> = block.get("except").items().map(|e| (parse(&e), e)).collect();
    for (parsed, except) in excepts {
        if parsed.is_some_and(|(ip, inner)| !inside(ip) || inner <= length) {
            errors.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

/// An address. What it stands for stays, so it is not checked again.
pub(super) fn ip_address(_: &Ctx<'_>, object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let parent = object.get("spec").get("parentRef");
    if let Some(old) = old {
        return meta::immutable(&parent, &old.get("spec").get("parentRef"), errors);
    }
    if parent.is_absent() {
        return errors.required(&parent, "");
    }
    let group = parent.get("group");
    if !group.is_empty() {
        checks::subdomain(&group, errors);
    }
    segments(&parent, &["resource", "name"], errors);
    let namespace = parent.get("namespace");
    if !namespace.is_empty() {
        meta::invalid_each(&namespace, path_segment(namespace.str()), errors);
    }
}

/// The name of an `IPAddress` is the address.
pub(super) fn ip_name(name: &str, _: bool) -> Vec<String> {
    let mut errors = Errors::new();
    let value = Value::from(name);
    checks::strict_ip(&Cursor::root(&value), &mut errors);
    errors.iter().map(|e| e.detail.clone()).collect()
}

pub(super) fn service_cidr(_: &Ctx<'_>, object: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    if old.is_some() {
        return;
    }
    cidrs(&object.get("spec").get("cidrs"), errors);
}

fn cidrs(list: &Cursor<'_>, errors: &mut Errors) {
    match list.len() {
        0 => return errors.required(list, "at least one CIDR required"),
        1 | 2 => {}
        _ => {
            return errors.invalid(list, "may only hold up to 2 values");
        }
    }
    for cidr in list.items() {
        checks::strict_cidr(&cidr, errors);
    }
    let families: Vec<bool> =
        list.items().filter_map(|c| checks::parse_cidr(c.str())).map(|(ip, _)| ip.is_ipv6()).collect();
    if let [one, other] = families[..]
        && one == other
    {
        errors
            .invalid(list, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
    }
}

pub(super) fn service_cidr_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let (n, o) = (new.get("spec").get("cidrs"), old.get("spec").get("cidrs"));
    match (o.len(), n.len()) {
        // One family may become two, the first staying as it is.
        (1, 2) => {
            meta::immutable(&n.index(0), &o.index(0), errors);
            cidrs(&n, errors);
        }
        (before, now) if before == now => {
            for (cidr, was) in n.items().zip(o.items()) {
                meta::immutable(&cidr, &was, errors);
            }
        }
        _ => errors.invalid_value(&n, n.value().cloned().unwrap_or_default(), meta::IMMUTABLE),
    }
}

pub(super) fn endpoint_slice(_: &Ctx<'_>, object: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let kind = object.get("addressType");
    checks::one_of(&kind, &["FQDN", "IPv4", "IPv6"], true, errors);
    endpoints(&object.get("endpoints"), kind.str(), errors);
    slice_ports(&object.get("ports"), errors);
}

/// Checks a name.
type Rule = fn(&str) -> Vec<String>;

/// What an endpoint may be hinted for.
const HINTS: [(&str, Rule); 2] = [("forZones", label_value), ("forNodes", dns1123_subdomain)];

fn endpoints(list: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    if list.len() > 1000 {
        return errors.too_many(list, list.len(), 1000);
    }
    for endpoint in list.items() {
        let addresses = endpoint.get("addresses");
        if addresses.is_empty() {
            errors.required(&addresses, "must contain at least 1 address");
        } else if addresses.len() > 100 {
            errors.too_many(&addresses, addresses.len(), 100);
        }
        for address in addresses.items() {
            slice_address(&address, kind, errors);
        }
        let (node, host) = (endpoint.get("nodeName"), endpoint.get("hostname"));
        if node.is_present() {
            meta::invalid_each(&node, dns1123_subdomain(node.str()), errors);
        }
        let topology = endpoint.get("deprecatedTopology");
        if topology.len() > 16 {
            errors.too_many(&topology, topology.len(), 16);
        }
        meta::labels(&topology, errors);
        if host.is_present() {
            checks::label(&host, errors);
        }
        for (field, rule) in HINTS {
            let hints = endpoint.get("hints").get(field);
            if hints.len() > 8 {
                errors.too_many(&hints, hints.len(), 8);
                break;
            }
            let mut seen: HashSet<&str> = HashSet::new();
            for name in hints.items().map(|h| h.get("name")) {
                if seen.contains(&name.str()) {
                    errors.duplicate(&name, name.str());
                }
                seen.insert(name.str());
                for message in rule(name.str()) {
                    errors.invalid_value(&name, name.str(), message);
                }
            }
        }
    }
}

fn slice_address(address: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    match (kind, checks::parse_ip(address.str())) {
        ("IPv4", Some(IpAddr::V4(_))) | ("IPv6", Some(IpAddr::V6(_))) => endpoint_ip(address, errors),
        ("IPv4", _) => errors.invalid(address, "must be a valid IPv4 address"),
        ("IPv6", _) => errors.invalid(address, "must be a valid IPv6 address"),
        ("FQDN", _) => {
            let name = address.str().strip_suffix('.').unwrap_or(address.str());
            let found = dns1123_subdomain(name);
            if name.is_empty() {
                errors.required(address, "");
            } else if !found.is_empty() {
                errors.invalid_value(address, name, found.join(","));
            } else if !name.contains('.') {
                errors.invalid_value(address, name, "should be a domain with at least two segments separated by dots");
            }
        }
        _ => {}
    }
}

fn slice_ports(list: &Cursor<'_>, errors: &mut Errors) {
    if list.len() > 20_000 {
        return errors.too_many(list, list.len(), 20_000);
    }
    let mut names: HashSet<&str> = HashSet::new();
    for port in list.items() {
        let (name, protocol, app) = (port.get("name"), port.get("protocol"), port.get("appProtocol"));
        if !name.is_empty() {
            checks::label(&name, errors);
        }
        if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        }
        names.insert(name.str());
        checks::one_of(&protocol, PROTOCOLS, true, errors);
        if app.is_present() {
            meta::invalid_each(&app, qualified_name(app.str()), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn object(api_version: &str, kind: &str, name: &str, rest: Value) -> Value {
        let mut object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "resourceVersion": "1"}});
        if !matches!(kind, "IngressClass" | "IPAddress" | "ServiceCIDR") {
            object["metadata"]["namespace"] = "ns".into();
        }
        for (k, v) in rest.as_object().unwrap() {
            object[k] = v.clone();
        }
        object
    }

    #[test]
    fn ingresses() {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let ingress = object(
            "networking.k8s.io/v1",
            "Ingress",
            "i",
            json!({"spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}}),
        );
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&ingress, path, to)), expect, "{path}");
        };
        check("spec/ingressClassName", json!("c"), "");
        check("spec/rules", json!([]), "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified");
        check(
            "spec/rules/0/host",
            json!("1.2.3.4"),
            "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
        );
        check(
            "spec/rules/0/http/paths/0/path",
            json!("x"),
            "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
        );
        check(
            "spec/rules/0/http/paths/0/pathType",
            Value::Null,
            "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
        );
        check(
            "spec/rules/0/http/paths/0/backend",
            json!({}),
            "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
        );
        let path = "spec/rules/0/http/paths/0/backend/service";
        let at = "spec.rules[0].http.paths[0].backend";
        check(&format!("{path}/name"), json!("1s"), "");
        check(&format!("{path}/port"), json!({}), &format!("{at}: Required value: port name or number is required"));
        check(
            &format!("{path}/port/name"),
            json!("x"),
            &format!("{at}: Invalid value: \"\": cannot set both port name & port number"),
        );
        let mut both = changed(&ingress, "spec/ingressClassName", json!("c"));
        both["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "c"});
        assert_eq!(create_errors(&both), "");
        both["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "d"});
        assert_eq!(
            create_errors(&both),
            "annotations.kubernetes.io/ingress.class: Invalid value: \"d\": must match `ingressClassName` when both are specified"
        );
        // What was stored with an odd secret may keep it.
        let odd = changed(&ingress, "spec/tls", json!([{"secretName": "A_B"}]));
        assert_eq!(update_errors(&odd, &odd), "");
        assert_ne!(update_errors(&odd, &ingress), "");
    }

    #[test]
    fn ingress_classes() {
        let class = object(
            "networking.k8s.io/v1",
            "IngressClass",
            "c",
            json!({"spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Cluster"}}}),
        );
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&class, &format!("spec/{path}"), to)), expect, "{path}");
        };
        check("parameters/apiGroup", json!("g"), "");
        check("controller", json!(""), "spec.controller: Required value");
        check("parameters/kind", json!(""), "spec.parameters.kind: Required value");
        check("parameters/scope", Value::Null, "spec.parameters.scope: Required value");
        check(
            "parameters/scope",
            json!("Namespace"),
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        );
        check(
            "parameters/namespace",
            json!("n"),
            "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
        );
        check(
            "parameters/scope",
            json!("World"),
            "spec.parameters.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\"",
        );
        let other = changed(&class, "spec/controller", json!("a.b/d"));
        assert_eq!(update_errors(&other, &class), "spec.controller: Invalid value: \"a.b/d\": field is immutable");
    }

    #[test]
    fn policies() {
        let policy = object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "p",
            json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}}),
        );
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&policy, path, to)), expect, "{path}");
        };
        check("spec/policyTypes", json!(["Ingress"]), "");
        check(
            "spec/policyTypes",
            json!([""]),
            "spec.policyTypes[0]: Unsupported value: \"\": supported values: \"Ingress\", \"Egress\"",
        );
        // What was stored may stay.
        let odd = changed(&policy, "spec/ingress/0/from/0/ipBlock", json!({"cidr": "10.0.0.0"}));
        assert_eq!(update_errors(&odd, &odd), "");
        assert_ne!(update_errors(&odd, &policy), "");
        check(
            "spec/ingress/0/from/0/ipBlock/except/0",
            json!("11.0.0.0/16"),
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
        );
        check("spec/ingress/0/from/0", json!({}), "spec.ingress[0].from[0]: Required value: must specify a peer");
        check(
            "spec/ingress/0/ports",
            json!([{"port": 5, "endPort": 4}]),
            "spec.ingress[0].ports[0].endPort: Invalid value: 4: must be greater than or equal to `port`",
        );
    }

    #[test]
    fn addresses_and_slices() {
        let address = object(
            "networking.k8s.io/v1",
            "IPAddress",
            "10.0.0.1",
            json!({"spec": {"parentRef": {"resource": "services", "name": "s"}}}),
        );
        assert_eq!(create_errors(&address), "");
        assert_eq!(
            create_errors(&changed(&address, "metadata/name", json!("010.0.0.1"))),
            "metadata.name: Invalid value: \"010.0.0.1\": must not have leading 0s"
        );
        let cidr = object("networking.k8s.io/v1", "ServiceCIDR", "c", json!({"spec": {"cidrs": ["10.0.0.0/16"]}}));
        assert_eq!(create_errors(&cidr), "");
        assert_eq!(update_errors(&changed(&cidr, "spec/cidrs", json!(["10.0.0.0/16", "fd00::/112"])), &cidr), "");
        assert_eq!(
            update_errors(&changed(&cidr, "spec/cidrs", json!(["10.1.0.0/16"])), &cidr),
            "spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"
        );
        let slice = object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "s",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "", "protocol": "TCP", "port": 80}]}),
        );
        assert_eq!(create_errors(&slice), "");
        assert_eq!(
            create_errors(&changed(&slice, "endpoints/0/addresses", json!(["fd00::1"]))),
            "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address"
        );
        assert_eq!(create_errors(&changed(&slice, "addressType", json!(""))), "addressType: Required value");
        let check = |path: &str, to: Value, expect: &str| {
            let found = create_errors(&changed(&slice, path, to));
            assert_eq!(found, expect, "{path}");
        };
        let zones = |names: &[&str]| json!({"forZones": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
        let at = "endpoints[0].hints.forZones";
        check("endpoints/0/hints", zones(&["a", "", "a"]), &format!("{at}[2].name: Duplicate value: \"a\""));
        let value = pintle_api::names::label_value("a b")[0].clone();
        check("endpoints/0/hints", zones(&["a b"]), &format!("{at}[0].name: Invalid value: \"a b\": {value}"));
        check("endpoints/0/hints", zones(&["a"; 9]), &format!("{at}: Too many: 9: must have at most 8 items"));
        let node = pintle_api::names::dns1123_subdomain("A")[0].clone();
        check(
            "endpoints/0/hints",
            json!({"forNodes": [{"name": "A"}]}),
            &format!("endpoints[0].hints.forNodes[0].name: Invalid value: \"A\": {node}"),
        );
        let mut many = changed(&slice, "endpoints", Value::from(vec![slice["endpoints"][0].clone(); 1001]));
        many["ports"][0]["protocol"] = "".into();
        assert_eq!(
            create_errors(&many),
            "endpoints: Too many: 1001: must have at most 1000 items\nports[0].protocol: Required value"
        );
    }
}

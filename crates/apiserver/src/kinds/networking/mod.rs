//! The networking and discovery groups.

mod validate;

use pintle_schema::cursor::Cursor;

use super::core::service::table::load_balancer;
use super::strategy::Sub;
use super::table::{self, Column, text};
use super::{Strategy, meta};

/// The strategy of ingresses.
pub static INGRESS: Strategy = Strategy {
    validate: validate::ingress,
    full_meta_on_update: true,
    subresources: &[("status", Sub { validate: validate::ingress_status, ..Sub::STATUS })],
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        text("Class", "The name of the IngressClass resource that should be used for additional configuration"),
        text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
        text("Address", "Address is a list containing ingress points for the load-balancer"),
        text("Ports", "Ports of TLS configurations that open"),
        Column::AGE,
    ],
    row: |o, now| {
        let spec = o.get("spec");
        vec![
            table::name(o),
            spec.get("ingressClassName").opt_str().unwrap_or("<none>").into(),
            hosts(&spec.get("rules")).into(),
            load_balancer(o).join(",").into(),
            if spec.get("tls").is_empty() { "80" } else { "80, 443" }.into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

/// The strategy of ingress classes.
pub static INGRESS_CLASS: Strategy = Strategy {
    validate: validate::ingress_class,
    full_meta_on_update: true,
    validate_change: |_, new, old, errors| {
        meta::immutable(&new.get("spec").get("controller"), &old.get("spec").get("controller"), errors);
    },
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        text("Controller", "Controller that is responsible for handling this class"),
        text("Parameters", "A reference to a resource with additional parameters"),
        Column::AGE,
    ],
    row: |o, now| {
        let parameters = o.get("spec").get("parameters");
        let text = match (parameters.is_present(), parameters.get("apiGroup").opt_str()) {
            (false, _) => "<none>".to_owned(),
            (true, Some(group)) => {
                format!("{}.{group}/{}", parameters.get("kind").str(), parameters.get("name").str())
            }
            (true, None) => format!("{}/{}", parameters.get("kind").str(), parameters.get("name").str()),
        };
        vec![table::name(o), o.get("spec").get("controller").str().into(), text.into(), table::age(o, now)]
    },
    ..Strategy::DEFAULT
};

/// The strategy of network policies.
pub static NETWORK_POLICY: Strategy = Strategy {
    validate: validate::network_policy,
    generation: &[&["spec"]],
    columns: &[Column::NAME, text("Pod-Selector", "@NetworkPolicySpec.podSelector"), Column::AGE],
    row: |o, now| vec![table::name(o), table::selector(&o.get("spec").get("podSelector")).into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of IP addresses.
pub static IP_ADDRESS: Strategy = Strategy {
    name: validate::ip_name,
    validate: validate::ip_address,
    columns: &[Column::NAME, text("ParentRef", "@IPAddressSpec.parentRef")],
    row: |o, _| vec![table::name(o), parent(&o.get("spec").get("parentRef")).into()],
    ..Strategy::DEFAULT
};

/// The strategy of service CIDRs.
pub static SERVICE_CIDR: Strategy = Strategy {
    validate: validate::service_cidr,
    validate_change: validate::service_cidr_change,
    columns: &[Column::NAME, text("CIDRs", "@ServiceCIDRSpec.cidrs"), Column::AGE],
    row: |o, now| {
        let cidrs: Vec<&str> = o.get("spec").get("cidrs").items().map(|c| c.str()).collect();
        vec![table::name(o), cidrs.join(",").into(), table::age(o, now)]
    },
    ..Strategy::DEFAULT
};

/// The strategy of endpoint slices.
pub static ENDPOINT_SLICE: Strategy = Strategy {
    full_meta_on_update: true,
    validate: validate::endpoint_slice,
    validate_change: |_, new, old, errors| meta::immutable(&new.get("addressType"), &old.get("addressType"), errors),
    generation: &[&["endpoints"], &["ports"], &["addressType"], &["metadata", "labels"]],
    columns: &[
        Column::NAME,
        text("AddressType", "@EndpointSlice.addressType"),
        text("Ports", "@EndpointSlice.ports"),
        text("Endpoints", "@EndpointSlice.endpoints"),
        Column::AGE,
    ],
    row: |o, now| {
        let ports = o.get("ports");
        let ports = ports.items().map(|p| match (p.get("port").opt_int(), p.get("name").opt_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        });
        let ports = ports.collect();
        let mut addresses = Vec::new();
        for endpoint in o.get("endpoints").items() {
            addresses.extend(endpoint.get("addresses").items().map(|a| a.str().to_owned()));
        }
        vec![
            table::name(o),
            o.get("addressType").str().into(),
            table::first_three(ports, "<unset>").into(),
            table::first_three(addresses, "<unset>").into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

/// The first three hosts; `*` when no rule names one.
fn hosts(rules: &Cursor<'_>) -> String {
    let mut list: Vec<&str> = Vec::new();
    for rule in rules.items() {
        if list.len() == 3 {
            return format!("{} + {} more...", list.join(","), rules.len() - 3);
        }
        list.extend(rule.get("host").opt_str().filter(|h| !h.is_empty()));
    }
    if list.is_empty() { "*".to_owned() } else { list.join(",") }
}

/// `services/namespace/name`
fn parent(parent: &Cursor<'_>) -> String {
    if parent.is_absent() {
        return "<none>".to_owned();
    }
    let mut text = parent.get("resource").str().to_owned();
    if !parent.get("group").is_empty() {
        text = format!("{text}.{}", parent.get("group").str());
    }
    text = text.to_lowercase();
    if !parent.get("namespace").is_empty() {
        text = format!("{text}/{}", parent.get("namespace").str());
    }
    format!("{text}/{}", parent.get("name").str())
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::{Value, json};

    #[test]
    fn rows() {
        let check = |kind: [&str; 2], mut object: Value, expect: &[&str]| {
            object["apiVersion"] = kind[0].into();
            object["kind"] = kind[1].into();
            object["metadata"] = json!({"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z"});
            let row = testing::row(&object, 5);
            assert_eq!(row[1..=expect.len()], *expect, "{object}");
        };
        let net = "networking.k8s.io/v1";
        let hosts = |n: usize| (0..n).map(|i| json!({"host": format!("h{i}")})).collect::<Vec<_>>();
        check(
            [net, "Ingress"],
            json!({"spec": {"rules": hosts(5), "tls": [{}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}}),
            &["<none>", "h0,h1,h2 + 2 more...", "1.1.1.1", "80, 443"],
        );
        check([net, "Ingress"], json!({"spec": {"ingressClassName": "n", "rules": [{}]}}), &["n", "*", "", "80"]);
        check(
            [net, "IngressClass"],
            json!({"spec": {"controller": "c", "parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}}),
            &["c", "K.g/n"],
        );
        check([net, "NetworkPolicy"], json!({"spec": {"podSelector": {}}}), &["<none>"]);
        check(
            [net, "IPAddress"],
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "a", "name": "b"}}}),
            &["services/a/b"],
        );
        check(
            [net, "ServiceCIDR"],
            json!({"spec": {"cidrs": ["10.0.0.0/8", "fd00::/108"]}}),
            &["10.0.0.0/8,fd00::/108"],
        );
        check(
            ["discovery.k8s.io/v1", "EndpointSlice"],
            json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}],
                "endpoints": [{"addresses": ["1.1.1.1", "2.2.2.2"]}, {"addresses": ["3.3.3.3", "4.4.4.4"]}]}),
            &["IPv4", "80,x", "1.1.1.1,2.2.2.2,3.3.3.3 + 1 more..."],
        );
        check(
            ["discovery.k8s.io/v1", "EndpointSlice"],
            json!({"addressType": "IPv4"}),
            &["IPv4", "<unset>", "<unset>"],
        );
    }
}

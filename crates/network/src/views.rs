//! The narrow views of API objects that the proxy and DNS keep: decoded once an event, everything else left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use crate::addr::{Net, Protocol};

/// A namespaced name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Name {
    /// From its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// What kind of Service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum ServiceType {
    /// Inside the cluster only.
    #[default]
    ClusterIP,
    /// Also on a port of every node.
    NodePort,
    /// Also by a load balancer.
    LoadBalancer,
    /// An alias of an outside name.
    ExternalName,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when it is the only one.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// Its number on every node; 0 for none.
    pub node_port: u16,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// What kind it is.
    pub kind: ServiceType,
    /// Its own addresses, one a family; none for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether it was made without an address of its own (`clusterIP: None`).
    pub headless: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Other addresses that lead to it.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that pass packets on unchanged.
    pub ingress_ips: Vec<IpAddr>,
    /// Who may use those addresses; everybody when empty.
    pub source_ranges: Vec<Net>,
    /// For how many seconds a client keeps its endpoint.
    pub affinity: Option<u32>,
    /// Whether traffic from inside stays on the node.
    pub internal_local: bool,
    /// Whether traffic from outside stays on the node.
    pub external_local: bool,
    /// The port on which load balancers ask whether this node has endpoints; 0 for none.
    pub health_check_node_port: u16,
    /// The outside name of an `ExternalName` Service.
    pub external_name: String,
    /// Whether DNS shows endpoints that are not ready.
    pub publish_not_ready: bool,
    /// Whether another proxy was asked to do it (`service.kubernetes.io/service-proxy-name`).
    pub other_proxy: bool,
}

impl Service {
    /// Decodes a Service.
    ///
    /// # Errors
    /// When it is not a Service.
    pub fn decode(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Port {
            name: String,
            protocol: String,
            port: u16,
            node_port: u16,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct ClientIp {
            timeout_seconds: Option<u32>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct AffinityConfig {
            #[serde(rename = "clientIP")]
            client_ip: Option<ClientIp>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Spec {
            r#type: ServiceType,
            #[serde(rename = "clusterIP")]
            cluster_ip: String,
            #[serde(rename = "clusterIPs")]
            cluster_ips: Vec<String>,
            ports: Vec<Port>,
            #[serde(rename = "externalIPs")]
            external_ips: Vec<String>,
            load_balancer_source_ranges: Vec<String>,
            session_affinity: String,
            session_affinity_config: Option<AffinityConfig>,
            internal_traffic_policy: String,
            external_traffic_policy: String,
            health_check_node_port: u16,
            external_name: String,
            publish_not_ready_addresses: bool,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Ingress {
            ip: String,
            ip_mode: Option<String>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct LoadBalancer {
            ingress: Vec<Ingress>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Status {
            load_balancer: LoadBalancer,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Object {
            metadata: Metadata,
            spec: Spec,
            status: Status,
        }
        const DEFAULT_AFFINITY: u32 = 10_800;
        const TOLERATE_UNREADY: &str = "service.alpha.kubernetes.io/tolerate-unready-endpoints";
        let Object { metadata, spec, status } = serde_json::from_slice(json)?;
        let addresses = if spec.cluster_ips.is_empty() { vec![spec.cluster_ip] } else { spec.cluster_ips };
        let config = spec.session_affinity_config.and_then(|config| config.client_ip);
        let timeout = config.and_then(|config| config.timeout_seconds).unwrap_or(DEFAULT_AFFINITY);
        let external_local = spec.external_traffic_policy == "Local";
        let needs_check = spec.r#type == ServiceType::LoadBalancer && external_local;
        Ok(Self {
            headless: addresses.iter().any(|ip| ip == "None"),
            cluster_ips: ips(&addresses),
            ports: spec
                .ports
                .into_iter()
                .filter_map(|port| {
                    Some(ServicePort {
                        protocol: Protocol::from_name(&port.protocol)?,
                        name: port.name,
                        port: port.port,
                        node_port: port.node_port,
                    })
                })
                .collect(),
            external_ips: ips(&spec.external_ips),
            ingress_ips: status
                .load_balancer
                .ingress
                .iter()
                .filter(|ingress| ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
                .filter_map(|ingress| ingress.ip.parse().ok())
                .collect(),
            // Validation lets spaces around a range pass.
            source_ranges: spec.load_balancer_source_ranges.iter().filter_map(|r| r.trim().parse().ok()).collect(),
            affinity: (spec.session_affinity == "ClientIP").then_some(timeout),
            internal_local: spec.internal_traffic_policy == "Local",
            external_local,
            health_check_node_port: if needs_check { spec.health_check_node_port } else { 0 },
            external_name: spec.external_name,
            publish_not_ready: spec.publish_not_ready_addresses
                || metadata.annotations.get(TOLERATE_UNREADY).is_some_and(|value| value == "true"),
            other_proxy: metadata.labels.contains_key("service.kubernetes.io/service-proxy-name"),
            name: Name::new(metadata.namespace, metadata.name),
            kind: spec.r#type,
        })
    }
}

fn ips(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses; all mean the same, so the first is used.
    pub addresses: Vec<IpAddr>,
    /// The node it is on.
    pub node: Option<String>,
    /// Its name in DNS.
    pub hostname: Option<String>,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Whether it answers, though it may be going.
    pub serving: bool,
    /// Whether it is going.
    pub terminating: bool,
    /// The zones it should serve.
    pub zone_hints: BTreeSet<String>,
    /// The nodes it should serve.
    pub node_hints: BTreeSet<String>,
}

/// A port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service's port.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number on the endpoints.
    pub port: u16,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// Its name.
    pub name: Name,
    /// The Service it belongs to.
    pub service: Name,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Whether proxies leave it alone (of a headless Service, or of one another proxy does).
    pub not_proxied: bool,
}

impl Slice {
    /// Decodes an EndpointSlice; `None` when it belongs to no Service or holds no IP addresses.
    ///
    /// # Errors
    /// When it is not an EndpointSlice.
    pub fn decode(json: &[u8]) -> serde_json::Result<Option<Self>> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Conditions {
            ready: Option<bool>,
            serving: Option<bool>,
            terminating: Option<bool>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Hint {
            name: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Hints {
            for_zones: Vec<Hint>,
            for_nodes: Vec<Hint>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct JsonEndpoint {
            addresses: Vec<String>,
            conditions: Conditions,
            hostname: Option<String>,
            node_name: Option<String>,
            hints: Option<Hints>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Port {
            name: Option<String>,
            protocol: Option<String>,
            port: Option<u16>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Object {
            metadata: Metadata,
            address_type: String,
            endpoints: Option<Vec<JsonEndpoint>>,
            ports: Option<Vec<Port>>,
        }
        let mut object: Object = serde_json::from_slice(json)?;
        let Some(service) = object.metadata.labels.remove("kubernetes.io/service-name") else { return Ok(None) };
        if object.address_type != "IPv4" && object.address_type != "IPv6" {
            return Ok(None);
        }
        let labels = &object.metadata.labels;
        let not_proxied = labels.contains_key("service.kubernetes.io/service-proxy-name")
            || labels.contains_key("service.kubernetes.io/headless");
        let names = |hints: Vec<Hint>| hints.into_iter().map(|hint| hint.name).collect();
        Ok(Some(Self {
            service: Name::new(object.metadata.namespace.clone(), service),
            name: Name::new(object.metadata.namespace, object.metadata.name),
            ports: object
                .ports
                .unwrap_or_default()
                .into_iter()
                .filter_map(|port| {
                    Some(SlicePort {
                        name: port.name.unwrap_or_default(),
                        protocol: Protocol::from_name(port.protocol.as_deref().unwrap_or_default())?,
                        port: port.port?,
                    })
                })
                .collect(),
            endpoints: object
                .endpoints
                .unwrap_or_default()
                .into_iter()
                .map(|endpoint| {
                    // What is absent is taken as the API documents it.
                    let ready = endpoint.conditions.ready.unwrap_or(true);
                    let hints = endpoint.hints.unwrap_or_default();
                    Endpoint {
                        addresses: ips(&endpoint.addresses),
                        node: endpoint.node_name,
                        hostname: endpoint.hostname.filter(|name| !name.is_empty()),
                        ready,
                        serving: endpoint.conditions.serving.unwrap_or(ready),
                        terminating: endpoint.conditions.terminating.unwrap_or(false),
                        zone_hints: names(hints.for_zones),
                        node_hints: names(hints.for_nodes),
                    }
                })
                .collect(),
            not_proxied,
        }))
    }
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its `InternalIP` addresses, the primary first.
    pub ips: Vec<IpAddr>,
    /// The blocks of its pods.
    pub pod_cidrs: Vec<Net>,
}

impl Node {
    /// Decodes a Node.
    ///
    /// # Errors
    /// When it is not a Node.
    pub fn decode(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Spec {
            #[serde(rename = "podCIDR")]
            pod_cidr: String,
            #[serde(rename = "podCIDRs")]
            pod_cidrs: Vec<String>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Address {
            r#type: String,
            address: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Status {
            addresses: Vec<Address>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Object {
            metadata: Metadata,
            spec: Spec,
            status: Status,
        }
        let Object { mut metadata, spec, status } = serde_json::from_slice(json)?;
        let blocks = if spec.pod_cidrs.is_empty() { vec![spec.pod_cidr] } else { spec.pod_cidrs };
        Ok(Self {
            zone: metadata.labels.remove("topology.kubernetes.io/zone").filter(|zone| !zone.is_empty()),
            name: metadata.name,
            ips: status
                .addresses
                .iter()
                .filter(|address| address.r#type == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .collect(),
            pod_cidrs: blocks.iter().filter_map(|block| block.parse().ok()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let json = br#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"ns"},"spec":{
            "type":"LoadBalancer","clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9","fd96::9"],"externalIPs":["1.2.3.4"],
            "ports":[{"name":"http","protocol":"TCP","port":80,"targetPort":"x","nodePort":30080},{"name":"odd","protocol":"XTP","port":1}],
            "loadBalancerSourceRanges":[" 10.0.0.0/8 "],"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}},
            "externalTrafficPolicy":"Local","internalTrafficPolicy":"Cluster","healthCheckNodePort":31000},
            "status":{"loadBalancer":{"ingress":[{"ip":"5.6.7.8"},{"ip":"5.6.7.9","ipMode":"Proxy"},{"hostname":"x"}]}}}"#;
        let got = Service::decode(json).unwrap();
        let want = Service {
            name: Name::new("ns", "web"),
            kind: ServiceType::LoadBalancer,
            cluster_ips: vec!["10.96.0.9".parse().unwrap(), "fd96::9".parse().unwrap()],
            ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 30080 }],
            external_ips: vec!["1.2.3.4".parse().unwrap()],
            ingress_ips: vec!["5.6.7.8".parse().unwrap()],
            source_ranges: vec!["10.0.0.0/8".parse().unwrap()],
            affinity: Some(60),
            external_local: true,
            health_check_node_port: 31000,
            ..Service::default()
        };
        assert_eq!(got, want);
        let headless =
            Service::decode(br#"{"metadata":{"name":"h"},"spec":{"clusterIP":"None","clusterIPs":["None"]}}"#).unwrap();
        assert!(headless.headless && headless.cluster_ips.is_empty());
        assert!(Service::decode(b"[").is_err() && Service::decode(br#"{"spec":{"ports":[{"port":70000}]}}"#).is_err());
    }

    #[test]
    fn slices() {
        let json = br#"{"metadata":{"name":"web-1","namespace":"ns","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4",
            "ports":[{"name":"","port":8080,"protocol":"TCP"},{"name":"all"}],
            "endpoints":[{"addresses":["10.1.0.1"],"conditions":{},"nodeName":"n","hints":{"forZones":[{"name":"a"}]}},
                         {"addresses":["10.1.0.2"],"conditions":{"ready":false,"serving":true,"terminating":true},"hostname":"db-0"}]}"#;
        let slice = Slice::decode(json).unwrap().unwrap();
        assert_eq!(slice.service, Name::new("ns", "web"));
        assert_eq!(slice.ports, [SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }]);
        let [a, b] = &slice.endpoints[..] else { panic!("{slice:?}") };
        assert!(a.ready && a.serving && !a.terminating && a.zone_hints.contains("a"));
        assert!(!b.ready && b.serving && b.terminating);
        assert_eq!(b.hostname.as_deref(), Some("db-0"));
        for none in [
            r#"{"addressType":"IPv4"}"#,
            r#"{"metadata":{"labels":{"kubernetes.io/service-name":"w"}},"addressType":"FQDN"}"#,
        ] {
            assert_eq!(Slice::decode(none.as_bytes()).unwrap(), None);
        }
        let empty = br#"{"metadata":{"labels":{"kubernetes.io/service-name":"w"}},"addressType":"IPv6","endpoints":null,"ports":null}"#;
        assert!(Slice::decode(empty).unwrap().unwrap().endpoints.is_empty());
    }

    #[test]
    fn nodes() {
        let json = br#"{"metadata":{"name":"n","labels":{"topology.kubernetes.io/zone":"a"}},"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24","fd00::/64"]},
            "status":{"addresses":[{"type":"InternalIP","address":"192.168.0.1"},{"type":"Hostname","address":"n"}]}}"#;
        let node = Node::decode(json).unwrap();
        assert_eq!((node.zone.as_deref(), node.ips.len(), node.pod_cidrs.len()), (Some("a"), 1, 2));
    }
}

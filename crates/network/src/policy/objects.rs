//! The narrow views of Pods, Namespaces and NetworkPolicies that policy needs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pintle_api::k8s_openapi::api::networking::v1 as networking;
use pintle_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pintle_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pintle_api::selector::Selector;
use serde::Deserialize;

use crate::addr::{Net, Protocol};
use crate::views::Name;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses; none while it has none of its own, or after it ended.
    pub ips: Vec<IpAddr>,
    /// The node it is on.
    pub node: String,
    /// The named ports of its containers.
    pub ports: Vec<(String, Protocol, u16)>,
}

impl Pod {
    /// Decodes a Pod.
    ///
    /// # Errors
    /// When it is not a Pod.
    pub fn decode(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Metadata {
            namespace: String,
            name: String,
            labels: BTreeMap<String, String>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Port {
            name: String,
            container_port: u16,
            protocol: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Container {
            ports: Vec<Port>,
            restart_policy: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Spec {
            node_name: String,
            host_network: bool,
            containers: Vec<Container>,
            init_containers: Vec<Container>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Ip {
            ip: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Status {
            phase: String,
            #[serde(rename = "podIP")]
            pod_ip: String,
            #[serde(rename = "podIPs")]
            pod_ips: Vec<Ip>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Object {
            metadata: Metadata,
            spec: Spec,
            status: Status,
        }
        let Object { metadata, spec, status } = serde_json::from_slice(json)?;
        let ended = status.phase == "Succeeded" || status.phase == "Failed";
        let texts = if status.pod_ips.is_empty() { vec![Ip { ip: status.pod_ip }] } else { status.pod_ips };
        // Init containers that keep running have ports as others do.
        let sidecars = spec.init_containers.into_iter().filter(|c| c.restart_policy == "Always");
        Ok(Self {
            name: Name::new(metadata.namespace, metadata.name),
            labels: metadata.labels,
            ips: if ended || spec.host_network {
                Vec::new()
            } else {
                texts.iter().filter_map(|ip| ip.ip.parse().ok()).collect()
            },
            node: spec.node_name,
            ports: sidecars
                .chain(spec.containers)
                .flat_map(|container| container.ports)
                .filter(|port| !port.name.is_empty())
                .filter_map(|port| Some((port.name, Protocol::from_name(&port.protocol)?, port.container_port)))
                .collect(),
        })
    }
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Namespace {
    /// Decodes a Namespace.
    ///
    /// # Errors
    /// When it is not a Namespace.
    pub fn decode(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Metadata {
            labels: BTreeMap<String, String>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Object {
            metadata: Metadata,
        }
        Ok(Self { labels: serde_json::from_slice::<Object>(json)?.metadata.labels })
    }
}

/// Who may be at the other end.
#[derive(Debug, Clone, PartialEq)]
pub enum Peer {
    /// The addresses of a block but for those of others.
    Block(Net, Vec<Net>),
    /// Pods by label, in namespaces by label or in the policy's own.
    Pods(Option<Selector>, Selector),
}

/// A port that may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// Those of a range.
    Range(Protocol, u16, u16),
    /// The one of a name.
    Named(Protocol, String),
}

/// What is allowed: any of the ports with any of the peers; none given means all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allow {
    /// The other ends.
    pub peers: Vec<Peer>,
    /// The ports.
    pub ports: Vec<Port>,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: Name,
    /// The pods it is about.
    pub pods: Selector,
    /// What may come in; everything when absent.
    pub ingress: Option<Vec<Allow>>,
    /// What may go out; everything when absent.
    pub egress: Option<Vec<Allow>>,
}

/// What is wrong with a policy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

impl Policy {
    /// Decodes a NetworkPolicy.
    ///
    /// # Errors
    /// When it is none, or says something that cannot be (validation lets no such thing in).
    pub fn decode(json: &[u8]) -> Result<Self, PolicyError> {
        let wrong = |err: String| PolicyError(err);
        let object: networking::NetworkPolicy = serde_json::from_slice(json).map_err(|err| wrong(err.to_string()))?;
        let spec = object.spec.unwrap_or_default();
        let types = spec.policy_types.unwrap_or_default();
        let has =
            |kind: &str, otherwise: bool| if types.is_empty() { otherwise } else { types.iter().any(|t| t == kind) };
        let (inward, outward) = (has("Ingress", true), has("Egress", spec.egress.is_some()));
        let ingress = spec.ingress.unwrap_or_default().into_iter().map(|rule| allow(rule.from, rule.ports));
        let egress = spec.egress.unwrap_or_default().into_iter().map(|rule| allow(rule.to, rule.ports));
        let ingress = ingress.collect::<Result<Vec<_>, _>>()?;
        let egress = egress.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: Name::new(object.metadata.namespace.unwrap_or_default(), object.metadata.name.unwrap_or_default()),
            // An absent selector means every pod of the namespace.
            pods: selector(Some(&spec.pod_selector.unwrap_or_default()))?,
            ingress: inward.then_some(ingress),
            egress: outward.then_some(egress),
        })
    }
}

fn selector(text: Option<&LabelSelector>) -> Result<Selector, PolicyError> {
    Selector::from_object(text).map_err(PolicyError)
}

fn allow(
    peers: Option<Vec<networking::NetworkPolicyPeer>>,
    ports: Option<Vec<networking::NetworkPolicyPort>>,
) -> Result<Allow, PolicyError> {
    let mut out = Allow::default();
    for peer in peers.unwrap_or_default() {
        out.peers.push(match peer.ip_block {
            Some(block) => {
                let net = |text: &String| text.parse::<Net>().map_err(|err| PolicyError(err.to_string()));
                let except = block.except.unwrap_or_default().iter().map(net).collect::<Result<_, _>>()?;
                Peer::Block(net(&block.cidr)?, except)
            }
            None => {
                let namespaces = peer.namespace_selector.as_ref().map(|s| selector(Some(s))).transpose()?;
                let pods = peer.pod_selector.unwrap_or_default();
                Peer::Pods(namespaces, selector(Some(&pods))?)
            }
        });
    }
    for port in ports.unwrap_or_default() {
        let protocol = Protocol::from_name(port.protocol.as_deref().unwrap_or_default())
            .ok_or_else(|| PolicyError(format!("unknown protocol {:?}", port.protocol)))?;
        let number = |n: i32| u16::try_from(n).map_err(|_| PolicyError(format!("{n} is no port")));
        out.ports.push(match port.port {
            None => Port::Range(protocol, 0, u16::MAX),
            Some(IntOrString::String(name)) => Port::Named(protocol, name),
            Some(IntOrString::Int(first)) => {
                let first = number(first)?;
                Port::Range(protocol, first, port.end_port.map(number).transpose()?.unwrap_or(first).max(first))
            }
        });
    }
    Ok(out)
}

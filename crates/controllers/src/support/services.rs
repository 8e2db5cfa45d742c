//! The narrow form of a Service, and the pods behind it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pintle_api::selector::Selector;
use pintle_client::informers::View;
use pintle_client::meta::HasMeta;
use pintle_client::{Cache, Change, Informers, Key, Meta};
use serde::Deserialize;

use crate::support::pods::{Container, Pod};

/// A Service as controllers look at it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Metadata.
    pub metadata: Meta,
    /// Part of the spec.
    pub spec: Spec,
}

/// Part of a Service's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Labels of its pods; empty when somebody else writes its endpoints.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `None` makes it headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// `IPv4`, `IPv6`, in order of preference.
    pub ip_families: Vec<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether pods that are not ready are served too.
    pub publish_not_ready_addresses: bool,
    /// How topology guides traffic.
    pub traffic_distribution: String,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: String,
    /// The Service's port.
    pub port: i32,
    /// The pods' port, by number or name.
    pub target_port: Option<IntOrString>,
    /// Application protocol.
    pub app_protocol: Option<String>,
}

impl HasMeta for Service {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Service {
    /// Whether it has no address of its own.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }

    /// Its pods' labels; `None` when it has no pods of its own.
    #[must_use]
    pub fn selector(&self) -> Option<Selector> {
        let labels = self.spec.selector.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        (!self.spec.selector.is_empty()).then(|| Selector::from_set(labels))
    }

    /// The pods that its selector selects.
    #[must_use]
    pub fn pods(&self, pods: &Cache<Pod>) -> Vec<std::sync::Arc<Pod>> {
        let Some(selector) = self.selector() else { return Vec::new() };
        let mut all = pods.namespace(&self.metadata.namespace);
        all.retain(|p| selector.matches_map(Some(&p.metadata.labels)));
        all
    }
}

/// The shared view of all Services.
#[must_use]
pub fn view(informers: &Informers) -> View<Service> {
    informers.of::<k8s_openapi::api::core::v1::Service>().view::<Service>()
}

/// Whether a change of a pod can change anybody's endpoints.
fn endpoint_changed(a: &Pod, b: &Pod) -> bool {
    a.metadata.labels != b.metadata.labels
        || a.is_deleting() != b.is_deleting()
        || a.is_ready() != b.is_ready()
        || a.is_terminal() != b.is_terminal()
        || a.spec.node_name != b.spec.node_name
        || a.status.pod_ips.iter().map(|i| &i.ip).ne(b.status.pod_ips.iter().map(|i| &i.ip))
        || a.status.pod_ip != b.status.pod_ip
        || a.spec.hostname != b.spec.hostname
        || a.spec.subdomain != b.spec.subdomain
}

/// Keys of the Services whose endpoints a pod's change may change.
#[must_use]
pub fn of_pod(change: &Change<Pod>, services: &Cache<Service>) -> Vec<Key> {
    if let Change::Modified(_, a, b) = change
        && !endpoint_changed(a, b)
    {
        return Vec::new();
    }
    let states = [change.before(), change.now()];
    let matches = |s: &Selector| states.iter().flatten().any(|p| s.matches_map(Some(&p.metadata.labels)));
    let all = services.namespace_entries(&change.last().metadata.namespace);
    all.into_iter().filter(|(_, s)| s.selector().is_some_and(|s| matches(&s))).map(|(k, _)| k).collect()
}

/// The number of a Service's port on a pod; `None` when no container has a port of that name.
#[must_use]
pub fn target_port(pod: &Pod, port: &Port) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(n)) => return Some(if *n == 0 { port.port } else { *n }),
        Some(IntOrString::String(name)) => name,
    };
    let side_cars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let find = |c: &Container| {
        let protocol = |p: &str| if p.is_empty() { "TCP".to_owned() } else { p.to_owned() };
        c.ports
            .iter()
            .find(|p| p.name == *name && protocol(&p.protocol) == protocol(&port.protocol))
            .map(|p| p.container_port)
    };
    pod.spec.containers.iter().chain(side_cars).find_map(find)
}

/// A pod's address of a family, if it has one.
#[must_use]
pub fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let ips = pod.status.pod_ips.iter().map(|i| i.ip.as_str()).chain([pod.status.pod_ip.as_str()]);
    ips.filter(|ip| !ip.is_empty()).find(|ip| ip.contains(':') == (family == "IPv6"))
}

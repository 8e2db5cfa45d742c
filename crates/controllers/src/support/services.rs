//! The narrow form of a Service, and the pods behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
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

    /// Whether it selects pods; the endpoints of one that does not are somebody else's.
    #[must_use]
    pub fn has_selector(&self) -> bool {
        !self.spec.selector.is_empty()
    }

    /// Whether it selects pods with these labels.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.has_selector() && self.spec.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
    }

    /// The pods that its selector selects.
    #[must_use]
    pub fn pods(&self, pods: &Cache<Pod>) -> Vec<Arc<Pod>> {
        if !self.has_selector() {
            return Vec::new();
        }
        pods.select(&self.metadata.namespace, |p| self.selects(&p.metadata.labels))
    }
}

/// Index of Services by a label that their pods have: to a pod only those matter that are found under one of its own.
const BY_LABEL: &str = "label";

fn label(namespace: &str, (key, value): (&String, &String)) -> String {
    format!("{namespace}/{key}={value}")
}

/// The shared view of all Services.
#[must_use]
pub fn view(informers: &Informers) -> View<Service> {
    let view = informers.of::<k8s_openapi::api::core::v1::Service>().view::<Service>();
    index_by_label(&view);
    view
}

fn index_by_label(view: &View<Service>) {
    // One label of a selector is enough to find it by.
    view.add_index(BY_LABEL, |s| {
        s.spec.selector.first_key_value().map(|l| label(&s.metadata.namespace, l)).into_iter().collect()
    });
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
    let mut found = BTreeSet::new();
    for pod in [change.before(), change.now()].into_iter().flatten() {
        let m = &pod.metadata;
        for l in &m.labels {
            let candidates = services.by_index(BY_LABEL, &label(&m.namespace, l));
            found.extend(candidates.iter().filter(|s| s.selects(&m.labels)).map(|s| Key::from(s.metadata.key())));
        }
    }
    found.into_iter().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_client::Client;
    use pintle_client::testing::FakeApi;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn pods_concern_the_services_that_select_them() {
        let api = FakeApi::new();
        let client = Client::in_process(api.service(), pintle_api::service::UserInfo::default());
        let service = |name: &str, namespace: &str, selector: serde_json::Value| {
            serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"selector": selector}}),
            )
            .unwrap()
        };
        for s in [
            service("one", "n", json!({"app": "a"})),
            service("two", "n", json!({"app": "a", "tier": "x"})),
            service("none", "n", json!({})),
            service("other", "n", json!({"app": "b"})),
            service("one", "m", json!({"app": "a"})),
        ] {
            client.of::<k8s_openapi::api::core::v1::Service>().create(&s).await.unwrap();
        }
        let informers = Informers::new(client.clone());
        let services = view(&informers);
        services.synced().await;
        let pod = |labels: serde_json::Value, ready: &str| -> Arc<Pod> {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            Arc::new(serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "labels": labels}, "status": {"conditions": conditions}})).unwrap())
        };
        let of = |change: Change<Pod>| of_pod(&change, &services).iter().map(ToString::to_string).collect::<Vec<_>>();
        let key: Key = "n/p".into();
        let (a, ax, b) = (json!({"app": "a"}), json!({"app": "a", "tier": "x"}), json!({"app": "b", "more": "c"}));
        assert_eq!(of(Change::Added(key.clone(), pod(a.clone(), "True"))), ["n/one"]);
        assert_eq!(of(Change::Added(key.clone(), pod(ax.clone(), "True"))), ["n/one", "n/two"]);
        assert_eq!(of(Change::Modified(key.clone(), pod(a.clone(), "True"), pod(b, "True"))), ["n/one", "n/other"]);
        assert_eq!(of(Change::Modified(key.clone(), pod(a.clone(), "True"), pod(a.clone(), "True"))), [""; 0]);
        assert_eq!(of(Change::Modified(key.clone(), pod(a.clone(), "True"), pod(a, "False"))), ["n/one"]);
        assert_eq!(of(Change::Deleted(key, pod(ax, "True"))), ["n/one", "n/two"]);
    }
}

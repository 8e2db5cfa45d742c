//! The narrow form of a Service, and the pods behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use pintle_api::Labels;
use pintle_client::informers::View;
use pintle_client::meta::HasMeta;
use pintle_client::{Cache, Change, Informers, Key, Meta};
use serde::Deserialize;

use crate::context::listen;
use crate::support::pods::{self, Container, Pod};

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
    pub fn selects(&self, labels: &Labels) -> bool {
        self.has_selector() && self.spec.selector.iter().all(|(k, v)| labels.get(k) == Some(v.as_str()))
    }
}

/// Index of Services by a label that their pods have: to a pod only those matter that are found under one of its own.
const BY_LABEL: &str = "label";

fn label(namespace: &str, key: &str, value: &str) -> String {
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
        s.spec.selector.first_key_value().map(|(k, v)| label(&s.metadata.namespace, k, v)).into_iter().collect()
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
    let states = [change.before(), change.now()];
    let found: BTreeSet<Key> =
        states.into_iter().flatten().flat_map(|pod| selecting(services, &pod.metadata)).collect();
    found.into_iter().collect()
}

/// Keys of the Services that select a pod. What that costs does not depend on how many others there are.
fn selecting(services: &Cache<Service>, pod: &Meta) -> Vec<Key> {
    let candidates = pod.labels.iter().flat_map(|(k, v)| services.by_index(BY_LABEL, &label(&pod.namespace, k, v)));
    candidates.filter(|s| s.selects(&pod.labels)).map(|s| s.metadata.key().into()).collect()
}

/// The pods of each Service, kept as they come and go: nobody looks through a namespace for them.
#[derive(Debug)]
pub struct Members {
    services: View<Service>,
    pods: Cache<Pod>,
    /// Keys of pods by their Service's key. A pod that is gone or changed may still be in it; none is missing.
    of: Mutex<HashMap<Key, BTreeSet<Key>>>,
}

impl Members {
    /// The one of these informers.
    #[must_use]
    pub fn shared(informers: &Informers) -> Arc<Self> {
        informers.shared(|| {
            let (services, pods) = (view(informers), pods::view(informers));
            let me = Arc::new(Self { services, pods, of: Mutex::default() });
            listen(&me.services, &me, |me, change| me.service_changed(change));
            listen(&me.pods, &me, |me, change| me.pod_changed(change));
            me
        })
    }

    fn service_changed(&self, change: &Change<Service>) {
        let Some(service) = change.now() else {
            self.of.lock().remove(change.key());
            return;
        };
        if change.before().is_some_and(|b| b.spec.selector == service.spec.selector) {
            return;
        }
        // Held while the pods are looked through: one that comes meanwhile is put in afterwards by its own event.
        let mut of = self.of.lock();
        let selected = self.pods.select(&service.metadata.namespace, |p| service.selects(&p.metadata.labels));
        of.insert(change.key().clone(), selected.iter().map(|p| p.metadata.key().into()).collect());
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let (before, now) = (change.before(), change.now());
        if before.zip(now).is_some_and(|(a, b)| a.metadata.labels == b.metadata.labels) {
            return;
        }
        let of_state = |p: Option<&Arc<Pod>>| p.map(|p| selecting(&self.services, &p.metadata)).unwrap_or_default();
        let (before, now) = (of_state(before), of_state(now));
        let mut of = self.of.lock();
        for service in before {
            if let Some(pods) = of.get_mut(&service) {
                pods.remove(change.key());
            }
        }
        for service in now {
            of.entry(service).or_default().insert(change.key().clone());
        }
    }

    /// The pods that a Service selects.
    #[must_use]
    pub fn of(&self, service: &Service) -> Vec<Arc<Pod>> {
        let keys = self.of.lock().get(service.metadata.key().as_str()).cloned().unwrap_or_default();
        let pods = keys.iter().filter_map(|k| self.pods.get(k));
        pods.filter(|p| service.selects(&p.metadata.labels)).collect()
    }
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
    use k8s_openapi::api::core::v1::{Pod as TypedPod, Service as TypedService};
    use pintle_client::testing::FakeApi;
    use pintle_client::{Client, Patch};
    use serde_json::{Value, json};

    async fn make<T: pintle_client::typed::Kind>(
        client: &Client,
        name: &str,
        namespace: &str,
        labels: Value,
        spec: Value,
    ) {
        let value = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec});
        client.of::<T>().create(&serde_json::from_value(value).unwrap()).await.unwrap();
    }

    async fn with_services() -> (Client, Informers) {
        let client = Client::in_process(FakeApi::new().service(), pintle_api::service::UserInfo::default());
        for (name, namespace, selector) in [
            ("one", "n", json!({"app": "a"})),
            ("two", "n", json!({"app": "a", "tier": "x"})),
            ("none", "n", json!({})),
            ("other", "n", json!({"app": "b"})),
            ("one", "m", json!({"app": "a"})),
        ] {
            make::<TypedService>(&client, name, namespace, json!({}), json!({"selector": selector})).await;
        }
        let informers = Informers::new(client.clone());
        view(&informers).synced().await;
        (client, informers)
    }

    #[tokio::test(start_paused = true)]
    async fn pods_concern_the_services_that_select_them() {
        let (_, informers) = with_services().await;
        let services = view(&informers);
        let pod = |labels: Value, ready: &str| -> Arc<Pod> {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let value = json!({"metadata": {"name": "p", "namespace": "n", "labels": labels}, "status": {"conditions": conditions}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let of = |change: Change<Pod>| of_pod(&change, &services).iter().map(ToString::to_string).collect::<Vec<_>>();
        let key: Key = "n/p".into();
        let (a, ax, b) = (json!({"app": "a"}), json!({"app": "a", "tier": "x"}), json!({"app": "b", "more": "c"}));
        for (change, want) in [
            (Change::Added(key.clone(), pod(a.clone(), "True")), &["n/one"][..]),
            (Change::Added(key.clone(), pod(ax.clone(), "True")), &["n/one", "n/two"]),
            (Change::Modified(key.clone(), pod(a.clone(), "True"), pod(b, "True")), &["n/one", "n/other"]),
            (Change::Modified(key.clone(), pod(a.clone(), "True"), pod(a.clone(), "True")), &[]),
            (Change::Modified(key.clone(), pod(a.clone(), "True"), pod(a, "False")), &["n/one"]),
            (Change::Deleted(key, pod(ax, "True")), &["n/one", "n/two"]),
        ] {
            assert_eq!(of(change.clone()), want, "{change:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_follow_pods_and_selectors() {
        let (client, informers) = with_services().await;
        make::<TypedPod>(&client, "early", "n", json!({"app": "a"}), json!({"containers": []})).await;
        let members = Members::shared(&informers);
        assert!(Arc::ptr_eq(&members, &Members::shared(&informers)));
        informers.synced().await;
        let mut changes = (members.pods.subscribe(), members.services.subscribe());
        while changes.0.try_next().is_some() || changes.1.try_next().is_some() {}
        let of = |service: &str| {
            let service = members.services.get(service).unwrap();
            members.of(&service).iter().map(|p| p.metadata.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("n/one"), ["early"]);
        let (pods, services) = (client.of::<TypedPod>(), client.of::<TypedService>());
        make::<TypedPod>(&client, "p", "n", json!({"app": "a", "tier": "x"}), json!({"containers": []})).await;
        changes.0.next().await;
        assert_eq!(
            (of("n/one"), of("n/two"), of("m/one")),
            (vec!["early".into(), "p".into()], vec!["p".into()], vec![])
        );
        let labels = |v: Value| Patch::merge(&json!({"metadata": {"labels": v}})).unwrap();
        pods.patch("n", "p", labels(json!({"app": "b"}))).await.unwrap();
        changes.0.next().await;
        assert_eq!((of("n/one"), of("n/two"), of("n/other")), (vec!["early".into()], vec![], vec!["p".to_owned()]));
        let selector = Patch::merge(&json!({"spec": {"selector": {"tier": "x"}}})).unwrap();
        services.patch("n", "none", selector).await.unwrap();
        changes.1.next().await;
        assert_eq!(of("n/none"), ["p"]);
        pods.delete("n", "p", None).await.unwrap();
        changes.0.next().await;
        assert_eq!((of("n/none"), of("n/other")), (vec![], Vec::<String>::new()));
    }
}

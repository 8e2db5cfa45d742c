//! A node as the scheduler sees it: what it offers and what the pods on it take.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pintle_api::Object;

use super::pod::{HostPort, Pod};
use super::resources::Resources;
use super::wire;

/// What a Node object says.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<wire::Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// What pods may take in sum.
    pub allocatable: Resources,
    /// Features it declares to know.
    pub declared_features: Vec<String>,
    /// Size in bytes of each image it has, by every name of it.
    pub images: HashMap<String, i64>,
}

impl Node {
    /// Decodes it.
    ///
    /// # Errors
    /// When the object is no Node.
    pub fn decode(object: &Object) -> serde_json::Result<Self> {
        object.view::<wire::Node>().map(Self::from)
    }
}

impl From<wire::Node> for Node {
    fn from(n: wire::Node) -> Self {
        let images =
            n.status.images.into_iter().flat_map(|i| i.names.into_iter().map(move |name| (name, i.size_bytes)));
        Self {
            name: n.metadata.name,
            labels: n.metadata.labels.to_map(),
            taints: n.spec.taints,
            unschedulable: n.spec.unschedulable,
            allocatable: Resources::from_list(&n.status.allocatable),
            declared_features: n.status.declared_features,
            images: images.collect(),
        }
    }
}

/// A node and the pods on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Its number in the cache.
    pub id: usize,
    /// Its name.
    pub name: String,
    /// The Node object, when it is known: pods may be seen before their node.
    pub node: Option<Arc<Node>>,
    /// Pods on it, assumed ones included, by uid.
    pub pods: HashMap<String, Arc<Pod>>,
    /// Sum of their requests.
    pub requested: Resources,
    /// Sum of their requests with upstream's assumptions, for scores.
    pub scored_requested: Resources,
    /// Ports they take, and how many take each.
    pub ports: HashMap<HostPort, u32>,
}

impl NodeInfo {
    /// Puts a pod on it; one of the same uid is replaced.
    pub fn add(&mut self, pod: Arc<Pod>) {
        self.remove(&pod.uid);
        self.requested.add(&pod.requests);
        self.scored_requested.add(&pod.scored_requests);
        for port in &pod.host_ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Takes a pod off it.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(uid)?;
        self.requested.sub(&pod.requests);
        self.scored_requested.sub(&pod.scored_requests);
        for port in &pod.host_ports {
            if let Some(n) = self.ports.get_mut(port) {
                *n -= 1;
                if *n == 0 {
                    self.ports.remove(port);
                }
            }
        }
        Some(pod)
    }

    /// Whether a port cannot be taken any more: same protocol and port, and either address covers the other.
    #[must_use]
    pub fn port_taken(&self, want: &HostPort) -> bool {
        const ANY: &str = "0.0.0.0";
        if self.ports.is_empty() {
            return false;
        }
        self.ports.contains_key(want)
            || self.ports.keys().any(|have| {
                have.port == want.port && have.protocol == want.protocol && (&*have.ip == ANY || &*want.ip == ANY)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, port: i32) -> HostPort {
        HostPort { protocol: "TCP".into(), ip: ip.into(), port }
    }

    #[test]
    fn adds_and_removes() {
        let mut n = NodeInfo::default();
        let pod = |uid: &str, cpu, ports: &[HostPort]| {
            Arc::new(Pod {
                uid: uid.into(),
                requests: Resources { milli_cpu: cpu, pods: 1, ..Resources::default() },
                host_ports: ports.into(),
                ..Pod::default()
            })
        };
        n.add(pod("a", 100, &[port("127.0.0.1", 80)]));
        n.add(pod("b", 200, &[port("0.0.0.0", 81)]));
        n.add(pod("a", 150, &[port("127.0.0.1", 80)]));
        assert_eq!((n.requested.milli_cpu, n.requested.pods), (350, 2));
        for (ip, p, taken) in [
            ("127.0.0.1", 80, true),
            ("0.0.0.0", 80, true),
            ("127.0.0.2", 80, false),
            ("127.0.0.2", 81, true),
            ("0.0.0.0", 82, false),
        ] {
            assert_eq!(n.port_taken(&port(ip, p)), taken, "{ip}:{p}");
        }
        assert!(n.remove("a").is_some());
        assert!(n.remove("a").is_none());
        assert_eq!((n.requested.milli_cpu, n.requested.pods, n.ports.len()), (200, 1, 1));
    }
}

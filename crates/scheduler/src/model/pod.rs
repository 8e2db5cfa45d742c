//! A pod as the scheduler sees it.

use pintle_api::{Labels, Object};

use super::affinity::{PodAffinity, Spread};
use super::resources::{DEFAULT_MEMORY, DEFAULT_MILLI_CPU, Resources};
use super::wire;

/// A port on the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Protocol, `TCP` when the pod names none.
    pub protocol: Box<str>,
    /// Address; `0.0.0.0` for all.
    pub ip: Box<str>,
    /// Port.
    pub port: i32,
}

/// A volume of a pod that bears on where it can be.
#[derive(Clone, Debug)]
pub enum PodVolume {
    /// A claim's, by the claim's name; `owned` when the claim is made for the pod (an ephemeral volume).
    Claim {
        /// Name of the claim.
        name: String,
        /// Whether the claim is the pod's own.
        owned: bool,
    },
    /// A disk named in the pod, which only one pod of a node can have.
    Disk(Box<wire::Volume>),
}

/// Everything about a pod that scheduling reads.
#[derive(Debug, Default)]
pub struct Pod {
    /// `namespace/name`.
    pub key: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// The node it is bound to; empty while it waits.
    pub node_name: String,
    /// Which scheduler is to place it.
    pub scheduler_name: String,
    /// Priority; higher goes first.
    pub priority: i32,
    /// What it asks for in sum, `pods: 1` included.
    pub requests: Resources,
    /// The same with upstream's assumption for containers that ask for no processor or memory; used for scores.
    pub scored_requests: Resources,
    /// Ports it takes on the node.
    pub host_ports: Box<[HostPort]>,
    /// Labels its node must have.
    pub node_selector: Labels,
    /// Node affinity.
    pub node_affinity: Option<wire::NodeAffinity>,
    /// Taints it bears.
    pub tolerations: Box<[wire::Toleration]>,
    /// Gates that keep it from being scheduled.
    pub scheduling_gates: Box<[String]>,
    /// Images of its containers.
    pub images: Box<[String]>,
    /// What it wants of other pods' places.
    pub affinity: PodAffinity,
    /// How it wants to be spread.
    pub spread: Box<[Spread]>,
    /// Volumes that bear on placement.
    pub volumes: Box<[PodVolume]>,
    /// Its references to resource claims: the name of each and the claim made for it, when there is one.
    pub resource_claims: Box<[(String, Option<String>)]>,
    /// The pod group it belongs to, as `namespace/name`.
    pub group: Option<String>,
    /// What its node must declare to know.
    pub features: Box<[&'static str]>,
    /// Its controller.
    pub controller: Option<wire::OwnerReference>,
    /// Whether it takes no room from others (`preemptionPolicy: Never`).
    pub never_preempts: bool,
    /// The node it was promised.
    pub nominated_node: String,
    /// When it began to run, as text.
    pub started: String,
    /// Whether the scheduler has marked it for removal in favour of another.
    pub preempted: bool,
    /// Creation time as text: RFC 3339 sorts by time.
    pub created: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has ended.
    pub finished: bool,
    /// The `PodScheduled` condition's reason and message when it is `False`.
    pub unschedulable: Option<(String, String)>,
}

impl Pod {
    /// Decodes it.
    ///
    /// # Errors
    /// When the object is no Pod.
    pub fn decode(object: &Object) -> serde_json::Result<Self> {
        object.view::<wire::Pod>().map(Self::from)
    }

    /// The claims its volumes are of, as `namespace/name`.
    pub fn claims(&self) -> impl Iterator<Item = String> {
        self.volumes.iter().filter_map(|v| match v {
            PodVolume::Claim { name, .. } => Some(format!("{}/{name}", self.namespace)),
            PodVolume::Disk(_) => None,
        })
    }

    /// Whether a node that takes one takes the other, and as gladly, and would give as much for it, as far as the node and
    /// the pods on it, or promised to it, are concerned.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.scheduler_name == other.scheduler_name
            && self.priority == other.priority
            && self.requests == other.requests
            && self.scored_requests == other.scored_requests
            && self.images == other.images
            && self.node_selector == other.node_selector
            && self.node_affinity == other.node_affinity
            && self.tolerations == other.tolerations
            && self.host_ports == other.host_ports
            && self.features == other.features
            && self.node_name == other.node_name
    }

    /// Whether an earlier state of the same pod counts for as much on its node: the rest of what counts is never changed.
    #[must_use]
    pub fn counts_like(&self, earlier: &Self) -> bool {
        self.uid == earlier.uid
            && self.deleting == earlier.deleting
            && self.requests == earlier.requests
            && self.scored_requests == earlier.scored_requests
            && self.labels == earlier.labels
    }

    /// As much of it as [`Pod::is_like`] looks at.
    #[must_use]
    pub fn kind(&self) -> Self {
        Self {
            scheduler_name: self.scheduler_name.clone(),
            priority: self.priority,
            requests: self.requests.clone(),
            scored_requests: self.scored_requests.clone(),
            images: self.images.clone(),
            node_selector: self.node_selector.clone(),
            node_affinity: self.node_affinity.clone(),
            tolerations: self.tolerations.clone(),
            host_ports: self.host_ports.clone(),
            features: self.features.clone(),
            node_name: self.node_name.clone(),
            ..Self::default()
        }
    }

    /// Whether it waits for a node.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.node_name.is_empty() && !self.finished
    }
}

impl From<wire::Pod> for Pod {
    fn from(p: wire::Pod) -> Self {
        let spec = p.spec;
        let reached = Reached::new(&p.status);
        let requests = total(&spec, |c| reached.requests(c));
        let scored_requests = total(&spec, |c| {
            let mut own = reached.requests(c);
            if !c.resources.requests.contains_key("cpu") {
                own.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if !c.resources.requests.contains_key("memory") {
                own.memory = DEFAULT_MEMORY;
            }
            own
        });
        let sidecars = spec.init_containers.iter().filter(|c| is_sidecar(c));
        let host_ports = spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|c| &c.ports)
            .filter(|port| port.host_port > 0)
            .map(|port| HostPort {
                protocol: or(&port.protocol, "TCP").into(),
                ip: or(&port.host_ip, "0.0.0.0").into(),
                port: port.host_port,
            })
            .collect();
        let preempted = p
            .status
            .conditions
            .iter()
            .any(|c| c.kind == "DisruptionTarget" && c.status == "True" && c.reason == "PreemptionByScheduler");
        let unschedulable = p
            .status
            .conditions
            .into_iter()
            .find(|c| c.kind == "PodScheduled" && c.status == "False")
            .map(|c| (c.reason, c.message));
        let features = features(&spec).into();
        let m = p.metadata;
        let group = spec.scheduling_group.and_then(|g| g.pod_group_name).map(|name| format!("{}/{name}", m.namespace));
        let affinity = PodAffinity::new(&m.namespace, spec.affinity.as_ref());
        let spread = spec.topology_spread_constraints.iter().map(|c| Spread::new(&m.namespace, &m.labels, c)).collect();
        let volumes = spec.volumes.into_iter().filter_map(|v| volume(&m.name, v)).collect();
        let made = p.status.resource_claim_statuses;
        let resource_claims = spec
            .resource_claims
            .into_iter()
            .map(|c| {
                let by_status = || made.iter().find(|s| s.name == c.name).and_then(|s| s.resource_claim_name.clone());
                let claim = c.resource_claim_name.clone().or_else(by_status);
                (c.name, claim)
            })
            .collect();
        Self {
            affinity,
            spread,
            volumes,
            resource_claims,
            group,
            features,
            controller: m.owner_references.into_iter().find(|o| o.controller),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            nominated_node: p.status.nominated_node_name,
            started: p.status.start_time,
            preempted,
            key: format!("{}/{}", m.namespace, m.name),
            namespace: m.namespace,
            name: m.name,
            uid: m.uid,
            labels: m.labels,
            node_name: spec.node_name,
            scheduler_name: or(&spec.scheduler_name, "default-scheduler").into(),
            priority: spec.priority,
            requests,
            scored_requests,
            host_ports,
            node_selector: spec.node_selector,
            node_affinity: spec.affinity.and_then(|a| a.node_affinity),
            tolerations: spec.tolerations.into(),
            scheduling_gates: spec.scheduling_gates.into_iter().map(|g| g.name).collect(),
            images: spec.containers.into_iter().map(|c| c.image).collect(),
            created: m.creation_timestamp.unwrap_or_default(),
            generation: m.generation,
            deleting: m.deletion_timestamp.is_some(),
            finished: matches!(p.status.phase.as_str(), "Succeeded" | "Failed"),
            unschedulable,
        }
    }
}

/// What a node must declare for a pod, as far as 1.36 tells it from the spec.
fn features(spec: &wire::PodSpec) -> Vec<&'static str> {
    let all_restart = |c: &wire::Container| c.restart_policy_rules.iter().any(|r| r.action == "RestartAllContainers");
    let mut out = Vec::new();
    if spec.containers.iter().chain(&spec.init_containers).any(all_restart) {
        out.push("RestartAllContainersOnContainerExits");
    }
    if spec.host_network && spec.host_users == Some(false) {
        out.push("UserNamespacesHostNetworkSupport");
    }
    out
}

fn volume(pod: &str, v: wire::Volume) -> Option<PodVolume> {
    if let Some(claim) = v.persistent_volume_claim {
        return Some(PodVolume::Claim { name: claim.claim_name, owned: false });
    }
    if v.ephemeral.is_some() {
        return Some(PodVolume::Claim { name: format!("{pod}-{}", v.name), owned: true });
    }
    let disk =
        v.gce_persistent_disk.is_some() || v.aws_elastic_block_store.is_some() || v.iscsi.is_some() || v.rbd.is_some();
    disk.then_some(PodVolume::Disk(Box::new(v)))
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn is_sidecar(c: &wire::Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

/// What a resize of running containers has reached.
struct Reached<'s> {
    statuses: Vec<&'s wire::ContainerStatus>,
    /// Whether the node has said that it never will.
    infeasible: bool,
}

impl<'s> Reached<'s> {
    fn new(status: &'s wire::PodStatus) -> Self {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        Self {
            statuses: all.filter(|s| s.resources.is_some() || !s.allocated_resources.is_empty()).collect(),
            infeasible: status
                .conditions
                .iter()
                .any(|c| c.kind == "PodResizePending" && c.status == "True" && c.reason == "Infeasible"),
        }
    }

    /// A container counts with the most of what it asks for, what the node has granted and what it has.
    fn requests(&self, c: &wire::Container) -> Resources {
        let asked = || Resources::from_list(&c.resources.requests);
        let Some(status) = self.statuses.iter().find(|s| s.name == c.name) else { return asked() };
        let mut out = if self.infeasible { Resources::default() } else { asked() };
        out.max(&Resources::from_list(&status.allocated_resources));
        if let Some(r) = &status.resources {
            out.max(&Resources::from_list(&r.requests));
        }
        out
    }
}

/// A pod's requests by upstream's rule: the larger of what runs in the end (containers and sidecars) and what any one
/// init container needs beside the sidecars started before it; pod-level requests take the place of the sum where they
/// are given; overhead comes on top.
fn total(spec: &wire::PodSpec, of: impl Fn(&wire::Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for c in &spec.containers {
        running.add(&of(c));
    }
    let mut sidecars = Resources::default();
    let mut init = Resources::default();
    for c in &spec.init_containers {
        let own = of(c);
        if is_sidecar(c) {
            running.add(&own);
            sidecars.add(&own);
            init.max(&sidecars);
        } else {
            let mut with = sidecars.clone();
            with.add(&own);
            init.max(&with);
        }
    }
    running.max(&init);
    if let Some(pod_level) = &spec.resources {
        let given = Resources::from_list(&pod_level.requests);
        for name in pod_level.requests.keys() {
            running.set(name, given.get(name));
        }
    }
    running.add(&Resources::from_list(&spec.overhead));
    running.pods = 1;
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value::<wire::Pod>(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .unwrap()
            .into()
    }

    fn c(cpu: &str) -> serde_json::Value {
        json!({"image": "i", "resources": {"requests": {"cpu": cpu}}})
    }

    fn sidecar(cpu: &str) -> serde_json::Value {
        json!({"image": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn requests() {
        for (spec, cpu) in [
            (json!({"containers": [c("1"), c("500m")]}), 1500),
            (json!({"containers": [c("1")], "initContainers": [c("3")]}), 3000),
            (json!({"containers": [c("1")], "initContainers": [sidecar("1"), c("3")]}), 4000),
            (json!({"containers": [c("1")], "initContainers": [c("1"), sidecar("1")]}), 2000),
            (json!({"containers": [c("1")], "overhead": {"cpu": "100m"}}), 1100),
            (json!({"containers": [c("1")], "resources": {"requests": {"cpu": "2"}}}), 2000),
        ] {
            assert_eq!(pod(&spec).requests.milli_cpu, cpu, "{spec}");
        }
        let p = pod(&json!({"containers": [{"image": "i"}, c("1")]}));
        assert_eq!((p.requests.pods, p.requests.memory), (1, 0));
        assert_eq!((p.scored_requests.milli_cpu, p.scored_requests.memory), (1100, 2 * DEFAULT_MEMORY));
    }

    #[test]
    fn resize() {
        let check = |asked: &str, granted: &str, infeasible: bool, want: i64| {
            let mut text = json!({"metadata": {"name": "p"},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": asked}}}]},
                "status": {"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": granted}}]}});
            if infeasible {
                text["status"]["conditions"] =
                    json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
            }
            let pod: Pod = serde_json::from_value::<wire::Pod>(text).unwrap().into();
            assert_eq!(pod.requests.milli_cpu, want, "{asked} {granted} {infeasible}");
        };
        check("2", "1", false, 2000);
        check("1", "2", false, 2000);
        check("9", "1", true, 1000);
    }

    #[test]
    fn ports() {
        let p = pod(
            &json!({"containers": [{"ports": [{"hostPort": 80}, {"containerPort": 1}, {"hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"}]}]}),
        );
        let of = |protocol: &str, ip: &str, port| HostPort { protocol: protocol.into(), ip: ip.into(), port };
        assert_eq!(&*p.host_ports, [of("TCP", "0.0.0.0", 80), of("UDP", "127.0.0.1", 53)]);
    }
}

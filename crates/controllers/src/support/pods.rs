//! The narrow form of a Pod that the controllers share, and what they ask of it.

use std::time::Duration;

use jiff::Timestamp;
use pintle_client::clock::since;
use pintle_client::informers::{View, index_by_controller};
use pintle_client::meta::{HasMeta, key};
use pintle_client::{Informers, Meta};
use serde::{Deserialize, Deserializer};

/// A Pod as controllers look at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    pub metadata: Meta,
    /// Part of the spec.
    pub spec: Spec,
    /// Part of the status.
    pub status: Status,
}

/// Part of a Pod's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The node it is bound to.
    pub node_name: String,
    /// Host name asked for.
    pub hostname: String,
    /// Subdomain asked for.
    pub subdomain: String,
    /// Taints it bears.
    pub tolerations: Box<[Toleration]>,
    /// Containers, for their named ports.
    pub containers: Box<[Container]>,
    /// Init containers, for those of side-cars.
    pub init_containers: Box<[Container]>,
    /// Restart policy.
    pub restart_policy: String,
    /// Those of its volumes that are claims'.
    #[serde(deserialize_with = "of_claims")]
    pub volumes: Box<[Volume]>,
    affinity: Affinity,
}

/// A volume that is a claim's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The claim it uses.
    pub persistent_volume_claim: Option<ClaimRef>,
    /// Whether it has a claim of its own, named after the pod.
    pub ephemeral: Option<serde::de::IgnoredAny>,
}

/// The name of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimRef {
    /// The claim.
    pub claim_name: String,
}

fn of_claims<'de, D: Deserializer<'de>>(d: D) -> Result<Box<[Volume]>, D::Error> {
    let mut all: Vec<Volume> = Vec::deserialize(d)?;
    all.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
    Ok(all.into())
}

/// As much of an affinity as names the one node a daemon pod is for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: NodeAffinity,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Required,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Required {
    node_selector_terms: Box<[Term]>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_fields: Box<[Field]>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Field {
    key: String,
    values: Box<[String]>,
}

/// One container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Box<[Port]>,
    /// `Always` makes an init container a side-car.
    pub restart_policy: String,
}

/// One container port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its number.
    pub container_port: i32,
    /// Its protocol.
    pub protocol: String,
}

/// One toleration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Taint key; empty for all.
    pub key: String,
    /// `Equal` (also when empty) or `Exists`.
    pub operator: String,
    /// Taint value.
    pub value: String,
    /// Taint effect; empty for all.
    pub effect: String,
    /// How long a `NoExecute` taint is borne; for ever when absent.
    pub toleration_seconds: Option<i64>,
}

/// Part of a Pod's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Phase.
    pub phase: String,
    /// Reason.
    pub reason: String,
    /// Conditions.
    pub conditions: Box<[Condition]>,
    /// First address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// All addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Box<[PodIp]>,
    /// Containers' states.
    pub container_statuses: Box<[ContainerStatus]>,
    /// Init containers' states.
    pub init_container_statuses: Box<[ContainerStatus]>,
}

/// One address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// One condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why.
    pub reason: String,
    /// When it last changed.
    pub last_transition_time: Option<Timestamp>,
}

/// One container's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// The container.
    pub name: String,
    /// How often it was restarted.
    pub restart_count: i32,
    /// Its state.
    pub state: ContainerState,
}

/// A container's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Set once it ended.
    pub terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Exit code.
    pub exit_code: i32,
    /// When.
    pub finished_at: Option<Timestamp>,
}

impl HasMeta for Pod {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// Index of pods by the node they are bound to.
pub const BY_NODE: &str = "node";
/// Index of pods by the keys of the claims they use.
pub const BY_CLAIM: &str = "claim";

/// The shared view of all pods.
#[must_use]
pub fn view(informers: &Informers) -> View<Pod> {
    let view = informers.of::<k8s_openapi::api::core::v1::Pod>().view::<Pod>();
    index_by_controller(&view);
    view.add_index(BY_NODE, |p| if p.spec.node_name.is_empty() { vec![] } else { vec![p.spec.node_name.clone()] });
    view.add_index(BY_CLAIM, Pod::claims);
    view
}

impl Pod {
    /// Its condition of this type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    /// The node it is bound to or, before that, the only one it may be bound to.
    #[must_use]
    pub fn target_node(&self) -> &str {
        if !self.spec.node_name.is_empty() {
            return &self.spec.node_name;
        }
        let fields = self.spec.affinity.node_affinity.required.node_selector_terms.iter().flat_map(|t| &t.match_fields);
        fields.filter(|f| f.key == "metadata.name").find_map(|f| f.values.first()).map_or("", String::as_str)
    }

    /// Keys of the claims it uses.
    #[must_use]
    pub fn claims(&self) -> Vec<String> {
        let of = |v: &Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(c), _) => Some(c.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", self.metadata.name, v.name)),
            (None, None) => None,
        };
        self.spec.volumes.iter().filter_map(of).map(|c| key(&self.metadata.namespace, &c)).collect()
    }

    /// Whether it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True")
    }

    /// Since when it is ready.
    #[must_use]
    pub fn ready_since(&self) -> Option<Timestamp> {
        self.condition("Ready").filter(|c| c.status == "True").and_then(|c| c.last_transition_time)
    }

    /// Whether it ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether its deletion was asked for.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.is_deleting()
    }

    /// Whether it counts among an owner's replicas.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_deleting()
    }

    /// Time until it counts as available: zero when it does; `None` when it is not ready.
    #[must_use]
    pub fn available_in(&self, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
        if !self.is_ready() {
            return None;
        }
        let need = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
        if need.is_zero() {
            return Some(need);
        }
        Some(need.saturating_sub(since(self.ready_since()?, now)))
    }

    /// Whether it is available.
    #[must_use]
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_in(min_ready_seconds, now).is_some_and(|d| d.is_zero())
    }

    /// Most restarts of any of its containers.
    #[must_use]
    pub fn max_restarts(&self) -> i32 {
        self.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0)
    }
}

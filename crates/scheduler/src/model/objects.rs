//! Everything besides pods and nodes that bears on placement, as it stands in the API.

#![allow(missing_docs, reason = "the fields are the API's own")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::resources::ResourceList;
use super::wire::{Metadata, NodeSelector};

/// Whose node a claim's volume is to be made for, set by the scheduler and read by provisioners.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Set once a claim is bound for good.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Set where a controller bound a volume to a claim.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The class of claims and volumes older than the field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// A Namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: Metadata,
}

/// A `PodGroup`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodGroup {
    pub metadata: Metadata,
    pub spec: PodGroupSpec,
    pub status: PodGroupStatus,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodGroupSpec {
    pub scheduling_policy: SchedulingPolicy,
}

/// How a group's pods are placed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SchedulingPolicy {
    pub gang: Option<GangPolicy>,
}

/// All at once.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GangPolicy {
    pub min_count: i32,
}

/// What became of a group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodGroupStatus {
    pub conditions: Vec<super::wire::Condition>,
}

impl PodGroup {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// The fewest pods that may be placed; nothing when they may be placed one by one.
    #[must_use]
    pub fn min_count(&self) -> Option<usize> {
        self.spec.scheduling_policy.gang.as_ref().map(|g| usize::try_from(g.min_count).unwrap_or(0))
    }
}

/// A `PersistentVolumeClaim`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    pub metadata: Metadata,
    pub spec: ClaimSpec,
    pub status: PhaseStatus,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSpec {
    pub volume_name: String,
    pub storage_class_name: Option<String>,
    pub access_modes: Vec<String>,
    pub resources: super::wire::Requirements,
    pub volume_mode: Option<String>,
    pub selector: Option<LabelSelector>,
}

/// A status of which only the phase is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PhaseStatus {
    pub phase: String,
}

impl Claim {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Its class; empty for none.
    #[must_use]
    pub fn class(&self) -> &str {
        let annotated = self.metadata.annotations.get(BETA_CLASS);
        annotated.or(self.spec.storage_class_name.as_deref()).unwrap_or("")
    }

    /// Whether it is bound, and for good.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        !self.spec.volume_name.is_empty() && self.metadata.annotations.contains_key(BIND_COMPLETED)
    }

    /// What it asks for, in bytes.
    #[must_use]
    pub fn request(&self) -> i64 {
        bytes(self.spec.resources.requests.get("storage"))
    }
}

/// A `PersistentVolume`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub metadata: Metadata,
    pub spec: VolumeSpec,
    pub status: PhaseStatus,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeSpec {
    pub capacity: ResourceList,
    pub access_modes: Vec<String>,
    pub storage_class_name: String,
    pub volume_mode: Option<String>,
    pub claim_ref: Option<ClaimRef>,
    pub node_affinity: Option<VolumeAffinity>,
    pub csi: Option<CsiSource>,
}

/// Which claim a volume is for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct ClaimRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// From which nodes a volume can be used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeAffinity {
    pub required: Option<NodeSelector>,
}

/// A CSI volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiSource {
    pub driver: String,
    pub volume_handle: String,
}

impl Volume {
    /// Its class; empty for none.
    #[must_use]
    pub fn class(&self) -> &str {
        self.metadata.annotations.get(BETA_CLASS).unwrap_or(&self.spec.storage_class_name)
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> i64 {
        bytes(self.spec.capacity.get("storage"))
    }
}

fn bytes(text: Option<&String>) -> i64 {
    text.and_then(|t| pintle_api::quantity::Quantity::parse(t).ok()).map_or(0, |q| q.value())
}

/// A `StorageClass`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StorageClass {
    pub metadata: Metadata,
    pub provisioner: String,
    pub volume_binding_mode: Option<String>,
    pub allowed_topologies: Vec<TopologyTerm>,
}

/// Where volumes of a class can be made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopologyTerm {
    pub match_label_expressions: Vec<TopologyExpression>,
}

/// One condition of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TopologyExpression {
    pub key: String,
    pub values: Vec<String>,
}

impl StorageClass {
    /// Whether claims of it wait for a pod.
    #[must_use]
    pub fn waits_for_consumer(&self) -> bool {
        self.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
    }
}

/// A `CSINode`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNode {
    pub metadata: Metadata,
    pub spec: CsiNodeSpec,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    pub drivers: Vec<CsiNodeDriver>,
}

/// A driver on a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNodeDriver {
    pub name: String,
    pub allocatable: Option<VolumeCount>,
}

/// How many volumes a driver can have on a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeCount {
    pub count: Option<i64>,
}

/// A `CSIDriver`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiDriver {
    pub metadata: Metadata,
    pub spec: CsiDriverSpec,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiDriverSpec {
    pub storage_capacity: bool,
}

/// A `CSIStorageCapacity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StorageCapacity {
    pub metadata: Metadata,
    pub node_topology: Option<LabelSelector>,
    pub storage_class_name: String,
    pub capacity: Option<String>,
    pub maximum_volume_size: Option<String>,
}

impl StorageCapacity {
    /// The largest volume that can be made, when it is told.
    #[must_use]
    pub fn largest(&self) -> Option<i64> {
        let text = self.maximum_volume_size.as_ref().or(self.capacity.as_ref())?;
        Some(bytes(Some(text)))
    }
}

/// A `VolumeAttachment`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub metadata: Metadata,
    pub spec: AttachmentSpec,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachmentSpec {
    pub attacher: String,
    pub node_name: String,
    pub source: AttachmentSource,
}

/// What is attached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachmentSource {
    pub persistent_volume_name: Option<String>,
}

/// A `PodDisruptionBudget`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Budget {
    pub metadata: Metadata,
    pub spec: BudgetSpec,
    pub status: BudgetStatus,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BudgetSpec {
    pub selector: Option<LabelSelector>,
}

/// Its status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BudgetStatus {
    pub disruptions_allowed: i64,
    pub disrupted_pods: BTreeMap<String, serde::de::IgnoredAny>,
}

/// What says by labels which pods belong together: a Service, replication controller, replica set or stateful set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Grouping {
    pub metadata: Metadata,
    pub spec: GroupingSpec,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GroupingSpec {
    pub selector: serde_json::Value,
}

impl Grouping {
    /// A plain map of labels, as Services and replication controllers have.
    #[must_use]
    pub fn labels(&self) -> Option<BTreeMap<String, String>> {
        let map = self.spec.selector.as_object()?;
        map.iter().map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
    }

    /// A label selector, as replica sets and stateful sets have.
    #[must_use]
    pub fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::deserialize(&self.spec.selector).ok()
    }
}

//! Resource claims, slices and device classes, as they stand in the API.

#![allow(missing_docs, reason = "the fields are the API's own")]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::{Metadata, NodeSelector, Toleration};

/// A `ResourceClaim`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceClaim {
    pub metadata: ClaimMetadata,
    pub spec: ResourceClaimSpec,
    pub status: ResourceClaimStatus,
}

/// Its metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimMetadata {
    pub finalizers: Vec<String>,
    #[serde(flatten)]
    pub plain: Metadata,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceClaimSpec {
    pub devices: Arc<DeviceClaim>,
}

/// What it asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceClaim {
    pub requests: Vec<Request>,
    pub constraints: Vec<Constraint>,
    pub config: Vec<ClaimConfig>,
}

/// One request: exactly something, or the first of several that can be had.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Request {
    pub name: String,
    pub exactly: Option<Wanted>,
    pub first_available: Vec<Wanted>,
}

/// Which devices, and how many.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wanted {
    /// Only within `firstAvailable`.
    pub name: String,
    pub device_class_name: String,
    pub selectors: Vec<Selector>,
    pub allocation_mode: String,
    pub count: usize,
    pub admin_access: Option<bool>,
    pub tolerations: Vec<Toleration>,
    pub capacity: Option<Value>,
}

/// A selector.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Selector {
    pub cel: Option<Cel>,
}

/// An expression.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cel {
    pub expression: Arc<str>,
}

/// What devices of several requests must have in common, or not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Constraint {
    pub requests: Vec<String>,
    pub match_attribute: Option<String>,
    pub distinct_attribute: Option<String>,
}

/// Configuration for drivers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimConfig {
    pub requests: Vec<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// A claim's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceClaimStatus {
    pub allocation: Option<Allocation>,
    pub reserved_for: Vec<Value>,
}

/// What was given to a claim.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Allocation {
    pub devices: Allocated,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Value>,
}

/// Its devices.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Allocated {
    pub results: Vec<Given>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<Value>,
}

/// One device that was given.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Given {
    pub request: String,
    pub driver: String,
    pub pool: String,
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_access: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Value>,
}

/// A device by driver, pool and name.
pub type DeviceId = (String, String, String);

impl Given {
    /// Which device it is; `None` when it is only looked at by an administrator.
    #[must_use]
    pub fn id(&self) -> Option<DeviceId> {
        (self.admin_access != Some(true)).then(|| (self.driver.clone(), self.pool.clone(), self.device.clone()))
    }
}

impl ResourceClaim {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.metadata.plain.namespace, self.metadata.plain.name)
    }
}

/// A `DeviceClass`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceClass {
    pub metadata: Metadata,
    pub spec: DeviceClassSpec,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceClassSpec {
    pub selectors: Vec<Selector>,
    pub config: Vec<Value>,
}

/// A `ResourceSlice`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceSlice {
    pub metadata: Metadata,
    pub spec: ResourceSliceSpec,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceSliceSpec {
    pub driver: String,
    pub pool: Pool,
    pub node_name: Option<String>,
    pub node_selector: Option<NodeSelector>,
    pub all_nodes: Option<bool>,
    pub per_device_node_selection: Option<bool>,
    pub devices: Vec<Device>,
    pub shared_counters: Vec<CounterSet>,
}

/// Which pool a slice is of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pool {
    pub name: String,
    pub generation: i64,
    pub resource_slice_count: usize,
}

/// A device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    pub name: String,
    pub attributes: BTreeMap<String, Attribute>,
    pub capacity: BTreeMap<String, Capacity>,
    pub taints: Vec<super::wire::Taint>,
    pub node_name: Option<String>,
    pub node_selector: Option<NodeSelector>,
    pub all_nodes: Option<bool>,
    pub consumes_counters: Vec<CounterSet>,
    pub allow_multiple_allocations: Option<bool>,
}

/// An attribute: one of these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Attribute {
    pub int: Option<i64>,
    pub bool: Option<bool>,
    pub string: Option<String>,
    pub version: Option<String>,
}

/// A capacity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capacity {
    pub value: String,
}

/// Counters that devices share, or consume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CounterSet {
    /// Name of a set that is shared.
    pub name: String,
    /// Name of the set that is consumed.
    pub counter_set: String,
    pub counters: BTreeMap<String, Capacity>,
}

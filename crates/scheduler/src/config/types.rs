//! The configuration as it stands in the file.

#![allow(missing_docs, reason = "the fields are the API's own")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::wire::{NodeAffinity, SpreadConstraint};

/// Upstream's default of `parallelism`.
pub(super) const PARALLELISM: i32 = 16;

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KubeSchedulerConfiguration {
    pub api_version: String,
    pub kind: String,
    pub parallelism: i32,
    pub leader_election: LeaderElection,
    pub client_connection: ClientConnection,
    pub enable_profiling: Option<bool>,
    pub enable_contention_profiling: Option<bool>,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub pod_initial_backoff_seconds: i64,
    pub pod_max_backoff_seconds: i64,
    pub profiles: Vec<ProfileSpec>,
    pub extenders: Vec<Extender>,
    pub delay_cache_until_active: bool,
}

impl Default for KubeSchedulerConfiguration {
    fn default() -> Self {
        Self {
            api_version: String::new(),
            kind: String::new(),
            parallelism: PARALLELISM,
            leader_election: LeaderElection::default(),
            client_connection: ClientConnection::default(),
            enable_profiling: None,
            enable_contention_profiling: None,
            percentage_of_nodes_to_score: None,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            profiles: Vec::new(),
            extenders: Vec::new(),
            delay_cache_until_active: false,
        }
    }
}

/// Leader election.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LeaderElection {
    pub leader_elect: Option<bool>,
    pub lease_duration: Option<String>,
    pub renew_deadline: Option<String>,
    pub retry_period: Option<String>,
    pub resource_lock: String,
    pub resource_name: Option<String>,
    pub resource_namespace: Option<String>,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            leader_elect: None,
            lease_duration: None,
            renew_deadline: None,
            retry_period: None,
            resource_lock: "leases".into(),
            resource_name: None,
            resource_namespace: None,
        }
    }
}

/// How the API is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientConnection {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: Option<f64>,
    pub burst: Option<i32>,
}

/// A profile.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProfileSpec {
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub plugins: Plugins,
    pub plugin_config: Vec<PluginConfig>,
}

/// Plugins by extension point.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Plugins {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
}

/// Plugins that are on and off at a point.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct PluginSet {
    pub enabled: Vec<PluginRef>,
    pub disabled: Vec<PluginRef>,
}

/// A plugin by name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct PluginRef {
    pub name: String,
    pub weight: i32,
}

/// A plugin's arguments.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PluginConfig {
    pub name: String,
    pub args: Value,
}

/// A program that is asked besides the plugins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Extender {
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub weight: i64,
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub tls_config: Option<TlsConfig>,
    pub http_timeout: Option<String>,
    pub node_cache_capable: bool,
    pub managed_resources: Vec<ManagedResource>,
    pub ignorable: bool,
}

/// A resource that an extender manages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ManagedResource {
    pub name: String,
    pub ignored_by_scheduler: bool,
}

/// How an extender is trusted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsConfig {
    pub insecure: bool,
    pub server_name: String,
    pub cert_file: String,
    pub key_file: String,
    pub ca_file: String,
    pub cert_data: String,
    pub key_data: String,
    pub ca_data: String,
}

/// A point of a shape.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ShapePoint {
    pub utilization: i64,
    pub score: i64,
}

/// A resource and its weight.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceSpec {
    pub name: String,
    pub weight: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultPreemptionArgs {
    pub min_candidate_nodes_percentage: i64,
    pub min_candidate_nodes_absolute: i64,
}

impl Default for DefaultPreemptionArgs {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InterPodAffinityArgs {
    pub hard_pod_affinity_weight: i64,
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinityArgs {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeAffinityArgs {
    pub added_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BalancedAllocationArgs {
    pub resources: Vec<ResourceSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeResourcesFitArgs {
    pub ignored_resources: Vec<String>,
    pub ignored_resource_groups: Vec<String>,
    pub scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ScoringStrategy {
    #[serde(rename = "type")]
    pub kind: String,
    pub resources: Vec<ResourceSpec>,
    pub requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ratio {
    pub shape: Vec<ShapePoint>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodTopologySpreadArgs {
    pub default_constraints: Vec<SpreadConstraint>,
    pub defaulting_type: String,
}

impl Default for PodTopologySpreadArgs {
    fn default() -> Self {
        Self { default_constraints: Vec::new(), defaulting_type: "System".into() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeBindingArgs {
    pub bind_timeout_seconds: i64,
    pub shape: Option<Vec<ShapePoint>>,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { bind_timeout_seconds: 600, shape: None }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DynamicResourcesArgs {
    pub filter_timeout: Option<String>,
    pub binding_timeout: Option<String>,
}

/// The arguments of a profile's plugins.
#[derive(Clone, Debug, Default)]
pub struct Args {
    pub preemption: DefaultPreemptionArgs,
    pub inter_pod_affinity: InterPodAffinityArgs,
    pub node_affinity: NodeAffinityArgs,
    pub balanced: BalancedAllocationArgs,
    pub fit: NodeResourcesFitArgs,
    pub spread: PodTopologySpreadArgs,
    pub volume_binding: VolumeBindingArgs,
    pub dynamic_resources: DynamicResourcesArgs,
    /// At which place of `pluginConfig` each stands.
    pub places: BTreeMap<&'static str, usize>,
}

impl Args {
    /// The arguments of every profile; and the fields in them that are not known.
    pub(super) fn of_all(config: &KubeSchedulerConfiguration) -> Result<(Vec<Self>, Vec<String>), String> {
        let mut unknown = Vec::new();
        let mut out = Vec::new();
        for (i, profile) in config.profiles.iter().enumerate() {
            let mut args = Self::default();
            for (j, c) in profile.plugin_config.iter().enumerate() {
                args.take(c, &format!("profiles[{i}].pluginConfig[{j}].args"), j, &mut unknown)?;
            }
            out.push(args);
        }
        Ok((out, unknown))
    }

    fn take(&mut self, c: &PluginConfig, path: &str, place: usize, unknown: &mut Vec<String>) -> Result<(), String> {
        let mut args = c.args.clone();
        let Some(map) = args.as_object_mut() else {
            return if c.args.is_null() {
                Ok(())
            } else {
                Err(format!("decoding args for plugin {}: not an object", c.name))
            };
        };
        let kind = map.remove("kind");
        let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
        if !kind.is_empty() && kind != format!("{}Args", c.name) {
            return Err(format!("{path}: Invalid value: {kind:?}: has to match plugin args"));
        }
        map.remove("apiVersion");
        macro_rules! into {
            ($name:literal, $field:expr) => {{
                $field = serde_ignored::deserialize(&args, |p| unknown.push(format!("{path}.{}", super::dotted(&p))))
                    .map_err(|e| format!("decoding args for plugin {}: {e}", c.name))?;
                self.places.insert($name, place);
            }};
        }
        match c.name.as_str() {
            "DefaultPreemption" => into!("DefaultPreemption", self.preemption),
            "InterPodAffinity" => into!("InterPodAffinity", self.inter_pod_affinity),
            "NodeAffinity" => into!("NodeAffinity", self.node_affinity),
            "NodeResourcesBalancedAllocation" => into!("NodeResourcesBalancedAllocation", self.balanced),
            "NodeResourcesFit" => into!("NodeResourcesFit", self.fit),
            "PodTopologySpread" => into!("PodTopologySpread", self.spread),
            "VolumeBinding" => into!("VolumeBinding", self.volume_binding),
            "DynamicResources" => into!("DynamicResources", self.dynamic_resources),
            // Upstream, too, takes arguments that nobody reads.
            _ => {}
        }
        Ok(())
    }
}

//! `KubeSchedulerConfiguration` v1: what the file says, checked as upstream checks it, and the profiles it makes.

mod build;
mod types;
mod validate;

use std::sync::Arc;

use pintle_api::features::{Feature, FeatureGates};
use pintle_client::{Clock, LeaderConfig};

use crate::framework::profile::Profile;
use crate::plugins::profile_with;

pub use types::{Extender, KubeSchedulerConfiguration};

/// Configuration of the scheduler.
#[derive(Clone)]
pub struct Config {
    /// The Lease it must hold to schedule, if any; whose it is is said when it is run.
    pub leader_election: Option<LeaderConfig>,
    /// The profiles; one for each `schedulerName` it serves.
    pub profiles: Arc<[Profile]>,
    /// Programs that are asked besides the plugins.
    pub extenders: Vec<Extender>,
    /// First back-off after a failed try, in seconds.
    pub pod_initial_backoff_seconds: u64,
    /// Longest back-off, in seconds.
    pub pod_max_backoff_seconds: u64,
    /// Decides among equally good nodes.
    pub seed: u64,
    /// The wall clock, for Events.
    pub clock: Clock,
    /// What the file says that changes nothing here.
    pub warnings: Vec<String>,
    /// Whether pods of a group are placed together.
    pub groups: bool,
    /// Whether what nodes say to one pod is remembered for pods alike.
    pub batching: bool,
}

/// The Lease that upstream's scheduler holds.
fn default_lease() -> LeaderConfig {
    LeaderConfig::new("kube-system", "kube-scheduler", "")
}

impl Default for Config {
    fn default() -> Self {
        Self::with(&FeatureGates::default())
    }
}

impl Config {
    /// The default configuration with these features.
    #[must_use]
    pub fn with(gates: &FeatureGates) -> Self {
        Self {
            leader_election: Some(default_lease()),
            profiles: [profile_with("default-scheduler", gates)].into(),
            extenders: Vec::new(),
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            seed: 1,
            clock: Clock::system(),
            warnings: Vec::new(),
            groups: gates.on(Feature::GenericWorkload),
            batching: gates.on(Feature::OpportunisticBatching),
        }
    }
}

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

impl Config {
    /// Reads a configuration file's text, with these features.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str, gates: &FeatureGates) -> Result<Self, String> {
        let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let of = |field: &str| value.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
        let (version, kind) = (of("apiVersion"), of("kind"));
        if kind.is_empty() {
            return Err("Object 'Kind' is missing".into());
        }
        if version != API_VERSION || kind != KIND {
            return Err(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/scheduler/apis/config/scheme/scheme.go\""
            ));
        }
        let mut unknown = Vec::new();
        let parsed: KubeSchedulerConfiguration = serde_ignored::deserialize(&value, |path| unknown.push(dotted(&path)))
            .map_err(|e| format!("cannot decode {KIND}: {e}"))?;
        let (args, more) = types::Args::of_all(&parsed)?;
        unknown.extend(more);
        if !unknown.is_empty() {
            let list: Vec<String> = unknown.iter().map(|f| format!("unknown field {f:?}")).collect();
            return Err(format!("strict decoding error: {}", list.join(", ")));
        }
        validate::configuration(&parsed, &args)?;
        build::config(parsed, args, gates)
    }
}

/// A path as upstream writes it: `profiles[0].plugins`.
fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    let join = |parent: &Path<'_>, key: &str| match dotted(parent) {
        p if p.is_empty() => key.to_owned(),
        p => format!("{p}.{key}"),
    };
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => join(parent, key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => dotted(parent),
    }
}

#[cfg(test)]
mod tests;

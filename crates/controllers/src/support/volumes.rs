//! Pods as those who care for their volumes look at them.

use pintle_client::informers::View;
use pintle_client::meta::{HasMeta, key};
use pintle_client::{Informers, Meta};
use serde::Deserialize;

/// Index of pods by the keys of the claims they use.
pub const BY_CLAIM: &str = "claim";

/// A pod's volumes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodVolumes {
    /// Metadata.
    pub metadata: Meta,
    /// Part of the spec.
    pub spec: Spec,
    status: Phase,
}

/// Part of a pod's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The node it is bound to.
    pub node_name: String,
    /// Its volumes.
    pub volumes: Vec<Volume>,
}

/// One volume.
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

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Phase {
    phase: String,
}

impl HasMeta for PodVolumes {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl PodVolumes {
    /// Whether it ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
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
}

/// The shared view of all pods' volumes.
#[must_use]
pub fn view(informers: &Informers) -> View<PodVolumes> {
    let view = informers.of::<k8s_openapi::api::core::v1::Pod>().view::<PodVolumes>();
    view.add_index(BY_CLAIM, PodVolumes::claims);
    view
}

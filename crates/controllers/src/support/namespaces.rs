//! The narrow form of a Namespace.

use pintle_client::informers::View;
use pintle_client::meta::HasMeta;
use pintle_client::{Informers, Meta};
use serde::Deserialize;

/// A Namespace as controllers look at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Metadata.
    pub metadata: Meta,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

/// Whether a namespace lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Active,
    /// It is going away.
    Terminating,
}

impl Namespace {
    /// Whether it lives.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.metadata.is_deleting() || self.status.phase == "Terminating" {
            Phase::Terminating
        } else {
            Phase::Active
        }
    }
}

impl HasMeta for Namespace {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// The shared view of all namespaces.
#[must_use]
pub fn view(informers: &Informers) -> View<Namespace> {
    informers.of::<k8s_openapi::api::core::v1::Namespace>().view::<Namespace>()
}

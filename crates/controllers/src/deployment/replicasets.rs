//! What a Deployment asks of its ReplicaSets.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::support::hash;
use crate::support::int_or_string::fenceposts;

/// The label that keeps the ReplicaSets of one Deployment apart.
pub const HASH_LABEL: &str = "pod-template-hash";

pub fn name_of(rs: &ReplicaSet) -> &str {
    rs.metadata.name.as_deref().unwrap_or_default()
}

pub fn size(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// A number for all of them. What is asked for or said of them may be as large as a number can be.
pub fn sum(all: &[ReplicaSet], of: impl Fn(&ReplicaSet) -> i32) -> i32 {
    all.iter().map(of).fold(0, i32::saturating_add)
}

pub fn desired(d: &Deployment) -> i32 {
    d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn is_rolling(d: &Deployment) -> bool {
    let strategy = d.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.type_.as_deref());
    strategy.is_none_or(|t| t == "RollingUpdate")
}

fn bounds(d: &Deployment) -> (i32, i32) {
    let rolling = d.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
    fenceposts(rolling.and_then(|r| r.max_surge.as_ref()), rolling.and_then(|r| r.max_unavailable.as_ref()), desired(d))
}

pub fn max_surge(d: &Deployment) -> i32 {
    if is_rolling(d) { bounds(d).0 } else { 0 }
}

/// Most pods there may be at a time.
pub fn most(d: &Deployment) -> i32 {
    desired(d).saturating_add(max_surge(d))
}

pub fn max_unavailable(d: &Deployment) -> i32 {
    if !is_rolling(d) || desired(d) == 0 {
        return 0;
    }
    bounds(d).1.min(desired(d))
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut t = template.clone();
    if let Some(labels) = t.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    t
}

/// Whether a ReplicaSet is of the Deployment's template.
pub fn same_template(rs: &ReplicaSet, d: &Deployment) -> bool {
    let (Some(r), Some(d)) = (rs.spec.as_ref().and_then(|s| s.template.as_ref()), &d.spec) else { return false };
    without_hash(r) == without_hash(&d.template)
}

/// Hash of the Deployment's template, another one after each collision.
pub fn template_hash(d: &Deployment) -> String {
    // Field order is the type's, maps are sorted: the text is stable.
    let text = d.spec.as_ref().and_then(|s| serde_json::to_vec(&without_hash(&s.template)).ok()).unwrap_or_default();
    hash::of_value(&text, d.status.as_ref().and_then(|s| s.collision_count))
}

/// By age, oldest first, equal ages by name.
pub fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let at = |r: &ReplicaSet| r.metadata.creation_timestamp.as_ref().map(|t| t.0);
    at(a).cmp(&at(b)).then_with(|| name_of(a).cmp(name_of(b)))
}

/// The index of the ReplicaSet of the Deployment's template: the oldest, should there be several.
pub fn find_new(d: &Deployment, all: &[ReplicaSet]) -> Option<usize> {
    (0..all.len()).filter(|i| same_template(&all[*i], d)).min_by(|a, b| by_age(&all[*a], &all[*b]))
}

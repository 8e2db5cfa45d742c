//! Which volume suits a claim.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pintle_api::quantity::Quantity;
use pintle_api::selector::Selector;

/// The older way to name a class.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Marks the class of claims that name none.
const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The class a claim names; `None` when it names none at all, which is not the same as the empty one.
pub fn claim_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, BETA_CLASS).or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

fn volume_class(volume: &PersistentVolume) -> &str {
    annotation(&volume.metadata, BETA_CLASS)
        .or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref())
        .unwrap_or_default()
}

/// The class that claims without one get: of several the newest.
pub fn default_class(classes: &[StorageClass]) -> Option<&StorageClass> {
    let is_default = |c: &&StorageClass| IS_DEFAULT.iter().any(|a| annotation(&c.metadata, a) == Some("true"));
    classes.iter().filter(is_default).min_by(|a, b| {
        let (a, b) = (&a.metadata, &b.metadata);
        b.creation_timestamp.cmp(&a.creation_timestamp).then_with(|| a.name.cmp(&b.name))
    })
}

/// Whether a reference names this claim, and no other of its name.
pub fn is_bound_to(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    let m = &claim.metadata;
    reference.name == m.name
        && reference.namespace == m.namespace
        && reference.uid.as_ref().is_none_or(|u| u.is_empty() || Some(u) == m.uid.as_ref())
}

/// The size of a volume.
pub fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?.0.parse().ok()
}

/// The size a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.as_ref());
    requests.and_then(|r| r.get("storage")?.0.parse().ok()).unwrap_or_default()
}

/// Whether one is a block device and the other a file system.
pub fn modes_differ(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let of = |m: Option<&String>| m.map_or("Filesystem", String::as_str).to_owned();
    of(claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
        != of(volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
}

fn attributes_differ(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let claim = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref()).unwrap_or_default();
    let volume = volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref()).unwrap_or_default();
    claim != volume
}

fn modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default()
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|m| modes(volume).contains(m))
}

/// Why a volume that a claim asks for by name cannot be given to it.
pub fn check(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    if capacity(volume).unwrap_or_default() < requested(claim) {
        return Err("requested PV is too small".into());
    }
    if volume_class(volume) != claim_class(claim).unwrap_or_default() {
        return Err("storageClassName does not match".into());
    }
    if attributes_differ(claim, volume) {
        return Err("volumeAttributesClassName does not match".into());
    }
    if modes_differ(claim, volume) {
        return Err("incompatible volumeMode".into());
    }
    if !has_modes(volume, claim) {
        return Err("incompatible accessMode".into());
    }
    Ok(())
}

/// The volume for a claim that asks for none by name: one that was kept for it, or the smallest that suits, of those
/// with the fewest access modes. With `delayed` only one that was kept for it: which else is the scheduler's choice.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a BTreeMap<String, PersistentVolume>,
    delayed: bool,
) -> Option<&'a PersistentVolume> {
    let want = requested(claim);
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = selector.map(|s| Selector::from_object(Some(s)).unwrap_or_else(|_| Selector::nothing()));
    let suits = |v: &&PersistentVolume| {
        let free = v.spec.as_ref().is_some_and(|s| s.claim_ref.as_ref().is_none_or(|r| is_bound_to(r, claim)));
        free && has_modes(v, claim)
            && capacity(v).is_some_and(|c| c >= want)
            && !modes_differ(claim, v)
            && !attributes_differ(claim, v)
            && v.metadata.deletion_timestamp.is_none()
    };
    let kept = |v: &&PersistentVolume| v.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
    if let Some(v) = volumes.values().filter(suits).find(kept) {
        return Some(v);
    }
    if delayed {
        return None;
    }
    volumes
        .values()
        .filter(suits)
        .filter(|v| v.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available"))
        .filter(|v| selector.as_ref().is_none_or(|s| s.matches_map(v.metadata.labels.as_ref())))
        .filter(|v| volume_class(v) == claim_class(claim).unwrap_or_default())
        .min_by(|a, b| modes(a).len().cmp(&modes(b).len()).then_with(|| capacity(a).cmp(&capacity(b))))
}

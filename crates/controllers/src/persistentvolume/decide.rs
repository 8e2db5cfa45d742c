//! What is to be done with a claim or a volume: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::matching::{self, annotation, claim_class, is_bound_to};

/// On a claim: its binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On either side: this controller bound it, not a user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it for a claim.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is to make a volume for it, by both names of the annotation.
pub const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// On a claim: the node the scheduler chose.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// An Event: whether normal, reason, message.
pub type Say = (bool, &'static str, String);

/// What is known beside the claim or the volume.
#[derive(Debug)]
pub struct World<'a> {
    /// Volumes by name.
    pub volumes: &'a BTreeMap<String, PersistentVolume>,
    /// Storage classes.
    pub classes: &'a [StorageClass],
    /// Names of pods that use the claim and have no node yet.
    pub waiting: Vec<String>,
}

/// What to do with a claim.
#[derive(Debug, PartialEq)]
pub enum ClaimPlan {
    /// Bind it to this volume, or finish that.
    Bind(String),
    /// It is pending, and why.
    Pending(Option<Say>),
    /// It lost its volume.
    Lost(&'static str, &'static str),
    /// It gets the default class, and is looked at again.
    SetClass(String),
    /// Somebody outside is to make a volume.
    Provision(String),
    /// It only says something.
    Tell(Say),
    /// Something is wrong that only a user can have done; it is tried again.
    Fail(String),
}

fn has(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, name: &str) -> bool {
    annotation(meta, name).is_some()
}

/// `namespace/name` of a claim.
pub fn key_of(reference: &ObjectReference) -> String {
    pintle_client::meta::key(
        reference.namespace.as_deref().unwrap_or_default(),
        reference.name.as_deref().unwrap_or_default(),
    )
}

fn claim_key(claim: &PersistentVolumeClaim) -> String {
    let m = &claim.metadata;
    pintle_client::meta::key(m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default())
}

/// What to do with a claim.
pub fn claim(claim: &PersistentVolumeClaim, world: &World<'_>) -> ClaimPlan {
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|v| !v.is_empty());
    if has(&claim.metadata, BIND_COMPLETED) { bound(claim, volume, world) } else { unbound(claim, volume, world) }
}

fn bound(claim: &PersistentVolumeClaim, volume: Option<&str>, world: &World<'_>) -> ClaimPlan {
    let Some(volume) = volume else {
        return ClaimPlan::Lost(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        );
    };
    let Some(volume) = world.volumes.get(volume) else {
        return ClaimPlan::Lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.is_none_or(|r| r.uid == claim.metadata.uid) {
        return ClaimPlan::Bind(volume.metadata.name.clone().unwrap_or_default());
    }
    ClaimPlan::Lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

fn unbound(claim: &PersistentVolumeClaim, volume: Option<&str>, world: &World<'_>) -> ClaimPlan {
    let Some(name) = volume else { return search(claim, world) };
    let Some(volume) = world.volumes.get(name) else { return ClaimPlan::Pending(None) };
    match volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
        None => match matching::check(volume, claim) {
            Ok(()) => ClaimPlan::Bind(name.to_owned()),
            Err(why) => ClaimPlan::Pending(Some((
                false,
                "VolumeMismatch",
                format!("Cannot bind to requested volume {name:?}: {why}"),
            ))),
        },
        Some(r) if is_bound_to(r, claim) => ClaimPlan::Bind(name.to_owned()),
        Some(_) if !has(&claim.metadata, BOUND_BY_CONTROLLER) => ClaimPlan::Pending(Some((
            false,
            "FailedBinding",
            format!("volume {name:?} already bound to a different claim."),
        ))),
        Some(r) => ClaimPlan::Fail(format!(
            "invalid binding of claim {:?} to volume {name:?}: volume already claimed by {:?}",
            claim_key(claim),
            key_of(r)
        )),
    }
}

/// Looks for a volume for a claim that asks for none by name.
fn search(claim: &PersistentVolumeClaim, world: &World<'_>) -> ClaimPlan {
    let class = claim_class(claim).unwrap_or_default();
    let class = world.classes.iter().find(|c| c.metadata.name.as_deref() == Some(class));
    let delayed = !has(&claim.metadata, SELECTED_NODE)
        && class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = matching::best(claim, world.volumes, delayed) {
        return ClaimPlan::Bind(volume.metadata.name.clone().unwrap_or_default());
    }
    if claim_class(claim).is_none()
        && let Some(default) = matching::default_class(world.classes)
    {
        return ClaimPlan::SetClass(default.metadata.name.clone().unwrap_or_default());
    }
    if delayed {
        let (reason, message) = match world.waiting.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            many => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", many.join(","))),
        };
        return ClaimPlan::Pending(Some((true, reason, message)));
    }
    match (claim_class(claim).unwrap_or_default(), class) {
        ("", _) => ClaimPlan::Pending(Some((
            true,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".into(),
        ))),
        (name, None) => {
            ClaimPlan::Tell((false, "ProvisioningFailed", format!("storageclass.storage.k8s.io {name:?} not found")))
        }
        (_, Some(class)) if class.provisioner.starts_with("kubernetes.io/") => ClaimPlan::Tell((
            false,
            "ProvisioningFailed",
            format!("no volume plugin matched name: {}", class.provisioner),
        )),
        (_, Some(class)) => ClaimPlan::Provision(class.provisioner.clone()),
    }
}

/// What to do with a volume.
#[derive(Debug, PartialEq)]
pub enum VolumePlan {
    /// Its phase.
    Phase(&'static str),
    /// Its claim has to be looked at.
    Claim(String),
    /// Its mode and its claim's differ: both are told.
    Mismatch(String),
    /// Its claim is gone: it is released and then reclaimed.
    Reclaim,
    /// Its claim went to another volume.
    Unbind,
}

/// What to do with a volume; `claim` is the one it names, when there is such.
pub fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumePlan {
    let Some(reference) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else {
        return VolumePlan::Phase("Available");
    };
    let Some(uid) = reference.uid.as_deref().filter(|u| !u.is_empty()) else {
        // Kept for a claim that has not come.
        return VolumePlan::Phase("Available");
    };
    let Some(claim) = claim.filter(|c| c.metadata.uid.as_deref() == Some(uid)) else { return VolumePlan::Reclaim };
    let name = volume.metadata.name.as_deref();
    match claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|v| !v.is_empty()) {
        None if matching::modes_differ(claim, volume) => VolumePlan::Mismatch(key_of(reference)),
        None => VolumePlan::Claim(key_of(reference)),
        Some(v) if Some(v) == name => VolumePlan::Phase("Bound"),
        Some(_) if has(&volume.metadata, PROVISIONED_BY) && reclaim_policy(volume) == "Delete" => {
            // Made for a claim that took another.
            VolumePlan::Reclaim
        }
        Some(_) => VolumePlan::Unbind,
    }
}

/// What becomes of a released volume.
pub fn reclaim_policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

/// Why a released volume fails; `None` when it is kept, or somebody outside deletes it.
pub fn reclaim_failure(volume: &PersistentVolume) -> Option<(&'static str, String)> {
    match reclaim_policy(volume) {
        "Recycle" => Some(("VolumeFailedRecycle", "No recycler plugin found for the volume!".into())),
        "Delete" => {
            let outside = volume.spec.as_ref().is_some_and(|s| s.csi.is_some())
                || annotation(&volume.metadata, PROVISIONED_BY).is_some_and(|p| !p.starts_with("kubernetes.io/"));
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let why =
                format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched");
            (!outside).then_some(("VolumeFailedDelete", why))
        }
        _ => None,
    }
}

fn annotate(meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, name: &str) {
    meta.annotations.get_or_insert_default().insert(name.into(), "yes".into());
}

/// A volume bound to a claim; `None` when it is already.
pub fn bind_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let (mut new, m) = (volume.clone(), &claim.metadata);
    let spec = new.spec.get_or_insert_default();
    let by_user = spec.claim_ref.as_ref().is_some_and(|r| is_bound_to(r, claim));
    if spec.claim_ref.as_ref().is_some_and(|r| is_bound_to(r, claim) && r.uid == m.uid) {
        return None;
    }
    spec.claim_ref = Some(ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: m.namespace.clone(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        resource_version: m.resource_version.clone(),
        field_path: None,
    });
    if !by_user {
        annotate(&mut new.metadata, BOUND_BY_CONTROLLER);
    }
    Some(new)
}

/// A volume let go of; one that a user kept for the claim stays kept.
pub fn unbind_volume(volume: &PersistentVolume) -> PersistentVolume {
    let mut new = volume.clone();
    let by_us = new.metadata.annotations.as_mut().is_some_and(|a| a.remove(BOUND_BY_CONTROLLER).is_some());
    if let Some(spec) = &mut new.spec {
        if by_us {
            spec.claim_ref = None;
        } else if let Some(r) = &mut spec.claim_ref {
            r.uid = None;
        }
    }
    new
}

/// A claim bound to a volume; `None` when it is already.
pub fn bind_claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let mut new = claim.clone();
    let spec = new.spec.get_or_insert_default();
    if spec.volume_name.as_deref().unwrap_or_default() != volume.metadata.name.as_deref().unwrap_or_default() {
        spec.volume_name.clone_from(&volume.metadata.name);
        annotate(&mut new.metadata, BOUND_BY_CONTROLLER);
    }
    if !has(&new.metadata, BIND_COMPLETED) {
        annotate(&mut new.metadata, BIND_COMPLETED);
    }
    (new != *claim).then_some(new)
}

/// A claim with this phase, and what a volume gives it; `None` when nothing changes.
pub fn claim_phase(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let mut new = claim.clone();
    let status = new.status.get_or_insert_default();
    let becomes = status.phase.as_deref() != Some(phase);
    status.phase = Some(phase.to_owned());
    match volume.and_then(|v| v.spec.as_ref()) {
        None => {
            status.access_modes = None;
            status.capacity = None;
            status.current_volume_attributes_class_name = None;
        }
        Some(spec) => {
            status.access_modes.clone_from(&spec.access_modes);
            // Later the file system's size may differ from the volume's on purpose.
            if becomes {
                status.capacity.clone_from(&spec.capacity);
                status.current_volume_attributes_class_name.clone_from(&spec.volume_attributes_class_name);
            }
        }
    }
    (new.status != claim.status).then_some(new)
}

/// A claim that names who is to make its volume; `None` when it does already.
pub fn set_provisioner(claim: &PersistentVolumeClaim, provisioner: &str) -> Option<PersistentVolumeClaim> {
    let mut new = claim.clone();
    let annotations = new.metadata.annotations.get_or_insert_default();
    for name in PROVISIONER {
        annotations.insert(name.into(), provisioner.into());
    }
    (new.metadata.annotations != claim.metadata.annotations).then_some(new)
}

//! PersistentVolumes and PersistentVolumeClaims.

use jiff::Timestamp;
use pintle_api::names::dns1123_subdomain;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};

use super::pod::resources;
use crate::kinds::table::{self, Column, text};
use crate::kinds::{Strategy, checks, meta, value};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The strategy of persistent volumes.
pub static PERSISTENT_VOLUME: Strategy = Strategy {
    on_create: |ctx, o| {
        let since = pintle_api::time::format(ctx.now);
        value::set(o, &["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": since}));
    },
    columns: &[
        Column::NAME,
        text("Capacity", "@PersistentVolumeSpec.capacity"),
        text("Access Modes", "@PersistentVolumeSpec.accessModes"),
        text("Reclaim Policy", "@PersistentVolumeSpec.persistentVolumeReclaimPolicy"),
        text("Status", "@PersistentVolumeStatus.phase"),
        text("Claim", "@PersistentVolumeSpec.claimRef"),
        text("StorageClass", "StorageClass of the pv"),
        text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
        text("Reason", "@PersistentVolumeStatus.reason"),
        Column::AGE,
        text("VolumeMode", "@PersistentVolumeSpec.volumeMode").wide(),
    ],
    row: volume_row,
    ..Strategy::DEFAULT
};

/// The strategy of persistent volume claims.
pub static PERSISTENT_VOLUME_CLAIM: Strategy = Strategy {
    on_create: |_, o| value::set(o, &["status"], json!({"phase": "Pending"})),
    columns: &[
        Column::NAME,
        text("Status", "@PersistentVolumeClaimStatus.phase"),
        text("Volume", "@PersistentVolumeClaimSpec.volumeName"),
        text("Capacity", "@PersistentVolumeClaimStatus.capacity"),
        text("Access Modes", "@PersistentVolumeClaimStatus.accessModes"),
        text("StorageClass", "StorageClass of the pvc"),
        text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
        Column::AGE,
        text("VolumeMode", "@PersistentVolumeClaimSpec.volumeMode").wide(),
    ],
    row: claim_row,
    ..Strategy::DEFAULT
};

/// The name of a CSI driver.
pub fn csi_driver_name(name: &Cursor<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(name, "");
    }
    if name.str().len() > 63 {
        errors.too_long(name, 63);
    }
    for message in dns1123_subdomain(&name.str().to_lowercase()) {
        errors.invalid(name, message);
    }
}

/// The spec of a claim.
pub fn claim_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.required(&modes, "at least 1 access mode is required");
    }
    let selector = spec.get("selector");
    meta::label_selector(&selector, false, errors);
    access_mode_set(&modes, errors);
    let storage = spec.get("resources").get("requests").key("storage");
    // Upstream leaves `requests` out of this path.
    let path = format!("{}[storage]", spec.get("resources"));
    if storage.is_absent() {
        errors.required(path, "");
    } else if resources::quantity(&storage).sign() <= 0 {
        errors.invalid_value(path, storage.str(), checks::NOT_POSITIVE);
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        checks::subdomain(&class, errors);
    }
    let mode = spec.get("volumeMode");
    if mode.is_present() && !matches!(mode.str(), "Block" | "Filesystem") {
        errors.not_supported(&mode, mode.str(), &["Block", "Filesystem"]);
    }
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    data_source(&source, errors);
    data_source(&reference, errors);
    let namespace = reference.get("namespace");
    if reference.is_present() && !namespace.is_empty() {
        if source.is_present() {
            errors.invalid(&source, "may not be specified when dataSourceRef.namespace is specified");
        }
        checks::label(&namespace, errors);
    } else if source.is_present() && reference.is_present() {
        let same = ["apiGroup", "kind", "name"].iter().all(|f| source.get(f).str() == reference.get(f).str());
        if !same {
            errors.invalid(spec, "must match dataSourceRef");
        }
    }
    let attributes = spec.get("volumeAttributesClassName");
    if !attributes.is_empty() {
        checks::subdomain(&attributes, errors);
    }
}

fn data_source(source: &Cursor<'_>, errors: &mut Errors) {
    if source.is_absent() {
        return;
    }
    for field in ["name", "kind"] {
        if source.get(field).is_empty() {
            errors.required(source.get(field), "");
        }
    }
    let group = source.get("apiGroup");
    if group.is_empty() && source.get("kind").str() != "PersistentVolumeClaim" {
        errors.invalid_value(
            source,
            source.get("kind").str(),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        );
    }
    if !group.is_empty() {
        meta::invalid_each(&group, dns1123_subdomain(group.str()), errors);
    }
}

fn access_mode_set(modes: &Cursor<'_>, errors: &mut Errors) {
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.items().filter(|m| !known.contains(&m.str())) {
        // Upstream reports these at the list.
        errors.not_supported(modes, mode.str(), &known);
    }
    if modes.len() > 1 && modes.items().any(|m| m.str() == "ReadWriteOncePod") {
        errors.forbidden(modes, "may not use ReadWriteOncePod with other access modes");
    }
}

fn volume_row(volume: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (volume.get("spec"), volume.get("status"));
    let claim = spec.get("claimRef");
    let claim = if claim.is_present() {
        format!("{}/{}", claim.get("namespace").str(), claim.get("name").str())
    } else {
        String::new()
    };
    vec![
        table::name(volume),
        spec.get("capacity").key("storage").opt_str().unwrap_or("0").into(),
        access_modes(&spec.get("accessModes")).into(),
        spec.get("persistentVolumeReclaimPolicy").str().into(),
        phase(volume).into(),
        claim.into(),
        class(volume).into(),
        table::or_unset(spec.get("volumeAttributesClassName").str()).into(),
        status.get("reason").str().into(),
        table::age(volume, now),
        table::or_unset(spec.get("volumeMode").str()).into(),
    ]
}

fn claim_row(claim: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (claim.get("spec"), claim.get("status"));
    let bound = !spec.get("volumeName").str().is_empty();
    let (capacity, modes) = if bound {
        let capacity = status.get("capacity").key("storage").opt_str().unwrap_or("0");
        (capacity.to_owned(), access_modes(&status.get("accessModes")))
    } else {
        (String::new(), String::new())
    };
    vec![
        table::name(claim),
        phase(claim).into(),
        spec.get("volumeName").str().into(),
        capacity.into(),
        modes.into(),
        class(claim).into(),
        table::or_unset(spec.get("volumeAttributesClassName").str()).into(),
        table::age(claim, now),
        table::or_unset(spec.get("volumeMode").str()).into(),
    ]
}

fn phase<'a>(object: &Cursor<'a>) -> &'a str {
    if object.get("metadata").get("deletionTimestamp").is_present() {
        "Terminating"
    } else {
        object.get("status").get("phase").str()
    }
}

/// The storage class, by the old annotation or the field.
fn class<'a>(object: &Cursor<'a>) -> &'a str {
    let annotation = object.get("metadata").get("annotations").key(CLASS_ANNOTATION);
    annotation.opt_str().unwrap_or_else(|| object.get("spec").get("storageClassName").str())
}

/// `RWO,ROX`: each mode once, in upstream's order.
fn access_modes(modes: &Cursor<'_>) -> String {
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
        .iter()
        .filter(|(mode, _)| modes.items().any(|m| m.str() == *mode))
        .map(|(_, short)| *short)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let meta = json!({"name": "v", "creationTimestamp": "2024-01-01T00:00:00Z"});
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta,
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "a", "name": "b"},
                "storageClassName": "fast", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound"},
        });
        assert_eq!(
            testing::row(&volume, 5),
            ["v", "1Gi", "RWO,RWX", "Retain", "Bound", "a/b", "fast", "<unset>", "", "5s", "Filesystem"]
        );
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta,
            "spec": {"volumeName": "v"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
        });
        assert_eq!(testing::row(&claim, 5), ["v", "Bound", "v", "1Gi", "RWO", "", "<unset>", "5s", "<unset>"]);
        let pending = testing::changed(&claim, "spec/volumeName", json!(null));
        assert_eq!(testing::row(&pending, 5)[2..5], ["", "", ""]);
    }
}

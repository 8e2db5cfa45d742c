//! PersistentVolumes and PersistentVolumeClaims.

use jiff::Timestamp;
use pintle_schema::cursor::Cursor;
use serde_json::{Value, json};

use crate::kinds::table::{self, Column, text};
use crate::kinds::{Strategy, value};

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

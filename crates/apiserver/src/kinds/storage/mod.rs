//! The storage group.

mod validate;

use jiff::Timestamp;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

use super::Strategy;
use super::strategy::Sub;
use super::table::{self, Column, boolean, integer, text};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The strategy of storage classes.
pub static STORAGE_CLASS: Strategy = Strategy {
    validate: validate::class,
    validate_change: validate::class_change,
    columns: &[
        Column::NAME,
        text("Provisioner", "@StorageClass.provisioner"),
        text("ReclaimPolicy", "@StorageClass.reclaimPolicy"),
        text("VolumeBindingMode", "@StorageClass.volumeBindingMode"),
        text("AllowVolumeExpansion", "@StorageClass.allowVolumeExpansion"),
        Column::AGE,
    ],
    row: |o, now| {
        let annotations = o.get("metadata").get("annotations");
        let default = DEFAULT_CLASS.iter().any(|key| annotations.key(key).str() == "true");
        let name = o.get("metadata").get("name").str();
        vec![
            if default { format!("{name} (default)") } else { name.to_owned() }.into(),
            o.get("provisioner").str().into(),
            o.get("reclaimPolicy").opt_str().unwrap_or("Delete").into(),
            o.get("volumeBindingMode").opt_str().unwrap_or("Immediate").into(),
            o.get("allowVolumeExpansion").bool().into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

/// The strategy of volume attributes classes.
pub static VOLUME_ATTRIBUTES_CLASS: Strategy = Strategy {
    full_meta_on_update: true,
    validate: validate::attributes_class,
    validate_change: validate::attributes_class_change,
    columns: &[Column::NAME, text("DriverName", "@VolumeAttributesClass.driverName"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("driverName").str().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of volume attachments. Whoever attaches may write the status with the object.
pub static VOLUME_ATTACHMENT: Strategy = Strategy {
    full_meta_on_update: true,
    validate: validate::attachment,
    subresources: &[(
        "status",
        Sub { validate: |ctx, new, old, errors| validate::attachment(ctx, new, Some(old), errors), ..Sub::STATUS },
    )],
    validate_change: |_, new, old, errors| super::meta::immutable(&new.get("spec"), &old.get("spec"), errors),
    unconditional_update: false,
    columns: &[
        Column::NAME,
        text("Attacher", "@VolumeAttachmentSpec.attacher"),
        text("PV", "@VolumeAttachmentSource.persistentVolumeName"),
        text("Node", "@VolumeAttachmentSpec.nodeName"),
        boolean("Attached", "@VolumeAttachmentStatus.attached"),
        Column::AGE,
    ],
    row: |o, now| {
        let spec = o.get("spec");
        vec![
            table::name(o),
            spec.get("attacher").str().into(),
            spec.get("source").get("persistentVolumeName").str().into(),
            spec.get("nodeName").str().into(),
            o.get("status").get("attached").bool().into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

/// The strategy of CSI nodes.
pub static CSI_NODE: Strategy = Strategy {
    full_meta_on_update: true,
    validate: validate::node,
    validate_change: validate::node_change,
    unconditional_update: false,
    columns: &[
        Column::NAME,
        integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
        Column::AGE,
    ],
    row: |o, now| vec![table::name(o), o.get("spec").get("drivers").len().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of CSI drivers.
pub static CSI_DRIVER: Strategy = Strategy {
    validate: validate::driver,
    validate_change: validate::driver_change,
    unconditional_update: false,
    generation: &[
        &["spec", "tokenRequests"],
        &["spec", "requiresRepublish"],
        &["spec", "seLinuxMount"],
        &["spec", "nodeAllocatableUpdatePeriodSeconds"],
    ],
    columns: &[
        Column::NAME,
        boolean("AttachRequired", "@CSIDriverSpec.attachRequired"),
        boolean("PodInfoOnMount", "@CSIDriverSpec.podInfoOnMount"),
        boolean("StorageCapacity", "@CSIDriverSpec.storageCapacity"),
        text("TokenRequests", "@CSIDriverSpec.tokenRequests"),
        boolean("RequiresRepublish", "@CSIDriverSpec.requiresRepublish"),
        text("Modes", "@CSIDriverSpec.volumeLifecycleModes"),
        Column::AGE,
    ],
    row: driver_row,
    ..Strategy::DEFAULT
};

/// The strategy of CSI storage capacities.
pub static CSI_STORAGE_CAPACITY: Strategy = Strategy {
    full_meta_on_update: true,
    validate: validate::capacity,
    validate_change: validate::capacity_change,
    columns: &[
        Column::NAME,
        text("StorageClassName", "@CSIStorageCapacity.storageClassName"),
        text("Capacity", "@CSIStorageCapacity.capacity"),
    ],
    row: |o, _| {
        let capacity = o.get("capacity").opt_str().unwrap_or("<unset>");
        vec![table::name(o), o.get("storageClassName").str().into(), capacity.into()]
    },
    ..Strategy::DEFAULT
};

fn driver_row(driver: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let spec = driver.get("spec");
    let join = |list: Cursor<'_>, field: Option<&'static str>| {
        list.items().map(|i| field.map_or(i.str(), |f| i.get(f).str()).to_owned()).collect::<Vec<_>>().join(",")
    };
    let tokens = spec.get("tokenRequests");
    let tokens = if tokens.is_empty() { "<unset>".to_owned() } else { join(tokens, Some("audience")) };
    vec![
        table::name(driver),
        spec.get("attachRequired").opt_bool().unwrap_or(true).into(),
        spec.get("podInfoOnMount").bool().into(),
        spec.get("storageCapacity").bool().into(),
        tokens.into(),
        spec.get("requiresRepublish").bool().into(),
        table::or_none(join(spec.get("volumeLifecycleModes"), None)).into(),
        table::age(driver, now),
    ]
}

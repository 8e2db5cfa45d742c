//! PersistentVolumes and PersistentVolumeClaims.

use jiff::Timestamp;
use pintle_api::names::dns1123_subdomain;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};

use super::pod::{resources, scheduling, volumes};
use crate::kinds::strategy::{Sub, keep_all_but_status};
use crate::kinds::table::{self, Column, text};
use crate::kinds::value::{self, same};
use crate::kinds::{Ctx, Strategy, checks, meta, warn};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The strategy of persistent volumes.
pub static PERSISTENT_VOLUME: Strategy = Strategy {
    on_create: |ctx, o| {
        let since = pintle_api::time::format(ctx.now);
        value::set(o, &["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": since}));
    },
    full_meta_on_update: true,
    validate: volume,
    validate_change: volume_change,
    subresources: &[(
        "status",
        Sub {
            // A phase that changes says when.
            prepare: |ctx, new, old| {
                keep_all_but_status(ctx, new, old);
                let (phase, time) = (["status", "phase"], ["status", "lastPhaseTransitionTime"]);
                let changed = value::at(new, &phase) != value::at(old, &phase);
                if changed && value::at(new, &time) == value::at(old, &time) {
                    value::set(new, &time, pintle_api::time::format(ctx.now));
                } else if !changed && value::at(new, &time).is_none() {
                    value::copy(new, old, &time);
                }
            },
            ..Sub::STATUS
        },
    )],
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
    warnings: |_, claim, _| {
        let mut out = Vec::new();
        warn::whole_bytes(&claim.get("spec").get("resources"), &["storage"], &mut out);
        out
    },
    on_create: |_, o| {
        value::set(o, &["status"], json!({"phase": "Pending"}));
        data_sources(o, None);
    },
    on_update: |_, new, old| data_sources(new, Some(old)),
    full_meta_on_update: true,
    validate: |_, claim, _, errors| claim_spec(&claim.get("spec"), errors),
    validate_change: claim_change,
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

/// What a volume may be made of: its field, and the fields it must have. In upstream's order.
const SOURCES: &[(&str, &[&str])] = &[
    ("hostPath", &[]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("nfs", &["server", "path"]),
    ("rbd", &["monitors", "image"]),
    ("quobyte", &["registry", "volume"]),
    ("cephfs", &["monitors"]),
    ("iscsi", &["targetPortal"]),
    ("cinder", &["volumeID"]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
    ("storageos", &["volumeName"]),
    ("csi", &[]),
];

fn volume(_: &Ctx<'_>, volume: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = volume.get("spec");
    let at = |field: &'static str| spec.get(field);
    some_access_modes(&spec, errors);
    let capacity = at("capacity");
    if capacity.is_empty() {
        errors.required(&capacity, "");
    }
    let storage = capacity.key("storage");
    if storage.is_absent() || capacity.len() > 1 {
        errors.not_supported(&capacity, capacity.value().cloned().unwrap_or_default(), &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        if resources::quantity(&amount).sign() <= 0 {
            errors.invalid(&amount, checks::NOT_POSITIVE);
        }
    }
    checks::one_of(&at("persistentVolumeReclaimPolicy"), &["Delete", "Recycle", "Retain"], false, errors);
    let affinity = at("nodeAffinity");
    if affinity.is_present() {
        let required = affinity.get("required");
        if required.is_present() {
            scheduling::node_selector(&required, false, errors);
        } else {
            errors.required(&required, "must specify required node constraints");
        }
    }
    sources(&spec, errors);
    not_all_of_a_host(&spec, errors);
    if !at("storageClassName").is_empty() {
        checks::subdomain(&at("storageClassName"), errors);
    }
    checks::one_of(&at("volumeMode"), &["Block", "Filesystem"], false, errors);
    let attributes = at("volumeAttributesClassName");
    if attributes.is_present() {
        if attributes.is_empty() {
            errors.required(&attributes, "an empty string is disallowed");
        } else {
            checks::subdomain(&attributes, errors);
        }
        if at("csi").is_absent() {
            errors.required(at("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

/// The spec of a volume that is attached for a pod that names it inline: one of CSI, and nothing that would bind it.
pub fn inline_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    const CONTEXT: &str = "in the context of inline volumes";
    let at = |field: &'static str| spec.get(field);
    let forbid = |field: &'static str, wrong: bool, what: &str, errors: &mut Errors| {
        if wrong {
            errors.forbidden(spec.get(field), format!("{what} {CONTEXT}"));
        }
    };
    let nothing = "may not be specified";
    forbid("claimRef", at("claimRef").is_present(), nothing, errors);
    forbid("capacity", !at("capacity").is_empty(), nothing, errors);
    if at("csi").is_absent() {
        errors.required(at("csi"), format!("has to be specified {CONTEXT}"));
    }
    some_access_modes(spec, errors);
    let policy = at("persistentVolumeReclaimPolicy");
    forbid("persistentVolumeReclaimPolicy", !matches!(policy.str(), "" | "Retain"), "may only be Retain", errors);
    forbid("nodeAffinity", at("nodeAffinity").is_present(), nothing, errors);
    sources(spec, errors);
    not_all_of_a_host(spec, errors);
    forbid("storageClassName", !at("storageClassName").is_empty(), nothing, errors);
    let mode = at("volumeMode");
    let other = mode.is_present() && mode.str() != "Filesystem";
    forbid("volumeMode", other, "may not specify volumeMode other than Filesystem", errors);
}

fn some_access_modes(spec: &Cursor<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.required(&modes, "");
    }
    access_mode_set(&modes, errors);
}

/// What recycles a volume empties it.
fn not_all_of_a_host(spec: &Cursor<'_>, errors: &mut Errors) {
    let (path, policy) = (spec.get("hostPath").get("path"), spec.get("persistentVolumeReclaimPolicy"));
    let root = path.str().starts_with('/') && path.str().split('/').all(|p| matches!(p, "" | "."));
    if root && policy.str() == "Recycle" {
        errors.forbidden(policy, "may not be 'recycle' for a hostPath mount of '/'");
    }
}

fn sources(spec: &Cursor<'_>, errors: &mut Errors) {
    let mut found = 0;
    for (field, required) in SOURCES {
        let source = spec.get(field);
        if source.is_absent() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type");
            continue;
        }
        for name in *required {
            if source.get(name).is_empty() {
                errors.required(source.get(name), "");
            }
        }
        match *field {
            "hostPath" => volumes::host_path(&source, errors),
            "iscsi" => volumes::iscsi(&source, errors),
            "fc" => volumes::fibre_channel(&source, errors),
            "flexVolume" => volumes::flex_options(&source, errors),
            "azureDisk" => volumes::azure_disk(&source, errors),
            "nfs" if !source.get("path").str().starts_with('/') => {
                errors.invalid(&source.get("path"), "must be an absolute path");
            }
            "local" => {
                volumes::no_backsteps(&source.get("path"), errors);
                if spec.get("nodeAffinity").is_absent() {
                    errors.required(spec.get("nodeAffinity"), "Local volume requires node affinity");
                }
            }
            "csi" => csi(&source, errors),
            _ => {}
        }
    }
    if found == 0 {
        errors.required(spec, "must specify a volume type");
    }
}

fn csi(source: &Cursor<'_>, errors: &mut Errors) {
    csi_driver_name(&source.get("driver"), errors);
    if source.get("volumeHandle").is_empty() {
        errors.required(source.get("volumeHandle"), "");
    }
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let secret = source.get(field);
        if secret.is_absent() {
            continue;
        }
        let (name, namespace) = (secret.get("name"), secret.get("namespace"));
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            checks::subdomain(&name, errors);
        }
        if namespace.is_empty() {
            errors.required(&namespace, "");
        } else {
            checks::label(&namespace, errors);
        }
    }
}

fn volume_change<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    let changed = SOURCES.iter().find(|(field, _)| {
        let (mut now, before) = (n.get(field).value().cloned(), o.get(field));
        if *field == "csi"
            && before.is_present()
            && before.get("controllerExpandSecretRef").is_absent()
            && let Some(now) = &mut now
        {
            value::remove(now, &["controllerExpandSecretRef"]);
        }
        !same(now.as_ref(), before.value())
    });
    if let Some((field, _)) = changed {
        errors.forbidden(
            "spec.persistentvolumesource",
            format!("spec.persistentvolumesource is immutable after creation\n{field}"),
        );
    }
    let mode = n.get("volumeMode");
    if !same(mode.value(), o.get("volumeMode").value()) {
        errors.invalid_value("volumeMode", mode.value().cloned().unwrap_or_default(), meta::IMMUTABLE);
    }
    let affinity = n.get("nodeAffinity");
    if o.get("nodeAffinity").is_present() && !same(affinity.value(), o.get("nodeAffinity").value()) {
        let message = format!("{}, except for updating from beta label to GA", meta::IMMUTABLE);
        errors.invalid_value("nodeAffinity", affinity.value().cloned().unwrap_or_default(), message);
    }
    if o.get("volumeAttributesClassName").is_present() && n.get("volumeAttributesClassName").is_absent() {
        errors.forbidden(n.get("volumeAttributesClassName"), "update from non-nil value to nil is forbidden");
    }
}

fn claim_change<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    let annotation = |object: &Cursor<'a>| object.get("metadata").get("annotations").key(CLASS_ANNOTATION).opt_str();
    let class = |spec: &Cursor<'a>| spec.get("storageClassName").opt_str();
    let (now, before) = (n.value().cloned().unwrap_or_default(), o.value().cloned().unwrap_or_default());
    let mut forgiven = now;
    if value::str_at(&before, &["volumeName"]).is_empty() {
        value::copy(&mut forgiven, &before, &["volumeName"]);
    }
    let from_annotation = annotation(old).is_some()
        && class(&o).is_none()
        && class(&n) == annotation(old)
        && (annotation(new).is_none() || annotation(new) == annotation(old));
    if !from_annotation && annotation(new) != annotation(old) {
        errors.invalid_value(
            format!("metadata.annotations.{CLASS_ANNOTATION}"),
            annotation(new).unwrap_or(""),
            meta::IMMUTABLE,
        );
    }
    let from_nil =
        class(&n).is_some() && class(&o).is_none() && (annotation(old).is_none() || class(&n) == annotation(old));
    if from_annotation || from_nil {
        value::copy(&mut forgiven, &before, &["storageClassName"]);
    }
    if new.get("status").get("phase").str() == "Bound" {
        value::copy(&mut forgiven, &before, &["resources", "requests", "storage"]);
        value::copy(&mut forgiven, &before, &["volumeAttributesClassName"]);
    }
    if !same(Some(&forgiven), Some(&before)) {
        errors.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n",
        );
    }
    let size = |spec: &Cursor<'a>| resources::quantity(&spec.get("resources").get("requests").key("storage"));
    let have = resources::quantity(&old.get("status").get("capacity").key("storage"));
    if size(&n) < size(&o) && size(&n) <= have {
        errors.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    let mode = n.get("volumeMode");
    if !same(mode.value(), o.get("volumeMode").value()) {
        errors.invalid_value("volumeMode", mode.value().cloned().unwrap_or_default(), meta::IMMUTABLE);
    }
    let attributes = n.get("volumeAttributesClassName");
    let changed = attributes.opt_str() != o.get("volumeAttributesClassName").opt_str();
    if changed && old.get("status").get("currentVolumeAttributesClassName").is_present() && attributes.is_empty() {
        let to = if attributes.is_absent() { "nil" } else { "empty string" };
        let message = format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.forbidden(&attributes, message);
    }
}

/// The two fields that name where a claim's data comes from say the same, whichever the user wrote.
fn data_sources(claim: &mut Value, old: Option<&Value>) {
    const SOURCE: [&str; 2] = ["spec", "dataSource"];
    const REFERENCE: [&str; 2] = ["spec", "dataSourceRef"];
    let had = |path: &[&str]| old.is_some_and(|o| value::at(o, path).is_some());
    // Those of other namespaces are a feature that is off.
    let elsewhere = |c: &Value| !value::str_at(c, &["spec", "dataSourceRef", "namespace"]).is_empty();
    if elsewhere(claim) && !had(&REFERENCE) {
        value::remove(claim, &REFERENCE);
    }
    let (source, reference) = (value::at(claim, &SOURCE).cloned(), value::at(claim, &REFERENCE).cloned());
    if let (Some(source), None) = (&source, &reference)
        && !had(&SOURCE)
        && !had(&REFERENCE)
    {
        // As old servers did, other sources are ignored in the old field.
        let (group, kind) = (value::str_at(source, &["apiGroup"]), value::str_at(source, &["kind"]));
        if !matches!((group, kind), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")) {
            value::remove(claim, &SOURCE);
            return;
        }
    }
    match (source, reference) {
        (Some(source), None) => value::set(claim, &REFERENCE, source),
        (None, Some(reference)) if !elsewhere(claim) => value::set(claim, &SOURCE, reference),
        _ => {}
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

    #[test]
    fn sources_of_data() {
        let claim =
            |spec: serde_json::Value| json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec});
        let check = |spec: serde_json::Value, old: Option<serde_json::Value>, expect: serde_json::Value| {
            let mut made = claim(spec.clone());
            testing::with_ctx("v1", "PersistentVolumeClaim", |ctx| match &old {
                None => super::PERSISTENT_VOLUME_CLAIM.prepare_create(ctx, &mut made),
                Some(old) => super::PERSISTENT_VOLUME_CLAIM.prepare_update(ctx, &mut made, &claim(old.clone())),
            });
            assert_eq!(made["spec"], expect, "{spec} {old:?}");
        };
        let from = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let both = json!({"dataSource": from, "dataSourceRef": from});
        check(json!({"dataSource": from}), None, both.clone());
        check(json!({"dataSourceRef": from}), None, both.clone());
        check(json!({"dataSource": from}), Some(both.clone()), both);
        // Old clients could name nonsense in the old field.
        let odd = json!({"apiGroup": "example.com", "kind": "Odd", "name": "a"});
        check(json!({"dataSource": odd}), None, json!({}));
        check(json!({"dataSourceRef": odd}), None, json!({"dataSource": odd, "dataSourceRef": odd}));
        // Another namespace is for a feature that is off.
        let far = json!({"kind": "PersistentVolumeClaim", "name": "a", "namespace": "b"});
        check(json!({"dataSourceRef": far}), None, json!({}));
        check(json!({"dataSourceRef": far}), Some(json!({"dataSourceRef": far})), json!({"dataSourceRef": far}));
    }

    #[test]
    fn checks() {
        use crate::kinds::testing::{changed, create_errors, update_errors};
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "resourceVersion": "1"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
        assert_eq!(create_errors(&volume), "");
        let check =
            |path: &str, to, expect: &str| assert_eq!(create_errors(&changed(&volume, path, to)), expect, "{path}");
        check("spec/hostPath", json!(null), "spec: Required value: must specify a volume type");
        check(
            "spec/capacity",
            json!({"storage": "0"}),
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
        );
        check("spec/accessModes", json!([]), "spec.accessModes: Required value");
        let moved = update_errors(&changed(&volume, "spec/hostPath/path", json!("/y")), &volume);
        assert!(
            moved.starts_with(
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
            ),
            "{moved}"
        );
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        assert_eq!(create_errors(&claim), "");
        assert_eq!(
            create_errors(&changed(&claim, "spec/resources", json!({}))),
            "spec.resources[storage]: Required value"
        );
        let bigger = changed(&claim, "spec/resources/requests/storage", json!("2Gi"));
        assert_eq!(update_errors(&bigger, &claim), "");
        let smaller = changed(&claim, "spec/resources/requests/storage", json!("1Mi"));
        assert_eq!(
            update_errors(&smaller, &claim),
            "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
        );
        let other = update_errors(&changed(&claim, "spec/accessModes", json!(["ReadWriteMany"])), &claim);
        assert!(other.starts_with("spec: Forbidden: spec is immutable after creation"), "{other}");
    }
}

//! Validation of the storage group.

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};

use crate::kinds::core::pod::resources::quantity;
use crate::kinds::core::volume::csi_driver_name;
use crate::kinds::value::same;
use crate::kinds::{Ctx, checks, meta, names};

const PARAMETERS_SIZE: usize = 256 * 1024;
const PARAMETERS: usize = 512;

fn parameters(map: &Cursor<'_>, required: bool, errors: &mut Errors) {
    if map.len() > PARAMETERS {
        // Upstream names this path by the Go field.
        errors.too_long(map, PARAMETERS);
        return;
    }
    let mut size = 0;
    for (key, v) in map.entries() {
        if key.is_empty() {
            errors.invalid_value(map, key, "field can not be empty.");
        }
        size += key.len() + v.str().len();
    }
    if size > PARAMETERS_SIZE {
        errors.too_long(map, PARAMETERS_SIZE);
    }
    if required && map.is_empty() {
        errors.required(map, "must contain at least one key/value pair");
    }
}

pub(super) fn class(_: &Ctx<'_>, class: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let provisioner = class.get("provisioner");
    if provisioner.is_empty() {
        errors.required(&provisioner, "");
    } else {
        for message in qualified_name(&provisioner.str().to_lowercase()) {
            errors.invalid(&provisioner, message);
        }
    }
    parameters(&class.get("parameters"), false, errors);
    checks::one_of(&class.get("reclaimPolicy"), &["Delete", "Retain"], false, errors);
    let mode = class.get("volumeBindingMode");
    if mode.is_absent() {
        errors.required(&mode, "");
    } else {
        checks::one_of(&mode, &["Immediate", "WaitForFirstConsumer"], false, errors);
    }
    for term in class.get("allowedTopologies").items() {
        let mut keys: Vec<&str> = Vec::new();
        for expression in term.get("matchLabelExpressions").items() {
            let (key, values) = (expression.get("key"), expression.get("values"));
            if values.is_empty() {
                errors.required(&values, "");
            }
            for (i, v) in values.items().enumerate() {
                if values.list()[..i].iter().any(|earlier| Some(earlier) == v.value()) {
                    errors.duplicate(&v, v.str());
                }
            }
            meta::label_key(&key, key.str(), errors);
            if keys.contains(&key.str()) {
                errors.duplicate(&key, key.str());
            }
            keys.push(key.str());
        }
    }
}

pub(super) fn class_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if !same(new.get(field).value(), old.get(field).value()) {
            errors.forbidden(new.get(field), format!("updates to {field} are forbidden."));
        }
    }
    meta::immutable(&new.get("volumeBindingMode"), &old.get("volumeBindingMode"), errors);
}

pub(super) fn attributes_class(_: &Ctx<'_>, class: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    csi_driver_name(&class.get("driverName"), errors);
    parameters(&class.get("parameters"), true, errors);
}

pub(super) fn attributes_class_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        if !same(new.get(field).value(), old.get(field).value()) {
            errors.forbidden(new.get(field), format!("updates to {field} are forbidden."));
        }
    }
}

pub(super) fn attachment(_: &Ctx<'_>, attachment: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = attachment.get("spec");
    csi_driver_name(&spec.get("attacher"), errors);
    let source = spec.get("source");
    let (name, inline) = (source.get("persistentVolumeName"), source.get("inlineVolumeSpec"));
    match (name.is_present(), inline.is_present()) {
        (false, false) => {
            errors.required(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, true) => {
            errors.forbidden(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, false) if name.is_empty() => errors.required(&name, "must specify non empty persistentVolumeName"),
        (true, false) => checks::subdomain(&name, errors),
        (false, true) => {}
    }
    let node = spec.get("nodeName");
    if node.is_empty() {
        errors.required(&node, "");
    } else {
        checks::subdomain(&node, errors);
    }
}

pub(super) fn node(_: &Ctx<'_>, node: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let mut names: Vec<&str> = Vec::new();
    for driver in node.get("spec").get("drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        csi_driver_name(&name, errors);
        if id.is_empty() {
            errors.required(&id, "");
        }
        if id.str().len() > 192 {
            errors.invalid(&id, "must be 192 characters or less");
        }
        let count = driver.get("allocatable").get("count");
        meta::not_negative(&count, errors);
        let keys = driver.get("topologyKeys");
        for (i, key) in keys.items().enumerate() {
            if key.is_empty() {
                errors.required(&keys, "");
            }
            if keys.list()[..i].iter().any(|k| Some(k) == key.value()) {
                errors.duplicate(&keys, key.str());
            }
            for message in qualified_name(key.str()) {
                errors.invalid_value(&keys, key.str(), message);
            }
        }
        if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        }
        names.push(name.str());
    }
}

pub(super) fn node_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let drivers = new.get("spec").get("drivers");
    for was in old.get("spec").get("drivers").items() {
        let now = drivers.items().find(|d| d.get("name").str() == was.get("name").str());
        let Some(now) = now else { continue };
        let fixed = ["name", "nodeID", "topologyKeys"].iter().all(|f| same(now.get(f).value(), was.get(f).value()));
        if !fixed {
            let message = meta::IMMUTABLE;
            errors.invalid(&now, message);
        }
    }
}

/// The name of a CSI driver object is the driver's.
pub(super) fn driver_name(name: &str, prefix: bool) -> Vec<String> {
    let mut errors = names::subdomain(&name.to_lowercase(), prefix);
    if name.len() > 63 {
        errors.push("must be no more than 63 characters".to_owned());
    }
    errors
}

pub(super) fn driver(_: &Ctx<'_>, driver: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = driver.get("spec");
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if spec.get(field).is_absent() {
            errors.required(spec.get(field), "");
        }
    }
    checks::one_of(&spec.get("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"], false, errors);
    let mut audiences: Vec<&str> = Vec::new();
    for token in spec.get("tokenRequests").items() {
        let (audience, expiration) = (token.get("audience"), token.get("expirationSeconds"));
        if audiences.contains(&audience.str()) {
            errors.duplicate(&audience, audience.str());
        }
        audiences.push(audience.str());
        if let Some(seconds) = expiration.opt_int() {
            if seconds < 600 {
                errors.invalid(&expiration, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                errors.invalid(&expiration, "may not specify a duration larger than 2^32 seconds");
            }
        }
    }
    for mode in spec.get("volumeLifecycleModes").items() {
        checks::one_of(&mode, &["Ephemeral", "Persistent"], false, errors);
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.opt_int().is_some_and(|s| s < 10) {
        errors.invalid(&period, "must be greater than or equal to 10 seconds");
    }
}

pub(super) fn driver_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for field in ["attachRequired", "volumeLifecycleModes"] {
        meta::immutable(&new.get("spec").get(field), &old.get("spec").get(field), errors);
    }
}

pub(super) fn capacity(_: &Ctx<'_>, capacity: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    meta::label_selector(&capacity.get("nodeTopology"), false, errors);
    let class = capacity.get("storageClassName");
    for message in dns1123_subdomain(class.str()) {
        errors.invalid_value(&class, class.str(), message);
    }
    for field in ["capacity", "maximumVolumeSize"] {
        if quantity(&capacity.get(field)).sign() < 0 {
            errors.invalid(&capacity.get(field), meta::NOT_NEGATIVE);
        }
    }
}

pub(super) fn capacity_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for field in ["nodeTopology", "storageClassName"] {
        meta::immutable(&new.get(field), &old.get(field), errors);
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::json;

    #[test]
    fn classes() {
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "c", "resourceVersion": "1"},
            "provisioner": "example.com/p", "volumeBindingMode": "Immediate", "reclaimPolicy": "Delete"});
        assert_eq!(create_errors(&class), "");
        assert_eq!(create_errors(&changed(&class, "provisioner", json!(""))), "provisioner: Required value");
        assert_eq!(
            create_errors(&changed(&class, "volumeBindingMode", json!("Later"))),
            "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\""
        );
        assert_eq!(
            update_errors(&changed(&class, "provisioner", json!("x/y")), &class),
            "provisioner: Forbidden: updates to provisioner are forbidden."
        );
    }

    #[test]
    fn drivers() {
        let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "d.example.com", "resourceVersion": "1"},
            "spec": {"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false}});
        assert_eq!(create_errors(&driver), "");
        assert_eq!(
            create_errors(&changed(&driver, "spec/attachRequired", json!(null))),
            "spec.attachRequired: Required value"
        );
        assert_eq!(
            update_errors(&changed(&driver, "spec/attachRequired", json!(false)), &driver),
            "spec.attachRequired: Invalid value: false: field is immutable"
        );
        let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": {}}});
        assert_eq!(
            create_errors(&attachment),
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        );
    }
}

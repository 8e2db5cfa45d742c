//! Validation of the storage group.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{BadValue, Cursor, Errors};
use serde_json::Value;

use crate::kinds::apps::odd_values;
use crate::kinds::core::pod::resources::quantity;
use crate::kinds::core::volume::{csi_driver_name, inline_spec};
use crate::kinds::value::same;
use crate::kinds::{Ctx, checks, meta};

const PARAMETERS_SIZE: usize = 256 * 1024;
const PARAMETERS: usize = 512;
/// How often it is said of a topology that it was there before.
const REPEATS: usize = 64;
/// The longest message of an error of attaching.
const ERROR_MESSAGE: usize = 1024;
/// The longest name a driver may have for a node.
const NODE_ID: usize = 256;

fn parameters(map: &Cursor<'_>, required: bool, errors: &mut Errors) {
    if map.len() > PARAMETERS {
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

/// A name with an optional domain, of any case.
fn provisioner(at: &Cursor<'_>, errors: &mut Errors) {
    let name = at.str().to_lowercase();
    if name.is_empty() {
        return errors.required(at, "");
    }
    for message in qualified_name(&name) {
        errors.invalid_value(at, name.as_str(), message);
    }
}

/// Checks a class when it is made; a stored one changes nothing that would need it.
pub(super) fn class(_: &Ctx<'_>, class: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    if old.is_some() {
        return;
    }
    provisioner(&class.get("provisioner"), errors);
    parameters(&class.get("parameters"), false, errors);
    let reclaim = class.get("reclaimPolicy");
    if !reclaim.is_empty() {
        checks::one_of(&reclaim, &["Delete", "Retain"], false, errors);
    }
    let mode = class.get("volumeBindingMode");
    if mode.is_absent() {
        errors.required(&mode, "");
    } else {
        checks::one_of(&mode, &["Immediate", "WaitForFirstConsumer"], false, errors);
    }
    topologies(&class.get("allowedTopologies"), errors);
}

fn topologies(list: &Cursor<'_>, errors: &mut Errors) {
    // Upstream starts with as many empty terms as there are terms, so that none may be empty.
    let mut seen: BTreeMap<BTreeMap<&str, BTreeSet<&str>>, usize> = BTreeMap::from([(BTreeMap::new(), list.len())]);
    for term in list.items() {
        let expressions = term.get("matchLabelExpressions");
        let mut whole = BTreeMap::new();
        for expression in expressions.items() {
            let (key, values) = (expression.get("key"), expression.get("values"));
            if values.is_empty() {
                errors.required(&values, "");
            }
            let mut set = BTreeSet::new();
            for v in values.items() {
                if !set.insert(v.str()) {
                    errors.duplicate(&v, v.str());
                }
            }
            meta::label_key(&key, key.str(), errors);
            if whole.insert(key.str(), set).is_some() {
                errors.duplicate(&key, key.str());
            }
        }
        // Upstream complains for each earlier one; there is an end to it here.
        let earlier = seen.entry(whole).or_default();
        for _ in 0..(*earlier).min(REPEATS) {
            errors.duplicate(&expressions, "");
        }
        *earlier += 1;
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
    provisioner(&class.get("driverName"), errors);
    parameters(&class.get("parameters"), true, errors);
}

pub(super) fn attributes_class_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        if !same(new.get(field).value(), old.get(field).value()) {
            errors.forbidden(new.get(field), format!("updates to {field} are forbidden."));
        }
    }
}

pub(super) fn attachment(_: &Ctx<'_>, attachment: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let spec = attachment.get("spec");
    let (attacher, source, node) = (spec.get("attacher"), spec.get("source"), spec.get("nodeName"));
    if attacher.is_empty() {
        errors.required(&attacher, "");
    }
    let (name, inline) = (source.get("persistentVolumeName"), source.get("inlineVolumeSpec"));
    match (name.is_present(), inline.is_present()) {
        (false, false) => errors.required(&source, ONE),
        (true, true) => errors.forbidden(&source, ONE),
        (true, false) if name.is_empty() => errors.required(&name, "must specify non empty persistentVolumeName"),
        (true, false) => {}
        (false, true) => inline_spec(&inline, errors),
    }
    for message in dns1123_subdomain(node.str()) {
        errors.invalid(&node, message);
    }
    attachment_status(&attachment.get("status"), errors);
    // New ones are held to more than what older versions stored.
    if old.is_none() {
        csi_driver_name(&attacher, errors);
        if name.is_present() {
            checks::subdomain(&name, errors);
        }
    }
}

fn attachment_status(status: &Cursor<'_>, errors: &mut Errors) {
    let metadata = status.get("attachmentMetadata");
    if metadata.entries().map(|(key, v)| key.len() + v.str().len()).sum::<usize>() > PARAMETERS_SIZE {
        errors.too_long(&metadata, PARAMETERS_SIZE);
    }
    for field in ["attachError", "detachError"] {
        let (message, code) = (status.get(field).get("message"), status.get(field).get("errorCode"));
        if message.str().len() > ERROR_MESSAGE {
            // Upstream names the other limit.
            errors.too_long(&message, PARAMETERS_SIZE);
        }
        if code.int() < 0 {
            errors.invalid(&code, checks::between(0, i64::from(i32::MAX)));
        }
    }
}

pub(super) fn node(_: &Ctx<'_>, node: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for driver in node.get("spec").get("drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        csi_driver_name(&name, errors);
        if id.is_empty() {
            errors.required(&id, "");
        }
        if id.str().len() > NODE_ID {
            errors.invalid(&id, format!("must be {NODE_ID} characters or less"));
        }
        meta::not_negative(&driver.get("allocatable").get("count"), errors);
        if names.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        }
        names.insert(name.str());
        // Upstream complains of keys at the driver.
        let mut keys: HashSet<&str> = HashSet::new();
        for key in driver.get("topologyKeys").items().map(|k| k.str()) {
            if key.is_empty() {
                errors.required(&driver, "");
            }
            if keys.contains(&key) {
                errors.duplicate(&driver, key);
            }
            keys.insert(key);
            meta::label_key(&driver, key, errors);
        }
    }
}

pub(super) fn node_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let drivers = new.get("spec").get("drivers");
    for was in old.get("spec").get("drivers").items() {
        for now in drivers.items().filter(|d| d.get("name").str() == was.get("name").str()) {
            if ["nodeID", "topologyKeys"].iter().any(|f| !same(now.get(f).value(), was.get(f).value())) {
                // Upstream prints the driver by the names of its code.
                let keys = now.get("topologyKeys").value().map_or_else(|| "null".to_owned(), ToString::to_string);
                let detail = format!(
                    "{{\"Name\":{},\"NodeID\":{},\"TopologyKeys\":{keys},\"Allocatable\":null}}: {}",
                    Value::from(now.get("name").str()),
                    Value::from(now.get("nodeID").str()),
                    meta::IMMUTABLE
                );
                errors.invalid_value(&drivers, BadValue::Omitted, detail);
            }
        }
    }
}

pub(super) fn driver(_: &Ctx<'_>, driver: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = driver.get("spec");
    // Upstream has this one's name wrong.
    for (field, named) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if spec.get(field).is_absent() {
            errors.required(spec.get(named), "");
        }
    }
    checks::one_of(&spec.get("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"], false, errors);
    token_requests(&spec.get("tokenRequests"), errors);
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items().filter(|m| !matches!(m.str(), "Persistent" | "Ephemeral")) {
        errors.not_supported(&modes, mode.str(), &["Persistent", "Ephemeral"]);
    }
    if spec.get("seLinuxMount").is_absent() {
        errors.required(spec.get("seLinuxMount"), "");
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.opt_int().is_some_and(|s| s < 10) {
        errors.invalid(&period, "must be greater than or equal to 10 seconds");
    }
    let secrets = spec.get("serviceAccountTokenInSecrets");
    if secrets.is_present() && spec.get("tokenRequests").is_empty() {
        errors.invalid(&secrets, "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

fn token_requests(list: &Cursor<'_>, errors: &mut Errors) {
    let mut audiences: HashSet<&str> = HashSet::new();
    for token in list.items() {
        let (audience, expiration) = (token.get("audience"), token.get("expirationSeconds"));
        if audiences.contains(&audience.str()) {
            errors.duplicate(&audience, audience.str());
            continue;
        }
        audiences.insert(audience.str());
        match expiration.opt_int() {
            Some(..600) => errors.invalid(&expiration, "may not specify a duration less than 10 minutes"),
            Some(seconds) if seconds > 1 << 32 => {
                errors.invalid(&expiration, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

pub(super) fn driver_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    let required = n.get("attachRequired");
    if !same(required.value(), o.get("attachRequired").value()) {
        let shown = required.value().cloned().unwrap_or_default();
        errors.invalid_value(n.get("attachedRequired"), shown, meta::IMMUTABLE);
    }
    meta::immutable(&n.get("volumeLifecycleModes"), &o.get("volumeLifecycleModes"), errors);
}

pub(super) fn capacity<'a>(_: &Ctx<'_>, capacity: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let lenient = old.is_some_and(|o| odd_values(&o.get("nodeTopology")));
    meta::label_selector(&capacity.get("nodeTopology"), lenient, errors);
    let class = capacity.get("storageClassName");
    for message in dns1123_subdomain(class.str()) {
        errors.invalid(&class, message);
    }
    if quantity(&capacity.get("capacity")).sign() < 0 {
        errors.invalid(&capacity.get("capacity"), meta::NOT_NEGATIVE);
    }
}

pub(super) fn capacity_change(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for field in ["nodeTopology", "storageClassName"] {
        meta::immutable(&new.get(field), &old.get(field), errors);
    }
}

#[cfg(test)]
mod tests;

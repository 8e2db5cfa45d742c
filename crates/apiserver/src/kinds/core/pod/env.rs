//! Validation of what a container is given: ports, environment, mounts, devices.

use std::collections::{HashMap, HashSet};

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_api::quantity::Quantity;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::volumes::{descending, no_backsteps};
use crate::kinds::{checks, meta};

/// The fields of the pod that an environment variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// All fields of a pod that can be shown at all.
const POD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn ports(list: &Cursor<'_>, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for port in list.items() {
        let (name, number, host) = (port.get("name"), port.get("containerPort"), port.get("hostPort"));
        if !name.str().is_empty() {
            let found = checks::port_name(name.str());
            if found.is_empty() && names.contains(&name.str()) {
                errors.duplicate(&name, name.str());
            } else if found.is_empty() {
                names.insert(name.str());
            }
            meta::invalid_each(&name, found, errors);
        }
        if number.int() == 0 {
            errors.required(&number, "");
        } else {
            meta::invalid_each(&number, checks::port_number(number.int()), errors);
        }
        if host.int() != 0 {
            meta::invalid_each(&host, checks::port_number(host.int()), errors);
        }
        checks::one_of(&port.get("protocol"), &["SCTP", "TCP", "UDP"], true, errors);
    }
}

pub(super) fn env(list: &Cursor<'_>, errors: &mut Errors) {
    for variable in list.items() {
        let name = variable.get("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            meta::invalid_each(&name, checks::env_name(name.str()), errors);
        }
        let from = variable.get("valueFrom");
        if from.is_present() {
            value_from(&from, !variable.get("value").is_empty(), errors);
        }
    }
}

fn value_from(from: &Cursor<'_>, has_value: bool, errors: &mut Errors) {
    let mut sources = 0;
    let mut part = |field: &'static str| {
        let part = from.get(field);
        sources += usize::from(part.is_present());
        part.is_present().then_some(part)
    };
    if let Some(field) = part("fieldRef") {
        field_ref(&field, ENV_FIELDS, errors);
    }
    if let Some(resource) = part("resourceFieldRef") {
        resource_field_ref(&resource, false, errors);
    }
    for field in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(key) = part(field) {
            meta::invalid_each(&key.get("name"), dns1123_subdomain(key.get("name").str()), errors);
            config_key(&key.get("key"), errors);
        }
    }
    if let Some(file) = part("fileKeyRef") {
        file_key(&file, errors);
    }
    if sources == 0 {
        errors.invalid_value(
            from,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if has_value {
        errors.invalid_value(from, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid_value(from, "", "may not have more than one field specified at a time");
    }
}

fn config_key(key: &Cursor<'_>, errors: &mut Errors) {
    if key.is_empty() {
        errors.required(key, "");
    } else {
        meta::invalid_each(key, checks::config_key(key.str()), errors);
    }
}

fn file_key(file: &Cursor<'_>, errors: &mut Errors) {
    let (key, volume, path) = (file.get("key"), file.get("volumeName"), file.get("path"));
    for part in [&key, &volume, &path] {
        if part.is_empty() {
            errors.required(part, "");
        }
    }
    if !key.is_empty() {
        meta::invalid_each(&key, checks::env_name(key.str()), errors);
    }
    if !volume.is_empty() {
        checks::label(&volume, errors);
    }
    no_backsteps(&path, errors);
}

/// A reference to a field of the pod, out of `allowed` (sorted).
pub(super) fn field_ref(field: &Cursor<'_>, allowed: &[&str], errors: &mut Errors) {
    let (version, path) = (field.get("apiVersion"), field.get("fieldPath"));
    if version.is_empty() {
        return errors.required(&version, "");
    }
    if path.is_empty() {
        return errors.required(&path, "");
    }
    let subscript = path.str().strip_suffix("']").and_then(|p| p.split_once("['"));
    let (base, key) = subscript.map_or((path.str(), None), |(base, key)| (base, Some(key)));
    if version.str() != "v1" {
        let text = version.str();
        return errors.invalid(&path, format!("error converting fieldPath: unsupported pod version: {text}"));
    }
    let base = if base == "spec.host" { "spec.nodeName" } else { base };
    if !POD_FIELDS.contains(&base) {
        let text = path.str();
        return errors.invalid(&path, format!("error converting fieldPath: field label not supported: {text}"));
    }
    match (key, base) {
        (None, base) if !allowed.contains(&base) => errors.not_supported(&path, base, allowed),
        (None, _) => {}
        (Some(key), "metadata.annotations") => {
            for message in qualified_name(&key.to_lowercase()) {
                errors.invalid_value(field, key.to_lowercase(), message);
            }
        }
        (Some(key), "metadata.labels") => {
            for message in qualified_name(key) {
                errors.invalid_value(field, key, message);
            }
        }
        (Some(_), base) => errors.invalid_value(field, base, "does not support subscript"),
    }
}

/// A reference to a resource of a container.
pub(super) fn resource_field_ref(field: &Cursor<'_>, volume: bool, errors: &mut Errors) {
    let (container, resource) = (field.get("containerName"), field.get("resource"));
    let name = resource.str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if volume && container.is_empty() {
        errors.required(&container, "");
    } else if name.is_empty() {
        errors.required(&resource, "");
    } else if !RESOURCE_FIELDS.contains(&name) && !huge {
        errors.not_supported(&resource, name, RESOURCE_FIELDS);
    }
    let divisor = field.get("divisor");
    let Ok(quantity) = Quantity::parse(divisor.opt_str().unwrap_or("0")) else { return };
    if quantity.is_zero() {
        return;
    }
    let text = quantity.to_string();
    let sizes = SIZES.contains(&text.as_str());
    let words = match name.split_once('.').map_or("", |(_, r)| r) {
        "cpu" if !matches!(text.as_str(), "1m" | "1") => "1m and 1 are supported with the cpu resource",
        "memory" if !sizes => {
            "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
        }
        "ephemeral-storage" if !sizes => {
            "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource"
        }
        _ if huge && !sizes => {
            "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource"
        }
        _ => return,
    };
    errors.invalid_value(&divisor, name, format!("only divisor's values {words}"));
}

pub(super) fn env_from(list: &Cursor<'_>, errors: &mut Errors) {
    for source in list.items() {
        let prefix = source.get("prefix");
        if !prefix.is_empty() {
            meta::invalid_each(&prefix, checks::env_name(prefix.str()), errors);
        }
        let parts = [source.get("configMapRef"), source.get("secretRef")];
        for part in parts.iter().filter(|p| p.is_present()) {
            let name = part.get("name");
            if name.is_empty() {
                errors.required(&name, "");
            } else {
                meta::invalid_each(&name, crate::kinds::names::subdomain(name.str(), true), errors);
            }
        }
        // Upstream reports these at the list.
        match parts.iter().filter(|p| p.is_present()).count() {
            0 => errors.invalid_value(list, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid_value(list, "", "may not have more than one field specified at a time"),
        }
    }
}

pub(super) fn mounts(container: &Cursor<'_>, volumes: &HashMap<&str, &Value>, errors: &mut Errors) {
    let (list, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let (device_names, device_paths) = (each(&devices, "name"), each(&devices, "devicePath"));
    let mut seen: HashSet<&str> = HashSet::new();
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.is_empty() {
            errors.required(&name, "");
        }
        if !volumes.contains_key(name.str()) {
            errors.not_found(&name, name.str());
        }
        if path.is_empty() {
            errors.required(&path, "");
        }
        if seen.contains(&path.str()) {
            errors.invalid(&path, "must be unique");
        }
        seen.insert(path.str());
        if device_names.contains(name.str()) {
            errors.invalid(&name, "must not already exist in volumeDevices");
        }
        if device_paths.contains(path.str()) {
            errors.invalid(&path, "must not already exist as a path in volumeDevices");
        }
        // Upstream reports these at the list.
        let listed = |field: &'static str| format!("{list}.{field}");
        for field in ["subPath", "subPathExpr"] {
            let part = mount.get(field);
            if part.is_empty() {
                continue;
            }
            if field == "subPathExpr" && !mount.get("subPath").is_empty() {
                errors.invalid(&part, "subPathExpr and subPath are mutually exclusive");
            }
            let mut found = Errors::new();
            descending(&part, &mut found);
            meta::moved(found, &part.path(), &listed(field), errors);
        }
        propagation(container, &mount, &listed, errors);
    }
    block_devices(&list, &devices, volumes, errors);
}

fn propagation(
    container: &Cursor<'_>,
    mount: &Cursor<'_>,
    listed: &dyn Fn(&'static str) -> String,
    errors: &mut Errors,
) {
    const MODES: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let mode = mount.get("mountPropagation");
    if mode.is_present() {
        if !MODES.contains(&mode.str()) {
            errors.not_supported(listed("mountPropagation"), mode.str(), MODES);
        }
        let privileged = container.get("securityContext").get("privileged").bool();
        if mode.str() == "Bidirectional" && !privileged {
            errors.forbidden(
                listed("mountPropagation"),
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
    }
    let recursive = mount.get("recursiveReadOnly");
    match recursive.str() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").bool() {
                errors.forbidden(listed("recursiveReadOnly"), "may only be specified when readOnly is true");
            }
            if mode.is_present() && mode.str() != "None" {
                errors.forbidden(
                    listed("recursiveReadOnly"),
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        other if recursive.is_present() => {
            errors.not_supported(listed("recursiveReadOnly"), other, &["Disabled", "Enabled", "IfPossible"]);
        }
        _ => {}
    }
}

/// A string field of every item.
fn each<'a>(list: &Cursor<'a>, field: &'static str) -> HashSet<&'a str> {
    list.items().map(|item| item.get(field).str()).collect()
}

fn block_devices(mounts: &Cursor<'_>, devices: &Cursor<'_>, volumes: &HashMap<&str, &Value>, errors: &mut Errors) {
    let (mounted, mount_paths) = (each(mounts, "name"), each(mounts, "mountPath"));
    let (mut names, mut paths): (HashSet<&str>, HashSet<&str>) = Default::default();
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        let volume = volumes.get(name.str()).copied();
        if name.is_empty() {
            errors.required(&name, "");
        }
        if names.contains(&name.str()) {
            errors.invalid(&name, "must be unique");
        }
        match volume {
            None => errors.not_found(&name, name.str()),
            Some(v) if v.get("persistentVolumeClaim").is_some() || v.get("ephemeral").is_some() => {}
            Some(_) => errors
                .invalid(&name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"),
        }
        if path.is_empty() {
            errors.required(&path, "");
        }
        if paths.contains(&path.str()) {
            errors.invalid(&path, "must be unique");
        }
        if path.str().split('/').any(|part| part == "..") {
            errors.invalid(&path, "can not contain backsteps ('..')");
        } else {
            paths.insert(path.str());
        }
        if mounted.contains(name.str()) {
            errors.invalid(&name, "must not already exist in volumeMounts");
        }
        if mount_paths.contains(path.str()) {
            errors.invalid(&path, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name.str());
        }
    }
}

//! Validation of the status of claims: what was allocated, and to whom.

use pintle_schema::cursor::{Cursor, Errors};

use super::slice::binding_conditions;
use super::validate::{
    LONGEST_PARAMETERS, MOST_CONFIGS, MOST_REQUESTS, configuration, few, pool_name, raw, request_names, request_ref,
    request_refs, toleration, unique,
};
use crate::kinds::core::pod::scheduling::node_selector;
use crate::kinds::core::volume::csi_driver_name;
use crate::kinds::value::same;
use crate::kinds::{Ctx, checks, meta};

const MOST_CONSUMERS: usize = 256;
const MOST_CONDITIONS: usize = 8;
const MOST_ADDRESSES: usize = 16;

/// A change of a claim's status.
pub(super) fn change<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (status, before) = (new.get("status"), old.get("status"));
    let names = request_names(&new.get("spec").get("devices"));
    let (reserved, allocation) = (status.get("reservedFor"), status.get("allocation"));
    if few(&reserved, MOST_CONSUMERS, errors) {
        for consumer in reserved.items() {
            for field in ["resource", "name", "uid"] {
                if consumer.get(field).is_empty() {
                    errors.required(consumer.get(field), "");
                }
            }
        }
        unique(&reserved, |c| c.get("uid").str().to_owned(), errors);
    }
    let allocated: Vec<String> = allocation.get("devices").get("results").items().map(|r| identity(&r)).collect();
    let devices = status.get("devices");
    for device in devices.items() {
        device_status(&device, &allocated, errors);
    }
    unique(&devices, identity, errors);
    if !reserved.is_empty() && allocation.is_absent() {
        errors.forbidden(&reserved, "may not be specified when `allocated` is not set");
    } else if new.get("metadata").get("deletionTimestamp").is_present() {
        let kept = |c: &Cursor<'_>| before.get("reservedFor").items().any(|o| same(o.value(), c.value()));
        if reserved.items().any(|c| !kept(&c)) {
            errors.forbidden(
                &reserved,
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            );
        }
    }
    if allocation.is_absent() {
        return;
    }
    if before.get("allocation").is_present() {
        return meta::immutable(&allocation, &before.get("allocation"), errors);
    }
    results(&allocation.get("devices"), &names, errors);
    if allocation.get("nodeSelector").is_present() {
        node_selector(&allocation.get("nodeSelector"), false, errors);
    }
}

/// Which device it is, and which share of it.
fn identity(device: &Cursor<'_>) -> String {
    let text = |field: &'static str| device.get(field).str();
    let whole = format!("{}/{}/{}", text("driver"), text("pool"), text("device"));
    if device.get("shareID").is_present() { format!("{whole}/{}", text("shareID")) } else { whole }
}

/// The three parts of a device's name, and its share.
fn parts(device: &Cursor<'_>, errors: &mut Errors) {
    csi_driver_name(&device.get("driver"), errors);
    pool_name(&device.get("pool"), errors);
    checks::label(&device.get("device"), errors);
}

fn share(device: &Cursor<'_>, errors: &mut Errors) {
    let share = device.get("shareID");
    if share.is_absent() {
        return;
    }
    let text = share.str();
    match uuid::Uuid::try_parse(text) {
        Err(_) => errors.invalid(&share, format!("error validating uid: invalid UUID length: {}", text.len())),
        Ok(id) if id.hyphenated().to_string() != text => errors.invalid(
            &share,
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters",
        ),
        Ok(_) => {}
    }
}

fn device_status(device: &Cursor<'_>, allocated: &[String], errors: &mut Errors) {
    parts(device, errors);
    share(device, errors);
    let id = identity(device);
    if !allocated.contains(&id) {
        errors.invalid_value(device, id, "must be an allocated device in the claim");
    }
    few(&device.get("conditions"), MOST_CONDITIONS, errors);
    meta::conditions(&device.get("conditions"), errors);
    if device.get("data").is_present() {
        raw(&device.get("data"), false, LONGEST_PARAMETERS, errors);
    }
    let network = device.get("networkData");
    for (field, longest) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if network.get(field).str().len() > longest {
            errors.too_long(network.get(field), longest);
        }
    }
    let addresses = network.get("ips");
    if few(&addresses, MOST_ADDRESSES, errors) {
        for address in addresses.items() {
            interface_address(&address, errors);
        }
        unique(&addresses, |a| a.str().to_owned(), errors);
    }
}

/// An address of an interface: with the length of its network's prefix, in canonical form.
fn interface_address(at: &Cursor<'_>, errors: &mut Errors) {
    match checks::parse_cidr(at.str()) {
        None => errors.invalid(at, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"),
        Some((ip, length)) => {
            let canonical = format!("{ip}/{length}");
            if canonical != at.str() {
                errors.invalid(at, format!("must be in canonical form (\"{canonical}\")"));
            }
        }
    }
}

fn results(devices: &Cursor<'_>, names: &[String], errors: &mut Errors) {
    let (results, config) = (devices.get("results"), devices.get("config"));
    if few(&results, MOST_REQUESTS, errors) {
        for result in results.items() {
            request_ref(&result.get("request"), names, errors);
            parts(&result, errors);
            binding_conditions(&result, errors);
            for one in result.get("tolerations").items() {
                toleration(&one, errors);
            }
            share(&result, errors);
        }
    }
    // Those of the class and those of the claim.
    if few(&config, 2 * MOST_CONFIGS, errors) {
        for one in config.items() {
            checks::one_of(&one.get("source"), &["FromClaim", "FromClass"], true, errors);
            request_refs(&one.get("requests"), names, errors);
            configuration(&one, false, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, status_errors};
    use serde_json::{Value, json};

    #[test]
    fn statuses() {
        let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"devices": {"requests": [
                {"name": "r", "exactly": {"deviceClassName": "d", "allocationMode": "ExactCount", "count": 1}}]}}});
        let result = json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": "a"});
        let allocated = changed(&claim, "status/allocation", json!({"devices": {"results": [result]}}));
        let check = |base: &Value, path: &str, to: Value, expect: &str| {
            assert_eq!(status_errors(&changed(base, &format!("status/{path}"), to), &claim), expect, "{path}");
        };
        let consumer = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
        check(&allocated, "reservedFor", consumer.clone(), "");
        check(
            &claim,
            "reservedFor",
            consumer,
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
        );
        check(
            &allocated,
            "reservedFor",
            json!([{"resource": "pods", "name": "p"}]),
            "status.reservedFor[0].uid: Required value",
        );
        check(
            &allocated,
            "allocation/devices/results/0/request",
            json!("x"),
            "status.allocation.devices.results[0].request: Invalid value: \"x\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
        );
        check(
            &allocated,
            "allocation/devices/results/0/pool",
            json!(""),
            "status.allocation.devices.results[0].pool: Required value",
        );
        check(
            &allocated,
            "allocation/devices/config",
            json!([{"source": "Nowhere", "opaque": {"driver": "d.example.com", "parameters": {}}}]),
            "status.allocation.devices.config[0].source: Unsupported value: \"Nowhere\": supported values: \"FromClaim\", \"FromClass\"",
        );
        let device =
            json!({"driver": "d.example.com", "pool": "p", "device": "a", "networkData": {"ips": ["10.0.0.1/24"]}});
        check(&allocated, "devices", json!([device]), "");
        check(
            &allocated,
            "devices",
            json!([device, device]),
            "status.devices[1]: Duplicate value: \"d.example.com/p/a\"",
        );
        check(
            &allocated,
            "devices",
            json!([{"driver": "d.example.com", "pool": "p", "device": "b"}]),
            "status.devices[0]: Invalid value: \"d.example.com/p/b\": must be an allocated device in the claim",
        );
        let moved = changed(&allocated, "status/allocation/devices/results/0/device", json!("b"));
        assert!(status_errors(&moved, &allocated).ends_with("field is immutable"));
    }
}

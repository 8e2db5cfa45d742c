//! The resource group: dynamic resource allocation.

use pintle_schema::cursor::{Cursor, Errors};

use super::core::volume::csi_driver_name;
use super::table::{self, Column, text};
use super::{Ctx, Strategy, checks, meta};

const PLAIN: Strategy = Strategy {
    columns: &[Column::NAME, Column::AGE],
    row: |o, now| vec![table::name(o), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of device classes.
pub static DEVICE_CLASS: Strategy = Strategy {
    generation: &[&["spec"]],
    validate: |_, class, _, errors| {
        selectors(&class.get("spec").get("selectors"), errors);
        for config in class.get("spec").get("config").items() {
            csi_driver_name(&config.get("opaque").get("driver"), errors);
        }
    },
    ..PLAIN
};

/// The strategy of resource claim templates.
pub static RESOURCE_CLAIM_TEMPLATE: Strategy = Strategy {
    validate: |_, template, _, errors| claim_spec(&template.get("spec").get("spec"), errors),
    validate_change: spec_stays,
    ..PLAIN
};

/// The strategy of resource claims.
pub static RESOURCE_CLAIM: Strategy = Strategy {
    validate: |_, claim, _, errors| claim_spec(&claim.get("spec"), errors),
    validate_change: spec_stays,
    columns: &[
        Column::NAME,
        text("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
        Column::AGE,
    ],
    row: |o, now| {
        let deleted = o.get("metadata").get("deletionTimestamp").is_present();
        let status = o.get("status");
        let mut state = Vec::new();
        if deleted {
            state.push("deleted");
        }
        if status.get("allocation").is_present() {
            state.push("allocated");
            if !status.get("reservedFor").is_empty() {
                state.push("reserved");
            }
        } else if !deleted {
            state.push("pending");
        }
        vec![table::name(o), state.join(",").into(), table::age(o, now)]
    },
    ..Strategy::DEFAULT
};

/// The strategy of resource slices.
pub static RESOURCE_SLICE: Strategy = Strategy {
    validate: slice,
    validate_change: |_, new, old, errors| {
        let (n, o) = (new.get("spec"), old.get("spec"));
        for field in ["driver", "nodeName"] {
            meta::immutable(&n.get(field), &o.get(field), errors);
        }
        meta::immutable(&n.get("pool").get("name"), &o.get("pool").get("name"), errors);
    },
    selectable: &[("spec.driver", &["spec", "driver"], ""), ("spec.nodeName", &["spec", "nodeName"], "")],
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        text("Node", "@ResourceSliceSpec.nodeName"),
        text("Driver", "@ResourceSliceSpec.driver"),
        text("Pool", "@ResourcePool.name"),
        Column::AGE,
    ],
    row: |o, now| {
        let spec = o.get("spec");
        vec![
            table::name(o),
            spec.get("nodeName").str().into(),
            spec.get("driver").str().into(),
            spec.get("pool").get("name").str().into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

fn spec_stays(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    meta::immutable(&new.get("spec"), &old.get("spec"), errors);
}

/// Selectors, but for their expressions, which whoever compiles them checks.
fn selectors(list: &Cursor<'_>, errors: &mut Errors) {
    if list.len() > 32 {
        errors.too_many(list, list.len(), 32);
    }
    for selector in list.items() {
        let cel = selector.get("cel");
        if cel.is_absent() {
            errors.required(&cel, "");
        } else if cel.get("expression").is_empty() {
            errors.required(cel.get("expression"), "");
        }
    }
}

fn claim_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    let requests = devices.get("requests");
    if requests.len() > 32 {
        errors.too_many(&requests, requests.len(), 32);
    }
    let mut names: Vec<&str> = Vec::new();
    for request in requests.items() {
        let (name, exactly, first) = (request.get("name"), request.get("exactly"), request.get("firstAvailable"));
        unique_name(&name, &mut names, errors);
        match (exactly.is_present(), !first.is_empty()) {
            (false, false) => errors.required(&request, "exactly one of `exactly` or `firstAvailable` is required"),
            (true, true) => errors.invalid(
                &request,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ),
            (true, false) => device_request(&exactly, errors),
            (false, true) => {
                if first.len() > 8 {
                    errors.too_many(&first, first.len(), 8);
                }
                let mut inner: Vec<&str> = Vec::new();
                for alternative in first.items() {
                    unique_name(&alternative.get("name"), &mut inner, errors);
                    device_request(&alternative, errors);
                }
            }
        }
    }
    let known = |request: &str| names.contains(&request.split('/').next().unwrap_or(request));
    for field in ["constraints", "config"] {
        for part in devices.get(field).items() {
            for request in part.get("requests").items().filter(|r| !known(r.str())) {
                errors.invalid(&request, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'");
            }
        }
    }
}

fn unique_name<'a>(name: &Cursor<'a>, names: &mut Vec<&'a str>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(name, "");
    } else {
        checks::label(name, errors);
        if names.contains(&name.str()) {
            errors.duplicate(name, name.str());
        }
    }
    names.push(name.str());
}

fn device_request(request: &Cursor<'_>, errors: &mut Errors) {
    let (class, mode, count) = (request.get("deviceClassName"), request.get("allocationMode"), request.get("count"));
    if class.is_empty() {
        errors.required(&class, "");
    } else {
        checks::subdomain(&class, errors);
    }
    selectors(&request.get("selectors"), errors);
    match mode.str() {
        "All" if count.int() != 0 => {
            errors.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if count.int() <= 0 => errors.invalid_value(&count, count.int(), checks::NOT_POSITIVE),
        "ExactCount" => {}
        other => errors.not_supported(&mode, other, &["All", "ExactCount"]),
    }
    super::core::pod::scheduling::tolerations(&request.get("tolerations"), errors);
}

fn slice(_: &Ctx<'_>, slice: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = slice.get("spec");
    csi_driver_name(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    let name = pool.get("name");
    if name.is_empty() {
        errors.required(&name, "");
    } else if name.str().len() > 253 {
        errors.too_long(&name, 253);
    } else {
        for part in name.str().split('/') {
            for message in pintle_api::names::dns1123_subdomain(part) {
                errors.invalid_value(&name, part, message);
            }
        }
    }
    let slices = pool.get("resourceSliceCount");
    if slices.int() <= 0 {
        errors.invalid_value(&slices, slices.int(), checks::NOT_POSITIVE);
    }
    meta::not_negative(&pool.get("generation"), errors);
    let (node, selector, all, each) =
        (spec.get("nodeName"), spec.get("nodeSelector"), spec.get("allNodes"), spec.get("perDeviceNodeSelection"));
    let set = [!node.is_empty(), selector.is_present(), all.bool(), each.bool()].iter().filter(|s| **s).count();
    match set {
        0 => errors.required(&spec, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"),
        1 => {}
        _ => errors.invalid(&spec, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"),
    }
    if !node.is_empty() {
        checks::subdomain(&node, errors);
    }
    if selector.is_present() {
        if selector.get("nodeSelectorTerms").len() != 1 {
            errors.invalid(&selector, "must have exactly one node selector term");
        }
        super::core::pod::scheduling::node_selector(&selector, false, errors);
    }
    let devices = spec.get("devices");
    if devices.len() > 128 {
        errors.too_many(&devices, devices.len(), 128);
    }
    let mut names: Vec<&str> = Vec::new();
    for device in devices.items() {
        unique_name(&device.get("name"), &mut names, errors);
    }
}

#[cfg(test)]
mod tests {

    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::json;

    #[test]
    fn checks() {
        let gv = "resource.k8s.io/v1";
        let claim = json!({"apiVersion": gv, "kind": "ResourceClaim", "metadata": {"name": "c", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "d", "allocationMode": "ExactCount", "count": 1}}]}}});
        assert_eq!(create_errors(&claim), "");
        assert_eq!(
            create_errors(&changed(&claim, "spec/devices/requests/0/exactly/count", json!(0))),
            "spec.devices.requests[0].exactly.count: Invalid value: 0: must be greater than zero"
        );
        assert!(
            update_errors(&changed(&claim, "spec/devices/requests", json!([])), &claim).ends_with("field is immutable")
        );
        let slice = json!({"apiVersion": gv, "kind": "ResourceSlice", "metadata": {"name": "s"},
            "spec": {"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1}, "nodeName": "n", "devices": [{"name": "a"}, {"name": "a"}]}});
        assert_eq!(create_errors(&slice), "spec.devices[1].name: Duplicate value: \"a\"");
    }
}

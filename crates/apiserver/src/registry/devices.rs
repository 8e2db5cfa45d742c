//! `resource.k8s.io/v1beta1`, whose requests and devices have the fields in themselves that later versions have in
//! `exactly`, and in `basic` those that later versions have in the device.

use serde_json::{Map, Value};

/// Fields of a request that say what exactly is wanted.
const EXACT: &[&str] =
    &["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

fn each<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Where an object of this resource has requests.
fn requests(resource: &str) -> &'static str {
    if resource == "resourceclaimtemplates" { "/spec/spec/devices/requests" } else { "/spec/devices/requests" }
}

/// From `v1beta1` to a later version.
pub(super) fn from_v1beta1(object: &mut Value, resource: &str) {
    match resource {
        "resourceslices" => {
            for device in each(object, "/spec/devices") {
                if let Some(Value::Object(basic)) = device.remove("basic") {
                    device.extend(basic);
                }
            }
        }
        "resourceclaims" | "resourceclaimtemplates" => {
            for request in each(object, requests(resource)) {
                let mut exactly = Map::new();
                for field in EXACT {
                    if let Some(v) = request.remove(*field) {
                        exactly.insert((*field).to_owned(), v);
                    }
                }
                // The class is always written, empty or not.
                if exactly.get("deviceClassName").and_then(Value::as_str) == Some("") && exactly.len() == 1 {
                    exactly.clear();
                }
                if !exactly.is_empty() {
                    request.insert("exactly".into(), exactly.into());
                }
            }
        }
        _ => {}
    }
}

/// From a later version to `v1beta1`.
pub(super) fn to_v1beta1(object: &mut Value, resource: &str) {
    match resource {
        "resourceslices" => {
            for device in each(object, "/spec/devices") {
                let name = device.remove("name");
                let basic = std::mem::take(device);
                device.extend(name.map(|n| ("name".to_owned(), n)));
                device.insert("basic".into(), basic.into());
            }
        }
        "resourceclaims" | "resourceclaimtemplates" => {
            for request in each(object, requests(resource)) {
                match request.remove("exactly") {
                    Some(Value::Object(exactly)) => request.extend(exactly),
                    _ => {
                        request.insert("deviceClassName".into(), "".into());
                    }
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_ways() {
        for (resource, old, new) in [
            (
                "resourceclaims",
                json!({"spec": {"devices": {"requests": [{"name": "a", "deviceClassName": "c", "count": 2}]}}}),
                json!({"spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "count": 2}}]}}}),
            ),
            (
                "resourceclaimtemplates",
                json!({"spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "", "firstAvailable": [{"name": "b", "deviceClassName": "c"}]}]}}}}),
                json!({"spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "c"}]}]}}}}),
            ),
            (
                "resourceslices",
                json!({"spec": {"devices": [{"name": "d", "basic": {"attributes": {"x": {"int": 1}}}}, {"name": "e", "basic": {}}]}}),
                json!({"spec": {"devices": [{"name": "d", "attributes": {"x": {"int": 1}}}, {"name": "e"}]}}),
            ),
            ("resourceclaims", json!({"spec": {}}), json!({"spec": {}})),
            ("deviceclasses", json!({"spec": {"x": 1}}), json!({"spec": {"x": 1}})),
        ] {
            let mut got = old.clone();
            from_v1beta1(&mut got, resource);
            assert_eq!(got, new, "{resource}");
            to_v1beta1(&mut got, resource);
            assert_eq!(got, old, "{resource}");
        }
    }
}

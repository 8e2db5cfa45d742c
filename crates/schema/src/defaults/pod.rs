//! The computed defaults of pods, and of the parts of a pod that templates share.

use super::{Object, default, default_empty, empty, items, made, object, text};
use pintle_api::quantity::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Only of a pod, not of a template.
pub(super) fn pod(o: &mut Object) {
    let Some(spec) = made(o, "spec") else { return };
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
        }
    }
    pod_level_resources(spec);
    default(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            for container in items(spec, list) {
                for port in items(container, "ports") {
                    if port.get("hostPort").is_none_or(|p| p.as_i64() == Some(0))
                        && let Some(number) = port.get("containerPort").cloned()
                    {
                        port.insert("hostPort".to_owned(), number);
                    }
                }
            }
        }
    }
}

fn requests_from_limits(container: &mut Object) {
    let Some(resources) = object(container, "resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = made(resources, "requests") {
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(of: &Object, what: &str) -> Amounts {
    let list = of.get("resources").and_then(|r| r.get(what)).and_then(Value::as_object);
    let parse = |(name, quantity): (&String, &Value)| Some((name.clone(), Quantity::parse(quantity.as_str()?).ok()?));
    list.into_iter().flatten().filter_map(parse).collect()
}

fn add(to: &mut Amounts, other: &Amounts) {
    for (name, quantity) in other {
        *to.entry(name.clone()).or_insert(Quantity::ZERO) += *quantity;
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, quantity) in other {
        let slot = to.entry(name.clone()).or_insert(*quantity);
        if *quantity > *slot {
            *slot = *quantity;
        }
    }
}

/// What a pod's containers need together: all that run at once, or more if an init container needs more.
fn of_all_containers(spec: &Object, what: &str) -> Amounts {
    let list = |name: &str| spec.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let (mut running, mut sidecars, mut init) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in list("containers") {
        add(&mut running, &amounts(container, what));
    }
    for container in list("initContainers") {
        let own = amounts(container, what);
        if text(container, "restartPolicy") == "Always" {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            raise(&mut init, &sidecars);
        } else {
            let mut with = own;
            add(&mut with, &sidecars);
            raise(&mut init, &with);
        }
    }
    raise(&mut running, &init);
    running
}

/// A pod that states resources of its own gets the rest from its containers.
fn pod_level_resources(spec: &mut Object) {
    let stated = spec.get("resources").and_then(Value::as_object);
    if stated.is_none_or(|r| empty(r, "limits") && empty(r, "requests")) {
        return;
    }
    let huge = |name: &str| name.starts_with("hugepages-");
    let (limits, requests) = (of_all_containers(spec, "limits"), of_all_containers(spec, "requests"));
    let Some(resources) = object(spec, "resources") else { return };
    let missing: Vec<_> = limits
        .into_iter()
        .filter(|(name, _)| huge(name) && resources.get("requests").is_none_or(|r| r.get(name).is_none()))
        .collect();
    if !missing.is_empty()
        && let Some(own) = made(resources, "limits")
    {
        for (name, quantity) in missing {
            own.entry(name).or_insert_with(|| Value::from(quantity.to_string()));
        }
    }
    let Some(Value::Object(own_limits)) = resources.get("limits").cloned() else { return };
    if own_limits.is_empty() {
        return;
    }
    let mut own = match resources.remove("requests") {
        Some(Value::Object(o)) => o,
        _ => Object::new(),
    };
    for (name, quantity) in requests {
        if matches!(name.as_str(), "cpu" | "memory") {
            own.entry(name).or_insert_with(|| Value::from(quantity.to_string()));
        }
    }
    for (name, quantity) in own_limits {
        if matches!(name.as_str(), "cpu" | "memory") || huge(&name) {
            own.entry(name).or_insert(quantity);
        }
    }
    if !own.is_empty() {
        resources.insert("requests".to_owned(), Value::Object(own));
    }
}

/// The old name of the service account is kept beside the new one.
pub(super) fn pod_spec(spec: &mut Object) {
    if empty(spec, "serviceAccountName") {
        if let Some(old) = spec.get("serviceAccount").cloned() {
            spec.insert("serviceAccountName".to_owned(), old);
        }
    } else {
        let name = spec["serviceAccountName"].clone();
        spec.insert("serviceAccount".to_owned(), name);
    }
}

/// The one address and the list of addresses say the same; where they differ the one counts.
pub(super) fn pod_status(status: &mut Object) {
    let first = status.get("podIPs").and_then(|l| l.pointer("/0/ip")).and_then(Value::as_str).unwrap_or("").to_owned();
    let one = text(status, "podIP").to_owned();
    if one.is_empty() && !first.is_empty() {
        status.insert("podIP".to_owned(), first.into());
    } else if !one.is_empty() && one != first {
        status.insert("podIPs".to_owned(), json!([{"ip": one}]));
    }
}

pub(super) fn container(o: &mut Object) {
    default_empty(o, "terminationMessagePath", "/dev/termination-log");
    default_empty(o, "terminationMessagePolicy", "File");
    if empty(o, "imagePullPolicy") {
        let policy = pull_policy(text(o, "image"));
        o.insert("imagePullPolicy".to_owned(), policy.into());
    }
}

pub(super) fn volume(o: &mut Object) {
    // A volume that names no source is an empty directory.
    if !o.iter().any(|(name, value)| name != "name" && !value.is_null()) {
        o.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(image) = object(o, "image") {
        let policy = pull_policy(text(image, "reference"));
        default_empty(image, "pullPolicy", policy);
    }
}

/// `Always` for the tag `latest`, said or implied; a name that cannot be read counts as any other.
fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of an image: `latest` where neither tag nor digest is given; nothing for a malformed name.
fn image_tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let base = name.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match name[base..].find(':') {
        Some(colon) => (&name[..base + colon], Some(&name[base + colon + 1..])),
        None => (name, None),
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 1 {
        let host = parts[0];
        if host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase()) {
            parts.remove(0);
        }
    }
    let word = |part: &&str| {
        let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        alphanumeric(part.bytes().next())
            && alphanumeric(part.bytes().last())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
    };
    let tag_fits = |t: &str| {
        (1..=128).contains(&t.len())
            && !t.starts_with(['.', '-'])
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if !parts.iter().all(word) || !tag.is_none_or(tag_fits) {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag),
        (None, Some(_)) => Some(""),
        (None, None) => Some("latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        for (image, expect) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("localhost:5000/a/b", "Always"),
            ("localhost:5000/a/b:2", "IfNotPresent"),
            ("Registry/a", "Always"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
            ("NGINX", "IfNotPresent"),
            ("", "IfNotPresent"),
            ("a//b", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), expect, "{image}");
        }
    }
}

//! Validation of resource requests and limits.

use std::collections::HashSet;

use pintle_api::names::{dns1123_label, qualified_name};
use pintle_api::quantity::Quantity;
use pintle_schema::cursor::{Cursor, ErrorKind, Errors};

use crate::kinds::meta;

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// What counts whole things.
const INTEGERS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether it is one of the huge page sizes.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether it is Kubernetes' own: without a domain, or of `kubernetes.io`.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether it is somebody else's, such as `example.com/gpu`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether requests may be below the limit.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether it comes in whole numbers.
pub fn is_integer(name: &str) -> bool {
    INTEGERS.contains(&name) || is_extended(name)
}

/// The name of a resource, complained of at `at`.
pub fn resource_name(at: &Cursor<'_>, name: &str, errors: &mut Errors) -> bool {
    let before = errors.len();
    for message in qualified_name(name) {
        errors.invalid_value(at, name, message);
    }
    if errors.len() == before && !name.contains('/') && !STANDARD.contains(&name) && !is_huge_page(name) {
        errors.invalid_value(at, name, "must be a standard resource type or fully qualified");
    }
    errors.len() == before
}

/// The name of a resource of a container.
pub fn container_resource_name(at: &Cursor<'_>, name: &str, errors: &mut Errors) {
    resource_name(at, name, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            errors.invalid_value(at, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid_value(at, name, "doesn't follow extended resource name standard");
    }
}

fn pod_resource_name(at: &Cursor<'_>, name: &str, errors: &mut Errors) {
    if resource_name(at, name, errors) && !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        errors.not_supported(at, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// The quantity here; zero when absent. Decoding has refused what is none.
pub fn quantity(at: &Cursor<'_>) -> Quantity {
    at.opt_str().and_then(|text| Quantity::parse(text).ok()).unwrap_or(Quantity::ZERO)
}

/// The amount of a resource: not negative, and whole where the resource is.
pub fn amount(name: &str, at: &Cursor<'_>, errors: &mut Errors) {
    let amount = quantity(at);
    if amount.sign() < 0 {
        errors.invalid_value(at, amount.to_string(), meta::NOT_NEGATIVE);
    }
    if is_integer(name) && amount.milli_value() % 1000 != 0 {
        errors.invalid_value(at, amount.to_string(), "must be an integer");
    }
}

fn huge_page_amount(name: &str, at: &Cursor<'_>, errors: &mut Errors) {
    let size = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok()).map_or(0, |q| q.value());
    let amount = quantity(at);
    if size <= 0 || amount.value() % size != 0 {
        errors.invalid_value(at, amount.to_string(), format!("{amount} is not positive integer multiple of {name}"));
    }
}

/// `resources` of a container. `claims` are the names of the pod's resource claims.
pub fn of_container(resources: &Cursor<'_>, claims: &[&str], errors: &mut Errors) {
    requirements(resources, container_resource_name, errors);
    claim_names(&resources.get("claims"), claims, errors);
}

fn requirements(resources: &Cursor<'_>, name_rule: fn(&Cursor<'_>, &str, &mut Errors), errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let (mut compute, mut huge) = (false, false);
    let mut each = |name: &str, at: &Cursor<'_>, errors: &mut Errors| {
        name_rule(at, name, errors);
        amount(name, at, errors);
        compute |= matches!(name, "cpu" | "memory");
    };
    for (name, limit) in limits.entries() {
        each(name, &limit, errors);
        if is_huge_page(name) {
            huge = true;
            huge_page_amount(name, &limit, errors);
        }
    }
    for (name, request) in requests.entries() {
        each(name, &request, errors);
        let limit = limits.key(name);
        let (asked, most) = (quantity(&request), quantity(&limit));
        if limit.is_present() {
            if asked != most && !may_overcommit(name) {
                errors.invalid_value(&requests, asked.to_string(), format!("must be equal to {name} limit of {most}"));
            } else if asked > most {
                let message = format!("must be less than or equal to {name} limit of {most}");
                errors.invalid_value(&requests, asked.to_string(), message);
            }
        } else if !may_overcommit(name) {
            errors.required(&limits, "Limit must be set for non overcommitable resources");
        }
        if is_huge_page(name) {
            huge = true;
            huge_page_amount(name, &request, errors);
        }
    }
    if huge && !compute {
        errors.forbidden(resources, "HugePages require cpu or memory");
    }
}

fn claim_names(claims: &Cursor<'_>, of_pod: &[&str], errors: &mut Errors) {
    let mut names: HashSet<String> = HashSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.get("name").str(), claim.get("request"));
        if name.is_empty() {
            errors.required(&claim, "");
            continue;
        }
        if names.iter().any(|n| n == name) {
            errors.duplicate(&claim, name);
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                meta::invalid_each(&request, dns1123_label(request.str()), errors);
                key = format!("{name}/{}", request.str());
            }
            if names.contains(&key) {
                errors.duplicate(&claim, key.as_str());
            } else if request.is_empty() {
                for _ in names.iter().filter(|n| n.split_once('/').is_some_and(|(n, _)| n == name)) {
                    errors.duplicate(&claim, name);
                }
            }
            names.insert(key);
        }
        if !of_pod.contains(&name) {
            let mut known = of_pod.to_vec();
            known.sort_unstable();
            let rest = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{rest}");
            errors.add(ErrorKind::NotFound, &claim, name, detail);
        }
    }
}

/// `spec.resources`: what the pod as a whole asks for.
pub(super) fn of_pod(spec: &Cursor<'_>, errors: &mut Errors) {
    let resources = spec.get("resources");
    if resources.is_absent() {
        return;
    }
    if spec.get("os").get("name").str() == "windows" {
        return errors.forbidden(&resources, "may not be set for a windows pod");
    }
    if resources.get("claims").is_present() {
        errors.forbidden(resources.get("claims"), "claims may not be set for Resources at pod-level");
    }
    requirements(&resources, pod_resource_name, errors);
    for (name, wanted) in resources.get("requests").entries() {
        let sum = aggregate(spec, "requests", name);
        if sum > quantity(&wanted) {
            let message = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid_value(&wanted, quantity(&wanted).to_string(), message);
        }
    }
    for (name, limit) in resources.get("limits").entries() {
        let sum = aggregate(spec, "limits", name);
        if is_huge_page(name) && sum > quantity(&limit) {
            let message = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid_value(&limit, quantity(&limit).to_string(), message);
        }
        for (i, container) in spec.get("containers").items().enumerate() {
            let own = quantity(&container.get("resources").get("limits").key(name));
            if own > quantity(&limit) {
                let message = format!("must be less than or equal to pod limits of {}", quantity(&limit));
                errors.invalid_value(format!("{resources}.containers[{i}][{name}].limits"), own.to_string(), message);
            }
        }
    }
}

/// What the containers need together: the sum of those that run at once, or one init container and the sidecars
/// started before it, whichever is more.
pub fn aggregate(spec: &Cursor<'_>, kind: &'static str, name: &str) -> Quantity {
    let amount = |c: &Cursor<'_>| {
        let list = c.get("resources").get(kind);
        list.entries().find(|(k, _)| *k == name).map_or(Quantity::ZERO, |(_, q)| quantity(&q))
    };
    let mut running = Quantity::ZERO;
    for container in spec.get("containers").items() {
        running += amount(&container);
    }
    let (mut sidecars, mut peak) = (Quantity::ZERO, Quantity::ZERO);
    for container in spec.get("initContainers").items() {
        let own = amount(&container);
        let at_once = sidecars + own;
        if container.get("restartPolicy").str() == "Always" {
            sidecars = at_once;
            running += own;
        }
        peak = if at_once > peak { at_once } else { peak };
    }
    if peak > running { peak } else { running }
}

/// The quality of service class of a pod.
pub fn qos(spec: &Cursor<'_>) -> &'static str {
    const COMPUTE: [&str; 2] = ["cpu", "memory"];
    let whole = spec.get("resources");
    let pod_level = ["requests", "limits"].iter().any(|k| !whole.get(k).is_empty());
    let containers: Vec<Cursor<'_>> = if pod_level {
        vec![spec.clone()]
    } else {
        spec.get("containers").items().chain(spec.get("initContainers").items()).collect()
    };
    let (mut any, mut guaranteed) = (false, true);
    let (mut requests, mut limits) = ([Quantity::ZERO; 2], [Quantity::ZERO; 2]);
    for container in &containers {
        let resources = container.get("resources");
        for (i, name) in COMPUTE.into_iter().enumerate() {
            let (request, limit) =
                (quantity(&resources.get("requests").key(name)), quantity(&resources.get("limits").key(name)));
            any |= request.sign() > 0 || limit.sign() > 0;
            guaranteed &= limit.sign() > 0;
            requests[i] += request;
            limits[i] += limit;
        }
    }
    match (any, guaranteed && requests == limits) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn qos_classes() {
        let check = |resources: &[Value], expect: &str| {
            let containers: Vec<Value> = resources.iter().map(|r| json!({"resources": r})).collect();
            let spec = json!({"containers": containers});
            assert_eq!(qos(&Cursor::root(&spec)), expect, "{spec}");
        };
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        check(&[json!({})], "BestEffort");
        check(std::slice::from_ref(&full), "Guaranteed");
        check(&[full.clone(), json!({})], "Burstable");
        check(&[json!({"requests": {"cpu": "1"}})], "Burstable");
        check(&[json!({"limits": {"cpu": "1", "memory": "1Gi"}})], "Burstable");
        check(&[json!({"requests": {"cpu": "0"}})], "BestEffort");
    }

    #[test]
    fn sums() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = c("1");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"containers": [c("1"), c("500m")], "initContainers": [c("3"), sidecar, c("2")]});
        assert_eq!(aggregate(&Cursor::root(&spec), "requests", "cpu").to_string(), "3");
    }
}

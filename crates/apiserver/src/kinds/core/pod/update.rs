//! What may change of a pod, by which way.

use std::collections::{HashMap, HashSet};

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::{MIRROR, container, resources, spec};
use crate::kinds::value::{self, same};
use crate::kinds::{Ctx, checks, meta};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// An ordinary update.
pub(super) fn change<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    annotations(new, old, errors);
    let (n, o) = (new.get("spec"), old.get("spec"));
    for field in ["containers", "initContainers"] {
        let (list, before) = (n.get(field), o.get(field));
        if list.len() != before.len() {
            return errors.forbidden(&list, "pod updates may not add or remove containers");
        }
        for container in list.items() {
            if container.get("image").is_empty() {
                errors.required(container.get("image"), "");
            }
            container::image_padding(&container, errors);
        }
    }
    deadline(&n.get("activeDeadlineSeconds"), &o.get("activeDeadlineSeconds"), errors);
    tolerations(&n.get("tolerations"), &o.get("tolerations"), errors);
    gates(&n.get("schedulingGates"), &o.get("schedulingGates"), errors);
    if same(n.value(), o.value()) {
        return;
    }
    let gated = !o.get("schedulingGates").is_empty();
    if gated {
        node_selector(&n.get("nodeSelector"), &o.get("nodeSelector"), errors);
        node_affinity(&n.get("affinity").get("nodeAffinity"), &o.get("affinity").get("nodeAffinity"), errors);
    }
    if let (Some(n), Some(o)) = (n.value(), o.value()) {
        let forgiven = forgive(n, o, gated);
        if !same(Some(&forgiven), Some(o)) {
            let lines = difference(&forgiven, o);
            errors.forbidden(
                new.get("spec"),
                format!("pod updates may not change fields other than {UPDATABLE}\n{lines}"),
            );
        }
    }
}

/// The new spec with all that may change put back.
fn forgive(new: &Value, old: &Value, gated: bool) -> Value {
    let mut out = new.clone();
    for field in ["containers", "initContainers"] {
        let images = value::items_at(old, &[field]).iter().map(|c| value::at(c, &["image"]).cloned());
        let list = out.get_mut(field).and_then(Value::as_array_mut);
        for (container, image) in list.into_iter().flatten().zip(images) {
            value::set(container, &["image"], image.unwrap_or_default());
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        value::copy(&mut out, old, &[field]);
    }
    let grace = &["terminationGracePeriodSeconds"];
    if value::int_at(old, grace) < 0 && value::int_at(&out, grace) == 1 {
        value::copy(&mut out, old, grace);
    }
    if gated {
        value::copy(&mut out, old, &["nodeSelector"]);
        value::copy(&mut out, old, &["affinity", "nodeAffinity"]);
        let empty = out.get("affinity").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty);
        if empty && value::at(old, &["affinity"]).is_none() {
            value::remove(&mut out, &["affinity"]);
        }
    }
    out
}

/// The fields that differ, old with `-` and new with `+`.
fn difference(new: &Value, old: &Value) -> String {
    let mut lines = String::new();
    let fields = [new, old].into_iter().filter_map(Value::as_object).flatten().map(|(k, _)| k.as_str());
    let mut fields: Vec<&str> = fields.collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        let (n, o) = (new.get(field), old.get(field));
        if !same(n, o) {
            for (sign, side) in [('-', o), ('+', n)] {
                if let Some(v) = side {
                    lines.push_str(&format!("{sign} {field}: {v}\n"));
                }
            }
        }
    }
    lines
}

fn annotations<'a>(new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("metadata").get("annotations"), old.get("metadata").get("annotations"));
    for (key, was) in o.entries() {
        if n.key(key).opt_str() == was.opt_str() {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(n.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(n.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for (key, added) in n.entries().filter(|(k, _)| o.key(k).is_absent()) {
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&added, "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&added, "may not add mirror pod annotation");
        }
    }
}

fn deadline(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let most = i64::from(i32::MAX);
    match (new.opt_int(), old.opt_int()) {
        (Some(n), before) => {
            if !(0..=most).contains(&n) {
                errors.invalid(new, checks::between(0, most));
            }
            if before.is_some_and(|o| o < n) {
                errors.invalid(new, "must be less than or equal to previous value");
            }
        }
        (None, Some(_)) => {
            errors.invalid_value(new, Value::Null, "must not update from a positive integer to nil value");
        }
        (None, None) => {}
    }
}

fn tolerations(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let alike = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"].iter().all(|f| value::str_at(a, &[f]) == value::str_at(b, &[f]))
    };
    for before in old.list() {
        if !new.list().iter().any(|n| alike(n, before)) {
            errors.forbidden(new, "existing toleration can not be modified except its tolerationSeconds");
        }
    }
}

fn gates(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    for gate in new.items() {
        let name = gate.get("name");
        if !old.items().any(|o| o.get("name").str() == name.str()) {
            let text = name.str();
            errors.forbidden(&name, format!("only deletion is allowed, but found new scheduling gate '{text}'"));
        }
    }
}

fn node_selector<'a>(new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    for (key, was) in old.entries() {
        if new.key(key).opt_str() != was.opt_str() {
            errors.invalid_value(
                new,
                new.value().cloned().unwrap_or_default(),
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            );
        }
    }
}

fn node_affinity(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let (n, o) = (new.get(REQUIRED).get("nodeSelectorTerms"), old.get(REQUIRED).get("nodeSelectorTerms"));
    if o.is_empty() {
        return;
    }
    if n.len() != o.len() {
        return errors.invalid_value(
            &n,
            n.value().cloned().unwrap_or_default(),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
    }
    for (term, was) in n.items().zip(o.items()) {
        let grows = |field: &'static str| {
            let (list, before) = (term.get(field).list(), was.get(field).list());
            list.len() >= before.len() && list.iter().zip(before).all(|(a, b)| same(Some(a), Some(b)))
        };
        let was_empty = was.get("matchExpressions").is_empty() && was.get("matchFields").is_empty();
        let is_empty = term.get("matchExpressions").is_empty() && term.get("matchFields").is_empty();
        if (was_empty && !is_empty) || !grows("matchExpressions") || !grows("matchFields") {
            errors.invalid(&term, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// The `status` sub-resource.
pub(super) fn status<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    annotations(new, old, errors);
    let (n, o) = (new.get("status"), old.get("status"));
    for condition in n.get("conditions").items() {
        observed_generation(&condition, errors);
        let kind = condition.get("type").str();
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            for message in qualified_name(kind) {
                errors.invalid_value(format!("{condition}.Type"), kind, message);
            }
        }
    }
    let nominated = n.get("nominatedNodeName");
    if nominated.str() != o.get("nominatedNodeName").str() && !nominated.is_empty() {
        meta::invalid_each(&nominated, dns1123_subdomain(nominated.str()), errors);
        if !old.get("spec").get("nodeName").is_empty() {
            errors.forbidden(&nominated, "may not be set on pods that are already bound to a node");
        }
    }
    observed_generation(&n, errors);
    meta::immutable(&n.get("qosClass"), &o.get("qosClass"), errors);
    transitions(&n, &o, &old.get("spec"), errors);
    claim_statuses(&n.get("resourceClaimStatuses"), &new.get("spec").get("resourceClaims"), errors);
    for (field, one) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(&n, &o, field, one, errors);
    }
}

fn observed_generation(at: &Cursor<'_>, errors: &mut Errors) {
    let generation = at.get("observedGeneration");
    if generation.int() < 0 {
        errors.invalid(&generation, "must be a non-negative integer");
    }
}

/// A container that has ended may run again only where its policy says so, or where one may restart all.
fn transitions(new: &Cursor<'_>, old: &Cursor<'_>, spec: &Cursor<'_>, errors: &mut Errors) {
    let policy = spec.get("restartPolicy").str();
    let all = spec::containers(spec)
        .any(|c| c.get("restartPolicyRules").items().any(|r| r.get("action").str() == "RestartAllContainers"));
    for field in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        let running: HashSet<&str> = new
            .get(field)
            .items()
            .filter(|s| s.get("state").get("terminated").is_absent())
            .map(|s| s.get("name").str())
            .collect();
        let list = if field == "containerStatuses" { "containers" } else { "initContainers" };
        let containers: HashMap<&str, Cursor<'_>> = spec.get(list).items().map(|c| (c.get("name").str(), c)).collect();
        for (i, was) in old.get(field).items().enumerate() {
            let ended = was.get("state").get("terminated");
            let name = was.get("name").str();
            if ended.is_absent() || !running.contains(name) {
                continue;
            }
            let code = ended.get("exitCode").int();
            let restarts = |policy: &str| policy == "Always" || (policy == "OnFailure" && code != 0);
            let allowed = match field {
                "ephemeralContainerStatuses" => false,
                _ if all => true,
                _ => containers.get(name).is_some_and(|c| restarts_itself(c, code, policy, &restarts)),
            };
            if !allowed {
                let path = format!("{}[{i}].state", new.get(field));
                errors.forbidden(path, "may not be transitioned to non-terminated state");
            }
        }
    }
}

/// Its rules come first, then its own policy, then the pod's.
fn restarts_itself(container: &Cursor<'_>, code: i64, of_pod: &str, restarts: &dyn Fn(&str) -> bool) -> bool {
    let by_rule = container.get("restartPolicyRules").items().any(|rule| {
        let codes = rule.get("exitCodes");
        let listed = codes.get("values").items().any(|v| v.int() == code);
        listed == (codes.get("operator").str() == "In")
    });
    by_rule || restarts(container.get("restartPolicy").opt_str().unwrap_or(of_pod))
}

fn claim_statuses(statuses: &Cursor<'_>, claims: &Cursor<'_>, errors: &mut Errors) {
    let known: HashSet<&str> = claims.items().map(|c| c.get("name").str()).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for status in statuses.items() {
        let (name, claim) = (status.get("name"), status.get("resourceClaimName"));
        if !known.contains(name.str()) {
            errors.invalid(&name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name.str()) {
            errors.duplicate(&name, name.str());
        }
        if claim.is_present() {
            for message in dns1123_subdomain(claim.str()) {
                errors.invalid_value(&name, claim.str(), message);
            }
        }
    }
}

fn addresses(new: &Cursor<'_>, old: &Cursor<'_>, field: &'static str, one: &'static str, errors: &mut Errors) {
    let list = new.get(field);
    let first = list.index(0).get("ip");
    if field == "hostIPs" && !list.is_empty() && first.str() != new.get(one).str() {
        errors.invalid(&first, "must be equal to `hostIP`");
    }
    let kept: HashSet<&str> = old.get(field).items().map(|o| o.get("ip").str()).collect();
    for entry in list.items() {
        let ip = entry.get("ip").str();
        if let Some(wrong) = checks::ip_text(ip).filter(|_| !kept.contains(ip)) {
            errors.invalid_value(&entry, ip, wrong);
        }
    }
    let v6 = |e: &Cursor<'_>| checks::parse_ip(e.get("ip").str()).is_some_and(|ip| ip.is_ipv6());
    if list.len() > 2 || (list.len() == 2 && v6(&list.index(0)) == v6(&list.index(1))) {
        errors.invalid(&list, "may specify no more than one IP for each IP family");
    }
}

/// The `ephemeralcontainers` sub-resource.
pub(super) fn ephemeral(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    if old.get("metadata").get("annotations").key(MIRROR).is_present() {
        *errors = Errors::new();
        return errors.forbidden("", "static pods do not support ephemeral containers");
    }
    spec::pod_spec(new, Some(old), true, errors);
    let list = new.get("spec").get("ephemeralContainers");
    let now: HashMap<&str, Cursor<'_>> = list.items().map(|c| (c.get("name").str(), c)).collect();
    for was in old.get("spec").get("ephemeralContainers").items() {
        let name = was.get("name").str();
        match now.get(name) {
            None => errors.forbidden(&list, format!("existing ephemeral containers \"{name}\" may not be removed\n")),
            Some(now) if !same(now.value(), was.value()) => {
                errors.forbidden(&list, format!("existing ephemeral containers \"{name}\" may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// The `resize` sub-resource.
pub(super) fn resize<'a>(_: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    let (n, o) = (new.get("spec"), old.get("spec"));
    let refusal = if old.get("metadata").get("annotations").key(MIRROR).is_present() {
        Some("static pods cannot be resized")
    } else if o.get("os").get("name").str() == "windows" {
        Some("windows pods cannot be resized")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        *errors = Errors::new();
        return errors.forbidden("", refusal);
    }
    spec::pod_spec(new, Some(old), true, errors);
    if resources::qos(&n) != resources::qos(&o) {
        let class = new.get("status").get("qosClass").str();
        errors.invalid_value(&n, class, "Pod QOS Class may not change as a result of resizing");
    }
    let statuses = old.get("status").get("containerStatuses");
    let running = statuses.items().find(|s| s.get("state").get("running").is_present());
    if running.is_some_and(|s| s.get("resources").is_absent()) {
        errors.forbidden(&n, "Pod running on node without support for resize");
    }
    let whole = resized_pod(&n, &o, errors);
    let before = errors.len();
    for field in ["containers", "initContainers"] {
        let (list, was) = (n.get(field), o.get(field));
        if list.len() != was.len() {
            errors.forbidden(&list, format!("{field} may not be added or removed on resize"));
            continue;
        }
        for (container, was) in list.items().zip(was.items()) {
            if container.get("name").str() != was.get("name").str() {
                errors.forbidden(container.get("name"), format!("{field} may not be renamed or reordered on resize"));
            }
        }
    }
    if errors.len() != before {
        return;
    }
    resized_containers(&n, &o, errors);
    if !same(n.get("volumes").value(), o.get("volumes").value()) {
        let message = "volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled";
        errors.forbidden(n.get("volumes"), message);
    }
    let rest = |spec: &Cursor<'_>| spec.value().map(|spec| without_resized(spec, whole));
    if errors.is_empty() && !same(rest(&n).as_ref(), rest(&o).as_ref()) {
        errors.forbidden(&n, "only cpu and memory resources are mutable");
    }
}

/// What a resize may not change, `whole` telling whether what the pod as a whole asks for was checked already.
fn without_resized(spec: &Value, whole: bool) -> Value {
    let mut out = spec.clone();
    value::remove(&mut out, &["containers"]);
    value::remove(&mut out, &["initContainers"]);
    if whole {
        value::remove(&mut out, &["resources"]);
    }
    out
}

/// What the pod as a whole asks for, if it does; says whether it does.
fn resized_pod<'a>(new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) -> bool {
    let (now, before) = (new.get("resources"), old.get("resources"));
    let given = |r: &Cursor<'_>| !r.get("requests").is_empty() || !r.get("limits").is_empty();
    if !given(&now) && !given(&before) {
        return false;
    }
    if before.is_present() && now.is_absent() {
        errors.forbidden(&now, "pod-level resources cannot be removed");
        return true;
    }
    for kind in ["requests", "limits"] {
        let (now, before) = (now.get(kind), before.get(kind));
        if before.entries().any(|(name, _)| now.key(name).is_absent()) {
            errors.forbidden(&now, format!("pod-level resource {kind} cannot be removed"));
        }
    }
    let empty = Value::Object(serde_json::Map::new());
    let put_back = now.value().map(|now| with_old_amounts(now, before.value().unwrap_or(&empty), &[]));
    let put_back = put_back.filter(|r| before.is_present() || r.as_object().is_some_and(|r| !r.is_empty()));
    if !same(put_back.as_ref(), before.value()) {
        errors.forbidden(new, "only cpu and memory resources are mutable at pod-level");
    }
    true
}

/// `now` with the amounts of processor time and memory of `before` in what is at `path`.
fn with_old_amounts(now: &Value, before: &Value, path: &[&str]) -> Value {
    let mut out = now.clone();
    for kind in ["requests", "limits"] {
        let list: Vec<&str> = path.iter().copied().chain([kind]).collect();
        for name in ["cpu", "memory"] {
            let amount: Vec<&str> = list.iter().copied().chain([name]).collect();
            value::copy(&mut out, before, &amount);
        }
        let empty = value::at(&out, &list).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty);
        if empty && value::at(before, &list).is_none() {
            value::remove(&mut out, &list);
        }
    }
    out
}

fn resized_containers<'a>(new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    for field in ["initContainers", "containers"] {
        for (container, was) in new.get(field).items().zip(old.get(field).items()) {
            for kind in ["requests", "limits"] {
                let (now, before) = (container.get("resources").get(kind), was.get("resources").get(kind));
                if before.entries().any(|(name, _)| now.key(name).is_absent()) {
                    errors.forbidden(&now, format!("resource {kind} cannot be removed"));
                }
            }
        }
    }
    for field in ["containers", "initContainers"] {
        for (container, was) in new.get(field).items().zip(old.get(field).items()) {
            let (Some(now), Some(before)) = (container.value(), was.value()) else { continue };
            let init = field == "initContainers";
            if !same(Some(&with_old_amounts(now, before, &["resources"])), Some(before)) {
                if init {
                    let message = "only cpu and memory resources for init or sidecar containers are mutable";
                    errors.forbidden(&container, message);
                } else {
                    errors.forbidden(new, "only cpu and memory resources are mutable");
                }
            }
            let ends = init && container.get("restartPolicy").str() != "Always";
            if ends && !same(Some(now), Some(before)) {
                let restarts = |p: &Cursor<'_>| p.get("restartPolicy").str() == "RestartContainer";
                for _ in container.get("resizePolicy").items().filter(restarts) {
                    let message =
                        "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                    errors.forbidden(&container, message);
                }
            }
        }
    }
}

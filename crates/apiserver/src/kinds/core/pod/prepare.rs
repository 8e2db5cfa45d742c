//! What the server itself writes into a pod.

use pintle_api::time;
use pintle_schema::cursor::Cursor;
use serde_json::{Value, json};

use super::{keep_all_but_spec, resources};
use crate::kinds::strategy::keep_all_but_status;
use crate::kinds::{Ctx, value};

/// A new pod is pending, of a quality of service class, and waits where it has gates.
pub(super) fn on_create(ctx: &Ctx<'_>, pod: &mut Value) {
    let class = resources::qos(&Cursor::root(pod).get("spec"));
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if !value::items_at(pod, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "observedGeneration": 1,
            "lastTransitionTime": time::format(ctx.now),
        }]);
    }
    value::set(pod, &["status"], status);
    at_least_a_second(pod);
    merge_label_keys(pod);
    sync_app_armor(ctx, pod);
}

/// What is written of a pod that is there.
pub(super) fn on_update(_: &Ctx<'_>, pod: &mut Value, _: &Value) {
    at_least_a_second(pod);
}

/// A negative time to end is taken for a second; of pods only, templates keep what they say.
fn at_least_a_second(pod: &mut Value) {
    let grace = &["spec", "terminationGracePeriodSeconds"];
    if value::int_at(pod, grace) < 0 {
        value::set(pod, grace, 1);
    }
}

/// The profile that an AppArmor annotation names.
fn app_armor_of(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let profile = other.strip_prefix("localhost/").filter(|p| !p.is_empty())?;
            (profile.trim() == profile && profile.len() <= 4095)
                .then(|| json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

/// AppArmor annotations, as old clients write them, become fields.
fn sync_app_armor(ctx: &Ctx<'_>, pod: &mut Value) {
    const KEY: &str = "container.apparmor.security.beta.kubernetes.io/";
    let Some(annotations) = pod.pointer("/metadata/annotations").and_then(Value::as_object) else { return };
    let annotations: Vec<(String, String)> = annotations
        .iter()
        .filter_map(|(k, v)| Some((k.strip_prefix(KEY)?.to_owned(), v.as_str()?.to_owned())))
        .collect();
    if annotations.is_empty() || value::str_at(pod, &["spec", "os", "name"]) == "windows" {
        return;
    }
    let whole = value::at(pod, &["spec", "securityContext", "appArmorProfile"]).cloned();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = pod.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = value::str_at(container, &["name"]).to_owned();
            let Some((_, annotation)) = annotations.iter().find(|(n, _)| *n == name) else { continue };
            if value::at(container, &["securityContext", "appArmorProfile"]).is_some() {
                continue;
            }
            let profile = app_armor_of(annotation);
            // What the pod as a whole says already need not be said again.
            if profile.is_some() && profile == whole {
                continue;
            }
            if let Some(profile) = profile {
                value::set(container, &["securityContext", "appArmorProfile"], profile);
            }
            ctx.warn(format!(
                "metadata.annotations[{KEY}{name}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            ));
        }
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` become requirements on the pod's own values.
fn merge_label_keys(pod: &mut Value) {
    let labels = value::at(pod, &["metadata", "labels"]).cloned().unwrap_or_default();
    let Some(spec) = pod.get_mut("spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = spec.get_mut("affinity").and_then(|a| a.get_mut(kind)) else { continue };
        for list in
            ["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"]
        {
            for term in terms.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let term = if list.starts_with("preferred") { term.get_mut("podAffinityTerm") } else { Some(term) };
                if let Some(term) = term {
                    merge_term(term, &labels);
                }
            }
        }
    }
    let spread = spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut);
    for constraint in spread.into_iter().flatten() {
        merge_term(constraint, &labels);
    }
}

fn merge_term(term: &mut Value, labels: &Value) {
    if value::at(term, &["labelSelector"]).is_none() {
        return;
    }
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in value::items_at(term, &[field]).iter().filter_map(Value::as_str) {
            if let Some(label) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [label]}));
            }
        }
    }
    if added.is_empty() {
        return;
    }
    if let Some(list) = value::entry(term, &["labelSelector", "matchExpressions"]) {
        match list.as_array_mut() {
            Some(list) => list.extend(added),
            None => *list = Value::Array(added),
        }
    }
}

/// `status` writes the status, but not the class, nor the owners, which old kubelets lose.
pub(super) fn status(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    keep_all_but_status(ctx, new, old);
    value::copy(new, old, &["metadata", "ownerReferences"]);
    value::copy(new, old, &["metadata", "deletionTimestamp"]);
    if value::str_at(new, &["status", "qosClass"]).is_empty() {
        value::copy(new, old, &["status", "qosClass"]);
    }
    keep_observed_generation(new, old);
}

/// Who leaves out the generation a status was made for does not take it away.
fn keep_observed_generation(new: &mut Value, old: &Value) {
    let Some(status) = new.get_mut("status") else { return };
    let fill = |to: &mut Value, from: Option<&Value>| {
        let known = from.map_or(0, |from| value::int_at(from, &["observedGeneration"]));
        if known != 0 && value::int_at(to, &["observedGeneration"]) == 0 {
            value::set(to, &["observedGeneration"], known);
        }
    };
    fill(status, old.get("status"));
    let mut before: Vec<&Value> = value::items_at(old, &["status", "conditions"]).iter().collect();
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        // There may be several of a type.
        let same = before.iter().position(|o| o.get("type") == condition.get("type"));
        fill(condition, same.map(|i| before.remove(i)));
    }
}

/// `ephemeralcontainers` writes these.
pub(super) fn ephemeral(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    let wanted = value::at(new, &["spec", "ephemeralContainers"]).cloned();
    keep_all_but_status(ctx, new, old);
    value::copy(new, old, &["status"]);
    match wanted {
        Some(list) => value::set(new, &["spec", "ephemeralContainers"], list),
        None => drop(value::remove(new, &["spec", "ephemeralContainers"])),
    }
    raise_generation(new, old);
}

/// `resize` writes the resources of the containers and of the pod, and resize policies.
pub(super) fn resize(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    keep_all_but_spec(ctx, new, old);
    value::copy(new, old, &["metadata", "labels"]);
    value::copy(new, old, &["metadata", "annotations"]);
    let lists = ["containers", "initContainers"];
    // Who adds, drops, moves or renames containers hears so from validation.
    let names = |of: &Value, list| -> Vec<Value> {
        value::items_at(of, &["spec", list]).iter().map(|c| c.get("name").cloned().unwrap_or_default()).collect()
    };
    if lists.iter().all(|list| names(new, list) == names(old, list)) {
        let wanted = new.get_mut("spec").map(Value::take).unwrap_or_default();
        value::copy(new, old, &["spec"]);
        match value::at(&wanted, &["resources"]) {
            Some(resources) => value::set(new, &["spec", "resources"], resources.clone()),
            None => drop(value::remove(new, &["spec", "resources"])),
        }
        for list in lists {
            let kept = new.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Value::as_array_mut);
            for (kept, wanted) in kept.into_iter().flatten().zip(value::items_at(&wanted, &[list])) {
                value::copy(kept, wanted, &["resources"]);
                value::copy(kept, wanted, &["resizePolicy"]);
            }
        }
    }
    raise_generation(new, old);
}

fn raise_generation(new: &mut Value, old: &Value) {
    if !value::same(new.get("spec"), old.get("spec")) {
        let generation = value::int_at(old, &["metadata", "generation"]) + 1;
        value::set(new, &["metadata", "generation"], generation);
    }
}

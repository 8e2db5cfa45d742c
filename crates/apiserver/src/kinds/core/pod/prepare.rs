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
    merge_label_keys(pod);
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
    value::copy(new, old, &["status", "qosClass"]);
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

/// `resize` writes the containers' resources and resize policies.
pub(super) fn resize(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    keep_all_but_spec(ctx, new, old);
    value::copy(new, old, &["metadata", "labels"]);
    value::copy(new, old, &["metadata", "annotations"]);
    raise_generation(new, old);
}

fn raise_generation(new: &mut Value, old: &Value) {
    if !value::same(new.get("spec"), old.get("spec")) {
        let generation = value::int_at(old, &["metadata", "generation"]) + 1;
        value::set(new, &["metadata", "generation"], generation);
    }
}

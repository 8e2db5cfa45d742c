//! The `binding` sub-resource: a scheduler says where a pod runs.

use pintle_api::time;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};

use crate::kinds::{Ctx, value};

/// Checks a `Binding`.
pub fn validate_binding(binding: &Cursor<'_>, errors: &mut Errors) {
    let target = binding.get("target");
    let kind = target.get("kind");
    if !matches!(kind.str(), "" | "Node") {
        errors.not_supported(&kind, kind.str(), &["Node", "<empty>"]);
    }
    if target.get("name").is_empty() {
        errors.required(target.get("name"), "");
    }
}

/// Writes a `Binding` into its pod: the node, the annotations and labels it brings, and that it is scheduled.
///
/// # Errors
/// Why the pod cannot be bound, in upstream's words; the answer is a conflict (409).
pub fn bind(ctx: &Ctx<'_>, pod: &mut Value, binding: &Value) -> Result<(), String> {
    let name = value::str_at(pod, &["metadata", "name"]).to_owned();
    let uid = value::str_at(binding, &["metadata", "uid"]);
    let own = value::str_at(pod, &["metadata", "uid"]);
    if !uid.is_empty() && uid != own {
        return Err(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"));
    }
    if value::at(pod, &["metadata", "deletionTimestamp"]).is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = value::str_at(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if !value::items_at(pod, &["spec", "schedulingGates"]).is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    value::set(pod, &["spec", "nodeName"], value::str_at(binding, &["target", "name"]));
    for field in ["annotations", "labels"] {
        let brought = value::at(binding, &["metadata", field]).and_then(Value::as_object);
        for (key, text) in brought.into_iter().flatten() {
            // A label of the pod's own is not overwritten.
            if field == "annotations" || value::at(pod, &["metadata", field, key]).is_none() {
                value::set(pod, &["metadata", field, key], text.clone());
            }
        }
    }
    let generation = value::int_at(pod, &["metadata", "generation"]);
    value::remove(pod, &["status", "nominatedNodeName"]);
    scheduled(pod, &time::format(ctx.now), generation);
    Ok(())
}

fn scheduled(pod: &mut Value, now: &str, generation: i64) {
    let mut condition =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now, "observedGeneration": generation});
    let Some(list) = value::entry(pod, &["status", "conditions"]) else { return };
    if list.is_null() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|c| value::str_at(c, &["type"]) == "PodScheduled") {
        Some(found) => {
            if value::str_at(found, &["status"]) == "True" {
                value::copy(&mut condition, found, &["lastTransitionTime"]);
            }
            *found = condition;
        }
        None => list.push(condition),
    }
}

//! Pods.

mod container;
mod env;
mod prepare;
pub mod resources;
pub mod scheduling;
mod security;
pub mod spec;
mod table;
#[cfg(test)]
mod tests;
mod update;
pub mod volumes;
pub mod warnings;

use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use crate::kinds::strategy::{Ctx, Sub, keep_all_but_status};
use crate::kinds::{DeleteOptions, Strategy, value};

/// The annotation of pods that stand for a kubelet's static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The strategy of pods.
pub static POD: Strategy = Strategy {
    selectable: &[
        ("spec.nodeName", &["spec", "nodeName"], ""),
        ("spec.restartPolicy", &["spec", "restartPolicy"], ""),
        ("spec.schedulerName", &["spec", "schedulerName"], ""),
        ("spec.serviceAccountName", &["spec", "serviceAccountName"], ""),
        ("spec.hostNetwork", &["spec", "hostNetwork"], "false"),
        ("status.phase", &["status", "phase"], ""),
        ("status.podIP", &["status", "podIP"], ""),
        ("status.nominatedNodeName", &["status", "nominatedNodeName"], ""),
    ],
    generation: &[&["spec"]],
    on_create: prepare::on_create,
    on_update: prepare::on_update,
    validate,
    validate_change: update::change,
    full_meta_on_update: true,
    graceful_delete,
    warnings: warnings::pod,
    subresources: &[
        ("status", Sub { prepare: prepare::status, validate: update::status, reset_fields: &[&["spec"]] }),
        (
            "ephemeralcontainers",
            Sub { prepare: prepare::ephemeral, validate: update::ephemeral, reset_fields: &[&["status"]] },
        ),
        ("resize", Sub { prepare: prepare::resize, validate: update::resize, reset_fields: &[&["status"]] }),
    ],
    columns: table::COLUMNS,
    row: table::row,
    row_conditions: table::row_conditions,
    ..Strategy::DEFAULT
};

fn validate(_: &Ctx<'_>, pod: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    annotations(pod, errors);
    spec::pod_spec(pod, old, true, errors);
    let spec = pod.get("spec");
    if spec.get("serviceAccountName").is_empty() {
        for volume in spec.get("volumes").items() {
            for source in volume.get("projected").get("sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_present() {
                    errors.forbidden(&token, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for field in ["containers", "initContainers"] {
        for container in spec.get(field).items() {
            container::image_padding(&container, errors);
        }
    }
    if old.is_some() {
        return;
    }
    if !spec.get("ephemeralContainers").is_empty() {
        errors.forbidden(spec.get("ephemeralContainers"), "cannot be set on create");
    }
    if !spec.get("nodeName").is_empty() && !spec.get("schedulingGates").is_empty() {
        errors.forbidden(spec.get("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

/// The annotations that mean something to the system.
fn annotations(pod: &Cursor<'_>, errors: &mut Errors) {
    let annotations = pod.get("metadata").get("annotations");
    let mirror = annotations.key(MIRROR);
    if mirror.is_present() && pod.get("spec").get("nodeName").is_empty() {
        errors.invalid(&mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = annotations.key(DELETION_COST);
    // As Go's `strconv.ParseInt` with 32 bits, but for forms that begin with a plus or zeros, which upstream refuses.
    let text = cost.str();
    let plain = !text.starts_with('+') && (text == "0" || !text.trim_start_matches('-').starts_with('0'));
    if cost.is_present() && (!plain || text.parse::<i32>().is_err()) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
}

/// How long a pod may take to end: what is asked for or the pod says; nothing where no kubelet has it or it has ended.
fn graceful_delete(pod: &Value, options: DeleteOptions) -> Option<i64> {
    let asked =
        options.grace_period_seconds.unwrap_or_else(|| value::int_at(pod, &["spec", "terminationGracePeriodSeconds"]));
    let over = value::str_at(pod, &["spec", "nodeName"]).is_empty()
        || matches!(value::str_at(pod, &["status", "phase"]), "Failed" | "Succeeded");
    Some(match asked {
        _ if over => 0,
        ..0 => 1,
        seconds => seconds,
    })
}

/// Puts back all that a sub-resource other than `status` may not touch: everything but the spec.
fn keep_all_but_spec(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    let spec = new.get("spec").cloned();
    keep_all_but_status(ctx, new, old);
    value::copy(new, old, &["status"]);
    if let Some(spec) = spec {
        value::set(new, &["spec"], spec);
    }
}

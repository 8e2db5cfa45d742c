//! ReplicationControllers and PodTemplates.

use pintle_schema::cursor::{Cursor, Errors};

use super::pod::spec::template;
use super::pod::warnings;
use crate::kinds::strategy::{Propagation, Sub, keep_all_but_status};
use crate::kinds::table::{self, Column, integer, text};
use crate::kinds::{Ctx, Strategy, apps, meta, scale};

/// The strategy of replication controllers. Its pods are orphaned unless the caller says otherwise.
pub static REPLICATION_CONTROLLER: Strategy = Strategy {
    warnings: apps::named_with_template,
    selectable: &[("status.replicas", &["status", "replicas"], "0")],
    generation: &[&["spec"]],
    propagation: Propagation::Orphan,
    scale: Some(&scale::WORKLOAD),
    validate: controller,
    subresources: &[(
        "status",
        Sub {
            prepare: keep_all_but_status,
            validate: |_, new, _, errors| apps::replica_status(&new.get("status"), errors),
            reset_fields: &[&["spec"]],
        },
    )],
    columns: &[
        Column::NAME,
        integer("Desired", "@ReplicationControllerSpec.replicas"),
        integer("Current", "@ReplicationControllerStatus.replicas"),
        integer("Ready", "@ReplicationControllerStatus.readyReplicas"),
        Column::AGE,
        text("Containers", "Names of each container in the template.").wide(),
        text("Images", "Images referenced by each container in the template.").wide(),
        text("Selector", "@ReplicationControllerSpec.selector").wide(),
    ],
    row: |o, now| {
        let (spec, status) = (o.get("spec"), o.get("status"));
        let [names, images] = table::containers(&spec.get("template").get("spec"));
        vec![
            table::name(o),
            spec.get("replicas").int().into(),
            status.get("replicas").int().into(),
            status.get("readyReplicas").int().into(),
            table::age(o, now),
            names,
            images,
            table::label_pairs(&spec.get("selector")).into(),
        ]
    },
    ..Strategy::DEFAULT
};

/// The strategy of pod templates.
pub static POD_TEMPLATE: Strategy = Strategy {
    warnings: |_, o, old| warnings::template(o, &o.get("template"), old),
    validate: |_, object, old, errors| {
        let old = old.map(|o| o.get("template"));
        template(&object.get("template"), old.as_ref(), errors);
    },
    generation: &[&["template"]],
    columns: &[
        Column::NAME,
        text("Containers", "Names of each container in the template."),
        text("Images", "Images referenced by each container in the template."),
        text("Pod Labels", "The labels for the pod template."),
    ],
    row: |o, _| {
        let template = o.get("template");
        let [names, images] = table::containers(&template.get("spec"));
        vec![table::name(o), names, images, table::label_pairs(&template.get("metadata").get("labels")).into()]
    },
    ..Strategy::DEFAULT
};

fn controller<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (selector, pods, replicas) = (spec.get("selector"), spec.get("template"), spec.get("replicas"));
    meta::not_negative(&spec.get("minReadySeconds"), errors);
    if selector.is_empty() {
        errors.required(&selector, "");
    }
    if replicas.is_absent() {
        errors.required(&replicas, "");
    }
    meta::not_negative(&replicas, errors);
    if pods.is_absent() {
        return errors.required(&pods, "");
    }
    let labels = pods.get("metadata").get("labels");
    if selector.entries().any(|(key, v)| labels.key(key).opt_str() != Some(v.str())) {
        let shown = labels.value().cloned().unwrap_or_else(|| serde_json::json!({}));
        errors.invalid_value(&labels, shown, "`selector` does not match template `labels`");
    }
    let old = old.map(|o| o.get("spec").get("template"));
    template(&pods, old.as_ref(), errors);
    let policy = pods.get("spec").get("restartPolicy");
    if policy.str() != "Always" {
        errors.not_supported(&policy, policy.str(), &["Always"]);
    }
    let deadline = pods.get("spec").get("activeDeadlineSeconds");
    if deadline.is_present() {
        errors.forbidden(&deadline, "activeDeadlineSeconds in ReplicationController is not Supported");
    }
}

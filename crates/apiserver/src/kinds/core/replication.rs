//! ReplicationControllers and PodTemplates.

use crate::kinds::strategy::{Propagation, Sub};
use crate::kinds::table::{self, Column, integer, text};
use crate::kinds::{Strategy, scale};

/// The strategy of replication controllers. Its pods are orphaned unless the caller says otherwise.
pub static REPLICATION_CONTROLLER: Strategy = Strategy {
    selectable: &[("status.replicas", &["status", "replicas"])],
    selectable_zero: &[("status.replicas", "0")],
    generation: &[&["spec"]],
    propagation: Propagation::Orphan,
    scale: Some(&scale::WORKLOAD),
    subresources: &[("status", Sub::STATUS)],
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

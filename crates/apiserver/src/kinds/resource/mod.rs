//! The resource group: dynamic resource allocation.

mod slice;
mod status;
mod validate;

use super::Strategy;
use super::strategy::Sub;
use super::table::{self, Column, text};

const PLAIN: Strategy = Strategy {
    columns: &[Column::NAME, Column::AGE],
    row: |o, now| vec![table::name(o), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of device classes.
pub static DEVICE_CLASS: Strategy = Strategy {
    generation: &[&["spec"]],
    full_meta_on_update: true,
    validate: |_, class, old, errors| validate::class(&class.get("spec"), old.map(|o| o.get("spec")).as_ref(), errors),
    ..PLAIN
};

/// The strategy of resource claim templates.
pub static RESOURCE_CLAIM_TEMPLATE: Strategy = Strategy { validate: validate::template, ..PLAIN };

/// The strategy of resource claims.
pub static RESOURCE_CLAIM: Strategy = Strategy {
    full_meta_on_update: true,
    validate: validate::claim,
    subresources: &[("status", Sub { validate: status::change, ..Sub::STATUS })],
    columns: &[
        Column::NAME,
        text("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
        Column::AGE,
    ],
    row: |o, now| {
        let deleted = o.get("metadata").get("deletionTimestamp").is_present();
        let status = o.get("status");
        let mut state = Vec::new();
        if deleted {
            state.push("deleted");
        }
        if status.get("allocation").is_present() {
            state.push("allocated");
            if !status.get("reservedFor").is_empty() {
                state.push("reserved");
            }
        } else if !deleted {
            state.push("pending");
        }
        vec![table::name(o), state.join(",").into(), table::age(o, now)]
    },
    ..Strategy::DEFAULT
};

/// The strategy of resource slices.
pub static RESOURCE_SLICE: Strategy = Strategy {
    validate: slice::slice,
    selectable: &[("spec.driver", &["spec", "driver"], ""), ("spec.nodeName", &["spec", "nodeName"], "")],
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        text("Node", "@ResourceSliceSpec.nodeName"),
        text("Driver", "@ResourceSliceSpec.driver"),
        text("Pool", "@ResourcePool.name"),
        Column::AGE,
    ],
    row: |o, now| {
        let spec = o.get("spec");
        vec![
            table::name(o),
            spec.get("nodeName").str().into(),
            spec.get("driver").str().into(),
            spec.get("pool").get("name").str().into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

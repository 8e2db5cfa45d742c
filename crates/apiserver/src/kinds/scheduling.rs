//! The scheduling group.

use super::Strategy;
use super::table::{self, Column, boolean, integer, text};

/// The strategy of priority classes.
pub static PRIORITY_CLASS: Strategy = Strategy {
    generation: &[&["value"], &["description"], &["globalDefault"], &["preemptionPolicy"]],
    columns: &[
        Column::NAME,
        integer("Value", "@PriorityClass.value"),
        boolean("Global-Default", "@PriorityClass.globalDefault"),
        Column::AGE,
        text("PreemptionPolicy", "@PriorityClass.preemptionPolicy"),
    ],
    row: |o, now| {
        vec![
            table::name(o),
            o.get("value").int().into(),
            o.get("globalDefault").bool().into(),
            table::age(o, now),
            o.get("preemptionPolicy").str().into(),
        ]
    },
    ..Strategy::DEFAULT
};

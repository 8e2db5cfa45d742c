//! The policy group.

use super::Strategy;
use super::table::{self, Column, integer, text};

/// The strategy of pod disruption budgets.
pub static POD_DISRUPTION_BUDGET: Strategy = Strategy {
    generation: &[&["spec"]],
    unconditional_update: false,
    columns: &[
        Column::NAME,
        text("Min Available", "The minimum number of pods that must be available."),
        text("Max Unavailable", "The maximum number of pods that may be unavailable."),
        integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
        Column::AGE,
    ],
    row: |o, now| {
        let bound = |field| table::int_or_string(&o.get("spec").get(field)).unwrap_or_else(|| "N/A".to_owned());
        vec![
            table::name(o),
            bound("minAvailable").into(),
            bound("maxUnavailable").into(),
            o.get("status").get("disruptionsAllowed").int().into(),
            table::age(o, now),
        ]
    },
    ..Strategy::DEFAULT
};

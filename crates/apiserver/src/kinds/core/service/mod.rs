//! Services.

pub mod table;

use crate::kinds::{Strategy, names};

/// The strategy of services.
pub static SERVICE: Strategy = Strategy {
    name: names::label1035,
    selectable: &[("spec.clusterIP", &["spec", "clusterIP"]), ("spec.type", &["spec", "type"])],
    create_on_update: true,
    columns: table::COLUMNS,
    row: table::row,
    ..Strategy::DEFAULT
};

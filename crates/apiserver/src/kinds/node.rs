//! The node group.

use super::Strategy;
use super::table::{self, Column, text};

/// The strategy of runtime classes.
pub static RUNTIME_CLASS: Strategy = Strategy {
    unconditional_update: false,
    columns: &[Column::NAME, text("Handler", "@RuntimeClass.handler"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("handler").str().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

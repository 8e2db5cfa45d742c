//! The coordination group.

use super::Strategy;
use super::table::{self, Column, text};

/// The strategy of leases.
pub static LEASE: Strategy = Strategy {
    create_on_update: true,
    unconditional_update: false,
    columns: &[Column::NAME, text("Holder", "@LeaseSpec.holderIdentity"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("spec").get("holderIdentity").str().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

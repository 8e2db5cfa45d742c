//! The coordination group.

use pintle_schema::cursor::{Cursor, Errors};

use super::table::{self, Column, text};
use super::{Ctx, Strategy, checks, meta};

/// The strategy of leases.
pub static LEASE: Strategy = Strategy {
    create_on_update: true,
    unconditional_update: false,
    validate,
    columns: &[Column::NAME, text("Holder", "@LeaseSpec.holderIdentity"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("spec").get("holderIdentity").str().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

fn validate(_: &Ctx<'_>, lease: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = lease.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.opt_int().is_some_and(|s| s <= 0) {
        errors.invalid(&duration, checks::NOT_POSITIVE);
    }
    meta::not_negative(&spec.get("leaseTransitions"), errors);
    let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
    if strategy.is_present() {
        let domain = strategy.str().contains('/');
        if domain {
            meta::label_key(&strategy, strategy.str(), errors);
        } else {
            checks::one_of(&strategy, &["OldestEmulationVersion"], true, errors);
        }
    }
    if !preferred.is_empty() && strategy.is_empty() {
        errors.forbidden(&preferred, "may only be specified when `strategy` is defined");
    }
}

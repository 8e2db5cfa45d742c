//! The coordination group.

use pintle_schema::cursor::{Cursor, Errors};

use super::table::{self, Column, text};
use super::{Ctx, Strategy, meta};

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
        errors.invalid(&duration, "must be greater than 0");
    }
    meta::not_negative(&spec.get("leaseTransitions"), errors);
    let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
    if strategy.is_present() {
        // Upstream names the field twice.
        let at = strategy.at("strategy");
        if strategy.str().contains('/') {
            meta::label_key(&at, strategy.str(), errors);
        } else if strategy.str() != "OldestEmulationVersion" {
            errors.not_supported(&at, strategy.str(), &["OldestEmulationVersion"]);
        }
    }
    if !preferred.is_empty() && strategy.is_empty() {
        errors.forbidden(&preferred, "may only be specified if `strategy` is defined");
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors};
    use serde_json::{Value, json};

    #[test]
    fn leases() {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "ns"}, "spec": {"leaseDurationSeconds": 5}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&lease, path, to)), expect, "{path}");
        };
        check("spec/strategy", json!("OldestEmulationVersion"), "");
        check("spec/strategy", json!("a.b/c"), "");
        check(
            "spec/strategy",
            json!("Odd"),
            "spec.strategy.strategy: Unsupported value: \"Odd\": supported values: \"OldestEmulationVersion\"",
        );
        check(
            "spec/strategy",
            json!("a b/c"),
            &format!(
                "spec.strategy.strategy: Invalid value: \"a b/c\": {}",
                pintle_api::names::qualified_name("a b/c")[0]
            ),
        );
        check(
            "spec/leaseDurationSeconds",
            json!(0),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        );
        check(
            "spec/leaseTransitions",
            json!(-1),
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            "spec/preferredHolder",
            json!("h"),
            "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
        );
    }
}

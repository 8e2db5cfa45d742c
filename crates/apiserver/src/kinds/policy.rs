//! The policy group.

use pintle_schema::cursor::{Cursor, Errors};

use super::apps::{at_most_all, count_or_percent};
use super::strategy::Sub;
use super::table::{self, Column, integer, text};
use super::{Ctx, Strategy, checks, meta};

/// The strategy of pod disruption budgets.
pub static POD_DISRUPTION_BUDGET: Strategy = Strategy {
    generation: &[&["spec"]],
    unconditional_update: false,
    validate,
    subresources: &[("status", Sub { validate: status, ..Sub::STATUS })],
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

fn validate(_: &Ctx<'_>, object: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let bounds = [spec.get("minAvailable"), spec.get("maxUnavailable")];
    if bounds.iter().all(Cursor::is_present) {
        errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in bounds.iter().filter(|b| b.is_present()) {
        count_or_percent(bound, errors);
        at_most_all(bound, errors);
    }
    meta::label_selector(&spec.get("selector"), false, errors);
    checks::one_of(&spec.get("unhealthyPodEvictionPolicy"), &["AlwaysAllow", "IfHealthyBudget"], false, errors);
}

fn status(_: &Ctx<'_>, new: &Cursor<'_>, _: &Cursor<'_>, errors: &mut Errors) {
    let status = new.get("status");
    meta::conditions(&status.get("conditions"), errors);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        meta::not_negative(&status.get(field), errors);
    }
}

#[cfg(test)]
mod tests {

    use crate::kinds::testing::{changed, create_errors};
    use serde_json::json;

    #[test]
    fn checks() {
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "ns"}, "spec": {"minAvailable": 1}});
        assert_eq!(create_errors(&budget), "");
        assert_eq!(
            create_errors(&changed(&budget, "spec/minAvailable", json!("101%"))),
            "spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"
        );
        assert!(
            create_errors(&changed(&budget, "spec/maxUnavailable", json!(1)))
                .ends_with("minAvailable and maxUnavailable cannot be both set")
        );
    }
}

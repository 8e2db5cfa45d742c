//! The policy group.

use pintle_schema::cursor::{BadValue, Cursor, Errors};

use super::apps::{at_most_all, count_or_percent, odd_values};
use super::strategy::Sub;
use super::table::{self, Column, integer, text};
use super::{Ctx, Strategy, checks, meta, names};

/// The strategy of pod disruption budgets.
pub static POD_DISRUPTION_BUDGET: Strategy = Strategy {
    // Upstream asks no more of it.
    name: names::path_segment,
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

fn validate<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let bounds = [spec.get("minAvailable"), spec.get("maxUnavailable")];
    if bounds.iter().all(Cursor::is_present) {
        // Upstream prints its own value, whose fields have the names of its code.
        let field = |name| spec.get(name).value().map_or_else(|| "null".to_owned(), ToString::to_string);
        let detail = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}: \
             minAvailable and maxUnavailable cannot be both set",
            field("minAvailable"),
            field("selector"),
            field("maxUnavailable"),
            field("unhealthyPodEvictionPolicy")
        );
        errors.invalid_value(&spec, BadValue::Omitted, detail);
    }
    for bound in bounds.iter().filter(|b| b.is_present()) {
        count_or_percent(bound, errors);
        at_most_all(bound, errors);
    }
    let lenient = old.is_some_and(|o| odd_values(&o.get("spec").get("selector")));
    meta::label_selector(&spec.get("selector"), lenient, errors);
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

    use crate::kinds::testing::{changed, create_errors, status_errors, update_errors};
    use serde_json::{Value, json};

    #[test]
    fn budgets() {
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "ns", "resourceVersion": "1"}, "spec": {"minAvailable": 1}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&budget, path, to)), expect, "{path}");
        };
        check("metadata/name", json!("Any_Name"), "");
        check("metadata/name", json!("a/b"), "metadata.name: Invalid value: \"a/b\": may not contain '/'");
        check(
            "spec/minAvailable",
            json!("101%"),
            "spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%",
        );
        check(
            "spec/minAvailable",
            json!(-1),
            "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            "spec/maxUnavailable",
            json!("1%"),
            "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":null,\"MaxUnavailable\":\"1%\",\"UnhealthyPodEvictionPolicy\":null}: \
             minAvailable and maxUnavailable cannot be both set",
        );
        check(
            "spec/unhealthyPodEvictionPolicy",
            json!("Odd"),
            "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Odd\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
        );
        let odd = changed(
            &budget,
            "spec/selector",
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["a b"]}]}),
        );
        assert_ne!(create_errors(&odd), "");
        assert_eq!(update_errors(&odd, &odd), "");
        assert_eq!(
            status_errors(&changed(&budget, "status", json!({"expectedPods": -1})), &budget),
            "status.expectedPods: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}

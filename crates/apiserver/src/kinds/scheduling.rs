//! The scheduling group.

use pintle_schema::cursor::{Cursor, Errors};

use super::table::{self, Column, boolean, integer, text};
use super::{Ctx, Strategy, bootstrap, checks, meta};

/// The strategy of priority classes.
pub static PRIORITY_CLASS: Strategy = Strategy {
    validate,
    validate_change: |_, new, old, errors| {
        if new.get("value").int() != old.get("value").int() {
            errors.forbidden("value", "may not be changed in an update.");
        }
        meta::immutable(&new.get("preemptionPolicy"), &old.get("preemptionPolicy"), errors);
    },
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

/// The greatest value a user may give a class.
const HIGHEST: i64 = 1_000_000_000;

fn validate(_: &Ctx<'_>, class: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    // What an update may change needs no check.
    if old.is_some() {
        return;
    }
    let (name, value) = (class.get("metadata").get("name"), class.get("value"));
    if name.str().starts_with("system-") {
        let known = bootstrap::priority_classes().into_iter().find(|c| c["metadata"]["name"] == name.str());
        let wrong = match known {
            None => Some(format!("{} is not a known system priority class", name.str())),
            Some(c) if c["value"].as_i64() != Some(value.int()) => {
                Some(format!("value of {} PriorityClass must be {}", name.str(), c["value"]))
            }
            Some(_) if class.get("globalDefault").bool() => {
                Some(format!("globalDefault of {} PriorityClass must be false", name.str()))
            }
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            errors.forbidden(
                &name,
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {wrong}"),
            );
        }
    } else if value.int() > HIGHEST {
        errors.forbidden(&value, format!("maximum allowed value of a user defined priority is {HIGHEST}"));
    }
    let policy = class.get("preemptionPolicy");
    if policy.is_present() {
        checks::one_of(&policy, &["PreemptLowerPriority", "Never"], true, errors);
    }
}

#[cfg(test)]
mod tests {

    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::json;

    #[test]
    fn checks() {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "c", "resourceVersion": "1"}, "value": 5});
        assert_eq!(create_errors(&class), "");
        assert_eq!(
            create_errors(&changed(&class, "value", json!(1_000_000_001))),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"
        );
        assert!(
            create_errors(&changed(&class, "metadata/name", json!("system-x")))
                .contains("system-x is not a known system priority class")
        );
        assert_eq!(
            update_errors(&changed(&class, "value", json!(6)), &class),
            "value: Forbidden: may not be changed in an update."
        );
        for (to, expect) in [
            (json!("Never"), ""),
            (json!(""), "preemptionPolicy: Required value"),
            (
                json!("Odd"),
                "preemptionPolicy: Unsupported value: \"Odd\": supported values: \"PreemptLowerPriority\", \"Never\"",
            ),
        ] {
            assert_eq!(create_errors(&changed(&class, "preemptionPolicy", to)), expect);
        }
        assert_eq!(
            update_errors(&changed(&class, "preemptionPolicy", json!("Never")), &class),
            "preemptionPolicy: Invalid value: \"Never\": field is immutable"
        );
        for known in crate::kinds::bootstrap::priority_classes() {
            assert_eq!(create_errors(&known), "");
        }
    }
}

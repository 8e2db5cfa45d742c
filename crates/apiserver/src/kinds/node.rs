//! The node group.

use std::collections::HashSet;

use pintle_api::names::dns1123_label;
use pintle_schema::cursor::{BadValue, Cursor, ErrorKind, Errors};
use serde_json::{Value, json};

use super::core::pod::{resources, scheduling};
use super::table::{self, Column, text};
use super::{Ctx, Strategy, meta, warn};

/// The strategy of runtime classes.
pub static RUNTIME_CLASS: Strategy = Strategy {
    warnings: |_, class, _| {
        let selector = class.get("scheduling").get("nodeSelector");
        let old = selector.entries().filter_map(|(key, _)| warn::node_label(key));
        old.map(|message| format!("{selector}: {message}")).collect()
    },
    unconditional_update: false,
    validate,
    validate_change: |_, new, old, errors| meta::immutable(&new.get("handler"), &old.get("handler"), errors),
    columns: &[Column::NAME, text("Handler", "@RuntimeClass.handler"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("handler").str().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// Checks a class when it is made; what decides of it never changes, and upstream looks at no more on update.
fn validate(_: &Ctx<'_>, class: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    if old.is_some() {
        return;
    }
    let handler = class.get("handler");
    for message in dns1123_label(handler.str()) {
        errors.invalid_value(&handler, handler.str(), message);
    }
    if let Some(fixed) = class.get("overhead").get("podFixed").value() {
        let limits = json!({"overhead": {"limits": fixed}});
        resources::of_container(&Cursor::root(&limits).get("overhead"), &[], errors);
    }
    let scheduling = class.get("scheduling");
    meta::labels(&scheduling.get("nodeSelector"), errors);
    tolerations(&scheduling.get("tolerations"), errors);
}

fn tolerations(list: &Cursor<'_>, errors: &mut Errors) {
    let mut found = Errors::new();
    scheduling::tolerations(list, false, &mut found);
    // Upstream names the list twice.
    meta::moved(found, &list.path(), &format!("{list}.tolerations"), errors);
    let mut seen: HashSet<[&str; 4]> = HashSet::new();
    for toleration in list.items() {
        let fields @ [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| toleration.get(field).str());
        if seen.contains(&fields) {
            // Upstream prints its own value, whose fields have the names of its code.
            let text = |t: &str| Value::from(t);
            let seconds = toleration.get("tolerationSeconds").value().cloned().unwrap_or(Value::Null);
            let detail = format!(
                "{{\"Key\":{},\"Operator\":{},\"Value\":{},\"Effect\":{},\"TolerationSeconds\":{seconds}}}",
                text(key),
                text(operator),
                text(value),
                text(effect)
            );
            errors.add(ErrorKind::Duplicate, &toleration, BadValue::Omitted, detail);
        }
        seen.insert(fields);
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    #[test]
    fn classes() {
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "c", "resourceVersion": "1"}, "handler": "h"});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&class, path, to)), expect, "{path}");
        };
        let label = pintle_api::names::dns1123_label("A")[0].clone();
        check("handler", json!("A"), &format!("handler: Invalid value: \"A\": {label}"));
        check("overhead", json!({"podFixed": {"cpu": "100m", "memory": "1Mi"}}), "");
        check(
            "overhead",
            json!({"podFixed": {"cpu": "-1"}}),
            "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        );
        check(
            "overhead",
            json!({"podFixed": {"hugepages-2Mi": "2Mi"}}),
            "overhead: Forbidden: HugePages require cpu or memory",
        );
        check(
            "scheduling",
            json!({"tolerations": [{"key": "a", "operator": "Odd"}]}),
            "scheduling.tolerations.tolerations[0].operator: Unsupported value: \"Odd\": supported values: \"Equal\", \"Exists\"",
        );
        check(
            "scheduling",
            json!({"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute"}, {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]}),
            "scheduling.tolerations[1]: Duplicate value: {\"Key\":\"a\",\"Operator\":\"Exists\",\"Value\":\"\",\"Effect\":\"NoExecute\",\"TolerationSeconds\":5}",
        );
        let other = changed(&class, "handler", json!("i"));
        assert_eq!(update_errors(&other, &class), "handler: Invalid value: \"i\": field is immutable");
        assert_eq!(update_errors(&changed(&class, "overhead", json!({"podFixed": {"cpu": "-1"}})), &class), "");
    }
}

//! Workloads and pod groups, kinds that are off unless they are asked for.

use std::collections::HashSet;

use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::strategy::{Sub, keep_all_but_status};
use super::table::{self, Column, text};
use super::value::same;
use super::{Ctx, Strategy, checks, meta};

/// Most templates of a workload.
const MOST_TEMPLATES: usize = 8;

/// The strategy of workloads.
pub static WORKLOAD: Strategy = Strategy {
    generation: &[&["spec"]],
    validate: workload,
    validate_change: |_, new, old, errors| {
        let (n, o) = (new.get("spec"), old.get("spec"));
        // Who controls it may be said later, but not changed.
        if o.get("controllerRef").is_present() {
            kept(&n.get("controllerRef"), &o.get("controllerRef"), errors);
        }
        kept(&n.get("podGroupTemplates"), &o.get("podGroupTemplates"), errors);
    },
    columns: &[Column::NAME, Column::AGE],
    row: |o, now| vec![table::name(o), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of pod groups.
pub static POD_GROUP: Strategy = Strategy {
    generation: &[&["spec"]],
    validate: pod_group,
    validate_change: |_, new, old, errors| {
        let (n, o) = (new.get("spec"), old.get("spec"));
        for field in ["podGroupTemplateRef", "schedulingPolicy"] {
            kept(&n.get(field), &o.get(field), errors);
        }
    },
    subresources: &[(
        "status",
        Sub {
            prepare: keep_all_but_status,
            validate: |_, new, _, errors| meta::conditions(&new.get("status").get("conditions"), errors),
            reset_fields: &[&["spec"]],
        },
    )],
    columns: &[Column::NAME, text("Policy", "@PodGroupSpec.schedulingPolicy"), Column::AGE],
    row: |o, now| {
        let policy = o.get("spec").get("schedulingPolicy");
        let name = if policy.get("gang").is_present() { "Gang" } else { "Basic" };
        vec![table::name(o), name.into(), table::age(o, now)]
    },
    ..Strategy::DEFAULT
};

fn kept(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    if !same(new.value(), old.value()) {
        errors.invalid_value(new, Value::Null, "field is immutable");
    }
}

fn workload(_: &Ctx<'_>, workload: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    // What may not change was checked when it was made.
    if old.is_some() {
        return;
    }
    let spec = workload.get("spec");
    let controller = spec.get("controllerRef");
    if controller.is_present() {
        let group = controller.get("apiGroup");
        if !group.is_empty() {
            checks::subdomain(&group, errors);
        }
        for field in ["kind", "name"] {
            let name = controller.get(field);
            if name.is_empty() {
                errors.required(&name, "");
            } else {
                meta::invalid_each(&name, pintle_api::names::path_segment(name.str()), errors);
            }
        }
    }
    let templates = spec.get("podGroupTemplates");
    if templates.is_empty() {
        errors.required(&templates, "");
    }
    if templates.len() > MOST_TEMPLATES {
        return errors.too_many(&templates, templates.len(), MOST_TEMPLATES);
    }
    let mut names = HashSet::new();
    for template in templates.items() {
        let name = template.get("name");
        if !names.insert(name.str()) {
            errors.duplicate(&template, template.value().cloned().unwrap_or_default());
        }
        label(&name, errors);
        policy(&template.get("schedulingPolicy"), errors);
        switched_off(&template, errors);
    }
}

fn pod_group(_: &Ctx<'_>, group: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    if old.is_some() {
        return;
    }
    let spec = group.get("spec");
    let reference = spec.get("podGroupTemplateRef");
    if reference.is_present() {
        let workload = reference.get("workload");
        if workload.is_absent() {
            errors.invalid_value(&reference, "", "must specify one of: `workload`");
        } else {
            let name = workload.get("workloadName");
            if name.is_empty() {
                errors.required(&name, "");
            } else {
                checks::subdomain(&name, errors);
            }
            label(&workload.get("podGroupTemplateName"), errors);
        }
    }
    policy(&spec.get("schedulingPolicy"), errors);
    switched_off(&spec, errors);
}

/// Fields of further features, which are off.
fn switched_off(at: &Cursor<'_>, errors: &mut Errors) {
    for field in ["schedulingConstraints", "priorityClassName", "priority"] {
        if at.get(field).is_present() {
            errors.forbidden(at.get(field), "");
        }
    }
}

/// A DNS label that must be there.
fn label(name: &Cursor<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(name, "");
    } else {
        checks::label(name, errors);
    }
}

/// How the pods of a group are scheduled: one by one or together.
fn policy(policy: &Cursor<'_>, errors: &mut Errors) {
    let (basic, gang) = (policy.get("basic"), policy.get("gang"));
    match (basic.is_present(), gang.is_present()) {
        (false, false) => errors.invalid_value(policy, "", "must specify one of: `basic`, `gang`"),
        (true, true) => {
            let message = "must specify exactly one of: `basic`, `gang`";
            errors.invalid_value(policy, "{`basic`, `gang`}", message);
        }
        _ => {}
    }
    if gang.is_present() {
        let least = gang.get("minCount");
        if least.int() == 0 {
            errors.required(&least, "");
        } else if least.int() < 1 {
            errors.invalid(&least, "must be greater than or equal to 1");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors, with_ctx};
    use serde_json::{Value, json};

    #[test]
    fn workloads() {
        let workload = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "Workload",
            "metadata": {"name": "w", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"podGroupTemplates": [{"name": "a", "schedulingPolicy": {"gang": {"minCount": 2}}}]}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&workload, path, to)), expect, "{path}");
        };
        let at = "spec.podGroupTemplates";
        check("spec/controllerRef", json!({"apiGroup": "batch", "kind": "Job", "name": "j"}), "");
        check(
            "spec/controllerRef",
            json!({"kind": "a/b"}),
            "spec.controllerRef.kind: Invalid value: \"a/b\": may not contain '/'\nspec.controllerRef.name: Required value",
        );
        check("spec/podGroupTemplates", json!([]), &format!("{at}: Required value"));
        let one = workload["spec"]["podGroupTemplates"][0].clone();
        check(
            "spec/podGroupTemplates",
            json!(vec![one.clone(); 9]),
            &format!("{at}: Too many: 9: must have at most 8 items"),
        );
        check(
            "spec/podGroupTemplates/1",
            one,
            &format!(
                "{at}[1]: Duplicate value: {{\"name\":\"a\",\"schedulingPolicy\":{{\"gang\":{{\"minCount\":2}}}}}}"
            ),
        );
        check("spec/podGroupTemplates/0/name", json!(""), &format!("{at}[0].name: Required value"));
        let policy = format!("{at}[0].schedulingPolicy");
        check(
            "spec/podGroupTemplates/0/schedulingPolicy",
            json!({}),
            &format!("{policy}: Invalid value: \"\": must specify one of: `basic`, `gang`"),
        );
        check("spec/podGroupTemplates/0/schedulingPolicy", json!({"basic": {}}), "");
        check(
            "spec/podGroupTemplates/0/schedulingPolicy/gang/minCount",
            json!(-1),
            &format!("{policy}.gang.minCount: Invalid value: -1: must be greater than or equal to 1"),
        );
        let other = changed(&workload, "spec/podGroupTemplates/0/name", json!("b"));
        assert_eq!(update_errors(&other, &workload), "spec.podGroupTemplates: Invalid value: null: field is immutable");
        assert_eq!(update_errors(&workload, &workload), "");
    }

    #[test]
    fn pod_groups() {
        let group = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
            "metadata": {"name": "g", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"schedulingPolicy": {"gang": {"minCount": 2}}}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&group, path, to)), expect, "{path}");
        };
        let reference = |workload: Value| json!({ "workload": workload });
        check("spec/podGroupTemplateRef", reference(json!({"workloadName": "w", "podGroupTemplateName": "t"})), "");
        check(
            "spec/podGroupTemplateRef",
            reference(json!({"podGroupTemplateName": "A"})),
            &format!(
                "spec.podGroupTemplateRef.workload.workloadName: Required value\nspec.podGroupTemplateRef.workload.podGroupTemplateName: Invalid value: \"A\": {}",
                pintle_api::names::dns1123_label("A")[0]
            ),
        );
        check("spec/priority", json!(5), "spec.priority: Forbidden");
        let more = changed(&group, "spec/schedulingPolicy/gang/minCount", json!(3));
        assert_eq!(update_errors(&more, &group), "spec.schedulingPolicy: Invalid value: null: field is immutable");
        // Features of groups that are off.
        with_ctx("scheduling.k8s.io/v1alpha2", "PodGroup", |ctx| {
            let mut made = changed(&group, "spec/resourceClaims", json!([{"name": "c", "resourceClaimName": "r"}]));
            crate::kinds::strategy(ctx.resource).prepare_create(ctx, &mut made);
            assert_eq!(made["spec"], group["spec"]);
        });
    }
}

//! The apps group.

mod validate;

pub use validate::{at_most_all, count_or_percent, odd_values, replica_status, selects, selects_template};

use jiff::Timestamp;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

use super::core::pod::warnings;
use super::strategy::{Sub, keep_all_but_status, keep_all_but_status_and_labels};
use super::table::{self, Column, integer, text};
use super::{Ctx, Strategy, names, scale, value, warn};

const CONTAINERS: Column = text("Containers", "Names of each container in the template.").wide();
const IMAGES: Column = text("Images", "Images referenced by each container in the template.").wide();

/// The strategy of deployments.
pub static DEPLOYMENT: Strategy = Strategy {
    warnings: named_with_template,
    validate: validate::deployment,
    validate_change: validate::selector_stays,
    generation: &[&["spec"], &["metadata", "annotations"]],
    scale: Some(&scale::WORKLOAD),
    subresources: &[(
        "status",
        Sub {
            prepare: keep_all_but_status_and_labels,
            validate: validate::deployment_status,
            reset_fields: &[&["spec"], &["metadata", "labels"]],
        },
    )],
    columns: &[
        Column::NAME,
        text("Ready", "Number of the pod with ready state"),
        text("Up-to-date", "@DeploymentStatus.updatedReplicas"),
        text("Available", "@DeploymentStatus.availableReplicas"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        text("Selector", "@DeploymentSpec.selector").wide(),
    ],
    row: |o, now| {
        let (spec, status) = (o.get("spec"), o.get("status"));
        let [names, images] = template(o);
        vec![
            table::name(o),
            table::ratio(status.get("readyReplicas").int(), spec.get("replicas").int()),
            status.get("updatedReplicas").int().into(),
            status.get("availableReplicas").int().into(),
            table::age(o, now),
            names,
            images,
            spec.get("selector").value().map(scale::selector_text).unwrap_or_default().into(),
        ]
    },
    ..Strategy::DEFAULT
};

/// The strategy of replica sets.
pub static REPLICA_SET: Strategy = Strategy {
    warnings: named_with_template,
    validate: validate::replica_set,
    validate_change: validate::selector_stays,
    subresources: &[(
        "status",
        Sub {
            prepare: keep_all_but_status,
            validate: |_, new, _, errors| replica_status(&new.get("status"), errors),
            reset_fields: &[&["spec"]],
        },
    )],
    selectable: &[("status.replicas", &["status", "replicas"], "0")],
    generation: &[&["spec"]],
    scale: Some(&scale::WORKLOAD),
    columns: &[
        Column::NAME,
        integer("Desired", "@ReplicaSetSpec.replicas"),
        integer("Current", "@ReplicaSetStatus.replicas"),
        integer("Ready", "@ReplicaSetStatus.readyReplicas"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        text("Selector", "@ReplicaSetSpec.selector").wide(),
    ],
    row: |o, now| {
        let (spec, status) = (o.get("spec"), o.get("status"));
        let [names, images] = template(o);
        vec![
            table::name(o),
            spec.get("replicas").int().into(),
            status.get("replicas").int().into(),
            status.get("readyReplicas").int().into(),
            table::age(o, now),
            names,
            images,
            table::selector(&spec.get("selector")).into(),
        ]
    },
    ..Strategy::DEFAULT
};

/// The strategy of stateful sets.
pub static STATEFUL_SET: Strategy = Strategy {
    // It becomes part of host names.
    name: names::label,
    warnings: stateful_set_warnings,
    validate: validate::stateful_set,
    validate_change: validate::stateful_set_change,
    subresources: &[("status", Sub { validate: validate::stateful_set_status, ..Sub::STATUS })],
    generation: &[&["spec"]],
    scale: Some(&scale::WORKLOAD),
    columns: &[Column::NAME, text("Ready", "Number of the pod with ready state"), Column::AGE, CONTAINERS, IMAGES],
    row: |o, now| {
        let [names, images] = template(o);
        let ready = table::ratio(o.get("status").get("readyReplicas").int(), o.get("spec").get("replicas").int());
        vec![table::name(o), ready, table::age(o, now), names, images]
    },
    ..Strategy::DEFAULT
};

/// The strategy of daemon sets.
pub static DAEMON_SET: Strategy = Strategy {
    warnings: |_, o, old| warnings::template(o, &o.get("spec").get("template"), old),
    on_create: |_, set| set_template_generation(set, 1),
    on_update: count_templates,
    validate: validate::daemon_set,
    validate_change: validate::selector_stays,
    subresources: &[("status", Sub { validate: validate::daemon_set_status, ..Sub::STATUS })],
    generation: &[&["spec"]],
    columns: &[
        Column::NAME,
        integer("Desired", "@DaemonSetStatus.desiredNumberScheduled"),
        integer("Current", "@DaemonSetStatus.currentNumberScheduled"),
        integer("Ready", "@DaemonSetStatus.numberReady"),
        integer("Up-to-date", "@DaemonSetStatus.updatedNumberScheduled"),
        integer("Available", "@DaemonSetStatus.numberAvailable"),
        text("Node Selector", "@PodSpec.nodeSelector"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        text("Selector", "@DaemonSetSpec.selector").wide(),
    ],
    row: daemon_row,
    ..Strategy::DEFAULT
};

/// How often the template of a daemon set has changed: a field once, kept in an annotation.
const TEMPLATE_GENERATION: [&str; 3] = ["metadata", "annotations", "deprecated.daemonset.template.generation"];

fn template_generation(set: &Value) -> i64 {
    value::str_at(set, &TEMPLATE_GENERATION).parse().unwrap_or(0)
}

fn set_template_generation(set: &mut Value, least: i64) {
    let generation = template_generation(set).max(least);
    value::set(set, &TEMPLATE_GENERATION, generation.to_string());
}

/// The count is the server's alone.
fn count_templates(_: &Ctx<'_>, new: &mut Value, old: &Value) {
    let template = ["spec", "template"];
    let changed = !value::same(value::at(new, &template), value::at(old, &template));
    value::remove(new, &TEMPLATE_GENERATION);
    set_template_generation(new, template_generation(old) + i64::from(changed));
}

/// The strategy of controller revisions.
pub static CONTROLLER_REVISION: Strategy = Strategy {
    full_meta_on_update: true,
    validate: validate::revision,
    validate_change: |_, new, old, errors| super::meta::immutable(&new.get("data"), &old.get("data"), errors),
    columns: &[
        Column::NAME,
        text("Controller", "Controller of the object"),
        text("Revision", "@ControllerRevision.revision"),
        Column::AGE,
    ],
    row: |o, now| vec![table::name(o), controller(o).into(), o.get("revision").int().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// Of a workload whose name becomes part of its pods' names.
pub(super) fn named_with_template(_: &Ctx<'_>, object: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Vec<String> {
    let mut out = if old.is_none() { warn::named(object, "Pod names and hostnames") } else { Vec::new() };
    out.extend(warnings::template(object, &object.get("spec").get("template"), old));
    out
}

fn stateful_set_warnings(_: &Ctx<'_>, set: &Cursor<'_>, old: Option<&Cursor<'_>>) -> Vec<String> {
    let spec = set.get("spec");
    let mut out = warnings::template(set, &spec.get("template"), old);
    for claim in spec.get("volumeClaimTemplates").items() {
        warn::whole_bytes(&claim.get("spec").get("resources"), &["storage"], &mut out);
    }
    if spec.get("revisionHistoryLimit").int() < 0 {
        let advice = "a negative value retains all historical revisions; a value >= 0 is recommended";
        out.push(format!("spec.revisionHistoryLimit: {advice}"));
    }
    out
}

fn template(object: &Cursor<'_>) -> [Value; 2] {
    table::containers(&object.get("spec").get("template").get("spec"))
}

fn daemon_row(set: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let count = |field| Value::from(set.get("status").get(field).int());
    let [names, images] = template(set);
    let selector = set.get("spec").get("template").get("spec").get("nodeSelector");
    vec![
        table::name(set),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        table::label_pairs(&selector).into(),
        table::age(set, now),
        names,
        images,
        table::selector(&set.get("spec").get("selector")).into(),
    ]
}

/// `deployment.apps/name` of the controlling owner.
fn controller(object: &Cursor<'_>) -> String {
    let owners = object.get("metadata").get("ownerReferences");
    let owner = owners.items().find(|o| o.get("controller").bool());
    owner.map_or_else(
        || "<none>".to_owned(),
        |o| {
            let kind = o.get("kind").str().to_lowercase();
            match o.get("apiVersion").str().split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", o.get("name").str()),
                None => format!("{kind}/{}", o.get("name").str()),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{self, with_ctx};
    use serde_json::{Value, json};

    fn workload(kind: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": "w", "generation": 1, "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec":
                {"nodeSelector": {"x": "y"}, "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}},
            "status": {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1, "numberReady": 4},
        })
    }

    #[test]
    fn rows() {
        let check = |kind: &str, expect: Value| assert_eq!(json!(testing::row(&workload(kind), 5)), expect);
        check("Deployment", json!(["w", "1/3", 2, 1, "5s", "c,d", "i,j", "a=b"]));
        check("ReplicaSet", json!(["w", 3, 2, 1, "5s", "c,d", "i,j", "a=b"]));
        check("StatefulSet", json!(["w", "1/3", "5s", "c,d", "i,j"]));
        check("DaemonSet", json!(["w", 0, 0, 4, 0, 0, "x=y", "5s", "c,d", "i,j", "a=b"]));
        let revision = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 3,
            "metadata": {"name": "r", "creationTimestamp": "2024-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true}]},
        });
        assert_eq!(testing::row(&revision, 5), [json!("r"), json!("daemonset.apps/d"), json!(3), json!("5s")]);
    }

    #[test]
    fn daemon_sets_count_their_templates() {
        let generation = |o: &Value| o["metadata"]["annotations"]["deprecated.daemonset.template.generation"].clone();
        with_ctx("apps/v1", "DaemonSet", |ctx| {
            let mut made = workload("DaemonSet");
            super::DAEMON_SET.prepare_create(ctx, &mut made);
            assert_eq!(generation(&made), "1");
            let check = |path: &str, to: Value, expect: &str| {
                let mut new = testing::changed(&made, path, to);
                super::DAEMON_SET.prepare_update(ctx, &mut new, &made);
                assert_eq!(generation(&new), expect, "{path}");
            };
            check("spec/minReadySeconds", json!(1), "1");
            check("metadata/annotations", json!({}), "1");
            check("spec/template/spec/containers/0/image", json!("k"), "2");
        });
    }

    #[test]
    fn generations() {
        let check = |kind: &str, path: &str, to: Value, expect: i64| {
            let old = workload(kind);
            let mut new = testing::changed(&old, path, to);
            with_ctx("apps/v1", kind, |ctx| crate::kinds::strategy(ctx.resource).prepare_update(ctx, &mut new, &old));
            assert_eq!(new["metadata"]["generation"], expect, "{kind} {path}");
            assert_eq!(new["status"], old["status"]);
        };
        check("Deployment", "spec/replicas", json!(4), 2);
        check("Deployment", "metadata/annotations", json!({"a": "b"}), 2);
        check("ReplicaSet", "metadata/annotations", json!({"a": "b"}), 1);
        check("ReplicaSet", "metadata/generation", json!(9), 1);
        check("DaemonSet", "status/numberReady", json!(5), 1);
        let old = workload("Deployment");
        let mut new = testing::changed(&old, "spec/replicas", json!(9));
        new["status"]["replicas"] = 7.into();
        new["metadata"]["labels"] = json!({"x": "y"});
        with_ctx("apps/v1", "Deployment", |ctx| {
            super::DEPLOYMENT.subresource("status").unwrap().prepare_update(ctx, &mut new, &old);
        });
        assert_eq!(
            (&new["spec"], &new["status"]["replicas"], new["metadata"].get("labels")),
            (&old["spec"], &json!(7), None)
        );
    }
}

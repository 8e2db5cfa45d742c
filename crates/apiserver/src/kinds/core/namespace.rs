//! Namespaces.

use pintle_api::names::qualified_name;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};

use crate::kinds::strategy::{Sub, keep_all_but_status};
use crate::kinds::table::{self, Column, text};
use crate::kinds::{Ctx, Strategy, meta, names, value};

/// The finalizer that lets the namespace controller empty a namespace before it goes.
pub const FINALIZER: &str = "kubernetes";

/// The strategy of namespaces.
pub static NAMESPACE: Strategy = Strategy {
    name: names::label,
    selectable: &[("status.phase", &["status", "phase"], "")],
    on_create,
    validate: |_, namespace, _, errors| {
        for finalizer in namespace.get("spec").get("finalizers").items() {
            // Upstream reports these at the list.
            let list = namespace.get("spec").get("finalizers");
            finalizer_name(finalizer.str(), &list, errors);
        }
    },
    on_update: |_, new, old| value::copy(new, old, &["spec", "finalizers"]),
    subresources: &[("status", STATUS), ("finalize", FINALIZE)],
    columns: &[Column::NAME, text("Status", "The status of the namespace"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("status").get("phase").str().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

const STATUS: Sub = Sub {
    validate: |_, new, _, errors| {
        let deleting = new.get("metadata").get("deletionTimestamp").is_present();
        let (phase, when) = if deleting { ("Terminating", "not empty") } else { ("Active", "empty") };
        let found = new.get("status").get("phase");
        if found.str() != phase {
            let message = format!("may only be '{phase}' if `deletionTimestamp` is {when}");
            errors.invalid_value("status.Phase", found.str(), message);
        }
    },
    ..Sub::STATUS
};

/// `finalize` writes `spec.finalizers` and nothing else.
const FINALIZE: Sub = Sub {
    prepare: |ctx, new, old| {
        let wanted = value::at(new, &["spec", "finalizers"]).cloned();
        keep_all_but_status(ctx, new, old);
        value::copy(new, old, &["status"]);
        match wanted {
            Some(finalizers) => value::set(new, &["spec", "finalizers"], finalizers),
            None => drop(value::remove(new, &["spec", "finalizers"])),
        }
    },
    validate: |_, new, _, errors| {
        for finalizer in new.get("spec").get("finalizers").items() {
            finalizer_name(finalizer.str(), &finalizer, errors);
        }
    },
    reset_fields: &[&["status"]],
};

fn finalizer_name(name: &str, at: &Cursor<'_>, errors: &mut Errors) {
    for message in qualified_name(name) {
        errors.invalid_value(at, name, message);
    }
    meta::kube_finalizer(name, at, errors);
}

/// A new namespace is active, carries its own name as a label, and has the finalizer.
fn on_create(_: &Ctx<'_>, object: &mut Value) {
    value::set(object, &["status"], json!({"phase": "Active"}));
    let name = value::str_at(object, &["metadata", "name"]).to_owned();
    value::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
    let has = value::items_at(object, &["spec", "finalizers"]).iter().any(|f| f == FINALIZER);
    if !has && let Some(list) = value::entry(object, &["spec", "finalizers"]) {
        match list.as_array_mut() {
            Some(list) => list.push(FINALIZER.into()),
            None => *list = json!([FINALIZER]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing;

    #[test]
    fn prepares() {
        let mut ns = json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}});
        testing::with_ctx("v1", "Namespace", |ctx| NAMESPACE.prepare_create(ctx, &mut ns));
        assert_eq!(
            ns,
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
        let mut new = ns.clone();
        new["spec"] = json!({});
        testing::with_ctx("v1", "Namespace", |ctx| {
            let mut same = new.clone();
            NAMESPACE.prepare_update(ctx, &mut same, &ns);
            assert_eq!(same["spec"], ns["spec"]);
            NAMESPACE.subresource("finalize").unwrap().prepare_update(ctx, &mut new, &ns);
        });
        assert_eq!(new["spec"].get("finalizers"), None);
    }
}

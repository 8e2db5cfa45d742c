//! The node group.

use pintle_api::names::dns1123_label;
use pintle_schema::cursor::{Cursor, Errors};

use super::core::pod::resources;
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

fn validate(_: &Ctx<'_>, class: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let handler = class.get("handler");
    for message in dns1123_label(handler.str()) {
        errors.invalid_value(&handler, handler.str(), message);
    }
    for (name, amount) in class.get("overhead").get("podFixed").entries() {
        let mut found = Errors::new();
        resources::container_resource_name(&amount, name, &mut found);
        resources::amount(name, &amount, &mut found);
        meta::moved(found, &amount.path(), &format!("overhead.podFixed.limits[{name}]"), errors);
    }
    let scheduling = class.get("scheduling");
    meta::labels(&scheduling.get("nodeSelector"), errors);
    tolerations(&scheduling.get("tolerations"), errors);
}

fn tolerations(list: &Cursor<'_>, errors: &mut Errors) {
    super::core::pod::scheduling::tolerations(list, errors);
    for (i, toleration) in list.items().enumerate() {
        if list.list()[..i].iter().any(|t| Some(t) == toleration.value()) {
            errors.duplicate(&toleration, toleration.value().cloned().unwrap_or_default());
        }
    }
}

//! [`Strategy`]: a kind's behaviour as a table of facts and functions, nearly all of them with a default.

use jiff::Timestamp;
use pintle_api::features::FeatureGates;
use pintle_api::object::SelectableField;
use pintle_api::resources::Resource;
use pintle_api::service::UserInfo;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::names::{self, NameRule};
use super::{Column, gates, meta, table, value};

/// Who asks, when, and for what.
pub struct Ctx<'a> {
    /// The resource written, in the stored version.
    pub resource: &'static Resource,
    /// The resource of the request.
    pub requested: &'static Resource,
    /// The namespace of the request; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Who writes.
    pub user: &'a UserInfo,
    /// The time of the write.
    pub now: Timestamp,
    /// Features that are on.
    pub features: FeatureGates,
    /// What the user is to be warned of besides [`Strategy::warnings`].
    pub notes: parking_lot::Mutex<Vec<String>>,
}

impl Ctx<'_> {
    /// Warns the user.
    pub fn warn(&self, text: impl Into<String>) {
        self.notes.lock().push(text.into());
    }
}

/// What happens to an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes them later.
    Background,
    /// They lose this owner.
    Orphan,
}

/// The part of `DeleteOptions` that a kind looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteOptions {
    /// The grace period asked for.
    pub grace_period_seconds: Option<i64>,
}

// Old and new share a lifetime, so that a key of the one can be looked up in the other.
type Validate = for<'a> fn(&Ctx<'_>, &Cursor<'a>, Option<&Cursor<'a>>, &mut Errors);
type ValidateUpdate = for<'a> fn(&Ctx<'_>, &Cursor<'a>, &Cursor<'a>, &mut Errors);
type Prepare = fn(&Ctx<'_>, &mut Value, &Value);

/// Everything a kind has of its own. Fields are read by the registry; write a kind as
/// `Strategy { validate, ..Strategy::DEFAULT }`.
pub struct Strategy {
    /// The rule for `metadata.name`.
    pub name: NameRule,
    /// Fields that field selectors may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [SelectableField],
    /// The fields whose change raises `metadata.generation`, each a path; with none, generation is not kept.
    pub generation: &'static [&'static [&'static str]],
    /// Whether a PUT to a name that is not there creates it.
    pub create_on_update: bool,
    /// Whether an update may leave out `metadata.resourceVersion`.
    pub unconditional_update: bool,
    /// What happens to dependents when the caller does not say.
    pub propagation: Propagation,
    /// Whether create drops `status`; only looked at for kinds that have a status sub-resource.
    pub create_resets_status: bool,
    /// The kind's own changes before create.
    pub on_create: fn(&Ctx<'_>, &mut Value),
    /// The kind's own changes before update: `(new, old)`.
    pub on_update: Prepare,
    /// Checks an object: on create (`old` absent) and, with the stored object for what may stay as it was, on update.
    pub validate: Validate,
    /// Checks what may not change: `(new, old)`.
    pub validate_change: ValidateUpdate,
    /// Whether update checks the metadata also as create does, as upstream does for some kinds.
    pub full_meta_on_update: bool,
    /// Whether finalizers may have any name, as those of custom resources.
    pub free_finalizers: bool,
    /// Warnings on create and update.
    pub warnings: fn(&Ctx<'_>, &Cursor<'_>, Option<&Cursor<'_>>) -> Vec<String>,
    /// Sub-resources that take the whole object.
    pub subresources: &'static [(&'static str, Sub)],
    /// Where scale reads and writes.
    pub scale: Option<&'static super::scale::Mapping>,
    /// The grace period with which to delete: `None` when the kind knows none and goes at once.
    pub graceful_delete: fn(&Value, DeleteOptions) -> Option<i64>,
    /// Paths that apply never owns, for the main resource.
    pub reset_fields: &'static [&'static [&'static str]],
    /// The columns of a Table.
    pub columns: &'static [Column],
    /// The cells of an object's row, one a column.
    pub row: fn(&Cursor<'_>, Timestamp) -> Vec<Value>,
    /// The conditions of an object's row, if any.
    pub row_conditions: fn(&Cursor<'_>) -> Vec<Value>,
}

/// A sub-resource through which part of the object is written.
pub struct Sub {
    /// Puts back all that this sub-resource may not change: `(new, old)`.
    pub prepare: Prepare,
    /// Checks the change: `(new, old)`.
    pub validate: ValidateUpdate,
    /// Paths that apply never owns through this sub-resource.
    pub reset_fields: &'static [&'static [&'static str]],
}

impl Sub {
    /// `status`: everything but `status` and the metadata stays as it was.
    pub const STATUS: Sub = Sub { prepare: keep_all_but_status, validate: nothing_more, reset_fields: &[&["spec"]] };
}

impl Strategy {
    /// A kind with nothing of its own.
    pub const DEFAULT: Strategy = Strategy {
        name: names::subdomain,
        selectable: &[],
        generation: &[],
        create_on_update: false,
        unconditional_update: true,
        propagation: Propagation::Background,
        create_resets_status: true,
        on_create: |_, _| {},
        on_update: |_, _, _| {},
        validate: |_, _, _, _| {},
        validate_change: nothing_more,
        full_meta_on_update: false,
        free_finalizers: false,
        warnings: |_, _, _| Vec::new(),
        subresources: &[("status", Sub::STATUS)],
        scale: None,
        graceful_delete: |_, _| None,
        reset_fields: &[&["status"]],
        columns: table::DEFAULT_COLUMNS,
        row: table::default_row,
        row_conditions: |_| Vec::new(),
    };

    /// Changes an object before it is checked and created. The registry has filled the system's metadata.
    pub fn prepare_create(&self, ctx: &Ctx<'_>, object: &mut Value) {
        if self.create_resets_status && has_status(ctx) {
            value::remove(object, &["status"]);
        }
        if self.generation.is_empty() {
            value::remove(object, &["metadata", "generation"]);
        } else {
            value::set(object, &["metadata", "generation"], 1);
        }
        gates::drop_disabled(ctx, object, None);
        (self.on_create)(ctx, object);
    }

    /// Changes the new state of an object before it is checked and stored.
    pub fn prepare_update(&self, ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
        if has_status(ctx) {
            value::copy(new, old, &["status"]);
        }
        value::copy(new, old, &["metadata", "generation"]);
        gates::drop_disabled(ctx, new, Some(old));
        (self.on_update)(ctx, new, old);
        if self.generation.iter().any(|path| !value::same(value::at(new, path), value::at(old, path))) {
            let generation = value::int_at(old, &["metadata", "generation"]) + 1;
            value::set(new, &["metadata", "generation"], generation);
        }
    }

    /// All that is wrong with an object about to be created.
    pub fn validate_create(&self, ctx: &Ctx<'_>, object: &Cursor<'_>, errors: &mut Errors) {
        meta::validate(object, ctx.resource.namespaced, self.name, errors);
        self.finalizers(object, errors);
        (self.validate)(ctx, object, None, errors);
    }

    /// All that is wrong with the new state of an object.
    pub fn validate_update<'a>(&self, ctx: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
        meta::validate_update(new, old, errors);
        self.finalizers(new, errors);
        if self.full_meta_on_update {
            meta::validate(new, ctx.resource.namespaced, self.name, errors);
        }
        (self.validate)(ctx, new, Some(old), errors);
        (self.validate_change)(ctx, new, old, errors);
    }

    fn finalizers(&self, object: &Cursor<'_>, errors: &mut Errors) {
        if !self.free_finalizers {
            meta::kube_finalizers(object, errors);
        }
    }

    /// The sub-resource of this name, if it takes the whole object.
    pub fn subresource(&self, name: &str) -> Option<&'static Sub> {
        self.subresources.iter().find(|(n, _)| *n == name).map(|(_, sub)| sub)
    }
}

fn has_status(ctx: &Ctx<'_>) -> bool {
    ctx.resource.subresource("status").is_some()
}

impl Sub {
    /// Runs [`Sub::prepare`], keeping the generation.
    pub fn prepare_update(&self, ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
        value::copy(new, old, &["metadata", "generation"]);
        (self.prepare)(ctx, new, old);
        gates::drop_disabled(ctx, new, Some(old));
    }

    /// Checks metadata and the change.
    pub fn validate_update<'a>(&self, ctx: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
        meta::validate_update(new, old, errors);
        (self.validate)(ctx, new, old, errors);
    }
}

/// No further check.
pub fn nothing_more(_: &Ctx<'_>, _: &Cursor<'_>, _: &Cursor<'_>, _: &mut Errors) {}

/// Puts back every top-level field but `status`, `metadata`, `kind` and `apiVersion`.
pub fn keep_all_but_status(_: &Ctx<'_>, new: &mut Value, old: &Value) {
    keep_all_but(new, old, "status");
}

/// Puts back every top-level field but `field`, `metadata`, `kind` and `apiVersion`.
pub fn keep_all_but(new: &mut Value, old: &Value, field: &str) {
    let kept = |key: &str| key == field || matches!(key, "metadata" | "kind" | "apiVersion");
    if let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) {
        new.retain(|key, _| kept(key) || old.contains_key(key));
        for (key, old) in old.iter().filter(|(key, _)| !kept(key)) {
            match new.get_mut(key) {
                Some(place) if place == old => {}
                Some(place) => *place = old.clone(),
                None => {
                    new.insert(key.clone(), old.clone());
                }
            }
        }
    }
}

/// Like [`keep_all_but_status`], and the labels stay as well.
pub fn keep_all_but_status_and_labels(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    keep_all_but_status(ctx, new, old);
    value::copy(new, old, &["metadata", "labels"]);
}

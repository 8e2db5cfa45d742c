//! What merging must know of each place: struct, map, list or scalar, and how they merge. It comes from the table, or,
//! for a custom resource, from its own schema.

use super::path::Element;
use crate::table::{Base, Field, Form, ListKind, Type, named};
use serde_json::Value;

/// What is known of one place.
#[derive(Clone, Copy, Debug)]
pub enum Schema<'s> {
    /// A type of the table.
    Type(&'static Type),
    /// A field of a type of the table, with all its values.
    Field(&'static Field),
    /// One value of a field of the table.
    Item(Base),
    /// A custom resource with this `openAPIV3Schema`.
    Custom(&'s Value),
    /// A place described by a part of such a schema.
    Part(&'s Value),
    /// Nothing: it follows from each value. Maps merge by key, lists are atomic.
    Deduced,
}

/// How a place merges.
#[derive(Clone, Copy, Debug)]
pub(super) enum Atom<'s> {
    Scalar(Scalar),
    /// A map or struct, merged by key unless atomic.
    Map {
        schema: Schema<'s>,
        atomic: bool,
    },
    List(List<'s>),
    Deduced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Number,
    Bool,
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct List<'s> {
    pub kind: Relation<'s>,
    pub element: Schema<'s>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Relation<'s> {
    Atomic,
    Set,
    Keys(Keys<'s>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'s> {
    Table(&'s [&'static str]),
    Custom(&'s Value),
}

impl<'s> Keys<'s> {
    pub fn names(self) -> Vec<&'s str> {
        match self {
            Keys::Table(names) => names.iter().map(|n| &**n).collect(),
            Keys::Custom(names) => names.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        }
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

impl<'s> Schema<'s> {
    pub(super) fn atom(self) -> Atom<'s> {
        match self {
            Schema::Type(ty) => Atom::Map { schema: self, atomic: ty.atomic },
            Schema::Field(f) => match f.form {
                Form::Plain | Form::Pointer => match Schema::Item(f.base).atom() {
                    Atom::Map { schema, atomic } => Atom::Map { schema, atomic: atomic || f.atomic },
                    other => other,
                },
                Form::Map => Atom::Map { schema: self, atomic: f.atomic },
                Form::List => Atom::List(List {
                    kind: match &f.list {
                        ListKind::Atomic => Relation::Atomic,
                        ListKind::Set => Relation::Set,
                        ListKind::Map(keys) => Relation::Keys(Keys::Table(keys)),
                    },
                    element: Schema::Item(f.base),
                }),
            },
            Schema::Item(base) => match base {
                Base::Struct(id) => Schema::Type(id.get()).atom(),
                Base::Str | Base::Bytes => Atom::Scalar(Scalar::String),
                Base::Bool => Atom::Scalar(Scalar::Bool),
                Base::Int32 | Base::Int64 | Base::Double => Atom::Scalar(Scalar::Number),
                Base::Time | Base::MicroTime | Base::Quantity | Base::IntOrString => Atom::Scalar(Scalar::Any),
                Base::StringList => Atom::List(List { kind: Relation::Atomic, element: Schema::Item(Base::Str) }),
                Base::Raw | Base::Fields | Base::Json => Atom::Deduced,
                Base::SchemaOrArray | Base::SchemaOrBool | Base::SchemaOrStrings => Atom::Deduced,
            },
            Schema::Custom(_) => Atom::Map { schema: self, atomic: false },
            Schema::Part(schema) => part(schema),
            Schema::Deduced => Atom::Deduced,
        }
    }

    /// The schema of a field that a struct declares.
    pub(super) fn declared(self, name: &str) -> Option<Schema<'s>> {
        match self {
            Schema::Type(ty) => ty.field_index(name, 0).map(|i| Schema::Field(&ty.fields[i])),
            Schema::Field(f) => match f.form {
                Form::Plain | Form::Pointer => Schema::Item(f.base).declared(name),
                _ => None,
            },
            Schema::Item(Base::Struct(id)) => Schema::Type(id.get()).declared(name),
            Schema::Custom(schema) => match name {
                "apiVersion" | "kind" => Some(Schema::Item(Base::Str)),
                "metadata" => named("meta/v1", "ObjectMeta").map(Schema::Type),
                _ => schema.get("properties").and_then(|p| p.get(name)).map(Schema::Part),
            },
            Schema::Part(schema) => schema.get("properties").and_then(|p| p.get(name)).map(Schema::Part),
            _ => None,
        }
    }

    /// The schema of the values of a map, or of fields that a struct does not declare but lets through.
    pub(super) fn elements(self) -> Option<Schema<'s>> {
        match self {
            Schema::Field(f) if f.form == Form::Map => Some(Schema::Item(f.base)),
            Schema::Deduced => Some(Schema::Deduced),
            Schema::Custom(schema) | Schema::Part(schema) => match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => Some(Schema::Deduced),
                Some(other @ Value::Object(_)) => Some(Schema::Part(other)),
                _ if flag(schema, "x-kubernetes-preserve-unknown-fields")
                    || flag(schema, "x-kubernetes-embedded-resource") =>
                {
                    Some(Schema::Deduced)
                }
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn declares(self, name: &str) -> bool {
        match self.atom() {
            Atom::Map { schema, .. } => schema.declared(name).is_some(),
            _ => false,
        }
    }

    /// The schema below an element, where it can be told without a value.
    pub(super) fn below(self, element: &Element) -> Option<Schema<'s>> {
        match (self.atom(), element) {
            (Atom::Map { schema, .. }, Element::Field(name)) => schema.declared(name).or_else(|| schema.elements()),
            (Atom::List(list), Element::Key(_)) => Some(list.element),
            _ => None,
        }
    }

    /// Whether the place is a map or list that merges as a whole.
    pub(super) fn is_atomic(self) -> bool {
        matches!(self.atom(), Atom::Map { atomic: true, .. } | Atom::List(List { kind: Relation::Atomic, .. }))
    }

    /// The default of a field that is a key.
    pub(super) fn key_default(self, name: &str) -> Option<Value> {
        match self {
            Schema::Item(Base::Struct(id)) => id.get().field(name).and_then(|f| f.default.clone()),
            Schema::Part(schema) => schema.pointer(&format!("/properties/{name}/default")).cloned(),
            _ => None,
        }
    }
}

fn part(schema: &Value) -> Atom<'_> {
    let this = Schema::Part(schema);
    let atomic = schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
    if flag(schema, "x-kubernetes-int-or-string") {
        return Atom::Scalar(Scalar::Any);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Atom::Scalar(Scalar::String),
        Some("integer" | "number") => Atom::Scalar(Scalar::Number),
        Some("boolean") => Atom::Scalar(Scalar::Bool),
        Some("array") => Atom::List(List {
            kind: match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => Relation::Set,
                Some("map") => Relation::Keys(Keys::Custom(&schema["x-kubernetes-list-map-keys"])),
                _ => Relation::Atomic,
            },
            element: schema.get("items").map_or(Schema::Deduced, Schema::Part),
        }),
        Some("object") => Atom::Map { schema: this, atomic },
        _ if schema.get("properties").is_some() => Atom::Map { schema: this, atomic },
        _ => Atom::Deduced,
    }
}

impl<'s> Atom<'s> {
    /// Settles a deduced place by its value.
    pub fn settled(self, value: Option<&Value>) -> Atom<'s> {
        match (self, value) {
            (Atom::Deduced, Some(Value::Array(_))) => {
                Atom::List(List { kind: Relation::Atomic, element: Schema::Deduced })
            }
            (Atom::Deduced, Some(Value::Object(_) | Value::Null) | None) => {
                Atom::Map { schema: Schema::Deduced, atomic: false }
            }
            (Atom::Deduced, Some(_)) => Atom::Scalar(Scalar::Any),
            (atom, _) => atom,
        }
    }
}

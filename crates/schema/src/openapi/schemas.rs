//! Schemas of types, from the table.

use pintle_api::resources::GroupVersion;
use serde_json::{Map, Value, json};

use super::{Flavor, Named, Used, names};
use crate::table::{Base, Field, Form, ListKind, Type};

/// Group-versions whose kinds take the options kinds of meta, for their GVK extensions.
fn option_versions() -> Vec<GroupVersion<'static>> {
    let mut all: Vec<_> = pintle_api::resources::all().iter().map(pintle_api::resources::Resource::group_version).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn gvk(gv: GroupVersion<'_>, kind: &str) -> Value {
    json!({"group": gv.group, "kind": kind, "version": gv.version})
}

/// The schema of a type.
pub(super) fn of_type(flavor: Flavor, t: &'static Type, used: &mut Used) -> Value {
    let mut properties = Map::new();
    if t.is_kind {
        for name in ["apiVersion", "kind"] {
            properties.insert(name.into(), json!({"type": "string"}));
        }
    }
    let mut required = Vec::new();
    for field in &t.fields {
        properties.insert(field.name.to_owned(), of_field(flavor, field, used));
        // What Go always writes and cannot be null must be there.
        if field.always_written() && field.written == crate::table::Written::Always && is_required(field) {
            required.push(field.name);
        }
    }
    let mut out = Map::new();
    out.insert("type".into(), json!("object"));
    if !properties.is_empty() {
        out.insert("properties".into(), Value::Object(properties));
    }
    if !required.is_empty() {
        required.sort_unstable();
        out.insert("required".into(), json!(required));
    }
    if t.atomic {
        out.insert("x-kubernetes-map-type".into(), json!("atomic"));
    }
    if t.is_kind {
        let all: Vec<Value> = match t.name {
            "DeleteOptions" | "WatchEvent" => option_versions().into_iter().map(|gv| gvk(gv, t.name)).collect(),
            _ if t.package == "meta/v1" => vec![gvk(GroupVersion { group: "", version: "v1" }, t.name)],
            _ => vec![gvk(GroupVersion::parse(t.api_version), t.name)],
        };
        out.insert("x-kubernetes-group-version-kind".into(), Value::Array(all));
    }
    Value::Object(out)
}

fn is_required(field: &Field) -> bool {
    field.form != Form::Map && (field.form != Form::List || matches!(field.name, "items" | "containers"))
}

/// A schema that is no struct of the table.
pub(super) fn special(flavor: Flavor, name: &str) -> Value {
    match (name, flavor) {
        (names::QUANTITY, Flavor::V2) => json!({"type": "string"}),
        (names::QUANTITY, Flavor::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (names::INT_OR_STRING, Flavor::V2) => json!({"type": "string", "format": "int-or-string"}),
        (names::INT_OR_STRING, Flavor::V3) => {
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
        }
        (names::TIME | names::MICRO_TIME, _) => json!({"type": "string", "format": "date-time"}),
        (names::RAW | names::FIELDS | names::PATCH, _) => json!({"type": "object"}),
        _ => json!({}),
    }
}

/// The schema of a value, without what its field adds.
fn of_base(flavor: Flavor, base: Base, used: &mut Used) -> Value {
    let named = match base {
        Base::Str => return json!({"type": "string"}),
        Base::Bool => return json!({"type": "boolean"}),
        Base::Int32 => return json!({"type": "integer", "format": "int32"}),
        Base::Int64 => return json!({"type": "integer", "format": "int64"}),
        Base::Double => return json!({"type": "number", "format": "double"}),
        Base::Bytes => return json!({"type": "string", "format": "byte"}),
        Base::StringList => return json!({"type": "array", "items": {"type": "string"}}),
        Base::Time => Named::Special(names::TIME),
        Base::MicroTime => Named::Special(names::MICRO_TIME),
        Base::Quantity => Named::Special(names::QUANTITY),
        Base::IntOrString => Named::Special(names::INT_OR_STRING),
        Base::Raw => Named::Special(names::RAW),
        Base::Fields => Named::Special(names::FIELDS),
        Base::Json => Named::Special(names::JSON),
        Base::SchemaOrArray => Named::Special(names::OR_ARRAY),
        Base::SchemaOrBool => Named::Special(names::OR_BOOL),
        Base::SchemaOrStrings => Named::Special(names::OR_STRINGS),
        Base::Struct(id) => Named::Type(id.get()),
    };
    let name = used.add(named);
    json!({"$ref": flavor.reference(&name)})
}

/// The schema of a field.
fn of_field(flavor: Flavor, field: &Field, used: &mut Used) -> Value {
    let item = of_base(flavor, field.base, used);
    let mut out = match field.form {
        Form::Plain | Form::Pointer => item,
        Form::List => json!({"type": "array", "items": item}),
        Form::Map => json!({"type": "object", "additionalProperties": item}),
    };
    let mut extra = Map::new();
    if let Some(default) = &field.default {
        extra.insert("default".into(), default.clone());
    } else if flavor == Flavor::V3 && field.always_written() && field.form == Form::Plain {
        let zero = match field.base {
            Base::Struct(_) | Base::Quantity | Base::Time => None,
            base => Some(base.zero()).filter(|z| !z.is_null()),
        };
        extra.extend(zero.map(|z| ("default".into(), z)));
    }
    if field.form == Form::List {
        let (kind, keys) = match &field.list {
            ListKind::Atomic => ("atomic", None),
            ListKind::Set => ("set", None),
            ListKind::Map(keys) => ("map", Some(keys)),
        };
        extra.insert("x-kubernetes-list-type".into(), json!(kind));
        if let Some(keys) = keys {
            extra.insert("x-kubernetes-list-map-keys".into(), json!(keys));
        }
    } else if field.atomic {
        extra.insert("x-kubernetes-map-type".into(), json!("atomic"));
    }
    let strategy = [(field.merge, "merge"), (field.retain_keys, "retainKeys")];
    let strategy: Vec<&str> = strategy.into_iter().filter(|(on, _)| *on).map(|(_, s)| s).collect();
    if !strategy.is_empty() {
        extra.insert("x-kubernetes-patch-strategy".into(), json!(strategy.join(",")));
    }
    if let Some(key) = field.merge_key {
        extra.insert("x-kubernetes-patch-merge-key".into(), json!(key));
    }
    if extra.is_empty() {
        return out;
    }
    // Beside a reference nothing else may stand.
    if flavor == Flavor::V3 && out.get("$ref").is_some() {
        out = json!({"allOf": [out]});
    }
    if let Value::Object(map) = &mut out {
        map.extend(extra);
    }
    out
}

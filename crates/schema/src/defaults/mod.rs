//! Defaults: the constant ones stand in the table beside their fields, the computed ones are functions by type.
//!
//! The walk goes by type, so that a pod template gets its defaults wherever it is. A struct gets its constants first,
//! then its function, then its parts.

mod kinds;
mod pod;

use crate::table::{Field, Form, Type, Written, types};
use serde_json::{Map, Value};
use std::sync::LazyLock;

type Object = Map<String, Value>;

/// Sets what the object leaves open, as upstream does on decoding.
pub fn apply_defaults(value: &mut Value, ty: &'static Type) {
    apply_defaults_at(value, ty, "");
}

/// As [`apply_defaults`], with the present time (as the API writes it) for the one default that needs it, the
/// `timeAdded` of a device taint; "" leaves it open.
pub fn apply_defaults_at(value: &mut Value, ty: &'static Type, now: &str) {
    if let Value::Object(object) = value {
        walk(object, ty, now);
    }
}

/// What there is to do for each type, by its number.
struct Plan {
    constants: Vec<&'static Field>,
    hook: Option<fn(&mut Object, &str)>,
    /// Fields below which there is something to do.
    below: Vec<&'static Field>,
    resources: Vec<&'static Field>,
}

static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let mut plans: Vec<Plan> = types()
        .map(|t| Plan {
            constants: t.fields.iter().filter(|f| f.default.as_ref().is_some_and(|d| matters(f, d))).collect(),
            hook: kinds::hook(t),
            below: vec![],
            resources: t.fields.iter().filter(|f| f.go_type() == "v1.ResourceList").collect(),
        })
        .collect();
    // A type is busy when it or a part of it is; parts are added until nothing changes.
    let mut busy: Vec<bool> =
        plans.iter().map(|p| !p.constants.is_empty() || p.hook.is_some() || !p.resources.is_empty()).collect();
    let index = |f: &Field| f.struct_type().map(Type::index);
    loop {
        let before = busy.iter().filter(|b| **b).count();
        for t in types() {
            if t.fields.iter().any(|f| index(f).is_some_and(|i| busy[i])) {
                busy[t.index()] = true;
            }
        }
        if busy.iter().filter(|b| **b).count() == before {
            break;
        }
    }
    for t in types() {
        plans[t.index()].below = t.fields.iter().filter(|f| index(f).is_some_and(|i| busy[i])).collect();
    }
    plans
});

/// A default that is the zero value of a field that is never absent changes nothing.
fn matters(field: &Field, default: &Value) -> bool {
    !(field.form == Form::Plain && field.written != Written::Always && is_zero(default))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn walk(object: &mut Object, ty: &'static Type, now: &str) {
    let plan = &PLANS[ty.index()];
    for field in &plan.constants {
        let unset = match object.get(field.name) {
            None | Some(Value::Null) => true,
            Some(value) if field.form == Form::Plain => is_zero(value),
            Some(Value::Array(a)) => a.is_empty(),
            Some(_) => false,
        };
        if let (true, Some(default)) = (unset, &field.default) {
            object.insert(field.name.to_owned(), default.clone());
        }
    }
    if let Some(hook) = plan.hook {
        hook(object, now);
    }
    for field in &plan.resources {
        if let Some(Value::Object(list)) = object.get_mut(field.name) {
            round_to_milli(list);
        }
    }
    for field in &plan.below {
        let Some(ty) = field.struct_type() else { continue };
        match object.get_mut(field.name) {
            Some(Value::Object(map)) if field.form == Form::Map => {
                for value in map.values_mut() {
                    if let Value::Object(o) = value {
                        walk(o, ty, now);
                    }
                }
            }
            Some(Value::Object(o)) => walk(o, ty, now),
            Some(Value::Array(items)) => {
                for value in items {
                    if let Value::Object(o) = value {
                        walk(o, ty, now);
                    }
                }
            }
            // An absent struct is a zero one to Go, and gets its defaults.
            None | Some(Value::Null) if field.form == Form::Plain => {
                let mut zero = match ty.zero() {
                    Value::Object(o) => o.clone(),
                    _ => Object::new(),
                };
                walk(&mut zero, ty, now);
                object.insert(field.name.to_owned(), Value::Object(zero));
            }
            _ => {}
        }
    }
}

/// Resources finer than a thousandth are rounded up.
fn round_to_milli(list: &mut Object) {
    use pintle_api::quantity::Quantity;
    for value in list.values_mut() {
        let rounded = value.as_str().and_then(|s| Quantity::parse(s).ok()).map(|q| q.round_up(-3));
        if let Some((rounded, false)) = rounded {
            *value = Value::from(rounded.to_string());
        }
    }
}

/// The object at `name`, if there.
fn object<'a>(of: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    of.get_mut(name).and_then(Value::as_object_mut)
}

/// The object at `name`, made if absent.
fn made<'a>(of: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    let slot = of.entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Object::new());
    }
    slot.as_object_mut()
}

/// The objects in the list at `name`.
fn items<'a>(of: &'a mut Object, name: &str) -> impl Iterator<Item = &'a mut Object> {
    of.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The string at `name`, or "".
fn text<'a>(of: &'a Object, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or("")
}

/// True where there is nothing, or null.
fn absent(of: &Object, name: &str) -> bool {
    of.get(name).is_none_or(Value::is_null)
}

/// True where there is nothing, or an empty string, list or map.
fn empty(of: &Object, name: &str) -> bool {
    match of.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        Some(Value::Object(o)) => o.is_empty(),
        Some(_) => false,
    }
}

/// Sets `name` where it is absent.
fn default(of: &mut Object, name: &str, value: impl Into<Value>) {
    if absent(of, name) {
        of.insert(name.to_owned(), value.into());
    }
}

/// Sets `name` where it is absent or empty.
fn default_empty(of: &mut Object, name: &str, value: impl Into<Value>) {
    if empty(of, name) {
        of.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests;

//! From a value to a body.

use super::wire::{FIXED64, Writer};
use crate::b64::STANDARD;
use crate::table::{Base, Field, Form, Member, Type, named};
use crate::time;
use base64::Engine;
use serde_json::Value;

/// The body of an object: what the envelope holds.
pub fn to_body(value: &Value, ty: &'static Type) -> Vec<u8> {
    let mut out = Body::with_capacity(1024);
    struct_body(&mut out, Some(value), ty);
    out.out.finish()
}

/// What `write` writes of a value that is read from JSON text.
pub(super) fn part<'v>(capacity: usize, write: impl FnOnce(&mut Body<'v>)) -> Writer {
    let mut out = Body::with_capacity(capacity);
    write(&mut out);
    out.out
}

/// A body being written, and the values of the structs being written, each in the order of its type's fields.
pub(super) struct Body<'v> {
    out: Writer,
    slots: Vec<Option<&'v Value>>,
}

impl Body<'_> {
    fn with_capacity(capacity: usize) -> Self {
        Body { out: Writer::with_capacity(capacity), slots: vec![] }
    }
}

impl std::ops::Deref for Body<'_> {
    type Target = Writer;
    fn deref(&self) -> &Writer {
        &self.out
    }
}

impl std::ops::DerefMut for Body<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.out
    }
}

fn struct_body<'v>(out: &mut Body<'v>, value: Option<&'v Value>, ty: &'static Type) {
    let base = out.slots.len();
    out.slots.resize(base + ty.fields.len(), None);
    let mut next = 0;
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        if let Some(at) = ty.field_index(key, next) {
            out.slots[base + at] = Some(value).filter(|v| !v.is_null());
            next = at + 1;
        }
    }
    message(out, base, ty);
    out.slots.truncate(base);
}

/// Writes a message whose fields' values stand from `base` on, in the order of the type's fields.
fn message<'v>(out: &mut Body<'v>, base: usize, ty: &'static Type) {
    for member in ty.message.iter().rev() {
        match *member {
            Member::Field(at) => {
                let value = out.slots[base + usize::from(at)];
                field(out, value, &ty.fields[usize::from(at)]);
            }
            Member::Inline { number, ty, start } => {
                let end = out.len();
                message(out, base + usize::from(start), ty.get());
                out.length_field(number, end);
            }
        }
    }
}

/// Writes a field that is there or absent.
pub(super) fn field<'v>(out: &mut Body<'v>, value: Option<&'v Value>, f: &Field) {
    match (f.form, value) {
        // No bytes and no wrapped list are nil to Go, and not written.
        (Form::Plain, None) if matches!(f.base, Base::Bytes | Base::StringList) => {}
        (Form::Plain, value) => item(out, f.number, value, f.base),
        (Form::Pointer, Some(value)) => item(out, f.number, Some(value), f.base),
        (Form::List, Some(list)) => {
            for value in items(list).rev() {
                item(out, f.number, Some(value), f.base);
            }
        }
        (Form::Map, Some(map)) => {
            let mut entries: Vec<_> = map.as_object().into_iter().flatten().collect();
            if !entries.is_sorted_by(|a, b| a.0 <= b.0) {
                entries.sort_by(|a, b| a.0.cmp(b.0));
            }
            for (key, value) in entries.into_iter().rev() {
                let end = out.len();
                item(out, 2, Some(value), f.base);
                out.bytes_field(1, key.as_bytes());
                out.length_field(f.number, end);
            }
        }
        (Form::Pointer | Form::List | Form::Map, None) => {}
    }
}

fn schema() -> Option<&'static Type> {
    named("apiextensions/v1", "JSONSchemaProps")
}

/// Writes one value, with its tag; without a value, the zero value.
pub(super) fn item<'v>(out: &mut Body<'v>, number: u32, value: Option<&'v Value>, base: Base) {
    let value = value.filter(|v| !v.is_null());
    match base {
        Base::Str => out.bytes_field(number, text(value, "").as_bytes()),
        Base::Bool => out.varint_field(number, u64::from(value.and_then(Value::as_bool).unwrap_or(false))),
        Base::Int32 | Base::Int64 => out.varint_field(number, value.and_then(Value::as_i64).unwrap_or(0) as u64),
        Base::Double => {
            out.raw(&value.and_then(Value::as_f64).unwrap_or(0.0).to_le_bytes());
            out.tag(number, FIXED64);
        }
        Base::Bytes => {
            let bytes = STANDARD.decode(text(value, "").as_bytes()).unwrap_or_default();
            out.bytes_field(number, &bytes);
        }
        _ => {
            let end = out.len();
            body_of(out, value, base);
            out.length_field(number, end);
        }
    }
}

fn text<'v>(value: Option<&'v Value>, or: &'static str) -> &'v str {
    value.and_then(Value::as_str).unwrap_or(or)
}

/// The items of a list, none for anything else.
fn items(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// The inside of a value that is a message.
fn body_of<'v>(out: &mut Body<'v>, value: Option<&'v Value>, base: Base) {
    match (base, value) {
        (Base::Struct(id), value) => struct_body(out, value, id.get()),
        (Base::Time | Base::MicroTime, Some(value)) => {
            let micro = base == Base::MicroTime;
            if let Some(Ok(at)) = value.as_str().map(|text| time::parse(text, micro))
                && at != time::ZERO
            {
                out.varint_field(2, if micro { u64::from(at.nanos) } else { 0 });
                out.varint_field(1, at.seconds as u64);
            }
        }
        (Base::Quantity, value) => out.bytes_field(1, text(value, "0").as_bytes()),
        (Base::IntOrString, value) => {
            let string = value.and_then(Value::as_str);
            out.bytes_field(3, string.unwrap_or("").as_bytes());
            out.varint_field(2, value.and_then(Value::as_i64).unwrap_or(0) as u64);
            out.varint_field(1, u64::from(string.is_some()));
        }
        (Base::Raw | Base::Fields | Base::Json, Some(value)) => out.bytes_field(1, value.to_string().as_bytes()),
        (Base::StringList, Some(value)) => strings(out, 1, value),
        (Base::SchemaOrArray, Some(value)) => {
            if value.is_array() {
                for value in items(value).rev() {
                    schema_field(out, 2, value);
                }
            } else {
                schema_field(out, 1, value);
            }
        }
        (Base::SchemaOrBool, Some(value)) => {
            schema_field(out, 2, value);
            out.varint_field(1, u64::from(value.as_bool().unwrap_or(value.is_object())));
        }
        (Base::SchemaOrBool, None) => out.varint_field(1, 0),
        (Base::SchemaOrStrings, Some(value)) => {
            strings(out, 2, value);
            schema_field(out, 1, value);
        }
        // An absent one is an empty message; scalars are no messages.
        _ => {}
    }
}

fn schema_field<'v>(out: &mut Body<'v>, number: u32, value: &'v Value) {
    if let (true, Some(schema)) = (value.is_object(), schema()) {
        let end = out.len();
        struct_body(out, Some(value), schema);
        out.length_field(number, end);
    }
}

fn strings(out: &mut Body<'_>, number: u32, value: &Value) {
    for item in items(value).rev() {
        out.bytes_field(number, text(Some(item), "").as_bytes());
    }
}

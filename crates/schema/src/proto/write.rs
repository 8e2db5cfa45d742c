//! From a value to a body.

use super::wire::{FIXED64, Writer};
use crate::table::{Base, Field, Form, Member, Type, named};
use crate::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

type Slots<'v> = [Option<&'v Value>];

/// The body of an object: what the envelope holds.
pub fn to_body(value: &Value, ty: &'static Type) -> Vec<u8> {
    let mut out = Writer::with_capacity(1024);
    struct_body(&mut out, value, ty);
    out.finish()
}

fn struct_body(out: &mut Writer, value: &Value, ty: &'static Type) {
    let mut slots = [None; 64];
    if let Value::Object(map) = value {
        let mut next = 0;
        for (key, value) in map {
            if let Some(at) = ty.field_index(key, next) {
                slots[at] = Some(value).filter(|v| !v.is_null());
                next = at + 1;
            }
        }
    }
    message(out, &slots, ty);
}

/// Writes a message whose fields' values stand in `slots`, in the order of the type's fields.
fn message(out: &mut Writer, slots: &Slots<'_>, ty: &'static Type) {
    for member in ty.message.iter().rev() {
        match *member {
            Member::Field(at) => field(out, slots[usize::from(at)], &ty.fields[usize::from(at)]),
            Member::Inline { number, ty, start } => {
                let end = out.len();
                message(out, &slots[usize::from(start)..], ty.get());
                out.length_field(number, end);
            }
        }
    }
}

fn field(out: &mut Writer, value: Option<&Value>, f: &Field) {
    match (f.form, value) {
        // No bytes and no wrapped list are nil to Go, and not written.
        (Form::Plain, None) if matches!(f.base, Base::Bytes | Base::StringList) => {}
        (Form::Plain, value) => item(out, f.number, value.unwrap_or(&Value::Null), f.base),
        (Form::Pointer, Some(value)) => item(out, f.number, value, f.base),
        (Form::List, Some(Value::Array(items))) => {
            for value in items.iter().rev() {
                item(out, f.number, value, f.base);
            }
        }
        (Form::Map, Some(Value::Object(map))) => {
            for (key, value) in sorted(map).into_iter().rev() {
                let end = out.len();
                item(out, 2, value, f.base);
                out.bytes_field(1, key.as_bytes());
                out.length_field(f.number, end);
            }
        }
        _ => {}
    }
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|e| e.0);
    entries
}

fn schema() -> Option<&'static Type> {
    named("apiextensions/v1", "JSONSchemaProps")
}

/// One value, with its tag.
fn item(out: &mut Writer, number: u32, value: &Value, base: Base) {
    match base {
        Base::Str => out.bytes_field(number, value.as_str().unwrap_or("").as_bytes()),
        Base::Bool => out.varint_field(number, u64::from(value.as_bool().unwrap_or(false))),
        Base::Int32 | Base::Int64 => out.varint_field(number, value.as_i64().unwrap_or(0) as u64),
        Base::Double => {
            out.raw(&value.as_f64().unwrap_or(0.0).to_le_bytes());
            out.tag(number, FIXED64);
        }
        Base::Bytes => {
            let bytes = STANDARD.decode(value.as_str().unwrap_or("")).unwrap_or_default();
            out.bytes_field(number, &bytes);
        }
        _ => {
            let end = out.len();
            body_of(out, value, base);
            out.length_field(number, end);
        }
    }
}

/// The inside of a value that is a message.
fn body_of(out: &mut Writer, value: &Value, base: Base) {
    match base {
        Base::Struct(id) => struct_body(out, value, id.get()),
        Base::Time | Base::MicroTime => {
            let micro = base == Base::MicroTime;
            if let Some(Ok(at)) = value.as_str().map(|text| time::parse(text, micro))
                && at != time::ZERO
            {
                out.varint_field(2, if micro { u64::from(at.nanos) } else { 0 });
                out.varint_field(1, at.seconds as u64);
            }
        }
        Base::Quantity => out.bytes_field(1, value.as_str().unwrap_or("0").as_bytes()),
        Base::IntOrString => {
            let text = value.as_str();
            out.bytes_field(3, text.unwrap_or("").as_bytes());
            out.varint_field(2, value.as_i64().unwrap_or(0) as u64);
            out.varint_field(1, u64::from(text.is_some()));
        }
        Base::Raw | Base::Fields | Base::Json => {
            if !value.is_null() {
                out.bytes_field(1, value.to_string().as_bytes());
            }
        }
        Base::StringList => strings(out, 1, value),
        Base::SchemaOrArray => match value {
            Value::Array(items) => {
                for value in items.iter().rev() {
                    schema_field(out, 2, value);
                }
            }
            _ => schema_field(out, 1, value),
        },
        Base::SchemaOrBool => {
            schema_field(out, 2, value);
            out.varint_field(1, u64::from(value.as_bool().unwrap_or(value.is_object())));
        }
        Base::SchemaOrStrings => {
            strings(out, 2, value);
            schema_field(out, 1, value);
        }
        // Scalars are no messages.
        Base::Str | Base::Bool | Base::Int32 | Base::Int64 | Base::Double | Base::Bytes => {}
    }
}

fn schema_field(out: &mut Writer, number: u32, value: &Value) {
    if let (true, Some(schema)) = (value.is_object(), schema()) {
        let end = out.len();
        struct_body(out, value, schema);
        out.length_field(number, end);
    }
}

fn strings(out: &mut Writer, number: u32, value: &Value) {
    for item in value.as_array().into_iter().flatten().rev() {
        out.bytes_field(number, item.as_str().unwrap_or("").as_bytes());
    }
}

//! From a value to a body.

use super::ProtoError;
use super::tape::{Node, Tape};
use super::wire::{FIXED64, Writer};
use crate::table::{Base, Field, Form, Member, Type, named};
use crate::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::borrow::Cow;

/// The body of an object: what the envelope holds.
pub fn to_body(value: &Value, ty: &'static Type) -> Vec<u8> {
    let mut out = Body { out: Writer::with_capacity(1024), slots: vec![] };
    struct_body(&mut out, Some(value), ty);
    out.out.finish()
}

/// The body of an object that is given as JSON text, without making a tree of it.
pub fn json_to_body(text: &[u8], ty: &'static Type) -> Result<Vec<u8>, ProtoError> {
    let tape = Tape::read(text).map_err(|e| ProtoError::new(e.to_string()))?;
    let mut out = Body { out: Writer::with_capacity(text.len() * 3 / 4), slots: Vec::with_capacity(128) };
    struct_body(&mut out, Some(tape.root()), ty);
    Ok(out.out.finish())
}

/// A body being written, and the values of the structs being written, each in the order of its type's fields.
struct Body<N> {
    out: Writer,
    slots: Vec<Option<N>>,
}

impl<N> std::ops::Deref for Body<N> {
    type Target = Writer;
    fn deref(&self) -> &Writer {
        &self.out
    }
}

impl<N> std::ops::DerefMut for Body<N> {
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.out
    }
}

fn struct_body<'v, N: Node<'v>>(out: &mut Body<N>, value: Option<N>, ty: &'static Type) {
    let base = out.slots.len();
    out.slots.resize(base + ty.fields.len(), None);
    if let Some(value) = value {
        let mut next = 0;
        value.each_entry(|key, value| {
            if let Some(at) = ty.field_index(key, next) {
                out.slots[base + at] = Some(value).filter(|v| !v.is_null());
                next = at + 1;
            }
        });
    }
    message(out, base, ty);
    out.slots.truncate(base);
}

/// Writes a message whose fields' values stand from `base` on, in the order of the type's fields.
fn message<'v, N: Node<'v>>(out: &mut Body<N>, base: usize, ty: &'static Type) {
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

fn field<'v, N: Node<'v>>(out: &mut Body<N>, value: Option<N>, f: &Field) {
    match (f.form, value) {
        // No bytes and no wrapped list are nil to Go, and not written.
        (Form::Plain, None) if matches!(f.base, Base::Bytes | Base::StringList) => {}
        (Form::Plain, value) => item(out, f.number, value, f.base),
        (Form::Pointer, Some(value)) => item(out, f.number, Some(value), f.base),
        (Form::List, Some(list)) => {
            for value in list.items().into_iter().rev() {
                item(out, f.number, Some(value), f.base);
            }
        }
        (Form::Map, Some(map)) => {
            let mut entries = map.entries();
            if !entries.is_sorted_by(|a, b| a.0 <= b.0) {
                entries.sort_by(|a, b| a.0.cmp(&b.0));
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

/// One value, with its tag; without a value, the zero value.
fn item<'v, N: Node<'v>>(out: &mut Body<N>, number: u32, value: Option<N>, base: Base) {
    let value = value.filter(|v| !v.is_null());
    match base {
        Base::Str => out.bytes_field(number, text(value, "").as_bytes()),
        Base::Bool => out.varint_field(number, u64::from(value.and_then(N::as_bool).unwrap_or(false))),
        Base::Int32 | Base::Int64 => out.varint_field(number, value.and_then(N::as_i64).unwrap_or(0) as u64),
        Base::Double => {
            out.raw(&value.and_then(N::as_f64).unwrap_or(0.0).to_le_bytes());
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

fn text<'v, N: Node<'v>>(value: Option<N>, or: &'static str) -> Cow<'v, str> {
    value.and_then(N::as_str).unwrap_or(Cow::Borrowed(or))
}

/// The inside of a value that is a message.
fn body_of<'v, N: Node<'v>>(out: &mut Body<N>, value: Option<N>, base: Base) {
    match (base, value) {
        (Base::Struct(id), value) => struct_body(out, value, id.get()),
        (Base::Time | Base::MicroTime, Some(value)) => {
            let micro = base == Base::MicroTime;
            if let Some(Ok(at)) = value.as_str().map(|text| time::parse(&text, micro))
                && at != time::ZERO
            {
                out.varint_field(2, if micro { u64::from(at.nanos) } else { 0 });
                out.varint_field(1, at.seconds as u64);
            }
        }
        (Base::Quantity, value) => out.bytes_field(1, text(value, "0").as_bytes()),
        (Base::IntOrString, value) => {
            let string = value.and_then(N::as_str);
            out.bytes_field(3, string.as_deref().unwrap_or("").as_bytes());
            out.varint_field(2, value.and_then(N::as_i64).unwrap_or(0) as u64);
            out.varint_field(1, u64::from(string.is_some()));
        }
        (Base::Raw | Base::Fields | Base::Json, Some(value)) => out.bytes_field(1, value.text().as_bytes()),
        (Base::StringList, Some(value)) => strings(out, 1, value),
        (Base::SchemaOrArray, Some(value)) => {
            if value.is_array() {
                for value in value.items().into_iter().rev() {
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

fn schema_field<'v, N: Node<'v>>(out: &mut Body<N>, number: u32, value: N) {
    if let (true, Some(schema)) = (value.is_object(), schema()) {
        let end = out.len();
        struct_body(out, Some(value), schema);
        out.length_field(number, end);
    }
}

fn strings<'v, N: Node<'v>>(out: &mut Body<N>, number: u32, value: N) {
    for item in value.items().into_iter().rev() {
        out.bytes_field(number, text(Some(item), "").as_bytes());
    }
}

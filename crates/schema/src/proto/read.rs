//! From a body to a value.

use super::ProtoError;
use super::wire::{BYTES, Reader};
use crate::b64::STANDARD;
use crate::decode::{MAX_DEPTH, decode_raw, kept};
use crate::table::{Base, Field, Form, Member, Type, named};
use crate::time::{self, Instant};
use base64::Engine;
use pintle_api::quantity::Quantity;
use serde_json::{Map, Number, Value};

type Object = Map<String, Value>;

/// An object from its body, as Go would hold it and print it. It has no `kind` and `apiVersion` yet.
pub fn from_body(data: &[u8], ty: &'static Type) -> Result<Value, ProtoError> {
    let mut object = Object::new();
    message(&mut object, data, ty, 0)?;
    finish(&mut object, ty);
    Ok(Value::Object(object))
}

/// Adds what Go always writes.
fn finish(object: &mut Object, ty: &'static Type) {
    for (_, field) in ty.always_written() {
        if !object.contains_key(field.name) {
            object.insert(field.name.to_owned(), field.zero());
        }
    }
}

/// Reads a message into `object`; what is there already is added to, as protobuf has it.
fn message(object: &mut Object, data: &[u8], ty: &'static Type, depth: usize) -> Result<(), ProtoError> {
    if depth > MAX_DEPTH {
        return Err(ProtoError::new("exceeded max depth"));
    }
    let mut reader = Reader::new(data);
    let mut next = 0usize;
    while let Some((number, wire)) = reader.tag(ty.name)? {
        let member_number = |m: &Member| match m {
            Member::Field(at) => ty.fields[usize::from(*at)].number,
            Member::Inline { number, .. } => *number,
        };
        // Fields come in the order of their numbers, mostly: the next one, or the same again.
        let hit = |at: &usize| ty.message.get(*at).is_some_and(|m| member_number(m) == number);
        let at = [next, next.wrapping_sub(1)]
            .into_iter()
            .find(hit)
            .or_else(|| ty.message.binary_search_by_key(&number, member_number).ok());
        let Some(at) = at else {
            reader.skip(wire)?;
            continue;
        };
        next = at + 1;
        match ty.message[at] {
            Member::Field(at) => field(object, &mut reader, wire, ty, &ty.fields[usize::from(at)], depth)?,
            Member::Inline { ty: inner, .. } => {
                let inner = inner.get();
                message(object, reader.bytes(wire, inner.name)?, inner, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn field(
    object: &mut Object,
    reader: &mut Reader<'_>,
    wire: u8,
    ty: &'static Type,
    f: &'static Field,
    depth: usize,
) -> Result<(), ProtoError> {
    match f.form {
        Form::Plain | Form::Pointer => {
            let before = if matches!(f.base, Base::Struct(_)) { object.remove(f.name) } else { None };
            let value = item(reader, wire, f, before, depth)?;
            // Zero values are on the wire; Go would not write them in JSON.
            match kept(ty, f, value) {
                Some(value) => {
                    object.insert(f.name.to_owned(), value);
                }
                None => {
                    object.remove(f.name);
                }
            }
        }
        Form::List => {
            let mut more = vec![];
            if wire == BYTES && matches!(f.base, Base::Int32 | Base::Int64 | Base::Bool) {
                let mut packed = Reader::new(reader.bytes(wire, f.name)?);
                while !packed.at_end() {
                    more.push(scalar(packed.packed()?, f.base));
                }
            } else {
                more.push(item(reader, wire, f, None, depth)?);
            }
            match object.get_mut(f.name) {
                Some(Value::Array(items)) => items.append(&mut more),
                _ if more.is_empty() => {}
                _ => {
                    object.insert(f.name.to_owned(), Value::Array(more));
                }
            }
        }
        Form::Map => {
            let mut entry = Reader::new(reader.bytes(wire, f.name)?);
            let (mut key, mut value) = (String::new(), None);
            while let Some((number, wire)) = entry.tag(f.name)? {
                match number {
                    1 => key = text(entry.bytes(wire, f.name)?),
                    2 => value = Some(item(&mut entry, wire, f, None, depth)?),
                    _ => entry.skip(wire)?,
                }
            }
            let value = value.unwrap_or_else(|| if f.base == Base::Bytes { Value::from("") } else { f.base.zero() });
            let slot = object.entry(f.name).or_insert_with(|| Value::Object(Object::new()));
            if let Value::Object(map) = slot {
                map.insert(key, value);
            }
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scalar(n: u64, base: Base) -> Value {
    match base {
        Base::Bool => Value::from(n != 0),
        Base::Int32 => Value::from(n as i32),
        _ => Value::from(n as i64),
    }
}

fn schema(data: &[u8], before: Option<Value>, depth: usize) -> Result<Value, ProtoError> {
    match named("apiextensions/v1", "JSONSchemaProps") {
        Some(ty) => nested(data, ty, before, depth),
        None => Ok(Value::Null),
    }
}

fn nested(data: &[u8], ty: &'static Type, before: Option<Value>, depth: usize) -> Result<Value, ProtoError> {
    let mut object = match before {
        Some(Value::Object(object)) => object,
        _ => Object::new(),
    };
    message(&mut object, data, ty, depth + 1)?;
    finish(&mut object, ty);
    Ok(Value::Object(object))
}

/// One value of a field.
fn item(
    reader: &mut Reader<'_>,
    wire: u8,
    f: &'static Field,
    before: Option<Value>,
    depth: usize,
) -> Result<Value, ProtoError> {
    match f.base {
        Base::Bool | Base::Int32 | Base::Int64 => return Ok(scalar(reader.number(wire, f.name)?, f.base)),
        Base::Double => {
            let d = reader.double(wire, f.name)?;
            if d.fract() == 0.0 && d.abs() < 9e15 {
                return Ok(Value::from(d as i64));
            }
            return Ok(Number::from_f64(d).map_or(Value::Null, Value::Number));
        }
        _ => {}
    }
    let data = reader.bytes(wire, f.name)?;
    match f.base {
        Base::Str => Ok(Value::from(text(data))),
        Base::Bytes => Ok(Value::from(STANDARD.encode(data))),
        Base::Struct(id) => nested(data, id.get(), before, depth),
        Base::Time | Base::MicroTime => moment(data, f.base == Base::MicroTime),
        Base::Quantity => {
            let mut quantity = Value::from("0");
            fields(data, "QuantityProto", |number, wire, reader| {
                if number != 1 {
                    return reader.skip(wire);
                }
                let text = text(reader.bytes(wire, "String_")?);
                let normal = Quantity::normalize(&text).map_err(|e| ProtoError::new(e.to_string()))?;
                quantity = Value::from(normal.into_owned());
                Ok(())
            })?;
            Ok(quantity)
        }
        Base::IntOrString => {
            let (mut kind, mut int, mut string) = (0, 0, String::new());
            fields(data, "IntOrString", |number, wire, reader| {
                match number {
                    1 => kind = reader.number(wire, "Type")?,
                    2 => int = reader.number(wire, "IntVal")? as i32,
                    3 => string = text(reader.bytes(wire, "StrVal")?),
                    _ => reader.skip(wire)?,
                }
                Ok(())
            })?;
            Ok(if kind == 1 { Value::from(string) } else { Value::from(int) })
        }
        Base::Raw | Base::Fields | Base::Json => {
            let mut value = Value::Null;
            fields(data, "RawExtension", |number, wire, reader| {
                if number != 1 {
                    return reader.skip(wire);
                }
                let raw = reader.bytes(wire, "Raw")?;
                if !raw.is_empty() {
                    let decoded = decode_raw(raw).map_err(|e| ProtoError::new(e.to_string()))?;
                    value = decoded;
                }
                Ok(())
            })?;
            Ok(value)
        }
        Base::StringList => {
            let mut items = vec![];
            fields(data, "ExtraValue", |number, wire, reader| {
                if number != 1 {
                    return reader.skip(wire);
                }
                items.push(Value::from(text(reader.bytes(wire, "Items")?)));
                Ok(())
            })?;
            // Go reads an empty message as an empty list, not as none.
            Ok(Value::Array(items))
        }
        Base::SchemaOrArray | Base::SchemaOrBool | Base::SchemaOrStrings => schema_or(data, f.base, depth),
        Base::Bool | Base::Int32 | Base::Int64 | Base::Double => Ok(Value::Null),
    }
}

fn fields<'a>(
    data: &'a [u8],
    name: &str,
    mut each: impl FnMut(u32, u8, &mut Reader<'a>) -> Result<(), ProtoError>,
) -> Result<(), ProtoError> {
    let mut reader = Reader::new(data);
    while let Some((number, wire)) = reader.tag(name)? {
        each(number, wire, &mut reader)?;
    }
    Ok(())
}

fn moment(data: &[u8], micro: bool) -> Result<Value, ProtoError> {
    if data.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    fields(data, "Timestamp", |number, wire, reader| {
        match number {
            1 => seconds = reader.number(wire, "Seconds")? as i64,
            2 => nanos = reader.number(wire, "Nanos")? as i32,
            _ => reader.skip(wire)?,
        }
        Ok(())
    })?;
    let nanos = if micro { u32::try_from(nanos).unwrap_or(0).min(999_999_999) / 1000 * 1000 } else { 0 };
    let at = Instant { seconds, nanos };
    if at == time::ZERO {
        return Ok(Value::Null);
    }
    let text = time::format(at, micro);
    text.map(Value::from).ok_or_else(|| ProtoError::new("Time.MarshalJSON: year outside of range [0,9999]"))
}

fn schema_or(data: &[u8], base: Base, depth: usize) -> Result<Value, ProtoError> {
    let (mut one, mut list, mut allows) = (None, vec![], false);
    fields(data, "JSONSchemaProps", |number, wire, reader| {
        match (base, number) {
            (Base::SchemaOrBool, 1) => allows = reader.number(wire, "Allows")? != 0,
            (Base::SchemaOrBool, 2) | (Base::SchemaOrArray | Base::SchemaOrStrings, 1) => {
                one = Some(schema(reader.bytes(wire, "Schema")?, one.take(), depth)?);
            }
            (Base::SchemaOrArray, 2) => list.push(schema(reader.bytes(wire, "JSONSchemas")?, None, depth)?),
            (Base::SchemaOrStrings, 2) => list.push(Value::from(text(reader.bytes(wire, "Property")?))),
            _ => reader.skip(wire)?,
        }
        Ok(())
    })?;
    Ok(match (base, one) {
        (Base::SchemaOrBool, None) => Value::from(allows),
        _ if !list.is_empty() => Value::Array(list),
        (_, Some(one)) => one,
        (_, None) => Value::Null,
    })
}

//! Encoding: a value as the canonical JSON of its type, byte for byte as Go prints it: the fields of a struct in the
//! struct's order, the keys of a map sorted, `<`, `>` and `&` escaped, no white space.

use crate::table::{Base, Field, Form, Type, Written, named};
use serde_json::{Map, Value};
use std::io::Write;

/// The canonical JSON of a value of a type of the table. What Go would leave out is left out, what it always writes is
/// written, what the type does not know is dropped.
pub fn encode(value: &Value, ty: &'static Type) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    encode_to(&mut out, value, ty);
    out
}

/// As [`encode`], appending to `out`.
pub fn encode_to(out: &mut Vec<u8>, value: &Value, ty: &'static Type) {
    match value {
        Value::Object(map) => object(out, map, ty),
        _ => object(out, &Map::new(), ty),
    }
}

/// The canonical JSON of a value of no known type, as of a custom resource: keys sorted, and at the top `apiVersion`
/// and `kind` among them, as upstream prints unstructured objects.
pub fn encode_untyped(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    any(&mut out, value);
    out
}

/// How many bytes `"kind":…,"apiVersion":…,` take after the opening brace of an encoded object of a table type. A list
/// prints its items without them.
pub fn type_meta_len(encoded: &[u8]) -> usize {
    let mut at = 1;
    for name in [&b"\"kind\":\""[..], b"\"apiVersion\":\""] {
        let Some(rest) = encoded.get(at..).and_then(|r| r.strip_prefix(name)) else { continue };
        let Some(end) = rest.iter().position(|&b| b == b'"') else { continue };
        at += name.len() + end + 1;
        at += usize::from(encoded.get(at) == Some(&b','));
    }
    at - 1
}

fn object(out: &mut Vec<u8>, map: &Map<String, Value>, ty: &'static Type) {
    let mut values: [Option<&Value>; 64] = [None; 64];
    let mut next = 0;
    for (key, value) in map {
        if let Some(at) = ty.field_index(key, next) {
            values[at] = Some(value);
            next = at + 1;
        }
    }
    out.push(b'{');
    let start = out.len();
    for (at, field) in ty.fields.iter().enumerate() {
        let value = values[at].unwrap_or(&Value::Null);
        if !written(field, value) {
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        // Field names have nothing to escape.
        out.push(b'"');
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b"\":");
        match (field.form, value) {
            (Form::Plain, Value::Null) => item(out, &field.zero(), field.base),
            (Form::Pointer, Value::Null) => out.extend_from_slice(b"null"),
            (Form::Plain | Form::Pointer, value) => item(out, value, field.base),
            (Form::List, Value::Array(items)) if !items.is_empty() || ty.keeps_empty_lists() => {
                list(out, items, field.base);
            }
            (Form::Map, Value::Object(entries)) if !entries.is_empty() || ty.keeps_empty_lists() => {
                entries_of(out, entries, |out, value| item(out, value, field.base));
            }
            _ => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

/// Whether Go writes this field with this value.
fn written(field: &Field, value: &Value) -> bool {
    if field.written == Written::Always {
        return true;
    }
    match value {
        Value::Null => field.always_written(),
        Value::Array(a) => !a.is_empty() || field.form == Form::Pointer,
        Value::Object(o) => !o.is_empty() || field.form != Form::Map,
        Value::String(s) => !s.is_empty() || field.form != Form::Plain || field.always_written(),
        Value::Bool(b) => *b || field.form != Form::Plain,
        Value::Number(n) => n.as_f64() != Some(0.0) || field.form != Form::Plain || field.always_written(),
    }
}

fn list(out: &mut Vec<u8>, items: &[Value], base: Base) {
    out.push(b'[');
    for (i, value) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(out, value, base);
    }
    out.push(b']');
}

fn item(out: &mut Vec<u8>, value: &Value, base: Base) {
    match (base, value) {
        (Base::Struct(id), Value::Object(map)) => object(out, map, id.get()),
        (Base::SchemaOrArray | Base::SchemaOrBool | Base::SchemaOrStrings, Value::Object(map)) => {
            if let Some(schema) = named("apiextensions/v1", "JSONSchemaProps") {
                object(out, map, schema);
            }
        }
        (Base::SchemaOrArray, Value::Array(items)) => {
            if let Some(schema) = named("apiextensions/v1", "JSONSchemaProps") {
                list(out, items, Base::Struct(schema.id));
            }
        }
        (Base::Struct(id), Value::Null) => object(out, &Map::new(), id.get()),
        (Base::Str, Value::Null) => out.extend_from_slice(b"\"\""),
        (_, value) => any(out, value),
    }
}

/// Entries sorted by key, whatever order the map is in.
fn entries_of(out: &mut Vec<u8>, map: &Map<String, Value>, write: impl Fn(&mut Vec<u8>, &Value)) {
    out.push(b'{');
    let mut first = true;
    let mut one = |(key, value): (&String, &Value)| {
        if !first {
            out.push(b',');
        }
        first = false;
        string(out, key);
        out.push(b':');
        write(out, value);
    };
    if map.keys().zip(map.keys().skip(1)).all(|(a, b)| a <= b) {
        map.iter().for_each(&mut one);
    } else {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_unstable_by_key(|e| e.0);
        entries.into_iter().for_each(&mut one);
    }
    out.push(b'}');
}

fn any(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Number(n) => number(out, n),
        Value::String(s) => string(out, s),
        Value::Array(items) => list(out, items, Base::Json),
        Value::Object(map) => entries_of(out, map, any),
    }
}

/// A number as Go prints it: integers as they are, floats in the shortest form, with an exponent only when they are
/// very large or very small.
fn number(out: &mut Vec<u8>, n: &serde_json::Number) {
    // Writing to a vector cannot fail.
    let _ = match n.as_f64() {
        Some(f) if n.is_f64() && f != 0.0 && !(1e-6..1e21).contains(&f.abs()) => {
            let text = format!("{f:e}");
            match text.split_once('e') {
                Some((digits, exponent)) if exponent.starts_with('-') => {
                    write!(out, "{digits}e-{:0>2}", &exponent[1..])
                }
                Some((digits, exponent)) => write!(out, "{digits}e+{exponent:0>2}"),
                None => write!(out, "{text}"),
            }
        }
        Some(f) if n.is_f64() && f.fract() == 0.0 => write!(out, "{f:.0}"),
        _ => write!(out, "{n}"),
    };
}

/// What each byte needs: 0 nothing, else the letter of its short escape, or `u`.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = b'u';
        i += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'<' as usize] = b'u';
    table[b'>' as usize] = b'u';
    table[b'&' as usize] = b'u';
    // The first byte of U+2028 and U+2029, which are looked at more closely.
    table[0xe2] = b'?';
    table
};

/// Appends a JSON string with Go's escapes.
pub fn string(out: &mut Vec<u8>, s: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut start = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(b)];
        if escape == 0 {
            continue;
        }
        if escape == b'?' {
            if bytes.get(i + 1) == Some(&0x80) && matches!(bytes.get(i + 2), Some(0xa8 | 0xa9)) {
                out.extend_from_slice(&bytes[start..i]);
                out.extend_from_slice(if bytes[i + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                start = i + 3;
            }
            continue;
        }
        out.extend_from_slice(&bytes[start..i]);
        out.push(b'\\');
        out.push(escape);
        if escape == b'u' {
            out.extend_from_slice(&[b'0', b'0', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
        start = i + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::kind;
    use serde_json::json;

    #[test]
    fn fields_are_in_order() {
        let check = |api_version: &str, name: &str, value: Value, expect: &str| {
            let got = encode(&value, kind(api_version, name).unwrap());
            assert_eq!(String::from_utf8(got).unwrap(), expect);
        };
        check(
            "v1",
            "Pod",
            json!({"status": {}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [], "stdin": false}], "restartPolicy": "Never"},
                   "metadata": {"uid": "u", "name": "n", "labels": {"b": "2", "a": "<&>"}}, "apiVersion": "v1", "kind": "Pod", "what": 1}),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n","uid":"u","labels":{"a":"\u003c\u0026\u003e","b":"2"}},"spec":{"containers":[{"name":"c","image":"i","resources":{}}],"restartPolicy":"Never"},"status":{}}"#,
        );
        check(
            "apps/v1",
            "DaemonSet",
            json!({"spec": {"selector": null, "template": {"spec": {"containers": [null]}}}}),
            r#"{"metadata":{},"spec":{"selector":null,"template":{"metadata":{},"spec":{"containers":[{"name":"","resources":{}}]}},"updateStrategy":{}},"status":{"currentNumberScheduled":0,"numberMisscheduled":0,"desiredNumberScheduled":0,"numberReady":0}}"#,
        );
        check("v1", "Service", json!({}), r#"{"metadata":{},"spec":{},"status":{"loadBalancer":{}}}"#);
        check(
            "v1",
            "Event",
            json!({}),
            r#"{"metadata":{},"involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":""}"#,
        );
    }

    #[test]
    fn strings_and_numbers_are_gos() {
        let check = |value: Value, expect: &str| {
            assert_eq!(String::from_utf8(encode_untyped(&value)).unwrap(), expect);
        };
        let text = "a\"\\/\n\r\t\x08\x0c\x01\x7f\u{2028}\u{2029}é—";
        check(json!(text), "\"a\\\"\\\\/\\n\\r\\t\\b\\f\\u0001\x7f\\u2028\\u2029é—\"");
        check(json!([1, -1, 1.5, 1e-7, 1e21, 1e20, 0.0]), "[1,-1,1.5,1e-07,1e+21,100000000000000000000,0]");
    }

    #[test]
    fn type_meta_is_at_the_front() {
        let check = |text: &str, rest: &str| {
            let cut = type_meta_len(text.as_bytes());
            assert_eq!(format!("{{{}", &text[1 + cut..]), rest);
        };
        check(r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#, r#"{"metadata":{}}"#);
        check(r#"{"metadata":{}}"#, r#"{"metadata":{}}"#);
        check(r#"{"kind":"Pod"}"#, "{}");
    }
}

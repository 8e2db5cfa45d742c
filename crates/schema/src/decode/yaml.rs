//! YAML as Kubernetes reads it: made into JSON by the rules of YAML 1.1 as Go's library has them (`yes` is a boolean,
//! `0777` is octal, a time is a string, keys become strings).

use super::{DecodeError, MAX_DEPTH};
use crate::quote::quoted;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;

/// How many values aliases may add to a document.
const MAX_ALIASED: usize = 100_000;

type Input<'a> = Parser<'a, StrInput<'a>>;

struct Reader<'a> {
    parser: Input<'a>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
    duplicates: Vec<String>,
}

/// The first document of a text as JSON, and upstream's complaint about duplicate keys, or "".
pub fn yaml_to_value(data: &[u8]) -> Result<(Value, String), DecodeError> {
    let text = std::str::from_utf8(data).map_err(|_| DecodeError::syntax("yaml: invalid leading UTF-8 octet"))?;
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), aliased: 0, duplicates: vec![] };
    let value = loop {
        match reader.next()? {
            (Event::StreamEnd, _) => break Value::Null,
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            (event, span) => break reader.node(event, span, 0)?,
        }
    };
    let duplicates = match reader.duplicates.as_slice() {
        [] => String::new(),
        lines => format!("yaml: unmarshal errors:\n  {}", lines.join("\n  ")),
    };
    Ok((value, duplicates))
}

fn failed(error: &ScanError) -> DecodeError {
    DecodeError::syntax(format!("yaml: line {}: {}", error.marker().line(), error.info()))
}

fn plain_error(message: &str) -> DecodeError {
    DecodeError::syntax(format!("yaml: {message}"))
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), DecodeError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => Err(failed(&e)),
            None => Err(plain_error("unexpected end of the document")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(plain_error("exceeded max depth"));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, scalar(&text, style, tag.as_deref()).map_err(|e| line_error(span, &e))?)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                let value = value.ok_or_else(|| line_error(span, "anchor contains itself"))?;
                self.aliased += count(&value);
                if self.aliased > MAX_ALIASED {
                    return Err(plain_error("document contains excessive aliasing"));
                }
                return Ok(value);
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = vec![];
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                (anchor, Value::Array(items))
            }
            Event::MappingStart(_, anchor, _) => (anchor, Value::Object(self.map(depth)?)),
            _ => return Err(line_error(span, "did not find expected node content")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn map(&mut self, depth: usize) -> Result<Map<String, Value>, DecodeError> {
        let mut map = Map::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(map);
            }
            let merge = matches!(&event, Event::Scalar(s, ScalarStyle::Plain, _, None) if s == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let line = span.start.line();
            let value = self.node(event, span, depth + 1)?;
            if merge {
                merge_into(&mut map, value).map_err(|e| line_error(span, e))?;
                continue;
            }
            let (name, shown) = match &key {
                Value::String(s) => (s.clone(), quoted(s)),
                Value::Number(n) => (n.to_string(), n.to_string()),
                Value::Bool(b) => (b.to_string(), b.to_string()),
                _ => return Err(plain_error(&format!("unsupported map key: {key}"))),
            };
            if map.insert(name, value).is_some() {
                self.duplicates.push(format!("line {line}: key {shown} already set in map"));
            }
        }
    }
}

fn line_error(span: Span, message: &str) -> DecodeError {
    DecodeError::syntax(format!("yaml: line {}: {message}", span.start.line()))
}

fn merge_into(map: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    match value {
        Value::Object(other) => {
            map.extend(other);
            Ok(())
        }
        // Of several, the first wins.
        Value::Array(others) => others.into_iter().rev().try_for_each(|other| match other {
            Value::Object(other) => {
                map.extend(other);
                Ok(())
            }
            _ => Err("map merge requires map or sequence of maps as the value"),
        }),
        _ => Err("map merge requires map or sequence of maps as the value"),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(a) => a.iter().map(count).sum(),
        Value::Object(o) => o.values().map(count).sum(),
        _ => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let core = tag.filter(|t| t.handle() == "tag:yaml.org,2002:").map(Tag::suffix);
    let plain = style == ScalarStyle::Plain;
    match core {
        Some("str" | "timestamp") => Ok(Value::from(text)),
        Some("binary") => {
            use base64::Engine;
            let clean: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            let bytes = crate::b64::STANDARD.decode(clean);
            let bytes = bytes.map_err(|_| "!!binary value contains invalid base64 data".to_owned())?;
            Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Some(kind @ ("int" | "float" | "bool" | "null")) => {
            let value = resolve(text)?;
            let fits = match (&value, kind) {
                (Value::Number(n), "int") => !n.is_f64(),
                (Value::Number(_), "float") | (Value::Bool(_), "bool") | (Value::Null, "null") => true,
                _ => false,
            };
            if fits { Ok(value) } else { Err(format!("cannot decode !!str `{text}` as a !!{kind}")) }
        }
        _ if tag.is_none() && plain => resolve(text),
        _ => Ok(Value::from(text)),
    }
}

/// What a plain scalar stands for.
fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return unsupported("+Inf"),
        "-.inf" | "-.Inf" | "-.INF" => return unsupported("-Inf"),
        ".nan" | ".NaN" | ".NAN" => return unsupported("NaN"),
        _ => {}
    }
    if !matches!(text.as_bytes()[0], b'0'..=b'9' | b'+' | b'-' | b'.') {
        return Ok(Value::from(text));
    }
    let plain = text.replace('_', "");
    if let Some(value) = integer(&plain) {
        return Ok(value);
    }
    if looks_like_float(&plain)
        && let Ok(float) = plain.parse::<f64>()
    {
        if float.fract() == 0.0 && float.abs() < 9e18 {
            return Ok(Value::from(float as i64));
        }
        return Number::from_f64(float).map_or_else(|| unsupported("+Inf"), |n| Ok(Value::Number(n)));
    }
    Ok(Value::from(text))
}

fn unsupported(what: &str) -> Result<Value, String> {
    Err(format!("json: unsupported value: {what}"))
}

/// An integer in any base that Go's `ParseInt` with base 0 knows.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    i64::try_from(value).map(Value::from).or_else(|_| u64::try_from(value).map(Value::from)).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn looks_like_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let number_fits = match number.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !number.is_empty() && digits(number),
    };
    number_fits && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_gos() {
        let check = |yaml: &str, expect: &str| {
            let got = yaml_to_value(yaml.as_bytes()).map(|v| v.0.to_string());
            assert_eq!(got.unwrap_or_else(|e| e.to_string()), expect, "{yaml}");
        };
        check("", "null");
        check("a: yes\nb: 'yes'\nc: On\nd: no", r#"{"a":true,"b":"yes","c":true,"d":false}"#);
        check("[0777, 08, 0x1F, 0b101, 1_000, +5, -7, 0o17]", "[511,8,31,5,1000,5,-7,15]");
        check(
            "[1.5, .5, 1e3, 1., 1.2.3, 12e, 2024-01-01, 2024-01-01T00:00:00Z]",
            r#"[1.5,0.5,1000,1,"1.2.3","12e","2024-01-01","2024-01-01T00:00:00Z"]"#,
        );
        check("[~, null, Null, '', !!str 5, \"5\"]", r#"[null,null,null,"","5","5"]"#);
        check("1: a\ntrue: b\n0x10: c", r#"{"1":"a","16":"c","true":"b"}"#);
        check("a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: 2", r#"{"a":{"b":1},"c":{"b":1},"d":{"b":1,"e":2}}"#);
        check("a: |\n  x\n  y\nb: >-\n  x\n  y", r#"{"a":"x\ny\n","b":"x y"}"#);
        check("{\"json\": [1, true, null]}", r#"{"json":[1,true,null]}"#);
        check("a: 1\n---\nb: 2", r#"{"a":1}"#);
        check("18446744073709551615", "18446744073709551615");
        assert!(yaml_to_value(b"a: [1").is_err());
        assert!(yaml_to_value(b"a: *nothing").is_err());
        assert!(yaml_to_value(b"\xff").is_err());
        assert!(yaml_to_value(b"a: .inf").is_err());
    }

    #[test]
    fn duplicate_keys() {
        let (value, complaint) = yaml_to_value(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
        assert_eq!(value.to_string(), r#"{"a":3,"b":{"c":2}}"#);
        assert_eq!(
            complaint,
            "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map"
        );
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","));
        }
        assert_eq!(
            yaml_to_value(bomb.as_bytes()).unwrap_err().to_string(),
            "yaml: document contains excessive aliasing"
        );
        assert!(yaml_to_value("[".repeat(5000).as_bytes()).is_err());
    }
}

//! Where a field is: path elements as managed fields write them.

use crate::quote::quoted;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// One step of a path.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of a struct or a key of a map.
    Field(Arc<str>),
    /// The item of a list whose fields have these values; sorted by name.
    Key(Arc<[(String, Value)]>),
    /// The item of a set that is this value.
    Value(Arc<Value>),
    /// The item of an atomic list at this place.
    Index(i64),
}

/// Any order of values that keeps equal ones together, numbers by size.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Null, Value::Null) => Ordering::Equal,
        _ => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |e: &Element| match e {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        };
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                for ((name_a, a), (name_b, b)) in a.iter().zip(b.iter()) {
                    let order = name_a.cmp(name_b).then_with(|| compare(a, b));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (Element::Value(a), Element::Value(b)) => compare(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

impl Element {
    /// A field by name.
    pub fn field(name: &str) -> Self {
        Element::Field(name.into())
    }

    /// As a key of `fieldsV1`: `f:name`, `k:{…}`, `v:…`, `i:0`.
    pub fn encode(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(fields) => {
                let map: Map<String, Value> = fields.iter().cloned().collect();
                format!("k:{}", Value::Object(map))
            }
            Element::Value(value) => format!("v:{value}"),
            Element::Index(i) => format!("i:{i}"),
        }
    }

    /// From a key of `fieldsV1`.
    pub fn decode(text: &str) -> Result<Self, String> {
        let (Some(kind), Some(rest)) = (text.get(..2), text.get(2..)) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|e| e.to_string());
        match kind {
            "f:" => Ok(Element::field(rest)),
            "v:" => json().map(|v| Element::Value(Arc::new(v))),
            "i:" => rest.parse().map(Element::Index).map_err(|_| format!("invalid index {}", quoted(rest))),
            "k:" => match json()? {
                Value::Object(map) => {
                    let mut fields: Vec<_> = map.into_iter().collect();
                    fields.sort_by(|a, b| a.0.cmp(&b.0));
                    Ok(Element::Key(fields.into()))
                }
                _ => Err(format!("invalid key {}", quoted(rest))),
            },
            _ if !kind.ends_with(':') => Err(format!("missing colon: {text}")),
            _ => Err("unknown path element type".to_owned()),
        }
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::String(s) => quoted(s),
        Value::Array(items) => format!("[{}]", items.iter().map(value_text).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                let parts: Vec<_> = fields.iter().map(|(n, v)| format!("{n}={}", value_text(v))).collect();
                write!(f, "[{}]", parts.join(","))
            }
            Element::Value(value) => write!(f, "[={}]", value_text(value)),
            Element::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// A path as text: `.spec.containers[name="a"].image`.
pub fn path_text(path: &[Element]) -> String {
    path.iter().map(Element::to_string).collect()
}

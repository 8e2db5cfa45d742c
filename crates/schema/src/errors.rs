//! Field errors with upstream's constructors, wording and cause reasons.

use crate::cursor::Cursor;
use crate::quote::{push_quoted, quoted};
use serde_json::Value;
use std::fmt;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A requested value was not found.
    NotFound,
    /// A value is missing or empty.
    Required,
    /// A value that must be unique is there twice.
    Duplicate,
    /// A malformed value.
    Invalid,
    /// Not one of the known values.
    NotSupported,
    /// A well-formed value that is not permitted here.
    Forbidden,
    /// Too long a value; the value is not repeated.
    TooLong,
    /// Too short a value.
    TooShort,
    /// Too many items.
    TooMany,
    /// Too few items.
    TooFew,
    /// An error that is not the user's.
    Internal,
    /// A value of the wrong type.
    TypeInvalid,
}

impl ErrorKind {
    /// The `reason` of a `StatusCause`.
    pub fn reason(self) -> &'static str {
        self.facts().0
    }

    /// How the message begins.
    pub fn text(self) -> &'static str {
        self.facts().1
    }

    fn facts(self) -> (&'static str, &'static str) {
        match self {
            ErrorKind::NotFound => ("FieldValueNotFound", "Not found"),
            ErrorKind::Required => ("FieldValueRequired", "Required value"),
            ErrorKind::Duplicate => ("FieldValueDuplicate", "Duplicate value"),
            ErrorKind::Invalid => ("FieldValueInvalid", "Invalid value"),
            ErrorKind::NotSupported => ("FieldValueNotSupported", "Unsupported value"),
            ErrorKind::Forbidden => ("FieldValueForbidden", "Forbidden"),
            ErrorKind::TooLong => ("FieldValueTooLong", "Too long"),
            ErrorKind::TooShort => ("FieldValueTooShort", "Too short"),
            ErrorKind::TooMany => ("FieldValueTooMany", "Too many"),
            ErrorKind::TooFew => ("FieldValueTooFew", "Too few"),
            ErrorKind::Internal => ("InternalError", "Internal error"),
            ErrorKind::TypeInvalid => ("FieldValueTypeInvalid", "Invalid value"),
        }
    }
}

/// The value an error complains of.
#[derive(Clone, Debug, PartialEq)]
pub enum BadValue {
    /// Leave the value out of the message.
    Omitted,
    /// Any JSON value; a string is printed quoted as Go does, anything else as JSON.
    Json(Value),
}

impl<T: Into<Value>> From<T> for BadValue {
    fn from(value: T) -> Self {
        BadValue::Json(value.into())
    }
}

/// One field error.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The path of the field.
    pub field: String,
    /// The value complained of.
    pub value: BadValue,
    /// More words, or empty.
    pub detail: String,
}

impl FieldError {
    /// An error from its parts.
    pub fn new(
        kind: ErrorKind,
        field: impl fmt::Display,
        value: impl Into<BadValue>,
        detail: impl Into<String>,
    ) -> Self {
        FieldError { kind, field: field.to_string(), value: value.into(), detail: detail.into() }
    }

    /// The `reason` of the error's `StatusCause`.
    pub fn reason(&self) -> &'static str {
        self.kind.reason()
    }

    /// The `message` of the error's `StatusCause`: the text without the field.
    pub fn message(&self) -> String {
        let mut out = String::from(self.kind.text());
        let bare = matches!(
            self.kind,
            ErrorKind::Required | ErrorKind::Forbidden | ErrorKind::TooLong | ErrorKind::TooShort | ErrorKind::Internal
        );
        if !bare {
            match &self.value {
                BadValue::Omitted => {}
                BadValue::Json(Value::String(s)) => {
                    out.push_str(": ");
                    push_quoted(&mut out, s);
                }
                BadValue::Json(v) => {
                    out.push_str(": ");
                    out.push_str(&v.to_string());
                }
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

/// The field errors of one object, in the order found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    /// No error yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of errors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The errors in the order found.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// Adds an error made elsewhere.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Adds all errors of another list.
    pub fn extend(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    /// Adds an error from its parts; `at` is a cursor or a path as text.
    pub fn add(
        &mut self,
        kind: ErrorKind,
        at: impl fmt::Display,
        value: impl Into<BadValue>,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError::new(kind, at, value, detail));
    }

    /// `Required value[: detail]`
    pub fn required(&mut self, at: impl fmt::Display, detail: impl Into<String>) {
        self.add(ErrorKind::Required, at, "", detail);
    }

    /// `Invalid value: <the cursor's value>[: detail]`; an absent value prints as `""`. Use [`Errors::invalid_value`]
    /// for an absent pointer (`null`) or number (`0`).
    pub fn invalid(&mut self, at: &Cursor<'_>, detail: impl Into<String>) {
        let value = at.value().cloned().unwrap_or_else(|| Value::from(""));
        self.add(ErrorKind::Invalid, at, value, detail);
    }

    /// `Invalid value: value[: detail]`
    pub fn invalid_value(&mut self, at: impl fmt::Display, value: impl Into<BadValue>, detail: impl Into<String>) {
        self.add(ErrorKind::Invalid, at, value, detail);
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`; upstream lists them sorted when they come from a set.
    pub fn not_supported<S: AsRef<str>>(&mut self, at: impl fmt::Display, value: impl Into<BadValue>, supported: &[S]) {
        let detail = match supported {
            [] => String::new(),
            _ => {
                let names: Vec<_> = supported.iter().map(|s| quoted(s.as_ref())).collect();
                format!("supported values: {}", names.join(", "))
            }
        };
        self.add(ErrorKind::NotSupported, at, value, detail);
    }

    /// `Duplicate value: <value>`
    pub fn duplicate(&mut self, at: impl fmt::Display, value: impl Into<BadValue>) {
        self.add(ErrorKind::Duplicate, at, value, "");
    }

    /// `Not found: <value>`
    pub fn not_found(&mut self, at: impl fmt::Display, value: impl Into<BadValue>) {
        self.add(ErrorKind::NotFound, at, value, "");
    }

    /// `Forbidden[: detail]`
    pub fn forbidden(&mut self, at: impl fmt::Display, detail: impl Into<String>) {
        self.add(ErrorKind::Forbidden, at, "", detail);
    }

    /// `Too long: may not be more than N bytes`
    pub fn too_long(&mut self, at: impl fmt::Display, max: usize) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        self.add(ErrorKind::TooLong, at, "<value omitted>", format!("may not be more than {max} {unit}"));
    }

    /// `Too long: may not be more than N characters`
    pub fn too_long_characters(&mut self, at: impl fmt::Display, max: usize) {
        let unit = if max == 1 { "character" } else { "characters" };
        self.add(ErrorKind::TooLong, at, "<value omitted>", format!("may not be more than {max} {unit}"));
    }

    /// `Too short: must be at least N characters`
    pub fn too_short(&mut self, at: impl fmt::Display, value: impl Into<BadValue>, min: usize) {
        let unit = if min == 1 { "character" } else { "characters" };
        self.add(ErrorKind::TooShort, at, value, format!("must be at least {min} {unit}"));
    }

    /// `Too many: N: must have at most M items`
    pub fn too_many(&mut self, at: impl fmt::Display, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        self.add(ErrorKind::TooMany, at, actual as u64, format!("must have at most {max} {unit}"));
    }

    /// `Too few: N: must have at least M items`
    pub fn too_few(&mut self, at: impl fmt::Display, actual: usize, min: usize) {
        let unit = if min == 1 { "item" } else { "items" };
        self.add(ErrorKind::TooFew, at, actual as u64, format!("must have at least {min} {unit}"));
    }

    /// `Internal error: <text>`
    pub fn internal(&mut self, at: impl fmt::Display, error: impl fmt::Display) {
        self.add(ErrorKind::Internal, at, BadValue::Omitted, error.to_string());
    }

    /// `Invalid value: <value>: detail` for a value of the wrong type.
    pub fn type_invalid(&mut self, at: impl fmt::Display, value: impl Into<BadValue>, detail: impl Into<String>) {
        self.add(ErrorKind::TypeInvalid, at, value, detail);
    }
}

/// The errors as one text, each once: `a: x`, or `[a: x, b: y]`; what follows `is invalid: ` in a Status.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

impl IntoIterator for Errors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wording() {
        let check = |make: &dyn Fn(&mut Errors), expect: &str, reason: &str| {
            let mut errors = Errors::new();
            make(&mut errors);
            assert_eq!(errors.to_string(), expect);
            assert_eq!(errors.0[0].reason(), reason);
        };
        let v = json!({"a": "x", "n": 5, "m": {"k": "v"}});
        let c = Cursor::root(&v);
        check(&|e| e.required(c.get("a"), ""), "a: Required value", "FieldValueRequired");
        check(&|e| e.required(c.get("a"), "must be set"), "a: Required value: must be set", "FieldValueRequired");
        check(&|e| e.invalid(&c.get("a"), "bad"), "a: Invalid value: \"x\": bad", "FieldValueInvalid");
        check(&|e| e.invalid(&c.get("n"), "bad"), "n: Invalid value: 5: bad", "FieldValueInvalid");
        check(&|e| e.invalid(&c.get("m"), ""), "m: Invalid value: {\"k\":\"v\"}", "FieldValueInvalid");
        check(&|e| e.invalid_value(c.get("p"), Value::Null, "x"), "p: Invalid value: null: x", "FieldValueInvalid");
        check(
            &|e| e.not_supported(c.get("a"), "x", &["A", "B"]),
            "a: Unsupported value: \"x\": supported values: \"A\", \"B\"",
            "FieldValueNotSupported",
        );
        check(&|e| e.duplicate(c.get("a"), "x"), "a: Duplicate value: \"x\"", "FieldValueDuplicate");
        check(&|e| e.forbidden(c.get("a"), "no"), "a: Forbidden: no", "FieldValueForbidden");
        check(&|e| e.too_long(c.get("a"), 63), "a: Too long: may not be more than 63 bytes", "FieldValueTooLong");
        check(&|e| e.too_many(c.get("a"), 9, 1), "a: Too many: 9: must have at most 1 item", "FieldValueTooMany");
        check(&|e| e.not_found(c.get("a"), "x"), "a: Not found: \"x\"", "FieldValueNotFound");
        check(&|e| e.internal(c.get("a"), "boom"), "a: Internal error: boom", "InternalError");
        check(
            &|e| {
                e.required(c.get("a"), "");
                e.required(c.get("b"), "");
                e.required(c.get("a"), "");
            },
            "[a: Required value, b: Required value]",
            "FieldValueRequired",
        );
    }
}

//! The schema-driven pass over a source.

use super::source::{Source, Token, skip, skip_rest};
use super::{DecodeError, Decoded, Mode, TypeMeta};
use crate::b64::{STANDARD, complaint};
use crate::patch::Operation;
use crate::quote::quoted;
use crate::table::{Base, Field, Form, Type, Written, named};
use crate::time;
use base64::Engine;
use pintle_api::quantity::Quantity;
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Upstream stops collecting strict errors here.
const MAX_STRICT: usize = 100;

enum Segment {
    Field(&'static str),
    Key(String),
    Index(usize),
}

/// What has gone wrong with types. Reading goes on, to find syntax errors, which come first.
enum Trouble {
    None,
    /// The first error that Go notes while it goes on reading.
    Saved(String),
    /// An error of a type's own reader, at which Go stops: it comes before those saved.
    Fatal(String),
}

struct Decoder<'s, S> {
    source: &'s mut S,
    strict: bool,
    found: Vec<String>,
    path: Vec<Segment>,
    /// The struct whose field is being read.
    within: Option<&'static Type>,
    /// Set while a type's own reader is at work: its errors name the field it was called for, and are fatal.
    own_reader: Option<(usize, &'static Type)>,
    trouble: Trouble,
}

type Outcome = Result<Result<Decoded, DecodeError>, DecodeError>;

/// Decodes as `ty`. The outer error is one of syntax, the inner one of type.
pub(super) fn decode<'a, S: Source<'a>>(source: &mut S, ty: &'static Type, mode: Mode) -> Outcome {
    let mut d = Decoder::new(source, mode);
    let value = match d.source.value()? {
        Token::Object => Value::Object(d.object(ty)?),
        Token::Null => ty.zero().clone(),
        token => {
            d.mismatch(describe(&token), || ty.go_type());
            skip_rest(d.source, &token)?;
            Value::Null
        }
    };
    Ok(d.finish(value))
}

/// Decodes any value.
pub(super) fn decode_untyped<'a, S: Source<'a>>(source: &mut S, mode: Mode) -> Outcome {
    let mut d = Decoder::new(source, mode);
    let token = d.source.value()?;
    let value = match token {
        Token::Object => d.any(token, true)?,
        Token::Null => Value::Object(Map::new()),
        _ => {
            d.mismatch(describe(&token), || "map[string]interface {}".to_owned());
            skip_rest(d.source, &token)?;
            Value::Null
        }
    };
    Ok(d.finish(value))
}

/// Reads any value, numbers as they are written.
pub(super) fn raw<'a, S: Source<'a>>(source: &mut S) -> Result<Result<Value, DecodeError>, DecodeError> {
    let mut d = Decoder::new(source, Mode::Lenient);
    let token = d.source.value()?;
    let value = d.any(token, false)?;
    Ok(d.finish(value).map(|decoded| decoded.value))
}

type Operations = (Vec<Operation>, Vec<String>);

/// Decodes the operations of a JSON patch.
pub(super) fn operations<'a, S: Source<'a>>(
    source: &mut S,
    mode: Mode,
) -> Result<Result<Operations, DecodeError>, DecodeError> {
    let mut d = Decoder::new(source, mode);
    let mut all = vec![];
    let mut wrong = |found: &'static str, field: Option<&str>, ty: &str| {
        let place = field.map_or_else(|| "value".to_owned(), |f| format!("struct field jsonPatchOp.{f}"));
        format!("json: cannot unmarshal {found} into Go {place} of type {ty}")
    };
    match d.source.value()? {
        Token::Null => {}
        Token::Array => {
            while d.source.item(all.is_empty())? {
                d.path.push(Segment::Index(all.len()));
                let mut operation = Operation::default();
                match d.source.value()? {
                    Token::Null => {}
                    Token::Object => d.operation(&mut operation, &mut wrong)?,
                    token => {
                        d.save(wrong(describe(&token), None, "handlers.jsonPatchOp"));
                        skip_rest(d.source, &token)?;
                    }
                }
                d.path.pop();
                all.push(operation);
            }
        }
        token => {
            d.save(wrong(describe(&token), None, "[]handlers.jsonPatchOp"));
            skip_rest(d.source, &token)?;
        }
    }
    Ok(d.finish(Value::Null).map(|decoded| (all, decoded.strict)))
}

/// Reads `kind` and `apiVersion` of the outermost map.
pub(super) fn type_meta<'a>(source: &mut super::json::Json<'a>) -> Result<TypeMeta, DecodeError> {
    let mut meta = TypeMeta::default();
    let mut wrong = None;
    match source.value()? {
        Token::Object => {
            let mut first = true;
            while let Some(key) = source.key(first)? {
                first = false;
                let slot = match &*key {
                    "kind" => &mut meta.kind,
                    "apiVersion" => &mut meta.api_version,
                    _ => {
                        skip(source)?;
                        continue;
                    }
                };
                match source.value()? {
                    Token::Str(s) => *slot = s.into_owned(),
                    Token::Null => {}
                    token => {
                        let what = describe(&token);
                        wrong.get_or_insert(format!(
                            "json: cannot unmarshal {what} into Go struct field .{key} of type string"
                        ));
                        skip_rest(source, &token)?;
                    }
                }
            }
        }
        Token::Null => {}
        token => {
            let what = describe(&token);
            wrong = Some(format!(
                "json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \
                 \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
            ));
            skip_rest(source, &token)?;
        }
    }
    source.end()?;
    wrong.map_or(Ok(meta), |w| Err(DecodeError(w)))
}

/// Go's word for what was found.
fn describe(token: &Token<'_>) -> &'static str {
    match token {
        Token::Null => "null",
        Token::Bool(_) => "bool",
        Token::Number(_) => "number",
        Token::Str(_) => "string",
        Token::Array => "array",
        Token::Object => "object",
    }
}

fn schema_props() -> Option<&'static Type> {
    named("apiextensions/v1", "JSONSchemaProps")
}

impl<'a, 's, S: Source<'a>> Decoder<'s, S> {
    fn new(source: &'s mut S, mode: Mode) -> Self {
        Decoder {
            source,
            strict: mode == Mode::Strict,
            found: vec![],
            path: vec![],
            within: None,
            own_reader: None,
            trouble: Trouble::None,
        }
    }

    fn finish(self, value: Value) -> Result<Decoded, DecodeError> {
        match self.trouble {
            Trouble::None => Ok(Decoded { value, strict: self.found }),
            Trouble::Saved(message) | Trouble::Fatal(message) => Err(DecodeError(message)),
        }
    }

    #[cold]
    fn strict_error(&mut self, what: &str, name: &str) {
        if self.found.len() >= MAX_STRICT {
            return;
        }
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Index(i) => path.push_str(&format!("[{i}]")),
                Segment::Field(_) | Segment::Key(_) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(match segment {
                        Segment::Field(f) => f,
                        Segment::Key(k) => k,
                        Segment::Index(_) => "",
                    });
                }
            }
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        let text = format!("{what} {}", quoted(&path));
        if !self.found.contains(&text) {
            self.found.push(text);
        }
    }

    #[cold]
    fn mismatch(&mut self, what: &str, go_type: impl FnOnce() -> String) {
        let (len, within) = match self.own_reader {
            Some((len, ty)) => (len, Some(ty)),
            None => (self.path.len(), self.within),
        };
        let fields: Vec<&str> = self.path[..len]
            .iter()
            .filter_map(|s| match s {
                Segment::Field(f) => Some(*f),
                _ => None,
            })
            .collect();
        let go_type = go_type();
        let message = match within {
            Some(ty) if !fields.is_empty() => format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {go_type}",
                ty.name,
                fields.join(".")
            ),
            _ => format!("json: cannot unmarshal {what} into Go value of type {go_type}"),
        };
        if self.own_reader.is_some() {
            self.fatal(message);
        } else {
            self.save(message);
        }
    }

    #[cold]
    fn fatal(&mut self, message: String) {
        if !matches!(self.trouble, Trouble::Fatal(_)) {
            self.trouble = Trouble::Fatal(message);
        }
    }

    /// A mismatch found by a type's own reader (of `Time` and the like), which stops Go.
    #[cold]
    fn fatal_mismatch(&mut self, what: &str, go_type: &str) {
        let before = self.own_reader;
        if before.is_none()
            && let Some(ty) = self.within
        {
            self.own_reader = Some((self.path.len(), ty));
        }
        self.mismatch(what, || go_type.to_owned());
        self.own_reader = before;
    }

    fn save(&mut self, message: String) {
        if matches!(self.trouble, Trouble::None) {
            self.trouble = Trouble::Saved(message);
        }
    }

    fn operation(
        &mut self,
        operation: &mut Operation,
        wrong: &mut impl FnMut(&'static str, Option<&str>, &str) -> String,
    ) -> Result<(), DecodeError> {
        let mut seen: Vec<String> = vec![];
        let mut first = true;
        while let Some(key) = self.source.key(first)? {
            first = false;
            let known = matches!(&*key, "op" | "path" | "from" | "value");
            if self.strict && !known {
                self.strict_error("json patch unknown field", &key);
            } else if self.strict && seen.iter().any(|s| *s == key) {
                self.strict_error("json patch duplicate field", &key);
            }
            seen.push(key.clone().into_owned());
            let token = self.source.value()?;
            let slot = match &*key {
                "op" => &mut operation.op,
                "path" => &mut operation.path,
                "from" => &mut operation.from,
                "value" => {
                    operation.value = Some(self.own(|d| d.any(token, false))?);
                    continue;
                }
                _ => {
                    skip_rest(self.source, &token)?;
                    continue;
                }
            };
            match token {
                Token::Str(s) => *slot = Some(s.into_owned()),
                Token::Null => {}
                token => {
                    self.save(wrong(describe(&token), Some(&key), "string"));
                    skip_rest(self.source, &token)?;
                }
            }
        }
        Ok(())
    }

    /// The fields of a struct whose opening brace has been read.
    fn object(&mut self, ty: &'static Type) -> Result<Map<String, Value>, DecodeError> {
        let mut map = Map::new();
        let (mut seen, mut next, mut first) = (0u64, 0, true);
        let outer = self.within;
        while let Some(key) = self.source.key(first)? {
            first = false;
            let Some(at) = ty.field_index(&key, next) else {
                if self.strict {
                    self.strict_error("unknown field", &key);
                }
                skip(self.source)?;
                continue;
            };
            next = at + 1;
            let field = &ty.fields[at];
            let again = seen & (1 << at) != 0;
            seen |= 1 << at;
            if again && self.strict {
                self.strict_error("duplicate field", field.name);
            }
            self.path.push(Segment::Field(field.name));
            self.within = Some(ty);
            let value = self.field(field)?;
            self.within = outer;
            self.path.pop();
            match kept(ty, field, value) {
                Some(value) => {
                    map.insert(field.name.to_owned(), value);
                }
                None if again => {
                    map.remove(field.name);
                }
                None => {}
            }
        }
        for (at, field) in ty.always_written() {
            if seen & (1 << at) == 0 {
                map.insert(field.name.to_owned(), field.zero());
            }
        }
        Ok(map)
    }

    fn field(&mut self, field: &'static Field) -> Result<Value, DecodeError> {
        let token = self.source.value()?;
        match field.form {
            Form::Plain | Form::Pointer => {
                if matches!(token, Token::Null) {
                    return Ok(field.zero());
                }
                self.base(token, field)
            }
            Form::List => match token {
                Token::Null => Ok(Value::Null),
                Token::Array => self.list(field),
                _ => self.wrong(&token, field, false),
            },
            Form::Map => match token {
                Token::Null => Ok(Value::Null),
                Token::Object => self.map(field),
                _ => self.wrong(&token, field, false),
            },
        }
    }

    fn wrong(&mut self, token: &Token<'a>, field: &'static Field, item: bool) -> Result<Value, DecodeError> {
        self.mismatch(describe(token), || if item { field.go_item_type() } else { field.go_type() });
        skip_rest(self.source, token)?;
        Ok(Value::Null)
    }

    fn list(&mut self, field: &'static Field) -> Result<Value, DecodeError> {
        let mut items = vec![];
        while self.source.item(items.is_empty())? {
            self.path.push(Segment::Index(items.len()));
            let item = self.item(field)?;
            self.path.pop();
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, field: &'static Field) -> Result<Value, DecodeError> {
        let mut map = Map::new();
        let mut first = true;
        while let Some(key) = self.source.key(first)? {
            first = false;
            // Only what nests can have a strict error of its own.
            let nests = self.strict && !matches!(field.base, Base::Str | Base::Quantity | Base::Bytes);
            if nests {
                self.path.push(Segment::Key(key.clone().into_owned()));
            }
            let value = self.item(field)?;
            if nests {
                self.path.pop();
            }
            match map.entry(key.into_owned()) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    entry.insert(value);
                    if self.strict {
                        self.strict_error("duplicate field", entry.key());
                    }
                }
            }
        }
        Ok(Value::Object(map))
    }

    fn item(&mut self, field: &'static Field) -> Result<Value, DecodeError> {
        match self.source.value()? {
            // No bytes and empty bytes are one to protobuf.
            Token::Null if field.base == Base::Bytes => Ok(Value::from("")),
            Token::Null => Ok(field.base.zero()),
            token => self.base(token, field),
        }
    }

    /// One value that is not null.
    fn base(&mut self, token: Token<'a>, field: &'static Field) -> Result<Value, DecodeError> {
        let item = matches!(field.form, Form::List | Form::Map);
        match (field.base, token) {
            (Base::Str, Token::Str(s)) => Ok(Value::String(s.into_owned())),
            (Base::Bool, Token::Bool(b)) => Ok(Value::Bool(b)),
            (Base::Int32 | Base::Int64, Token::Number(n)) => {
                let value = n.parse::<i64>().ok().or_else(|| S::IN_MEMORY.then(|| number(&n, true)?.as_i64())?);
                let narrow = field.base == Base::Int32;
                match value.filter(|v| !narrow || i32::try_from(*v).is_ok()) {
                    Some(value) => Ok(Value::from(value)),
                    None => {
                        let go = if item { field.go_item_type() } else { field.go_type() };
                        self.mismatch(&format!("number {n}"), || go);
                        Ok(Value::Null)
                    }
                }
            }
            (Base::Double, Token::Number(n)) => Ok(number(&n, true).unwrap_or_else(|| {
                self.mismatch(&format!("number {n}"), || "float64".to_owned());
                Value::Null
            })),
            (Base::Bytes, Token::Str(s)) => Ok(self.bytes(&s)),
            (Base::Struct(id), Token::Object) => Ok(Value::Object(self.object(id.get())?)),
            (Base::StringList, Token::Array) => self.strings(),
            (Base::Time, token) => self.time(token, false),
            (Base::MicroTime, token) => self.time(token, true),
            (Base::Quantity, token) => self.quantity(&token),
            (Base::IntOrString, token) => self.int_or_string(token),
            (Base::Raw | Base::Fields | Base::Json, token) => self.own(|d| d.any(token, false)),
            (Base::SchemaOrArray | Base::SchemaOrBool | Base::SchemaOrStrings, token) => {
                self.own(|d| d.schema_or(field.base, token))
            }
            (_, token) => self.wrong(&token, field, item),
        }
    }

    /// Runs a type's own reader: no strict errors from inside, and every error of type is fatal.
    fn own<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        let (strict, before) = (self.strict, self.own_reader);
        self.strict = false;
        if before.is_none()
            && let Some(ty) = self.within
        {
            self.own_reader = Some((self.path.len(), ty));
        }
        let result = read(self);
        self.strict = strict;
        self.own_reader = before;
        result
    }

    fn bytes(&mut self, text: &str) -> Value {
        // Go's reader passes over line breaks.
        let clean: String;
        let text = if text.contains(['\r', '\n']) {
            clean = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            &clean
        } else {
            text
        };
        match STANDARD.decode(text) {
            Ok(bytes) => Value::String(STANDARD.encode(bytes)),
            Err(e) => {
                self.save(complaint(text, true, &e));
                Value::Null
            }
        }
    }

    fn strings(&mut self) -> Result<Value, DecodeError> {
        let mut items = vec![];
        while self.source.item(items.is_empty())? {
            items.push(match self.source.value()? {
                Token::Str(s) => Value::String(s.into_owned()),
                Token::Null => Value::from(""),
                token => {
                    self.mismatch(describe(&token), || "string".to_owned());
                    skip_rest(self.source, &token)?;
                    Value::Null
                }
            });
        }
        Ok(Value::Array(items))
    }

    fn time(&mut self, token: Token<'a>, micro: bool) -> Result<Value, DecodeError> {
        let Token::Str(text) = token else {
            self.fatal_mismatch(describe(&token), "string");
            skip_rest(self.source, &token)?;
            return Ok(Value::Null);
        };
        Ok(match time::parse(&text, micro) {
            Ok(time::ZERO) => Value::Null,
            // What is written as it would be printed is kept.
            Ok(_) if !micro && text.len() == 20 && text.ends_with('Z') => Value::String(text.into_owned()),
            Ok(at) => match time::format(at, micro) {
                Some(text) => Value::String(text),
                None => {
                    self.fatal(format!("parsing time {text:?}: year out of range"));
                    Value::Null
                }
            },
            Err(e) => {
                self.fatal(e);
                Value::Null
            }
        })
    }

    fn quantity(&mut self, token: &Token<'a>) -> Result<Value, DecodeError> {
        let text = match token {
            Token::Str(s) => s.trim(),
            Token::Number(n) => n,
            // Upstream's reader is given the raw text of whatever else it is, which is no quantity.
            _ => "x",
        };
        let result = Quantity::normalize(text).map(|q| Value::String(q.into_owned()));
        let value = result.unwrap_or_else(|e| {
            self.fatal(e.to_string());
            Value::Null
        });
        skip_rest(self.source, token)?;
        Ok(value)
    }

    fn int_or_string(&mut self, token: Token<'a>) -> Result<Value, DecodeError> {
        match token {
            Token::Str(s) => return Ok(Value::String(s.into_owned())),
            Token::Number(n) => match n.parse::<i32>() {
                Ok(n) => return Ok(Value::from(n)),
                Err(_) => self.fatal_mismatch(&format!("number {n}"), "int32"),
            },
            token => {
                self.fatal_mismatch(describe(&token), "int32");
                skip_rest(self.source, &token)?;
            }
        }
        Ok(Value::Null)
    }

    fn schema_or(&mut self, base: Base, token: Token<'a>) -> Result<Value, DecodeError> {
        let Some(schema) = schema_props() else { return Ok(Value::Null) };
        match (base, token) {
            (_, Token::Object) => Ok(Value::Object(self.object(schema)?)),
            (Base::SchemaOrBool, Token::Bool(b)) => Ok(Value::Bool(b)),
            (Base::SchemaOrStrings, Token::Array) => {
                let items = self.strings()?;
                Ok(if items.as_array().is_some_and(Vec::is_empty) { Value::Null } else { items })
            }
            (Base::SchemaOrArray, Token::Array) => {
                let mut items = vec![];
                while self.source.item(items.is_empty())? {
                    items.push(match self.source.value()? {
                        Token::Object => Value::Object(self.object(schema)?),
                        Token::Null => schema.zero().clone(),
                        token => {
                            self.mismatch(describe(&token), || schema.go_type());
                            skip_rest(self.source, &token)?;
                            Value::Null
                        }
                    });
                }
                Ok(if items.is_empty() { Value::Null } else { Value::Array(items) })
            }
            (base, token) => {
                if base == Base::SchemaOrBool {
                    self.fatal("boolean or JSON schema expected".to_owned());
                }
                skip_rest(self.source, &token)?;
                Ok(Value::Null)
            }
        }
    }

    /// Any value. Custom resources go through Go's `interface{}`, where a whole float loses its fraction; raw values
    /// keep their text.
    fn any(&mut self, token: Token<'a>, go_numbers: bool) -> Result<Value, DecodeError> {
        match token {
            Token::Null => Ok(Value::Null),
            Token::Bool(b) => Ok(Value::Bool(b)),
            Token::Str(s) => Ok(Value::String(s.into_owned())),
            Token::Number(n) => Ok(number(&n, go_numbers).unwrap_or_else(|| {
                self.mismatch(&format!("number {n}"), || "float64".to_owned());
                Value::Null
            })),
            Token::Array => {
                let mut items = vec![];
                while self.source.item(items.is_empty())? {
                    self.path.push(Segment::Index(items.len()));
                    let token = self.source.value()?;
                    items.push(self.any(token, go_numbers)?);
                    self.path.pop();
                }
                Ok(Value::Array(items))
            }
            Token::Object => {
                let mut map = Map::new();
                let mut first = true;
                while let Some(key) = self.source.key(first)? {
                    first = false;
                    if self.strict && map.contains_key(&*key) {
                        self.strict_error("duplicate field", &key);
                    }
                    if self.strict {
                        self.path.push(Segment::Key(key.clone().into_owned()));
                    }
                    let token = self.source.value()?;
                    let value = self.any(token, go_numbers)?;
                    if self.strict {
                        self.path.pop();
                    }
                    map.insert(key.into_owned(), value);
                }
                Ok(Value::Object(map))
            }
        }
    }
}

/// A number: an integer where it has no point and fits, else a float; nothing when it is beyond a float. With
/// `go_numbers` a whole float is as Go would print it, an integer.
fn number(text: &str, go_numbers: bool) -> Option<Value> {
    if !text.contains('.') {
        if let Ok(i) = text.parse::<i64>() {
            return Some(Value::from(i));
        }
        if !go_numbers && let Ok(u) = text.parse::<u64>() {
            return Some(Value::from(u));
        }
    }
    let float = text.parse::<f64>().ok().filter(|f| f.is_finite())?;
    if go_numbers && float.fract() == 0.0 && float.abs() < 9e18 {
        return Some(Value::from(float as i64));
    }
    Number::from_f64(float).map(Value::Number)
}

/// What Go would write of a field's value, if anything.
pub(crate) fn kept(ty: &Type, field: &Field, value: Value) -> Option<Value> {
    let empty = match (&value, field.form) {
        (Value::Null, _) => true,
        (Value::Array(a), _) => a.is_empty(),
        (Value::Object(o), Form::Map) => o.is_empty(),
        (Value::String(s), Form::Plain) => s.is_empty(),
        (Value::Bool(b), Form::Plain) => !b,
        (Value::Number(n), Form::Plain) => n.as_i64() == Some(0) || n.as_f64() == Some(0.0),
        _ => false,
    };
    match field.written {
        Written::Always => {
            // Kinds stored as protobuf cannot tell an empty list from none, and print none.
            let bare = empty && matches!(field.form, Form::List | Form::Map) && !ty.keeps_empty_lists();
            Some(if bare { Value::Null } else { value })
        }
        Written::NotEmpty if field.always_written() => Some(value),
        Written::NotEmpty | Written::NotZero => (!empty).then_some(value),
    }
}

//! Values as the protobuf writer sees them: a tree in memory, or JSON text read into one flat list, which costs a tenth
//! of a tree.

use crate::decode::{DecodeError, Json, Source, Token};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;

/// A value to be written.
pub(super) trait Node<'v>: Copy {
    fn is_null(self) -> bool;
    fn as_str(self) -> Option<Cow<'v, str>>;
    fn as_bool(self) -> Option<bool>;
    fn as_i64(self) -> Option<i64>;
    fn as_f64(self) -> Option<f64>;
    fn is_object(self) -> bool;
    fn is_array(self) -> bool;
    /// The items of a list, none for anything else.
    fn items(self) -> Vec<Self>;
    /// The entries of a map, none for anything else.
    fn entries(self) -> Vec<(Cow<'v, str>, Self)>;
    /// Calls `each` with every entry of a map.
    fn each_entry(self, each: impl FnMut(&str, Self));
    /// The value as JSON text.
    fn text(self) -> Cow<'v, str>;
}

impl<'v> Node<'v> for &'v Value {
    fn is_null(self) -> bool {
        Value::is_null(self)
    }
    fn as_str(self) -> Option<Cow<'v, str>> {
        Value::as_str(self).map(Cow::Borrowed)
    }
    fn as_bool(self) -> Option<bool> {
        Value::as_bool(self)
    }
    fn as_i64(self) -> Option<i64> {
        Value::as_i64(self)
    }
    fn as_f64(self) -> Option<f64> {
        Value::as_f64(self)
    }
    fn is_object(self) -> bool {
        Value::is_object(self)
    }
    fn is_array(self) -> bool {
        Value::is_array(self)
    }
    fn items(self) -> Vec<Self> {
        self.as_array().into_iter().flatten().collect()
    }
    fn entries(self) -> Vec<(Cow<'v, str>, Self)> {
        self.as_object().into_iter().flatten().map(|(k, v)| (Cow::Borrowed(k.as_str()), v)).collect()
    }
    fn each_entry(self, mut each: impl FnMut(&str, Self)) {
        for (key, value) in self.as_object().into_iter().flatten() {
            each(key, value);
        }
    }
    fn text(self) -> Cow<'v, str> {
        Cow::Owned(self.to_string())
    }
}

/// One place of a tape. A container is followed by what it holds; `end` is the place after that. In a map each value
/// comes after its key.
#[derive(Debug)]
enum Place<'a> {
    Null,
    Bool(bool),
    Number(Cow<'a, str>),
    Str(Cow<'a, str>),
    Array {
        end: usize,
    },
    Object {
        end: usize,
    },
    /// A value that messages hold as JSON text, unread.
    Text(&'a str),
}

/// The field that holds what managers own, which is text in messages. It is a large part of most objects.
const FIELDS: &str = "fieldsV1";

/// JSON text as a flat list.
#[derive(Debug)]
pub(super) struct Tape<'a>(Vec<Place<'a>>);

impl<'a> Tape<'a> {
    pub fn read(text: &'a [u8]) -> Result<Self, DecodeError> {
        let mut source = Json::new(text);
        let mut places = Vec::with_capacity(text.len() / 12 + 8);
        // Containers that are open, and whether each is a list and at its first item.
        let mut open: Vec<(usize, bool, bool)> = vec![];
        loop {
            if let Some((at, list, first)) = open.last_mut() {
                let more = if *list {
                    source.item(*first)?
                } else {
                    match source.key(*first)? {
                        Some(key) => {
                            let is_text = key == FIELDS;
                            places.push(Place::Str(key));
                            if is_text {
                                places.push(Place::Text(source.text()?));
                                *first = false;
                                continue;
                            }
                            true
                        }
                        None => false,
                    }
                };
                *first = false;
                if !more {
                    let end = places.len();
                    match &mut places[*at] {
                        Place::Array { end: e } | Place::Object { end: e } => *e = end,
                        _ => {}
                    }
                    open.pop();
                    if open.is_empty() {
                        break;
                    }
                    continue;
                }
            }
            let at = places.len();
            places.push(match source.value()? {
                Token::Null => Place::Null,
                Token::Bool(b) => Place::Bool(b),
                Token::Number(n) => Place::Number(n),
                Token::Str(s) => Place::Str(s),
                Token::Array => {
                    open.push((at, true, true));
                    Place::Array { end: 0 }
                }
                Token::Object => {
                    open.push((at, false, true));
                    Place::Object { end: 0 }
                }
            });
            if open.is_empty() {
                break;
            }
        }
        source.end()?;
        Ok(Tape(places))
    }

    pub fn root(&self) -> Spot<'_> {
        Spot { tape: &self.0, at: 0 }
    }
}

/// A value on a tape.
#[derive(Clone, Copy)]
pub(super) struct Spot<'t> {
    tape: &'t [Place<'t>],
    at: usize,
}

impl<'t> Spot<'t> {
    fn place(self) -> &'t Place<'t> {
        &self.tape[self.at]
    }

    fn spot(self, at: usize) -> Self {
        Spot { at, ..self }
    }

    /// The place after this value.
    fn after(self) -> usize {
        match self.place() {
            Place::Array { end } | Place::Object { end } => *end,
            _ => self.at + 1,
        }
    }

    fn to_value(self) -> Value {
        match self.place() {
            Place::Null => Value::Null,
            Place::Bool(b) => Value::Bool(*b),
            Place::Number(n) => n.parse::<Number>().map_or(Value::Null, Value::Number),
            Place::Str(s) => Value::from(s.as_ref()),
            Place::Text(text) => serde_json::from_str(text).unwrap_or_default(),
            Place::Array { .. } => Value::Array(self.items().into_iter().map(Spot::to_value).collect()),
            Place::Object { .. } => {
                let mut map = Map::new();
                self.each_entry(|key, value| {
                    map.insert(key.to_owned(), value.to_value());
                });
                Value::Object(map)
            }
        }
    }
}

impl<'t> Node<'t> for Spot<'t> {
    fn is_null(self) -> bool {
        matches!(self.place(), Place::Null | Place::Text("null"))
    }
    fn as_str(self) -> Option<Cow<'t, str>> {
        match self.place() {
            Place::Str(s) => Some(Cow::Borrowed(s)),
            _ => None,
        }
    }
    fn as_bool(self) -> Option<bool> {
        match self.place() {
            Place::Bool(b) => Some(*b),
            _ => None,
        }
    }
    fn as_i64(self) -> Option<i64> {
        match self.place() {
            Place::Number(n) => n.parse().ok(),
            _ => None,
        }
    }
    fn as_f64(self) -> Option<f64> {
        match self.place() {
            Place::Number(n) => n.parse().ok(),
            _ => None,
        }
    }
    fn is_object(self) -> bool {
        match self.place() {
            Place::Text(text) => text.starts_with('{'),
            place => matches!(place, Place::Object { .. }),
        }
    }
    fn is_array(self) -> bool {
        matches!(self.place(), Place::Array { .. })
    }
    fn items(self) -> Vec<Self> {
        let Place::Array { end } = self.place() else { return vec![] };
        let mut out = vec![];
        let mut at = self.at + 1;
        while at < *end {
            out.push(self.spot(at));
            at = self.spot(at).after();
        }
        out
    }
    fn entries(self) -> Vec<(Cow<'t, str>, Self)> {
        let Place::Object { end } = self.place() else { return vec![] };
        let mut out = vec![];
        let mut at = self.at + 1;
        while at < *end {
            if let Some(key) = self.spot(at).as_str() {
                out.push((key, self.spot(at + 1)));
            }
            at = self.spot(at + 1).after();
        }
        out
    }
    fn each_entry(self, mut each: impl FnMut(&str, Self)) {
        let Place::Object { end } = self.place() else { return };
        let mut at = self.at + 1;
        while at < *end {
            if let Place::Str(key) = &self.tape[at] {
                each(key, self.spot(at + 1));
            }
            at = self.spot(at + 1).after();
        }
    }
    fn text(self) -> Cow<'t, str> {
        match self.place() {
            Place::Text(text) => Cow::Borrowed(text),
            _ => Cow::Owned(self.to_value().to_string()),
        }
    }
}

//! Where values are read from: JSON text, or a value already in memory.

use super::{DecodeError, MAX_DEPTH};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The beginning of a value.
#[derive(Debug)]
pub enum Token<'a> {
    /// `null`
    Null,
    /// A boolean.
    Bool(bool),
    /// A number as written.
    Number(Cow<'a, str>),
    /// A string.
    Str(Cow<'a, str>),
    /// A list follows: call `item` until it says false.
    Array,
    /// A map follows: call `key` until it says none.
    Object,
}

/// A pull reader of one value.
pub trait Source<'a> {
    /// Whether numbers come from a value in memory, where a patch may have left a whole number as a float; Go would
    /// have printed it without a fraction.
    const IN_MEMORY: bool;
    /// Begins the value at the position.
    fn value(&mut self) -> Result<Token<'a>, DecodeError>;
    /// Steps to the next item of a list; false after the last.
    fn item(&mut self, first: bool) -> Result<bool, DecodeError>;
    /// Steps to the next entry of a map; none after the last.
    fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, DecodeError>;
}

/// Reads past a whole value.
pub fn skip<'a>(source: &mut impl Source<'a>) -> Result<(), DecodeError> {
    let token = source.value()?;
    skip_rest(source, &token)
}

/// Reads past what remains of a value that has begun.
pub fn skip_rest<'a>(source: &mut impl Source<'a>, token: &Token<'_>) -> Result<(), DecodeError> {
    // Containers that are open, true for a list; and whether the next item is the first of its container.
    let mut open = match token {
        Token::Array => vec![true],
        Token::Object => vec![false],
        _ => return Ok(()),
    };
    let mut first = true;
    while let Some(&list) = open.last() {
        let more = if list { source.item(first)? } else { source.key(first)?.is_some() };
        first = false;
        if !more {
            open.pop();
            continue;
        }
        match source.value()? {
            Token::Array => open.push(true),
            Token::Object => open.push(false),
            _ => continue,
        }
        first = true;
    }
    Ok(())
}

enum Frame {
    List(std::vec::IntoIter<Value>),
    Map(<Map<String, Value> as IntoIterator>::IntoIter),
}

/// Reads a value in memory, consuming it.
pub struct Tree {
    next: Value,
    open: Vec<Frame>,
}

impl Tree {
    fn enter(&mut self, frame: Frame) -> Result<(), DecodeError> {
        self.open.push(frame);
        if self.open.len() > MAX_DEPTH { Err(DecodeError::syntax("exceeded max depth")) } else { Ok(()) }
    }

    /// A reader of `value`.
    pub fn new(value: Value) -> Self {
        Tree { next: value, open: vec![] }
    }
}

impl<'a> Source<'a> for Tree {
    const IN_MEMORY: bool = true;

    fn value(&mut self) -> Result<Token<'a>, DecodeError> {
        Ok(match self.next.take() {
            Value::Null => Token::Null,
            Value::Bool(b) => Token::Bool(b),
            Value::Number(n) => Token::Number(Cow::Owned(n.to_string())),
            Value::String(s) => Token::Str(Cow::Owned(s)),
            Value::Array(items) => {
                self.enter(Frame::List(items.into_iter()))?;
                Token::Array
            }
            Value::Object(entries) => {
                self.enter(Frame::Map(entries.into_iter()))?;
                Token::Object
            }
        })
    }

    fn item(&mut self, _first: bool) -> Result<bool, DecodeError> {
        if let Some(Frame::List(items)) = self.open.last_mut()
            && let Some(item) = items.next()
        {
            self.next = item;
            return Ok(true);
        }
        self.open.pop();
        Ok(false)
    }

    fn key(&mut self, _first: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        if let Some(Frame::Map(entries)) = self.open.last_mut()
            && let Some((key, value)) = entries.next()
        {
            self.next = value;
            return Ok(Some(Cow::Owned(key)));
        }
        self.open.pop();
        Ok(None)
    }
}

//! The text that is being read.

use super::super::ProtoError;
use super::One;
use super::layout::{Layout, WORD};
use crate::decode::MAX_DEPTH;
use crate::table::Type;
use pintle_api::scan;
use std::borrow::Cow;

/// How many fields after the last one are tried before a key is looked up.
const NEAR: usize = 16;

impl<'a> One<'a, '_> {
    pub(super) fn wrong(&self) -> ProtoError {
        match self.peek() {
            Some(b) => {
                ProtoError::new(format!("invalid character {:?} at byte {} of a JSON text", char::from(b), self.at))
            }
            None => unending(),
        }
    }

    pub(super) fn deeper(&mut self) -> Result<(), ProtoError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(ProtoError::new("exceeded max depth")) } else { Ok(()) }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    pub(super) fn space(&mut self) {
        while self.peek().is_some_and(|b| b <= b' ' && b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), ProtoError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong());
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Whether there is another item; past the end, or at the item.
    #[inline]
    pub(super) fn more(&mut self, first: bool, end: u8) -> Result<bool, ProtoError> {
        match self.text.get(self.at..self.at + 2) {
            // As it mostly is.
            Some([b',', next]) if !first && *next > b' ' => {
                self.at += 1;
                Ok(true)
            }
            _ => self.more_or_end(first, end),
        }
    }

    fn more_or_end(&mut self, first: bool, end: u8) -> Result<bool, ProtoError> {
        self.space();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// The key that begins here; at its value then.
    pub(super) fn key(&mut self) -> Result<Cow<'a, [u8]>, ProtoError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong());
        }
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        Ok(key)
    }

    /// The field whose key begins here, if it is one of the next few and written without white space; at its value then.
    #[inline]
    pub(super) fn near(&mut self, ty: &'static Type, layout: &Layout, next: usize) -> Option<usize> {
        let rest = &self.text[self.at..];
        let word = u64::from_le_bytes(*rest.first_chunk()?);
        let starts = layout.starts[0].get(next..)?;
        let starts = &starts[..starts.len().min(NEAR)];
        let at = next + starts.iter().position(|start| start.begins(word))?;
        let end = usize::from(layout.steps[at].length);
        if end > WORD && !layout.starts[1][at].begins(u64::from_le_bytes(*rest.get(WORD..)?.first_chunk()?)) {
            return None;
        }
        // Longer ones are alike only as far as they were looked at.
        if end > 2 * WORD {
            let name = ty.fields[at].name.as_bytes();
            if rest.get(1..=name.len()) != Some(name) || rest.get(name.len() + 1..name.len() + 3) != Some(b"\":") {
                return None;
            }
        }
        self.at += end;
        self.space();
        Some(at)
    }

    /// Reads these bytes, if they are what comes.
    #[inline]
    pub(super) fn literal(&mut self, bytes: &[u8]) -> bool {
        let comes = self.text[self.at..].starts_with(bytes);
        if comes {
            self.at += bytes.len();
        }
        comes
    }

    /// The number that begins here, in some form; none if it is not of that.
    pub(super) fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        std::str::from_utf8(&self.text[from..self.at]).ok()?.parse().ok()
    }

    /// The string that begins here.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, ProtoError> {
        let (from, text) = (self.at, self.text);
        match scan::skip_string(text, from) {
            Some((end, false)) => {
                self.at = end;
                Ok(Cow::Borrowed(&text[from + 1..end - 1]))
            }
            Some((end, true)) => self.escaped(end),
            None => Err(unending()),
        }
    }

    /// The string that ends there, with its escapes read.
    #[cold]
    fn escaped(&mut self, end: usize) -> Result<Cow<'a, [u8]>, ProtoError> {
        let text = serde_json::from_slice::<String>(&self.text[self.at..end]);
        self.at = end;
        text.map(|text| Cow::Owned(text.into_bytes())).map_err(|e| ProtoError::new(e.to_string()))
    }

    /// Goes past any value, which is not looked into.
    pub(super) fn skip(&mut self) -> Result<&'a [u8], ProtoError> {
        let from = self.at;
        self.at = scan::skip_value(self.text, from).ok_or_else(unending)?;
        self.text.get(from..self.at).ok_or_else(unending)
    }
}

fn unending() -> ProtoError {
    ProtoError::new("unexpected end of JSON input")
}

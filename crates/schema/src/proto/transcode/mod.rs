//! JSON text straight to a body, without making anything of it in between.
//!
//! Text is read from front to back, and each field written as it is met. That is right whenever a type's fields come in
//! the order of their numbers, which for most types is the order in which JSON has them; else the pieces are put in order
//! when all are there. What is rare is read as a tree and left to [`super::write`].

mod layout;
mod message;
mod seen;
mod text;

use super::ProtoError;
use super::wire::FIXED64;
use super::write::{self, Body};
use crate::b64::STANDARD;
use crate::table::{Base, Form, Member, Type, types};
use crate::time;
use base64::Engine;
use layout::{Layout, Step};
use seen::Seen;
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;

/// The body of an object that is given as JSON text.
///
/// # Errors
/// For what is no JSON object. Text is not looked through for every mistake: who has it from elsewhere has read it.
pub fn json_to_body(text: &[u8], ty: &'static Type) -> Result<Vec<u8>, ProtoError> {
    Transcoder::default().body(text, ty)
}

/// Writes the bodies of objects, one after the other.
#[derive(Debug, Default)]
pub struct Transcoder {
    out: Vec<u8>,
    pieces: Vec<Piece>,
    /// By the places of the types; empty until many objects are written. Sets of managers' fields stand where their type
    /// would.
    seen: Vec<Seen>,
    many: bool,
}

impl Transcoder {
    /// For many objects of a list: what they have in common is read once.
    #[must_use]
    pub fn for_many() -> Self {
        Self { many: true, ..Self::default() }
    }

    /// The body of one more object.
    ///
    /// # Errors
    /// As of [`json_to_body`].
    pub fn body(&mut self, text: &[u8], ty: &'static Type) -> Result<Vec<u8>, ProtoError> {
        if self.many {
            // Not before there is something to write: mostly all objects have been written before.
            self.seen.resize_with(types().len() + 1, Seen::default);
        }
        let (mut out, mut pieces) = (std::mem::take(&mut self.out), std::mem::take(&mut self.pieces));
        out.clear();
        out.reserve(text.len() + 64);
        pieces.clear();
        let mut it = One { text, at: 0, depth: 0, out, pieces, seen: &mut self.seen, trusted: true };
        let body = it.whole(ty).map(|()| it.out.as_slice().into());
        (self.out, self.pieces) = (it.out, it.pieces);
        body
    }
}

/// Where in `out` a field is that has been written.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// The field's, which says where it belongs in the message.
    rank: u8,
    /// The field's place in the type.
    at: u8,
    from: u32,
    /// As where it begins, if it was null.
    to: u32,
}

/// One text being written.
struct One<'a, 'f> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    out: Vec<u8>,
    /// Of the structs being written.
    pieces: Vec<Piece>,
    seen: &'f mut [Seen],
    /// Whether fields have come in their order so far, where types have one.
    trusted: bool,
}

impl<'a> One<'a, '_> {
    fn whole(&mut self, ty: &'static Type) -> Result<(), ProtoError> {
        self.space();
        self.message(ty)?;
        self.space();
        if self.at < self.text.len() { Err(self.wrong()) } else { Ok(()) }
    }

    /// Writes a struct's message.
    fn message(&mut self, ty: &'static Type) -> Result<(), ProtoError> {
        self.deeper()?;
        let layout = Layout::of(ty);
        let (at, written) = (self.at, self.out.len());
        let ordered = layout.sorted && self.trusted;
        if !ordered || !self.in_order(ty, layout)? {
            // Once is enough: text that is in no order anywhere would be read again and again.
            self.trusted &= !ordered;
            self.at = at;
            self.out.truncate(written);
            self.in_pieces(ty, layout)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Writes a message whose fields come in the order of their numbers; not to the end, if they do not.
    fn in_order(&mut self, ty: &'static Type, layout: &Layout) -> Result<bool, ProtoError> {
        let (mut first, mut member, mut next) = (true, 0, 0);
        self.expect(b'{')?;
        while self.more(first, b'}')? {
            first = false;
            let Some((at, place)) = self.member(ty, layout, next)? else { continue };
            next = at + 1;
            if place < member {
                return Ok(false);
            }
            if self.literal(b"null") {
                continue;
            }
            if member < place {
                self.out.extend_from_slice(layout.zeros(member..place));
            }
            member = place + 1;
            self.field(layout.steps[at], ty, at)?;
        }
        self.out.extend_from_slice(layout.zeros(member..ty.message.len()));
        Ok(true)
    }

    /// Writes a message whose fields come in any order: first as they come, then in that of their numbers.
    fn in_pieces(&mut self, ty: &'static Type, layout: &Layout) -> Result<(), ProtoError> {
        let (start, base) = (self.out.len(), self.pieces.len());
        let (mut first, mut next) = (true, 0);
        self.expect(b'{')?;
        while self.more(first, b'}')? {
            first = false;
            let Some((at, _)) = self.member(ty, layout, next)? else { continue };
            next = at + 1;
            let from = self.out.len() as u32;
            if !self.literal(b"null") {
                self.field(layout.steps[at], ty, at)?;
            }
            let rank = layout.steps[at].rank;
            self.pieces.push(Piece { rank, at: at as u8, from, to: self.out.len() as u32 });
        }
        self.pieces[base..].sort_by_key(|piece| piece.rank);
        let unordered = self.out.len();
        let mut pieces = base..self.pieces.len();
        self.arrange(&mut pieces, 0, ty);
        self.out.copy_within(unordered.., start);
        self.out.truncate(start + self.out.len() - unordered);
        self.pieces.truncate(base);
        Ok(())
    }

    /// Writes a message of those of the pieces that are of its fields, which stand in the outer type from `begin` on.
    fn arrange(&mut self, pieces: &mut Range<usize>, begin: usize, ty: &'static Type) {
        let layout = Layout::of(ty);
        let mut member = 0;
        while let [piece, rest @ ..] = &self.pieces[pieces.clone()] {
            let piece = *piece;
            let step = usize::from(piece.at).checked_sub(begin).and_then(|at| layout.steps.get(at));
            let Some(place) = step.and_then(|step| step.member).map(usize::from) else { break };
            // Of what is there twice the last one counts.
            let again = rest.first().is_some_and(|next| next.at == piece.at);
            if again {
                pieces.start += 1;
                continue;
            }
            self.out.extend_from_slice(layout.zeros(member..place));
            member = place + 1;
            if let Member::Inline { number, ty, start } = ty.message[place] {
                let (open, from) = (self.open(number), pieces.start);
                self.arrange(pieces, begin + usize::from(start), ty.get());
                self.close(open);
                // At least the one that led there is done with.
                pieces.start = pieces.start.max(from + 1);
                continue;
            }
            pieces.start += 1;
            if piece.from < piece.to {
                self.out.extend_from_within(piece.from as usize..piece.to as usize);
            } else {
                self.out.extend_from_slice(layout.zeros(place..member));
            }
        }
        self.out.extend_from_slice(layout.zeros(member..ty.message.len()));
    }

    /// The field whose key begins here and the member that it is in, at its value then; past the value of what no message
    /// has.
    #[inline]
    fn member(
        &mut self,
        ty: &'static Type,
        layout: &Layout,
        next: usize,
    ) -> Result<Option<(usize, usize)>, ProtoError> {
        let at = match self.near(ty, layout, next) {
            Some(at) => Some(at),
            None => std::str::from_utf8(&self.key()?).ok().and_then(|key| ty.field_index(key, next)),
        };
        let found = at.and_then(|at| Some((at, usize::from(layout.steps[at].member?))));
        if found.is_none() {
            self.skip()?;
        }
        Ok(found)
    }

    /// Writes a field that is not null: that of a type at a place.
    fn field(&mut self, step: Step, ty: &'static Type, at: usize) -> Result<(), ProtoError> {
        match (step.form, self.peek()) {
            (Form::Plain | Form::Pointer, _) => self.item(step.number, step.base),
            (Form::List, Some(b'[')) => {
                self.deeper()?;
                self.at += 1;
                let mut first = true;
                while self.more(first, b']')? {
                    first = false;
                    self.item(step.number, step.base)?;
                }
                self.depth -= 1;
                Ok(())
            }
            (Form::Map, Some(b'{')) => {
                let (from, written) = (self.at, self.out.len());
                if self.map(step)? {
                    return Ok(());
                }
                self.at = from;
                self.out.truncate(written);
                self.by_tree(|out, value| write::field(out, Some(value), &ty.fields[at]))
            }
            (Form::List | Form::Map, _) => self.by_tree(|out, value| write::field(out, Some(value), &ty.fields[at])),
        }
    }

    /// Writes a map, unless its keys are in another order than messages have them in, each once.
    fn map(&mut self, step: Step) -> Result<bool, ProtoError> {
        self.deeper()?;
        self.at += 1;
        let mut last: Option<Cow<'a, [u8]>> = None;
        while self.more(last.is_none(), b'}')? {
            let key = self.key()?;
            if last.is_some_and(|last| last >= key) {
                self.depth -= 1;
                return Ok(false);
            }
            let open = self.open(step.number);
            self.bytes(1, &key);
            self.item(2, step.base)?;
            self.close(open);
            last = Some(key);
        }
        self.depth -= 1;
        Ok(true)
    }

    /// Writes one value, with its tag.
    fn item(&mut self, number: u32, base: Base) -> Result<(), ProtoError> {
        match (base, self.peek()) {
            (Base::Str, Some(b'"')) => {
                let text = self.string()?;
                self.bytes(number, &text);
            }
            (Base::Bool, Some(b't' | b'f')) => {
                let is = self.literal(b"true");
                if !is && !self.literal(b"false") {
                    return Err(self.wrong());
                }
                self.varint_field(number, u64::from(is));
            }
            (Base::Struct(id), Some(b'{')) => {
                let open = self.open(number);
                let ty = id.get();
                if !self.again(ty.index()) {
                    let (from, written) = (self.at, self.out.len());
                    self.message(ty)?;
                    self.remember(ty.index(), from, written);
                }
                self.close(open);
            }
            (Base::Int32 | Base::Int64, Some(b'-' | b'0'..=b'9')) => {
                let value = self.number::<i64>().unwrap_or(0);
                self.varint_field(number, value as u64);
            }
            (Base::Double, Some(b'-' | b'0'..=b'9')) => {
                let value = self.number::<f64>().unwrap_or(0.0);
                self.tag(number, FIXED64);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            (Base::Quantity, Some(b'"')) => {
                let text = self.string()?;
                self.message_of(number, &text);
            }
            (Base::IntOrString, Some(b'"')) => {
                let text = self.string()?;
                let open = self.open(number);
                self.varint_field(1, 1);
                self.varint_field(2, 0);
                self.bytes(3, &text);
                self.close(open);
            }
            (Base::IntOrString, Some(b'-' | b'0'..=b'9')) => {
                let value = self.number::<i64>().unwrap_or(0);
                let open = self.open(number);
                self.varint_field(1, 0);
                self.varint_field(2, value as u64);
                self.bytes(3, b"");
                self.close(open);
            }
            (Base::Time | Base::MicroTime, Some(b'"')) => {
                let text = self.string()?;
                let micro = base == Base::MicroTime;
                let open = self.open(number);
                if let Some(Ok(at)) = std::str::from_utf8(&text).ok().map(|text| time::parse(text, micro))
                    && at != time::ZERO
                {
                    self.varint_field(1, at.seconds as u64);
                    self.varint_field(2, if micro { u64::from(at.nanos) } else { 0 });
                }
                self.close(open);
            }
            (Base::Bytes, Some(b'"')) => {
                let text = self.string()?;
                self.bytes(number, &STANDARD.decode(&text).unwrap_or_default());
            }
            (Base::Fields, Some(b'{')) => {
                let open = self.open(number);
                if !self.again(types().len()) {
                    let (from, written) = (self.at, self.out.len());
                    let text = self.skip()?;
                    self.bytes(1, text);
                    self.remember(types().len(), from, written);
                }
                self.close(open);
            }
            _ => return self.by_tree(|out, value| write::item(out, number, Some(value), base)),
        }
        Ok(())
    }

    /// Writes the object that begins here, if it was met before.
    #[inline]
    fn again(&mut self, of: usize) -> bool {
        let found = self.seen.get_mut(of).and_then(|seen| seen.find(&self.text[self.at..]));
        let Some(known) = found else { return false };
        self.out.extend_from_slice(&known.written);
        self.at += known.text.len();
        true
    }

    /// Remembers the object that was read and written from there on.
    fn remember(&mut self, of: usize, from: usize, written: usize) {
        if let Some(seen) = self.seen.get_mut(of) {
            seen.remember(&self.text[from..self.at], &self.out[written..]);
        }
    }

    /// Reads a value as a tree and has it written.
    fn by_tree(&mut self, write: impl for<'v> FnOnce(&mut Body<'v>, &'v Value)) -> Result<(), ProtoError> {
        let text = self.skip()?;
        let value = serde_json::from_slice(text).map_err(|e| ProtoError::new(e.to_string()))?;
        let written = write::part(text.len() + 16, |out| write(out, &value));
        self.out.extend_from_slice(written.written());
        Ok(())
    }
}

//! JSON text straight to a body, without making anything of it in between.
//!
//! Text is read from front to back, and each field written as it is met. That is right whenever a type's fields come in
//! the order of their numbers, which for most types is the order in which JSON has them; else the pieces are put in order
//! when all are there. What is rare is read as a tree and left to [`super::write`].

use super::ProtoError;
use super::wire::{BYTES, FIXED64, VARINT};
use super::write::{self, Body};
use crate::decode::MAX_DEPTH;
use crate::table::{Base, Field, Form, Member, Type, types};
use crate::time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pintle_api::scan;
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

/// The body of an object that is given as JSON text.
///
/// # Errors
/// For what is no JSON object. Text is not looked through for every mistake: who has it from elsewhere has read it.
pub fn json_to_body(text: &[u8], ty: &'static Type) -> Result<Vec<u8>, ProtoError> {
    let mut it =
        Transcoder { text, at: 0, depth: 0, out: Vec::with_capacity(text.len() + 64), pieces: Vec::with_capacity(256) };
    it.space();
    it.message(ty)?;
    it.space();
    if it.at < text.len() { Err(it.wrong()) } else { Ok(it.out.as_slice().into()) }
}

/// How a type's message is laid out.
struct Layout {
    /// For each field of the type, which member of the message it is (in), if any.
    members: Box<[Option<u8>]>,
    /// What is written for members that are absent, one after the other.
    zeros: Box<[u8]>,
    /// Where each member's begins in there, and where the last one's ends.
    zeros_at: Box<[usize]>,
    /// Whether messages within hold fields that JSON has here.
    inline: bool,
    /// What each field begins with in text, its name in quotes and the colon: the first eight bytes, and the next.
    starts: [Box<[Word]>; 2],
}

/// Up to eight bytes, and which bits they are.
struct Word(u64, u64);

impl Word {
    fn new(bytes: &[u8]) -> Self {
        let (mut word, mut bits) = ([0; WORD], [0; WORD]);
        for ((word, bits), byte) in word.iter_mut().zip(&mut bits).zip(bytes) {
            (*word, *bits) = (*byte, 0xff);
        }
        Word(u64::from_le_bytes(word), u64::from_le_bytes(bits))
    }

    /// Whether eight bytes begin with it.
    fn begins(&self, eight: u64) -> bool {
        (eight ^ self.0) & self.1 == 0
    }
}

static LAYOUTS: LazyLock<Box<[OnceLock<Layout>]>> = LazyLock::new(|| types().map(|_| OnceLock::new()).collect());

impl Layout {
    fn of(ty: &'static Type) -> &'static Self {
        LAYOUTS[ty.index()].get_or_init(|| Self::new(ty))
    }

    fn new(ty: &'static Type) -> Self {
        let mut members = vec![None; ty.fields.len()];
        let (mut zeros, mut zeros_at) = (vec![], vec![0]);
        let mut inline = false;
        for (place, member) in (0u8..).zip(&ty.message) {
            match *member {
                Member::Field(at) => {
                    members[usize::from(at)] = Some(place);
                    let zero = write::part(64, |out| write::field(out, None, &ty.fields[usize::from(at)]));
                    zeros.extend_from_slice(zero.written());
                }
                Member::Inline { ty, start, .. } => {
                    inline = true;
                    let start = usize::from(start);
                    members[start..start + ty.get().fields.len()].fill(Some(place));
                }
            }
            zeros_at.push(zeros.len());
        }
        let starts = [0, WORD].map(|from| {
            let word = |f: &Field| Word::new(format!("\"{}\":", f.name).as_bytes().get(from..).unwrap_or_default());
            ty.fields.iter().map(word).collect()
        });
        Layout { members: members.into(), zeros: zeros.into(), zeros_at: zeros_at.into(), inline, starts }
    }

    /// What is written for these members when they are absent.
    fn zeros(&self, members: Range<usize>) -> &[u8] {
        &self.zeros[self.zeros_at[members.start]..self.zeros_at[members.end]]
    }
}

/// How many fields after the last one are tried before a key is looked up.
const NEAR: usize = 16;
/// How many bytes of a field's beginning are compared at once.
const WORD: usize = size_of::<u64>();

struct Transcoder<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    out: Vec<u8>,
    /// Where in `out` the fields of the structs being written begin and end.
    pieces: Vec<(u32, u32)>,
}

impl<'a> Transcoder<'a> {
    /// Writes a struct's message.
    fn message(&mut self, ty: &'static Type) -> Result<(), ProtoError> {
        self.deeper()?;
        let layout = Layout::of(ty);
        let (start, base) = (self.out.len(), self.pieces.len());
        self.pieces.resize(base + ty.fields.len(), (0, 0));
        let (mut ordered, mut member, mut next) = (!layout.inline, 0, 0);
        let mut first = true;
        self.expect(b'{')?;
        while self.more(first, b'}')? {
            first = false;
            let at = match self.near(ty, layout, next) {
                Some(at) => Some(at),
                None => std::str::from_utf8(&self.key()?).ok().and_then(|key| ty.field_index(key, next)),
            };
            let Some((at, place)) = at.and_then(|at| Some((at, usize::from(layout.members[at]?)))) else {
                self.skip()?;
                continue;
            };
            next = at + 1;
            if self.literal(b"null") {
                self.pieces[base + at] = (0, 0);
                // Were it written before, it would have to go.
                ordered &= place >= member;
                continue;
            }
            if place < member {
                ordered = false;
            } else if ordered {
                if member < place {
                    self.out.extend_from_slice(layout.zeros(member..place));
                }
                member = place + 1;
            }
            let from = self.out.len();
            self.field(&ty.fields[at])?;
            self.pieces[base + at] = (from as u32, self.out.len() as u32);
        }
        if ordered {
            self.out.extend_from_slice(layout.zeros(member..ty.message.len()));
        } else {
            let unordered = self.out.len();
            self.arrange(base, ty);
            self.out.copy_within(unordered.., start);
            self.out.truncate(start + self.out.len() - unordered);
        }
        self.pieces.truncate(base);
        self.depth -= 1;
        Ok(())
    }

    /// Writes a message of what stands elsewhere in `out`.
    fn arrange(&mut self, base: usize, ty: &'static Type) {
        let layout = Layout::of(ty);
        for (place, member) in ty.message.iter().enumerate() {
            match *member {
                Member::Field(at) => {
                    let (from, to) = self.pieces[base + usize::from(at)];
                    if from < to {
                        self.out.extend_from_within(from as usize..to as usize);
                        continue;
                    }
                    let zeros = layout.zeros(place..place + 1);
                    if !zeros.is_empty() {
                        self.out.extend_from_slice(zeros);
                    }
                }
                Member::Inline { number, ty, start } => {
                    let open = self.open(number);
                    self.arrange(base + usize::from(start), ty.get());
                    self.close(open);
                }
            }
        }
    }

    /// Writes a field that is not null.
    fn field(&mut self, f: &Field) -> Result<(), ProtoError> {
        match f.form {
            Form::Plain | Form::Pointer => self.item(f.number, f.base),
            Form::List if self.peek() == Some(b'[') => {
                self.deeper()?;
                self.at += 1;
                let mut first = true;
                while self.more(first, b']')? {
                    first = false;
                    self.item(f.number, f.base)?;
                }
                self.depth -= 1;
                Ok(())
            }
            Form::Map if self.peek() == Some(b'{') => self.map(f),
            Form::List | Form::Map => self.by_tree(|out, value| write::field(out, Some(value), f)),
        }
    }

    fn map(&mut self, f: &Field) -> Result<(), ProtoError> {
        let (from, written) = (self.at, self.out.len());
        self.deeper()?;
        self.at += 1;
        let mut last: Option<Cow<'a, [u8]>> = None;
        while self.more(last.is_none(), b'}')? {
            let key = self.key()?;
            if last.is_some_and(|last| last >= key) {
                // Messages have the entries in order, each once.
                self.depth -= 1;
                self.at = from;
                self.out.truncate(written);
                return self.by_tree(|out, value| write::field(out, Some(value), f));
            }
            let open = self.open(f.number);
            self.bytes(1, &key);
            self.item(2, f.base)?;
            self.close(open);
            last = Some(key);
        }
        self.depth -= 1;
        Ok(())
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
                self.message(id.get())?;
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
                let text = self.skip()?;
                self.message_of(number, text);
            }
            _ => return self.by_tree(|out, value| write::item(out, number, Some(value), base)),
        }
        Ok(())
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

/// Writing.
impl Transcoder<'_> {
    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn tag(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    fn varint_field(&mut self, number: u32, value: u64) {
        self.tag(number, VARINT);
        self.varint(value);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, BYTES);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A field that is a message with nothing but a first field of these bytes.
    fn message_of(&mut self, number: u32, bytes: &[u8]) {
        let length = match bytes.len() {
            0 => 1,
            len => len.ilog2() as usize / 7 + 1,
        };
        self.tag(number, BYTES);
        self.varint((1 + length + bytes.len()) as u64);
        self.bytes(1, bytes);
    }

    /// Begins a field whose length is not known yet; [`Self::close`] wants what this returns.
    fn open(&mut self, number: u32) -> usize {
        self.tag(number, BYTES);
        self.out.push(0);
        self.out.len()
    }

    fn close(&mut self, open: usize) {
        let end = self.out.len();
        let len = end - open;
        if len < 0x80 {
            self.out[open - 1] = len as u8;
            return;
        }
        // The length takes more than the one byte that was left for it.
        self.varint(len as u64);
        let more = self.out.len() - end - 1;
        let mut length = [0; 10];
        length[..=more].copy_from_slice(&self.out[end..]);
        self.out.truncate(end + more);
        self.out.copy_within(open..end, open + more);
        self.out[open - 1..open + more].copy_from_slice(&length[..=more]);
    }
}

/// Reading.
impl<'a> Transcoder<'a> {
    fn wrong(&self) -> ProtoError {
        match self.peek() {
            Some(b) => {
                ProtoError::new(format!("invalid character {:?} at byte {} of a JSON text", char::from(b), self.at))
            }
            None => unending(),
        }
    }

    fn deeper(&mut self) -> Result<(), ProtoError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(ProtoError::new("exceeded max depth")) } else { Ok(()) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b <= b' ' && b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), ProtoError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong());
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Whether there is another item; past the end, or at the item.
    fn more(&mut self, first: bool, end: u8) -> Result<bool, ProtoError> {
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
    fn key(&mut self) -> Result<Cow<'a, [u8]>, ProtoError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong());
        }
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        Ok(key)
    }

    /// The field whose key begins here, if it is one of the next few and written without white space; at its value then.
    fn near(&mut self, ty: &'static Type, layout: &Layout, next: usize) -> Option<usize> {
        let rest = &self.text[self.at..];
        let word = u64::from_le_bytes(*rest.first_chunk()?);
        let at = next + layout.starts[0][next..].iter().take(NEAR).position(|start| start.begins(word))?;
        let name = ty.fields[at].name;
        let end = name.len() + 3;
        if end > WORD && !layout.starts[1][at].begins(u64::from_le_bytes(*rest.get(WORD..)?.first_chunk()?)) {
            return None;
        }
        // Longer ones are alike only as far as they were looked at.
        if end > 2 * WORD && !(rest[1..].starts_with(name.as_bytes()) && rest.get(end - 2..end) == Some(b"\":")) {
            return None;
        }
        self.at += end;
        self.space();
        Some(at)
    }

    /// Reads these bytes, if they are what comes.
    fn literal(&mut self, bytes: &[u8]) -> bool {
        let comes = self.text[self.at..].starts_with(bytes);
        if comes {
            self.at += bytes.len();
        }
        comes
    }

    /// The number that begins here, in some form; none if it is not of that.
    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        std::str::from_utf8(&self.text[from..self.at]).ok()?.parse().ok()
    }

    /// The string that begins here.
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, [u8]>, ProtoError> {
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
    fn skip(&mut self) -> Result<&'a [u8], ProtoError> {
        let from = self.at;
        self.at = scan::skip_value(self.text, from).ok_or_else(unending)?;
        self.text.get(from..self.at).ok_or_else(unending)
    }
}

fn unending() -> ProtoError {
    ProtoError::new("unexpected end of JSON input")
}

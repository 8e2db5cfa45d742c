//! A pull reader of JSON text with Go's syntax errors.

use super::source::{Source, Token};
use super::{DecodeError, MAX_DEPTH};
use crate::quote::quoted;
use std::borrow::Cow;

/// Reads one JSON text.
pub struct Json<'a> {
    data: &'a [u8],
    /// The same, when all of it is text: looked at once, not string by string.
    text: Option<&'a str>,
    pos: usize,
    depth: usize,
}

impl<'a> Json<'a> {
    /// A reader at the start of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Json { data, text: std::str::from_utf8(data).ok(), pos: 0, depth: 0 }
    }

    /// Checks that nothing but white space follows.
    pub fn end(&mut self) -> Result<(), DecodeError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("after top-level value")),
        }
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(&b) = self.data.get(self.pos) {
            if !matches!(b, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(b);
            }
            self.pos += 1;
        }
        None
    }

    /// The error for the byte at the position, or for the end.
    #[cold]
    fn unexpected(&self, context: &str) -> DecodeError {
        let Some(&b) = self.data.get(self.pos) else {
            return DecodeError::syntax("unexpected end of JSON input");
        };
        let shown = match b {
            b'\'' => r"'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            _ => {
                let q = quoted(char::from(b).encode_utf8(&mut [0; 4]));
                format!("'{}'", &q[1..q.len() - 1])
            }
        };
        DecodeError::syntax(format!("invalid character {shown} {context}"))
    }

    fn enter(&mut self) -> Result<(), DecodeError> {
        self.pos += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(DecodeError::syntax("exceeded max depth")) } else { Ok(()) }
    }

    fn literal(&mut self, word: &str) -> Result<(), DecodeError> {
        for (i, expect) in word.bytes().enumerate().skip(1) {
            self.pos += 1;
            if self.data.get(self.pos) != Some(&expect) {
                let context = format!("in literal {word} (expecting '{}')", &word[i..=i]);
                return Err(self.unexpected(&context));
            }
        }
        self.pos += 1;
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Result<(), DecodeError> {
        if !self.data.get(self.pos).is_some_and(u8::is_ascii_digit) {
            return Err(self.unexpected(context));
        }
        while self.data.get(self.pos).is_some_and(u8::is_ascii_digit) {
            self.pos += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.pos;
        if self.data[self.pos] == b'-' {
            self.pos += 1;
        }
        if self.data.get(self.pos) == Some(&b'0') {
            self.pos += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.data.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.data.get(self.pos), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.data.get(self.pos), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(std::str::from_utf8(&self.data[start..self.pos]).unwrap_or("0"))
    }

    /// A string whose opening quote is at the position.
    fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.pos += 1;
        let start = self.pos;
        let end = self.plain_run();
        if self.data.get(end) == Some(&b'"') {
            self.pos = end + 1;
            return Ok(self.part(start, end));
        }
        self.escaped(start, end).map(Cow::Owned)
    }

    /// A part that begins and ends at ASCII characters.
    fn part(&self, start: usize, end: usize) -> Cow<'a, str> {
        match self.text.and_then(|text| text.get(start..end)) {
            Some(part) => Cow::Borrowed(part),
            None => lossy(&self.data[start..end]),
        }
    }

    /// Where the run of bytes that stand for themselves ends.
    fn plain_run(&self) -> usize {
        let rest = &self.data[self.pos..];
        let (eights, _) = rest.as_chunks::<8>();
        let whole = eights.iter().take_while(|eight| all_plain(u64::from_le_bytes(**eight))).count() * 8;
        let special = |b: &u8| *b == b'"' || *b == b'\\' || *b < 0x20;
        let len = rest[whole..].iter().position(special).map_or(rest.len(), |at| whole + at);
        self.pos + len
    }

    fn escaped(&mut self, mut start: usize, mut end: usize) -> Result<String, DecodeError> {
        let mut out = String::new();
        loop {
            out.push_str(&self.part(start, end));
            self.pos = end;
            match self.data.get(self.pos) {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(out);
                }
                Some(b'\\') => self.escape(&mut out)?,
                _ => return Err(self.unexpected("in string literal")),
            }
            start = self.pos;
            end = self.plain_run();
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), DecodeError> {
        self.pos += 1;
        let c = match self.data.get(self.pos) {
            Some(&c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex()?;
                let mut c = char::from_u32(first);
                if (0xd800..0xdc00).contains(&first) && self.data[self.pos..].starts_with(b"\\u") {
                    let at = self.pos;
                    self.pos += 1;
                    let second = self.hex()?;
                    if (0xdc00..0xe000).contains(&second) {
                        c = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                    } else {
                        self.pos = at;
                    }
                }
                out.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
                return Ok(());
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        out.push(c);
        self.pos += 1;
        Ok(())
    }

    /// The four digits after `u`, which is at the position.
    fn hex(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for _ in 0..4 {
            self.pos += 1;
            match self.data.get(self.pos).and_then(|b| char::from(*b).to_digit(16)) {
                Some(digit) => value = value * 16 + digit,
                None => return Err(self.unexpected("in \\u hexadecimal character escape")),
            }
        }
        self.pos += 1;
        Ok(value)
    }
}

/// Whether none of eight bytes is a quote, a backslash or a control character. Bytes beyond ASCII are plain.
fn all_plain(eight: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte of a difference borrows into its high bit just when it was below what was taken from it.
    let below = |x: u64, n: u64| x.wrapping_sub(ONES * n) & !x & HIGHS;
    let equal = |byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
    below(eight, 0x20) | equal(b'"') | equal(b'\\') == 0
}

/// Text from bytes; each byte that is not UTF-8 becomes U+FFFD, as in Go.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(s) => Cow::Borrowed(s),
        Err(_) => {
            let mut out = String::with_capacity(bytes.len() + 8);
            for chunk in bytes.utf8_chunks() {
                out.push_str(chunk.valid());
                out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            Cow::Owned(out)
        }
    }
}

impl<'a> Source<'a> for Json<'a> {
    const IN_MEMORY: bool = false;

    fn value(&mut self) -> Result<Token<'a>, DecodeError> {
        match self.peek() {
            Some(b'{') => self.enter().map(|()| Token::Object),
            Some(b'[') => self.enter().map(|()| Token::Array),
            Some(b'"') => self.string().map(Token::Str),
            Some(b'-' | b'0'..=b'9') => self.number().map(|n| Token::Number(Cow::Borrowed(n))),
            Some(b't') => self.literal("true").map(|()| Token::Bool(true)),
            Some(b'f') => self.literal("false").map(|()| Token::Bool(false)),
            Some(b'n') => self.literal("null").map(|()| Token::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn item(&mut self, first: bool) -> Result<bool, DecodeError> {
        match self.peek() {
            Some(b']') => {
                self.pos += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.pos += 1;
                Ok(true)
            }
            // Whatever is wrong with a first item, reading it will tell.
            _ if first => Ok(true),
            _ => Err(self.unexpected("after array element")),
        }
    }

    fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self.peek() {
            Some(b'}') => {
                self.pos += 1;
                self.depth -= 1;
                return Ok(None);
            }
            Some(b',') if !first => {
                self.pos += 1;
                self.peek();
            }
            _ if first => {}
            _ => return Err(self.unexpected("after object key:value pair")),
        }
        if self.data.get(self.pos) != Some(&b'"') {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected("after object key"));
        }
        self.pos += 1;
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::skip;
    use super::*;

    #[test]
    fn syntax_errors_are_gos() {
        let check = |text: &str, expect: &str| {
            let mut json = Json::new(text.as_bytes());
            let got = skip(&mut json).and_then(|()| json.end());
            assert_eq!(got.err().map(|e| e.to_string()).unwrap_or_default(), expect, "{text}");
        };
        for good in ["{}", "[]", "[ ]", " null ", "0", "-0.5e+3", r#"{"a":[1,{"b":"\u00e9\ud83d\ude00"}],"c":true}"#] {
            check(good, "");
        }
        check("", "unexpected end of JSON input");
        check("{", "unexpected end of JSON input");
        check("[1", "unexpected end of JSON input");
        check("\"a", "unexpected end of JSON input");
        check("}", "invalid character '}' looking for beginning of value");
        check("{,}", "invalid character ',' looking for beginning of object key string");
        check("{\"a\":1,}", "invalid character '}' looking for beginning of object key string");
        check("[1,]", "invalid character ']' looking for beginning of value");
        check("[1 2]", "invalid character '2' after array element");
        check("{\"a\" 1}", "invalid character '1' after object key");
        check("{\"a\":1 2}", "invalid character '2' after object key:value pair");
        check("{}x", "invalid character 'x' after top-level value");
        check("01", "invalid character '1' after top-level value");
        check("-x", "invalid character 'x' in numeric literal");
        check("1.x", "invalid character 'x' after decimal point in numeric literal");
        check("1ex", "invalid character 'x' in exponent of numeric literal");
        check("tru ", "invalid character ' ' in literal true (expecting 'e')");
        check("\"\n\"", "invalid character '\\n' in string literal");
        check("\"\\x\"", "invalid character 'x' in string escape code");
        check("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape");
        check("'a'", r"invalid character '\\'' looking for beginning of value");
        check("\u{e9}", "invalid character 'Ã' looking for beginning of value");
        check(&"[".repeat(200), "exceeded max depth");
    }

    #[test]
    fn runs() {
        for at in 0..20 {
            for special in [b'"', b'\\', 0, 0x1f, b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                let mut text = [b'a'; 21];
                text[at] = special;
                text[20] = b'"';
                let plain = !matches!(special, b'"' | b'\\' | 0..0x20);
                assert_eq!(Json::new(&text).plain_run(), if plain { 20 } else { at }, "{special} at {at}");
            }
        }
    }

    #[test]
    fn strings() {
        let check = |text: &[u8], expect: &str| match Json::new(text).value() {
            Ok(Token::Str(s)) => assert_eq!(s, expect),
            other => panic!("{other:?}"),
        };
        check(br#""plain""#, "plain");
        check(br#""a\n\t\"\\\/\u0041""#, "a\n\t\"\\/A");
        check(br#""\ud800x""#, "\u{fffd}x");
        check(br#""\ud800\u0041""#, "\u{fffd}A");
        check(b"\"a\xffb\xc3\"", "a\u{fffd}b\u{fffd}");
    }
}

//! The words of an expression.

/// A word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Int(&'a str),
    Uint(&'a str),
    Float(&'a str),
    /// A text with its quotes: the text between them, whether it is raw, whether it is of bytes.
    Text {
        inner: &'a str,
        raw: bool,
        bytes: bool,
    },
    Ident(&'a str),
    /// Anything else, and the words of the language: `in`, `true`, `false`, `null`.
    Op(&'static str),
    End,
}

/// What is not a word: how the expression goes on is for upstream's grammar to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAWord;

const OPS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "[", "]", "{", "}", "(", ")", ".", ",", "-", "?", ":", "+", "*",
    "/", "%",
];
const WORDS: &[&str] = &["in", "true", "false", "null"];

/// The words, each with the place of its first character, counted in characters.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token<'_>, u32)>, NotAWord> {
    let mut lexer = Lexer { source, at: 0, chars: 0 };
    let mut all = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.chars;
        let token = lexer.next()?;
        all.push((token, start));
        if token == Token::End {
            return Ok(all);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    chars: u32,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Takes so many bytes.
    fn take(&mut self, bytes: usize) -> &'a str {
        let taken = &self.source[self.at..self.at + bytes];
        self.at += bytes;
        self.chars += u32::try_from(taken.chars().count()).unwrap_or(u32::MAX);
        taken
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']).len();
            let comment = if rest[blank..].starts_with("//") {
                rest[blank..].find('\n').unwrap_or(rest.len() - blank)
            } else {
                0
            };
            if blank + comment == 0 {
                return;
            }
            self.take(blank + comment);
        }
    }

    fn next(&mut self) -> Result<Token<'a>, NotAWord> {
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else { return Ok(Token::End) };
        if let Some(text) = self.text()? {
            return Ok(text);
        }
        let fraction = first == b'.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || fraction {
            return Ok(self.number());
        }
        if first.is_ascii_alphabetic() || first == b'_' {
            let name = self.take(rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count());
            let word = WORDS.iter().find(|w| **w == name);
            return Ok(word.map_or(Token::Ident(name), |w| Token::Op(w)));
        }
        let op = OPS.iter().find(|op| rest.starts_with(**op)).ok_or(NotAWord)?;
        self.take(op.len());
        Ok(Token::Op(op))
    }

    fn number(&mut self) -> Token<'a> {
        let b = self.rest().as_bytes();
        let digits = |from: usize| b[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let hex = if b.starts_with(b"0x") { b[2..].iter().take_while(|b| b.is_ascii_hexdigit()).count() } else { 0 };
        let mut len = if hex > 0 { 2 + hex } else { digits(0) };
        let mut float = false;
        if hex == 0 {
            if b.get(len) == Some(&b'.') && digits(len + 1) > 0 {
                len += 1 + digits(len + 1);
                float = true;
            }
            if matches!(b.get(len), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(b.get(len + 1), Some(b'+' | b'-')));
                let exponent = b.get(len + 1 + sign).map_or(0, |_| digits(len + 1 + sign));
                if exponent > 0 {
                    len += 1 + sign + exponent;
                    float = true;
                }
            }
        }
        let unsigned = !float && matches!(b.get(len), Some(b'u' | b'U'));
        let text = self.take(len);
        if unsigned {
            self.take(1);
            Token::Uint(text)
        } else if float {
            Token::Float(text)
        } else {
            Token::Int(text)
        }
    }

    fn text(&mut self) -> Result<Option<Token<'a>>, NotAWord> {
        let rest = self.rest();
        let mut b = rest.as_bytes();
        let bytes = matches!(b[0], b'b' | b'B');
        b = &b[usize::from(bytes)..];
        let raw = matches!(b.first(), Some(b'r' | b'R'));
        b = &b[usize::from(raw)..];
        let Some(&quote @ (b'"' | b'\'')) = b.first() else { return Ok(None) };
        let triple = b.len() >= 3 && b[..3] == [quote; 3];
        let width = if triple { 3 } else { 1 };
        let begin = rest.len() - b.len() + width;
        let mut at = begin;
        let all = rest.as_bytes();
        loop {
            match all.get(at).ok_or(NotAWord)? {
                b'\\' if !raw => at += 1 + escape(&all[at + 1..], bytes)?,
                b'\n' | b'\r' if !triple => return Err(NotAWord),
                &c if c == quote && (!triple || all[at..].starts_with(&[quote; 3])) => break,
                _ => at += 1,
            }
        }
        self.take(at + width);
        Ok(Some(Token::Text { inner: &rest[begin..at], raw, bytes }))
    }
}

/// How long the escape is that begins here, after its backslash.
fn escape(b: &[u8], bytes: bool) -> Result<usize, NotAWord> {
    let all = |from: usize, n: usize, ok: fn(&u8) -> bool| {
        let good = b.get(from..from + n).is_some_and(|d| d.iter().all(ok));
        good.then_some(from + n).ok_or(NotAWord)
    };
    match b.first().ok_or(NotAWord)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Ok(1),
        b'x' | b'X' => all(1, 2, u8::is_ascii_hexdigit),
        b'u' if !bytes => all(1, 4, u8::is_ascii_hexdigit),
        b'U' if !bytes => all(1, 8, u8::is_ascii_hexdigit),
        b'0'..=b'3' => all(1, 2, |d| matches!(d, b'0'..=b'7')),
        _ => Err(NotAWord),
    }
}

/// What a text between its quotes says; `None` when an escape names no character.
pub(super) fn unescaped(inner: &str, raw: bool, bytes: bool) -> Option<Vec<u8>> {
    let plain = inner.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Vec::with_capacity(plain.len());
    if raw {
        return Some(plain.into_bytes());
    }
    let mut rest = plain.as_str();
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let kind = after.chars().next()?;
        let len = escape(after.as_bytes(), bytes).ok()?;
        let code = match kind {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' | 'X' | 'u' | 'U' => u32::from_str_radix(&after[1..len], 16).ok()?,
            '0'..='3' => u32::from_str_radix(&after[..len], 8).ok()?,
            other => u32::from(other),
        };
        match u8::try_from(code) {
            Ok(byte) if bytes => out.push(byte),
            _ => out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = &after[len..];
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let check = |source: &str, expect: &[(Token<'_>, u32)]| {
            let mut found = tokens(source).unwrap_or_else(|_| panic!("{source}"));
            found.pop();
            assert_eq!(found, expect, "{source}");
        };
        check("a.b", &[(Token::Ident("a"), 0), (Token::Op("."), 1), (Token::Ident("b"), 2)]);
        check(
            "'é' in\nx // é",
            &[(Token::Text { inner: "é", raw: false, bytes: false }, 0), (Token::Op("in"), 4), (Token::Ident("x"), 7)],
        );
        check(
            "1 0x1F 2u .5 1e3 1.5e-3 1.e",
            &[
                (Token::Int("1"), 0),
                (Token::Int("0x1F"), 2),
                (Token::Uint("2"), 7),
                (Token::Float(".5"), 10),
                (Token::Float("1e3"), 13),
                (Token::Float("1.5e-3"), 17),
                (Token::Int("1"), 24),
                (Token::Op("."), 25),
                (Token::Ident("e"), 26),
            ],
        );
        check(
            r#"br'\d' "a\"b" '''a'b'''"#,
            &[
                (Token::Text { inner: r"\d", raw: true, bytes: true }, 0),
                (Token::Text { inner: r#"a\"b"#, raw: false, bytes: false }, 7),
                (Token::Text { inner: "a'b", raw: false, bytes: false }, 14),
            ],
        );
        for bad in ["@", "'a", "'a\n'", r"'\q'", r"'\400'", "a = b", "#", "é"] {
            assert_eq!(tokens(bad), Err(NotAWord), "{bad}");
        }
    }

    #[test]
    fn escapes() {
        let check = |inner: &str, raw: bool, bytes: bool, expect: Option<&[u8]>| {
            assert_eq!(unescaped(inner, raw, bytes).as_deref(), expect, "{inner}");
        };
        check(r"a\n\x41\u00e9\101\'", false, false, Some("a\nAéA'".as_bytes()));
        check(r"\xff\377é", false, true, Some(b"\xff\xff\xc3\xa9"));
        check(r"a\n", true, false, Some(br"a\n"));
        check(r"\ud800", false, false, None);
        check("a\r\nb\rc", false, false, Some(b"a\nb\nc"));
    }
}

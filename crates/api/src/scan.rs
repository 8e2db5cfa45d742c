//! A skipping scanner over JSON text: finds where values stand without building them.
//!
//! It reads text that was validated before (canonical objects); on other text it answers `None` and never panics.

/// Where something stands in a text: byte offsets, end exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Option<Self> {
        Some(Self { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    /// The bytes it stands for.
    #[must_use]
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The same text after `by` bytes were inserted somewhere before it.
    #[must_use]
    pub fn shifted(self, by: u32) -> Self {
        if self.is_empty() { self } else { Self { start: self.start + by, end: self.end + by } }
    }
}

/// The span without the quotes, when the value is a string; else the span as it is.
#[must_use]
pub fn unquoted(text: &[u8], span: Span) -> Span {
    let raw = span.of(text);
    if raw.len() >= 2 && raw[0] == b'"' { Span { start: span.start + 1, end: span.end - 1 } } else { span }
}

/// Skips white space.
#[must_use]
pub fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Offset after the string that starts at `at`.
fn skip_string(text: &[u8], at: usize) -> Option<usize> {
    let mut i = at + 1;
    loop {
        match text.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// Offset after the value that starts at `at`.
#[must_use]
pub fn skip_value(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => skip_string(text, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut i = at;
            loop {
                match text.get(i)? {
                    b'"' => {
                        i = skip_string(text, i)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
        }
        _ => {
            let mut i = at;
            while let Some(c) = text.get(i) {
                if matches!(c, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                    break;
                }
                i += 1;
            }
            (i > at).then_some(i)
        }
    }
}

/// Walks the members of the object that starts at `at`: `f(key, value span)`; a `false` stops the walk. Answers the
/// offset where it stopped or ended.
pub fn members(text: &[u8], at: usize, mut f: impl FnMut(&[u8], Span) -> bool) -> Option<usize> {
    if *text.get(at)? != b'{' {
        return None;
    }
    let mut i = skip_space(text, at + 1);
    if *text.get(i)? == b'}' {
        return Some(i + 1);
    }
    loop {
        if *text.get(i)? != b'"' {
            return None;
        }
        let key_end = skip_string(text, i)?;
        let key = text.get(i + 1..key_end - 1)?;
        i = skip_space(text, key_end);
        if *text.get(i)? != b':' {
            return None;
        }
        i = skip_space(text, i + 1);
        let end = skip_value(text, i)?;
        if !f(key, Span::new(i, end)?) {
            return Some(end);
        }
        i = skip_space(text, end);
        match text.get(i)? {
            b',' => i = skip_space(text, i + 1),
            b'}' => return Some(i + 1),
            _ => return None,
        }
    }
}

/// Span of the value at a path of object keys below the object at `at`.
#[must_use]
pub fn find(text: &[u8], at: usize, path: &[&str]) -> Option<Span> {
    let mut at = at;
    let mut found = None;
    for key in path {
        found = None;
        members(text, at, |k, span| {
            if k == key.as_bytes() {
                found = Some(span);
                false
            } else {
                true
            }
        })?;
        at = found?.start as usize;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_paths() {
        let text = br#" {"a": {"b\"": [1,{"x":"}"}], "c" : "v,\\" , "d":12.5}, "e":null}"#;
        let check = |path: &[&str], want: Option<&str>| {
            let got = find(text, 1, path).map(|s| std::str::from_utf8(s.of(text)).unwrap());
            assert_eq!(got, want, "{path:?}");
        };
        check(&["a", "c"], Some(r#""v,\\""#));
        check(&["a", "d"], Some("12.5"));
        check(&["e"], Some("null"));
        check(&["a", "z"], None);
        check(&["e", "z"], None);
    }

    #[test]
    fn broken_text_is_none() {
        for text in ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":[", "{\"a\":\"\\", "{\"a\":1", "{\"a\":1;}", "[1]"] {
            assert_eq!(find(text.as_bytes(), 0, &["zz"]), None, "{text}");
        }
    }
}

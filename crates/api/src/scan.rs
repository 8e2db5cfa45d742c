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
    pub(crate) fn new(start: usize, end: usize) -> Option<Self> {
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

    /// The same text, or the text with what was put in, after the bytes from `at` on were moved by `by`.
    #[must_use]
    pub fn moved(self, at: usize, by: isize) -> Self {
        let moved = |offset: u32| {
            if (offset as usize) < at { Some(offset) } else { u32::try_from((offset as isize).checked_add(by)?).ok() }
        };
        match (moved(self.start), moved(self.end)) {
            (Some(start), Some(end)) if !self.is_empty() => Self { start, end },
            _ => Self::default(),
        }
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

/// Offset after the string that starts at `at`, and whether anything in it is escaped.
#[must_use]
#[inline]
pub fn skip_string(text: &[u8], at: usize) -> Option<(usize, bool)> {
    let (mut i, mut escaped) = (at + 1, false);
    loop {
        // Eight bytes at once where there are as many.
        while let Some(eight) = text.get(i..)?.first_chunk() {
            let plain = plain_bytes(u64::from_le_bytes(*eight));
            i += plain;
            if plain < 8 {
                break;
            }
        }
        match text.get(i)? {
            b'"' => return Some((i + 1, escaped)),
            b'\\' => {
                escaped = true;
                i += 2;
            }
            _ => i += 1,
        }
    }
}

/// How many of eight bytes, the lowest first, come before the first quote or backslash.
#[inline]
fn plain_bytes(eight: u64) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    // The lowest bit that is left is that of the lowest byte that is zero; above it some that are not may have theirs.
    let zeros = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes & HIGH;
    let found = zeros(eight ^ (ONES * u64::from(b'"'))) | zeros(eight ^ (ONES * u64::from(b'\\')));
    (found.trailing_zeros() / 8) as usize
}

/// Offset after the value that starts at `at`.
#[must_use]
pub fn skip_value(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => skip_string(text, at).map(|(end, _)| end),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut i = at;
            loop {
                match text.get(i)? {
                    b'"' => {
                        i = skip_string(text, i)?.0;
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

/// Walks the members of the object that starts at `at`: `f(key, offset of the value)` says how to go on. Answers where
/// the walk stopped (the value's beginning) or the object ended.
fn walk(text: &[u8], at: usize, mut f: impl FnMut(&[u8], usize) -> Step) -> Option<usize> {
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
        let key_end = skip_string(text, i)?.0;
        let key = text.get(i + 1..key_end - 1)?;
        i = skip_space(text, key_end);
        if *text.get(i)? != b':' {
            return None;
        }
        i = skip_space(text, i + 1);
        let end = match f(key, i) {
            Step::On(end) => end,
            Step::Skip => skip_value(text, i)?,
            Step::Stop => return Some(i),
            Step::Broken => return None,
        };
        i = skip_space(text, end);
        match text.get(i)? {
            b',' => i = skip_space(text, i + 1),
            b'}' => return Some(i + 1),
            _ => return None,
        }
    }
}

/// How a walk goes on.
enum Step {
    /// After this offset, where the value ends.
    On(usize),
    /// After the value, wherever it ends.
    Skip,
    Stop,
    Broken,
}

/// Walks the members of the object that starts at `at`: `f(key, value span)`. Answers the offset where it ended.
pub fn members(text: &[u8], at: usize, mut f: impl FnMut(&[u8], Span)) -> Option<usize> {
    walk(text, at, |key, i| match skip_value(text, i).and_then(|end| Some((end, Span::new(i, end)?))) {
        Some((end, span)) => {
            f(key, span);
            Step::On(end)
        }
        None => Step::Broken,
    })
}

/// Offset of the value of a key of the object that starts at `at`, which is read no further than that.
#[must_use]
pub fn enter(text: &[u8], at: usize, key: &str) -> Option<usize> {
    let mut found = false;
    let end = walk(text, at, |k, _| {
        found = k == key.as_bytes();
        if found { Step::Stop } else { Step::Skip }
    })?;
    found.then_some(end)
}

/// Span of the value at a path of object keys below the object at `at`.
#[must_use]
pub fn find(text: &[u8], at: usize, path: &[&str]) -> Option<Span> {
    let start = path.iter().try_fold(at, |at, key| enter(text, at, key))?;
    Span::new(start, skip_value(text, start)?)
}

/// Puts into `found` the spans of the values at several paths below the object at `at`, in one pass over the text; what
/// is not there is left as it was. Of a key that is there twice, the last one counts.
pub fn find_all<T>(text: &[u8], at: usize, all: &[T], path: fn(&T) -> &[&str], found: &mut [Span]) {
    // A set of paths is the bits of a number.
    let most = usize::try_from(u64::BITS).unwrap_or(1);
    for (all, found) in all.chunks(most).zip(found.chunks_mut(most)) {
        let those = u64::MAX >> (most - all.len());
        // Text that breaks off has no more values.
        let _ = find_below(text, at, 0, &Paths { all, path }, those, found);
    }
}

/// Paths, each a part of what it belongs to.
struct Paths<'a, T> {
    all: &'a [T],
    path: fn(&T) -> &[&str],
}

/// The part of [`find_all`] below one object: `those` are the paths that lead through it. Answers the object's end.
fn find_below<T>(
    text: &[u8],
    at: usize,
    depth: usize,
    paths: &Paths<'_, T>,
    those: u64,
    found: &mut [Span],
) -> Option<usize> {
    walk(text, at, |key, i| {
        let (mut ends, mut on) = (0_u64, 0_u64);
        for (p, segments) in paths.all.iter().map(paths.path).enumerate().filter(|(p, _)| those & (1 << p) != 0) {
            if segments.get(depth).is_some_and(|k| k.as_bytes() == key) {
                *(if segments.len() == depth + 1 { &mut ends } else { &mut on }) |= 1 << p;
            }
        }
        if ends | on == 0 {
            return Step::Skip;
        }
        let end = if on != 0 && text.get(i) == Some(&b'{') {
            find_below(text, i, depth + 1, paths, on, found)
        } else {
            skip_value(text, i)
        };
        let Some((end, span)) = end.and_then(|end| Some((end, Span::new(i, end)?))) else { return Step::Broken };
        for (_, found) in found.iter_mut().enumerate().filter(|(p, _)| ends & (1 << p) != 0) {
            *found = span;
        }
        Step::On(end)
    })
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
    fn strings_end_where_their_quotes_do() {
        for len in 0..20 {
            for at in 0..len {
                for (within, escaped) in [("\u{ff}", false), ("!", false), ("#", false), ("\\\"", true), ("\\\\", true)]
                {
                    let text = format!("x\"{}{within}{}\"y\"", "a".repeat(at), "[".repeat(len - at));
                    assert_eq!(skip_string(text.as_bytes(), 1), Some((text.len() - 2, escaped)), "{text}");
                    let open = &text[..text.len() - 3];
                    assert_eq!(skip_string(open.as_bytes(), 1), None, "{open}");
                }
            }
        }
        assert_eq!(skip_string(b"\"a\\", 0), None);
    }

    #[test]
    fn finds_several_at_once() {
        let text = br#"{"a":{"b":1,"c":{"d":"x"},"e":[{"b":2}]},"f":{},"g":"h"}"#;
        let paths: &[&[&str]] = &[&["a", "c", "d"], &["a", "b"], &["a", "c"], &["f", "z"], &["g"], &["g", "h"], &["y"]];
        let spans = |text: &[u8], paths: &[&[&str]]| {
            let mut found = vec![Span::default(); paths.len()];
            find_all(text, 0, paths, |p| p, &mut found);
            found
        };
        let found = spans(text, paths);
        let found: Vec<_> = found.iter().map(|s| std::str::from_utf8(s.of(text)).unwrap()).collect();
        assert_eq!(found, [r#""x""#, "1", r#"{"d":"x"}"#, "", r#""h""#, "", ""]);
        for (path, found) in paths.iter().zip(found) {
            assert_eq!(find(text, 0, path).map_or("", |s| std::str::from_utf8(s.of(text)).unwrap()), found, "{path:?}");
        }
        // More than fit a set.
        let many: Vec<&[&str]> = paths.iter().copied().cycle().take(150).collect();
        assert_eq!(spans(text, &many), spans(text, paths).into_iter().cycle().take(150).collect::<Vec<_>>());
        for cut in 0..text.len() {
            spans(&text[..cut], paths);
        }
    }

    #[test]
    fn broken_text_is_none() {
        for text in ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":[", "{\"a\":\"\\", "{\"a\":1", "{\"a\":1;}", "[1]"] {
            assert_eq!(find(text.as_bytes(), 0, &["zz"]), None, "{text}");
        }
    }
}

//! Strings quoted the way Go's `%q` writes them, which is how Kubernetes prints values in its messages.

/// Appends `s` in double quotes with Go's escapes.
pub fn push_quoted(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            c if c.is_ascii() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if printable(c) => out.push(c),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
}

/// `s` in double quotes with Go's escapes.
pub fn quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    push_quoted(&mut out, s);
    out
}

/// Whether Go's `unicode.IsPrint` holds for a character beyond ASCII. `str::escape_debug` knows the same classes,
/// except that it also escapes a combining mark at the start of a string; hence the letter before it.
fn printable(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn as_go_quotes() {
        let check = |input: &str, expect: &str| assert_eq!(quoted(input), expect, "{input:?}");
        check("", "\"\"");
        check("plain text", "\"plain text\"");
        check("a\"b\\c", "\"a\\\"b\\\\c\"");
        check("\n\r\t\x07\x08\x0b\x0c", "\"\\n\\r\\t\\a\\b\\v\\f\"");
        check("\x01\x7f", "\"\\x01\\x7f\"");
        check("é日本e\u{301}", "\"é日本e\u{301}\"");
        check("\u{a0}\u{200b}\u{e000}", "\"\\u00a0\\u200b\\ue000\"");
        check("\u{1f600}", "\"\u{1f600}\"");
        check("\u{10ffff}", "\"\\U0010ffff\"");
    }
}

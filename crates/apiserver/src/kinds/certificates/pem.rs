//! Blocks of PEM as Go reads them: whatever stands around them, and what is none, is passed over.

use base64::Engine as _;
use pintle_schema::b64::STANDARD;

/// One block.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    pub label: String,
    /// It has headers, whatever they say.
    pub headers: bool,
    pub contents: Vec<u8>,
}

/// The blocks of a text. Each line is looked at a few times at most, whatever the text.
pub(super) fn blocks(data: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let label = lines[at].strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----"));
        at += 1;
        let Some(label) = label else { continue };
        // Nothing of a block begins with a dash, so what does must end it.
        let Some(length) = lines[at..].iter().position(|l| l.starts_with('-')) else { break };
        if lines[at + length].strip_prefix("-----END ").and_then(|l| l.strip_suffix("-----")) != Some(label) {
            continue;
        }
        let inner = &lines[at..at + length];
        let headers = inner.iter().take_while(|l| l.contains(':')).count();
        let body: String = inner[headers..].concat();
        if let Ok(contents) = STANDARD.decode(body) {
            out.push(Block { label: label.to_owned(), headers: headers > 0, contents });
        }
        at += length + 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let block = |label: &str, headers| Block { label: label.to_owned(), headers, contents: b"hello".to_vec() };
        let a = "-----BEGIN A-----\naGVs\nbG8=\n-----END A-----\n";
        let b = "-----BEGIN B-----\nX: y\n\naGVsbG8=\n-----END B-----";
        for (text, expect) in [
            (String::new(), vec![]),
            ("hello".to_owned(), vec![]),
            (a.to_owned(), vec![block("A", false)]),
            (format!("before\n{a}between\n{b}"), vec![block("A", false), block("B", true)]),
            (format!("-----BEGIN A-----\n{a}"), vec![block("A", false)]),
            ("-----BEGIN A-----\n!\n-----END A-----".to_owned(), vec![]),
            ("-----BEGIN A-----\naGVsbG8=\n-----END B-----".to_owned(), vec![]),
            (format!("-----BEGIN A-----\naGVsbG8=\n-----END B-----\n{a}"), vec![block("A", false)]),
        ] {
            assert_eq!(blocks(text.as_bytes()), expect, "{text}");
        }
    }
}

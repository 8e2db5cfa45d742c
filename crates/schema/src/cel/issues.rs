//! What is wrong with an expression, in upstream's words.

use std::fmt::{self, Display, Formatter};

/// The most that are told.
const MOST: usize = 100;
/// The longest line that is shown.
const LONGEST_LINE: usize = 16_384;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its line, from 1; 0 when it is of the whole.
    pub line: usize,
    /// Its column, from 0, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// All that is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    source: String,
    list: Vec<Issue>,
}

impl Issues {
    pub(super) fn new(source: &str, mut list: Vec<Issue>) -> Self {
        list.sort_by_key(|i| (i.line, i.column));
        Self { source: source.to_owned(), list }
    }

    /// Each of them, in order.
    #[must_use]
    pub fn list(&self) -> &[Issue] {
        &self.list
    }
}

impl Display for Issues {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.source.split('\n').collect();
        for (i, issue) in self.list.iter().take(MOST).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            match issue.line {
                // Upstream's words for nowhere.
                0 => f.write_str("ERROR: <input>:-1:0: ")?,
                line => write!(f, "ERROR: <input>:{line}:{}: ", issue.column + 1)?,
            }
            f.write_str(&issue.message)?;
            if let Some(line) = issue.line.checked_sub(1).and_then(|l| lines.get(l)).filter(|l| l.len() <= LONGEST_LINE)
            {
                marked(line, issue.column, f)?;
            }
        }
        if self.list.len() > MOST {
            write!(f, "\n{} more errors were truncated", self.list.len() - MOST)?;
        }
        Ok(())
    }
}

/// The line, and below it a mark at the column; wide characters have wide dots.
fn marked(line: &str, column: usize, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "\n | {}\n | ", line.replace('\t', " "))?;
    let mut chars = line.chars();
    for _ in 0..column {
        match chars.next() {
            Some(c) if c.len_utf8() > 1 => f.write_str("\u{ff0e}")?,
            Some(_) => f.write_str(".")?,
            None => break,
        }
    }
    f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "\u{ff3e}" } else { "^" })
}

/// Where lines begin, to tell the line and column of a character.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(source: &str) -> Self {
        let ends = source.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(i, _)| i + 1);
        Self(std::iter::once(0).chain(ends).collect())
    }

    pub(super) fn issue(&self, offset: usize, message: String) -> Issue {
        let line = self.0.partition_point(|&start| start <= offset);
        Issue { line, column: offset - self.0[line - 1], message }
    }
}

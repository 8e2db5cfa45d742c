//! What is wrong with a text that is no expression: upstream's grammar tells it, in upstream's words.

use cel::parser::Parser;

use super::issues::Issue;

/// How deep brackets may be nested for the grammar to be asked: each level takes much of the stack.
const NESTING: usize = 12;
/// The longest text it is asked about.
const LENGTH: usize = 10_240;
/// The most operators: the longest chain of them is visited part by part.
const OPERATORS: usize = 200;

pub(super) fn issues(source: &str) -> Vec<Issue> {
    let unknown = |message: &str| vec![Issue { line: 1, column: 0, message: message.to_owned() }];
    if source.len() > LENGTH || !shallow(source) {
        return unknown("Syntax error: the expression is not well-formed");
    }
    let Err(found) = Parser::new().enable_optional_syntax(true).parse(source) else {
        return unknown("Syntax error: the expression is not well-formed");
    };
    // What the visitor says of the holes that errors leave is its own.
    let of_holes = |m: &str| m.starts_with("Incomplete ") || m.starts_with("No `") || m.starts_with("unexpected char");
    let place = |n: isize, from: isize| usize::try_from(n - from).unwrap_or(0);
    let all = found.errors.iter().filter(|e| !of_holes(&e.msg));
    let issues: Vec<Issue> =
        all.map(|e| Issue { line: place(e.pos.0, 0), column: place(e.pos.1, 1), message: e.msg.clone() }).collect();
    if issues.is_empty() { unknown("Syntax error: the expression is not well-formed") } else { issues }
}

fn shallow(source: &str) -> bool {
    let (mut depth, mut deepest, mut operators) = (0_usize, 0, 0);
    for c in source.bytes() {
        match c {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'?' | b'!' | b'&' | b'|' | b'i' => {
                operators += 1;
            }
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest <= NESTING && operators <= OPERATORS
}

//! Sets of completion indexes, written as `0-2,5`.

use std::collections::BTreeSet;

/// Reads a set, leaving out what is beyond `limit`.
pub fn parse(text: &str, limit: i32) -> BTreeSet<i32> {
    let mut out = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<i32>(), to.parse::<i32>()) {
            out.extend(from.max(0)..=to.min(limit - 1));
        }
    }
    out
}

/// Writes a set: two in a row as `1,2`, more as `1-3`.
pub fn print(set: &BTreeSet<i32>) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut all = set.iter().copied().peekable();
    while let Some(first) = all.next() {
        let mut last = first;
        while all.peek() == Some(&(last + 1)) {
            last += 1;
            all.next();
        }
        out.push(match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        });
    }
    out.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8", "4"] {
            assert_eq!(print(&parse(text, 100)), text);
        }
        assert_eq!(print(&parse("0-9", 3)), "0-2");
        assert_eq!(print(&parse("x,1-,2", 9)), "2");
    }
}

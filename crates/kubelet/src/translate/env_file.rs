//! Files of environment variables: what a shell takes as well, of assignments in single quotes only.

/// The value of `key`; `None` where the file does not set it.
///
/// # Errors
/// What is wrong with the first line before it that is wrong.
pub fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut rest = text;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let wrong = |why: &str| Err(format!("invalid environment variable format at line {number}{why}"));
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let begun = line.trim_start_matches([' ', '\t']);
        if begun.trim_end().is_empty() || begun.starts_with('#') {
            rest = after;
            continue;
        }
        let Some((name, _)) = begun.split_once('=') else { return wrong("") };
        if name.trim().is_empty() {
            return wrong("");
        }
        if name.ends_with([' ', '\t']) {
            return wrong(": whitespace before '=' is not allowed");
        }
        // The value may go on over lines.
        let assigned = &rest[line.len() - begun.len() + name.len() + 1..];
        let Some(quoted) = assigned.strip_prefix('\'') else {
            return wrong(": value must be enclosed in single quotes");
        };
        let Some((found, behind)) = quoted.split_once('\'') else { return wrong(": unclosed single quote") };
        let (end, after) = behind.split_once('\n').unwrap_or((behind, ""));
        let comment = end.trim_start_matches([' ', '\t']);
        let closed = comment.trim_end().is_empty() || (comment.len() < end.len() && comment.starts_with('#'));
        if !closed {
            return wrong(": unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(found.to_owned()));
        }
        number += found.matches('\n').count();
        rest = after;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, want) in [
            ("", Ok(None)),
            ("A='x'", Ok(None)),
            ("  # c\n\n \t\nA='1'\n\tK='v'\n", Ok(Some("v"))),
            ("K=''", Ok(Some(""))),
            ("K='a=b #c $D \"e\" \\n'", Ok(Some("a=b #c $D \"e\" \\n"))),
            ("K='v' # said\n", Ok(Some("v"))),
            ("K='one\n\n two'\nA='x'", Ok(Some("one\n\n two"))),
            ("A='one\ntwo'\nK='v'", Ok(Some("v"))),
            ("K='v'\nbroken", Ok(Some("v"))),
            ("A='1\n2'\nbroken\nK='v'", Err("at line 3")),
            ("='v'", Err("at line 1")),
            ("K ='v'", Err("at line 1: whitespace before '=' is not allowed")),
            ("K= 'v'", Err("at line 1: value must be enclosed in single quotes")),
            ("K=v", Err("at line 1: value must be enclosed in single quotes")),
            ("A='1'\nK=\"v\"", Err("at line 2: value must be enclosed in single quotes")),
            ("K='a''b'", Err("at line 1: unexpected content after closing quote")),
            ("K='v'#c", Err("at line 1: unexpected content after closing quote")),
            ("K='v\nA='x'", Err("at line 1: unexpected content after closing quote")),
            ("K='v", Err("at line 1: unclosed single quote")),
        ] {
            let want = match want {
                Ok(v) => Ok(v.map(str::to_owned)),
                Err(why) => Err(format!("invalid environment variable format {why}")),
            };
            assert_eq!(value(text, "K"), want, "{text:?}");
        }
    }
}

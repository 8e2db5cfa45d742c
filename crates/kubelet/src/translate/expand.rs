//! `$(NAME)` references in values, arguments and paths.

/// Replaces each `$(NAME)` by what `get` says; a name it does not know stays as it is written. `$$` is one `$` and begins
/// no reference.
pub fn expand(input: &str, mut get: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(close) = after.strip_prefix('(').and_then(|t| t.find(')')) {
            let name = &after[1..=close];
            match get(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = &after[close + 2..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let check = |input: &str, want: &str| {
            let got = expand(input, |n| match n {
                "A" => Some("1".into()),
                "B" => Some("$(A)".into()),
                _ => None,
            });
            assert_eq!(got, want, "{input}");
        };
        check("plain", "plain");
        check("$(A)", "1");
        check("x$(A)y$(A)", "x1y1");
        check("$(B)", "$(A)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$(NO)-$(A)", "$(NO)-1");
        check("$(A", "$(A");
        check("$A $", "$A $");
        check("$()", "$()");
        check("é$(A)é", "é1é");
    }
}

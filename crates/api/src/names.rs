//! Name rules: what upstream's `util/validation` accepts, with its messages.

use std::borrow::Cow;

/// Longest DNS label.
pub const DNS1123_LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const DNS1123_SUBDOMAIN_MAX: usize = 253;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MSG: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_FMT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL1035_FMT: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL1035_MSG: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MSG: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE_FMT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const VALUE_MSG: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// What upstream says of a value that does not match a pattern, with examples that do.
#[must_use]
pub fn regex_error(msg: &str, fmt: &str, examples: &[&str]) -> String {
    let mut out = format!("{msg} (e.g. ");
    for (i, e) in examples.iter().enumerate() {
        if i > 0 {
            out.push_str(" or ");
        }
        out.push('\'');
        out.push_str(e);
        out.push_str("', ");
    }
    out.push_str("regex used for validation is '");
    out.push_str(fmt);
    out.push_str("')");
    out
}

/// `must be no more than N characters`: how upstream words it for DNS names.
#[must_use]
pub fn max_len_error(n: usize) -> String {
    format!("must be no more than {n} characters")
}

/// `must be no more than N bytes`: how upstream words it for qualified names and label values.
fn max_bytes_error(n: usize) -> String {
    format!("must be no more than {n} bytes")
}

fn label_chars(s: &str, first: impl Fn(u8) -> bool) -> bool {
    let b = s.as_bytes();
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    !b.is_empty() && first(b[0]) && alnum(b[b.len() - 1]) && b.iter().all(|&c| alnum(c) || c == b'-')
}

fn lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// `IsDNS1123Label`: errors, none when valid.
#[must_use]
pub fn dns1123_label(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > DNS1123_LABEL_MAX {
        errs.push(max_len_error(DNS1123_LABEL_MAX));
    }
    if !label_chars(s, lower_alnum) {
        if is_subdomain(s) {
            // Upstream adds a hint when the value would do as a subdomain.
            errs.push("must not contain dots".into());
        } else {
            errs.push(regex_error(LABEL_MSG, LABEL_FMT, &["my-name", "123-abc"]));
        }
    }
    errs
}

fn is_subdomain(s: &str) -> bool {
    !s.is_empty() && s.split('.').all(|l| label_chars(l, lower_alnum))
}

/// `IsDNS1123Subdomain`.
#[must_use]
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > DNS1123_SUBDOMAIN_MAX {
        errs.push(max_len_error(DNS1123_SUBDOMAIN_MAX));
    }
    if !is_subdomain(s) {
        errs.push(regex_error(SUBDOMAIN_MSG, SUBDOMAIN_FMT, &["example.com"]));
    }
    errs
}

/// `IsDNS1035Label`.
#[must_use]
pub fn dns1035_label(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > DNS1123_LABEL_MAX {
        errs.push(max_len_error(DNS1123_LABEL_MAX));
    }
    if !label_chars(s, |c| c.is_ascii_lowercase()) {
        errs.push(regex_error(LABEL1035_MSG, LABEL1035_FMT, &["my-name", "abc-123"]));
    }
    errs
}

fn qualified_chars(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// `IsQualifiedName`: a label or annotation key, `[prefix/]name`.
#[must_use]
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    let parts: Vec<&str> = s.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errs.push("prefix part must be non-empty".into());
            } else {
                errs.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            *name
        }
        _ => {
            errs.push(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(QUALIFIED_MSG, QUALIFIED_FMT, &["MyName", "my.name", "123-abc"])
            ));
            return errs;
        }
    };
    if name.is_empty() {
        errs.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        errs.push(format!("name part {}", max_bytes_error(63)));
    }
    if !qualified_chars(name) {
        errs.push(format!(
            "name part {}",
            regex_error(QUALIFIED_MSG, QUALIFIED_FMT, &["MyName", "my.name", "123-abc"])
        ));
    }
    errs
}

/// `IsValidLabelValue`.
#[must_use]
pub fn label_value(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 63 {
        errs.push(max_bytes_error(63));
    }
    if !s.is_empty() && !qualified_chars(s) {
        errs.push(regex_error(VALUE_MSG, VALUE_FMT, &["MyValue", "my_value", "12345"]));
    }
    errs
}

/// `path.IsValidPathSegmentName`: names that are free but must stand in a path (RBAC roles).
#[must_use]
pub fn path_segment(s: &str) -> Vec<String> {
    match s {
        "." => return vec!["may not be '.'".into()],
        ".." => return vec!["may not be '..'".into()],
        _ => {}
    }
    ["/", "%"].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A name that begins others, as `generateName` does, in the form in which it is looked at: it may end in a dash, since
/// more follows, so upstream puts an `a` for its last two bytes. A name in which that splits a character is invalid as it
/// is.
#[must_use]
pub fn beginning(prefix: &str) -> Cow<'_, str> {
    let rest = if prefix.len() > 1 && prefix.ends_with('-') { prefix.get(..prefix.len() - 2) } else { None };
    rest.map_or(Cow::Borrowed(prefix), |rest| Cow::Owned(format!("{rest}a")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for (f, ok, bad) in [
            (dns1123_label as fn(&str) -> Vec<String>, &["a", "a-1", "1a"][..], &["", "A", "-a", "a-", "a.b"][..]),
            (dns1123_subdomain, &["a", "a.b", "1.2-3"], &["", "a..b", ".a", "a_b", "A"]),
            (dns1035_label, &["a", "a-1"], &["", "1a", "a-", "a.b"]),
            (qualified_name, &["a", "A_b.c", "example.com/x"], &["", "a/b/c", "/x", "x/", "-a", "E_X/a"]),
            (label_value, &["", "A", "a_b"], &["-a", "a b"]),
            (path_segment, &["a:b", "A b"], &[".", "..", "a/b", "a%"]),
        ] {
            for s in ok {
                assert!(f(s).is_empty(), "{s:?}: {:?}", f(s));
            }
            for s in bad {
                assert!(!f(s).is_empty(), "{s:?}");
            }
        }
        assert!(!dns1123_label(&"a".repeat(64)).is_empty());
    }

    #[test]
    fn message() {
        assert_eq!(
            dns1123_subdomain("A")[0],
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        );
    }
}

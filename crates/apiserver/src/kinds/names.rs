//! Name rules of kinds.

use pintle_api::names;

/// Checks a name; with `prefix` it is a `generateName`, which may end in a dash. Says what is wrong with it.
pub type NameRule = fn(name: &str, prefix: bool) -> Vec<String>;

/// A `generateName` may end in a dash, since more follows: upstream looks at the rest and an `a`.
fn masked(name: &str, prefix: bool) -> String {
    if prefix && name.len() > 1 && name.ends_with('-') {
        // Upstream cuts two bytes; a name in which that splits a character is invalid as it is.
        return name.get(..name.len() - 2).map_or_else(|| name.to_owned(), |rest| format!("{rest}a"));
    }
    name.to_owned()
}

/// A DNS subdomain: most kinds.
pub fn subdomain(name: &str, prefix: bool) -> Vec<String> {
    names::dns1123_subdomain(&masked(name, prefix))
}

/// A DNS label: namespaces and services.
pub fn label(name: &str, prefix: bool) -> Vec<String> {
    names::dns1123_label(&masked(name, prefix))
}

/// Anything that can stand in a path: RBAC kinds.
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    if prefix && matches!(name, "." | "..") { Vec::new() } else { names::path_segment(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_may_end_in_a_dash() {
        assert!(subdomain("abc-", true).is_empty());
        assert!(!subdomain("abc-", false).is_empty());
        assert!(label("a-", true).is_empty());
        assert!(!label("-", true).is_empty());
        assert!(!subdomain("é-", true).is_empty());
        assert!(path_segment("system:node", false).is_empty());
    }
}

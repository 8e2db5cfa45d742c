//! Name rules of kinds.

use std::borrow::Cow;

use pintle_api::names;

/// Checks a name; with `prefix` it is a `generateName`, which may end in a dash. Says what is wrong with it.
pub type NameRule = fn(name: &str, prefix: bool) -> Vec<String>;

fn seen(name: &str, prefix: bool) -> Cow<'_, str> {
    if prefix { names::beginning(name) } else { Cow::Borrowed(name) }
}

/// A DNS subdomain: most kinds.
pub fn subdomain(name: &str, prefix: bool) -> Vec<String> {
    names::dns1123_subdomain(&seen(name, prefix))
}

/// A DNS label: namespaces and services.
pub fn label(name: &str, prefix: bool) -> Vec<String> {
    names::dns1123_label(&seen(name, prefix))
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

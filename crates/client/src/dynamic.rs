//! Resources that are not built in: found by discovery, then treated like the others.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use pintle_api::resources::{self, Resource, Stage};

/// A resource as discovery describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Discovered {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Kind.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs it takes.
    pub verbs: Vec<String>,
}

static KNOWN: LazyLock<Mutex<HashMap<Discovered, &'static Resource>>> = LazyLock::new(Mutex::default);

/// The registry entry of a discovered resource: the built-in one, or one made for it. Made entries live as long as the
/// process, a few hundred bytes for each distinct custom resource it ever saw.
#[must_use]
pub fn intern(found: &Discovered) -> &'static Resource {
    if let Some(r) = resources::by_resource(&found.group, &found.version, &found.resource) {
        return r;
    }
    let mut known = KNOWN.lock();
    if let Some(r) = known.get(found) {
        return r;
    }
    let leak = |s: &str| -> &'static str { Box::leak(s.to_owned().into_boxed_str()) };
    let made: &'static Resource = Box::leak(Box::new(Resource {
        group: leak(&found.group),
        version: leak(&found.version),
        resource: leak(&found.resource),
        singular: found.kind.to_lowercase(),
        kind: leak(&found.kind),
        namespaced: found.namespaced,
        verbs: found.verbs.iter().map(|v| leak(v)).collect(),
        storage_key: None,
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        stage: Stage::Ga,
        on: true,
    }));
    known.insert(found.clone(), made);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_each() {
        let pod = Discovered {
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
            kind: "Pod".into(),
            namespaced: true,
            verbs: vec!["list".into()],
        };
        assert!(std::ptr::eq(intern(&pod), resources::by_kind("v1", "Pod").unwrap()));
        let own = Discovered { group: "example.com".into(), resource: "widgets".into(), kind: "Widget".into(), ..pod };
        assert!(std::ptr::eq(intern(&own), intern(&own.clone())));
        assert_eq!(intern(&own).path(Some("x")), "/apis/example.com/v1/namespaces/x/widgets");
    }
}

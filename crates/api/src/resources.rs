//! The resource registry: which group-versions, resources and sub-resources Kubernetes 1.36 has.
//!
//! The facts stand in `resources.txt`; this module parses them once.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// A group and a version, written `group/version` or just `version` for the core group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version, such as `v1`.
    pub version: &'a str,
}

impl<'a> GroupVersion<'a> {
    /// Splits an `apiVersion` value.
    #[must_use]
    pub fn parse(api_version: &'a str) -> Self {
        match api_version.split_once('/') {
            Some((group, version)) => Self { group, version },
            None => Self { group: "", version: api_version },
        }
    }
}

impl fmt::Display for GroupVersion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

impl fmt::Debug for GroupVersion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How mature a group-version is; only `Ga` ones are served unless switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Generally available.
    Ga,
    /// Beta.
    Beta,
    /// Alpha.
    Alpha,
}

/// A sub-resource such as `status` or `scale`.
#[derive(Debug)]
pub struct Subresource {
    /// Path segment after the object's name.
    pub name: &'static str,
    /// Kind it reads and writes.
    pub kind: &'static str,
    /// `apiVersion` of that kind when it is another than the parent's.
    pub api_version: Option<&'static str>,
    /// Verbs it takes.
    pub verbs: Vec<&'static str>,
}

/// One built-in resource.
#[derive(Debug)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// Plural lower-case name, the path segment.
    pub resource: &'static str,
    /// Lower-case singular name.
    pub singular: String,
    /// Kind of one object.
    pub kind: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs it takes.
    pub verbs: Vec<&'static str>,
    /// Segment of the storage key below `/registry`; `None` for what is never stored.
    pub storage_key: Option<&'static str>,
    /// kubectl's short names.
    pub short_names: Vec<&'static str>,
    /// kubectl's categories, such as `all`.
    pub categories: Vec<&'static str>,
    /// Sub-resources.
    pub subresources: Vec<Subresource>,
    /// How mature its group-version is.
    pub stage: Stage,
    /// Whether its group-version is served unless configured otherwise.
    pub on: bool,
}

impl Resource {
    /// `group/version`, or `version` for the core group.
    #[must_use]
    pub fn group_version(&self) -> GroupVersion<'static> {
        GroupVersion { group: self.group, version: self.version }
    }

    /// The `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// `resource` or `resource.group`, as upstream's messages name a resource.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// Whether `verb` is among its verbs.
    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The sub-resource of this name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Path of the collection, `/api/v1/namespaces/NS/pods` or `/apis/apps/v1/deployments`; the namespace is left out
    /// when it is `None` or the resource is cluster-scoped.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let (true, Some(ns)) = (self.namespaced, namespace) {
            path.push_str("/namespaces/");
            path.push_str(ns);
        }
        path.push('/');
        path.push_str(self.resource);
        path
    }
}

/// Every built-in resource, in group-version order of the table.
#[must_use]
pub fn all() -> &'static [Resource] {
    &REGISTRY.resources
}

/// Finds a resource by group, version and plural name.
#[must_use]
pub fn by_resource(group: &str, version: &str, resource: &str) -> Option<&'static Resource> {
    REGISTRY.by_resource.get(&(group, version, resource)).map(|&i| &REGISTRY.resources[i])
}

/// Finds a resource by `apiVersion` and kind.
#[must_use]
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let gv = GroupVersion::parse(api_version);
    REGISTRY.by_kind.get(&(gv.group, gv.version, kind)).map(|&i| &REGISTRY.resources[i])
}

struct Registry {
    resources: Vec<Resource>,
    by_resource: HashMap<(&'static str, &'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let resources = parse(include_str!("resources.txt"));
    let by_resource = resources.iter().enumerate().map(|(i, r)| ((r.group, r.version, r.resource), i)).collect();
    let by_kind = resources.iter().enumerate().map(|(i, r)| ((r.group, r.version, r.kind), i)).collect();
    Registry { resources, by_resource, by_kind }
});

const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";
const SUB_VERBS: &str = "get,patch,update";

fn verbs(text: &'static str, star: &'static str) -> Vec<&'static str> {
    if text == "*" { star } else { text }.split(',').collect()
}

/// Parses the table. It is part of the program, so a line that does not parse is skipped here and found by the tests,
/// which count every entry.
fn parse(text: &'static str) -> Vec<Resource> {
    let mut out = Vec::new();
    let (mut group, mut version, mut stage, mut on) = ("", "", Stage::Ga, false);
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        if let Some(head) = line.strip_prefix('@') {
            let mut words = head.split(' ');
            (group, version) = words.next().and_then(|gv| gv.split_once('/')).unwrap_or_default();
            group = group.trim_start_matches('-');
            stage = match words.next() {
                Some("ga") => Stage::Ga,
                Some("beta") => Stage::Beta,
                _ => Stage::Alpha,
            };
            on = words.next() == Some("on");
            continue;
        }
        let words: Vec<&'static str> = line.split(' ').collect();
        let [resource, kind, scope, verb_list, key, rest @ ..] = words.as_slice() else { continue };
        let mut r = Resource {
            group,
            version,
            resource,
            singular: kind.to_lowercase(),
            kind,
            namespaced: *scope == "ns",
            verbs: verbs(verb_list, ALL_VERBS),
            storage_key: (*key != "-").then_some(*key),
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            stage,
            on,
        };
        for word in rest {
            if let Some(v) = word.strip_prefix("short=") {
                r.short_names = v.split(',').collect();
            } else if let Some(v) = word.strip_prefix("cat=") {
                r.categories = v.split(',').collect();
            } else if let Some((name, (kind, verb_list))) = word
                .strip_prefix("sub:")
                .and_then(|s| s.split_once('='))
                .and_then(|(n, r)| Some((n, r.split_once(':')?)))
            {
                let (kind, api_version) = kind.split_once('@').map_or((kind, None), |(k, gv)| (k, Some(gv)));
                r.subresources.push(Subresource { name, kind, api_version, verbs: verbs(verb_list, SUB_VERBS) });
            }
        }
        out.push(r);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_upstreams() {
        let ga: Vec<_> = all().iter().filter(|r| r.stage == Stage::Ga).collect();
        assert_eq!(ga.len(), 68);
        assert_eq!(ga.iter().map(|r| r.subresources.len()).sum::<usize>(), 45);
        let mut gvs: Vec<_> = ga.iter().map(|r| r.group_version()).collect();
        gvs.dedup();
        assert_eq!(gvs.len(), 22);
        assert_eq!(all().iter().filter(|r| r.stage == Stage::Beta).count(), 18);
        assert_eq!(all().iter().filter(|r| r.stage == Stage::Alpha).count(), 9);
        assert!(all().iter().all(|r| r.on == (r.stage == Stage::Ga)));
    }

    #[test]
    fn finds_and_names() {
        let d = by_resource("apps", "v1", "deployments").unwrap();
        assert_eq!(d.path(Some("x")), "/apis/apps/v1/namespaces/x/deployments");
        assert_eq!(d.group_resource(), "deployments.apps");
        assert_eq!(d.subresource("scale").unwrap().api_version, Some("autoscaling/v1"));
        let n = by_kind("v1", "Node").unwrap();
        assert_eq!((n.resource, n.storage_key), ("nodes", Some("minions")));
        assert_eq!(n.path(Some("ignored")), "/api/v1/nodes");
        assert!(by_kind("v1", "Nope").is_none());
    }
}

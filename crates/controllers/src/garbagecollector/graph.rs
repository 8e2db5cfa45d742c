//! Who owns whom, as far as events told, and what has to be looked at when that changes.

use std::collections::{HashMap, HashSet};

use pintle_api::Object;
use pintle_api::resources::{GroupVersion, Resource};
use pintle_client::meta::split_key;
use pintle_client::{Key, OwnerRef};
use serde::de::DeserializeOwned;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Should the object of this uid go?
    Delete(String),
    /// The object of this uid leaves its dependents behind.
    Orphan(String),
}

impl Task {
    pub fn key(&self) -> Key {
        match self {
            Self::Delete(uid) => format!("d{uid}").into(),
            Self::Orphan(uid) => format!("o{uid}").into(),
        }
    }

    pub fn parse(key: &str) -> Option<Self> {
        match key.split_at_checked(1)? {
            ("d", uid) => Some(Self::Delete(uid.into())),
            ("o", uid) => Some(Self::Orphan(uid.into())),
            _ => None,
        }
    }
}

/// What of an object's metadata the graph is made of. Most objects have no owners and no finalizers, and nothing of
/// them is decoded.
pub struct Ties {
    uid: Key,
    owners: Vec<OwnerRef>,
    finalizers: Vec<String>,
    deleting: bool,
}

impl Ties {
    /// # Errors
    /// When they do not decode.
    pub fn of(object: &Object) -> serde_json::Result<Self> {
        fn list<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<Vec<T>> {
            if text.is_empty() { Ok(Vec::new()) } else { serde_json::from_slice(text) }
        }
        Ok(Self {
            uid: object.uid().into(),
            owners: list(object.owner_references())?,
            finalizers: list(object.finalizers())?,
            deleting: object.is_deleting(),
        })
    }

    /// Whether two states of an object have the same.
    pub fn are_same(old: &Object, new: &Object) -> bool {
        old.uid() == new.uid()
            && old.is_deleting() == new.is_deleting()
            && old.owner_references() == new.owner_references()
            && old.finalizers() == new.finalizers()
    }
}

struct Node {
    resource: &'static Resource,
    key: Key,
    owners: Box<[OwnerRef]>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

/// The graph.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Key, Node>,
    /// By the owner's uid, whether that is known or not.
    dependents: HashMap<Key, HashSet<Key>>,
}

impl Graph {
    /// Where the object of a uid is.
    pub fn place(&self, uid: &str) -> Option<(&'static Resource, Key)> {
        self.nodes.get(uid).map(|n| (n.resource, n.key.clone()))
    }

    pub fn has_dependents(&self, uid: &str) -> bool {
        self.dependents.get(uid).is_some_and(|d| !d.is_empty())
    }

    pub fn dependents(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().map(ToString::to_string).collect()
    }

    /// Dependents that the foreground deletion of this owner waits for.
    pub fn blocking(&self, uid: &str) -> Vec<Task> {
        let blocks = |d: &&Key| {
            self.nodes.get(&***d).is_some_and(|n| n.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion))
        };
        self.dependents.get(uid).into_iter().flatten().filter(blocks).map(|d| Task::Delete(d.to_string())).collect()
    }

    /// Whether a dependent of this object is itself in foreground deletion.
    pub fn cycle(&self, uid: &str) -> bool {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .any(|d| self.nodes.get(&**d).is_some_and(|n| n.deleting && n.foreground))
    }

    fn fits(&self, owner: &OwnerRef, key: &str) -> bool {
        let Some(node) = self.nodes.get(owner.uid.as_str()) else { return false };
        let (namespace, name) = split_key(&node.key);
        let group = GroupVersion::parse(&owner.api_version).group;
        node.resource.group == group
            && node.resource.kind == owner.kind
            && name == owner.name
            && (namespace.is_empty() || namespace == split_key(key).0)
    }

    fn is_waiting(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|n| n.deleting && n.foreground)
    }

    /// Takes in an object's state.
    pub fn observe(&mut self, resource: &'static Resource, key: &Key, ties: Ties) -> Vec<Task> {
        let has = |f: &str| ties.finalizers.iter().any(|x| x == f);
        let new = Node {
            resource,
            key: key.clone(),
            deleting: ties.deleting,
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
            owners: ties.owners.into(),
        };
        let uid = ties.uid;
        let mut tasks = Vec::new();
        let old = self.nodes.remove(&uid);
        let old_owners: &[OwnerRef] = old.as_ref().map_or(&[], |o| &o.owners);
        for gone in old_owners.iter().filter(|o| !new.owners.iter().any(|n| n.uid == o.uid)) {
            self.unlink(&gone.uid, &uid);
            if self.is_waiting(&gone.uid) {
                tasks.push(Task::Delete(gone.uid.clone()));
            }
        }
        // An owner that no longer has to wait for this one.
        for o in &new.owners {
            let blocked = old_owners.iter().any(|b| b.uid == o.uid && b.block_owner_deletion);
            if blocked && !o.block_owner_deletion && self.is_waiting(&o.uid) {
                tasks.push(Task::Delete(o.uid.clone()));
            }
        }
        let mut look = false;
        for o in new.owners.iter().filter(|n| !old_owners.iter().any(|o| o.uid == n.uid)) {
            self.dependents.entry(o.uid.as_str().into()).or_default().insert(uid.clone());
            // An owner that is not there, is not what it is said to be, or goes: look closer.
            look |= !self.fits(o, key) || self.is_waiting(&o.uid);
        }
        if look {
            tasks.push(Task::Delete(uid.to_string()));
        }
        let was = |f: fn(&Node) -> bool| old.as_ref().is_some_and(|o| o.deleting && f(o));
        if new.deleting && new.foreground && !was(|o| o.foreground) {
            tasks.push(Task::Delete(uid.to_string()));
            tasks.extend(self.dependents.get(&uid).into_iter().flatten().map(|d| Task::Delete(d.to_string())));
        }
        if new.deleting && new.orphan && !was(|o| o.orphan) {
            tasks.push(Task::Orphan(uid.to_string()));
        }
        self.nodes.insert(uid, new);
        tasks
    }

    fn unlink(&mut self, owner: &str, uid: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(uid);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// Takes in that an object is gone.
    pub fn forget(&mut self, uid: &str) -> Vec<Task> {
        let mut tasks = Vec::new();
        if let Some(node) = self.nodes.remove(uid) {
            for o in &node.owners {
                self.unlink(&o.uid, uid);
                if self.is_waiting(&o.uid) {
                    tasks.push(Task::Delete(o.uid.clone()));
                }
            }
        }
        tasks.extend(self.dependents.get(uid).into_iter().flatten().map(|d| Task::Delete(d.to_string())));
        tasks
    }

    /// Takes in that a resource is no longer served. Nothing is deleted for that: its objects are gone, or will be
    /// found again.
    pub fn forget_resource(&mut self, resource: &'static Resource) -> Vec<Task> {
        let gone: Vec<Key> =
            self.nodes.iter().filter(|(_, n)| std::ptr::eq(n.resource, resource)).map(|(k, _)| k.clone()).collect();
        gone.iter().flat_map(|uid| self.forget(uid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_api::resources::by_kind;
    use serde_json::json;

    /// `name owner[!] flags`: `!` blocks the owner's deletion; flags d(eleting), f(oreground), o(rphan).
    fn observe(g: &mut Graph, line: &str) -> Vec<String> {
        let f: Vec<&str> = line.split(' ').collect();
        let owners: Vec<_> = f[1]
            .split(',')
            .filter(|o| *o != "-")
            .map(|o| {
                let name = o.trim_end_matches('!');
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name, "blockOwnerDeletion": o.ends_with('!')})
            })
            .collect();
        let mut finalizers = Vec::new();
        if f[2].contains('f') {
            finalizers.push(FOREGROUND);
        }
        if f[2].contains('o') {
            finalizers.push(ORPHAN);
        }
        let metadata = json!({"name": f[0], "namespace": "n", "uid": f[0], "ownerReferences": owners,
            "finalizers": finalizers, "deletionTimestamp": f[2].contains('d').then_some("2024-01-01T00:00:00Z")});
        names(g.observe(by_kind("v1", "ConfigMap").unwrap(), &format!("n/{}", f[0]).into(), ties(&metadata)))
    }

    fn object(metadata: &serde_json::Value) -> Object {
        Object::from_wire(json!({"metadata": metadata}).to_string().into(), &[]).unwrap()
    }

    fn ties(metadata: &serde_json::Value) -> Ties {
        Ties::of(&object(metadata)).unwrap()
    }

    #[test]
    fn changes_of_nothing_but_content_are_passed_over() {
        let plain = json!({"name": "a", "uid": "a", "labels": {"a": "b"}});
        let check = |change: (&str, serde_json::Value), same: bool| {
            let mut new = plain.clone();
            new[change.0] = change.1;
            assert_eq!(Ties::are_same(&object(&plain), &object(&new)), same, "{new}");
        };
        check(("labels", json!({})), true);
        check(("resourceVersion", json!("7")), true);
        check(("uid", json!("b")), false);
        check(("finalizers", json!(["f"])), false);
        check(("ownerReferences", json!([{"uid": "o"}])), false);
        check(("deletionTimestamp", json!("2024-01-01T00:00:00Z")), false);
    }

    fn names(mut tasks: Vec<Task>) -> Vec<String> {
        tasks.sort();
        tasks.dedup();
        tasks.iter().map(|t| t.key().to_string()).collect()
    }

    #[test]
    fn looks_at_what_may_have_to_go() {
        let mut g = Graph::default();
        for (line, want) in [
            ("a - -", &[][..]),
            ("b a! -", &[]),
            ("c a -", &[]),
            ("x gone -", &["dx"]),
            ("x gone -", &[]),
            ("a - df", &["da", "db", "dc"]),
            ("a - df", &[]),
            ("e a -", &["de"]),
            ("b a -", &["da"]),
            ("b - -", &["da"]),
            ("o - do", &["oo"]),
        ] {
            assert_eq!(observe(&mut g, line), want, "{line}");
        }
        assert!(g.blocking("a").is_empty());
        assert_eq!(names(g.forget("c")), ["da"]);
        assert_eq!(names(g.forget("a")), ["de"]);
        assert!(g.forget("unknown").is_empty());
        // The owner came late: the dependent is known already.
        assert_eq!(names(g.forget("gone")), ["dx"]);
    }

    #[test]
    fn owners_that_lie_are_looked_at() {
        let mut g = Graph::default();
        observe(&mut g, "a - -");
        let lies = ties(&json!({"name": "b", "namespace": "other", "uid": "b",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "a"}]}));
        assert_eq!(names(g.observe(by_kind("v1", "ConfigMap").unwrap(), &"other/b".into(), lies)), ["db"]);
    }
}

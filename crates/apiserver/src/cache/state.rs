//! What the cache knows: the present objects, recent changes, and a few earlier states.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use immutable_chunkmap::map::MapM;
use pintle_api::object::Object;

use super::Options;
use super::event::Change;

/// Objects by their full store key. Clones are cheap and independent.
pub(super) type Map = MapM<Arc<str>, Arc<Object>>;

/// What happened before a cache was loaded.
pub(super) struct Past {
    /// All changes after this revision are there.
    pub(super) floor: u64,
    /// Oldest first, not yet numbered.
    pub(super) changes: Vec<Change>,
}

/// The mutable heart of a cache.
#[derive(Default)]
pub(super) struct State {
    pub(super) map: Map,
    /// The revision of the last change applied, or of the initial list.
    pub(super) applied: u64,
    /// All changes after this revision are in `ring`.
    pub(super) floor: u64,
    ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    /// The number of the last change.
    pub(super) seq: u64,
    /// States that somebody is reading page by page, oldest first.
    retained: VecDeque<(u64, Map)>,
}

impl State {
    /// Begins anew with the state of a revision, and the changes that led to it since `floor`.
    pub(super) fn replace(&mut self, map: Map, revision: u64, past: Past, options: &Options) {
        self.map = map;
        self.applied = revision;
        self.floor = past.floor;
        self.ring.clear();
        self.ring_bytes = 0;
        self.retained.clear();
        for change in past.changes {
            self.push(change, options);
        }
    }

    /// Applies a change; deletes of what is not there change nothing.
    pub(super) fn apply(&mut self, key: &Arc<str>, object: Option<Arc<Object>>, revision: u64, options: &Options) {
        let prev = match &object {
            Some(object) => self.map.insert_cow(key.clone(), object.clone()),
            None => self.map.remove_cow(key),
        };
        self.applied = self.applied.max(revision);
        self.push(Change { seq: 0, revision, key: key.clone(), object, prev }, options);
    }

    /// Numbers a change and keeps it, if it is one.
    fn push(&mut self, mut change: Change, options: &Options) {
        if change.prev.is_none() && change.object.is_none() {
            return;
        }
        self.seq += 1;
        change.seq = self.seq;
        self.ring_bytes += change.weight();
        self.ring.push_back(Arc::new(change));
        while self.ring.len() > options.history_events || self.ring_bytes > options.history_bytes {
            // The floor is a revision all of whose changes are gone.
            let Some(old) = self.ring.pop_front() else { break };
            self.ring_bytes -= old.weight();
            self.floor = old.revision;
        }
    }

    /// The changes after one, oldest first; `None` if some of them are gone.
    pub(super) fn after(&self, seq: u64) -> Option<impl Iterator<Item = &Arc<Change>>> {
        let first = self.seq + 1 - self.ring.len() as u64;
        let skip = (seq + 1).checked_sub(first)?;
        Some(self.ring.range(usize::try_from(skip).ok()?.min(self.ring.len())..))
    }

    /// The number of the last change at or before a revision; `None` if later ones are gone.
    pub(super) fn seq_at(&self, revision: u64) -> Option<u64> {
        if revision < self.floor {
            return None;
        }
        let later = self.ring.len() - self.ring.partition_point(|change| change.revision <= revision);
        Some(self.seq - later as u64)
    }

    /// Keeps a state for those who will come back to its exact revision.
    pub(super) fn retain(&mut self, revision: u64, map: &Map, most: usize) {
        if self.retained.iter().any(|(kept, _)| *kept == revision) {
            return;
        }
        self.retained.push_back((revision, map.clone()));
        if self.retained.len() > most {
            self.retained.pop_front();
        }
    }

    /// The objects as they were at a revision that is not after the present; `None` if that is not known any more.
    pub(super) fn at(&self, revision: u64) -> Option<Map> {
        if revision >= self.applied {
            return Some(self.map.clone());
        }
        if let Some((_, map)) = self.retained.iter().find(|(kept, _)| *kept == revision) {
            return Some(map.clone());
        }
        if revision < self.floor {
            return None;
        }
        let mut map = self.map.clone();
        for change in self.ring.iter().rev().take_while(|change| change.revision > revision) {
            match &change.prev {
                Some(prev) => map.insert_cow(change.key.clone(), prev.clone()),
                None => map.remove_cow(&change.key),
            };
        }
        Some(map)
    }
}

/// A part of a list.
pub struct Page {
    /// The objects.
    pub items: Vec<Arc<Object>>,
    /// Where the next page begins, relative to the resource's prefix; `None` on the last one.
    pub next: Option<String>,
    /// How many objects follow after this page, if all were wanted.
    pub remaining: Option<u64>,
}

/// The objects of a resource at one revision. It does not change.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) map: Map,
    pub(super) prefix: Arc<str>,
    pub(super) revision: u64,
}

impl Snapshot {
    /// The revision whose state this is.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// One object; `namespace` is empty for cluster-scoped ones.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.map.get(pintle_store::keys::object_key(&self.prefix, Some(namespace), name).as_str())
    }

    /// The objects of a namespace, or (empty) all, in key order.
    pub fn iter<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        self.from(namespace, None).map(|(_, object)| object)
    }

    /// From a key on, which is relative to the resource's prefix.
    fn from<'a>(
        &'a self,
        namespace: &str,
        from: Option<&str>,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Object>)> + 'a {
        let prefix: Arc<str> =
            if namespace.is_empty() { self.prefix.clone() } else { format!("{}{namespace}/", self.prefix).into() };
        let start: Arc<str> = match from {
            Some(from) => format!("{}{from}", self.prefix).into(),
            None => prefix.clone(),
        };
        let start = if *start < *prefix { prefix.clone() } else { start };
        let range: (Bound<Arc<str>>, Bound<Arc<str>>) = (Bound::Included(start), Bound::Unbounded);
        let mut range = self.map.range::<Arc<str>, _>(range);
        std::iter::from_fn(move || {
            let (key, object) = range.next()?;
            key.starts_with(&*prefix).then_some((&**key, object))
        })
    }

    /// A page: at most `limit` objects (0: all) that match, from a key on. `all` says that `matches` is true of every
    /// object, so that the rest can be counted.
    pub fn page(
        &self,
        namespace: &str,
        from: Option<&str>,
        limit: usize,
        matches: &(dyn Fn(&Object) -> bool + Send + Sync),
        all: bool,
    ) -> Page {
        let most = if all && namespace.is_empty() { self.map.len() } else { 64 };
        let mut items = Vec::with_capacity(if limit > 0 { limit.min(most) } else { most });
        let mut last = "";
        let mut rest = self.from(namespace, from);
        while let Some((key, object)) = rest.next() {
            if !all && !matches(object) {
                continue;
            }
            if limit > 0 && items.len() == limit {
                let next = format!("{}\0", &last[self.prefix.len()..]);
                let remaining = all.then(|| 1 + rest.count() as u64);
                return Page { items, next: Some(next), remaining };
            }
            last = key;
            items.push(object.clone());
        }
        Page { items, next: None, remaining: None }
    }
}

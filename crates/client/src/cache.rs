//! `Cache`: objects by key with indices, and handlers that are told of every change.
//!
//! The informer's own cache holds whole objects; a view's holds what was decoded from them. Both are this type.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};

/// `namespace/name`, or the name alone of a cluster-scoped object.
pub type Key = Arc<str>;

/// What happened to one object.
#[derive(Debug)]
pub enum Change<T> {
    /// It is new here.
    Added(Key, Arc<T>),
    /// It changed, from the first to the second.
    Modified(Key, Arc<T>, Arc<T>),
    /// It is gone; this is its last known state.
    Deleted(Key, Arc<T>),
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(k, v) => Self::Added(k.clone(), v.clone()),
            Self::Modified(k, a, b) => Self::Modified(k.clone(), a.clone(), b.clone()),
            Self::Deleted(k, v) => Self::Deleted(k.clone(), v.clone()),
        }
    }
}

impl<T> Change<T> {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Added(k, _) | Self::Modified(k, _, _) | Self::Deleted(k, _) => k,
        }
    }

    /// The state before, when there was one.
    #[must_use]
    pub fn before(&self) -> Option<&Arc<T>> {
        match self {
            Self::Added(..) => None,
            Self::Modified(_, old, _) | Self::Deleted(_, old) => Some(old),
        }
    }

    /// The state now, when there is one.
    #[must_use]
    pub fn now(&self) -> Option<&Arc<T>> {
        match self {
            Self::Added(_, new) | Self::Modified(_, _, new) => Some(new),
            Self::Deleted(..) => None,
        }
    }

    /// The newest state known: the last one, for an object that is gone.
    #[must_use]
    pub fn last(&self) -> &Arc<T> {
        match self {
            Self::Added(_, v) | Self::Modified(_, _, v) | Self::Deleted(_, v) => v,
        }
    }
}

/// What handlers are told.
pub(crate) enum Notice<'a, T> {
    Change(&'a Change<T>),
    Synced,
}

type Handler<T> = Box<dyn Fn(&Notice<'_, T>) + Send + Sync>;
type IndexFn<T> = Box<dyn Fn(&T) -> Vec<String> + Send + Sync>;

struct Index<T> {
    of: IndexFn<T>,
    map: HashMap<String, BTreeSet<Key>>,
}

impl<T> Index<T> {
    fn insert(&mut self, key: &Key, value: &T) {
        for v in (self.of)(value) {
            self.map.entry(v).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, value: &T) {
        for v in (self.of)(value) {
            if let Some(set) = self.map.get_mut(&v) {
                set.remove(key);
                if set.is_empty() {
                    self.map.remove(&v);
                }
            }
        }
    }
}

struct Store<T> {
    items: BTreeMap<Key, Arc<T>>,
    indices: HashMap<&'static str, Index<T>>,
}

impl<T> Store<T> {
    fn namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = (&'a Key, &'a Arc<T>)> + use<'a, T> {
        let prefix = format!("{namespace}/");
        let from = self.items.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        from.take_while(move |(k, _)| k.starts_with(&prefix))
    }

    /// Puts or removes, and says what that changed.
    fn set(&mut self, key: &Key, value: Option<Arc<T>>) -> Option<Change<T>> {
        let old = self.items.get(key).cloned();
        if let Some(old) = &old {
            for index in self.indices.values_mut() {
                index.remove(key, old);
            }
        }
        if let Some(new) = &value {
            for index in self.indices.values_mut() {
                index.insert(key, new);
            }
        }
        match (old, value) {
            (None, None) => None,
            (Some(old), None) => {
                self.items.remove(key);
                Some(Change::Deleted(key.clone(), old))
            }
            (old, Some(new)) => {
                self.items.insert(key.clone(), new.clone());
                Some(match old {
                    Some(old) => Change::Modified(key.clone(), old, new),
                    None => Change::Added(key.clone(), new),
                })
            }
        }
    }
}

struct Inner<T> {
    store: RwLock<Store<T>>,
    /// Held while a change is applied and told, so that a handler that is added meanwhile misses and repeats nothing.
    handlers: Mutex<Vec<Handler<T>>>,
    synced: watch::Sender<bool>,
}

/// Objects by key. Cheap to clone; clones are the same cache.
pub struct Cache<T>(Arc<Inner<T>>);

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} objects)", self.len())
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            store: RwLock::new(Store { items: BTreeMap::new(), indices: HashMap::new() }),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        }))
    }
}

impl<T> Cache<T> {
    /// The object of this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.0.store.read().items.get(key).cloned()
    }

    /// Every object, in key order.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<T>> {
        self.0.store.read().items.values().cloned().collect()
    }

    /// Every key, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.0.store.read().items.keys().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.store.read().items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of one namespace, in name order.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.select(namespace, |_| true)
    }

    /// Those objects of one namespace of which `f` holds, in name order. `f` must not use the cache.
    #[must_use]
    pub fn select(&self, namespace: &str, f: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        self.0.store.read().namespace(namespace).map(|(_, v)| v).filter(|v| f(v)).cloned().collect()
    }

    /// Whether a namespace has any object.
    #[must_use]
    pub fn has_any(&self, namespace: &str) -> bool {
        self.0.store.read().namespace(namespace).next().is_some()
    }

    /// The keys and objects of one namespace, in name order.
    #[must_use]
    pub fn namespace_entries(&self, namespace: &str) -> Vec<(Key, Arc<T>)> {
        self.0.store.read().namespace(namespace).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Adds an index, unless one of this name is there: `of` names the values under which an object is found.
    pub fn add_index(&self, name: &'static str, of: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) {
        let mut store = self.0.store.write();
        if store.indices.contains_key(name) {
            return;
        }
        let mut index = Index { of: Box::new(of), map: HashMap::new() };
        for (key, value) in &store.items {
            index.insert(key, value);
        }
        store.indices.insert(name, index);
    }

    /// The objects an index has under a value, in key order. An index that was never added has nothing.
    #[must_use]
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<T>> {
        let store = self.0.store.read();
        let keys = store.indices.get(name).and_then(|i| i.map.get(value));
        keys.into_iter().flatten().filter_map(|k| store.items.get(k).cloned()).collect()
    }

    /// The keys an index has under a value, in order.
    #[must_use]
    pub fn index_keys(&self, name: &'static str, value: &str) -> Vec<Key> {
        let store = self.0.store.read();
        store.indices.get(name).and_then(|i| i.map.get(value)).into_iter().flatten().cloned().collect()
    }

    /// Whether the cache has held everything there was at some moment.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until it has.
    pub async fn synced(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.0.synced.subscribe().wait_for(|s| *s).await;
    }

    /// Calls `f` for every object there is, as added, and then for every change, in order. `f` runs in the cache's own
    /// task: it must be quick, and may read the cache but add nothing to it.
    pub fn on_change(&self, f: impl Fn(&Change<T>) + Send + Sync + 'static) {
        self.attach(Box::new(move |notice| {
            if let Notice::Change(c) = notice {
                f(c);
            }
        }));
    }

    pub(crate) fn attach(&self, f: Handler<T>) {
        let mut handlers = self.0.handlers.lock();
        let there: Vec<_> =
            self.0.store.read().items.iter().map(|(k, v)| Change::Added(k.clone(), v.clone())).collect();
        for change in &there {
            f(&Notice::Change(change));
        }
        if self.is_synced() {
            f(&Notice::Synced);
        }
        handlers.push(f);
    }

    /// Puts an object, or removes it, and tells the handlers.
    pub(crate) fn apply(&self, key: &Key, value: Option<Arc<T>>) {
        let handlers = self.0.handlers.lock();
        let change = self.0.store.write().set(key, value);
        if let Some(change) = change {
            for h in handlers.iter() {
                h(&Notice::Change(&change));
            }
        }
    }

    /// Removes an object whose last state is this one.
    pub(crate) fn apply_last(&self, key: &Key, last: &Arc<T>) {
        let handlers = self.0.handlers.lock();
        if self.0.store.write().set(key, None).is_some() {
            let change = Change::Deleted(key.clone(), last.clone());
            for h in handlers.iter() {
                h(&Notice::Change(&change));
            }
        }
    }

    /// Makes these the only objects; `same` tells which ones did not change.
    pub(crate) fn replace(&self, all: Vec<(Key, Arc<T>)>, same: impl Fn(&T, &T) -> bool) {
        let keep: BTreeSet<Key> = all.iter().map(|(k, _)| k.clone()).collect();
        for key in self.keys().into_iter().filter(|k| !keep.contains(k)) {
            self.apply(&key, None);
        }
        for (key, new) in all {
            if self.get(&key).is_none_or(|old| !same(&old, &new)) {
                self.apply(&key, Some(new));
            }
        }
    }

    pub(crate) fn set_synced(&self) {
        let handlers = self.0.handlers.lock();
        if !self.0.synced.send_replace(true) {
            for h in handlers.iter() {
                h(&Notice::Synced);
            }
        }
    }
}

impl<T: Send + Sync + 'static> Cache<T> {
    /// Changes as a stream: every object there is, as added, then every change. What a slow reader has not read yet
    /// waits in memory, as shared pointers.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<T> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.on_change(move |change| {
            // A reader that went away reads nothing more.
            let _ = tx.send(change.clone());
        });
        Subscription(rx)
    }
}

/// Changes of a [`Cache`] in order.
#[derive(Debug)]
pub struct Subscription<T>(mpsc::UnboundedReceiver<Change<T>>);

impl<T> Subscription<T> {
    /// The next change; `None` once the cache is gone.
    pub async fn next(&mut self) -> Option<Change<T>> {
        self.0.recv().await
    }

    /// The next change if there is one now.
    pub fn try_next(&mut self) -> Option<Change<T>> {
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(k: &str) -> Key {
        k.into()
    }

    fn log(cache: &Cache<u32>) -> Arc<Mutex<Vec<String>>> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let to = log.clone();
        cache.attach(Box::new(move |n| {
            to.lock().push(match n {
                Notice::Change(Change::Added(k, v)) => format!("+{k}={v}"),
                Notice::Change(Change::Modified(k, a, b)) => format!("~{k}={a}>{b}"),
                Notice::Change(Change::Deleted(k, v)) => format!("-{k}={v}"),
                Notice::Synced => "synced".into(),
            });
        }));
        log
    }

    #[test]
    fn tells_changes_in_order_and_the_past_to_newcomers() {
        let cache = Cache::<u32>::default();
        let first = log(&cache);
        cache.apply(&key("n/a"), Some(Arc::new(1)));
        cache.set_synced();
        cache.set_synced();
        let second = log(&cache);
        cache.replace(vec![(key("n/a"), Arc::new(1)), (key("n/b"), Arc::new(2))], |a, b| a == b);
        cache.apply(&key("n/b"), Some(Arc::new(3)));
        cache.replace(vec![(key("n/b"), Arc::new(3))], |a, b| a == b);
        cache.apply(&key("n/zz"), None);
        let want = ["+n/a=1", "synced", "+n/b=2", "~n/b=2>3", "-n/a=1"];
        assert_eq!(*first.lock(), want);
        assert_eq!(*second.lock(), want);
    }

    #[test]
    fn indices_follow() {
        let cache = Cache::<u32>::default();
        cache.apply(&key("n/a"), Some(Arc::new(1)));
        cache.add_index("parity", |v| vec![if v % 2 == 0 { "even" } else { "odd" }.to_owned()]);
        cache.apply(&key("n/b"), Some(Arc::new(2)));
        cache.apply(&key("m/b"), Some(Arc::new(3)));
        let keys = |v: &str| cache.index_keys("parity", v).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(keys("odd"), ["m/b", "n/a"]);
        cache.apply(&key("n/a"), Some(Arc::new(4)));
        assert_eq!(keys("odd"), ["m/b"]);
        assert_eq!(keys("even"), ["n/a", "n/b"]);
        cache.apply(&key("n/b"), None);
        assert_eq!(cache.by_index("parity", "even"), [Arc::new(4)]);
        assert_eq!(cache.namespace("n"), [Arc::new(4)]);
        assert_eq!(cache.select("n", |v| v % 2 == 1), []);
        assert_eq!((cache.has_any("m"), cache.has_any("")), (true, false));
        assert!(cache.by_index("nope", "x").is_empty());
    }
}

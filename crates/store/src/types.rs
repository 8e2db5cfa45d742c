//! The values that go into and come out of a store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// A point in the store's history. An empty store is at 1; each transaction that changes something adds exactly 1.
pub type Revision = u64;

/// A key. Keys are paths (see [`crate::keys`]) and are ordered by their bytes.
pub type Key = Arc<str>;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// The revision of the transaction that wrote this value.
    pub mod_revision: Revision,
}

/// The answer to a `get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The key's state, if it exists.
    pub kv: Option<KeyValue>,
    /// The store's revision at the time of the read.
    pub revision: Revision,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys starting with this.
    pub prefix: String,
    /// Only keys at or after this one.
    pub from_key: Option<String>,
    /// The state as it was at this revision; the current state if `None`.
    pub revision: Option<Revision>,
    /// At most so many keys; all if `None`. `Some(0)` only counts.
    pub limit: Option<usize>,
}

impl ListRequest {
    /// All keys with `prefix`, as they are now.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
    /// Starts at this key.
    #[must_use]
    pub fn from_key(mut self, key: impl Into<String>) -> Self {
        self.from_key = Some(key.into());
        self
    }
    /// Reads the state of this revision.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }
    /// Returns at most so many keys.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// The answer to a `list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The keys in order.
    pub kvs: Vec<KeyValue>,
    /// The revision whose state this is: the one asked for, or the store's own.
    pub revision: Revision,
    /// How many further keys match beyond those returned because of the limit.
    pub remaining: u64,
}

impl Listed {
    /// Whether the limit cut the answer short.
    pub fn more(&self) -> bool {
        self.remaining > 0
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key the condition is about.
    pub key: Key,
    /// What must hold.
    pub expect: Expect,
}

/// What must hold of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It exists.
    Exists,
    /// It exists and was last written at this revision.
    ModRevision(Revision),
}

impl Expect {
    /// Whether a key with this modification revision (`None`: the key does not exist) is as expected.
    pub fn holds(self, mod_revision: Option<Revision>) -> bool {
        match self {
            Self::Absent => mod_revision.is_none(),
            Self::Exists => mod_revision.is_some(),
            Self::ModRevision(expected) => mod_revision == Some(expected),
        }
    }
}

/// A write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates or overwrites a key.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// When set, the store deletes the key by itself after about this long, unless it is written again before.
        ttl: Option<Duration>,
    },
    /// Deletes a key; nothing happens if it does not exist.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Op {
    /// The key that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A transaction: if all compares hold then all writes take place, at one revision; otherwise none does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compares: Vec<Compare>,
    /// The writes. No two may have the same key.
    pub ops: Vec<Op>,
    /// The keys to return when a condition does not hold.
    pub on_failure: Vec<Key>,
}

impl Txn {
    /// Writes `value` if `key` does not exist; returns the present state otherwise.
    pub fn create(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Self::default().when(key.clone(), Expect::Absent).put(key.clone(), value).or_get(key)
    }
    /// Overwrites `key` if it was last written at `mod_revision`; returns the present state otherwise.
    pub fn update(key: impl Into<Key>, mod_revision: Revision, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Self::default().when(key.clone(), Expect::ModRevision(mod_revision)).put(key.clone(), value).or_get(key)
    }
    /// Deletes `key` if it was last written at `mod_revision`; returns the present state otherwise.
    pub fn remove(key: impl Into<Key>, mod_revision: Revision) -> Self {
        let key = key.into();
        Self::default().when(key.clone(), Expect::ModRevision(mod_revision)).delete(key.clone()).or_get(key)
    }
    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, key: impl Into<Key>, expect: Expect) -> Self {
        self.compares.push(Compare { key: key.into(), expect });
        self
    }
    /// Adds a write.
    #[must_use]
    pub fn put(mut self, key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), ttl: None });
        self
    }
    /// Adds a write of a key that goes away by itself.
    #[must_use]
    pub fn put_with_ttl(mut self, key: impl Into<Key>, value: impl Into<Bytes>, ttl: Duration) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), ttl: Some(ttl) });
        self
    }
    /// Adds a deletion.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }
    /// Asks for a key's state in case a condition does not hold.
    #[must_use]
    pub fn or_get(mut self, key: impl Into<Key>) -> Self {
        self.on_failure.push(key.into());
        self
    }

    /// Refuses what no implementation can do.
    pub(crate) fn check(&self) -> crate::Result<()> {
        let invalid = |text: String| Err(crate::Error::Invalid(text));
        let keys = self.compares.iter().map(|c| &c.key).chain(self.ops.iter().map(Op::key)).chain(&self.on_failure);
        for key in keys {
            if key.is_empty() {
                return invalid("a key is empty".into());
            }
        }
        for (i, op) in self.ops.iter().enumerate() {
            if self.ops[..i].iter().any(|other| other.key() == op.key()) {
                return invalid(format!("duplicate key {} in one transaction", op.key()));
            }
        }
        Ok(())
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All conditions held and the writes are durable.
    Succeeded {
        /// The revision of the writes; the store's present one if nothing changed.
        revision: Revision,
    },
    /// A condition did not hold and nothing was written.
    Failed {
        /// The store's revision at which the conditions were looked at.
        revision: Revision,
        /// The present state of each key of `on_failure`, in that order.
        current: Vec<Option<KeyValue>>,
    },
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// The revision of the change. The events of one transaction share it.
    pub revision: Revision,
    /// The new value; `None` when the key was deleted.
    pub value: Option<Bytes>,
    /// What the key held before: `None` when it did not exist, or (etcd only) when that state was already compacted.
    pub prev: Option<KeyValue>,
    /// Whether the key came into being with this change.
    pub created: bool,
}

/// The three kinds of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key came into being.
    Create,
    /// The key's value was overwritten.
    Update,
    /// The key was deleted.
    Delete,
}

impl Event {
    /// Which kind of change this is.
    pub fn change(&self) -> Change {
        match (&self.value, self.created) {
            (None, _) => Change::Delete,
            (Some(_), true) => Change::Create,
            (Some(_), false) => Change::Update,
        }
    }

    /// About how much memory the event takes.
    pub(crate) fn weight(&self) -> usize {
        let prev = self.prev.as_ref().map_or(0, |prev| prev.value.len());
        128 + self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + prev
    }
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// Changes of keys that start with any of these.
    pub prefixes: Vec<String>,
    /// The first revision wanted; `None` means whatever happens after the call.
    pub from_revision: Option<Revision>,
}

impl WatchRequest {
    /// Watches one prefix from now on.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefixes: vec![prefix.into()], from_revision: None }
    }
    /// Starts with the changes of this revision.
    #[must_use]
    pub fn from(mut self, revision: Revision) -> Self {
        self.from_revision = Some(revision);
        self
    }
    pub(crate) fn matches(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }
}

/// Some changes, in order of revision. One revision is never spread over two batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The changes; empty in an answer to a progress request.
    pub events: Vec<Arc<Event>>,
    /// Every change wanted up to and including this revision has now been delivered.
    pub revision: Revision,
}

/// How large a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes taken on disk, or in memory by one that has no file.
    pub total: u64,
    /// Bytes of that in use by data (the rest can be written again without growing the file).
    pub used: u64,
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The revision whose state it is.
    pub revision: Revision,
    /// The number of keys.
    pub keys: u64,
}

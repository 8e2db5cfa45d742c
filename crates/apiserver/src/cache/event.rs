//! Changes as the cache keeps them, and events as watchers get them: made once, shared by all.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use pintle_api::object::{EventType, Object, WatchEvent};

/// One change of one object.
#[derive(Debug)]
pub(super) struct Change {
    /// Counts the cache's changes without gaps; one revision may hold several.
    pub(super) seq: u64,
    pub(super) revision: u64,
    pub(super) key: Arc<str>,
    /// The new state; `None` when it was deleted.
    pub(super) object: Option<Arc<Object>>,
    pub(super) prev: Option<Arc<Object>>,
}

impl Change {
    /// About how much memory is kept alive by keeping this.
    pub(super) fn weight(&self) -> usize {
        let object = self.object.as_ref().or(self.prev.as_ref());
        200 + self.key.len() + object.map_or(0, |object| object.bytes().len())
    }
}

/// What a change is to different watchers, each made at most once.
pub(super) struct Outcomes<'a> {
    change: &'a Change,
    made: [Option<Arc<Delivery>>; 3],
}

impl<'a> Outcomes<'a> {
    pub(super) fn new(change: &'a Change) -> Self {
        Self { change, made: [None, None, None] }
    }

    /// The event for a watcher whose selectors match as told; `None` if it is not to hear of the change.
    pub(super) fn to(&mut self, matches: impl Fn(&Object) -> bool) -> Option<Arc<Delivery>> {
        let was = self.change.prev.as_ref().is_some_and(|object| matches(object));
        let is = self.change.object.as_ref().is_some_and(|object| matches(object));
        let (slot, kind) = match (was, is) {
            (false, true) => (0, EventType::Added),
            (true, true) => (1, EventType::Modified),
            (true, false) => (2, EventType::Deleted),
            (false, false) => return None,
        };
        if self.made[slot].is_none() {
            let object = if is { self.change.object.clone() } else { self.last_state() }?;
            self.made[slot] = Some(Arc::new(Delivery::new(kind, object, self.change.seq)));
        }
        self.made[slot].clone()
    }

    /// The previous state, carrying the revision at which it ceased to be.
    fn last_state(&self) -> Option<Arc<Object>> {
        let prev = self.change.prev.as_ref()?;
        Some(prev.at_revision(self.change.revision).map_or_else(|_| prev.clone(), Arc::new))
    }
}

/// A watch event, shared by all watchers that get it, with its encoded forms.
#[derive(Debug)]
pub struct Delivery {
    /// What happened, as the watcher's selectors see it.
    pub kind: EventType,
    /// The object; for a deletion its last state.
    pub object: Arc<Object>,
    /// The number of the change; 0 for an object of the initial state.
    pub(super) seq: u64,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl Delivery {
    pub(super) fn new(kind: EventType, object: Arc<Object>, seq: u64) -> Self {
        Self { kind, object, seq, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// The frame of a JSON watch: `{"type":"ADDED","object":{…}}` and a line end.
    pub fn json_frame(&self) -> &Bytes {
        self.json.get_or_init(|| json_frame(self.kind, self.object.bytes()))
    }

    /// The frame of a protobuf watch, made by the first who needs it.
    pub fn protobuf_frame(&self, make: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.protobuf.get_or_init(|| make(self))
    }

    /// The event without its encoded forms.
    pub fn event(&self) -> WatchEvent {
        WatchEvent { kind: self.kind, object: self.object.clone() }
    }
}

/// A JSON watch frame of an object's text.
pub fn json_frame(kind: EventType, object: &[u8]) -> Bytes {
    const HEAD: &[u8] = b"{\"type\":\"";
    const MIDDLE: &[u8] = b"\",\"object\":";
    let kind = kind.as_str().as_bytes();
    let mut out = BytesMut::with_capacity(HEAD.len() + kind.len() + MIDDLE.len() + object.len() + 2);
    for part in [HEAD, kind, MIDDLE, object, b"}\n"] {
        out.put_slice(part);
    }
    out.freeze()
}

//! Which Events are written, which are counted with an earlier one, and which are too many: client-go's rules.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, ObjectReference};

use crate::clock::time;

/// Entries each table keeps.
const ENTRIES: usize = 4096;
/// Similar Events with different messages after which they are written as one.
const SIMILAR: usize = 10;
/// How long Events count as similar.
const INTERVAL: SignedDuration = SignedDuration::from_secs(600);
/// Events an object may have at once, and seconds until it may have one more.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

/// An Event to write: new, or an earlier one with a higher count.
#[derive(Clone, Debug)]
pub(super) struct Correlated {
    pub event: Event,
    pub again: bool,
    key: String,
}

#[derive(Default)]
struct Similar {
    messages: HashSet<String>,
    last: Option<Timestamp>,
}

#[derive(Clone)]
struct Written {
    name: String,
    count: i32,
    first: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// A table that forgets its least recently used entries.
struct Recent<V> {
    entries: HashMap<String, (u64, V)>,
    turn: u64,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), turn: 0 }
    }
}

impl<V> Recent<V> {
    fn entry(&mut self, key: &str, make: impl FnOnce() -> V) -> &mut V {
        self.turn += 1;
        if self.entries.len() >= ENTRIES && !self.entries.contains_key(key) {
            // Half at once, so that a full table is not searched at each insert.
            let mut turns: Vec<u64> = self.entries.values().map(|(t, _)| *t).collect();
            let (_, middle, _) = turns.select_nth_unstable(ENTRIES / 2);
            let middle = *middle;
            self.entries.retain(|_, (t, _)| *t > middle);
        }
        let slot = self.entries.entry(key.to_owned()).or_insert_with(|| (0, make()));
        slot.0 = self.turn;
        &mut slot.1
    }

    fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key).map(|(_, v)| v)
    }
}

#[derive(Default)]
pub(super) struct Correlator {
    similar: Recent<Similar>,
    written: Recent<Option<Written>>,
    buckets: Recent<Bucket>,
}

pub(super) fn object_key(o: &ObjectReference) -> String {
    let parts = [&o.kind, &o.namespace, &o.name, &o.field_path, &o.uid, &o.api_version];
    parts.map(|p| p.as_deref().unwrap_or_default()).join("\0")
}

impl Correlator {
    /// What to write for an event; `None` when its object has had too many.
    pub fn correlate(&mut self, mut event: Event, now: Timestamp) -> Option<Correlated> {
        let source = event.source.clone().unwrap_or_default();
        let spam =
            [source.component.unwrap_or_default(), source.host.unwrap_or_default(), object_key(&event.involved_object)]
                .join("\0");
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let group = [spam.clone(), text(&event.type_), text(&event.reason)].join("\0");
        let message = text(&event.message);

        let similar = self.similar.entry(&group, Similar::default);
        if similar.last.is_some_and(|last| now.duration_since(last) > INTERVAL) {
            similar.messages.clear();
        }
        similar.messages.insert(message.clone());
        similar.last = Some(now);
        let key = if similar.messages.len() < SIMILAR {
            [group.as_str(), message.as_str()].join("\0")
        } else {
            // Room for one more, so that the set stays as it is.
            if let Some(any) = similar.messages.iter().next().cloned() {
                similar.messages.remove(&any);
            }
            event.message = Some(format!("(combined from similar events): {message}"));
            event.first_timestamp = Some(time(now));
            event.last_timestamp = Some(time(now));
            event.count = Some(1);
            group
        };

        let mut again = false;
        if let Some(before) = self.written.get(&key).and_then(Clone::clone) {
            event.metadata.name = Some(before.name);
            event.count = Some(before.count + 1);
            event.first_timestamp = before.first;
            again = true;
        }

        let bucket = self.buckets.entry(&spam, || Bucket { tokens: BURST, at: now });
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed / REFILL_SECONDS).min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return None;
        }
        bucket.tokens -= 1.0;
        Some(Correlated { event, again, key })
    }

    /// Notes that an event was written, so that the next one like it raises its count.
    pub fn written(&mut self, c: &Correlated) {
        let e = &c.event;
        *self.written.entry(&c.key, || None) = Some(Written {
            name: e.metadata.name.clone().unwrap_or_default(),
            count: e.count.unwrap_or(1),
            first: e.first_timestamp.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn event(object: &str, message: &str, now: Timestamp) -> Event {
        Event {
            involved_object: ObjectReference { name: Some(object.into()), ..ObjectReference::default() },
            message: Some(message.into()),
            reason: Some("R".into()),
            type_: Some("Normal".into()),
            count: Some(1),
            first_timestamp: Some(time(now)),
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(format!("{object}.{}", now.as_second())),
                ..Default::default()
            },
            ..Event::default()
        }
    }

    fn put(c: &mut Correlator, object: &str, message: &str, seconds: i64) -> Option<Correlated> {
        let out = c.correlate(event(object, message, at(seconds)), at(seconds));
        if let Some(out) = &out {
            c.written(out);
        }
        out
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut c = Correlator::default();
        let first = put(&mut c, "a", "m", 0).unwrap();
        let second = put(&mut c, "a", "m", 5).unwrap();
        assert!(!first.again && second.again);
        assert_eq!(second.event.metadata.name, first.event.metadata.name);
        assert_eq!(second.event.count, Some(2));
        assert_eq!(second.event.first_timestamp, first.event.first_timestamp);
        assert!(!put(&mut c, "b", "m", 5).unwrap().again);
        assert!(!put(&mut c, "a", "other", 5).unwrap().again);
    }

    #[test]
    fn many_messages_become_one() {
        let mut c = Correlator::default();
        let messages = |c: &mut Correlator, from: i64| -> Vec<(bool, String)> {
            (0..12)
                .map(|i| put(c, "a", &format!("m{from}-{i}"), from + i).unwrap())
                .map(|e| (e.again, e.event.message.unwrap()))
                .collect()
        };
        let got = messages(&mut c, 0);
        assert!(got[..9].iter().all(|(again, m)| !again && m.starts_with('m')));
        assert_eq!(got[9], (false, "(combined from similar events): m0-9".into()));
        assert_eq!(got[10], (true, "(combined from similar events): m0-10".into()));
        // After the interval they are told apart again.
        assert!(messages(&mut c, 5000)[0].1.starts_with('m'));
    }

    #[test]
    fn too_many_are_dropped_until_time_passes() {
        let mut c = Correlator::default();
        assert_eq!((0..40).filter(|_| put(&mut c, "a", "m", 0).is_some()).count(), 25);
        assert!(put(&mut c, "b", "m", 0).is_some());
        assert!(put(&mut c, "a", "m", 299).is_none());
        assert!(put(&mut c, "a", "m", 301).is_some());
    }

    #[test]
    fn tables_stay_small() {
        let mut r = Recent::default();
        for i in 0..3 * ENTRIES {
            r.entry(&i.to_string(), || i);
            assert!(r.entries.len() <= ENTRIES);
        }
        assert!(r.get(&(3 * ENTRIES - 1).to_string()).is_some());
    }
}

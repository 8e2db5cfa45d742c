//! Growing delays between tries, one entry a key.

use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: SignedDuration,
    last: Timestamp,
}

/// Delays that double from `initial` to `max` and are forgotten after twice `max` without a try.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: SignedDuration,
    max: SignedDuration,
    entries: BTreeMap<String, Entry>,
}

impl Backoff {
    /// Delays from `initial` to `max`.
    #[must_use]
    pub fn new(initial: SignedDuration, max: SignedDuration) -> Self {
        Self { initial, max, entries: BTreeMap::new() }
    }

    fn expired(&self, entry: &Entry, at: Timestamp) -> bool {
        at.duration_since(entry.last) > self.max.saturating_mul(2)
    }

    /// The end of the delay that began with an event at `since`, if it is still to come at `now`.
    #[must_use]
    pub fn until_since(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key).filter(|e| !self.expired(e, since))?;
        Some(since.saturating_add(entry.delay).ok()?).filter(|end| *end > now)
    }

    /// The end of the delay that began with the last try, if it is still to come at `now`.
    #[must_use]
    pub fn until(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key).filter(|e| !self.expired(e, now))?;
        Some(entry.last.saturating_add(entry.delay).ok()?).filter(|end| *end > now)
    }

    /// The present delay.
    #[must_use]
    pub fn delay(&self, key: &str) -> SignedDuration {
        self.entries.get(key).map_or(SignedDuration::ZERO, |e| e.delay)
    }

    /// Notes a try at `now`; the next delay is longer.
    pub fn next(&mut self, key: &str, now: Timestamp) {
        let entry = match self.entries.get(key) {
            Some(e) if !self.expired(e, now) => {
                Entry { delay: std::cmp::min(e.delay.saturating_mul(2), self.max), last: now }
            }
            _ => Entry { delay: std::cmp::min(self.initial, self.max), last: now },
        };
        self.entries.insert(key.into(), entry);
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn doubles_up_to_the_limit_and_forgets() {
        let mut b = Backoff::new(SignedDuration::from_secs(10), SignedDuration::from_secs(300));
        assert_eq!(b.until_since("c", at(0), at(0)), None, "the first restart is at once");
        let mut now = 0;
        for want in [10, 20, 40, 80, 160, 300, 300] {
            b.next("c", at(now));
            assert_eq!(b.delay("c").as_secs(), want);
            assert_eq!(b.until_since("c", at(now + 1), at(now + 2)), Some(at(now + 1 + want)));
            assert_eq!(b.until_since("c", at(now + 1), at(now + 1 + want)), None);
            now += 1 + want;
        }
        assert_eq!(b.until_since("c", at(now + 601), at(now + 601)), None, "it ran for long");
        b.next("c", at(now + 700));
        assert_eq!(b.delay("c").as_secs(), 10);
        b.forget("c");
        assert_eq!(b.until("c", at(now + 701)), None);
    }
}

//! What a controller has asked for and not yet seen in its cache. Until it has, it does not act again on that key.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// After so long an expectation counts as met: the event must have been lost.
const LOST: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Option<Instant>,
}

/// Expectations by key.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<String, Expected>>);

impl std::fmt::Debug for Expectations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expectations({} keys)", self.0.lock().len())
    }
}

impl Expectations {
    /// Whether everything asked for has been seen.
    #[must_use]
    pub fn met(&self, key: &str) -> bool {
        self.0
            .lock()
            .get(key)
            .is_none_or(|e| (e.creations == 0 && e.deletions.is_empty()) || e.since.is_none_or(|t| t.elapsed() > LOST))
    }

    /// Expects `n` creations and nothing else.
    pub fn expect_creations(&self, key: &str, n: usize) {
        let e = Expected { creations: n, since: Some(Instant::now()), ..Expected::default() };
        self.0.lock().insert(key.to_owned(), e);
    }

    /// Expects these to be deleted and nothing else.
    pub fn expect_deletions(&self, key: &str, names: impl IntoIterator<Item = String>) {
        let e = Expected { deletions: names.into_iter().collect(), since: Some(Instant::now()), ..Expected::default() };
        self.0.lock().insert(key.to_owned(), e);
    }

    /// Expects both.
    pub fn expect(&self, key: &str, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let e = Expected { creations, deletions: deletions.into_iter().collect(), since: Some(Instant::now()) };
        self.0.lock().insert(key.to_owned(), e);
    }

    /// Notes that creations were seen, or will not come.
    pub fn created(&self, key: &str, n: usize) {
        if let Some(e) = self.0.lock().get_mut(key) {
            e.creations = e.creations.saturating_sub(n);
        }
    }

    /// Notes that a deletion was seen, or will not come.
    pub fn deleted(&self, key: &str, name: &str) {
        if let Some(e) = self.0.lock().get_mut(key) {
            e.deletions.remove(name);
        }
    }

    /// Forgets a key.
    pub fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn are_met_when_seen_or_lost() {
        let e = Expectations::default();
        assert!(e.met("k"));
        e.expect_creations("k", 2);
        e.created("k", 1);
        assert!(!e.met("k") && e.met("other"));
        e.created("k", 1);
        assert!(e.met("k"));
        e.expect_deletions("k", ["a".to_owned()]);
        e.deleted("k", "b");
        assert!(!e.met("k"));
        e.deleted("k", "a");
        assert!(e.met("k"));
        e.expect("k", 1, []);
        tokio::time::advance(LOST + Duration::from_secs(1)).await;
        assert!(e.met("k"));
    }
}

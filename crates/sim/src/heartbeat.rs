//! Signs of life of many nodes from one task: who is due, in order of time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Names in the order in which they are due. All have one interval, so whoever was served goes to the end.
#[derive(Debug)]
pub struct Rota {
    interval: Duration,
    queue: VecDeque<(Instant, Arc<str>)>,
    /// Names that are on it; with when they are due, which tells a name that came again from what is left of it.
    on: HashMap<Arc<str>, Instant>,
}

impl Rota {
    pub fn new(interval: Duration) -> Self {
        Self { interval, queue: VecDeque::new(), on: HashMap::new() }
    }

    /// Puts a name on it, due at some moment of the next interval so that those who come together are not due together.
    pub fn add(&mut self, name: Arc<str>, now: Instant, part: f64) {
        debug_assert!((0.0..=1.0).contains(&part), "a part of the interval");
        if self.on.contains_key(&name) {
            return;
        }
        let at = now + self.interval.mul_f64(part);
        self.on.insert(name.clone(), at);
        let place = self.queue.partition_point(|(t, _)| *t <= at);
        self.queue.insert(place, (at, name));
    }

    /// Takes a name off.
    pub fn remove(&mut self, name: &str) {
        self.on.remove(name);
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// Those who are due, who are due again an interval later.
    pub fn due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut out = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            let Some((at, name)) = self.queue.pop_front() else { break };
            let Some(expected) = self.on.get_mut(&name).filter(|t| **t == at) else { continue };
            *expected = now + self.interval;
            self.queue.push_back((*expected, name.clone()));
            out.push(name);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_in_its_turn() {
        let mut rota = Rota::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        for (name, part) in [("c", 0.9), ("a", 0.1), ("b", 0.5), ("a", 0.2)] {
            rota.add(name.into(), start, part);
        }
        let due =
            |rota: &mut Rota, s: u64| rota.due(at(s)).iter().map(ToString::to_string).collect::<Vec<_>>().concat();
        assert_eq!((rota.next(), due(&mut rota, 0).as_str()), (Some(at(1)), ""));
        assert_eq!(due(&mut rota, 5), "ab");
        rota.remove("b");
        assert_eq!(due(&mut rota, 15), "ca");
        assert_eq!(due(&mut rota, 25), "ca");
        // Who comes again is not due by what was left of it.
        rota.remove("a");
        rota.add("a".into(), at(25), 0.5);
        assert_eq!(due(&mut rota, 31), "a");
        assert_eq!(due(&mut rota, 40), "c");
    }
}

//! How fast nodes of a zone may start to evict: when many fail at once it is the network that failed, not the nodes.

use std::collections::HashMap;
use std::time::Duration;

use pintle_client::Key;
use tokio::time::Instant;

use crate::support::nodes::Node;

/// Share of nodes that must be unhealthy for a zone to count as disrupted.
const UNHEALTHY: f64 = 0.55;
/// Clusters up to this size do not evict from a disrupted zone at all.
const SMALL: usize = 50;
/// Rate in a large disrupted zone, nodes a second.
const SECONDARY: f64 = 0.01;
/// When to ask again in a zone that does not evict.
const LATER: Duration = Duration::from_secs(30);

/// The zone of a node, region included.
pub fn zone_of(node: &Node) -> String {
    let label = |k: &str| node.metadata.labels.get(k).unwrap_or_default();
    format!("{}:\0:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    Partial,
    Full,
}

/// Every zone's nodes and their turns.
#[derive(Debug)]
pub struct Zones {
    rate: f64,
    /// Zone and health by node.
    nodes: HashMap<Key, (String, bool)>,
    /// When the next node of a zone may go.
    next: HashMap<String, Instant>,
}

impl Zones {
    pub fn new(rate: f64) -> Self {
        Self { rate, nodes: HashMap::new(), next: HashMap::new() }
    }

    pub fn see(&mut self, node: &Key, zone: &str, ready: bool) {
        self.nodes.insert(node.clone(), (zone.to_owned(), ready));
    }

    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    fn state(&self, zone: &str) -> State {
        let of: Vec<bool> = self.nodes.values().filter(|(z, _)| z == zone).map(|(_, r)| *r).collect();
        let bad = of.iter().filter(|r| !**r).count();
        if bad == of.len() && bad > 0 {
            State::Full
        } else if bad > 2 && bad as f64 / of.len() as f64 >= UNHEALTHY {
            State::Partial
        } else {
            State::Normal
        }
    }

    fn rate_of(&self, zone: &str) -> f64 {
        let all_full = {
            let mut zones: Vec<&str> = self.nodes.values().map(|(z, _)| z.as_str()).collect();
            zones.sort_unstable();
            zones.dedup();
            zones.iter().all(|z| self.state(z) == State::Full)
        };
        match self.state(zone) {
            // Everything failed: it is us who are cut off.
            _ if all_full => 0.0,
            State::Normal | State::Full => self.rate,
            State::Partial if self.nodes.len() > SMALL => SECONDARY,
            State::Partial => 0.0,
        }
    }

    /// Lets a node have its turn, or says when to ask again.
    pub fn turn(&mut self, node: &str, now: Instant) -> Result<(), Duration> {
        let Some((zone, _)) = self.nodes.get(node).cloned() else { return Ok(()) };
        let rate = self.rate_of(&zone);
        if rate <= 0.0 {
            return Err(LATER);
        }
        let next = self.next.entry(zone).or_insert(now);
        if *next > now {
            return Err(*next - now);
        }
        *next = now + Duration::from_secs_f64(1.0 / rate);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns() {
        let mut z = Zones::new(0.1);
        for i in 0..10 {
            z.see(&format!("n{i}").into(), "a", i >= 2);
        }
        let now = Instant::now();
        assert_eq!(z.turn("n0", now), Ok(()));
        assert_eq!(z.turn("n1", now), Err(Duration::from_secs(10)));
        assert_eq!(z.turn("n1", now + Duration::from_secs(10)), Ok(()));
        // More than half of a small cluster: nothing goes.
        for i in 0..6 {
            z.see(&format!("n{i}").into(), "a", false);
        }
        assert_eq!(z.turn("n3", now + Duration::from_secs(100)), Err(LATER));
        // A whole zone, with another in good health.
        for i in 0..10 {
            z.see(&format!("n{i}").into(), "a", false);
        }
        z.see(&"other".into(), "b", true);
        assert_eq!(z.turn("n3", now + Duration::from_secs(100)), Ok(()));
        z.see(&"other".into(), "b", false);
        assert_eq!(z.turn("n4", now + Duration::from_secs(200)), Err(LATER));
    }
}

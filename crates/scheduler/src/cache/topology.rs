//! Which place each node is in, by topology key: the values of a label numbered, so that counting pods by place is
//! adding in an array.

use std::collections::HashMap;

/// A node's number in the cache.
pub type NodeId = usize;
/// A topology key's number.
pub type TopologyId = usize;
/// A place's number within its topology.
pub type Domain = u32;

/// No place: the node lacks the label.
const NOWHERE: Domain = Domain::MAX;

/// One topology key.
#[derive(Debug)]
pub struct Topology {
    /// The label.
    pub key: String,
    /// Place of each node.
    of: Vec<Domain>,
    numbers: HashMap<String, Domain>,
    values: Vec<String>,
    /// How many nodes are in each place.
    nodes: Vec<u32>,
    free: Vec<Domain>,
    /// How many nodes are in any place.
    placed: usize,
}

impl Topology {
    /// A topology without nodes.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            of: Vec::new(),
            numbers: HashMap::new(),
            values: Vec::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            placed: 0,
        }
    }

    /// The place a node is in.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Option<Domain> {
        self.of.get(node).copied().filter(|d| *d != NOWHERE)
    }

    /// How many nodes have the label.
    #[must_use]
    pub fn placed(&self) -> usize {
        self.placed
    }

    /// Numbers in use are below this.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no place at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.placed == 0
    }

    /// Whether any node is in this place.
    #[must_use]
    pub fn exists(&self, domain: Domain) -> bool {
        self.nodes.get(domain as usize).is_some_and(|n| *n > 0)
    }

    /// Puts a node where its label says.
    pub fn set(&mut self, node: NodeId, value: Option<&str>) {
        if let Some(old) = self.of(node) {
            self.placed -= 1;
            self.of[node] = NOWHERE;
            let left = &mut self.nodes[old as usize];
            *left -= 1;
            if *left == 0 {
                self.numbers.remove(&self.values[old as usize]);
                self.free.push(old);
            }
        }
        let Some(value) = value else { return };
        let domain = match self.numbers.get(value) {
            Some(d) => *d,
            None => {
                let d = self.free.pop().unwrap_or_else(|| {
                    self.nodes.push(0);
                    self.values.push(String::new());
                    Domain::try_from(self.nodes.len() - 1).unwrap_or(NOWHERE - 1)
                });
                self.values[d as usize] = value.to_owned();
                self.numbers.insert(value.to_owned(), d);
                d
            }
        };
        self.nodes[domain as usize] += 1;
        self.placed += 1;
        if self.of.len() <= node {
            self.of.resize(node + 1, NOWHERE);
        }
        self.of[node] = domain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_while_used_and_reused_after() {
        let mut t = Topology::new("zone");
        t.set(0, Some("a"));
        t.set(3, Some("b"));
        t.set(1, Some("a"));
        assert_eq!([t.of(0), t.of(1), t.of(2), t.of(3)], [Some(0), Some(0), None, Some(1)]);
        t.set(3, None);
        assert!(!t.exists(1));
        t.set(2, Some("c"));
        assert_eq!((t.of(2), t.placed(), t.len()), (Some(1), 3, 2));
    }
}

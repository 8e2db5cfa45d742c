//! What is simulated.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::address::Pool;
use crate::rules::Rules;

/// What is simulated, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many nodes there are to be.
    pub nodes: usize,
    /// Whose nodes they are: several groups can be simulated beside each other in one cluster. Nodes are named by it.
    pub group: String,
    /// Labels of every node.
    pub labels: BTreeMap<String, String>,
    /// Annotations of every node.
    pub annotations: BTreeMap<String, String>,
    /// Taints of every node.
    pub taints: Vec<Taint>,
    /// Among how many zones the nodes are spread; 0 gives them none.
    pub zones: usize,
    /// What a node has, by resource.
    pub capacity: BTreeMap<String, String>,
    /// The addresses of nodes.
    pub node_addresses: Pool,
    /// The addresses of pods.
    pub pod_addresses: Pool,
    /// What becomes of pods.
    pub rules: Rules,
    /// How long a node's Lease is good for; it is renewed four times as often.
    pub lease_duration: Duration,
    /// How often a node says that nothing changed.
    pub status_interval: Duration,
    /// How many requests are under way at most.
    pub concurrency: usize,
    /// Whether the nodes are removed in the end.
    pub remove: bool,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value; may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl FromStr for Taint {
    type Err = String;

    /// As `kubectl taint` takes them: `key=value:Effect` or `key:Effect`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no taint such as key=value:NoSchedule");
        let (pair, effect) = text.rsplit_once(':').ok_or_else(bad)?;
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            return Err(bad());
        }
        Ok(Self { key: key.into(), value: value.into(), effect: effect.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints() {
        let of = |key: &str, value: &str, effect: &str| {
            Some(Taint { key: key.into(), value: value.into(), effect: effect.into() })
        };
        for (text, want) in [
            ("a/b=c:NoSchedule", of("a/b", "c", "NoSchedule")),
            ("a:NoExecute", of("a", "", "NoExecute")),
            ("a=b", None),
            ("a=b:Never", None),
            ("=b:NoSchedule", None),
        ] {
            assert_eq!(text.parse::<Taint>().ok(), want, "{text}");
        }
    }
}

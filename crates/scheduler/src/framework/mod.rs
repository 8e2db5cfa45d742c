//! The scheduling framework: plugins and the points at which they have a say.
//!
//! A plugin's own state for one pod is what its `pre_filter` or `pre_score` returned; the framework keeps it and hands it
//! back, so that no plugin looks anything up by name while nodes are tried.

pub mod profile;

use std::any::Any;
use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::model::{Node, NodeInfo, Pod};

/// Highest score a plugin gives before its weight.
pub const MAX_SCORE: i64 = 100;

/// A plugin's state for one pod.
pub type State = Option<Box<dyn Any + Send + Sync>>;

/// Reads a plugin's state as the type it stored.
#[must_use]
pub fn state_as<T: 'static>(state: &State) -> Option<&T> {
    state.as_ref().and_then(|s| s.downcast_ref())
}

/// Why a pod cannot go somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// In upstream's words, such as `Insufficient cpu`; several when several things are missing.
    pub reasons: Vec<String>,
    /// Whether removing other pods could never help.
    pub unresolvable: bool,
}

impl Rejection {
    /// One that the removal of other pods might mend.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: false }
    }

    /// One that the removal of other pods cannot mend.
    #[must_use]
    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: true }
    }
}

/// What `pre_filter` says.
#[derive(Default)]
pub struct PreFilter {
    /// State for `filter`.
    pub state: State,
    /// Whether `filter` need not be called for this pod.
    pub skip: bool,
    /// The only nodes worth trying, when it knows them.
    pub nodes: Option<Vec<String>>,
}

/// Something that happened in the cluster and may let a waiting pod be placed.
#[derive(Clone, Copy, Debug)]
pub enum ClusterEvent<'a> {
    /// A node appeared.
    NodeAdded(&'a Node),
    /// A node changed from the first to the second.
    NodeUpdated(&'a Node, &'a Node),
    /// A pod that had a node is gone or has ended.
    PodGone(&'a Pod),
    /// A pod got a node, or one that has a node changed its labels or requests.
    PodAssigned(&'a Pod),
}

/// A scheduling plugin. Every point but the name has a default that does nothing.
pub trait Plugin: Send + Sync {
    /// Upstream's name of it.
    fn name(&self) -> &'static str;

    /// Before a pod may enter the queue.
    ///
    /// # Errors
    /// Why it must wait.
    fn pre_enqueue(&self, _pod: &Pod) -> Result<(), Rejection> {
        Ok(())
    }

    /// Once for a pod, before nodes are tried.
    ///
    /// # Errors
    /// Why no node can take it.
    fn pre_filter(&self, _pod: &Pod, _cache: &Cache) -> Result<PreFilter, Rejection> {
        Ok(PreFilter { skip: !self.filters(), ..PreFilter::default() })
    }

    /// Whether it has a say about single nodes.
    fn filters(&self) -> bool {
        false
    }

    /// Whether a node can take the pod.
    ///
    /// # Errors
    /// Why it cannot.
    fn filter(&self, _state: &State, _pod: &Pod, _node: &Node, _info: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// Whether it scores nodes; a weight above 0 in its profile is needed too.
    fn scores(&self) -> bool {
        false
    }

    /// Once for a pod, before nodes are scored: `None` when it has nothing to say about this pod.
    fn pre_score(&self, _pod: &Pod, _cache: &Cache) -> Option<State> {
        Some(None)
    }

    /// How good a node is, in the plugin's own measure.
    fn score(&self, _state: &State, _pod: &Pod, _node: &Node, _info: &NodeInfo, _cache: &Cache) -> i64 {
        0
    }

    /// Brings the scores of all nodes to 0..=[`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}

    /// Whether what happened may let a pod be placed that this plugin rejected.
    fn hint(&self, _event: ClusterEvent<'_>, _pod: &Pod) -> bool {
        true
    }
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; `reverse` turns them round, so that the lowest is best.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for s in scores {
        *s = if max == 0 {
            if reverse { MAX_SCORE } else { 0 }
        } else {
            let scaled = *s * MAX_SCORE / max;
            if reverse { MAX_SCORE - scaled } else { scaled }
        };
    }
}

/// Why a pod was placed nowhere.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes each reason kept away.
    pub reasons: BTreeMap<String, usize>,
    /// The plugins that rejected, by name.
    pub plugins: Vec<&'static str>,
    /// A reason that concerns no single node.
    pub pre_filter: Option<String>,
}

impl Diagnosis {
    pub(crate) fn blame(&mut self, plugin: &'static str) {
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
    }

    pub(crate) fn count(&mut self, rejection: &Rejection) {
        for reason in &rejection.reasons {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
    }

    /// In upstream's words: `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut out = format!("0/{} nodes are available", self.nodes);
        if let Some(reason) = &self.pre_filter {
            out.push_str(": ");
            out.push_str(reason);
        } else {
            let mut counts: Vec<String> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
            // Upstream sorts the texts, numbers and all.
            counts.sort();
            for (i, c) in counts.iter().enumerate() {
                out.push_str(if i == 0 { ": " } else { ", " });
                out.push_str(c);
            }
        }
        out.push('.');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let mut d = Diagnosis { nodes: 3, ..Diagnosis::default() };
        d.count(&Rejection {
            reasons: vec!["Insufficient cpu".into(), "Insufficient memory".into()],
            unresolvable: false,
        });
        d.count(&Rejection::new("Insufficient cpu"));
        d.count(&Rejection::unresolvable("node(s) were unschedulable"));
        assert_eq!(
            d.message(),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(Diagnosis::default().message(), "no nodes available to schedule pods");
    }

    #[test]
    fn normalizes() {
        let check = |scores: &[i64], reverse, want: &[i64]| {
            let mut s = scores.to_vec();
            default_normalize(&mut s, reverse);
            assert_eq!(s, want);
        };
        check(&[0, 1, 2], false, &[0, 50, 100]);
        check(&[0, 1, 2], true, &[100, 50, 0]);
        check(&[0, 0], true, &[100, 100]);
        check(&[0, 0], false, &[0, 0]);
        check(&[], false, &[]);
    }
}

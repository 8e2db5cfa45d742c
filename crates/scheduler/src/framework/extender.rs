//! Extenders: programs that are asked besides the plugins. How they are reached is not known here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Pod;

/// Highest score of an extender; those of plugins go to 100.
pub const MAX_EXTENDER_PRIORITY: i64 = 10;

/// What an extender says of nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Those that will do.
    pub nodes: Vec<String>,
    /// Those that will not, and why.
    pub failed: BTreeMap<String, String>,
    /// Those that never will, whatever pods are removed, and why.
    pub unresolvable: BTreeMap<String, String>,
}

/// Victims of preemption on a node, and how many budgets that breaks.
#[derive(Clone, Debug)]
pub struct Victims {
    /// The pods.
    pub pods: Vec<Arc<Pod>>,
    /// Broken budgets.
    pub violations: usize,
}

/// A program that is asked.
pub trait Extender: Send + Sync {
    /// What it is called in logs.
    fn name(&self) -> &str;

    /// Whether it has a say about a pod.
    fn is_interested(&self, pod: &Pod) -> bool;

    /// Whether scheduling goes on without it when it fails.
    fn is_ignorable(&self) -> bool;

    /// Asks which nodes will do; `None` when it does not filter.
    fn filter(&self, pod: &Pod, nodes: &[String]) -> Option<Result<Filtered, String>>;

    /// Asks for scores of nodes, weighed; `None` when it gives none.
    fn prioritize(&self, pod: &Pod, nodes: &[String]) -> Option<Result<BTreeMap<String, i64>, String>>;

    /// Asks which victims on which nodes may be; `None` when it does not care.
    fn preempt(
        &self,
        pod: &Pod,
        victims: &BTreeMap<String, Victims>,
    ) -> Option<Result<BTreeMap<String, Victims>, String>>;
}

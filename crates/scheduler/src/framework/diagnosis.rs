//! Why a pod was placed nowhere, node by node, and how upstream words it.

use super::{Reason, Rejection};
use crate::cache::NodeId;

/// What upstream says where there is no node at all.
const NO_NODES: &str = "no nodes available to schedule pods";

/// Why a pod was placed nowhere.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// What each node that was tried was rejected for.
    pub rejected: Vec<(NodeId, Rejection)>,
    /// What nodes were rejected for that are not told apart, and how many for each.
    pub tally: Vec<(Rejection, usize)>,
    /// Why the others were not tried.
    pub untried: Option<Reason>,
    /// The plugins that rejected, by name.
    pub plugins: Vec<&'static str>,
    /// A reason that concerns no single node.
    pub pre_filter: Option<String>,
    /// What came of making room.
    pub post_filter: String,
}

impl Diagnosis {
    pub(crate) fn blame(&mut self, plugin: &'static str) {
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
    }

    /// In upstream's words: `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`, and what came
    /// of preemption.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return NO_NODES.into();
        }
        let mut out = format!("0/{} nodes are available:", self.nodes);
        if let Some(reason) = &self.pre_filter {
            out.push(' ');
            out.push_str(reason);
            out.push('.');
        } else {
            // Many nodes say the same few things, mostly in the very same words.
            let mut reasons: Vec<(&str, usize)> = Vec::new();
            let mut count = |reason, times| match reasons.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, n)) => *n += times,
                None => reasons.push((reason, times)),
            };
            for reason in self.rejected.iter().flat_map(|(_, r)| &r.reasons) {
                count(reason, 1);
            }
            let mut tried = self.rejected.len();
            for (rejection, nodes) in &self.tally {
                tried += nodes;
                rejection.reasons.iter().for_each(|reason| count(reason, *nodes));
            }
            let untried = self.nodes.saturating_sub(tried);
            if let Some(reason) = self.untried.as_ref().filter(|_| untried > 0) {
                count(reason, untried);
            }
            let mut counts: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
            // Upstream sorts the texts, numbers and all.
            counts.sort();
            if !counts.is_empty() {
                out.push(' ');
                out.push_str(&counts.join(", "));
                out.push('.');
            }
        }
        if !self.post_filter.is_empty() {
            out.push(' ');
            out.push_str(&self.post_filter);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let two = Rejection {
            reasons: ["Insufficient cpu".into(), "Insufficient memory".into()].into_iter().collect(),
            unresolvable: false,
        };
        let mut d = Diagnosis {
            nodes: 4,
            rejected: vec![
                (0, two),
                (1, Rejection::new("Insufficient cpu")),
                (2, Rejection::unresolvable("node(s) were unschedulable")),
            ],
            untried: Some("node(s) didn't satisfy plugin(s) [NodeAffinity]".into()),
            ..Diagnosis::default()
        };
        let want = "0/4 nodes are available: 1 Insufficient memory, 1 node(s) didn't satisfy plugin(s) [NodeAffinity], \
                    1 node(s) were unschedulable, 2 Insufficient cpu.";
        assert_eq!(d.message(), want);
        // The same, not told apart by node.
        d.tally = d.rejected.drain(1..).map(|(_, r)| (r, 1)).collect();
        assert_eq!(d.message(), want);
        d.post_filter = "preemption: no".into();
        assert_eq!(d.message(), format!("{want} preemption: no"));
        d.pre_filter = Some("persistentvolumeclaim \"x\" not found".into());
        d.post_filter = "not found".into();
        assert_eq!(d.message(), "0/4 nodes are available: persistentvolumeclaim \"x\" not found. not found");
        assert_eq!(Diagnosis::default().message(), NO_NODES);
    }
}

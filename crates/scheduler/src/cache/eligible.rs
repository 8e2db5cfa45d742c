//! Which nodes count for pods that ask the same of nodes: the answers are kept until the node changes.

use pintle_api::Labels;

use super::NodeId;
use crate::model::{Pod, wire};

/// So many kinds of pods are remembered.
const MAX_KINDS: usize = 8;

/// Answers by what pods ask of nodes, the last used last.
#[derive(Debug, Default)]
pub struct Eligible(Vec<Answers>);

/// What pods ask of nodes, as far as it is heeded, and which nodes have it.
#[derive(Debug, Default)]
pub struct Answers {
    affinity: Option<(Labels, Option<wire::NodeAffinity>)>,
    tolerations: Option<Box<[wire::Toleration]>>,
    nodes: Vec<Option<bool>>,
}

impl Answers {
    fn are_for(&self, pod: &Pod, affinity: bool, taints: bool) -> bool {
        self.affinity.is_some() == affinity
            && self.tolerations.is_some() == taints
            && self.affinity.as_ref().is_none_or(|(s, a)| *s == pod.node_selector && *a == pod.node_affinity)
            && self.tolerations.as_ref().is_none_or(|t| *t == pod.tolerations)
    }

    /// What is known of a node, found out now when nothing is.
    pub fn of(&mut self, node: NodeId, find: impl FnOnce() -> bool) -> bool {
        if self.nodes.len() <= node {
            self.nodes.resize(node + 1, None);
        }
        *self.nodes[node].get_or_insert_with(find)
    }
}

impl Eligible {
    /// Takes out the answers for a pod whose node affinity, or tolerations, are heeded; they are to be put back.
    pub fn take(&mut self, pod: &Pod, affinity: bool, taints: bool) -> Answers {
        if let Some(at) = self.0.iter().position(|a| a.are_for(pod, affinity, taints)) {
            return self.0.remove(at);
        }
        Answers {
            affinity: affinity.then(|| (pod.node_selector.clone(), pod.node_affinity.clone())),
            tolerations: taints.then(|| pod.tolerations.clone()),
            nodes: Vec::new(),
        }
    }

    /// Puts answers back.
    pub fn keep(&mut self, answers: Answers) {
        if self.0.len() >= MAX_KINDS {
            self.0.remove(0);
        }
        self.0.push(answers);
    }

    /// A node is not what it was.
    pub(super) fn changed(&mut self, node: NodeId) {
        for answers in &mut self.0 {
            if let Some(answer) = answers.nodes.get_mut(node) {
                *answer = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_by_what_is_asked_until_the_node_changes() {
        let mut all = Eligible::default();
        let plain = Pod::default();
        let picky = Pod { node_selector: [("a".to_owned(), "b".to_owned())].into(), ..Pod::default() };
        let mut ask = |pod: &Pod, (affinity, taints): (bool, bool), node, now: bool| {
            let mut answers = all.take(pod, affinity, taints);
            let answer = answers.of(node, || now);
            all.keep(answers);
            answer
        };
        assert!(ask(&plain, (true, false), 3, true));
        assert!(ask(&plain, (true, false), 3, false), "it is known");
        assert!(!ask(&plain, (true, false), 2, false), "another node");
        assert!(!ask(&picky, (true, false), 3, false), "another question");
        assert!(!ask(&plain, (true, true), 3, false), "more is heeded");
        all.changed(3);
        let mut answers = all.take(&plain, true, false);
        assert!(!answers.of(3, || false) && !answers.of(2, || true));
        for i in 0..2 * MAX_KINDS {
            all.keep(all_of(i));
        }
        assert_eq!(all.0.len(), MAX_KINDS);
    }

    fn all_of(i: usize) -> Answers {
        Answers { affinity: Some(([("i".to_owned(), i.to_string())].into(), None)), ..Answers::default() }
    }
}

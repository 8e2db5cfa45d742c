//! Which pods belong to which pod group, and which of them have a node.

use std::collections::{BTreeSet, HashMap};

use crate::model::Pod;

/// A group's pods, by uid.
#[derive(Debug, Default)]
struct Group {
    /// All that have not ended.
    members: BTreeSet<String>,
    /// Those that have a node, be it assumed.
    placed: BTreeSet<String>,
}

/// The groups, by `namespace/name`. A group is known by its pods: its object is kept with the other objects.
#[derive(Debug, Default)]
pub struct Groups(HashMap<String, Group>);

impl Groups {
    /// A pod is there.
    pub fn join(&mut self, pod: &Pod) {
        if let Some(key) = &pod.group {
            let group = self.0.entry(key.clone()).or_default();
            if !group.members.contains(&pod.uid) {
                group.members.insert(pod.uid.clone());
            }
        }
    }

    /// A pod is gone or has ended.
    pub fn leave(&mut self, pod: &Pod) {
        self.change(pod, |g| g.members.remove(&pod.uid));
    }

    /// A pod has a node.
    pub(super) fn placed(&mut self, pod: &Pod) {
        if let Some(key) = &pod.group {
            self.0.entry(key.clone()).or_default().placed.insert(pod.uid.clone());
        }
    }

    /// A pod has no node any more.
    pub(super) fn unplaced(&mut self, pod: &Pod) {
        self.change(pod, |g| g.placed.remove(&pod.uid));
    }

    fn change(&mut self, pod: &Pod, change: impl FnOnce(&mut Group) -> bool) {
        let Some((key, group)) = pod.group.as_ref().and_then(|key| Some((key, self.0.get_mut(key)?))) else { return };
        change(group);
        if group.members.is_empty() && group.placed.is_empty() {
            self.0.remove(key);
        }
    }

    /// How many pods a group has.
    #[must_use]
    pub fn size(&self, key: &str) -> usize {
        self.0.get(key).map_or(0, |g| g.members.len())
    }

    /// How many pods of a group have a node.
    #[must_use]
    pub fn scheduled(&self, key: &str) -> usize {
        self.0.get(key).map_or(0, |g| g.placed.len())
    }

    /// A group's pods without a node.
    pub fn without_node(&self, key: &str) -> impl Iterator<Item = &String> {
        self.0.get(key).into_iter().flat_map(|g| g.members.difference(&g.placed))
    }
}

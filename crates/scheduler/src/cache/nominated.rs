//! Pods that were promised a node and wait for its room: filters count them as if they were there.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Pod;

/// Nominated pods.
#[derive(Debug, Default)]
pub struct Nominated {
    by_node: HashMap<String, Vec<Arc<Pod>>>,
    of: HashMap<String, String>,
}

impl Nominated {
    /// Notes that a pod is nominated to a node; an empty name takes its nomination back.
    pub fn set(&mut self, pod: &Arc<Pod>, node: &str) {
        self.remove(&pod.uid);
        if !node.is_empty() {
            self.by_node.entry(node.to_owned()).or_default().push(pod.clone());
            self.of.insert(pod.uid.clone(), node.to_owned());
        }
    }

    /// Takes a nomination back.
    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.of.remove(uid) else { return };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|p| p.uid != uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// Pods nominated to a node.
    #[must_use]
    pub fn on(&self, node: &str) -> &[Arc<Pod>] {
        if self.by_node.is_empty() {
            return &[];
        }
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether no pod was promised anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The node a pod is nominated to.
    #[must_use]
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.of.get(uid).map(String::as_str)
    }
}

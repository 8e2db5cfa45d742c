//! The scheduling framework: plugins and the points at which they have a say.
//!
//! A plugin's own state for one pod is what its `pre_filter` or `pre_score` returned; the framework keeps it and hands it
//! back, so that no plugin looks anything up by name while nodes are tried.

pub mod diagnosis;
pub mod extender;
pub mod points;
pub mod preemption;
pub mod profile;
mod table;

use std::any::Any;
use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use crate::cache::objects::ObjectChange;
use crate::cache::{Cache, NodeId};
use crate::model::{Node, NodeInfo, Pod};
pub use diagnosis::Diagnosis;

/// Highest score a plugin gives before its weight.
pub const MAX_SCORE: i64 = 100;

/// A plugin's state for one pod.
pub type State = Option<Box<dyn Any + Send + Sync>>;

/// Reads a plugin's state as the type it stored.
#[must_use]
pub fn state_as<T: 'static>(state: &State) -> Option<&T> {
    state.as_ref().and_then(|s| s.downcast_ref())
}

/// A plugin's state as the type it stored, to be changed.
#[must_use]
pub fn state_as_mut<T: 'static>(state: &mut State) -> Option<&mut T> {
    state.as_mut().and_then(|s| s.downcast_mut())
}

/// A reason in upstream's words.
pub type Reason = Cow<'static, str>;

/// Why a pod cannot go somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// In upstream's words, such as `Insufficient cpu`; several when several things are missing.
    pub reasons: SmallVec<[Reason; 1]>,
    /// Whether removing other pods could never help.
    pub unresolvable: bool,
}

impl Rejection {
    /// One that the removal of other pods might mend.
    #[must_use]
    pub fn new(reason: impl Into<Reason>) -> Self {
        Self { reasons: smallvec![reason.into()], unresolvable: false }
    }

    /// One that the removal of other pods cannot mend.
    #[must_use]
    pub fn unresolvable(reason: impl Into<Reason>) -> Self {
        Self { reasons: smallvec![reason.into()], unresolvable: true }
    }

    /// All reasons in one line.
    #[must_use]
    pub fn text(&self) -> String {
        self.reasons.join(", ")
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

impl PreFilter {
    /// `filter` is not needed.
    #[must_use]
    pub fn skip() -> Self {
        Self { skip: true, ..Self::default() }
    }

    /// `filter` is needed, with this state.
    #[must_use]
    pub fn with<T: Any + Send + Sync>(state: T) -> Self {
        Self { state: Some(Box::new(state)), ..Self::default() }
    }
}

/// Something that happened in the cluster and may let a waiting pod be placed.
#[derive(Clone, Copy, Debug)]
pub enum ClusterEvent<'a> {
    /// A node appeared.
    NodeAdded(&'a Node),
    /// A node changed from the first to the second.
    NodeUpdated(&'a Node, &'a Node),
    /// A node is gone.
    NodeGone(&'a Node),
    /// A pod that had a node is gone or has ended.
    PodGone(&'a Pod),
    /// A pod of a group appeared that waits for a node.
    PodAdded(&'a Pod),
    /// A pod got a node.
    PodAssigned(&'a Pod),
    /// A pod that has a node changed its labels or what it asks for.
    PodUpdated(&'a Pod, &'a Pod),
    /// Another object appeared, changed or is gone.
    Object(&'a ObjectChange),
}

impl ClusterEvent<'_> {
    /// Upstream's name of it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NodeAdded(_) => "NodeAdd",
            Self::NodeUpdated(..) => "NodeUpdate",
            Self::NodeGone(_) => "NodeDelete",
            Self::PodGone(_) => "AssignedPodDelete",
            Self::PodAdded(_) => "UnscheduledPodAdd",
            Self::PodAssigned(_) => "AssignedPodAdd",
            Self::PodUpdated(..) => "AssignedPodUpdate",
            Self::Object(change) => change.event_name(),
        }
    }
}

/// Something to be written before a pod is bound.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A volume is meant for a claim.
    BindVolume {
        /// Name of the volume.
        volume: String,
        /// Namespace of the claim.
        namespace: String,
        /// Name of the claim.
        claim: String,
        /// Uid of the claim.
        uid: String,
        /// The volume's resourceVersion, so that nobody else's write is lost.
        resource_version: String,
    },
    /// A volume is to be made for a claim, for use from a node.
    SelectNode {
        /// Namespace of the claim.
        namespace: String,
        /// Name of the claim.
        claim: String,
        /// The claim's resourceVersion.
        resource_version: String,
        /// The node.
        node: String,
    },
    /// A resource claim gets devices, or one more consumer.
    GiveDevices {
        /// Namespace of the claim.
        namespace: String,
        /// Name of the claim.
        claim: String,
        /// The claim's resourceVersion.
        resource_version: String,
        /// All its finalizers, when one is missing.
        finalizers: Option<Vec<String>>,
        /// What it gets, when it has nothing yet.
        allocation: Option<serde_json::Value>,
        /// All its consumers.
        reserved_for: Vec<serde_json::Value>,
    },
    /// A resource claim gives its devices back.
    TakeDevices {
        /// Namespace of the claim.
        namespace: String,
        /// Name of the claim.
        claim: String,
        /// The claim's resourceVersion.
        resource_version: String,
    },
    /// The pod must wait until these claims are bound.
    AwaitClaims {
        /// Namespace of the claims.
        namespace: String,
        /// Names of the claims.
        claims: Vec<String>,
        /// For so long.
        seconds: u64,
    },
}

/// What a plugin says to a pod that has its node and is about to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may be bound.
    Allow,
    /// It waits until the plugin allows it.
    Wait {
        /// For so long at most.
        milliseconds: u64,
        /// Pods without a node, by uid, that are to be tried at once because they may end the wait.
        activate: Vec<String>,
    },
}

/// A scheduling plugin. Every point but the name has a default that does nothing.
pub trait Plugin: Send + Sync {
    /// Upstream's name of it.
    fn name(&self) -> &'static str;

    /// Before a pod may enter the queue.
    ///
    /// # Errors
    /// Why it must wait.
    fn pre_enqueue(&self, _pod: &Pod, _cache: &Cache) -> Result<(), Rejection> {
        Ok(())
    }

    /// Once for a pod, before nodes are tried.
    ///
    /// # Errors
    /// Why no node can take it.
    fn pre_filter(&self, _pod: &Pod, _cache: &mut Cache) -> Result<PreFilter, Rejection> {
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
    fn filter(
        &self,
        _state: &State,
        _pod: &Pod,
        _node: &Node,
        _info: &NodeInfo,
        _cache: &Cache,
    ) -> Result<(), Rejection> {
        Ok(())
    }

    /// `other` is supposed to have come to a node (`added`) or to have left it: the state is to follow. Done backwards it
    /// is undone.
    fn suppose(&self, _state: &mut State, _pod: &Pod, _other: &Pod, _info: &NodeInfo, _added: bool, _cache: &Cache) {}

    /// Whether what its `filter` says of a pod depends on nothing but the node and the pods on it.
    fn filters_locally(&self) -> bool {
        false
    }

    /// Whether its score of a node depends on nothing but the node, the pods on it and the set of nodes, and is not
    /// normalised.
    fn scores_locally(&self) -> bool {
        false
    }

    /// Whether it scores nodes; a weight above 0 in its profile is needed too.
    fn scores(&self) -> bool {
        false
    }

    /// Once for a pod, before the feasible nodes are scored: `None` when it has nothing to say about this pod.
    fn pre_score(&self, _pod: &Pod, _feasible: &[NodeId], _cache: &mut Cache) -> Option<State> {
        Some(None)
    }

    /// How good a node is, in the plugin's own measure.
    fn score(&self, _state: &State, _pod: &Pod, _node: &Node, _info: &NodeInfo, _cache: &Cache) -> i64 {
        0
    }

    /// Brings the scores of all nodes to 0..=[`MAX_SCORE`].
    fn normalize(&self, _state: &State, _scores: &mut [i64]) {}

    /// The node is chosen: takes what the pod needs of it besides the node's own resources, and says what is to be
    /// written before the pod is bound.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn reserve(&self, _pod: &Pod, _node: &Node, _cache: &mut Cache) -> Result<Vec<Action>, Rejection> {
        Ok(Vec::new())
    }

    /// Gives back what `reserve` took.
    fn unreserve(&self, _pod: &Pod, _cache: &mut Cache) {}

    /// The pod has its node, which counts it already: may it be bound?
    ///
    /// # Errors
    /// Why it may not.
    fn permit(&self, _pod: &Pod, _node: &str, _cache: &Cache) -> Result<Permission, Rejection> {
        Ok(Permission::Allow)
    }

    /// Whether a pod that waits for this plugin's permission has it now that it has allowed another one.
    fn allows_too(&self, _allowed: &Pod, _waiting: &Pod) -> bool {
        false
    }

    /// No node takes the pod: what it holds may be what keeps it from all of them. What is to be written for it to be
    /// given back.
    fn give_back(&self, _pod: &Pod, _diagnosis: &Diagnosis, _cache: &Cache) -> Option<Action> {
        None
    }

    /// Whether what happened may let a pod be placed that this plugin rejected.
    fn hint(&self, event: ClusterEvent<'_>, pod: &Pod, cache: &Cache) -> bool;
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

#[cfg(test)]
mod tests {
    use super::*;

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

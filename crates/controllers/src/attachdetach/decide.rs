//! Where a volume is to be attached: pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use sha2::{Digest, Sha256};

use crate::support::nodes::OUT_OF_SERVICE;

/// A pod that uses the volume, and its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub pod: String,
    pub node: String,
}

/// An attachment there is.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub name: String,
    pub node: String,
    pub deleting: bool,
}

/// A node as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeState {
    /// Whether attaching to it is left to this controller.
    pub managed: bool,
    /// Whether it still has the volume mounted.
    pub holds: bool,
    /// Whether it is known to be off, or is no more: what it holds does not count.
    pub out_of_service: bool,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Attach to this node.
    Attach(String),
    /// It is attached to this node, and used there.
    Keep(String),
    /// Detach; a node that still holds it is given time.
    Detach { attachment: String, node: String, held: bool },
    /// A pod cannot have it while others do.
    Refuse { pod: String, others: Vec<String> },
}

/// Name of an attachment.
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    let digest = Sha256::new().chain_update(handle).chain_update(driver).chain_update(node).finalize();
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    format!("csi-{hex}")
}

/// Name of a volume in a node's status.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// Whether attaching to a node is left to this controller.
pub fn is_managed(node: &Node) -> bool {
    let annotations = node.metadata.annotations.as_ref();
    annotations
        .and_then(|a| a.get("volumes.kubernetes.io/controller-managed-attach-detach"))
        .is_some_and(|v| v == "true")
}

/// Whether a node has a volume mounted.
pub fn holds(node: &Node, unique: &str) -> bool {
    node.status.iter().flat_map(|s| s.volumes_in_use.iter().flatten()).any(|v| v == unique)
}

/// Whether a node is known to be off.
pub fn is_out_of_service(node: &Node) -> bool {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).any(|t| t.key == OUT_OF_SERVICE)
}

/// Whether a volume with these access modes may be on one node only.
pub fn on_one_node(modes: &[String]) -> bool {
    !modes.iter().any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany")
}

/// What is to be done.
pub fn steps(
    uses: &[Use],
    attachments: &[Attachment],
    on_one_node: bool,
    state: &impl Fn(&str) -> NodeState,
) -> Vec<Step> {
    let wanted: BTreeSet<&str> = uses.iter().map(|u| u.node.as_str()).filter(|n| state(n).managed).collect();
    let mut steps = Vec::new();
    let mut attached: BTreeSet<&str> = attachments.iter().map(|a| a.node.as_str()).collect();
    for a in attachments.iter().filter(|a| !a.deleting) {
        if wanted.contains(a.node.as_str()) {
            steps.push(Step::Keep(a.node.clone()));
        } else {
            let s = state(&a.node);
            let held = s.holds && !s.out_of_service;
            steps.push(Step::Detach { attachment: a.name.clone(), node: a.node.clone(), held });
        }
    }
    for node in wanted {
        if attached.contains(node) {
            continue;
        }
        if on_one_node && !attached.is_empty() {
            let others: Vec<String> =
                uses.iter().filter(|u| attached.contains(u.node.as_str())).map(|u| u.pod.clone()).collect();
            let refused = uses.iter().filter(|u| u.node == node);
            steps.extend(refused.map(|u| Step::Refuse { pod: u.pod.clone(), others: others.clone() }));
            continue;
        }
        attached.insert(node);
        steps.push(Step::Attach(node.to_owned()));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uses: &[(&str, &str)], attached: &[&str], one: bool, holds: &[&str], want: &[Step]) {
        let uses: Vec<Use> = uses.iter().map(|(p, n)| Use { pod: (*p).into(), node: (*n).into() }).collect();
        let attachments: Vec<Attachment> = attached
            .iter()
            .map(|n| Attachment { name: format!("a-{n}"), node: (*n).into(), deleting: false })
            .collect();
        let state =
            |n: &str| NodeState { managed: n != "unmanaged", holds: holds.contains(&n), out_of_service: n == "off" };
        assert_eq!(steps(&uses, &attachments, one, &state), want, "{uses:?} {attached:?}");
    }

    #[test]
    fn where_it_goes() {
        let attach = |n: &str| Step::Attach(n.into());
        let keep = |n: &str| Step::Keep(n.into());
        let detach = |n: &str, held| Step::Detach { attachment: format!("a-{n}"), node: n.into(), held };
        check(&[("n/p", "a")], &[], true, &[], &[attach("a")]);
        check(&[("n/p", "unmanaged")], &[], true, &[], &[]);
        check(&[("n/p", "a")], &["a"], true, &[], &[keep("a")]);
        check(&[], &["a"], true, &[], &[detach("a", false)]);
        check(&[], &["a"], true, &["a"], &[detach("a", true)]);
        check(&[], &["off"], true, &["off"], &[detach("off", false)]);
        check(&[("n/p", "a"), ("n/q", "b")], &[], false, &[], &[attach("a"), attach("b")]);
        let refuse = Step::Refuse { pod: "n/q".into(), others: vec!["n/p".into()] };
        check(&[("n/p", "a"), ("n/q", "b")], &["a"], true, &[], &[keep("a"), refuse]);
        // It is not attached anew before it is detached where it was.
        let refuse = Step::Refuse { pod: "n/q".into(), others: vec![] };
        check(&[("n/q", "b")], &["a"], true, &["a"], &[detach("a", true), refuse]);
    }

    #[test]
    fn names() {
        assert_eq!(unique_name("d", "h"), "kubernetes.io/csi/d^h");
        let name = attachment_name("d", "h", "n");
        assert!(name.starts_with("csi-") && name.len() == 68, "{name}");
    }
}

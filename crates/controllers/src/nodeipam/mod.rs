//! Node IPAM: gives each node a part of the pod address ranges.

mod ranges;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node as TypedNode;
use parking_lot::Mutex;
use pintle_client::informers::View;
use pintle_client::recorder::reference;
use pintle_client::typed::resource_of;
use pintle_client::{Key, Patch};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::support::nodes::{self, Node};

pub use ranges::{Cidr, Ranges};

/// One at a time: an allocation must see those before it.
const WORKERS: usize = 1;

struct Controller {
    cx: Context,
    nodes: View<Node>,
    ranges: Mutex<Vec<Ranges>>,
    /// Uids of nodes that were given their parts, until the cache shows that.
    given: Mutex<HashMap<Key, String>>,
}

/// The controller; without ranges to give it does nothing.
pub async fn run(cx: Context) {
    let (v4, v6) = cx.config.node_cidr_mask;
    let mut all = Vec::new();
    for text in &cx.config.cluster_cidrs {
        match Ranges::new(text, v4, v6) {
            Ok(r) => all.push(r),
            Err(error) => {
                tracing::error!(range = %text, %error, "no pod addresses are given to nodes");
                return;
            }
        }
    }
    if all.is_empty() {
        return;
    }
    for text in &cx.config.service_cidrs {
        if let Ok(cidr) = text.parse::<Cidr>() {
            all.iter_mut().for_each(|r| r.occupy(&cidr));
        }
    }
    let queue = cx.queue("cidrallocator_node");
    let me = Arc::new(Controller {
        nodes: nodes::view(&cx.informers),
        ranges: Mutex::new(all),
        given: Mutex::default(),
        cx: cx.clone(),
    });
    let q = queue.clone();
    // What nodes have is taken note of as their events come, so before the first of them is given anything.
    listen(&me.nodes, &me, move |me, change| {
        let cidrs = |n: &Node| n.spec.pod_cidrs.iter().filter_map(|c| c.parse().ok()).collect::<Vec<Cidr>>();
        if change.now().is_none_or(|n| !n.spec.pod_cidrs.is_empty()) {
            me.given.lock().remove(change.key());
        }
        let mut ranges = me.ranges.lock();
        match change.now() {
            None => cidrs(change.last()).iter().for_each(|c| ranges.iter_mut().for_each(|r| r.release(c))),
            Some(n) if n.spec.pod_cidrs.is_empty() => q.add(change.key().clone()),
            Some(n) => cidrs(n).iter().for_each(|c| ranges.iter_mut().for_each(|r| r.occupy(c))),
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    async fn sync(&self, name: &Key) -> Outcome {
        let Some(node) = self.nodes.get(name).filter(|n| n.spec.pod_cidrs.is_empty()) else { return Ok(None) };
        if self.given.lock().get(name) == Some(&node.metadata.uid) {
            // The cache is behind our own write; the node must not be given a second part.
            return Ok(None);
        }
        let given: Option<Vec<Cidr>> = {
            let mut ranges = self.ranges.lock();
            let given: Vec<Option<Cidr>> = ranges.iter_mut().map(Ranges::take).collect();
            if given.iter().any(Option::is_none) {
                for (r, c) in ranges.iter_mut().zip(&given) {
                    c.iter().for_each(|c| r.release(c));
                }
            }
            given.into_iter().collect()
        };
        let about = reference(resource_of::<TypedNode>(), &node.metadata);
        let Some(given) = given else {
            self.cx.recorder.normal(&about, "CIDRNotAvailable", format!("Node {name} status is now: CIDRNotAvailable"));
            return Err(pintle_client::Error::Config(
                "CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range".into(),
            ));
        };
        let texts: Vec<String> = given.iter().map(ToString::to_string).collect();
        let patch = Patch::strategic(&json!({"spec": {"podCIDR": texts[0], "podCIDRs": texts}}))?;
        match self.cx.client.of::<TypedNode>().patch("", name, patch).await {
            Ok(_) => {
                self.given.lock().insert(name.clone(), node.metadata.uid.clone());
                // Should the event have come before this, nothing is left to wait for.
                if self.nodes.get(name).is_none_or(|n| !n.spec.pod_cidrs.is_empty()) {
                    self.given.lock().remove(name);
                }
                Ok(None)
            }
            // The server may have taken it all the same; then the node's event says so, and nothing is given twice.
            Err(e) if e.is_timeout() || e.status().is_none() => Err(e),
            Err(e) => {
                let mut ranges = self.ranges.lock();
                for (r, c) in ranges.iter_mut().zip(&given) {
                    r.release(c);
                }
                drop(ranges);
                if e.is_not_found() {
                    return Ok(None);
                }
                self.cx.recorder.normal(
                    &about,
                    "CIDRAssignmentFailed",
                    format!("Node {name} status is now: CIDRAssignmentFailed"),
                );
                Err(e)
            }
        }
    }
}

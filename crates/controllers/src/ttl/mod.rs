//! TTL: tells kubelets how long they may use Secrets and ConfigMaps without asking again, the longer the more nodes
//! there are.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node as TypedNode;
use parking_lot::Mutex;
use pintle_client::informers::View;
use pintle_client::{Key, Patch, UnlessGone};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::support::nodes::{self, Node};

const WORKERS: usize = 1;
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// From so many nodes to so many, so many seconds. The steps overlap, so that a node more or less changes nothing.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

struct Controller {
    cx: Context,
    nodes: View<Node>,
    step: Mutex<usize>,
}

/// The step for so many nodes, coming from another.
fn step(mut at: usize, count: usize) -> usize {
    while count > STEPS[at].1 {
        at += 1;
    }
    while count < STEPS[at].0 {
        at -= 1;
    }
    at
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("ttlcontroller");
    let me = Arc::new(Controller { nodes: nodes::view(&cx.informers), step: Mutex::new(0), cx: cx.clone() });
    let q = queue.clone();
    listen(&me.nodes, &me, move |me, change| {
        let mut at = me.step.lock();
        let new = step(*at, me.nodes.len());
        if new != *at {
            *at = new;
            me.nodes.keys().into_iter().for_each(|k| q.add(k));
        }
        if let Some(now) = change.now()
            && change
                .before()
                .is_none_or(|b| b.metadata.annotations.get(ANNOTATION) != now.metadata.annotations.get(ANNOTATION))
        {
            q.add(change.key().clone());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    async fn sync(&self, name: &Key) -> Outcome {
        let Some(node) = self.nodes.get(name) else { return Ok(None) };
        let want = STEPS[*self.step.lock()].2.to_string();
        if node.metadata.annotations.get(ANNOTATION) == Some(&want) {
            return Ok(None);
        }
        let patch = Patch::strategic(&json!({"metadata": {"annotations": {ANNOTATION: want}}}))?;
        self.cx.client.of::<TypedNode>().patch("", name, patch).await.unless_gone().map(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        for (from, count, want) in
            [(0, 0, 0), (0, 100, 0), (0, 101, 1), (1, 95, 1), (1, 89, 0), (0, 5000, 4), (4, 1799, 3), (4, 1, 0)]
        {
            assert_eq!(step(from, count), want, "{from} {count}");
        }
    }
}

//! Taint eviction: pods go from nodes whose `NoExecute` taints they do not bear, or not for longer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as TypedPod;
use parking_lot::Mutex;
use pintle_client::clock::since;
use pintle_client::informers::View;
use pintle_client::recorder::reference;
use pintle_client::typed::resource_of;
use pintle_client::{Cache, Key, Patch, UnlessGone, WorkQueue};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::support::nodes::{self, Node, Taint, tolerates};
use crate::support::pods::{self, BY_NODE, Pod};

const WORKERS: usize = 8;

struct Controller {
    cx: Context,
    nodes: View<Node>,
    pods: Cache<Pod>,
    /// Pods whose eviction was announced.
    marked: Mutex<HashSet<Key>>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        nodes: nodes::view(&cx.informers),
        pods: pods::view(&cx.informers),
        marked: Mutex::default(),
        queue: cx.queue("noexec_taint_node"),
        cx,
    });
    listen(&me.nodes, &me, |me, change| {
        let taints = |n: Option<&Arc<Node>>| n.map(|n| evicting(n)).unwrap_or_default();
        if taints(change.before()) != taints(change.now()) {
            me.pods.index_keys(BY_NODE, change.key()).into_iter().for_each(|k| me.queue.add(k));
        }
    });
    listen(&me.pods, &me, |me, change| {
        let moved = change.before().zip(change.now()).is_none_or(|(a, b)| {
            a.spec.node_name != b.spec.node_name
                || a.spec.tolerations != b.spec.tolerations
                || a.metadata.uid != b.metadata.uid
        });
        let tainted = me.nodes.get(&change.last().spec.node_name).is_some_and(|n| !evicting(&n).is_empty());
        if moved && (tainted || me.marked.lock().contains(change.key())) {
            me.queue.add(change.key().clone());
        }
    });
    let (cx, queue) = (me.cx.clone(), me.queue.clone());
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

fn evicting(node: &Node) -> Vec<Taint> {
    node.spec.taints.iter().filter(|t| t.effect == "NoExecute").cloned().collect()
}

/// What is to be done with a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    GoesIn(Duration),
}

/// A pod bears a taint for as long as the shortest of its tolerations of it says, from when the taint and the pod
/// were both there.
fn judge(pod: &Pod, taints: &[Taint], now: Timestamp) -> Verdict {
    let mut verdict = Verdict::Stays;
    for taint in taints {
        let bearing: Vec<_> = pod.spec.tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if bearing.is_empty() {
            return Verdict::GoesIn(Duration::ZERO);
        }
        let Some(seconds) = bearing.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        let from = [taint.time_added, pod.metadata.creation_timestamp].into_iter().flatten().max().unwrap_or(now);
        let left = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).saturating_sub(since(from, now));
        verdict = match verdict {
            Verdict::GoesIn(d) => Verdict::GoesIn(d.min(left)),
            Verdict::Stays => Verdict::GoesIn(left),
        };
    }
    verdict
}

impl Controller {
    async fn sync(&self, key: &Key) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|p| !p.is_deleting()) else {
            self.marked.lock().remove(key);
            return Ok(None);
        };
        let taints = self.nodes.get(&pod.spec.node_name).map(|n| evicting(&n)).unwrap_or_default();
        let about = reference(resource_of::<TypedPod>(), &pod.metadata);
        let left = match judge(&pod, &taints, self.cx.clock.now()) {
            Verdict::Stays => {
                if self.marked.lock().remove(key) {
                    self.cx.recorder.normal(
                        &about,
                        "TaintManagerEviction",
                        format!("Cancelling deletion of Pod {key}"),
                    );
                }
                return Ok(None);
            }
            Verdict::GoesIn(left) => left,
        };
        if !left.is_zero() {
            self.marked.lock().insert(key.clone());
            return Ok(Some(left));
        }
        self.cx.recorder.normal(&about, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
        self.evict(&pod).await
    }

    async fn evict(&self, pod: &Pod) -> Outcome {
        let m = &pod.metadata;
        let api = self.cx.client.of::<TypedPod>();
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": pintle_api::time::format(self.cx.clock.now())});
        let patch = Patch::strategic(&json!({"metadata": {"uid": m.uid}, "status": {"conditions": [condition]}}))?;
        let marked = api.patch_status(&m.namespace, &m.name, patch).await;
        let done = match marked {
            Ok(_) => api.delete(&m.namespace, &m.name, Some(&m.uid)).await,
            Err(e) => Err(e),
        };
        done.unless_gone().map(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let now: Timestamp = "2024-01-01T00:10:00Z".parse().unwrap();
        let taint = |key: &str| Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some("2024-01-01T00:09:00Z".parse().unwrap()),
            ..Taint::default()
        };
        let s = Duration::from_secs;
        for (tolerations, taints, created, want) in [
            (json!([]), &["a"][..], "00:00:00", Verdict::GoesIn(s(0))),
            (json!([]), &[], "00:00:00", Verdict::Stays),
            (json!([{"operator": "Exists"}]), &["a", "b"], "00:00:00", Verdict::Stays),
            (
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}]),
                &["a"],
                "00:00:00",
                Verdict::GoesIn(s(240)),
            ),
            (
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}]),
                &["a"],
                "00:09:30",
                Verdict::GoesIn(s(270)),
            ),
            (
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 30}]),
                &["a"],
                "00:00:00",
                Verdict::GoesIn(s(0)),
            ),
            (
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}]),
                &["a", "b"],
                "00:00:00",
                Verdict::GoesIn(s(0)),
            ),
            (
                json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]),
                &["a"],
                "00:00:00",
                Verdict::GoesIn(s(0)),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"creationTimestamp": format!("2024-01-01T{created}Z")}, "spec": {"tolerations": tolerations}})).unwrap();
            let taints: Vec<Taint> = taints.iter().map(|k| taint(k)).collect();
            assert_eq!(judge(&pod, &taints, now), want, "{tolerations}");
        }
    }
}

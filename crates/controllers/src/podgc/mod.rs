//! Pod garbage collector: pods whose node is gone, pods that were deleted before they had a node, and ended pods
//! beyond a number.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod as TypedPod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use pintle_client::informers::View;
use pintle_client::{Cache, Key, Patch, UnlessGone, WorkQueue};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::support::nodes::{self, OUT_OF_SERVICE};
use crate::support::pods::{self, BY_NODE, Pod};

const WORKERS: usize = 5;
/// How long a node must be gone: it may only be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How long pods that may have to go are left alone, as upstream looks once in so long.
const PERIOD: Duration = Duration::from_secs(20);
/// Key of the count of ended pods; no node is called so.
const ENDED: &str = "\0ended";

struct Controller {
    cx: Context,
    pods: Cache<Pod>,
    nodes: View<nodes::Node>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        pods: pods::view(&cx.informers),
        nodes: nodes::view(&cx.informers),
        queue: cx.queue("pod_gc"),
        cx,
    });
    listen(&me.nodes, &me, |me, change| match change.now() {
        None => me.queue.add_after(change.key().clone(), QUARANTINE),
        Some(n) if n.has_taint(OUT_OF_SERVICE) => me.queue.add(change.key().clone()),
        Some(_) => {}
    });
    listen(&me.pods, &me, |me, change| {
        if let Some(pod) = change.now() {
            me.pod_changed(change.key(), pod);
        }
    });
    let (cx, queue) = (me.cx.clone(), me.queue.clone());
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    fn pod_changed(&self, key: &Key, pod: &Pod) {
        let node = &pod.spec.node_name;
        if node.is_empty() {
            if pod.is_deleting() {
                // Most are gone at once; those that are not are looked at as often as upstream looks.
                self.queue.add_after(key.clone(), PERIOD);
            }
        } else {
            match self.nodes.get(node) {
                None => self.queue.add_after(node.as_str().into(), QUARANTINE),
                Some(n) if pod.is_deleting() && n.has_taint(OUT_OF_SERVICE) => self.queue.add(node.as_str().into()),
                Some(_) => {}
            }
        }
        if pod.is_terminal() && self.cx.config.terminated_pods > 0 {
            // Counted now and then, not at every pod.
            self.queue.add_after(ENDED.into(), PERIOD);
        }
    }

    async fn sync(&self, key: &Key) -> Outcome {
        if &**key == ENDED {
            return self.ended().await;
        }
        if key.contains('/') {
            if let Some(pod) = self.pods.get(key).filter(|p| p.is_deleting() && p.spec.node_name.is_empty()) {
                self.delete(&pod, None).await?;
            }
            return Ok(None);
        }
        let pods = self.pods.by_index(BY_NODE, key);
        if let Some(node) = self.nodes.get(key) {
            if node.has_taint(OUT_OF_SERVICE) && !node.is_ready() {
                for pod in pods.iter().filter(|p| p.is_deleting()) {
                    self.delete(pod, None).await?;
                }
            }
            return Ok(None);
        }
        // The cache may be behind: ask.
        if pods.is_empty() || self.cx.client.of::<Node>().get_opt("", key).await?.is_some() {
            return Ok(None);
        }
        for pod in &pods {
            self.delete(pod, Some("PodGC: node no longer exists")).await?;
        }
        Ok(None)
    }

    async fn ended(&self) -> Outcome {
        let mut ended: Vec<Arc<Pod>> =
            self.pods.list().into_iter().filter(|p| p.is_terminal() && !p.is_deleting()).collect();
        let excess = ended.len().saturating_sub(self.cx.config.terminated_pods);
        if excess > 0 {
            ended.sort_by(|a, b| {
                a.metadata
                    .creation_timestamp
                    .cmp(&b.metadata.creation_timestamp)
                    .then_with(|| a.metadata.name.cmp(&b.metadata.name))
            });
            for pod in &ended[..excess] {
                self.delete(pod, None).await?;
            }
        }
        Ok(None)
    }

    /// Deletes at once: there is no kubelet to wait for. A pod that has not ended is marked failed first, so that
    /// whoever counts its end sees one.
    async fn delete(&self, pod: &Pod, disruption: Option<&str>) -> Result<(), pintle_client::Error> {
        let api = self.cx.client.of::<TypedPod>();
        let m = &pod.metadata;
        if !pod.is_terminal() {
            let mut status = json!({"phase": "Failed"});
            if let Some(message) = disruption {
                let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                    "lastTransitionTime": pintle_api::time::format(self.cx.clock.now())});
                status["conditions"] = json!([condition]);
            }
            match api
                .patch_status(
                    &m.namespace,
                    &m.name,
                    Patch::strategic(&json!({"metadata": {"uid": m.uid}, "status": status}))?,
                )
                .await
            {
                Err(e) if e.is_not_found() => return Ok(()),
                other => drop(other?),
            }
        }
        let preconditions = Some(Preconditions { uid: Some(m.uid.clone()), ..Preconditions::default() });
        let options = DeleteOptions { grace_period_seconds: Some(0), preconditions, ..DeleteOptions::default() };
        api.delete_with(&m.namespace, &m.name, &options).await.unless_gone().map(drop)
    }
}

//! Node lifecycle: nodes that fall silent are marked unknown, conditions become taints, and taints that evict are
//! added no faster than a failing zone allows.

mod decide;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node as TypedNode, Pod as TypedPod};
use parking_lot::Mutex;
use pintle_api::Object;
use pintle_api::metrics::{Family, Kind, Stability};
use pintle_client::informers::View;
use pintle_client::recorder::{reference, reference_to};
use pintle_client::typed::resource_of;
use pintle_client::{Cache, Error, Informer, Key, Patch, Scope, WorkQueue};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::{Context, Outcome, listen};
use crate::support::nodes::{self, Node, Taint};
use crate::support::pods::{self, BY_NODE, Pod};
use crate::support::status;

use zones::Zones;

const WORKERS: usize = 8;

static EVICTIONS: Family = Family::new(
    "node_collector_evictions_total",
    Kind::Counter,
    Stability::Stable,
    &["zone"],
    "Number of Node evictions that happened since current instance of NodeController started.",
);
const LEASES: &str = "kube-node-lease";
/// A node that just registered may take this long to speak.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// When a node was last heard of, by our own clock: theirs may differ.
#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    /// Whether it ever posted its status.
    ever: bool,
}

struct Controller {
    cx: Context,
    informer: Informer,
    nodes: View<Node>,
    pods: Cache<Pod>,
    heard: Mutex<HashMap<Key, Heard>>,
    zones: Mutex<Zones>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let leases = cx.informers.scoped(resource_of::<Lease>(), &Scope { namespace: LEASES.into(), ..Scope::default() });
    let me = Arc::new(Controller {
        informer: cx.informers.of::<TypedNode>(),
        nodes: nodes::view(&cx.informers),
        pods: pods::view(&cx.informers),
        heard: Mutex::default(),
        zones: Mutex::new(Zones::new(cx.config.node_eviction_rate)),
        queue: cx.queue("node_lifecycle_controller"),
        cx,
    });
    listen(&me.nodes, &me, |me, change| {
        let key = change.key();
        let Some(new) = change.now() else {
            me.heard.lock().remove(key);
            me.zones.lock().forget(key);
            return;
        };
        let beat =
            |n: &Node| n.status.conditions.iter().find(|c| c.kind == "Ready").and_then(|c| c.last_heartbeat_time);
        let ever = beat(new).is_some();
        // Our own write of an unknown state keeps the node's last heartbeat, so it is no sign of life.
        if change.before().is_none_or(|old| beat(old) != beat(new)) {
            me.hear(key, ever);
        }
        let same = change.before().is_some_and(|old| {
            let states =
                |n: &Node| n.status.conditions.iter().map(|c| (c.kind.clone(), c.status.clone())).collect::<Vec<_>>();
            states(old) == states(new)
                && old.spec.taints == new.spec.taints
                && old.spec.unschedulable == new.spec.unschedulable
                && old.metadata.labels == new.metadata.labels
        });
        if !same {
            me.queue.add(key.clone());
        }
    });
    listen(&leases, &me, |me, change| {
        let Some(lease) = change.now() else { return };
        let key: Key = lease.name().into();
        if me.nodes.get(&key).is_some() {
            me.hear(&key, true);
        }
    });
    let (cx, queue) = (me.cx.clone(), me.queue.clone());
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    fn hear(&self, key: &Key, ever: bool) {
        let mut heard = self.heard.lock();
        let known = heard.contains_key(key);
        let entry = heard.entry(key.clone()).or_insert(Heard { at: Instant::now(), ever });
        entry.at = Instant::now();
        entry.ever |= ever;
        if !known {
            // From the first word on its silence is timed; later words only move the time.
            drop(heard);
            self.queue.add_after(key.clone(), self.cx.config.node_monitor_grace);
        }
    }

    async fn sync(&self, key: &Key) -> Outcome {
        let Some(object) = self.informer.get(key) else { return Ok(None) };
        let Some(mut node) = self.nodes.get(key) else { return Ok(None) };
        let now = self.cx.clock.now();
        let heard = self.heard.lock().get(key).cloned().unwrap_or(Heard { at: Instant::now(), ever: false });
        let grace = if heard.ever {
            self.cx.config.node_monitor_grace
        } else {
            STARTUP_GRACE.max(self.cx.config.node_monitor_grace)
        };
        let silent = heard.at.elapsed();
        let mut again = None;
        if silent >= grace {
            if node.condition("Ready") != "Unknown" {
                let written = self.mark_unknown(&object, heard.ever, now).await?;
                node = Arc::new(pintle_client::typed::decode(&written)?);
                self.cx.recorder.normal(
                    &reference_to(resource_of::<TypedNode>(), &object),
                    "NodeNotReady",
                    format!("Node {key} status is now: NodeNotReady"),
                );
            }
        } else {
            again = Some(grace - silent);
        }
        let readiness = node.condition("Ready").to_owned();
        if readiness != "True" {
            self.mark_pods(key, now).await?;
        }
        let turn = {
            let mut zones = self.zones.lock();
            zones.see(key, &zones::zone_of(&node), readiness == "True");
            if readiness == "True"
                || node
                    .spec
                    .taints
                    .iter()
                    .any(|t| t.effect == "NoExecute" && decide::EVICTING.contains(&t.key.as_str()))
            {
                Ok(())
            } else {
                zones.turn(key, Instant::now())
            }
        };
        let evict = match turn {
            Ok(()) => true,
            Err(wait) => {
                again = Some(again.map_or(wait, |a: Duration| a.min(wait)));
                false
            }
        };
        let taints = decide::taints(&node, evict, now);
        let labels = decide::labels(&node);
        if taints.is_some() || labels.is_some() {
            let evicting = |all: &[Taint]| {
                all.iter().any(|t| t.effect == "NoExecute" && decide::EVICTING.contains(&t.key.as_str()))
            };
            let begins = taints.as_ref().is_some_and(|t| evicting(t)) && !evicting(&node.spec.taints);
            self.write(&node, taints, labels).await?;
            if begins {
                EVICTIONS.with(&[&zones::zone_of(&node)]).inc();
            }
        }
        Ok(again)
    }

    async fn mark_unknown(&self, object: &Object, ever: bool, now: jiff::Timestamp) -> Result<Arc<Object>, Error> {
        let mut value: Value = object.view().map_err(|e| Error::decode("node", e))?;
        let conditions = value["status"]["conditions"].take();
        let mut new_status = value["status"].take();
        if !new_status.is_object() {
            new_status = json!({});
        }
        new_status["conditions"] = decide::unknown(conditions, ever, &value["metadata"]["creationTimestamp"], now);
        status::put(&self.cx.client, resource_of::<TypedNode>(), object, &new_status).await
    }

    /// Pods of a node that is not ready are not ready either.
    async fn mark_pods(&self, node: &str, now: jiff::Timestamp) -> Result<(), Error> {
        for pod in self.pods.by_index(BY_NODE, node).iter().filter(|p| p.is_ready()) {
            let m = &pod.metadata;
            let condition =
                json!({"type": "Ready", "status": "False", "lastTransitionTime": pintle_api::time::format(now)});
            let patch = Patch::strategic(&json!({"metadata": {"uid": m.uid}, "status": {"conditions": [condition]}}))?;
            match self.cx.client.of::<TypedPod>().patch_status(&m.namespace, &m.name, patch).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => self.cx.recorder.warning(
                    &reference(resource_of::<TypedPod>(), m),
                    "NodeNotReady",
                    "Node is not ready",
                ),
            }
        }
        Ok(())
    }

    async fn write(&self, node: &Node, taints: Option<Vec<Taint>>, labels: Option<Value>) -> Result<(), Error> {
        let m = &node.metadata;
        // The list of taints is written whole, so it must be the one it was decided on.
        let mut patch = json!({"metadata": {"uid": m.uid, "resourceVersion": m.resource_version}});
        if let Some(labels) = labels {
            patch["metadata"]["labels"] = labels;
        }
        if let Some(taints) = taints {
            patch["spec"] = json!({"taints": if taints.is_empty() { Value::Null } else { json!(taints) }});
        }
        match self.cx.client.of::<TypedNode>().patch("", &m.name, Patch::merge(&patch)?).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

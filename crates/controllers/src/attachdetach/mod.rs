//! Attach and detach: a volume of a driver that has to be attached is attached to the nodes whose pods use it, by a
//! VolumeAttachment that the driver acts on, and detached once the node has let go of it.

mod decide;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{AttachedVolume, Node, PersistentVolume, PersistentVolumeClaim, Pod as TypedPod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use pintle_client::clock::since;
use pintle_client::informers::View;
use pintle_client::recorder::reference;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key, Patch, UnlessGone, WorkQueue};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::support::pods::{self, BY_CLAIM, Pod};

use decide::{Attachment, NodeState, Step, Use};

const WORKERS: usize = 4;
/// How long a node may hold on to a volume that nothing on it uses.
const LONGEST_HOLD: Duration = Duration::from_secs(360);
/// Prefix of keys of nodes, whose status says what is attached to them.
const NODE: &str = "node:";
/// Index of attachments by the volume they attach, and by the node.
const BY_VOLUME: &str = "volume";
const BY_NODE: &str = "node";

struct Controller {
    cx: Context,
    pods: View<Pod>,
    claims: Informer,
    volumes: Informer,
    drivers: Informer,
    nodes: Informer,
    attachments: View<VolumeAttachment>,
    /// Since when a node holds a volume that nothing on it uses, by volume and node.
    unused: Mutex<HashMap<(String, String), jiff::Timestamp>>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let attachments = cx.informers.of::<VolumeAttachment>().view::<VolumeAttachment>();
    attachments.add_index(BY_VOLUME, |a| a.spec.source.persistent_volume_name.clone().into_iter().collect());
    attachments.add_index(BY_NODE, |a| vec![a.spec.node_name.clone()]);
    let me = Arc::new(Controller {
        pods: pods::view(&cx.informers),
        claims: cx.informers.of::<PersistentVolumeClaim>(),
        volumes: cx.informers.of::<PersistentVolume>(),
        drivers: cx.informers.of::<CSIDriver>(),
        nodes: cx.informers.of::<Node>(),
        attachments,
        unused: Mutex::default(),
        queue: cx.queue("attach_detach"),
        cx: cx.clone(),
    });
    listen(&me.pods, &me, |me, change| {
        let placed = |p: &Pod| (p.spec.node_name.clone(), p.is_terminal());
        if change.before().zip(change.now()).is_none_or(|(a, b)| placed(a) != placed(b)) {
            for claim in change.last().claims() {
                me.add_volume_of(&claim);
            }
        }
    });
    listen(&me.claims, &me, |me, change| me.add_volume_of(change.key()));
    listen(&me.volumes, &me, |me, change| me.queue.add(change.key().clone()));
    listen(&me.attachments, &me, |me, change| {
        let spec = &change.last().spec;
        me.queue.add(format!("{NODE}{}", spec.node_name).into());
        if let Some(volume) = &spec.source.persistent_volume_name {
            me.queue.add(volume.as_str().into());
        }
    });
    listen(&me.nodes, &me, |me, change| {
        let held = |o: Option<&Arc<pintle_api::Object>>| {
            o.map(|o| {
                (o.at(&["status", "volumesInUse"]).map(<[u8]>::to_vec), o.at(&["spec", "taints"]).map(<[u8]>::to_vec))
            })
        };
        if held(change.before()) != held(change.now()) {
            for a in me.attachments.by_index(BY_NODE, change.key()) {
                if let Some(volume) = &a.spec.source.persistent_volume_name {
                    me.queue.add(volume.as_str().into());
                }
            }
        }
        let attached = |o: Option<&Arc<pintle_api::Object>>| {
            o.and_then(|o| o.at(&["status", "volumesAttached"]).map(<[u8]>::to_vec))
        };
        if attached(change.before()) != attached(change.now()) {
            me.queue.add(format!("{NODE}{}", change.key()).into());
        }
    });
    listen(&me.drivers, &me, |me, _| me.volumes.keys().into_iter().for_each(|k| me.queue.add(k)));
    let queue = me.queue.clone();
    cx.work(me, &queue, WORKERS, |me, key| async move {
        match key.strip_prefix(NODE) {
            Some(node) => me.sync_node(node).await,
            None => me.sync_volume(&key).await,
        }
    })
    .await;
}

impl Controller {
    fn add_volume_of(&self, claim: &str) {
        let volume = self.claims.get(claim).and_then(|c| c.at(&["spec", "volumeName"]).map(<[u8]>::to_vec));
        if let Some(name) = volume.and_then(|v| serde_json::from_slice::<String>(&v).ok()).filter(|n| !n.is_empty()) {
            self.queue.add(name.into());
        }
    }

    fn must_attach(&self, driver: &str) -> bool {
        let object = self.drivers.get(driver);
        object.and_then(|o| decode::<CSIDriver>(&o).ok()).is_none_or(|d| d.spec.attach_required != Some(false))
    }

    fn node(&self, name: &str) -> Option<Node> {
        self.nodes.get(name).and_then(|o| decode(&o).ok())
    }

    async fn sync_volume(&self, name: &Key) -> Outcome {
        let volume: Option<PersistentVolume> = self.volumes.get(name).map(|o| decode(&o)).transpose()?;
        let existing: Vec<Arc<VolumeAttachment>> = self.attachments.by_index(BY_VOLUME, name);
        let csi = volume.as_ref().and_then(|v| v.spec.as_ref()?.csi.clone());
        let Some(csi) = csi.filter(|c| self.must_attach(&c.driver)) else {
            // Without the volume nobody can say how to detach it: its attachments are whoever deleted it's.
            return Ok(None);
        };
        let unique = decide::unique_name(&csi.driver, &csi.volume_handle);
        let uses = self.uses(volume.as_ref());
        let state = |node: &str| {
            let object = self.node(node);
            NodeState {
                managed: object.as_ref().is_some_and(decide::is_managed),
                holds: object.as_ref().is_some_and(|n| decide::holds(n, &unique)),
                out_of_service: object.as_ref().is_none_or(decide::is_out_of_service),
            }
        };
        let attachments: Vec<Attachment> = existing
            .iter()
            .map(|a| Attachment {
                name: a.metadata.name.clone().unwrap_or_default(),
                node: a.spec.node_name.clone(),
                deleting: a.metadata.deletion_timestamp.is_some(),
            })
            .collect();
        let now = self.cx.clock.now();
        let mut again: Option<Duration> = None;
        let modes = volume.as_ref().and_then(|v| v.spec.as_ref()?.access_modes.clone()).unwrap_or_default();
        for step in decide::steps(&uses, &attachments, decide::on_one_node(&modes), &state) {
            match step {
                Step::Attach(node) => {
                    self.unused.lock().remove(&(name.to_string(), node.clone()));
                    self.attach(name, &csi.driver, &csi.volume_handle, &node).await?;
                }
                Step::Keep(node) => drop(self.unused.lock().remove(&(name.to_string(), node))),
                Step::Detach { attachment, node, held } => {
                    let id = (name.to_string(), node);
                    let from = *self.unused.lock().entry(id.clone()).or_insert(now);
                    let left = LONGEST_HOLD.saturating_sub(since(from, now));
                    if held && !left.is_zero() {
                        again = Some(again.map_or(left, |a| a.min(left)));
                        continue;
                    }
                    self.unused.lock().remove(&id);
                    self.cx.client.of::<VolumeAttachment>().delete("", &attachment, None).await.unless_gone()?;
                }
                Step::Refuse { pod, others } => self.refuse(&pod, volume.as_ref(), &others),
            }
        }
        Ok(again)
    }

    /// Pods with a node that use a volume.
    fn uses(&self, volume: Option<&PersistentVolume>) -> Vec<Use> {
        let reference = volume.and_then(|v| v.spec.as_ref()?.claim_ref.as_ref());
        let Some(r) = reference else { return Vec::new() };
        let claim =
            pintle_client::meta::key(r.namespace.as_deref().unwrap_or_default(), r.name.as_deref().unwrap_or_default());
        let bound = self.claims.get(&claim).is_some_and(|c| Some(c.uid()) == r.uid.as_deref());
        let pods = if bound { self.pods.by_index(BY_CLAIM, &claim) } else { Vec::new() };
        pods.iter()
            .filter(|p| !p.spec.node_name.is_empty() && !p.is_terminal())
            .map(|p| Use { pod: p.metadata.key(), node: p.spec.node_name.clone() })
            .collect()
    }

    async fn attach(&self, volume: &str, driver: &str, handle: &str, node: &str) -> Result<(), Error> {
        let attachment = VolumeAttachment {
            metadata: ObjectMeta { name: Some(decide::attachment_name(driver, handle, node)), ..ObjectMeta::default() },
            spec: VolumeAttachmentSpec {
                attacher: driver.into(),
                node_name: node.into(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.into()),
                    ..VolumeAttachmentSource::default()
                },
            },
            status: None,
        };
        match self.cx.client.of::<VolumeAttachment>().create(&attachment).await {
            Err(e) if !e.is_already_exists() => Err(e),
            _ => Ok(()),
        }
    }

    /// A pod whose volume is somewhere else already, where only one may have it.
    fn refuse(&self, pod: &str, volume: Option<&PersistentVolume>, others: &[String]) {
        let Some(p) = self.pods.get(pod) else { return };
        let volume = volume.and_then(|v| v.metadata.name.as_deref()).unwrap_or_default();
        let own: Vec<&str> = others
            .iter()
            .filter_map(|o| o.split_once('/'))
            .filter(|(ns, _)| *ns == p.metadata.namespace)
            .map(|(_, n)| n)
            .collect();
        let foreign = others.len() - own.len();
        let why = match (own.as_slice(), foreign) {
            ([], 0) => "Volume is already exclusively attached to one node and can't be attached to another".to_owned(),
            ([], n) => format!("Volume is already used by {n} pod(s) in different namespaces"),
            (own, 0) => format!("Volume is already used by pod(s) {}", own.join(", ")),
            (own, n) => {
                format!("Volume is already used by pod(s) {} and {n} pod(s) in different namespaces", own.join(", "))
            }
        };
        let about = reference(resource_of::<TypedPod>(), &p.metadata);
        self.cx.recorder.warning(
            &about,
            "FailedAttachVolume",
            format!("Multi-Attach error for volume {volume:?} {why}"),
        );
    }

    /// A node's status names what is attached to it.
    async fn sync_node(&self, name: &str) -> Outcome {
        let Some(node) = self.node(name).filter(decide::is_managed) else { return Ok(None) };
        let mut attached: Vec<AttachedVolume> = Vec::new();
        for a in self.attachments.by_index(BY_NODE, name) {
            let done = a.status.as_ref().is_some_and(|s| s.attached);
            let volume = a.spec.source.persistent_volume_name.as_deref().unwrap_or_default();
            let Some(object) = self.volumes.get(volume) else { continue };
            let volume: PersistentVolume = decode(&object)?;
            let Some(csi) = volume.spec.as_ref().and_then(|s| s.csi.as_ref()) else { continue };
            let unique = decide::unique_name(&csi.driver, &csi.volume_handle);
            let was = node.status.iter().flat_map(|s| s.volumes_attached.iter().flatten()).any(|v| v.name == unique);
            if done && a.metadata.deletion_timestamp.is_none() {
                if !was {
                    self.tell_attached(&volume, name);
                }
                attached.push(AttachedVolume { name: unique, device_path: String::new() });
            } else if let Some(error) = a.status.as_ref().and_then(|s| s.attach_error.as_ref()) {
                let volume = volume.metadata.name.as_deref().unwrap_or_default();
                let message = error.message.as_deref().unwrap_or_default();
                let text = format!("AttachVolume.Attach failed for volume {volume:?} : {message}");
                self.tell_pods(&object, name, |about| {
                    self.cx.recorder.warning(about, "FailedAttachVolume", text.clone());
                });
            }
        }
        attached.sort_by(|a, b| a.name.cmp(&b.name));
        let have = node.status.as_ref().and_then(|s| s.volumes_attached.clone()).unwrap_or_default();
        if have != attached {
            let patch = Patch::merge(&json!({"status": {"volumesAttached": attached}}))?;
            self.cx.client.of::<Node>().patch_status("", name, patch).await.unless_gone()?;
        }
        Ok(None)
    }

    fn tell_attached(&self, volume: &PersistentVolume, node: &str) {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let Some(object) = self.volumes.get(name) else { return };
        let text = format!("AttachVolume.Attach succeeded for volume {name:?} ");
        self.tell_pods(&object, node, |about| self.cx.recorder.normal(about, "SuccessfulAttachVolume", text.clone()));
    }

    fn tell_pods(
        &self,
        volume: &pintle_api::Object,
        node: &str,
        tell: impl Fn(&k8s_openapi::api::core::v1::ObjectReference),
    ) {
        let volume: Option<PersistentVolume> = decode(volume).ok();
        for u in self.uses(volume.as_ref()).iter().filter(|u| u.node == node) {
            if let Some(pod) = self.pods.get(&u.pod) {
                tell(&reference(resource_of::<TypedPod>(), &pod.metadata));
            }
        }
    }
}

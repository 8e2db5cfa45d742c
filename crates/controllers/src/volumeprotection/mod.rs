//! Protection of volumes in use: a claim that a pod uses, and a volume that is bound, keep their finalizer until they
//! are not.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod as TypedPod};
use pintle_api::resources::Resource;
use pintle_client::Meta;
use pintle_client::informers::View;
use pintle_client::meta::{HasMeta, key};
use pintle_client::typed::resource_of;
use serde::Deserialize;
use serde_json::json;

use crate::context::{Context, Outcome};
use crate::support::status;

const WORKERS: usize = 1;
const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
/// Index of pods by the claims they use.
const BY_CLAIM: &str = "claim";

/// A pod's claims.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Meta,
    spec: PodSpec,
    status: Phase,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
    volumes: Vec<Volume>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    name: String,
    persistent_volume_claim: Option<ClaimRef>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimRef {
    claim_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Phase {
    phase: String,
}

/// A claim or a volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Protected {
    metadata: Meta,
    status: Phase,
}

impl HasMeta for Protected {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

fn claims(pod: &Pod) -> Vec<String> {
    let of = |v: &Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(c), _) => Some(c.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name, v.name)),
        (None, None) => None,
    };
    pod.spec.volumes.iter().filter_map(of).map(|c| key(&pod.metadata.namespace, &c)).collect()
}

/// The controller of claims.
pub async fn run_claims(cx: Context) {
    let queue = cx.queue("pvcprotection");
    let view = cx.informers.of::<PersistentVolumeClaim>().view::<Protected>();
    let pods: View<Pod> = cx.informers.of::<TypedPod>().view::<Pod>();
    pods.add_index(BY_CLAIM, claims);
    let q = queue.clone();
    view.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    pods.on_change(move |change| {
        let ended = change.now().is_none_or(|p| matches!(p.status.phase.as_str(), "Succeeded" | "Failed"));
        if ended {
            claims(change.last()).into_iter().for_each(|k| q.add(k.into()));
        }
    });
    let me = Arc::new((cx.clone(), view, pods));
    cx.work(me, &queue, WORKERS, |me, k| {
        async move {
            let (cx, view, pods) = &*me;
            let Some(claim) = view.get(&k) else { return Ok(None) };
            // A pod that was never bound uses nothing; one that ended uses it no more.
            let used = || {
                pods.by_index(BY_CLAIM, &k)
                    .iter()
                    .any(|p| !p.spec.node_name.is_empty() && !matches!(p.status.phase.as_str(), "Succeeded" | "Failed"))
            };
            let held = !claim.metadata.is_deleting() || used();
            protect(cx, resource_of::<PersistentVolumeClaim>(), &claim.metadata, CLAIM, held).await
        }
    })
    .await;
}

/// The controller of volumes.
pub async fn run_volumes(cx: Context) {
    let queue = cx.queue("pvprotection");
    let view = cx.informers.of::<PersistentVolume>().view::<Protected>();
    let q = queue.clone();
    view.on_change(move |change| q.add(change.key().clone()));
    let me = Arc::new((cx.clone(), view));
    cx.work(me, &queue, WORKERS, |me, k| async move {
        let (cx, view) = &*me;
        let Some(volume) = view.get(&k) else { return Ok(None) };
        let held = !volume.metadata.is_deleting() || volume.status.phase == "Bound";
        protect(cx, resource_of::<PersistentVolume>(), &volume.metadata, VOLUME, held).await
    })
    .await;
}

/// Gives an object the finalizer, or takes it.
async fn protect(cx: &Context, resource: &'static Resource, meta: &Meta, finalizer: &str, held: bool) -> Outcome {
    let has = meta.finalizers.iter().any(|f| f == finalizer);
    if has == held || (held && meta.is_deleting()) {
        return Ok(None);
    }
    let Some(object) = cx.informers.get(resource).get(&meta.key()).filter(|o| o.uid() == meta.uid) else {
        return Ok(None);
    };
    let mut finalizers: Vec<&str> = meta.finalizers.iter().map(String::as_str).filter(|f| *f != finalizer).collect();
    if held {
        finalizers.push(finalizer);
    }
    match status::put_metadata(&cx.client, resource, &object, |m| {
        drop(m.insert("finalizers".into(), json!(finalizers)));
    })
    .await
    {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(None),
    }
}

//! Protection of volumes in use: a claim that a pod uses, and a volume that is bound, keep their finalizer until they
//! are not.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use pintle_api::resources::Resource;
use pintle_client::Meta;
use pintle_client::meta::HasMeta;
use pintle_client::typed::resource_of;
use serde::Deserialize;
use serde_json::json;

use crate::context::{Context, Outcome};
use crate::support::pods::{self, BY_CLAIM};
use crate::support::status;

const WORKERS: usize = 1;
const CLAIM: &str = "kubernetes.io/pvc-protection";
const CLASS: &str = "kubernetes.io/vac-protection";
/// Index of claims and volumes by the classes of attributes they use.
const BY_CLASS: &str = "class";
const VOLUME: &str = "kubernetes.io/pv-protection";
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

/// The controller of claims.
pub async fn run_claims(cx: Context) {
    let queue = cx.queue("pvcprotection");
    let view = cx.informers.of::<PersistentVolumeClaim>().view::<Protected>();
    let pods = pods::view(&cx.informers);
    let q = queue.clone();
    view.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    pods.on_change(move |change| {
        if change.now().is_none_or(|p| p.is_terminal()) {
            change.last().claims().into_iter().for_each(|k| q.add(k.into()));
        }
    });
    let me = Arc::new((cx.clone(), view, pods));
    cx.work(me, &queue, WORKERS, |me, k| {
        async move {
            let (cx, view, pods) = &*me;
            let Some(claim) = view.get(&k) else { return Ok(None) };
            // A pod that was never bound uses nothing; one that ended uses it no more.
            let used = || pods.by_index(BY_CLAIM, &k).iter().any(|p| !p.spec.node_name.is_empty() && !p.is_terminal());
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

/// The classes of attributes that a claim or a volume uses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UsesClasses {
    spec: ClassName,
    status: CurrentClasses,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassName {
    volume_attributes_class_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CurrentClasses {
    current_volume_attributes_class_name: Option<String>,
    modify_volume_status: Option<ModifyStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ModifyStatus {
    target_volume_attributes_class_name: Option<String>,
}

fn classes(o: &UsesClasses) -> Vec<String> {
    let target = o.status.modify_volume_status.as_ref().and_then(|m| m.target_volume_attributes_class_name.clone());
    let all =
        [o.spec.volume_attributes_class_name.clone(), o.status.current_volume_attributes_class_name.clone(), target];
    let mut all: Vec<String> = all.into_iter().flatten().filter(|c| !c.is_empty()).collect();
    all.sort();
    all.dedup();
    all
}

/// The controller of classes of volume attributes.
pub async fn run_attributes_classes(cx: Context) {
    let queue = cx.queue("vacprotection");
    let view = cx.informers.of::<VolumeAttributesClass>().view::<Protected>();
    let claims = cx.informers.of::<PersistentVolumeClaim>().view::<UsesClasses>();
    let volumes = cx.informers.of::<PersistentVolume>().view::<UsesClasses>();
    let q = queue.clone();
    view.on_change(move |change| q.add(change.key().clone()));
    for users in [&claims, &volumes] {
        users.add_index(BY_CLASS, classes);
        let q = queue.clone();
        users.on_change(move |change| {
            // Only a class that is let go of can lose its finalizer.
            if let Some(before) = change.before() {
                classes(before).into_iter().for_each(|c| q.add(c.into()));
            }
        });
    }
    let me = Arc::new((cx.clone(), view, [claims, volumes]));
    cx.work(me, &queue, WORKERS, |me, k| async move {
        let (cx, view, users) = &*me;
        let Some(class) = view.get(&k) else { return Ok(None) };
        let used = || users.iter().any(|u| !u.index_keys(BY_CLASS, &k).is_empty());
        let held = !class.metadata.is_deleting() || used();
        protect(cx, resource_of::<VolumeAttributesClass>(), &class.metadata, CLASS, held).await
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

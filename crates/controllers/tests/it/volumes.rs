//! Claims, volumes, attachments on the in-memory API.

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment, VolumeAttributesClass};
use pintle_client::Patch;
use pintle_controllers::Config;
use serde_json::{Value, json};

use super::common::{Cluster, start};

const VOLUMES: &[&str] = &[
    "persistentvolume-binder-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "ephemeral-volume-controller",
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "volumeattributesclass-protection-controller",
];

fn volume(name: &str, extra: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain"});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}})
}

fn claim(name: &str, extra: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec, "status": {"phase": "Pending"}})
}

async fn claim_is(c: &Cluster, name: &str, phase: &str) -> PersistentVolumeClaim {
    let is = |p: &PersistentVolumeClaim| {
        p.metadata.name.as_deref() == Some(name) && p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase)
    };
    let all = c.until::<PersistentVolumeClaim>("n", &format!("{name} is {phase}"), |p| p.iter().any(is)).await;
    all.into_iter().find(is).unwrap()
}

async fn volume_is(c: &Cluster, name: &str, phase: &str) -> PersistentVolume {
    let is = |p: &PersistentVolume| {
        p.metadata.name.as_deref() == Some(name) && p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase)
    };
    let all = c.until::<PersistentVolume>("", &format!("{name} is {phase}"), |p| p.iter().any(is)).await;
    all.into_iter().find(is).unwrap()
}

async fn said(c: &Cluster, reason: &str, message: &str) {
    c.until::<Event>("n", message, |e| {
        e.iter().any(|e| e.reason.as_deref() == Some(reason) && e.message.as_deref() == Some(message))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn claims_are_bound_and_volumes_released() {
    let c = start(VOLUMES, Config::default());
    c.create::<PersistentVolumeClaim>(claim("c", json!({"storageClassName": ""}))).await;
    said(&c, "FailedBinding", "no persistent volumes available for this claim and no storage class is set").await;
    // A volume that comes later is taken at once; the smallest that suits.
    c.create::<PersistentVolume>(volume("small", json!({"capacity": {"storage": "1Mi"}}))).await;
    c.create::<PersistentVolume>(volume("v", json!({}))).await;
    let bound = claim_is(&c, "c", "Bound").await;
    assert_eq!(bound.spec.as_ref().unwrap().volume_name.as_deref(), Some("v"));
    assert_eq!(bound.status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0, "1Gi");
    let v = volume_is(&c, "v", "Bound").await;
    assert_eq!(v.spec.as_ref().unwrap().claim_ref.as_ref().unwrap().uid, bound.metadata.uid);
    volume_is(&c, "small", "Available").await;

    // It is in use: it stays until its pod ends. Then the volume is released, and kept.
    c.create::<Pod>(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "x", "containers": [], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}})).await;
    c.client.of::<PersistentVolumeClaim>().delete("n", "c", None).await.unwrap();
    c.settle().await;
    assert_eq!(c.list::<PersistentVolumeClaim>("n").await.len(), 1, "a pod uses it");
    c.client.of::<Pod>().delete("n", "p", None).await.unwrap();
    volume_is(&c, "v", "Released").await;
    assert!(c.list::<PersistentVolumeClaim>("n").await.is_empty());
    // A claim of the same name is another one.
    c.create::<PersistentVolumeClaim>(claim("c", json!({"storageClassName": "", "volumeName": "v"}))).await;
    said(&c, "FailedBinding", "volume \"v\" already bound to a different claim.").await;
    c.client
        .of::<PersistentVolume>()
        .patch("", "v", Patch::merge(&json!({"spec": {"claimRef": null}})).unwrap())
        .await
        .unwrap();
    claim_is(&c, "c", "Bound").await;
    // The volume vanishes under it.
    let gone = json!({"metadata": {"finalizers": null}});
    c.client.of::<PersistentVolume>().patch("", "v", Patch::merge(&gone).unwrap()).await.unwrap();
    c.client.of::<PersistentVolume>().delete("", "v", None).await.unwrap();
    let free = Patch::merge(&gone).unwrap();
    drop(c.client.of::<PersistentVolume>().patch("", "v", free).await);
    claim_is(&c, "c", "Lost").await;
    c.settle().await;
    let before = c.api.requests().len();
    c.settle().await;
    assert_eq!(c.api.requests().len(), before, "nobody writes any more");
}

#[tokio::test(start_paused = true)]
async fn claims_wait_and_are_provisioned() {
    let c = start(VOLUMES, Config::default());
    let class = |name: &str, mode: &str, default: bool| {
        json!({"metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()}},
            "provisioner": "csi.example.com", "volumeBindingMode": mode})
    };
    c.create::<StorageClass>(class("wait", "WaitForFirstConsumer", false)).await;
    c.create::<PersistentVolumeClaim>(claim("w", json!({"storageClassName": "wait"}))).await;
    said(&c, "WaitForFirstConsumer", "waiting for first consumer to be created before binding").await;
    c.create::<Pod>(json!({"metadata": {"name": "p", "namespace": "n", "uid": "x"}, "spec": {"containers": [], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "w"}}]}})).await;
    said(&c, "WaitForPodScheduled", "waiting for pod p to be scheduled").await;
    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "x"}}});
    c.client.of::<PersistentVolumeClaim>().patch("n", "w", Patch::merge(&chosen).unwrap()).await.unwrap();
    said(&c, "ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.").await;
    let claims = c.list::<PersistentVolumeClaim>("n").await;
    let annotations = claims[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["volume.kubernetes.io/storage-provisioner"], "csi.example.com");

    // The provisioner makes one, bound from its side; here it only has to be finished.
    let uid = claims[0].metadata.uid.clone().unwrap();
    c.create::<PersistentVolume>(volume("pvc-1", json!({"storageClassName": "wait", "persistentVolumeReclaimPolicy": "Delete",
        "csi": {"driver": "csi.example.com", "volumeHandle": "h"}, "claimRef": {"namespace": "n", "name": "w", "uid": uid}}))).await;
    claim_is(&c, "w", "Bound").await;

    // A claim that names no class gets the default one as soon as there is one.
    c.create::<PersistentVolumeClaim>(claim("late", json!({}))).await;
    c.settle().await;
    c.create::<StorageClass>(class("std", "Immediate", true)).await;
    c.until::<PersistentVolumeClaim>("n", "class", |p| {
        p.iter().any(|p| {
            p.metadata.name.as_deref() == Some("late")
                && p.spec.as_ref().unwrap().storage_class_name.as_deref() == Some("std")
                && p.metadata
                    .annotations
                    .as_ref()
                    .is_some_and(|a| a.contains_key("volume.beta.kubernetes.io/storage-provisioner"))
        })
    })
    .await;

    // The pod gets a node, and its volume is attached there; the driver says so, and the node is told.
    c.create::<Node>(json!({"metadata": {"name": "x", "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}})).await;
    c.client.of::<Pod>().patch("n", "p", Patch::merge(&json!({"spec": {"nodeName": "x"}})).unwrap()).await.unwrap();
    let a = c.until::<VolumeAttachment>("", "attached", |a| a.len() == 1).await;
    assert_eq!((a[0].spec.attacher.as_str(), a[0].spec.node_name.as_str()), ("csi.example.com", "x"));
    let name = a[0].metadata.name.clone().unwrap();
    let done = Patch::merge(&json!({"status": {"attached": true}})).unwrap();
    c.client.of::<VolumeAttachment>().patch_status("", &name, done).await.unwrap();
    said(&c, "SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume \"pvc-1\" ").await;
    let volume = "kubernetes.io/csi/csi.example.com^h";
    c.until::<Node>("", "told", |n| {
        n[0].status
            .as_ref()
            .is_some_and(|s| s.volumes_attached.as_ref().is_some_and(|v| v.len() == 1 && v[0].name == volume))
    })
    .await;
    // While the node holds it, it is not taken away.
    let used = json!({"status": {"volumesInUse": [volume]}});
    c.client.of::<Node>().patch_status("", "x", Patch::merge(&used).unwrap()).await.unwrap();
    c.client.of::<Pod>().delete("n", "p", None).await.unwrap();
    c.settle().await;
    assert_eq!(c.list::<VolumeAttachment>("").await.len(), 1);
    let free = json!({"status": {"volumesInUse": null}});
    c.client.of::<Node>().patch_status("", "x", Patch::merge(&free).unwrap()).await.unwrap();
    c.until::<VolumeAttachment>("", "detached", <[_]>::is_empty).await;

    // More is asked for: somebody else grows it.
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    c.client.of::<PersistentVolumeClaim>().patch("n", "w", Patch::merge(&more).unwrap()).await.unwrap();
    said(&c, "ExternalExpanding", "waiting for an external controller to expand this PVC").await;
}

#[tokio::test(start_paused = true)]
async fn pods_have_claims_of_their_own() {
    let c = start(VOLUMES, Config::default());
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [],
        "volumes": [{"name": "s", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "volumeAttributesClassName": "gold"}}}}]}});
    let pod: Pod = c.create(pod).await;
    let claims = c.until::<PersistentVolumeClaim>("n", "its claim", |p| p.len() == 1).await;
    assert_eq!(claims[0].metadata.name.as_deref(), Some("p-s"));
    let owner = &claims[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((Some(&owner.uid), owner.controller), (pod.metadata.uid.as_ref(), Some(true)));
    // One of the same name that is somebody else's is not taken.
    c.create::<PersistentVolumeClaim>(claim("q-s", json!({}))).await;
    let other = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": {"containers": [], "volumes": [{"name": "s", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}});
    c.create::<Pod>(other).await;
    said(&c, "FailedBinding", "ephemeral volume s: PVC n/q-s was not created for pod n/q (pod is not owner)").await;

    // Its class of attributes stays as long as it is used.
    c.create::<VolumeAttributesClass>(json!({"metadata": {"name": "gold"}, "driverName": "d"})).await;
    c.until::<VolumeAttributesClass>("", "protected", |v| v[0].metadata.finalizers.is_some()).await;
    c.client.of::<VolumeAttributesClass>().delete("", "gold", None).await.unwrap();
    c.settle().await;
    assert_eq!(c.list::<VolumeAttributesClass>("").await.len(), 1);
    let gone = Patch::merge(&json!({"metadata": {"finalizers": null}})).unwrap();
    c.client.of::<PersistentVolumeClaim>().patch("n", "p-s", gone).await.unwrap();
    c.client.of::<PersistentVolumeClaim>().delete("n", "p-s", None).await.unwrap();
    c.until::<PersistentVolumeClaim>("n", "made anew", |p| {
        p.iter().any(|p| p.metadata.name.as_deref() == Some("p-s") && p.metadata.uid != claims[0].metadata.uid)
    })
    .await;
}

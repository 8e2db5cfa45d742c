//! Ephemeral volumes: each has a claim of its own, made for its pod and gone with it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as TypedPod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pintle_api::metrics::{Family, Kind, Stability};
use pintle_client::informers::View;
use pintle_client::recorder::reference_of;
use pintle_client::typed::decode;
use pintle_client::{Error, Informer, Key};

use crate::context::{Context, Outcome, listen};
use crate::support::pods::{self, BY_CLAIM, Pod};

const WORKERS: usize = 10;

static CREATES: Family = Family::new(
    "ephemeral_volume_controller_create_total",
    Kind::Counter,
    Stability::Alpha,
    &[],
    "Number of PersistentVolumeClaim creation requests",
);
static FAILURES: Family = Family::new(
    "ephemeral_volume_controller_create_failures_total",
    Kind::Counter,
    Stability::Alpha,
    &[],
    "Number of PersistentVolumeClaim creation requests that failed",
);

struct Controller {
    cx: Context,
    pods: Informer,
    claims: Informer,
    views: View<Pod>,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("ephemeral_volume");
    let me = Arc::new(Controller {
        pods: cx.informers.of::<TypedPod>(),
        claims: cx.informers.of::<PersistentVolumeClaim>(),
        views: pods::view(&cx.informers),
        cx: cx.clone(),
    });
    let q = queue.clone();
    me.views.on_change(move |change| {
        if let Some(pod) = change.now().filter(|p| p.spec.volumes.iter().any(|v| v.ephemeral.is_some()))
            && !pod.metadata.is_deleting()
            && change.before().is_none_or(|b| b.metadata.uid != pod.metadata.uid)
        {
            q.add(change.key().clone());
        }
    });
    let q = queue.clone();
    listen(&me.claims, &me, move |me, change| {
        // One that was deleted while its pod still needs it is made anew.
        if change.now().is_none() {
            me.views.index_keys(BY_CLAIM, change.key()).into_iter().for_each(|k| q.add(k));
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

/// The claim of a pod's volume; `None` when the volume has none of its own.
fn claim(pod: &TypedPod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let m = template.metadata.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", volume.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: m.labels,
            annotations: m.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name,
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

fn is_of(claim: &PersistentVolumeClaim, pod: &TypedPod) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|o| o.controller == Some(true) && Some(&o.uid) == pod.metadata.uid.as_ref())
}

impl Controller {
    async fn sync(&self, key: &Key) -> Outcome {
        let Some(object) = self.pods.get(key).filter(|o| !o.is_deleting()) else { return Ok(None) };
        let pod: TypedPod = decode(&object)?;
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            let Some(wanted) = claim(&pod, volume) else { continue };
            if let Err(error) = self.make(&pod, &wanted).await {
                let message = format!("ephemeral volume {}: {error}", volume.name);
                self.cx.recorder.warning(&reference_of(&pod), "FailedBinding", message);
                return Err(error);
            }
        }
        Ok(None)
    }

    async fn make(&self, pod: &TypedPod, wanted: &PersistentVolumeClaim) -> Result<(), Error> {
        let (namespace, name) = (
            wanted.metadata.namespace.as_deref().unwrap_or_default(),
            wanted.metadata.name.as_deref().unwrap_or_default(),
        );
        if let Some(there) = self.claims.get(&pintle_client::meta::key(namespace, name)) {
            if is_of(&decode(&there)?, pod) {
                return Ok(());
            }
            let of = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(Error::Config(format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{of} (pod is not owner)"
            )));
        }
        CREATES.with(&[]).inc();
        match self.cx.client.of::<PersistentVolumeClaim>().create(wanted).await {
            Err(e) if e.is_namespace_terminating() => Ok(()),
            Err(e) => {
                FAILURES.with(&[]).inc();
                Err(Error::decode("create PVC", e))
            }
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_is_its_pods() {
        let pod: TypedPod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [],
            "volumes": [{"name": "e"}, {"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "x"}}}}]}}))
        .unwrap();
        let volumes = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap();
        assert!(claim(&pod, &volumes[0]).is_none());
        let c = claim(&pod, &volumes[1]).unwrap();
        assert_eq!(
            (c.metadata.name.as_deref(), c.spec.as_ref().unwrap().storage_class_name.as_deref()),
            (Some("p-v"), Some("x"))
        );
        assert!(is_of(&c, &pod));
        let mut other = pod.clone();
        other.metadata.uid = Some("w".into());
        assert!(!is_of(&c, &other));
    }
}

//! Expander: a claim that asks for more than its volume has. Volumes are grown by the resizer of their driver; this
//! says that it is waited for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_api::quantity::Quantity;
use pintle_client::recorder::reference_of;
use pintle_client::typed::decode;
use pintle_client::{Informer, Key};

use crate::context::{Context, Outcome};

const WORKERS: usize = 10;
/// On a volume whose claim was bound to it in the middle of growing.
const PRE_RESIZE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

struct Controller {
    cx: Context,
    claims: Informer,
    volumes: Informer,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("volume_expand");
    let me = Arc::new(Controller {
        claims: cx.informers.of::<PersistentVolumeClaim>(),
        volumes: cx.informers.of::<PersistentVolume>(),
        cx: cx.clone(),
    });
    let q = queue.clone();
    me.claims.on_change(move |change| {
        let Some(claim) = change.now().and_then(|o| decode::<PersistentVolumeClaim>(o).ok()) else { return };
        let before = change.before().and_then(|o| decode::<PersistentVolumeClaim>(o).ok());
        // Only a size that is asked for anew: the resizer's own writes come back here, too.
        if wants_more(&claim) && before.is_none_or(|b| sizes(&b) != sizes(&claim)) {
            q.add(change.key().clone());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key) }).await;
}

fn sizes(claim: &PersistentVolumeClaim) -> (Option<Quantity>, Option<Quantity>) {
    let asked = claim.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let has = claim.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
    (asked.and_then(|q| q.0.parse().ok()), has.and_then(|q| q.0.parse().ok()))
}

/// Whether a bound claim asks for more than it has.
fn wants_more(claim: &PersistentVolumeClaim) -> bool {
    let (asked, has) = sizes(claim);
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound") && asked > has
}

impl Controller {
    fn sync(&self, key: &Key) -> Outcome {
        let Some(object) = self.claims.get(key) else { return Ok(None) };
        let claim: PersistentVolumeClaim = decode(&object)?;
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let Some(volume) = self.volumes.get(name) else { return Ok(None) };
        let volume: PersistentVolume = decode(&volume)?;
        let ours = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).is_some_and(|r| r.uid == claim.metadata.uid);
        let halfway = volume.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(PRE_RESIZE));
        if ours && (wants_more(&claim) || halfway) {
            let message = "waiting for an external controller to expand this PVC";
            self.cx.recorder.normal(&reference_of(&claim), "ExternalExpanding", message);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_wants_more() {
        for (phase, asked, has, want) in [
            ("Bound", "2Gi", json!({"storage": "1Gi"}), true),
            ("Bound", "1Gi", json!({"storage": "1024Mi"}), false),
            ("Pending", "2Gi", json!({}), false),
            ("Bound", "1Gi", json!({"storage": "2Gi"}), false),
        ] {
            let claim = serde_json::from_value(json!({"spec": {"resources": {"requests": {"storage": asked}}}, "status": {"phase": phase, "capacity": has}})).unwrap();
            assert_eq!(wants_more(&claim), want, "{phase} {asked} {has}");
        }
    }
}

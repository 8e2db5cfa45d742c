//! The plugins of volumes: claims and what they are bound to, zones, limits, and who may share.

pub mod binding;
pub mod limits;
pub mod restrictions;
pub mod zone;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use crate::cache::Cache;
use crate::framework::Rejection;
use crate::model::Pod;
use crate::model::objects::Claim;
use crate::model::pod::PodVolume;

/// The claims of a pod.
///
/// # Errors
/// In upstream's words, the first that is not there, lost, going, or not the pod's own where it must be.
fn claims_of(pod: &Pod, cache: &Cache) -> Result<Vec<Arc<Claim>>, Rejection> {
    let mut out = Vec::new();
    for v in &pod.volumes {
        let PodVolume::Claim { name, owned } = v else { continue };
        let fail = |why: String| Err(Rejection::unresolvable(why));
        let Some(claim) = cache.objects.claims.get(&format!("{}/{name}", pod.namespace)) else {
            return fail(if *owned {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            });
        };
        if claim.status.phase == "Lost" {
            let volume = &claim.spec.volume_name;
            return fail(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return fail(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if *owned && !claim.metadata.owner_references.iter().any(|o| o.controller && o.uid == pod.uid) {
            let (key, pod) = (claim.key(), &pod.key);
            return fail(format!("PVC {key} was not created for pod {pod} (pod is not owner)"));
        }
        out.push(claim.clone());
    }
    Ok(out)
}

/// Whether a change is of one of the pod's claims.
fn is_own_claim(pod: &Pod, claim: &Claim) -> bool {
    claim.metadata.namespace == pod.namespace
        && pod.volumes.iter().any(|v| matches!(v, PodVolume::Claim { name, .. } if *name == claim.metadata.name))
}

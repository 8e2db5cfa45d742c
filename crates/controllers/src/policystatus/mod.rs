//! Status of validating admission policies: which generation was looked at.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyStatus,
};
use pintle_client::Key;
use pintle_client::typed::{decode, resource_of};

use crate::context::{Context, Outcome};
use crate::support::status;

const WORKERS: usize = 5;

/// The controller. Expressions are compiled when a policy is written, so those that are there have no errors; warnings
/// of types are left to the API server.
pub async fn run(cx: Context) {
    let queue = cx.queue("validatingadmissionpolicy-status");
    let policies = cx.informers.of::<ValidatingAdmissionPolicy>();
    let q = queue.clone();
    policies.on_change(move |change| q.add(change.key().clone()));
    let me = Arc::new((cx.clone(), policies));
    cx.work(me, &queue, WORKERS, |me, key: Key| async move {
        let (cx, policies) = &*me;
        let Some(object) = policies.get(&key) else { return Ok(None) };
        let policy: ValidatingAdmissionPolicy = decode(&object)?;
        let Some(new) = seen(&policy) else { return Outcome::Ok(None) };
        status::put(&cx.client, resource_of::<ValidatingAdmissionPolicy>(), &object, &new).await?;
        Ok(None)
    })
    .await;
}

/// The status once the generation was looked at; `None` when it was before.
fn seen(policy: &ValidatingAdmissionPolicy) -> Option<ValidatingAdmissionPolicyStatus> {
    let old = policy.status.clone().unwrap_or_default();
    if old.observed_generation >= policy.metadata.generation && old.observed_generation.is_some() {
        return None;
    }
    Some(ValidatingAdmissionPolicyStatus {
        observed_generation: policy.metadata.generation,
        type_checking: Some(TypeChecking::default()),
        conditions: old.conditions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_generation_once() {
        let mut p: ValidatingAdmissionPolicy =
            serde_json::from_value(json!({"metadata": {"name": "p", "generation": 2}, "spec": {}})).unwrap();
        p.status = seen(&p);
        assert_eq!(p.status.as_ref().unwrap().observed_generation, Some(2));
        assert_eq!(seen(&p), None);
        p.metadata.generation = Some(3);
        assert!(seen(&p).is_some());
    }
}

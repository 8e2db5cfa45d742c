//! Status of validating admission policies: what is odd about their expressions, by the types of what they match.

mod typecheck;

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyStatus,
};
use pintle_client::Key;
use pintle_client::typed::{decode, resource_of};

use crate::context::{Context, Outcome};
use crate::support::status;

const WORKERS: usize = 5;

/// The controller. Expressions are compiled when a policy is written, then without the types of objects; what those
/// types have against them are warnings.
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
        type_checking: Some(TypeChecking { expression_warnings: typecheck::warnings(policy) }),
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

    #[test]
    fn warnings_go_with_what_they_warned_of() {
        let with = |expression: &str, generation: i64, status: Option<ValidatingAdmissionPolicyStatus>| {
            let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]});
            let spec =
                json!({"validations": [{"expression": expression}], "matchConstraints": {"resourceRules": [rule]}});
            let metadata = json!({"name": "p", "generation": generation});
            let mut p: ValidatingAdmissionPolicy =
                serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            p.status = status;
            seen(&p)
        };
        let wrong = with("object.spce.replicas > 1", 1, None);
        let warnings = wrong.as_ref().unwrap().type_checking.clone().unwrap().expression_warnings.unwrap();
        assert_eq!(warnings[0].field_ref, "spec.validations[0].expression");
        let right = with("object.spec.replicas > 1", 2, wrong);
        assert_eq!(right.unwrap().type_checking, Some(TypeChecking::default()));
    }
}

//! What becomes of a claim: pure.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus};

/// Keeps an allocated claim until it is freed.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// On a claim made for a pod: the name the pod knows it by.
pub const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Longest part of a generated name before what makes it unique.
const LONGEST: usize = 57;

/// What is to be done with a claim.
#[derive(Debug, PartialEq)]
pub enum Plan {
    Nothing,
    Status(Box<ResourceClaimStatus>),
    RemoveFinalizer,
    Delete,
}

/// Whether a pod ran, or never will.
pub fn is_done(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let unplaced = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_none_or(str::is_empty);
    matches!(phase, "Succeeded" | "Failed") || (pod.metadata.deletion_timestamp.is_some() && unplaced)
}

/// A pod's claims: the name it knows each by, and the claim's.
pub fn claims_of(pod: &Pod) -> Vec<(String, String)> {
    let statuses: Vec<_> = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten()).collect();
    let of = |c: &k8s_openapi::api::core::v1::PodResourceClaim| {
        let made = || statuses.iter().find(|s| s.name == c.name)?.resource_claim_name.clone();
        Some((c.name.clone(), c.resource_claim_name.clone().or_else(made)?))
    };
    pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()).filter_map(of).collect()
}

/// The pod a claim was made for.
pub fn pod_of(claim: &ResourceClaim) -> Option<&str> {
    let owner = claim.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    (owner.kind == "Pod" && owner.api_version == "v1").then_some(owner.name.as_str())
}

/// What a made claim's name begins with: as much of both names as there is room for.
pub fn name_prefix(pod: &str, claim: &str) -> String {
    let room = LONGEST - 2;
    let (mut a, mut b) = (pod.len(), claim.len());
    if a + b > room {
        let half = room / 2;
        (a, b) = match (a <= half, b <= half) {
            (true, _) => (a, room - a),
            (_, true) => (room - b, b),
            _ => (half, room - half),
        };
    }
    // Names are ASCII.
    format!("{}-{}-", pod.get(..a).unwrap_or(pod), claim.get(..b).unwrap_or(claim))
}

/// What is to be done with a claim that these still use; `owner` is the pod it was made for, when there is one.
pub fn claim(claim: &ResourceClaim, users: Vec<ResourceClaimConsumerReference>, owner: Option<&Pod>) -> Plan {
    let status = claim.status.clone().unwrap_or_default();
    let unused = users.is_empty();
    let held = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let freed = unused && status.allocation.is_some();
    if status.reserved_for.as_ref().map_or(0, Vec::len) != users.len() || freed {
        let allocation = status.allocation.filter(|_| !unused);
        let devices = status.devices.filter(|_| !unused);
        let reserved_for = (!unused).then_some(users);
        return Plan::Status(Box::new(ResourceClaimStatus { allocation, devices, reserved_for }));
    }
    if unused && held && status.allocation.is_none() {
        return Plan::RemoveFinalizer;
    }
    let own = pod_of(claim).is_some();
    let deleting = claim.metadata.deletion_timestamp.is_some();
    let over = owner.is_some_and(|p| {
        let ours = claim.metadata.owner_references.iter().flatten().any(|o| Some(&o.uid) == p.metadata.uid.as_ref());
        ours && is_done(p)
    });
    if own && unused && over && !deleting { Plan::Delete } else { Plan::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(claim_json: Value, users: &[&str], owner: Option<Value>, want: &str) {
        let c: ResourceClaim = serde_json::from_value(claim_json.clone()).unwrap();
        let users = users
            .iter()
            .map(|u| ResourceClaimConsumerReference { uid: (*u).into(), resource: "pods".into(), ..Default::default() })
            .collect();
        let owner = owner.map(|o| serde_json::from_value::<Pod>(o).unwrap());
        let got = match claim(&c, users, owner.as_ref()) {
            Plan::Nothing => "nothing".to_owned(),
            Plan::Status(s) => {
                format!("{} users, allocated {}", s.reserved_for.map_or(0, |r| r.len()), s.allocation.is_some())
            }
            Plan::RemoveFinalizer => "finalizer".into(),
            Plan::Delete => "delete".into(),
        };
        assert_eq!(got, want, "{claim_json}");
    }

    #[test]
    fn claims() {
        let reserved =
            json!([{"resource": "pods", "name": "p", "uid": "u"}, {"resource": "pods", "name": "q", "uid": "v"}]);
        let used = json!({"metadata": {"name": "c", "finalizers": [FINALIZER]}, "spec": {}, "status": {"allocation": {}, "reservedFor": reserved}});
        check(used.clone(), &["u", "v"], None, "nothing");
        check(used.clone(), &["u"], None, "1 users, allocated true");
        check(used, &[], None, "0 users, allocated false");
        check(
            json!({"metadata": {"name": "c", "finalizers": [FINALIZER]}, "spec": {}, "status": {}}),
            &[],
            None,
            "finalizer",
        );
        let owned = json!({"metadata": {"name": "c", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]}, "spec": {}});
        let pod = |phase: &str, uid: &str| json!({"metadata": {"name": "p", "uid": uid}, "spec": {"nodeName": "x", "containers": []}, "status": {"phase": phase}});
        check(owned.clone(), &[], Some(pod("Running", "u")), "nothing");
        check(owned.clone(), &[], Some(pod("Succeeded", "u")), "delete");
        check(owned, &[], Some(pod("Succeeded", "other")), "nothing");
    }

    #[test]
    fn names() {
        assert_eq!(name_prefix("p", "gpu"), "p-gpu-");
        assert_eq!(name_prefix(&"p".repeat(63), &"c".repeat(63)).len(), LONGEST);
        assert_eq!(name_prefix(&"p".repeat(63), "c"), format!("{}-c-", "p".repeat(54)));
    }
}

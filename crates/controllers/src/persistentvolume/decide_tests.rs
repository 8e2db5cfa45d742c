use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::decide::{self, ClaimPlan, VolumePlan, World};

fn pvc(extra: Value) -> PersistentVolumeClaim {
    let mut v = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}});
    merge(&mut v, extra);
    serde_json::from_value(v).unwrap()
}

fn pv(name: &str, extra: Value) -> PersistentVolume {
    let mut v = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain"}, "status": {"phase": "Available"}});
    merge(&mut v, extra);
    serde_json::from_value(v).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(a), Value::Object(b)) => {
            for (k, v) in b {
                merge(a.entry(k).or_insert(Value::Null), v);
            }
        }
        (a, b) => *a = b,
    }
}

fn class(name: &str, mode: &str, provisioner: &str, default: bool) -> StorageClass {
    serde_json::from_value(json!({"metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()}},
        "provisioner": provisioner, "volumeBindingMode": mode}))
    .unwrap()
}

fn plan(
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    classes: &[StorageClass],
    waiting: &[&str],
) -> ClaimPlan {
    let volumes: BTreeMap<String, PersistentVolume> =
        volumes.iter().map(|v| (v.metadata.name.clone().unwrap(), v.clone())).collect();
    let waiting = waiting.iter().map(|s| (*s).to_owned()).collect();
    decide::claim(claim, &World { volumes: &volumes, classes, waiting })
}

#[test]
fn claims() {
    let none = || ClaimPlan::Pending(None);
    let says = |normal, reason, message: &str| ClaimPlan::Pending(Some((normal, reason, message.to_owned())));
    let tells = |reason, message: &str| ClaimPlan::Tell((false, reason, message.to_owned()));
    let bind = |v: &str| ClaimPlan::Bind(v.into());
    let kept = json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}});
    let taken = json!({"spec": {"claimRef": {"namespace": "n", "name": "other", "uid": "x"}}});
    let done =
        json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": "a"}});
    let classes = [
        class("wait", "WaitForFirstConsumer", "example.com/p", false),
        class("now", "Immediate", "example.com/p", false),
        class("none", "Immediate", "kubernetes.io/no-provisioner", false),
    ];
    for (what, claim, volumes, waiting, want) in [
        (
            "the smallest that suits",
            json!({}),
            vec![
                pv("a", json!({"spec": {"capacity": {"storage": "5Gi"}}})),
                pv("b", json!({"spec": {"capacity": {"storage": "2Gi"}}})),
                pv("c", json!({"spec": {"capacity": {"storage": "1Mi"}}})),
            ],
            vec![],
            bind("b"),
        ),
        (
            "fewest modes first",
            json!({}),
            vec![
                pv("a", json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}})),
                pv("b", json!({"spec": {"capacity": {"storage": "9Gi"}}})),
            ],
            vec![],
            bind("b"),
        ),
        (
            "modes it does not have",
            json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
            vec![pv("a", json!({}))],
            vec![],
            says(true, "FailedBinding", "no persistent volumes available for this claim and no storage class is set"),
        ),
        ("one kept for it wins", json!({}), vec![pv("a", json!({})), pv("b", kept.clone())], vec![], bind("b")),
        (
            "not another's",
            json!({}),
            vec![pv("a", taken.clone())],
            vec![],
            says(true, "FailedBinding", "no persistent volumes available for this claim and no storage class is set"),
        ),
        (
            "not one that is not available",
            json!({}),
            vec![pv("a", json!({"status": {"phase": "Released"}}))],
            vec![],
            says(true, "FailedBinding", "no persistent volumes available for this claim and no storage class is set"),
        ),
        (
            "by labels",
            json!({"spec": {"selector": {"matchLabels": {"x": "y"}}}}),
            vec![pv("a", json!({})), pv("b", json!({"metadata": {"labels": {"x": "y"}}}))],
            vec![],
            bind("b"),
        ),
        (
            "another class",
            json!({"spec": {"storageClassName": "gone"}}),
            vec![pv("a", json!({}))],
            vec![],
            tells("ProvisioningFailed", "storageclass.storage.k8s.io \"gone\" not found"),
        ),
        (
            "waits",
            json!({"spec": {"storageClassName": "wait"}}),
            vec![pv("a", json!({"spec": {"storageClassName": "wait"}}))],
            vec![],
            says(true, "WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        ),
        (
            "waits for a pod",
            json!({"spec": {"storageClassName": "wait"}}),
            vec![],
            vec!["p"],
            says(true, "WaitForPodScheduled", "waiting for pod p to be scheduled"),
        ),
        (
            "waits for pods",
            json!({"spec": {"storageClassName": "wait"}}),
            vec![],
            vec!["p", "q"],
            says(true, "WaitForPodScheduled", "waiting for pods p,q to be scheduled"),
        ),
        (
            "waits no more",
            json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "x"}}, "spec": {"storageClassName": "wait"}}),
            vec![],
            vec![],
            ClaimPlan::Provision("example.com/p".into()),
        ),
        (
            "is provisioned",
            json!({"spec": {"storageClassName": "now"}}),
            vec![],
            vec![],
            ClaimPlan::Provision("example.com/p".into()),
        ),
        (
            "nobody provisions",
            json!({"spec": {"storageClassName": "none"}}),
            vec![],
            vec![],
            tells("ProvisioningFailed", "no volume plugin matched name: kubernetes.io/no-provisioner"),
        ),
        ("by name, absent", json!({"spec": {"volumeName": "a"}}), vec![], vec![], none()),
        ("by name", json!({"spec": {"volumeName": "a"}}), vec![pv("a", json!({}))], vec![], bind("a")),
        (
            "by name, too small",
            json!({"spec": {"volumeName": "a"}}),
            vec![pv("a", json!({"spec": {"capacity": {"storage": "1Mi"}}}))],
            vec![],
            says(false, "VolumeMismatch", "Cannot bind to requested volume \"a\": requested PV is too small"),
        ),
        (
            "by name, taken",
            json!({"spec": {"volumeName": "a"}}),
            vec![pv("a", taken.clone())],
            vec![],
            says(false, "FailedBinding", "volume \"a\" already bound to a different claim."),
        ),
        (
            "bound",
            done.clone(),
            vec![pv("a", json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}}))],
            vec![],
            bind("a"),
        ),
        (
            "bound, and the volume is gone",
            done.clone(),
            vec![],
            vec![],
            ClaimPlan::Lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        ),
        (
            "bound, and so is another",
            done,
            vec![pv("a", taken)],
            vec![],
            ClaimPlan::Lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"),
        ),
    ] {
        assert_eq!(plan(&pvc(claim), &volumes, &classes, &waiting), want, "{what}");
    }
    // A class for those that name none; not for those that name the empty one.
    let mut classes = classes.to_vec();
    classes.push(class("std", "Immediate", "example.com/p", true));
    assert_eq!(plan(&pvc(json!({})), &[], &classes, &[]), ClaimPlan::SetClass("std".into()));
    let empty = pvc(json!({"spec": {"storageClassName": ""}}));
    assert!(matches!(plan(&empty, &[], &classes, &[]), ClaimPlan::Pending(Some((true, "FailedBinding", _)))));
}

#[test]
fn volumes() {
    let bound = json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}});
    let made = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "x"}}, "spec": {"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"namespace": "n", "name": "c", "uid": "u"}}});
    for (volume, claim, want) in [
        (json!({}), None, VolumePlan::Phase("Available")),
        (json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}}), None, VolumePlan::Phase("Available")),
        (bound.clone(), None, VolumePlan::Reclaim),
        (bound.clone(), Some(json!({"metadata": {"uid": "new"}})), VolumePlan::Reclaim),
        (bound.clone(), Some(json!({})), VolumePlan::Claim("n/c".into())),
        (bound.clone(), Some(json!({"spec": {"volumeMode": "Block"}})), VolumePlan::Mismatch("n/c".into())),
        (bound.clone(), Some(json!({"spec": {"volumeName": "v"}})), VolumePlan::Phase("Bound")),
        (bound, Some(json!({"spec": {"volumeName": "w"}})), VolumePlan::Unbind),
        (made, Some(json!({"spec": {"volumeName": "w"}})), VolumePlan::Reclaim),
    ] {
        let claim = claim.map(pvc);
        assert_eq!(decide::volume(&pv("v", volume.clone()), claim.as_ref()), want, "{volume}");
    }
}

#[test]
fn both_sides_of_a_binding() {
    let (claim, volume) = (pvc(json!({})), pv("v", json!({})));
    let v = decide::bind_volume(&volume, &claim).unwrap();
    assert!(v.metadata.annotations.as_ref().unwrap().contains_key(decide::BOUND_BY_CONTROLLER));
    assert_eq!(decide::bind_volume(&v, &claim), None);
    assert_eq!(decide::unbind_volume(&v).spec.unwrap().claim_ref, None);
    let kept = pv("v", json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}}));
    let k = decide::bind_volume(&kept, &claim).unwrap();
    assert!(k.metadata.annotations.is_none(), "a user bound it");
    assert_eq!(decide::unbind_volume(&k).spec.unwrap().claim_ref.unwrap().uid, None);
    let c = decide::bind_claim(&claim, &v).unwrap();
    assert_eq!(decide::bind_claim(&c, &v), None);
    let c = decide::claim_phase(&c, "Bound", Some(&v)).unwrap();
    assert_eq!(c.status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0, "1Gi");
    let grown = pv("v", json!({"spec": {"capacity": {"storage": "2Gi"}}}));
    assert_eq!(decide::claim_phase(&c, "Bound", Some(&grown)), None, "growing is the expander's business");
    assert_eq!(decide::claim_phase(&c, "Lost", None).unwrap().status.unwrap().capacity, None);
}

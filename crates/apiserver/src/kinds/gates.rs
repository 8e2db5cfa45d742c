//! Fields of features that upstream ships switched off: who writes them finds them dropped, unless the stored object
//! has one already.

use pintle_api::features::Feature as Gate;
use serde_json::Value;

use super::Ctx;

/// A path: names of fields, [`EACH`] for every item of a list or value of a map.
type Path = &'static [&'static str];

const EACH: &str = "[]";

/// The fields of one feature: used when any of them is there.
struct Feature {
    fields: &'static [Path],
    /// The object that held a field goes too once it is empty.
    prune: bool,
    /// The gate that switches it on, where there is one.
    gate: Option<Gate>,
}

const fn feature(fields: &'static [Path]) -> Feature {
    Feature { fields, prune: false, gate: None }
}

/// Of a pod's spec, alone or in a template.
const POD_SPEC: &[Feature] = &[
    Feature { gate: Some(Gate::GenericWorkload), ..feature(&[&["schedulingGroup"]]) },
    // ClusterTrustBundleProjection
    feature(&[&["volumes", EACH, "projected", "sources", EACH, "clusterTrustBundle"]]),
    // PodCertificateRequest
    feature(&[&["volumes", EACH, "projected", "sources", EACH, "podCertificate"]]),
    // ContainerStopSignals
    Feature {
        fields: &[
            &["containers", EACH, "lifecycle", "stopSignal"],
            &["initContainers", EACH, "lifecycle", "stopSignal"],
            &["ephemeralContainers", EACH, "lifecycle", "stopSignal"],
        ],
        prune: true,
        gate: None,
    },
];

const POD_STATUS: &[Feature] = &[
    // DRANodeAllocatableResources
    feature(&[&["nodeAllocatableResourceClaimStatuses"]]),
    // ImageVolumeWithDigest
    feature(&[
        &["containerStatuses", EACH, "volumeMounts", EACH, "volumeStatus"],
        &["initContainerStatuses", EACH, "volumeMounts", EACH, "volumeStatus"],
        &["ephemeralContainerStatuses", EACH, "volumeMounts", EACH, "volumeStatus"],
    ]),
];

/// CoordinatedLeaderElection; each stays by itself.
const LEASE: &[Feature] = &[feature(&[&["strategy"]]), feature(&[&["preferredHolder"]])];

/// DRAWorkloadResourceClaims
const WORKLOAD: &[Feature] = &[feature(&[&["podGroupTemplates", EACH, "resourceClaims"]])];

const POD_GROUP: &[Feature] = &[
    // DRAWorkloadResourceClaims
    feature(&[&["resourceClaims"]]),
    // WorkloadAwarePreemption, of which this has a default
    feature(&[&["disruptionMode"]]),
];

/// MaxUnavailableStatefulSet
const STATEFUL_SET: &[Feature] = &[feature(&[&["updateStrategy", "rollingUpdate", "maxUnavailable"]])];

/// VolumeLimitScaling
const CSI_DRIVER: &[Feature] = &[feature(&[&["preventPodSchedulingIfMissing"]])];

const RESOURCE_SLICE: &[Feature] = &[
    // DRAListTypeAttributes
    feature(&[
        &["devices", EACH, "attributes", EACH, "bools"],
        &["devices", EACH, "attributes", EACH, "ints"],
        &["devices", EACH, "attributes", EACH, "strings"],
        &["devices", EACH, "attributes", EACH, "versions"],
    ]),
    // DRANodeAllocatableResources
    feature(&[&["devices", EACH, "nodeAllocatableResourceMappings"]]),
];

/// Where a resource has gated fields: the paths of the objects that the features' paths begin in.
fn gated(group: &str, resource: &str) -> &'static [(Path, &'static [Feature])] {
    match (group, resource) {
        ("", "pods") => &[(&["spec"], POD_SPEC), (&["status"], POD_STATUS)],
        ("", "podtemplates") => &[(&["template", "spec"], POD_SPEC)],
        ("", "replicationcontrollers") | ("apps", "daemonsets" | "deployments" | "replicasets") | ("batch", "jobs") => {
            &[(&["spec", "template", "spec"], POD_SPEC)]
        }
        ("apps", "statefulsets") => &[(&["spec", "template", "spec"], POD_SPEC), (&["spec"], STATEFUL_SET)],
        ("batch", "cronjobs") => &[(&["spec", "jobTemplate", "spec", "template", "spec"], POD_SPEC)],
        ("coordination.k8s.io", "leases") => &[(&["spec"], LEASE)],
        ("resource.k8s.io", "resourceslices") => &[(&["spec"], RESOURCE_SLICE)],
        ("scheduling.k8s.io", "podgroups") => &[(&["spec"], POD_GROUP)],
        ("scheduling.k8s.io", "workloads") => &[(&["spec"], WORKLOAD)],
        ("storage.k8s.io", "csidrivers") => &[(&["spec"], CSI_DRIVER)],
        _ => &[],
    }
}

/// Drops from `new` what upstream's defaults have no use for, unless `old` uses it.
pub(super) fn drop_disabled(ctx: &Ctx<'_>, new: &mut Value, old: Option<&Value>) {
    for (base, features) in gated(ctx.resource.group, ctx.resource.resource) {
        let Some(new) = base.iter().try_fold(&mut *new, |v, key| v.get_mut(key)) else { continue };
        let old = old.and_then(|old| super::value::at(old, base));
        for feature in *features {
            if feature.gate.is_some_and(|gate| ctx.features.on(gate))
                || feature.fields.iter().any(|path| old.is_some_and(|old| present(old, path)))
            {
                continue;
            }
            for path in feature.fields {
                remove(new, path, feature.prune);
            }
        }
    }
}

fn present(value: &Value, path: &[&str]) -> bool {
    match (path, value) {
        ([], Value::Null) => false,
        ([], Value::Array(items)) => !items.is_empty(),
        ([], _) => true,
        ([EACH, rest @ ..], Value::Array(items)) => items.iter().any(|v| present(v, rest)),
        ([EACH, rest @ ..], Value::Object(map)) => map.values().any(|v| present(v, rest)),
        ([key, rest @ ..], Value::Object(map)) => map.get(*key).is_some_and(|v| present(v, rest)),
        _ => false,
    }
}

fn remove(value: &mut Value, path: &[&str], prune: bool) {
    match (path, value) {
        ([EACH, rest @ ..], Value::Array(items)) => items.iter_mut().for_each(|v| remove(v, rest, prune)),
        ([EACH, rest @ ..], Value::Object(map)) => map.values_mut().for_each(|v| remove(v, rest, prune)),
        ([key], Value::Object(map)) => drop(map.remove(*key)),
        ([key, rest @ ..], Value::Object(map)) => {
            let Some(held) = map.get_mut(*key) else { return };
            remove(held, rest, prune);
            if prune && rest.len() == 1 && held.as_object().is_some_and(serde_json::Map::is_empty) {
                map.remove(*key);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{changed, with_ctx};
    use crate::kinds::{strategy, value};
    use serde_json::json;

    /// Writes `to` at `path` of an object: gone when new or when the stored one lacks it, kept when that has it.
    fn check(api_version: &str, kind: &str, path: &str, to: Value) {
        let spec = match kind {
            "ResourceSlice" => json!({"devices": [{"name": "d", "attributes": {"a": {}}}]}),
            _ => json!({}),
        };
        let plain = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let asked = changed(&plain, path, to);
        let has = |object: &Value| object.pointer(&format!("/{path}")).is_some();
        assert!(has(&asked));
        with_ctx(api_version, kind, |ctx| {
            let strategy = strategy(ctx.resource);
            let mut made = asked.clone();
            strategy.prepare_create(ctx, &mut made);
            assert!(!has(&made), "{kind} {path} on create");
            let mut new = asked.clone();
            strategy.prepare_update(ctx, &mut new, &made);
            assert!(!has(&new), "{kind} {path} on update");
            let mut new = asked.clone();
            strategy.prepare_update(ctx, &mut new, &asked);
            assert!(has(&new), "{kind} {path}: what is stored may stay");
        });
    }

    #[test]
    fn a_gate_switches_on() {
        use crate::kinds::testing::with_features;
        let mut features = pintle_api::features::FeatureGates::default();
        features.set(Gate::GenericWorkload, true);
        let mut pod = json!({"spec": {"schedulingGroup": {"podGroupName": "g"}}});
        with_features(features, "v1", "Pod", |ctx| drop_disabled(ctx, &mut pod, None));
        assert_eq!(pod["spec"]["schedulingGroup"]["podGroupName"], "g");
    }

    #[test]
    fn fields_of_features_that_are_off() {
        for (api_version, kind, at) in [
            ("v1", "Pod", "spec"),
            ("v1", "PodTemplate", "template/spec"),
            ("v1", "ReplicationController", "spec/template/spec"),
            ("apps/v1", "DaemonSet", "spec/template/spec"),
            ("apps/v1", "Deployment", "spec/template/spec"),
            ("apps/v1", "ReplicaSet", "spec/template/spec"),
            ("apps/v1", "StatefulSet", "spec/template/spec"),
            ("batch/v1", "CronJob", "spec/jobTemplate/spec/template/spec"),
            ("batch/v1", "Job", "spec/template/spec"),
        ] {
            check(api_version, kind, &format!("{at}/schedulingGroup"), json!({"podGroupName": "g"}));
        }
        check("apps/v1", "StatefulSet", "spec/updateStrategy/rollingUpdate/maxUnavailable", json!(2));
        check("coordination.k8s.io/v1", "Lease", "spec/strategy", json!("OldestEmulationVersion"));
        check("coordination.k8s.io/v1", "Lease", "spec/preferredHolder", json!("me"));
        check("storage.k8s.io/v1", "CSIDriver", "spec/preventPodSchedulingIfMissing", json!(true));
        check("resource.k8s.io/v1", "ResourceSlice", "spec/devices/0/attributes/a/ints", json!([1]));
        check(
            "resource.k8s.io/v1",
            "ResourceSlice",
            "spec/devices/0/nodeAllocatableResourceMappings",
            json!({"cpu": {}}),
        );
    }

    #[test]
    fn fields_in_lists_of_a_pod() {
        let run = |spec: Value, old: Option<Value>, expect: Value| {
            let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "spec": spec});
            let mut new = pod(spec);
            with_ctx("v1", "Pod", |ctx| drop_disabled(ctx, &mut new, old.map(pod).as_ref()));
            assert_eq!(new["spec"], expect);
        };
        let signals = || json!({"containers": [{"name": "a", "lifecycle": {"stopSignal": "SIGUSR1"}}]});
        run(signals(), None, json!({"containers": [{"name": "a"}]}));
        run(signals(), Some(json!({"initContainers": [{"lifecycle": {"stopSignal": "SIGTERM"}}]})), signals());
        let hook = json!({"preStop": {"sleep": {"seconds": 1}}});
        let mut with_hook = signals();
        with_hook["containers"][0]["lifecycle"]["preStop"] = hook["preStop"].clone();
        run(with_hook, None, json!({"containers": [{"name": "a", "lifecycle": hook}]}));
        let sources = |list: Value| json!({"volumes": [{"name": "v", "projected": {"sources": list}}]});
        run(
            sources(json!([{"podCertificate": {"keyType": "ED25519"}}, {"clusterTrustBundle": {"path": "p"}}])),
            None,
            sources(json!([{}, {}])),
        );
    }

    #[test]
    fn fields_of_a_pods_status() {
        let old = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}, "status": {}});
        let mount = json!([{"volumeMounts": [{"name": "v", "volumeStatus": {"image": {"imageRef": "r"}}}]}]);
        let mut new = changed(&old, "status/containerStatuses", mount);
        with_ctx("v1", "Pod", |ctx| {
            strategy(ctx.resource).subresource("status").expect("a status").prepare_update(ctx, &mut new, &old);
        });
        assert_eq!(
            value::at(&new, &["status", "containerStatuses"]),
            Some(&json!([{"volumeMounts": [{"name": "v"}]}]))
        );
    }
}

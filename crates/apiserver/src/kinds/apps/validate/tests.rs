//! Tests of the checks of workloads.

use crate::kinds::testing::{changed, create_errors, status_errors, update_errors};
use serde_json::{Value, json};

fn workload(kind: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w", "namespace": "ns", "resourceVersion": "1"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]}},
        },
    });
    for (k, v) in spec.as_object().unwrap() {
        object["spec"][k] = v.clone();
    }
    object
}

fn deployment() -> Value {
    let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
    workload(
        "Deployment",
        json!({"replicas": 1, "progressDeadlineSeconds": 600, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}),
    )
}

#[test]
fn deployments() {
    let check = |path: &str, to: Value, expect: &str| {
        assert_eq!(create_errors(&changed(&deployment(), path, to)), expect, "{path}");
    };
    check("spec/paused", json!(true), "");
    check("spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
    check(
        "spec/selector",
        Value::Null,
        "spec.selector: Required value\n\
         spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
    );
    check(
        "spec/selector/matchExpressions",
        json!([{"key": "a", "operator": "Odd"}]),
        "spec.selector.matchExpressions[0].operator: Invalid value: \"Odd\": not a valid selector operator\n\
         spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Odd\"}],\"matchLabels\":{\"a\":\"b\"}}: invalid label selector",
    );
    check(
        "spec/template/metadata",
        Value::Null,
        "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
    );
    check(
        "spec/strategy",
        json!({"type": "Odd"}),
        "spec.strategy: Unsupported value: {\"Type\":\"Odd\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
    );
    check(
        "spec/template/spec/activeDeadlineSeconds",
        json!(5),
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
    );
    check(
        "spec/selector",
        json!({"matchLabels": {"x": "y"}}),
        "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
    );
    check("spec/selector", json!({}), "spec.selector: Invalid value: {}: empty selector is invalid for deployment");
    check(
        "spec/template/metadata/labels",
        json!({"a": "b", "c": "d e"}),
        &format!("spec.template.labels: Invalid value: \"d e\": {}", pintle_api::names::label_value("d e")[0]),
    );
    check(
        "spec/template/spec/restartPolicy",
        json!("Never"),
        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
    );
    check("spec/template/spec/containers/0/image", json!(""), "spec.template.spec.containers[0].image: Required value");
    check(
        "spec/strategy",
        json!({"type": "Recreate", "rollingUpdate": {}}),
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
    );
    check(
        "spec/strategy/rollingUpdate",
        json!({"maxSurge": 0, "maxUnavailable": "0%"}),
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
    );
    check(
        "spec/progressDeadlineSeconds",
        json!(0),
        "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
    );
    assert_eq!(
        update_errors(
            &changed(
                &changed(&deployment(), "spec/selector/matchLabels", json!({"a": "c"})),
                "spec/template/metadata/labels",
                json!({"a": "c"})
            ),
            &deployment()
        ),
        "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"
    );
}

#[test]
fn others() {
    let set = workload(
        "StatefulSet",
        json!({"replicas": 1, "serviceName": "s", "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"}}),
    );
    assert_eq!(create_errors(&set), "");
    assert_eq!(update_errors(&changed(&set, "spec/replicas", json!(3)), &set), "");
    assert!(
        update_errors(&changed(&set, "spec/serviceName", json!("t")), &set)
            .starts_with("spec: Forbidden: updates to statefulset spec for fields other than")
    );
    let daemons = workload(
        "DaemonSet",
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}),
    );
    assert_eq!(create_errors(&daemons), "");
    assert_eq!(
        create_errors(&changed(&daemons, "spec/updateStrategy/rollingUpdate/maxUnavailable", json!(0))),
        "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
    );
    let replicas = workload("ReplicaSet", json!({"replicas": 1}));
    assert_eq!(create_errors(&replicas), "");
    let mut rc = workload("ReplicationController", json!({"replicas": 1, "selector": {"a": "b"}}));
    rc["apiVersion"] = "v1".into();
    assert_eq!(create_errors(&rc), "");
    assert_eq!(create_errors(&changed(&rc, "spec/selector", json!({}))), "spec.selector: Required value");
}

#[test]
fn stateful_sets() {
    let set = workload(
        "StatefulSet",
        json!({"replicas": 1, "serviceName": "s", "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"}}),
    );
    let check = |path: &str, to: Value, expect: &str| {
        assert_eq!(create_errors(&changed(&set, path, to)), expect, "{path}");
    };
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let with_mount = changed(&set, "spec/template/spec/containers/0/volumeMounts", mounts);
    check(
        "metadata/name",
        json!("a.b"),
        &format!("metadata.name: Invalid value: \"a.b\": {}", pintle_api::names::dns1123_label("a.b")[0]),
    );
    check(
        "spec/serviceName",
        json!("a.b"),
        &format!("spec.serviceName: Invalid value: \"a.b\": {}", pintle_api::names::dns1123_label("a.b")[0]),
    );
    check("spec/serviceName", json!(""), "");
    check("spec/revisionHistoryLimit", json!(-1), "");
    check("spec/template/spec/hostname", json!("NO"), "");
    check(
        "spec/podManagementPolicy",
        json!("Odd"),
        "spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'",
    );
    check(
        "spec/updateStrategy",
        json!({"type": "OnDelete", "rollingUpdate": {"partition": 2}}),
        "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":2,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
    );
    check(
        "spec/updateStrategy",
        json!({"type": "Odd"}),
        "spec.updateStrategy: Invalid value: {\"Type\":\"Odd\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
    );
    check(
        "spec/updateStrategy/rollingUpdate",
        json!({"maxUnavailable": "0%"}),
        "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0",
    );
    check(
        "spec/template/spec/activeDeadlineSeconds",
        json!(5),
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
    );
    check(
        "spec/volumeClaimTemplates",
        json!([{"metadata": {"name": "data"}, "spec": {}}]),
        "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required\nspec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
    );
    assert_eq!(
        create_errors(&with_mount),
        "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""
    );
    assert_eq!(create_errors(&changed(&with_mount, "spec/volumeClaimTemplates", json!([claim]))), "");
    // A stored set with a bad template is not stuck with it: it may still be scaled.
    assert_eq!(update_errors(&changed(&with_mount, "spec/replicas", json!(2)), &with_mount), "");
    assert_eq!(
        update_errors(&with_mount, &set),
        "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""
    );
    assert_eq!(
        status_errors(
            &changed(&set, "status", json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2})),
            &set
        ),
        "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas"
    );
}

#[test]
fn daemon_sets_and_revisions() {
    let daemons = workload("DaemonSet", json!({"updateStrategy": {"type": "OnDelete"}}));
    let check = |path: &str, to: Value, expect: &str| {
        assert_eq!(create_errors(&changed(&daemons, path, to)), expect, "{path}");
    };
    check(
        "spec/selector",
        Value::Null,
        "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
    );
    check("spec/selector", json!({}), "spec.selector: Invalid value: {}: empty selector is invalid for daemonset");
    check(
        "spec/updateStrategy",
        json!({"type": "Odd"}),
        "spec.updateStrategy: Unsupported value: {\"Type\":\"Odd\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
    );
    check(
        "spec/updateStrategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "101%"}}),
        "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"101%\": must not be greater than 100%",
    );
    check(
        "spec/updateStrategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}),
        "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
    );
    let odd = changed(
        &daemons,
        "spec/selector/matchExpressions",
        json!([{"key": "a", "operator": "NotIn", "values": ["a b"]}]),
    );
    assert!(create_errors(&odd).starts_with("spec.selector.matchExpressions[0].values[0]: Invalid value"));
    assert_eq!(update_errors(&odd, &odd), "");
    let mut strict = changed(&deployment(), "spec/selector", odd["spec"]["selector"].clone());
    strict["metadata"]["labels"] = json!({});
    assert!(update_errors(&strict, &strict).contains("spec.selector.matchExpressions[0].values[0]: Invalid value"));
    assert_eq!(
        status_errors(&changed(&deployment(), "status", json!({"terminatingReplicas": -1})), &deployment()),
        "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0"
    );

    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r", "namespace": "ns", "resourceVersion": "1"}, "data": {"a": 1}, "revision": 1});
    for (data, expect) in [
        (json!({}), ""),
        (Value::Null, "data: Required value: data is mandatory"),
        (json!("x"), "data: Required value: data must be a valid JSON object"),
        (json!([1]), "data: Required value: data must be a valid JSON object"),
    ] {
        assert_eq!(create_errors(&changed(&revision, "data", data)), expect);
    }
    assert_eq!(
        update_errors(&changed(&revision, "data/a", json!(2)), &revision),
        "data: Invalid value: {\"a\":2}: field is immutable"
    );
}

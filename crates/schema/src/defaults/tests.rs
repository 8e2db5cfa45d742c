use super::*;
use crate::decode::{Mode, decode_json, decode_value};
use crate::table::kind;
use serde_json::json;

#[test]
fn kinds() {
    let check = |api_version: &str, name: &str, input: &Value, expect: &Value| {
        let ty = kind(api_version, name).unwrap();
        let mut got = decode_json(input.to_string().as_bytes(), ty, Mode::Strict).unwrap().value;
        apply_defaults_at(&mut got, ty, "2024-01-01T00:00:00Z");
        let expect = decode_value(expect.clone(), ty, Mode::Strict).unwrap();
        assert_eq!(expect.strict, Vec::<String>::new());
        assert_eq!(got, expect.value, "{name}: {got:#}");
        let mut again = got.clone();
        apply_defaults_at(&mut again, ty, "2025-01-01T00:00:00Z");
        assert_eq!(again, got, "defaulting again changes nothing");
    };
    let container = json!({"name": "c", "image": "nginx", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"});
    check(
        "v1",
        "Pod",
        &json!({"spec": {"containers": [{"name": "c", "image": "nginx"}], "serviceAccount": "x"}}),
        &json!({"spec": {"containers": [container], "serviceAccount": "x", "serviceAccountName": "x", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true}}),
    );
    check(
        "apps/v1",
        "Deployment",
        &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx", "resources": {"limits": {"cpu": "1.5m"}},
            "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]}}}}),
        &json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File", "resources": {"limits": {"cpu": "2m"}}, "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler"}}}}),
    );
    check(
        "v1",
        "Service",
        &json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "x"}], "type": "NodePort"}}),
        &json!({"spec": {"type": "NodePort", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}, {"port": 81, "targetPort": "x", "protocol": "TCP"}]}}),
    );
    check(
        "v1",
        "Secret",
        &json!({"stringData": {"a": "b"}, "data": {"a": "eA==", "c": "eA=="}}),
        &json!({"type": "Opaque", "data": {"a": "Yg==", "c": "eA=="}}),
    );
    check(
        "v1",
        "Namespace",
        &json!({"metadata": {"name": "n"}}),
        &json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}}, "status": {"phase": "Active"}}),
    );
    check(
        "v1",
        "PersistentVolumeClaim",
        &json!({}),
        &json!({"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}),
    );
    check(
        "v1",
        "PersistentVolume",
        &json!({"spec": {"hostPath": {"path": "/x"}}}),
        &json!({"spec": {"hostPath": {"path": "/x", "type": ""}, "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}),
    );
    check(
        "v1",
        "LimitRange",
        &json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}}),
        &json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}}]}}),
    );
    check(
        "v1",
        "Node",
        &json!({"spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": {"cpu": "1"}}}),
        &json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}, "status": {"capacity": {"cpu": "1"}, "allocatable": {"cpu": "1"}}}),
    );
    check(
        "v1",
        "ReplicationController",
        &json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": null, "restartPolicy": "Always"}}}}),
        &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1, "selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": null,
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler"}}}}),
    );
    check(
        "batch/v1",
        "CronJob",
        &json!({"spec": {"schedule": "x", "jobTemplate": {"spec": {"template": {"spec": {"containers": null, "restartPolicy": "Never"}}}}}}),
        &json!({"spec": {"schedule": "x", "concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"spec": {"template": {"spec": {"containers": null, "restartPolicy": "Never", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler"}}}}}}),
    );
    check(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        &json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 1}]}]}}),
        &json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 1, "protocol": "TCP"}]}], "policyTypes": ["Ingress", "Egress"]}}),
    );
    check(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        &json!({"roleRef": {"kind": "Role", "name": "x"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        &json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
    );
    check(
        "resource.k8s.io/v1beta2",
        "DeviceTaintRule",
        &json!({"spec": {"taint": {"key": "k", "effect": "NoSchedule"}}}),
        &json!({"spec": {"taint": {"key": "k", "effect": "NoSchedule", "timeAdded": "2024-01-01T00:00:00Z"}}}),
    );
}

#[test]
fn pod_level_resources() {
    let ty = kind("v1", "Pod").unwrap();
    let mut pod = json!({"spec": {"resources": {"limits": {"cpu": "4", "memory": "1Gi"}}, "containers": [
        {"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b", "resources": {"requests": {"cpu": "500m"}}}]}});
    apply_defaults(&mut pod, ty);
    assert_eq!(pod["spec"]["resources"]["requests"], json!({"cpu": "1500m", "memory": "1Gi"}));
}

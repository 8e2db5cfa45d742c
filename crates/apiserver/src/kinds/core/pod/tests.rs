use super::*;
use crate::kinds::testing::{changed, create_errors, update_errors, with_ctx};
use serde_json::json;

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}],
        },
    })
}

fn creates(path: &str, to: Value, expect: &str) {
    assert_eq!(create_errors(&changed(&pod(), path, to)), expect, "{path}");
}

#[test]
fn grace() {
    let check = |node: &str, phase: &str, asked: Option<i64>, expect: i64| {
        let pod = json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
        assert_eq!(graceful_delete(&pod, DeleteOptions { grace_period_seconds: asked }), Some(expect));
    };
    check("n", "Running", None, 30);
    check("n", "Running", Some(5), 5);
    check("n", "Running", Some(0), 0);
    check("n", "Running", Some(-3), 1);
    check("", "Pending", None, 0);
    check("n", "Succeeded", Some(5), 0);
}

#[test]
fn specs() {
    creates("spec/nodeSelector", json!({"a": "b"}), "");
    creates("spec/containers", json!([]), "spec.containers: Required value");
    creates(
        "spec/restartPolicy",
        json!("Maybe"),
        "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    );
    creates("spec/terminationGracePeriodSeconds", Value::Null, "spec.terminationGracePeriodSeconds: Required value");
    creates(
        "spec/activeDeadlineSeconds",
        json!(0),
        "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
    );
    creates(
        "spec/dnsPolicy",
        json!("None"),
        "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
    );
    creates(
        "spec/schedulingGates",
        json!([{"name": "a/b"}, {"name": "a/b"}]),
        "spec.schedulingGates[1]: Duplicate value: \"a/b\"",
    );
    creates(
        "spec/ephemeralContainers",
        json!([{"name": "e", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]),
        "spec.ephemeralContainers: Forbidden: cannot be set on create",
    );
    creates(
        "spec/os",
        json!({"name": "plan9"}),
        "spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"",
    );
    creates(
        "metadata/annotations",
        json!({"controller.kubernetes.io/pod-deletion-cost": "+3"}),
        "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+3\": must be a 32bit integer",
    );
}

#[test]
fn containers() {
    let c = |field: &str, to: Value, expect: &str| creates(&format!("spec/containers/0/{field}"), to, expect);
    c("name", json!(""), "spec.containers[0].name: Required value");
    c("image", json!(""), "spec.containers[0].image: Required value");
    c(
        "image",
        json!(" i"),
        "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
    );
    c(
        "imagePullPolicy",
        json!("Sometimes"),
        "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
    );
    c(
        "ports",
        json!([{"containerPort": 80, "protocol": "TCP", "hostPort": 80}, {"containerPort": 81, "protocol": "TCP", "hostPort": 80}]),
        "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"",
    );
    c("ports", json!([{"protocol": "TCP"}]), "spec.containers[0].ports[0].containerPort: Required value");
    c(
        "env",
        json!([{"name": "a=b"}]),
        "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
    );
    c(
        "env",
        json!([{"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.restartPolicy"}}}]),
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.restartPolicy\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
    );
    c(
        "env",
        json!([{"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['x']"}}}]),
        "",
    );
    c(
        "env",
        json!([{"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.nope"}}}]),
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.nope\": error converting fieldPath: field label not supported: metadata.nope",
    );
    c(
        "env",
        json!([{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]),
        "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
    );
    c(
        "volumeMounts",
        json!([{"name": "v", "mountPath": "/v"}]),
        "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
    );
    c(
        "resources",
        json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
    );
    c(
        "resources",
        json!({"requests": {"gpu": "1"}}),
        "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified\nspec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
    );
    c(
        "resources",
        json!({"requests": {"example.com/gpu": "1"}}),
        "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
    );
    c(
        "livenessProbe",
        json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "exec": {"command": ["x"]}, "successThreshold": 2}),
        "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type\nspec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
    );
    c("readinessProbe", json!({}), "spec.containers[0].readinessProbe: Required value: must specify a handler type");
    c(
        "lifecycle",
        json!({"preStop": {"sleep": {"seconds": 31}}}),
        "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
    );
    c(
        "securityContext",
        json!({"runAsUser": -1}),
        "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
    );
    let twice = json!([pod()["spec"]["containers"][0], pod()["spec"]["containers"][0]]);
    creates("spec/containers", twice, "spec.containers[1].name: Duplicate value: \"c\"");
    let init = changed(&json!(pod()["spec"]["containers"][0]), "livenessProbe", json!({"exec": {"command": ["x"]}}));
    creates(
        "spec/initContainers",
        json!([changed(&init, "name", json!("j"))]),
        "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
    );
}

#[test]
fn volumes() {
    let v = |volume: Value, expect: &str| creates("spec/volumes", json!([volume]), expect);
    v(json!({"name": "v", "emptyDir": {}}), "");
    v(json!({"name": "v"}), "spec.volumes[0]: Required value: must specify a volume type");
    v(
        json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}),
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
    );
    v(
        json!({"name": "V", "hostPath": {"path": "/a/../b"}}),
        &format!(
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'\nspec.volumes[0].name: Invalid value: \"V\": {}",
            pintle_api::names::dns1123_label("V")[0]
        ),
    );
    v(json!({"name": "v", "secret": {}}), "spec.volumes[0].secret.secretName: Required value");
    v(
        json!({"name": "v", "configMap": {"name": "m", "defaultMode": 512, "items": [{"key": "k", "path": "../x"}]}}),
        "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive\nspec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
    );
    v(json!({"name": "v", "gcePersistentDisk": {}}), "spec.volumes[0].persistentDisk.pdName: Required value");
    v(
        json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}}),
        "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
    );
    v(
        json!({"name": "v", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}, {"path": "x"}]}}),
        "spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
    );
    let claim = json!({"metadata": {"labels": {"a": "b"}, "name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    v(
        json!({"name": "v", "ephemeral": {"volumeClaimTemplate": claim}}),
        "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
    );
}

#[test]
fn scheduling() {
    creates(
        "spec/tolerations",
        json!([{"operator": "Equal", "value": "x"}]),
        "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
    );
    creates(
        "spec/tolerations",
        json!([{"key": "a", "operator": "Exists", "effect": "Never"}]),
        "spec.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
    );
    creates(
        "spec/affinity",
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
    );
    creates(
        "spec/affinity",
        json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "z", "labelSelector": {}}}]}}),
        "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
    );
    creates(
        "spec/topologySpreadConstraints",
        json!([{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Never"}]),
        "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero\nspec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty\nspec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
    );
}

#[test]
fn updates() {
    let check = |path: &str, to: Value, expect: &str| {
        assert_eq!(update_errors(&changed(&pod(), path, to), &pod()), expect, "{path}");
    };
    check("spec/containers/0/image", json!("j"), "");
    check("metadata/labels", json!({"a": "b"}), "");
    check("spec/activeDeadlineSeconds", json!(9), "");
    check("spec/tolerations", json!([{"key": "a", "operator": "Exists"}]), "");
    let text = update_errors(&changed(&pod(), "spec/nodeName", json!("n")), &pod());
    assert!(
        text.starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"),
        "{text}"
    );
    assert!(text.contains("+ nodeName: \"n\""), "{text}");
    check(
        "metadata/annotations",
        json!({"kubernetes.io/config.mirror": "x"}),
        "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set\nmetadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation",
    );
    let gated = changed(&pod(), "spec/schedulingGates", json!([{"name": "g"}]));
    assert_eq!(update_errors(&changed(&gated, "spec/nodeSelector", json!({"a": "b"})), &gated), "");
    assert_eq!(update_errors(&changed(&gated, "spec/schedulingGates", json!([])), &gated), "");
    assert_eq!(
        update_errors(&changed(&pod(), "spec/schedulingGates", json!([{"name": "g"}])), &pod()),
        "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"
    );
}

fn sub_errors(sub: &str, new: &Value, old: &Value) -> String {
    with_ctx("v1", "Pod", |ctx| {
        let sub = POD.subresource(sub).unwrap();
        let mut new = new.clone();
        sub.prepare_update(ctx, &mut new, old);
        let mut errors = Errors::new();
        sub.validate_update(ctx, &Cursor::root(&new), &Cursor::root(old), &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn subresources() {
    let mut old = pod();
    old["status"] = json!({"phase": "Running", "qosClass": "BestEffort",
        "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0}}}]});
    old["spec"]["restartPolicy"] = "Never".into();
    let again = changed(&old, "status/containerStatuses/0/state", json!({"running": {}}));
    assert_eq!(
        sub_errors("status", &again, &old),
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    );
    assert_eq!(
        sub_errors("status", &changed(&old, "status/qosClass", json!("Burstable")), &old),
        "status.qosClass: Invalid value: \"Burstable\": field is immutable"
    );
    assert_eq!(sub_errors("status", &changed(&old, "status/qosClass", json!("")), &old), "");
    let extra = json!({"name": "e", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
    let with = changed(&old, "spec/ephemeralContainers", json!([extra]));
    assert_eq!(sub_errors("ephemeralcontainers", &with, &old), "");
    assert_eq!(
        sub_errors("ephemeralcontainers", &old, &with),
        "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"
    );
    let probe = changed(&with, "spec/ephemeralContainers/0/ports", json!([{"containerPort": 1, "protocol": "TCP"}]));
    assert!(sub_errors("ephemeralcontainers", &probe, &old).contains("cannot be set for an Ephemeral Container"));
    let set = |cpu: &str| changed(&pod(), "spec/containers/0/resources", json!({"requests": {"cpu": cpu}}));
    assert_eq!(sub_errors("resize", &set("2"), &set("1")), "");
    // What else a resize would change stays as it was.
    assert_eq!(sub_errors("resize", &changed(&set("2"), "spec/containers/0/image", json!("other")), &set("1")), "");
    assert_eq!(
        sub_errors("resize", &pod(), &set("1")),
        "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing\nspec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"
    );
}

#[test]
fn what_the_server_writes() {
    let mut made = changed(&pod(), "spec/schedulingGates", json!([{"name": "g"}]));
    made["metadata"]["labels"] = json!({"app": "x"});
    made["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "z", "matchLabelKeys": ["app"], "labelSelector": {"matchLabels": {"a": "b"}}}]);
    with_ctx("v1", "Pod", |ctx| POD.prepare_create(ctx, &mut made));
    assert_eq!((&made["status"]["phase"], &made["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));
    assert_eq!(made["status"]["conditions"][0]["reason"], "SchedulingGated");
    assert_eq!(
        made["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"],
        json!([{"key": "app", "operator": "In", "values": ["x"]}])
    );
}

/// What 1.36 says of restart rules, resize policies, groups, tolerations and addresses.
#[test]
fn newer_features() {
    let rules = |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
    let with = |fields: Value| {
        let mut container = pod()["spec"]["containers"][0].clone();
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!([container])
    };
    let regular = |fields: Value, expect: &str| creates("spec/containers", with(fields), expect);
    let init = |mut fields: Value, expect: &str| {
        fields["name"] = "init".into();
        creates("spec/initContainers", with(fields), expect);
    };
    for action in ["Restart", "RestartAllContainers"] {
        regular(json!({"restartPolicy": "Never", "restartPolicyRules": rules(action)}), "");
        init(json!({"restartPolicy": "Always", "restartPolicyRules": rules(action)}), "");
        init(json!({"restartPolicy": "Never", "restartPolicyRules": rules(action)}), "");
    }
    regular(
        json!({"restartPolicy": "Never", "restartPolicyRules": rules("Stop")}),
        "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
    );
    let need = "must specify restartPolicy when restart rules are used";
    init(
        json!({"restartPolicyRules": rules("Restart")}),
        &format!("spec.initContainers[0].restartPolicy: Required value: {need}"),
    );
    let many = vec![rules("Restart")[0].clone(); 21];
    regular(
        json!({"restartPolicy": "Never", "restartPolicyRules": many}),
        "spec.containers[0].restartPolicyRules: Too many: 21: must have at most 20 items",
    );
    let resize = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    regular(json!({"resizePolicy": resize}), "");
    init(json!({"resizePolicy": resize, "restartPolicy": "Always"}), "");
    let refused = "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers";
    init(json!({"resizePolicy": resize}), refused);
    let stored = changed(&pod(), "spec/initContainers", with(json!({"name": "init", "resizePolicy": resize})));
    assert_eq!(update_errors(&stored, &stored), "");
    creates(
        "spec/schedulingGroup",
        json!({}),
        "spec.schedulingGroup.podGroupName: Invalid value: null: must specify one of: `podGroupName`",
    );
    creates("spec/schedulingGroup", json!({"podGroupName": "g"}), "");
    let toleration = json!([{"key": "k", "operator": "Gt", "value": "5"}]);
    creates(
        "spec/tolerations",
        toleration.clone(),
        "spec.tolerations[0].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\"",
    );
    let stored = changed(&pod(), "spec/tolerations", toleration);
    assert_eq!(update_errors(&stored, &stored), "");
    creates(
        "spec/securityContext",
        json!({"seLinuxChangePolicy": "MountOption"}),
        "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\"",
    );
    creates(
        "spec/hostAliases",
        json!([{"ip": "10.0.0.01"}, {"ip": "::ffff:1.2.3.4"}, {"ip": "FD00::1"}]),
        "spec.hostAliases[0].ip: Invalid value: \"10.0.0.01\": must not have leading 0s\nspec.hostAliases[1].ip: Invalid value: \"::ffff:1.2.3.4\": must not be an IPv4-mapped IPv6 address",
    );
    creates(
        "spec/dnsConfig",
        json!({"nameservers": ["1.2.3.04"]}),
        "spec.dnsConfig.nameservers[0]: Invalid value: \"1.2.3.04\": must not have leading 0s",
    );
}

/// Which containers may run again after they ended, as the status tells it.
#[test]
fn restarts() {
    let check = |of_pod: &str, container: Value, code: i64, allowed: bool| {
        let mut old = changed(&pod(), "spec/restartPolicy", json!(of_pod));
        old["spec"]["containers"][0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        old["status"] = json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]});
        let again = changed(&old, "status/containerStatuses/0/state", json!({"running": {}}));
        assert_eq!(sub_errors("status", &again, &old).is_empty(), allowed, "{of_pod} {container} {code}");
    };
    check("Always", json!({}), 0, true);
    check("OnFailure", json!({}), 0, false);
    check("OnFailure", json!({}), 1, true);
    check("Never", json!({}), 1, false);
    check("Always", json!({"restartPolicy": "Never"}), 1, false);
    check("Never", json!({"restartPolicy": "OnFailure"}), 1, true);
    let rules = |action: &str| json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]});
    check("Always", rules("Restart"), 1, false);
    check("Never", rules("Restart"), 42, true);
    check("Never", rules("RestartAllContainers"), 0, true);
}

#[test]
fn resizes() {
    let requests = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let whole = |cpu: &str| changed(&pod(), "spec/resources", requests(cpu));
    assert_eq!(sub_errors("resize", &whole("2"), &whole("1")), "");
    assert_eq!(
        sub_errors("resize", &changed(&whole("1"), "spec/resources", Value::Null), &whole("1")),
        "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing\nspec.resources: Forbidden: pod-level resources cannot be removed"
    );
    let two = changed(&whole("1"), "spec/resources/requests/memory", json!("1Gi"));
    assert_eq!(
        sub_errors("resize", &whole("2"), &two),
        "spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"
    );
    let huge = json!({"requests": {"cpu": "1", "hugepages-2Mi": "2Mi"}, "limits": {"hugepages-2Mi": "2Mi"}});
    assert_eq!(
        sub_errors("resize", &changed(&pod(), "spec/resources", huge), &whole("1")),
        "spec: Forbidden: only cpu and memory resources are mutable at pod-level"
    );
    let small = changed(&whole("1"), "spec/containers/0/resources", requests("1"));
    assert_eq!(
        sub_errors("resize", &changed(&small, "spec/containers/0/resources", requests("2")), &small),
        "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2"
    );
    // Init containers that end can be resized too.
    let mut container = pod()["spec"]["containers"][0].clone();
    container["name"] = "init".into();
    container["resources"] = requests("1");
    let init = changed(&pod(), "spec/initContainers", json!([container]));
    assert_eq!(sub_errors("resize", &changed(&init, "spec/initContainers/0/resources", requests("2")), &init), "");
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let old = changed(&init, "spec/initContainers/0/resizePolicy", policy);
    assert_eq!(
        sub_errors("resize", &changed(&old, "spec/initContainers/0/resources", requests("2")), &old),
        "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
    );
}

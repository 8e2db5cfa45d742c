//! Tests of the checks of the storage group.

use crate::kinds::testing::{changed, create_errors, status_errors, update_errors};
use serde_json::{Value, json};

fn object(kind: &str, rest: &Value) -> Value {
    let mut object =
        json!({"apiVersion": "storage.k8s.io/v1", "kind": kind, "metadata": {"name": "o", "resourceVersion": "1"}});
    for (key, v) in rest.as_object().unwrap() {
        object[key] = v.clone();
    }
    object
}

fn check(object: &Value, path: &str, to: Value, expect: &str) {
    assert_eq!(create_errors(&changed(object, path, to)), expect, "{path}");
}

fn check_update(object: &Value, path: &str, to: Value, expect: &str) {
    assert_eq!(update_errors(&changed(object, path, to), object), expect, "{path}");
}

#[test]
fn classes() {
    let class = object(
        "StorageClass",
        &json!({"provisioner": "example.com/p", "volumeBindingMode": "Immediate", "reclaimPolicy": "Delete"}),
    );
    let create = |path: &str, to: Value, expect: &str| check(&class, path, to, expect);
    let qualified = pintle_api::names::qualified_name("a b")[0].clone();
    create("provisioner", json!("example.com/P"), "");
    create("provisioner", json!(""), "provisioner: Required value");
    create("provisioner", json!("A b"), &format!("provisioner: Invalid value: \"a b\": {qualified}"));
    create("parameters", json!({"": "x"}), "parameters: Invalid value: \"\": field can not be empty.");
    create("parameters", json!({"a": "x".repeat(262_144)}), "parameters: Too long: may not be more than 262144 bytes");
    create(
        "reclaimPolicy",
        json!("Recycle"),
        "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
    );
    create(
        "volumeBindingMode",
        json!("Later"),
        "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
    );
    let zone = json!({"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}]});
    let turned = json!({"matchLabelExpressions": [{"key": "zone", "values": ["b", "a"]}]});
    create("allowedTopologies", json!([zone]), "");
    create(
        "allowedTopologies",
        json!([zone, turned]),
        "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
    );
    create("allowedTopologies", json!([{}]), "allowedTopologies[0].matchLabelExpressions: Duplicate value: \"\"");
    create(
        "allowedTopologies",
        json!([{"matchLabelExpressions": [{"key": "a", "values": ["x", "x"]}, {"key": "a", "values": []}]}]),
        "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"x\"\n\
         allowedTopologies[0].matchLabelExpressions[1].values: Required value\n\
         allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"a\"",
    );
    for field in ["provisioner", "parameters", "reclaimPolicy"] {
        let to = if field == "parameters" { json!({"a": "b"}) } else { json!("x/y") };
        check_update(&class, field, to, &format!("{field}: Forbidden: updates to {field} are forbidden."));
    }
    check_update(
        &class,
        "volumeBindingMode",
        json!("WaitForFirstConsumer"),
        "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
    );
    check_update(&class, "allowedTopologies", json!([{}]), "");
    let attributes = object("VolumeAttributesClass", &json!({"driverName": "d", "parameters": {"a": "b"}}));
    check(&attributes, "driverName", json!("example.com/d"), "");
    check(&attributes, "driverName", json!(""), "driverName: Required value");
    check(&attributes, "parameters", json!({}), "parameters: Required value: must contain at least one key/value pair");
    check_update(
        &attributes,
        "parameters",
        json!({"a": "c"}),
        "parameters: Forbidden: updates to parameters are forbidden.",
    );
}

#[test]
fn attachments() {
    let attachment = object(
        "VolumeAttachment",
        &json!({"spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
    );
    let create = |path: &str, to: Value, expect: &str| check(&attachment, path, to, expect);
    let subdomain = |text: &str| pintle_api::names::dns1123_subdomain(text)[0].clone();
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    create("spec/nodeName", json!("m"), "");
    create("spec/nodeName", json!(""), &format!("spec.nodeName: Invalid value: \"\": {}", subdomain("")));
    create("spec/attacher", json!("x".repeat(64)), "spec.attacher: Too long: may not be more than 63 bytes");
    create("spec/source", json!({}), &format!("spec.source: Required value: {one}"));
    create("spec/source/inlineVolumeSpec", json!({}), &format!("spec.source: Forbidden: {one}"));
    create(
        "spec/source/persistentVolumeName",
        json!("A"),
        &format!("spec.source.persistentVolumeName: Invalid value: \"A\": {}", subdomain("A")),
    );
    let inline = json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "h"}});
    create("spec/source", json!({"inlineVolumeSpec": inline}), "");
    let at = "spec.source.inlineVolumeSpec";
    let context = "in the context of inline volumes";
    create(
        "spec/source",
        json!({"inlineVolumeSpec": {"claimRef": {"name": "c"}, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}, "storageClassName": "s",
            "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Block", "nodeAffinity": {}}}),
        &format!(
            "{at}.claimRef: Forbidden: may not be specified {context}\n\
             {at}.capacity: Forbidden: may not be specified {context}\n\
             {at}.csi: Required value: has to be specified {context}\n\
             {at}.accessModes: Required value\n\
             {at}.persistentVolumeReclaimPolicy: Forbidden: may only be Retain {context}\n\
             {at}.nodeAffinity: Forbidden: may not be specified {context}\n\
             {at}.storageClassName: Forbidden: may not be specified {context}\n\
             {at}.volumeMode: Forbidden: may not specify volumeMode other than Filesystem {context}"
        ),
    );
    let moved = update_errors(&changed(&attachment, "spec/nodeName", json!("m")), &attachment);
    assert!(moved.starts_with("spec: Invalid value: {") && moved.ends_with(": field is immutable"), "{moved}");
    let odd = changed(&attachment, "spec/attacher", json!("D_"));
    assert_eq!(update_errors(&odd, &odd), "");
    let status = json!({"attached": false, "attachmentMetadata": {"a": "x".repeat(262_144)}, "attachError": {"message": "x".repeat(1025), "errorCode": -1}});
    assert_eq!(
        status_errors(&changed(&attachment, "status", status), &attachment),
        "status.attachmentMetadata: Too long: may not be more than 262144 bytes\n\
         status.attachError.message: Too long: may not be more than 262144 bytes\n\
         status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"
    );
}

#[test]
fn nodes() {
    let node = object(
        "CSINode",
        &json!({"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": ["zone"], "allocatable": {"count": 5}}]}}),
    );
    let create = |path: &str, to: Value, expect: &str| check(&node, path, to, expect);
    let at = "spec.drivers[0]";
    create("spec/drivers/0/nodeID", json!("x".repeat(256)), "");
    create(
        "spec/drivers/0/nodeID",
        json!("x".repeat(257)),
        &format!("{at}.nodeID: Invalid value: \"{}\": must be 256 characters or less", "x".repeat(257)),
    );
    create("spec/drivers/0/nodeID", json!(""), &format!("{at}.nodeID: Required value"));
    create(
        "spec/drivers/0/allocatable/count",
        json!(-1),
        &format!("{at}.allocatable.count: Invalid value: -1: must be greater than or equal to 0"),
    );
    create("spec/drivers/0/topologyKeys", json!(["zone", "zone"]), &format!("{at}: Duplicate value: \"zone\""));
    create(
        "spec/drivers",
        json!([{"name": "d", "nodeID": "n"}, {"name": "d", "nodeID": "n"}]),
        "spec.drivers[1].name: Duplicate value: \"d\"",
    );
    check_update(&node, "spec/drivers/0/allocatable/count", json!(6), "");
    check_update(&node, "spec/drivers", json!([]), "");
    check_update(
        &node,
        "spec/drivers/0/nodeID",
        json!("m"),
        "spec.drivers: Invalid value: {\"Name\":\"d\",\"NodeID\":\"m\",\"TopologyKeys\":[\"zone\"],\"Allocatable\":null}: field is immutable",
    );
}

#[test]
fn drivers() {
    let driver = object(
        "CSIDriver",
        &json!({"spec": {"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "seLinuxMount": false, "volumeLifecycleModes": ["Persistent"]}}),
    );
    let create = |path: &str, to: Value, expect: &str| check(&driver, path, to, expect);
    create("metadata/name", json!("x".repeat(64)), "");
    create("spec/attachRequired", Value::Null, "spec.attachedRequired: Required value");
    create("spec/seLinuxMount", Value::Null, "spec.seLinuxMount: Required value");
    create(
        "spec/fsGroupPolicy",
        json!("Odd"),
        "spec.fsGroupPolicy: Unsupported value: \"Odd\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
    );
    create(
        "spec/volumeLifecycleModes",
        json!(["Odd"]),
        "spec.volumeLifecycleModes: Unsupported value: \"Odd\": supported values: \"Persistent\", \"Ephemeral\"",
    );
    create(
        "spec/nodeAllocatableUpdatePeriodSeconds",
        json!(9),
        "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
    );
    create(
        "spec/tokenRequests",
        json!([{"audience": "a", "expirationSeconds": 599}, {"audience": "a", "expirationSeconds": 1}, {"audience": "b", "expirationSeconds": 4_294_967_297_i64}]),
        "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes\n\
         spec.tokenRequests[1].audience: Duplicate value: \"a\"\n\
         spec.tokenRequests[2].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
    );
    create(
        "spec/serviceAccountTokenInSecrets",
        json!(false),
        "spec.serviceAccountTokenInSecrets: Invalid value: false: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
    );
    check_update(
        &driver,
        "spec/attachRequired",
        json!(false),
        "spec.attachedRequired: Invalid value: false: field is immutable",
    );
    check_update(
        &driver,
        "spec/volumeLifecycleModes",
        json!(["Ephemeral"]),
        "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
    );
    check_update(&driver, "spec/podInfoOnMount", json!(true), "");
}

#[test]
fn capacities() {
    let mut capacity = object("CSIStorageCapacity", &json!({"storageClassName": "c", "capacity": "1Gi"}));
    capacity["metadata"]["namespace"] = "ns".into();
    check(&capacity, "maximumVolumeSize", json!("-1"), "");
    check(&capacity, "capacity", json!("-1"), "capacity: Invalid value: \"-1\": must be greater than or equal to 0");
    check(
        &capacity,
        "storageClassName",
        json!(""),
        &format!("storageClassName: Invalid value: \"\": {}", pintle_api::names::dns1123_subdomain("")[0]),
    );
    let term = |value: &str| json!({"matchExpressions": [{"key": "a", "operator": "In", "values": [value]}]});
    let odd = changed(&capacity, "nodeTopology", term("a b"));
    assert_ne!(create_errors(&odd), "");
    assert_eq!(update_errors(&odd, &odd), "");
    check_update(
        &capacity,
        "storageClassName",
        json!("d"),
        "storageClassName: Invalid value: \"d\": field is immutable",
    );
    check_update(&capacity, "capacity", json!("2Gi"), "");
}

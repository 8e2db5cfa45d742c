use super::*;
use crate::decode::Mode;
use crate::table::kind;
use proptest::prelude::*;
use serde_json::json;

fn show(result: Result<Patched, PatchError>) -> Value {
    match result {
        Ok(patched) => patched.value,
        Err(e) => json!(format!("{} {e}", e.code)),
    }
}

#[test]
fn json_patches() {
    let doc = json!({"a": [1, 2, 3], "b": {"c": "x", "d/e": null}});
    let check = |patch: Value, expect: Value| {
        assert_eq!(show(json_patch(&doc, patch.to_string().as_bytes(), Mode::Strict)), expect, "{patch}");
    };
    check(json!([]), doc.clone());
    check(json!([{"op": "add", "path": "/a/1", "value": 9}]), json!({"a": [1, 9, 2, 3], "b": {"c": "x", "d/e": null}}));
    check(json!([{"op": "add", "path": "/a/-", "value": 9}]), json!({"a": [1, 2, 3, 9], "b": {"c": "x", "d/e": null}}));
    check(
        json!([{"op": "add", "path": "/a/-1", "value": 9}]),
        json!({"a": [1, 2, 3, 9], "b": {"c": "x", "d/e": null}}),
    );
    check(
        json!([{"op": "remove", "path": "/a/-1"}, {"op": "remove", "path": "/b/d~1e"}]),
        json!({"a": [1, 2], "b": {"c": "x"}}),
    );
    check(
        json!([{"op": "replace", "path": "/b/new", "value": {}}, {"op": "test", "path": "/b/none"}]),
        json!({"a": [1, 2, 3], "b": {"c": "x", "d/e": null, "new": {}}}),
    );
    check(
        json!([{"op": "move", "from": "/a/0", "path": "/b/c"}, {"op": "copy", "from": "/b/c", "path": "/x"}]),
        json!({"a": [2, 3], "b": {"c": 1, "d/e": null}, "x": 1}),
    );
    check(
        json!([{"op": "test", "path": "/a", "value": [1, 2, 3]}, {"op": "replace", "path": "", "value": {}}]),
        json!({}),
    );
    check(json!([{"op": "test", "path": "/b/c", "value": "y"}]), json!("422 testing value /b/c failed: test failed"));
    check(
        json!([{"op": "remove", "path": "/z"}]),
        json!("422 error in remove for path: '/z': Unable to remove nonexistent key: z: missing value"),
    );
    check(
        json!([{"op": "remove", "path": "/a/7"}]),
        json!("422 error in remove for path: '/a/7': Unable to access invalid index: 7: invalid index referenced"),
    );
    check(
        json!([{"op": "add", "path": "/z/y", "value": 1}]),
        json!("422 add operation does not apply: doc is missing path: \"/z/y\": missing value"),
    );
    check(
        json!([{"op": "add", "path": "/a/x", "value": 1}]),
        json!(
            "422 error in add for path: '/a/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": invalid syntax"
        ),
    );
    check(json!([{"op": "what", "path": "/a"}]), json!("422 Unexpected kind: what"));
    check(
        json!({"op": "add"}),
        json!("400 error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
    );
    check(
        json!([{"op": 1}]),
        json!(
            "400 error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"
        ),
    );
    let strict = json_patch(&doc, br#"[{"op":"test","op":"test","path":"/b/c","value":"x","foo":1}]"#, Mode::Strict)
        .unwrap()
        .strict;
    assert_eq!(strict, [r#"json patch duplicate field "[0].op""#, r#"json patch unknown field "[0].foo""#]);
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "/none"})).collect();
    check(Value::from(many), json!("413 The allowed maximum operations in a JSON patch is 10000, got 10001"));
    let doubling: Vec<Value> = (0..200).map(|i| json!({"op": "copy", "from": "", "path": format!("/x{i}")})).collect();
    assert!(json_patch(&doc, Value::from(doubling).to_string().as_bytes(), Mode::Lenient).is_err());
    let doubling: Vec<Value> = (0..60).map(|_| json!({"op": "copy", "from": "/b", "path": "/b/b"})).collect();
    assert!(json_patch(&doc, Value::from(doubling).to_string().as_bytes(), Mode::Lenient).is_ok());
}

#[test]
fn merge_patches() {
    let doc = json!({"a": {"b": 1, "c": 2}, "l": [1, {"x": null}], "s": "t"});
    let check = |patch: Value, expect: Value| {
        assert_eq!(show(merge_patch(&doc, patch.to_string().as_bytes(), Mode::Strict)), expect, "{patch}");
    };
    check(json!({}), doc.clone());
    check(
        json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [{"y": null}], "s": null}),
        json!({"a": {"c": 2, "d": {"f": 1}}, "l": [{}]}),
    );
    check(json!({"a": "x"}), json!({"a": "x", "l": [1, {"x": null}], "s": "t"}));
    check(
        json!([]),
        json!("400 error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
    );
    assert_eq!(
        merge_patch(&doc, b"{", Mode::Strict).unwrap_err().to_string(),
        "error decoding patch: unexpected end of JSON input"
    );
    assert_eq!(merge_patch(&doc, br#"{"a":1,"a":2}"#, Mode::Strict).unwrap().strict, [r#"duplicate field "a""#]);
}

fn strategic(api_version: &str, name: &str, doc: &Value, patch: &Value) -> Value {
    show(strategic_merge_patch(doc, patch.to_string().as_bytes(), kind(api_version, name).unwrap(), Mode::Strict))
}

#[test]
fn strategic_merge_patches() {
    let pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]},
        "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j", "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                 "tolerations": [{"key": "k"}], "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"n": "1"}}});
    let check = |patch: Value, at: &str, expect: Value| {
        let got = strategic("v1", "Pod", &pod, &patch);
        let got = got.pointer(at).cloned().unwrap_or(got);
        assert_eq!(got, expect, "{patch}");
    };
    check(json!({"metadata": {"labels": {"a": null, "c": "3"}}}), "/metadata/labels", json!({"b": "2", "c": "3"}));
    check(
        json!({"spec": {"containers": [{"name": "b", "image": "k"}, {"name": "c"}]}}),
        "/spec/containers",
        json!([{"name": "a", "image": "i"}, {"name": "b", "image": "k", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "c"}]),
    );
    check(json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}), "/spec/containers/0/name", json!("b"));
    check(
        json!({"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}}),
        "/spec/containers",
        json!([{"name": "z"}]),
    );
    check(
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "k"}]}}),
        "/spec/containers/0/image",
        json!("k"),
    );
    check(json!({"spec": {"tolerations": [{"key": "z"}]}}), "/spec/tolerations", json!([{"key": "z"}]));
    check(json!({"metadata": {"finalizers": ["z"]}}), "/metadata/finalizers", json!(["z", "x", "y"]));
    check(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}), "/metadata/finalizers", json!(["y"]));
    check(
        json!({"metadata": {"$setElementOrder/finalizers": ["z", "x"], "finalizers": ["z"]}}),
        "/metadata/finalizers",
        json!(["z", "x", "y"]),
    );
    check(
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
        "/spec/volumes",
        json!([{"name": "v", "hostPath": {"path": "/"}}]),
    );
    check(json!({"spec": {"nodeSelector": {"$patch": "replace", "m": "1"}}}), "/spec/nodeSelector", json!({"m": "1"}));
    check(json!({"spec": {"nodeSelector": {"$patch": "delete"}}}), "/spec/nodeSelector", json!({}));
    check(
        json!({"spec": {"affinity": {"nodeAffinity": null, "podAffinity": {}}}}),
        "/spec/affinity",
        json!({"podAffinity": {}}),
    );
    check(
        json!({"spec": {"containers": [{"image": "x"}]}}),
        "/none",
        json!("500 map: map[image:x] does not contain declared merge key: name"),
    );
    check(
        json!({"spec": {"containers": [{"name": "a", "$patch": "what"}]}}),
        "/none",
        json!("500 unknown patch type: what in map: map[$patch:what name:a]"),
    );
    check(json!({"$patch": "what"}), "/none", json!("500 unknown patch type: what in map: map[$patch:what]"));
    check(
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
        "/none",
        json!("500 The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n"),
    );
    check(
        json!({"metadata": {"finalizers": ["z", 1]}}),
        "/none",
        json!("500 list element types are not identical: [[x y] [z 1]]"),
    );
    check(json!({"spec": {"$retainKeys": 1}}), "/none", json!("400 invalid patch format of retainKeys"));
    check(
        json!({"spec": {"$setElementOrder": []}}),
        "/none",
        json!("400 invalid patch format of setElementOrder list"),
    );
    check(json!([]), "/none", json!("400 json: cannot unmarshal array into Go value of type map[string]interface {}"));
    let service = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}]}});
    assert_eq!(
        strategic("v1", "Service", &service, &json!({"spec": {"ports": [{"port": 80, "name": "h"}]}}))["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "h"}])
    );
    let deployment = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        strategic("apps/v1", "Deployment", &deployment, &patch),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
}

fn any_json(depth: u32) -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "spec",
        "containers",
        "name",
        "metadata",
        "finalizers",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "labels",
        "op",
        "path",
    ]);
    let words = prop::sample::select(vec!["delete", "replace", "merge", "a", "/spec", "", "add"]);
    let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), words.prop_map(Value::from)];
    leaf.prop_recursive(depth, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|v| Value::Object(v.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_patch_panics(doc in any_json(5), patch in any_json(5)) {
        let text = patch.to_string();
        let _ = json_patch(&doc, text.as_bytes(), Mode::Strict);
        let _ = merge_patch(&doc, text.as_bytes(), Mode::Strict);
        let _ = strategic_merge_patch(&doc, text.as_bytes(), kind("v1", "Pod").unwrap(), Mode::Strict);
    }
}

use super::*;
use crate::decode::{Mode, decode_value};
use crate::defaults::apply_defaults;
use crate::table::{Type, kind};
use proptest::prelude::*;

fn request<'a>(ty: &'static Type, manager: &'a str, reset: &'a Set) -> Request<'a> {
    Request {
        schema: Schema::Type(ty),
        api_version: ty.api_version,
        kind: ty.name,
        subresource: "",
        manager,
        now: "2024-01-01T00:00:00Z",
        reset,
        versions: None,
    }
}

/// A configuration map stated by its data.
#[allow(clippy::needless_pass_by_value, reason = "callers state it in place")]
fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn owners(object: &Value) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let name = |e: &Value| {
        let text = |n: &str| e[n].as_str().unwrap_or("").to_owned();
        format!("{} {} {}", text("manager"), text("operation"), text("subresource")).trim_end().to_owned()
    };
    Value::Object(entries.iter().map(|e| (name(e), e["fieldsV1"].clone())).collect())
}

fn made(ty: &'static Type, value: &Value) -> Value {
    let mut value = decode_value(value.clone(), ty, Mode::Strict).unwrap().value;
    apply_defaults(&mut value, ty);
    value
}

#[test]
fn a_created_deployment_is_owned_as_upstream_notes_it() {
    let ty = kind("apps/v1", "Deployment").unwrap();
    let none = Set::of(&[&["status"]]);
    let mut new = made(
        ty,
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx", "labels": {"app": "nginx"}},
        "spec": {"selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}}}),
    );
    update(None, &mut new, &request(ty, "kubectl-create", &none));
    let expect = json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"nginx\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                    "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}}}}}}]);
    assert_eq!(new["metadata"]["managedFields"], expect);
    // The same again changes nothing.
    let live = new.clone();
    update(Some(&live), &mut new, &request(ty, "other", &none));
    assert_eq!(new, live);
    // A change moves the field to whoever made it.
    new["spec"]["replicas"] = json!(3);
    update(Some(&live), &mut new, &request(ty, "scaler", &none));
    assert_eq!(owners(&new)["scaler Update"], json!({"f:spec": {"f:replicas": {}}}));
    assert!(owners(&new)["kubectl-create Update"]["f:spec"].get("f:replicas").is_none());
}

#[test]
fn applying() {
    let ty = kind("v1", "ConfigMap").unwrap();
    let none = Set::new();
    let r = |manager| request(ty, manager, &none);
    let created = apply(None, &map(json!({"a": "1", "b": "2"})), &r("x"), false).unwrap();
    assert_eq!(created["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(owners(&created), json!({"x Apply": {"f:data": {"f:a": {}, "f:b": {}}}}));
    // What is no longer stated goes; what others state stays.
    let second = apply(Some(&created), &map(json!({"b": "2", "c": "3"})), &r("y"), false).unwrap();
    assert_eq!(
        owners(&second),
        json!({"x Apply": {"f:data": {"f:a": {}, "f:b": {}}}, "y Apply": {"f:data": {"f:b": {}, "f:c": {}}}})
    );
    let third = apply(Some(&second), &map(json!({})), &r("x"), false).unwrap();
    assert_eq!(third["data"], json!({"b": "2", "c": "3"}));
    // Conflicts, and force.
    let error = apply(Some(&second), &map(json!({"a": "9", "b": "9"})), &r("y"), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 2 conflicts: conflicts with \"x\":\n- .data.a\n- .data.b");
    let error = apply(Some(&created), &map(json!({"a": "9"})), &r("y"), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"x\": .data.a");
    let ApplyError::Conflicts(conflicts) = error else { panic!() };
    assert_eq!((conflicts[0].message().as_str(), conflicts[0].field().as_str()), ("conflict with \"x\"", ".data.a"));
    let forced = apply(Some(&created), &map(json!({"a": "9"})), &r("y"), true).unwrap();
    assert_eq!(owners(&forced), json!({"x Apply": {"f:data": {"f:b": {}}}, "y Apply": {"f:data": {"f:a": {}}}}));
    // No change, no new time.
    let later = Request { now: "2030-01-01T00:00:00Z", ..r("x") };
    assert_eq!(apply(Some(&created), &map(json!({"a": "1", "b": "2"})), &later, false).unwrap(), created);
}

#[test]
fn an_updated_object_is_contested_with_the_updater() {
    let ty = kind("v1", "ConfigMap").unwrap();
    let none = Set::new();
    let mut live = made(ty, &map(json!({"a": "1"})));
    update(None, &mut live, &request(ty, "kubectl-create", &none));
    let error = apply(Some(&live), &map(json!({"a": "2"})), &request(ty, "x", &none), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"kubectl-create\" using v1: .data.a");
    // An object from before owners were noted.
    let live = made(ty, &map(json!({"a": "1"})));
    let applied = apply(Some(&live), &map(json!({"a": "1", "b": "1"})), &request(ty, "x", &none), false).unwrap();
    assert_eq!(
        owners(&applied),
        json!({"before-first-apply Update": {"f:data": {".": {}, "f:a": {}}}, "x Apply": {"f:data": {"f:a": {}, "f:b": {}}}})
    );
}

#[test]
fn lists() {
    let ty = kind("v1", "Pod").unwrap();
    let none = Set::of(&[&["status"]]);
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": ["a.b/c"]}, "spec": spec});
    let r = |manager| request(ty, manager, &none);
    let live = apply(None, &pod(json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}, {"name": "b"}], "tolerations": [{"key": "k"}]})), &r("x"), false).unwrap();
    assert_eq!(
        owners(&live)["x Apply"],
        json!({"f:metadata": {"f:finalizers": {"v:\"a.b/c\"": {}}}, "f:spec": {"f:tolerations": {}, "f:containers": {
        "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}, "f:ports": {
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
            "k:{\"containerPort\":80,\"protocol\":\"UDP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}},
        "k:{\"name\":\"b\"}": {".": {}, "f:name": {}}}}})
    );
    let mut other =
        pod(json!({"containers": [{"name": "c", "image": "z"}, {"name": "a", "env": [{"name": "e", "value": "1"}]}]}));
    other["metadata"]["finalizers"] = json!(["d.e/f"]);
    let both = apply(Some(&live), &other, &r("y"), false).unwrap();
    assert_eq!(both["metadata"]["finalizers"], json!(["a.b/c", "d.e/f"]));
    let names: Vec<&str> =
        both["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c", "a", "b"]);
    // The first takes its own away; the container that the other shares stays, without what was the first's.
    let less = apply(
        Some(&both),
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}}),
        &r("x"),
        false,
    )
    .unwrap();
    assert_eq!(
        less["spec"]["containers"],
        json!([{"name": "c", "image": "z"}, {"name": "a", "env": [{"name": "e", "value": "1"}]}])
    );
    assert_eq!(less["metadata"]["finalizers"], json!(["d.e/f"]));
    assert!(less["spec"].get("tolerations").is_none_or(Value::is_null));
    let error = apply(None, &pod(json!({"containers": [{"name": "a"}, {"name": "a"}]})), &r("x"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/p; /v1, Kind=Pod): .spec.containers: duplicate entries for key [name=\"a\"]"
    );
}

#[test]
fn bad_configurations() {
    let ty = kind("apps/v1", "Deployment").unwrap();
    let none = Set::new();
    let check = |config: Value, expect: &str| {
        let error = apply(None, &config, &request(ty, "x", &none), false).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    let of = |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec});
    check(
        of(json!({"foo": 1})),
        "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema",
    );
    check(
        of(json!({"replicas": "x"})),
        "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string",
    );
    check(
        of(json!({"template": {"metadata": {"labels": {"a": 1}}}})),
        "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.template.metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
    );
    check(
        of(json!({"template": {"spec": {"containers": [{"image": "x"}]}}})),
        "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
    );
    check(json!({"apiVersion": "v1", "kind": "Pod"}), "invalid object type: /v1, Kind=Pod");
    let mut stated = of(json!({}));
    stated["metadata"]["managedFields"] = json!([]);
    check(stated, "metadata.managedFields must be nil");
}

#[test]
fn resets_sub_resources_and_caps() {
    let ty = kind("apps/v1", "Deployment").unwrap();
    let (main, status) = (Set::of(&[&["status"]]), Set::of(&[&["spec"]]));
    let mut live = made(
        ty,
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"paused": true}}),
    );
    update(None, &mut live, &request(ty, "a", &main));
    let mut new = live.clone();
    new["status"]["replicas"] = json!(1);
    new["metadata"]["managedFields"] = json!([]);
    update(Some(&live), &mut new, &Request { subresource: "status", ..request(ty, "controller", &status) });
    assert_eq!(owners(&new)["controller Update status"], json!({"f:status": {"f:replicas": {}}}));
    assert!(owners(&new).get("a Update").is_some(), "owners sent to a sub-resource are not taken over");
    let mut reset = new.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    update(Some(&new), &mut reset, &request(ty, "b", &main));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    for i in 0..15 {
        let before = live.clone();
        live["metadata"]["annotations"][format!("k{i}")] = json!("v");
        let now = format!("2024-01-01T00:00:{i:02}Z");
        update(Some(&before), &mut live, &Request { now: &now, ..request(ty, &format!("m{i}"), &main) });
    }
    let owners = owners(&live);
    assert_eq!(owners.as_object().unwrap().len(), 10);
    assert!(owners["ancient-changes Update"]["f:metadata"]["f:annotations"].get("f:k3").is_some());
    assert!(owners.get("m14 Update").is_some());
}

#[test]
fn the_annotation_of_kubectl_is_taken_over_and_kept() {
    let ty = kind("v1", "ConfigMap").unwrap();
    let none = Set::new();
    let mut applied = map(json!({"a": "1"}));
    applied["metadata"]["annotations"] = json!({});
    let mut live = map(json!({"a": "1"}));
    live["metadata"]["annotations"] = json!({LAST_APPLIED: applied.to_string()});
    let mut live = made(ty, &live);
    update(None, &mut live, &request(ty, "kubectl-client-side-apply", &none));
    let error = apply(Some(&live), &map(json!({"a": "2"})), &request(ty, "other", &none), false).unwrap_err();
    assert!(matches!(error, ApplyError::Conflicts(_)));
    let taken = apply(Some(&live), &map(json!({"a": "2"})), &request(ty, "kubectl", &none), false).unwrap();
    assert_eq!(taken["data"]["a"], "2");
    let kept: Value = serde_json::from_str(taken["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap()).unwrap();
    assert_eq!(kept["data"]["a"], "2");
}

#[test]
fn custom_resources() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "proto"], "items": {"type": "object", "properties": {"port": {"type": "integer"}, "proto": {"type": "string", "default": "TCP"}, "v": {"type": "string"}}}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "either": {"x-kubernetes-int-or-string": true}}}}});
    let none = Set::new();
    let r = |manager| Request {
        schema: Schema::Custom(&schema),
        api_version: "g.io/v1",
        kind: "K",
        subresource: "",
        manager,
        now: "2024-01-01T00:00:00Z",
        reset: &none,
        versions: None,
    };
    let of = |spec: Value| json!({"apiVersion": "g.io/v1", "kind": "K", "metadata": {"name": "k"}, "spec": spec});
    let live = apply(None, &of(json!({"list": [{"port": 1, "v": "a"}], "set": ["x"], "atomic": {"a": "b"}, "free": {"deep": {"er": [1]}, "n": null}, "either": "80%"})), &r("x"), false).unwrap();
    assert_eq!(
        owners(&live)["x Apply"],
        json!({"f:spec": {"f:list": {"k:{\"port\":1,\"proto\":\"TCP\"}": {".": {}, "f:port": {}, "f:v": {}}},
        "f:set": {"v:\"x\"": {}}, "f:atomic": {}, "f:either": {}, "f:free": {"f:deep": {".": {}, "f:er": {}}, "f:n": {}}}})
    );
    let both = apply(
        Some(&live),
        &of(json!({"list": [{"port": 1, "proto": "UDP"}], "set": ["y"], "free": {"other": 1}})),
        &r("y"),
        false,
    )
    .unwrap();
    assert_eq!(both["spec"]["set"], json!(["x", "y"]));
    assert_eq!(both["spec"]["list"].as_array().unwrap().len(), 2);
    assert_eq!(both["spec"]["free"], json!({"deep": {"er": [1]}, "n": null, "other": 1}));
    let error = apply(Some(&live), &of(json!({"nothing": 1})), &r("y"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/k; g.io/v1, Kind=K): .spec.nothing: field not declared in schema"
    );
}

#[test]
fn a_schema_that_became_atomic() {
    let of = |kind: &str| {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "m": {"type": "object", "x-kubernetes-map-type": kind, "additionalProperties": {"type": "string"}}}}}})
    };
    let (before, after) = (of("granular"), of("atomic"));
    let none = Set::new();
    let r = |schema| Request {
        schema: Schema::Custom(schema),
        api_version: "g.io/v1",
        kind: "K",
        subresource: "",
        manager: "x",
        now: "2024-01-01T00:00:00Z",
        reset: &none,
        versions: None,
    };
    let config = |m: Value| json!({"apiVersion": "g.io/v1", "kind": "K", "metadata": {"name": "k"}, "spec": {"m": m}});
    let live = apply(None, &config(json!({"a": "1", "b": "2"})), &r(&before), false).unwrap();
    assert_eq!(owners(&live)["x Apply"], json!({"f:spec": {"f:m": {"f:a": {}, "f:b": {}}}}));
    let now = apply(Some(&live), &config(json!({"a": "1"})), &r(&after), false).unwrap();
    assert_eq!(owners(&now)["x Apply"], json!({"f:spec": {"f:m": {}}}));
    assert_eq!(now["spec"]["m"], json!({"a": "1"}));
}

/// A kind whose second version calls `data` `items`.
struct Renamed {
    v1: Value,
    v2: Value,
}

impl Versions for Renamed {
    fn schema(&self, api_version: &str) -> Option<Schema<'_>> {
        match api_version {
            "g.io/v1" => Some(Schema::Custom(&self.v1)),
            "g.io/v2" => Some(Schema::Custom(&self.v2)),
            _ => None,
        }
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let (from, to) = if api_version == "g.io/v2" { ("data", "items") } else { ("items", "data") };
        let mut object = object.clone();
        if let Some(data) = object.as_object_mut()?.remove(from) {
            object[to] = data;
        }
        object["apiVersion"] = json!(api_version);
        Some(object)
    }
}

#[test]
fn owners_in_other_versions() {
    let of = |name: &str| json!({"type": "object", "properties": {name: {"type": "object", "additionalProperties": {"type": "string"}}}});
    let versions = Renamed { v1: of("data"), v2: of("items") };
    let none = Set::new();
    let r = |version: &'static str, manager| Request {
        schema: versions.schema(version).unwrap(),
        api_version: version,
        kind: "K",
        subresource: "",
        manager,
        now: "2024-01-01T00:00:00Z",
        reset: &none,
        versions: Some(&versions),
    };
    let config = |version: &str, field: &str, data: Value| json!({"apiVersion": version, "kind": "K", "metadata": {"name": "k"}, field: data});
    let live = apply(None, &config("g.io/v1", "data", json!({"a": "1", "b": "2"})), &r("g.io/v1", "x"), false).unwrap();
    let in_v2 = versions.convert(&live, "g.io/v2").unwrap();
    let error =
        apply(Some(&in_v2), &config("g.io/v2", "items", json!({"a": "9"})), &r("g.io/v2", "y"), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"x\": .data.a");
    // The same applier goes on in the other version, and what it does not state any more goes.
    let moved = apply(Some(&in_v2), &config("g.io/v2", "items", json!({"a": "1"})), &r("g.io/v2", "x"), false).unwrap();
    assert_eq!(moved["items"], json!({"a": "1"}));
    assert_eq!(owners(&moved), json!({"x Apply": {"f:items": {"f:a": {}}}}));
    // Owners of a version that is gone are forgotten.
    let mut old = live.clone();
    old["metadata"]["managedFields"][0]["apiVersion"] = json!("g.io/v0");
    let taken = apply(Some(&old), &config("g.io/v1", "data", json!({"a": "9"})), &r("g.io/v1", "y"), false).unwrap();
    assert_eq!(owners(&taken), json!({"y Apply": {"f:data": {"f:a": {}}}}));
}

#[test]
fn scales() {
    let ty = kind("apps/v1", "Deployment").unwrap();
    let none = Set::new();
    let replicas =
        |version: &str| (version == "apps/v1").then(|| vec![Element::field("spec"), Element::field("replicas")]);
    let live = apply(None, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1, "paused": true}}), &request(ty, "x", &none), false).unwrap();
    let fields = to_scale(&live, &replicas).unwrap();
    assert_eq!(fields[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let mut scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "managedFields": fields}, "spec": {"replicas": 1}});
    let before = scale.clone();
    scale["spec"]["replicas"] = json!(5);
    let scale_type = kind("autoscaling/v1", "Scale").unwrap();
    update(Some(&before), &mut scale, &Request { subresource: "scale", ..request(scale_type, "hpa", &none) });
    let back = from_scale(&live, scale["metadata"].get("managedFields"), "apps/v1", &replicas).unwrap();
    let mut parent = live.clone();
    parent["metadata"]["managedFields"] = back;
    assert_eq!(
        owners(&parent),
        json!({"x Apply": {"f:spec": {"f:paused": {}}}, "hpa Update scale": {"f:spec": {"f:replicas": {}}}})
    );
}

#[test]
fn sets() {
    let fields = json!({"f:a": {".": {}, "f:b": {}}, "k:{\"n\":1}": {"f:x": {}}, "v:\"s\"": {}, "i:3": {}});
    let set = Set::from_fields(&fields).unwrap();
    assert_eq!(set.to_fields(), fields);
    let texts: Vec<String> = set.paths().iter().map(|p| path_text(p)).collect();
    assert_eq!(texts, [".a", ".a.b", "[n=1].x", "[=\"s\"]", "[3]"]);
    let a = Set::of(&[&["a"], &["a", "b"], &["c"]]);
    let b = Set::of(&[&["a"], &["d", "e"]]);
    assert_eq!(a.union(&b), Set::of(&[&["a"], &["a", "b"], &["c"], &["d", "e"]]));
    assert_eq!(a.intersection(&b), Set::of(&[&["a"]]));
    assert_eq!(a.difference(&b), Set::of(&[&["a", "b"], &["c"]]));
    assert_eq!(a.without(&b), Set::of(&[&["c"]]));
    for bad in [json!({"x": {}}), json!({"f": {}}), json!({"k:[]": {}}), json!({"v:{": {}}), json!({"i:x": {}})] {
        assert!(Set::from_fields(&bad).is_err(), "{bad}");
    }
    assert_eq!(manager_or_user_agent("", "kubectl/v1.36 (linux)"), "kubectl");
    assert_eq!(manager_or_user_agent("me", "kubectl/v1.36"), "me");
}

fn any_set() -> impl Strategy<Value = Set> {
    prop::collection::vec(prop::collection::vec("[ab]", 1..4), 0..5).prop_map(|paths| {
        let mut set = Set::new();
        for path in paths {
            set.insert(&path.iter().map(|p| Element::field(p)).collect::<Vec<_>>());
        }
        set
    })
}

/// A reference model: data of a ConfigMap, and who states which keys.
#[derive(Default)]
struct Model {
    data: BTreeMap<String, String>,
    stated: BTreeMap<String, BTreeMap<String, String>>,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_applies_agree_with_a_simple_model(steps in prop::collection::vec((0..3u8, prop::collection::btree_map("[a-d]", "[12]", 0..4), any::<bool>()), 1..12)) {
        let ty = kind("v1", "ConfigMap").unwrap();
        let none = Set::new();
        let mut model = Model::default();
        let mut live: Option<Value> = None;
        for (who, config, force) in steps {
            let name = format!("m{who}");
            let mut stated = map(json!(config));
            if config.is_empty() {
                // An empty map stated is a field of its own.
                stated.as_object_mut().unwrap().remove("data");
            }
            let result = apply(live.as_ref(), &stated, &request(ty, &name, &none), force);
            let contested = config.iter().any(|(k, v)| {
                model.data.get(k).is_some_and(|old| old != v) && model.stated.iter().any(|(m, s)| *m != name && s.contains_key(k))
            });
            prop_assert_eq!(result.is_err(), contested && !force);
            let Ok(object) = result else { continue };
            for (manager, stated) in &mut model.stated {
                if *manager != name {
                    stated.retain(|k, _| config.get(k).is_none_or(|v| model.data.get(k) == Some(v)));
                }
            }
            let before = model.stated.insert(name.clone(), config.clone()).unwrap_or_default();
            for key in before.keys() {
                if !model.stated.values().any(|s| s.contains_key(key)) {
                    model.data.remove(key);
                }
            }
            model.data.extend(config);
            let got: BTreeMap<String, String> = object["data"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
            prop_assert_eq!(&got, &model.data);
            live = Some(decode_value(object, ty, Mode::Lenient).unwrap().value);
        }
    }

    #[test]
    fn sets_and_their_text_agree(a in any_set(), b in any_set()) {
        let mut fields = a.to_fields();
        prop_assert_eq!(b.touches_fields(&fields), !a.intersection(&b).is_empty());
        b.remove_from_fields(&mut fields);
        prop_assert_eq!(&fields, &a.difference(&b).to_fields());
        let mut fields = a.to_fields();
        b.add_to_fields(&mut fields);
        prop_assert_eq!(&fields, &a.union(&b).to_fields());
        prop_assert_eq!(Set::from_fields(&fields).unwrap(), a.union(&b));
    }

    #[test]
    fn no_managed_fields_panic(text in ".{0,10}", kind_of in 0..4u8) {
        let key = format!("{}{text}", ["f:", "k:", "v:", ""][usize::from(kind_of)]);
        let _ = Set::from_fields(&json!({key: {".": {}, "f:x": {}}}));
    }
}

use super::*;
use crate::table::{kind, types};
use proptest::prelude::*;

fn decode(api_version: &str, name: &str, text: &str) -> Result<Decoded, DecodeError> {
    decode_json(text.as_bytes(), kind(api_version, name).unwrap(), Mode::Strict)
}

#[test]
fn values_are_as_go_prints_them() {
    let check = |api_version: &str, name: &str, text: &str, expect: &str| {
        let got = decode(api_version, name, text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(got.value, serde_json::from_str::<Value>(expect).unwrap(), "{text}");
        assert_eq!(got.strict, Vec::<String>::new());
        let again = decode_value(got.value.clone(), kind(api_version, name).unwrap(), Mode::Strict).unwrap();
        assert_eq!(again, got, "decoding again changes nothing");
    };
    check(
        "v1",
        "ConfigMap",
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","labels":{}},"data":{"k":"v"},"immutable":false}"#,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"},"immutable":false}"#,
    );
    check(
        "v1",
        "Pod",
        r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}],"restartPolicy":"","nodeSelector":null}}"#,
        r#"{"metadata":{},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}]},"status":{}}"#,
    );
    check(
        "v1",
        "Pod",
        r#"{"metadata":{"creationTimestamp":null,"deletionTimestamp":"2024-01-01T01:00:00+01:00"},"spec":null}"#,
        r#"{"metadata":{"deletionTimestamp":"2024-01-01T00:00:00Z"},"spec":{"containers":null},"status":{}}"#,
    );
    check(
        "v1",
        "Service",
        r#"{"spec":{"ports":[{"port":80}],"clusterIP":""}}"#,
        r#"{"metadata":{},"spec":{"ports":[{"port":80,"targetPort":0}]},"status":{"loadBalancer":{}}}"#,
    );
    check("v1", "Secret", r#"{"data":{"a":"YWJj\n","b":null}}"#, r#"{"metadata":{},"data":{"a":"YWJj","b":""}}"#);
    check("rbac.authorization.k8s.io/v1", "ClusterRole", r#"{"rules":[]}"#, r#"{"metadata":{},"rules":null}"#);
    check(
        "v1",
        "Event",
        r#"{"involvedObject":{},"eventTime":"2024-01-01T00:00:00.000001Z"}"#,
        r#"{"metadata":{},"involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,"eventTime":"2024-01-01T00:00:00.000001Z","reportingComponent":"","reportingInstance":""}"#,
    );
    check(
        "apps/v1",
        "ControllerRevision",
        r#"{"data":{"b":[1.0,{"a":null}]},"revision":3}"#,
        r#"{"metadata":{},"data":{"b":[1.0,{"a":null}]},"revision":3}"#,
    );
    check(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        r#"{"spec":{"group":"g","names":{"plural":"p","kind":"K"},"scope":"Cluster","versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"a":{"items":{"type":"string"},"additionalProperties":false,"default":{"x":1},"maximum":1.0}}}}}]}}"#,
        r#"{"metadata":{},"spec":{"group":"g","names":{"plural":"p","kind":"K"},"scope":"Cluster","versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"a":{"items":{"type":"string"},"additionalProperties":false,"default":{"x":1},"maximum":1}}}}}]},"status":{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}}"#,
    );
}

#[test]
fn strict_errors() {
    let check = |text: &str, expect: &[&str]| {
        assert_eq!(decode("v1", "Pod", text).unwrap().strict, expect, "{text}");
    };
    check(r#"{"foo":1}"#, &[r#"unknown field "foo""#]);
    check(r#"{"spec":{"containers":[{},{"foo":{"x":[1]}}]}}"#, &[r#"unknown field "spec.containers[1].foo""#]);
    check(r#"{"Spec":{}}"#, &[r#"unknown field "Spec""#]);
    check(
        r#"{"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}}}"#,
        &[r#"duplicate field "metadata.name""#, r#"duplicate field "metadata.labels.x""#],
    );
    check(r#"{"spec":{"overhead":{"cpu":"1"}},"status":{"a\"b":1}}"#, &[r#"unknown field "status.a\"b""#]);
    let many: Vec<String> = (0..150).map(|i| format!("\"f{i}\":1")).collect();
    assert_eq!(decode("v1", "Pod", &format!("{{{}}}", many.join(","))).unwrap().strict.len(), 100);
    let lenient = decode_json(br#"{"foo":1}"#, kind("v1", "Pod").unwrap(), Mode::Lenient).unwrap();
    assert!(lenient.strict.is_empty());
}

#[test]
fn errors_of_type() {
    let check = |text: &str, expect: &str| {
        assert_eq!(decode("v1", "Pod", text).unwrap_err().to_string(), expect, "{text}");
    };
    check(
        r#"{"spec":{"containers":"x"}}"#,
        "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    check(r#"{"spec":[]}"#, "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec");
    check("[]", "json: cannot unmarshal array into Go value of type v1.Pod");
    check("\"x\"", "json: cannot unmarshal string into Go value of type v1.Pod");
    check(
        r#"{"metadata":{"labels":{"a":1}}}"#,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    check(
        r#"{"metadata":{"labels":"a"}}"#,
        "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
    );
    check(
        r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}"#,
        "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
    );
    check(
        r#"{"spec":{"containers":[{"ports":[{"containerPort":3000000000}]}]}}"#,
        "json: cannot unmarshal number 3000000000 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
    );
    check(
        r#"{"spec":{"priority":1.5}}"#,
        "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
    );
    check(
        r#"{"spec":{"restartPolicy":true}}"#,
        "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
    );
    check(
        r#"{"spec":{"containers":[1]}}"#,
        "json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type v1.Container",
    );
    check(
        r#"{"metadata":{"creationTimestamp":5}}"#,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
    );
    check(
        r#"{"metadata":{"creationTimestamp":"x"}}"#,
        "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
    );
    check(
        r#"{"spec":{"overhead":{"cpu":"x"}}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check(
        r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":1.5}}}]}}"#,
        "json: cannot unmarshal number 1.5 into Go struct field HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
    );
    // The first one counts, but one of a type's own reader before it, and a syntax error before all.
    check(
        r#"{"spec":1,"metadata":2}"#,
        "json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec",
    );
    check(
        r#"{"spec":{"priority":"x","overhead":{"cpu":"x"}}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check(r#"{"spec":1,}"#, "invalid character '}' looking for beginning of object key string");
    check(r#"{} {}"#, "invalid character '{' after top-level value");
    let secret = decode("v1", "Secret", r#"{"data":{"a":"ab*="}}"#).unwrap_err();
    assert_eq!(secret.to_string(), "illegal base64 data at input byte 2");
    let crd = |schema: &str| {
        let text = format!(r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{schema}}}}}]}}}}"#);
        decode("apiextensions.k8s.io/v1", "CustomResourceDefinition", &text)
    };
    assert_eq!(crd(r#"{"additionalProperties":"x"}"#).unwrap_err().to_string(), "boolean or JSON schema expected");
    assert_eq!(
        crd(r#"{"items":{"type":1}}"#).unwrap_err().to_string(),
        "json: cannot unmarshal number into Go struct field JSONSchemaProps.spec.versions.schema.openAPIV3Schema.items of type string"
    );
    assert!(crd(r#"{"items":{"nothing":1}}"#).unwrap().strict.is_empty());
}

#[test]
fn untyped() {
    let d = decode_json_untyped(br#"{"a":{"b":1,"b":2.0},"c":[1e3,1.5,9223372036854775808]}"#, Mode::Strict).unwrap();
    assert_eq!(d.value.to_string(), r#"{"a":{"b":2},"c":[1000,1.5,9.223372036854776e+18]}"#);
    assert_eq!(d.strict, [r#"duplicate field "a.b""#]);
    assert!(decode_json_untyped(b"[]", Mode::Strict).is_err());
}

#[test]
fn kind_and_version() {
    let check = |text: &str, expect: Result<(&str, &str), &str>| {
        let got = type_meta(text.as_bytes());
        let expect = expect
            .map(|(a, k)| TypeMeta { api_version: a.to_owned(), kind: k.to_owned() })
            .map_err(|e| DecodeError(format!("couldn't get version/kind; json parse error: {e}")));
        assert_eq!(got, expect, "{text}");
    };
    check(r#"{"spec":{"kind":"x"},"kind":"Pod","apiVersion":"v1"}"#, Ok(("v1", "Pod")));
    check("{}", Ok(("", "")));
    check("", Err("unexpected end of JSON input"));
    check("{\"kind\":1}", Err("json: cannot unmarshal number into Go struct field .kind of type string"));
}

#[test]
fn yaml_follows_the_same_rules() {
    let pod = kind("v1", "Pod").unwrap();
    let d = decode_yaml(b"metadata:\n  name: a\n  name: b\nspec:\n  foo: 1\n", pod, Mode::Strict).unwrap();
    assert_eq!(
        d.strict,
        ["yaml: unmarshal errors:\n  line 3: key \"name\" already set in map", r#"unknown field "spec.foo""#]
    );
    let e = decode_yaml(b"spec:\n  containers: x", pod, Mode::Strict).unwrap_err();
    assert_eq!(
        e.to_string(),
        "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"
    );
}

#[test]
fn invalid_utf8_is_replaced() {
    let d = decode_json(b"{\"metadata\":{\"name\":\"a\xff\"}}", kind("v1", "Pod").unwrap(), Mode::Strict).unwrap();
    assert_eq!(d.value["metadata"]["name"], "a\u{fffd}");
}

/// Any JSON text, with names that the schema knows more often than chance would give.
fn any_json() -> impl Strategy<Value = Value> {
    let names =
        prop::sample::select(vec!["metadata", "spec", "containers", "data", "labels", "x", "schema", "items", "cpu"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|v| Value::Object(v.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(value in any_json(), cut in any::<prop::sample::Index>(), byte in any::<u8>(), at in any::<prop::sample::Index>()) {
        let mut text = value.to_string().into_bytes();
        let roots: Vec<_> = types().filter(|t| t.is_kind).collect();
        let ty = roots[at.index(roots.len())];
        for _ in 0..2 {
            if let Ok(d) = decode_json(&text, ty, Mode::Strict) {
                prop_assert_eq!(decode_value(d.value.clone(), ty, Mode::Strict).map(|d| d.value), Ok(d.value));
            }
            let _ = (decode_json_untyped(&text, Mode::Strict), decode_yaml(&text, ty, Mode::Strict), type_meta(&text));
            let i = at.index(text.len());
            text[i] = byte;
            text.truncate(cut.index(text.len()) + 1);
        }
    }
}

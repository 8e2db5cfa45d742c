use super::*;
use crate::decode::{Mode, decode_value};
use crate::table::{Base, Form, kind, types};
use proptest::prelude::*;
use serde_json::{Map, json};

/// A value of a type with every field set, down to some depth.
fn filled(ty: &'static Type, depth: usize) -> Value {
    let mut map = Map::new();
    for f in &ty.fields {
        if f.number == 0 || depth == 0 && f.struct_type().is_some() {
            continue;
        }
        let one = match f.base {
            Base::Str => json!(format!("{}-é<", f.name)),
            Base::Bool => json!(true),
            Base::Int32 => json!(-7),
            Base::Int64 => json!(1i64 << 40),
            Base::Double => json!(1.5),
            Base::Bytes => json!("AP8="),
            Base::Time => json!("2024-02-29T01:02:03Z"),
            Base::MicroTime => json!("2024-02-29T01:02:03.000456Z"),
            Base::Quantity => json!("1500m"),
            Base::IntOrString if f.name.len() % 2 == 0 => json!("80%"),
            Base::IntOrString => json!(-3),
            Base::Raw | Base::Json => json!({"b": [1, 1.5, "x"], "a": null}),
            Base::Fields => json!({"f:a": {".": {}}}),
            Base::SchemaOrArray | Base::SchemaOrBool | Base::SchemaOrStrings if depth > 0 => {
                let schema = crate::table::named("apiextensions/v1", "JSONSchemaProps").unwrap();
                filled(schema, 0)
            }
            Base::SchemaOrArray => json!([{"type": "a"}, {"type": "b"}]),
            Base::SchemaOrBool => json!(true),
            Base::SchemaOrStrings => json!(["a", "b"]),
            Base::StringList => json!(["a", ""]),
            Base::Struct(id) => filled(id.get(), depth - 1),
        };
        let value = match f.form {
            Form::Plain | Form::Pointer => one,
            Form::List => json!([one.clone(), one]),
            Form::Map => json!({"k": one.clone(), "": one}),
        };
        map.insert(f.name.to_owned(), value);
    }
    Value::Object(map)
}

#[test]
fn every_kind_round_trips() {
    for ty in types() {
        for depth in 0..3 {
            let value = filled(ty, depth);
            let value = decode_value(value, ty, Mode::Strict).unwrap_or_else(|e| panic!("{}: {e}", ty.name));
            assert_eq!(value.strict, Vec::<String>::new());
            let body = to_body(&value.value, ty);
            let text = crate::encode::encode(&value.value, ty);
            assert_eq!(json_to_body(&text, ty).unwrap(), body, "{} from text", ty.name);
            let back = from_body(&body, ty).unwrap_or_else(|e| panic!("{}: {e}", ty.name));
            assert_eq!(back, value.value, "{} at depth {depth}", ty.name);
        }
        assert_eq!(&from_body(&to_body(&json!({}), ty), ty).unwrap(), ty.zero(), "{} empty", ty.name);
    }
}

#[test]
fn bytes_are_upstreams() {
    let ty = kind("v1", "ConfigMap").unwrap();
    let config = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let got = to_proto(&config, ty);
    let expect = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x1b\n\x11\n\x01a\x12\0\x1a\0\"\0*\x002\08\0B\0\x12\x06\n\x01k\x12\x01v\x1a\0\"\0";
    assert_eq!(got, expect);
    assert_eq!(from_proto(&got, ty).unwrap(), config);
    let opened = envelope(&got).unwrap();
    assert_eq!((opened.api_version.as_str(), opened.kind.as_str()), ("v1", "ConfigMap"));
}

#[test]
fn lists_and_frames() {
    let (pod, list) = (kind("v1", "Pod").unwrap(), kind("v1", "PodList").unwrap());
    let one =
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}});
    let body = to_body(&one, pod);
    let whole =
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [one, one]});
    let parts = List::new("v1", "PodList", &json!({"resourceVersion": "5"}), [body.len(); 2].into_iter());
    let before = List::before(body.len());
    let got = [&parts.head, before.as_ref(), &body, before.as_ref(), &body, &parts.tail].concat();
    assert_eq!(got, to_proto(&whole, list));
    assert_eq!(got.len(), parts.size);
    for (len, want) in [(0, &[18, 0][..]), (127, &[18, 127]), (128, &[18, 128, 1]), (300, &[18, 172, 2])] {
        assert_eq!(List::before(len).as_ref(), want, "{len}");
    }
    assert_eq!(from_proto(&got, list).unwrap(), whole);
    let object = to_proto(&one, pod);
    let frame = watch_frame("ADDED", &object);
    let read = read_watch_frame(&frame).unwrap().unwrap();
    assert_eq!(read, WatchFrame { event: "ADDED".to_owned(), object: &object, len: frame.len() });
    for cut in 0..frame.len() {
        assert_eq!(read_watch_frame(&frame[..cut]), Ok(None));
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
        "details": {"name": "x", "causes": [{"reason": "a", "message": "b", "field": "c"}]}});
    let ty = kind("v1", "Status").unwrap();
    assert_eq!(from_proto(&to_proto(&status, ty), ty).unwrap(), status);
}

#[test]
fn malformed_input_is_refused() {
    let pod = kind("v1", "Pod").unwrap();
    let check = |data: &[u8], expect: &str| assert_eq!(from_proto(data, pod).unwrap_err().to_string(), expect);
    check(b"", "empty data");
    check(b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]");
    check(b"k8s\0", "empty body");
    check(b"k8s\0\x12\x02\x08", "unexpected EOF");
    let body = |data: &[u8], expect: &str| assert_eq!(from_body(data, pod).unwrap_err().to_string(), expect);
    body(b"\x08\x01", "proto: wrong wireType = 0 for field Metadata");
    body(b"\x00", "proto: Pod: illegal tag 0 (wire type 0)");
    body(b"\x0c", "proto: Pod: wiretype end group for non-group");
    body(b"\x0a\xff", "unexpected EOF");
    body(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "proto: integer overflow");
    body(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "proto: negative length found during unmarshaling");
    // Unknown fields of every wire type are passed over.
    assert!(
        from_body(b"\xf8\x06\x01\xf9\x06\0\0\0\0\0\0\0\0\xfa\x06\x01x\xfb\x06\x08\x01\xfc\x06\xfd\x06\0\0\0\0", pod)
            .is_ok()
    );
    // Schemas within schemas without end.
    let schema = crate::table::named("apiextensions/v1", "JSONSchemaProps").unwrap();
    let not = schema.field("not").unwrap().number;
    let mut deep = vec![];
    for _ in 0..1000 {
        let mut writer = wire::Writer::with_capacity(deep.len() + 16);
        writer.bytes_field(not, &deep);
        deep = writer.finish();
    }
    assert_eq!(from_body(&deep, schema).unwrap_err().to_string(), "exceeded max depth");
}

/// A value's text with the entries of every map in some order, and white space.
fn shuffled(value: &Value, turn: &mut u64, out: &mut String) {
    let mut below = |n: usize| {
        *turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*turn >> 33) as usize % n
    };
    let space = ["", " ", "\n\t"][below(3)];
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            for i in 0..entries.len() {
                entries.swap(i, below(i + 1));
            }
            for (i, (key, value)) in entries.into_iter().enumerate() {
                *out += if i > 0 { "," } else { "{" };
                *out += &format!("{space}{} :{space}", json!(key));
                // These are held as the text they are.
                if key == "fieldsV1" { *out += &value.to_string() } else { shuffled(value, turn, out) }
            }
            *out += if map.is_empty() { "{ }" } else { "}" };
        }
        Value::Array(items) => {
            *out += "[";
            for (i, item) in items.iter().enumerate() {
                *out += if i > 0 { "," } else { space };
                shuffled(item, turn, out);
            }
            *out += "]";
        }
        other => *out += &other.to_string(),
    }
}

#[test]
fn text_is_written_as_its_tree() {
    let check = |text: &str, ty: &'static Type| {
        let tree: Value = serde_json::from_str(text).unwrap();
        assert_eq!(json_to_body(text.as_bytes(), ty).unwrap(), to_body(&tree, ty), "{} {text}", ty.name);
    };
    let mut turn = 1;
    for ty in types() {
        for depth in 0..3 {
            let mut text = String::new();
            shuffled(&filled(ty, depth), &mut turn, &mut text);
            check(&text, ty);
        }
        check("{}", ty);
    }
    let pod = kind("v1", "Pod").unwrap();
    for text in [
        // What is there twice, null, of another type, unknown, empty, or escaped.
        r#"{"metadata":{"name":"a","namespace":"b","name":"c"}}"#,
        r#"{"metadata":{"name":"a","uid":"u","name":null}}"#,
        r#"{"metadata":{"name":null,"labels":null,"namespace":"b"},"spec":null}"#,
        r#"{"metadata":{"name":5,"generation":"x","labels":[1],"finalizers":{"a":1}},"spec":[],"status":7}"#,
        r#"{"metadata":{"generation":1.5},"spec":{"priority":99999999999999999999,"hostNetwork":"yes"}}"#,
        r#"{"other":{"a":[1,{"b":"}"}]},"metadata":{"name":"a"},"more":[[],{}],"x":-1.5e3}"#,
        r#"{"metadata":{"labels":{},"finalizers":[]},"spec":{"containers":[],"nodeSelector":{}}}"#,
        r#"{"metadata":{"name":"\u00e9\"\\","labels":{"b\n":"2","a\t":"1"},"l\u0061bels":{"z":""}}}"#,
        r#"{"metadata":{"labels":{"a":"1","c":"3","b":"2"},"annotations":{"a":"1","a":"2"}}}"#,
        r#"{"spec":{"containers":[{"ports":[{"containerPort":80}],"name":"c"},null,{"image":"i","args":["",null,"b"]}]}}"#,
        r#"{"metadata":{"creationTimestamp":null,"deletionTimestamp":"2024-01-01T00:00:00Z","managedFields":[{"fieldsV1":{"f:a":{}}}]}}"#,
        // Names that begin as others do.
        r#"{"metadata":{"namespaces":"x","name":"a","name1":"b","generate":"c","generateName":"d","nam":"e"}}"#,
        r#"{"metadata":{"name":"a","namespace":"b","n":"c","":"d","resourceVersion":"7","resourceVersio":"x"}}"#,
        r#"{"metadata":{"creationTimestamp":"soon"},"status":{"startTime":"0001-01-01T00:00:00Z"}}"#,
    ] {
        check(text, pod);
    }
    let service = kind("v1", "Service").unwrap();
    check(
        r#"{"spec":{"ports":[{"targetPort":80},{"targetPort":"http"},{"targetPort":-1.5},{"targetPort":true}]}}"#,
        service,
    );
    // As Go reads base64: bits after the last byte are nothing.
    let secret = kind("v1", "Secret").unwrap();
    check(r#"{"data":{"a":"YR==","b":"","c":"YWJj"}}"#, secret);
    let body = json_to_body(br#"{"data":{"a":"YR=="}}"#, secret).unwrap();
    assert_eq!(from_body(&body, secret).unwrap()["data"]["a"], "YQ==");
    // Lengths that take one byte, two and three.
    for len in [0, 1, 113, 114, 115, 127, 128, 16_360, 16_370, 16_380, 16_383, 16_384, 70_000] {
        check(
            &json!({"metadata": {"name": "a".repeat(len)}, "spec": {"nodeSelector": {"k": "v".repeat(len)}}})
                .to_string(),
            pod,
        );
    }
}

#[test]
fn texts_are_written_alike_one_after_the_other() {
    let pod = kind("v1", "Pod").unwrap();
    let mut transcoder = Transcoder::for_many();
    for i in 0..200 {
        // Sets that are there again, that begin as others do, and more than are remembered.
        let set = |n: usize| (0..n % 7).map(|f| (format!("f:{f}"), json!({"k:{\"a\":1}": {}}))).collect::<Map<_, _>>();
        let managed: Vec<Value> = (0..3).map(|m| json!({"manager": "m", "fieldsV1": set(i * m)})).collect();
        let containers: Vec<Value> =
            (0..i % 4).map(|c| json!({"name": format!("c{c}"), "ports": [{"containerPort": i % 3}]})).collect();
        let spec =
            json!({"containers": containers, "securityContext": {}, "tolerations": [{"key": "a"}, {"key": "b"}]});
        let metadata = json!({"name": format!("p{i}"), "managedFields": managed});
        let text = json!({"metadata": metadata, "spec": spec}).to_string();
        assert_eq!(transcoder.body(text.as_bytes(), pod), json_to_body(text.as_bytes(), pod), "{text}");
        assert_eq!(json_to_body(text.as_bytes(), pod).unwrap(), to_body(&serde_json::from_str(&text).unwrap(), pod));
        assert!(transcoder.body(&text.as_bytes()[..text.len() - i % 5 - 1], pod).is_err());
    }
}

#[test]
fn text_that_is_no_object_is_refused() {
    let pod = kind("v1", "Pod").unwrap();
    let check = |text: &[u8], expect: &str| assert_eq!(json_to_body(text, pod).unwrap_err().to_string(), expect);
    check(b"", "unexpected end of JSON input");
    check(b"[]", "invalid character '[' at byte 0 of a JSON text");
    check(b"{} x", "invalid character 'x' at byte 3 of a JSON text");
    check(br#"{"metadata":{"name":"a"}"#, "unexpected end of JSON input");
    check(br#"{"metadata":{"name":"a"#, "unexpected end of JSON input");
    check(br#"{"metadata":{name:1}}"#, "invalid character 'n' at byte 13 of a JSON text");
    check(br#"{"spec":{"containers":[{} {}]}}"#, "invalid character '{' at byte 26 of a JSON text");
    check(br#"{"spec":{"hostNetwork":truth}}"#, "invalid character 't' at byte 23 of a JSON text");
    let schema = crate::table::named("apiextensions/v1", "JSONSchemaProps").unwrap();
    let deep = [r#"{"not":"#.repeat(1000), "}".repeat(1000)].concat();
    assert_eq!(json_to_body(deep.as_bytes(), schema).unwrap_err().to_string(), "exceeded max depth");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(at in any::<prop::sample::Index>(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>()) {
        let kinds: Vec<_> = types().filter(|t| t.is_kind).collect();
        let ty = kinds[at.index(kinds.len())];
        let mut data = to_proto(&filled(ty, 3), ty);
        for (i, byte) in edits {
            let i = i.index(data.len());
            data[i] = byte;
        }
        let _ = from_proto(&data, ty);
        data.truncate(cut.index(data.len()));
        let _ = (from_proto(&data, ty), from_body(&data, ty), read_watch_frame(&data), json_to_body(&data, ty));
    }
}

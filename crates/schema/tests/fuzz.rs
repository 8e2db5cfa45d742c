//! Broken and hostile input, made from whole objects by chance: it is refused or taken, and nothing panics. The chances
//! are those of fixed seeds; `PINTLE_FUZZ_SECONDS` goes on with more.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod random;

use std::time::{Duration, Instant};

use pintle_schema::apply::{self, Request, Schema, Set};
use pintle_schema::patch::{json_patch, merge_patch, strategic_merge_patch};
use pintle_schema::{Base, Form, Mode, Type, apply_defaults, decode, kind, proto, types};
use random::Random;
use serde_json::{Map, Value, json};

/// Runs `f` with `n` seeds, and with more while the time lasts that was asked for.
fn seeds(n: u64, mut f: impl FnMut(&mut Random)) {
    let seconds = std::env::var("PINTLE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed = 0;
    while seed < n || Instant::now() < end {
        f(&mut Random(seed));
        seed += 1;
    }
}

/// Text that means something to some parser.
const WORDS: &[&str] = &[
    "",
    "a",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "1.5Gi",
    "100m",
    "9223372036854775808",
    "2024-01-01T00:00:00Z",
    "80%",
    "metadata",
    "spec",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "name",
    "\u{0}",
    "é\u{10ffff}",
    "\\",
    "\"",
    "k:{\"name\":\"a\"}",
    "f:spec",
    ".",
    "~1",
    "~0",
    "/spec/-",
    "-",
];

fn any(r: &mut Random, depth: usize) -> Value {
    match r.below(if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(r.below(2) == 0),
        2 => json!(r.next() as i64),
        3 => json!(f64::from_bits(r.next())),
        4 => json!(r.of(WORDS)),
        5 => (0..r.below(4)).map(|_| any(r, depth - 1)).collect(),
        _ => (0..r.below(4)).map(|_| ((*r.of(WORDS)).to_owned(), any(r, depth - 1))).collect::<Map<_, _>>().into(),
    }
}

/// An object of a type with some of its fields, mostly of the right form.
fn object(r: &mut Random, ty: &'static Type, depth: usize) -> Value {
    let mut out = Map::new();
    if ty.is_kind {
        out.insert("apiVersion".into(), ty.api_version.into());
        out.insert("kind".into(), ty.name.into());
    }
    for f in &ty.fields {
        if f.number == 0 || r.below(3) == 0 || depth == 0 && f.struct_type().is_some() {
            continue;
        }
        let one = |r: &mut Random| match f.base {
            _ if r.below(40) == 0 => any(r, 2),
            Base::Str => json!(r.of(WORDS)),
            Base::Bool => json!(r.below(2) == 0),
            Base::Int32 => json!(r.next() as i32),
            Base::Int64 => json!(r.next() as i64),
            Base::Double => json!(1.5),
            Base::Bytes => json!("AP8="),
            Base::Time => json!("2024-02-29T01:02:03Z"),
            Base::MicroTime => json!("2024-02-29T01:02:03.000456Z"),
            Base::Quantity => json!(r.of(&["1", "1500m", "2Gi", "-3e4", "0.1"])),
            Base::IntOrString => json!(r.of(&["80%", "http"])),
            Base::StringList => json!(["a", ""]),
            Base::Struct(id) => object(r, id.get(), depth - 1),
            Base::Raw
            | Base::Fields
            | Base::Json
            | Base::SchemaOrArray
            | Base::SchemaOrBool
            | Base::SchemaOrStrings => any(r, 2),
        };
        let value = match f.form {
            Form::Plain | Form::Pointer => one(r),
            Form::List => (0..r.below(3)).map(|_| one(r)).collect(),
            Form::Map => (0..r.below(3)).map(|_| ((*r.of(WORDS)).to_owned(), one(r))).collect::<Map<_, _>>().into(),
        };
        out.insert(f.name.to_owned(), value);
    }
    out.into()
}

/// Breaks bytes: some changed, put in, left out, doubled, or the end cut off.
fn broken(r: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..r.below(4) {
        let at = r.below(bytes.len() + 1);
        match r.below(6) {
            0 if at < bytes.len() => bytes[at] = r.next() as u8,
            1 => bytes.insert(at, *r.of(b"{}[]\",:\\\0\xff0-eE\n\t &*!|>#")),
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            3 => bytes.truncate(at),
            4 => {
                let from = r.below(at + 1);
                let again = bytes[from..at].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let word = r.of(WORDS).as_bytes().to_vec();
                bytes.splice(at..at, word);
            }
        }
    }
    bytes
}

fn some_type(r: &mut Random) -> &'static Type {
    let kinds: Vec<&'static Type> = types().filter(|t| t.is_kind).collect();
    kinds[r.below(kinds.len())]
}

fn decode_all(bytes: &[u8], ty: &'static Type) {
    for mode in [Mode::Lenient, Mode::Strict] {
        if let Ok(mut d) = decode::decode_json(bytes, ty, mode) {
            // What was taken can be completed, written in each form and read again.
            apply_defaults(&mut d.value, ty);
            let text = pintle_schema::encode(&d.value, ty);
            let again = decode::decode_json(&text, ty, Mode::Lenient).expect("our own text").value;
            let body = proto::to_body(&again, ty);
            proto::from_body(&body, ty).expect("our own bytes");
        }
        let _ = decode::decode_json_untyped(bytes, mode);
        let _ = decode::decode_yaml(bytes, ty, mode);
        let _ = decode::decode_yaml_untyped(bytes, mode);
    }
    let _ = decode::type_meta(bytes);
    let _ = proto::json_to_body(bytes, ty);
    let _ = decode::yaml_to_value(bytes);
}

#[test]
fn texts() {
    seeds(500, |r| {
        let ty = some_type(r);
        let text = object(r, ty, 3).to_string().into_bytes();
        decode_all(&broken(r, text), ty);
    });
}

#[test]
fn hostile_texts() {
    let pod = kind("v1", "Pod").unwrap();
    let deep = |open: &str, n: usize| open.repeat(n).into_bytes();
    let mut all: Vec<(Vec<u8>, bool)> = vec![
        (deep("[", 1_000_000), false),
        (deep("{\"a\":", 1_000_000), false),
        (deep("- ", 100_000), false),
        (deep("a: {", 100_000), false),
        (b"\xff\xfe{}".to_vec(), false),
        (b"{\"metadata\":{\"name\":\"\xc3\x28\"}}".to_vec(), true),
        (b"{\"spec\":{\"priority\":1e400}}".to_vec(), false),
        (b"{\"spec\":{\"priority\":99999999999999999999999999999}}".to_vec(), false),
        (b"{\"spec\":{\"priority\":-}}".to_vec(), false),
        (b"{\"metadata\":{\"name\":\"\\ud800\"}}".to_vec(), true),
        (b"{\"kind\":\"Pod\",\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"spec\":{\"spec\":{}}}".to_vec(), true),
        (Vec::new(), false),
        (b"null".to_vec(), true),
        (b"{} {}".to_vec(), false),
    ];
    // Aliases that unfold to far more than they are.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{before}]\n");
    }
    all.push((bomb.into_bytes(), false));
    all.push((
        format!("{{\"metadata\":{{\"labels\":{{{}}}}}}}", "\"a\":\"b\",".repeat(100_000) + "\"a\":\"b\"").into_bytes(),
        true,
    ));
    for (text, good) in all {
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        assert_eq!(decode::decode_json(&text, pod, Mode::Strict).is_ok(), good, "{shown}");
        let _ = decode::decode_json_untyped(&text, Mode::Strict);
        let _ = decode::decode_yaml(&text, pod, Mode::Strict);
        let _ = decode::decode_yaml_untyped(&text, Mode::Strict);
        let _ = decode::type_meta(&text);
    }
}

#[test]
fn protobuf() {
    seeds(500, |r| {
        let ty = some_type(r);
        let Ok(made) = decode::decode_value(object(r, ty, 3), ty, Mode::Lenient) else { return };
        let whole = proto::to_proto(&made.value, ty);
        proto::from_proto(&whole, ty).expect("our own bytes");
        let bytes = broken(r, whole);
        let _ = proto::envelope(&bytes);
        let _ = proto::from_proto(&bytes, ty);
        // As another type, too: numbers mean other things there.
        let _ = proto::from_body(&bytes, some_type(r));
        let frame = broken(r, proto::watch_frame("ADDED", &bytes));
        let _ = proto::read_watch_frame(&frame);
    });
}

#[test]
fn patches_and_applies() {
    let none = Set::of(&[&["status"]]);
    seeds(500, |r| {
        let ty = some_type(r);
        let Ok(live) = decode::decode_value(object(r, ty, 3), ty, Mode::Lenient) else { return };
        let live = live.value;
        let patch = match r.below(3) {
            0 => object(r, ty, 3).to_string(),
            1 => any(r, 4).to_string(),
            _ => {
                let op = |r: &mut Random| {
                    let op = r.of(&["add", "remove", "replace", "move", "copy", "test", "x"]);
                    json!({"op": op, "path": format!("/{}/{}", r.of(WORDS), r.of(WORDS)), "from": format!("/{}", r.of(WORDS)), "value": any(r, 2)})
                };
                (0..r.below(4)).map(|_| op(r)).collect::<Value>().to_string()
            }
        };
        let patch = broken(r, patch.into_bytes());
        let patched = [
            json_patch(&live, &patch, Mode::Strict),
            merge_patch(&live, &patch, Mode::Strict),
            strategic_merge_patch(&live, &patch, ty, Mode::Strict),
        ];
        for p in patched.into_iter().flatten() {
            let _ = decode::decode_value(p.value, ty, Mode::Strict);
        }
        let request = |manager| Request {
            schema: Schema::Type(ty),
            api_version: ty.api_version,
            kind: ty.name,
            subresource: "",
            manager,
            now: "2024-01-01T00:00:00Z",
            reset: &none,
            versions: None,
        };
        let mut new = live.clone();
        apply::update(None, &mut new, &request("a"));
        // Owners that are not what a server writes.
        if r.below(4) == 0 {
            new["metadata"]["managedFields"] = json!([{"manager": "b", "operation": r.of(&["Apply", "Update", "x"]),
                "apiVersion": r.of(WORDS), "fieldsType": "FieldsV1", "fieldsV1": any(r, 4)}]);
        }
        if let Ok(config) = decode::decode_value(object(r, ty, 3), ty, Mode::Lenient) {
            let _ = apply::apply(Some(&new), &config.value, &request("c"), r.below(2) == 0);
        }
    });
}

/// RFC 7386, as it is written there.
fn merged(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = match target {
        Value::Object(t) => t,
        _ => Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let old = target.remove(name).unwrap_or(Value::Null);
            target.insert(name.clone(), merged(old, value));
        }
    }
    target.into()
}

#[test]
fn merge_patch_is_that_of_the_rfc() {
    seeds(1500, |r| {
        let map = |r: &mut Random, value: &mut dyn FnMut(&mut Random) -> Value| -> Value {
            (0..r.below(4)).map(|_| ((*r.of(&["a", "b", "c"])).to_owned(), value(r))).collect::<Map<_, _>>().into()
        };
        let leaf = |r: &mut Random| r.of(&[json!(1), json!("x"), json!([1, null]), json!(true)]).clone();
        let with_null = |r: &mut Random| if r.below(3) == 0 { Value::Null } else { leaf(r) };
        let doc = map(r, &mut |r| if r.below(2) == 0 { leaf(r) } else { map(r, &mut { leaf }) });
        let patch = map(r, &mut |r| if r.below(2) == 0 { with_null(r) } else { map(r, &mut { with_null }) });
        let got = merge_patch(&doc, patch.to_string().as_bytes(), Mode::Lenient).expect("a map on a map").value;
        assert_eq!(got, merged(doc.clone(), &patch), "{doc} + {patch}");
    });
}

#[test]
fn strategic_merge_of_lists_known_by_a_key() {
    let pod = kind("v1", "Pod").unwrap();
    let names = ["a", "b", "c", "d"];
    seeds(1000, |r| {
        // Containers by name, in order; a patch changes, adds and deletes some.
        let mut model: Vec<(String, Map<String, Value>)> = Vec::new();
        for name in &names[..r.below(4)] {
            model.push(((*name).to_owned(), json!({"name": name, "image": "0"}).as_object().unwrap().clone()));
        }
        let doc = json!({"spec": {"containers": model.iter().map(|(_, c)| c.clone()).collect::<Vec<_>>()}});
        let mut patch = Vec::new();
        let mut added = Vec::new();
        for name in names {
            match r.below(4) {
                0 => {
                    patch.push(json!({"name": name, "$patch": "delete"}));
                    model.retain(|(n, _)| n != name);
                }
                1 => {
                    let image = r.below(9).to_string();
                    patch.push(json!({"name": name, "image": image, "tty": true}));
                    let new = json!({"name": name, "image": image, "tty": true}).as_object().unwrap().clone();
                    match model.iter_mut().find(|(n, _)| n == name) {
                        Some((_, c)) => c.extend(new),
                        None => added.push((name.to_owned(), new)),
                    }
                }
                _ => {}
            }
        }
        let text = json!({"spec": {"containers": patch}}).to_string();
        let got = strategic_merge_patch(&doc, text.as_bytes(), pod, Mode::Lenient).expect("a patch of a pod").value;
        let mut got: Vec<Value> = got["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let mut want: Vec<Value> = model.into_iter().chain(added).map(|(_, c)| c.into()).collect();
        // Where new ones stand is a matter of `$setElementOrder`.
        for list in [&mut got, &mut want] {
            list.sort_by_key(|c| c["name"].to_string());
        }
        assert_eq!(got, want, "{doc} + {text}");
    });
}

//! What the schema costs: decoding, encoding, defaults, protobuf, patches and server-side apply of a Pod and a
//! Deployment of everyday size, with `serde_json`'s untyped parse beside them for comparison.

use divan::Bencher;
use divan::counter::BytesCount;
use pintle_schema::apply::{Request, Schema, Set, apply, update};
use pintle_schema::decode::{Mode, decode_json};
use pintle_schema::{Type, apply_defaults, encode, kind, patch, proto};
use serde_json::{Value, json};

fn main() {
    divan::main();
}

fn container(i: usize) -> Value {
    let env: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value of setting number {n}")}))
        .collect();
    json!({"name": format!("container-{i}"), "image": "registry.example.com/team/application:v1.2.3",
        "args": ["--verbose", "--port=8080"], "env": env,
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": true}, {"name": "data", "mountPath": "/data"}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "initialDelaySeconds": 10},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}})
}

fn spec() -> Value {
    json!({"containers": (0..3).map(container).collect::<Vec<_>>(),
        "volumes": [{"name": "config", "configMap": {"name": "settings"}}, {"name": "data", "emptyDir": {}}],
        "nodeSelector": {"kubernetes.io/os": "linux"}, "serviceAccountName": "application",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]})
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "application", "app.kubernetes.io/version": "1.2.3", "tier": "backend"})
}

fn pod_type() -> &'static Type {
    kind("v1", "Pod").unwrap_or_else(|| unreachable!("the table has pods"))
}

fn pod() -> Value {
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|t| json!({"type": t, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2024-01-01T00:00:00Z"}))
        .collect();
    let mut pod = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "application-5d4f8c7b9-abcde", "namespace": "production", "uid": "00000000-0000-4000-8000-000000000000",
            "resourceVersion": "123456", "creationTimestamp": "2024-01-01T00:00:00Z", "labels": labels(),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "application-5d4f8c7b9", "uid": "00000000-0000-4000-8000-000000000001", "controller": true}]},
        "spec": spec(), "status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}], "conditions": conditions}});
    apply_defaults(&mut pod, pod_type());
    pod
}

fn pod_text() -> Vec<u8> {
    encode(&pod(), pod_type())
}

fn decoded() -> Value {
    decode_json(&pod_text(), pod_type(), Mode::Strict).map(|d| d.value).unwrap_or_default()
}

#[divan::bench]
fn parse_untyped_with_serde_json(bencher: Bencher) {
    let text = pod_text();
    bencher.counter(BytesCount::new(text.len())).bench(|| serde_json::from_slice::<Value>(&text).is_ok());
}

#[divan::bench]
fn decode_strictly(bencher: Bencher) {
    let text = pod_text();
    bencher.counter(BytesCount::new(text.len())).bench(|| decode_json(&text, pod_type(), Mode::Strict).is_ok());
}

#[divan::bench]
fn encode_pod(bencher: Bencher) {
    let (text, value) = (pod_text(), decoded());
    bencher.counter(BytesCount::new(text.len())).bench(|| encode(&value, pod_type()));
}

#[divan::bench]
fn to_protobuf(bencher: Bencher) {
    let (text, value) = (pod_text(), decoded());
    bencher.counter(BytesCount::new(text.len())).bench(|| proto::to_proto(&value, pod_type()));
}

#[divan::bench]
fn from_protobuf(bencher: Bencher) {
    let bytes = proto::to_proto(&decoded(), pod_type());
    bencher.counter(BytesCount::new(bytes.len())).bench(|| proto::from_proto(&bytes, pod_type()).is_ok());
}

#[divan::bench]
fn json_text_to_protobuf(bencher: Bencher) {
    let text = pod_text();
    bencher.counter(BytesCount::new(text.len())).bench(|| proto::json_to_body(&text, pod_type()).is_ok());
}

/// What the first list of 10,000 small pods in protobuf has to do, whose texts, 19 MB, are in no cache: pods of one
/// template, and pods that have nothing larger in common than tolerations.
#[divan::bench(sample_count = 20, sample_size = 1, args = ["alike", "different"])]
fn json_texts_to_protobuf_of_ten_thousand(bencher: Bencher, pods: &str) {
    let template = include_str!("pod.json").trim();
    let text = |i: i32| {
        let text = template.replace("4711", &i.to_string());
        if pods == "alike" { text } else { text.replace("1.2.3", &format!("1.2.{i}")) }
    };
    let texts: Vec<Vec<u8>> = (0..10_000).map(|i| text(i).into_bytes()).collect();
    let bytes: usize = texts.iter().map(Vec::len).sum();
    bencher.counter(BytesCount::new(bytes)).bench(|| {
        let mut transcoder = proto::Transcoder::for_many();
        texts.iter().filter_map(|text| transcoder.body(text, pod_type()).ok()).collect::<Vec<_>>()
    });
}

#[divan::bench]
fn set_defaults(bencher: Bencher) {
    let value = decoded();
    bencher.with_inputs(|| value.clone()).bench_values(|mut v| {
        apply_defaults(&mut v, pod_type());
        v
    });
}

#[divan::bench]
fn strategic_merge(bencher: Bencher) {
    let value = decoded();
    let change =
        br#"{"metadata":{"labels":{"tier":"frontend"}},"spec":{"containers":[{"name":"container-1","image":"x"}]}}"#;
    bencher.bench(|| patch::strategic_merge_patch(&value, change, pod_type(), Mode::Strict).is_ok());
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "application", "namespace": "production", "labels": labels()},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels()}, "template": {"metadata": {"labels": labels()}, "spec": spec()}}})
}

fn request<'a>(reset: &'a Set, manager: &'a str) -> Request<'a> {
    let ty = kind("apps/v1", "Deployment").unwrap_or_else(|| unreachable!("the table has deployments"));
    Request {
        schema: Schema::Type(ty),
        api_version: "apps/v1",
        kind: "Deployment",
        subresource: "",
        manager,
        now: "2024-01-01T00:00:00Z",
        reset,
        versions: None,
    }
}

#[divan::bench]
fn apply_deployment(bencher: Bencher) {
    let reset = Set::of(&[&["status"]]);
    let live = apply(None, &deployment(), &request(&reset, "a"), false).unwrap_or_default();
    let mut config = deployment();
    config["spec"]["replicas"] = json!(5);
    bencher.bench(|| apply(Some(&live), &config, &request(&reset, "a"), false).is_ok());
}

#[divan::bench]
fn track_update(bencher: Bencher) {
    let reset = Set::of(&[&["status"]]);
    let live = apply(None, &deployment(), &request(&reset, "a"), false).unwrap_or_default();
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(5);
    bencher.with_inputs(|| new.clone()).bench_values(|mut new| {
        update(Some(&live), &mut new, &request(&reset, "b"));
        new
    });
}

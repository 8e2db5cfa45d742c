//! Two API servers on one etcd, which Debian has as `etcd-server`, and what others write there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::InProcess;
use pintle_apiserver::{ApiServer, Config, StorageMediaType};
use pintle_store::conformance::server::{EtcdServer, plain};
use pintle_store::{EtcdStore, Outcome, Store, Txn};
use serde_json::{Value, json};

async fn api(etcd: &EtcdServer, media: StorageMediaType) -> InProcess {
    let mut config = Config::new(Arc::new(EtcdStore::connect(&plain(etcd.port)).await.unwrap()));
    config.storage_media_type = media;
    let api = ApiServer::new(config).unwrap();
    api.start().await.unwrap();
    InProcess { api, user: pintle_api::service::UserInfo::authenticated("admin", &["system:masters"]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_agree() {
    let (_, etcd) = EtcdServer::start(&[], plain).await;
    // One writes protobuf and one JSON: each reads both.
    let servers = [api(&etcd, StorageMediaType::Protobuf).await, api(&etcd, StorageMediaType::Json).await];
    let maps = "/api/v1/namespaces/default/configmaps";
    // What one acknowledged the other shows, however it is asked for.
    for i in 0..40 {
        let (a, b) = (&servers[i % 2], &servers[(i + 1) % 2]);
        let made = a.create(maps, &json!({"metadata": {"name": format!("m{i}")}, "data": {"k": "v"}})).await;
        let seen = b.get(&format!("{maps}/m{i}")).await;
        assert_eq!((seen.code, &seen.body), (200, &made));
        let listed = b.get(maps).await.body;
        let names: Vec<&str> =
            listed["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
        assert!(names.contains(&format!("m{i}").as_str()));
        let version = made["metadata"]["resourceVersion"].as_str().unwrap();
        let at_least = b.get(&format!("{maps}?resourceVersion={version}&resourceVersionMatch=NotOlderThan")).await;
        assert_eq!(at_least.code, 200);
    }
    // Changes by both at once: none is lost.
    let mut tasks = tokio::task::JoinSet::new();
    for (n, c) in servers.iter().enumerate() {
        for k in 0..4 {
            let c = InProcess { api: c.api.clone(), user: c.user.clone() };
            tasks.spawn(async move {
                for i in 0..10 {
                    let patch = json!({"data": {format!("s{n}-{k}-{i}"): "x"}}).to_string();
                    let path = "/api/v1/namespaces/default/configmaps/m0";
                    let answer = c.send("PATCH", path, "application/merge-patch+json", patch).await;
                    assert_eq!(answer.code, 200, "{}", answer.text);
                }
            });
        }
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    for c in &servers {
        let data = c.get(&format!("{maps}/m0")).await.body["data"].as_object().unwrap().len();
        assert_eq!(data, 81);
    }
    // A stale update loses against the other's.
    let old = servers[0].get(&format!("{maps}/m1")).await.body;
    let mut new = old.clone();
    new["data"]["k"] = "1".into();
    assert_eq!(servers[1].send("PUT", &format!("{maps}/m1"), "", new.to_string()).await.code, 200);
    assert_eq!(servers[0].send("PUT", &format!("{maps}/m1"), "", new.to_string()).await.code, 409);
    // No address and no port is given out twice.
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..40 {
        let c = &servers[i % 2];
        let c = InProcess { api: c.api.clone(), user: c.user.clone() };
        tasks.spawn(async move {
            let service =
                json!({"metadata": {"name": format!("s{i}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            c.create("/api/v1/namespaces/default/services", &service).await
        });
    }
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    while let Some(made) = tasks.join_next().await {
        let made = made.unwrap();
        let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        assert!(addresses.insert(address.clone()), "{address} twice");
        let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
        assert!(ports.insert(port), "{port} twice");
    }
    // What one gives back is the other's to give out.
    let port = ports.first().unwrap();
    let services = "/api/v1/namespaces/default/services";
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let again = json!({"metadata": {"name": "again"}, "spec": spec}).to_string();
    assert_eq!(servers[0].send("POST", services, "", again.clone()).await.code, 422);
    let holds = |s: &&Value| s["spec"]["ports"][0]["nodePort"] == json!(port);
    let listed = servers[1].get(services).await.body;
    let name = listed["items"].as_array().unwrap().iter().find(holds).unwrap()["metadata"]["name"].clone();
    let path = format!("{services}/{}", name.as_str().unwrap());
    assert_eq!(servers[1].send("DELETE", &path, "", "").await.code, 200);
    let answer = servers[0].send("POST", services, "", again).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_of_others_is_read_and_ours_is_theirs() {
    let (store, etcd) = EtcdServer::start(&[], plain).await;
    let ty = pintle_schema::kind("apps/v1", "Deployment").unwrap();
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d", "namespace": "default", "uid": "u",
        "generation": 1, "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {}});
    let mut whole = deployment.clone();
    pintle_schema::apply_defaults(&mut whole, ty);
    let key = "/registry/deployments/default/d";
    let put = Txn::default().put(key, pintle_schema::proto::to_proto(&whole, ty));
    assert!(matches!(store.txn(put).await.unwrap(), Outcome::Succeeded { .. }));
    let c = api(&etcd, StorageMediaType::Protobuf).await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let mut seen = c.get(path).await.body;
    seen["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let mut want = whole.clone();
    want["status"] = json!({});
    assert_eq!(seen, want);
    let patch = json!({"metadata": {"labels": {"x": "y"}}}).to_string();
    assert_eq!(c.send("PATCH", path, "application/merge-patch+json", patch).await.code, 200);
    let stored = store.get(key).await.unwrap().kv.unwrap().value;
    assert!(stored.starts_with(b"k8s\0"));
    let read: Value = pintle_schema::proto::from_proto(&stored, ty).unwrap();
    assert_eq!((&read["kind"], &read["apiVersion"]), (&json!("Deployment"), &json!("apps/v1")));
    assert_eq!(read["metadata"]["labels"], json!({"x": "y"}));
    assert!(read["metadata"]["resourceVersion"].is_null());
    // Every object the server itself wrote has this form, too.
    let listed = store.list(pintle_store::ListRequest::prefix("/registry/")).await.unwrap();
    for kv in listed.kvs {
        assert!(kv.value.starts_with(b"k8s\0"), "{}: {:?}", kv.key, &kv.value[..8.min(kv.value.len())]);
    }
}

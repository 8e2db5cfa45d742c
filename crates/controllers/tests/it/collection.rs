//! Garbage collection, nodes and evictions on the in-memory API.

use std::time::Duration;

use super::common::start;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_client::Patch;
use pintle_controllers::Config;
use serde_json::{Value, json};

fn owned(name: &str, owners: &[(&str, &str, bool)]) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(name, uid, block)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": block}))
        .collect();
    json!({"metadata": {"name": name, "namespace": "n", "ownerReferences": owners}})
}

fn with(policy: &str) -> DeleteOptions {
    DeleteOptions { propagation_policy: Some(policy.into()), ..DeleteOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn dependents_go_with_their_owners() {
    let c = start(&["garbage-collector-controller"], Config::default());
    let maps = c.client.of::<ConfigMap>();
    let uid = |m: ConfigMap| m.metadata.uid.unwrap();
    let a = uid(c.create(owned("a", &[])).await);
    let b = uid(c.create(owned("b", &[("a", &a, false)])).await);
    c.create::<ConfigMap>(owned("c", &[("b", &b, false)])).await;
    let other = uid(c.create(owned("other", &[])).await);
    c.create::<Secret>(owned("two", &[("a", &a, false), ("other", &other, false)])).await;
    // An owner that never was, and one in another namespace.
    c.create::<Secret>(owned("absent", &[("x", "no-such-uid", false)])).await;
    c.until::<Secret>("n", "the one without owner is gone", |s| s.len() == 1).await;
    c.settle().await;
    assert_eq!(c.list::<ConfigMap>("n").await.len(), 4);

    maps.delete_with("n", "a", &with("Background")).await.unwrap();
    c.until::<ConfigMap>("n", "a, b, c are gone", |m| m.len() == 1).await;
    // It still has an owner: only the reference to the one that is gone goes.
    c.until::<Secret>("n", "one owner left", |s| {
        s.len() == 1 && s[0].metadata.owner_references.as_ref().is_some_and(|o| o.len() == 1 && o[0].uid == other)
    })
    .await;

    maps.delete_with("n", "other", &with("Orphan")).await.unwrap();
    c.until::<Secret>("n", "left behind", |s| {
        s.len() == 1 && s[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
    })
    .await;
    c.until::<ConfigMap>("n", "gone", <[_]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn foreground_waits_for_what_blocks() {
    let c = start(&["garbage-collector-controller"], Config::default());
    let a: ConfigMap = c.create(owned("a", &[])).await;
    let a = a.metadata.uid.unwrap();
    let mut held = owned("held", &[("a", &a, true)]);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    c.create::<Secret>(held).await;
    c.create::<Secret>(owned("free", &[("a", &a, false)])).await;
    c.client.of::<ConfigMap>().delete_with("n", "a", &with("Foreground")).await.unwrap();
    c.until::<Secret>("n", "held is deleting, free is gone", |s| {
        s.len() == 1 && s[0].metadata.deletion_timestamp.is_some()
    })
    .await;
    c.settle().await;
    assert_eq!(c.list::<ConfigMap>("n").await.len(), 1, "the owner waits");
    c.client
        .of::<Secret>()
        .patch("n", "held", Patch::merge(&json!({"metadata": {"finalizers": null}})).unwrap())
        .await
        .unwrap();
    c.until::<ConfigMap>("n", "the owner goes last", <[_]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn cycles_are_broken() {
    let c = start(&["garbage-collector-controller"], Config::default());
    let a: ConfigMap = c.create(owned("a", &[])).await;
    let b: ConfigMap = c.create(owned("b", &[("a", &a.metadata.uid.unwrap(), true)])).await;
    let back = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "b", "uid": b.metadata.uid, "blockOwnerDeletion": true}]}});
    c.client.of::<ConfigMap>().patch("n", "a", Patch::merge(&back).unwrap()).await.unwrap();
    c.client.of::<ConfigMap>().delete_with("n", "a", &with("Foreground")).await.unwrap();
    c.until::<ConfigMap>("n", "both gone", <[_]>::is_empty).await;
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2024-01-01T00:00:00Z", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}})
}

#[tokio::test(start_paused = true)]
async fn silent_nodes_are_unknown_and_lose_their_pods() {
    let c = start(
        &[
            "node-lifecycle-controller",
            "taint-eviction-controller",
            "pod-garbage-collector-controller",
            "node-ipam-controller",
        ],
        Config { cluster_cidrs: vec!["10.244.0.0/16".into(), "fd00:10::/56".into()], ..Config::default() },
    );
    for name in ["n1", "n2", "n3"] {
        c.create::<Node>(node(name)).await;
        c.create::<Lease>(
            json!({"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name}}),
        )
        .await;
    }
    let nodes = c
        .until::<Node>("", "ranges", |n| {
            n.iter().all(|n| n.spec.as_ref().is_some_and(|s| s.pod_cidrs.as_ref().is_some_and(|c| c.len() == 2)))
        })
        .await;
    let mut ranges: Vec<String> =
        nodes.iter().flat_map(|n| n.spec.as_ref().unwrap().pod_cidrs.clone().unwrap()).collect();
    ranges.sort();
    ranges.dedup();
    assert_eq!(ranges.len(), 6);
    c.until::<Node>("", "old labels", |n| {
        n.iter().all(|n| n.metadata.labels.as_ref().unwrap().contains_key("beta.kubernetes.io/os"))
    })
    .await;
    let pod = |name: &str, tolerations: Value| {
        json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"nodeName": "n1", "tolerations": tolerations},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    c.create::<Pod>(pod("now", json!([]))).await;
    c.create::<Pod>(pod("later", json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]))).await;
    c.create::<Pod>(pod("never", json!([{"operator": "Exists"}]))).await;

    // n2 and n3 keep renewing, n1 does not.
    let began = tokio::time::Instant::now();
    let mut unknown_at = None;
    while began.elapsed() < Duration::from_secs(600) {
        c.pass(Duration::from_secs(10)).await;
        c.api.set_now(&c.clock.now().to_string());
        for name in ["n2", "n3"] {
            let renew = json!({"spec": {"renewTime": pintle_api::time::format_micro(c.clock.now())}});
            c.client.of::<Lease>().patch("kube-node-lease", name, Patch::merge(&renew).unwrap()).await.unwrap();
        }
        let n1: Node = c.client.of::<Node>().get("", "n1").await.unwrap();
        let ready = n1.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
        if ready.status == "Unknown" && unknown_at.is_none() {
            unknown_at = Some(began.elapsed().as_secs());
            assert_eq!(
                (ready.reason.as_deref(), ready.message.as_deref()),
                (Some("NodeStatusUnknown"), Some("Kubelet stopped posting node status."))
            );
        }
        let pods = c.list::<Pod>("n").await.len();
        match (unknown_at, began.elapsed().as_secs()) {
            (None, _) => assert_eq!(pods, 3),
            (Some(at), t) if t > at + 320 => assert_eq!(pods, 1),
            (Some(at), t) if t > at + 20 && t < at + 280 => assert_eq!(pods, 2),
            _ => {}
        }
    }
    assert!((50..=70).contains(&unknown_at.unwrap()), "{unknown_at:?}");
    let n1: Node = c.client.of::<Node>().get("", "n1").await.unwrap();
    let mut taints: Vec<String> =
        n1.spec.unwrap().taints.unwrap().iter().map(|t| format!("{}:{}", t.key, t.effect)).collect();
    taints.sort();
    assert_eq!(taints, ["node.kubernetes.io/unreachable:NoExecute", "node.kubernetes.io/unreachable:NoSchedule"]);
    let n2: Node = c.client.of::<Node>().get("", "n2").await.unwrap();
    assert!(n2.spec.unwrap().taints.is_none());
    let left = c.list::<Pod>("n").await;
    assert_eq!(
        left[0].status.as_ref().unwrap().conditions.as_ref().unwrap()[0].status,
        "False",
        "not ready on a node that is not"
    );

    // The node comes back.
    let ready = json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "2024-01-01T01:00:00Z"}]);
    c.client
        .of::<Node>()
        .patch_status("", "n1", Patch::merge(&json!({"status": {"conditions": ready}})).unwrap())
        .await
        .unwrap();
    c.until::<Node>("", "no taints", |n| n.iter().all(|n| n.spec.as_ref().unwrap().taints.is_none())).await;
    // And goes for good: its last pod goes too.
    c.client.of::<Node>().delete("", "n1", None).await.unwrap();
    c.until::<Pod>("n", "collected", <[_]>::is_empty).await;
}

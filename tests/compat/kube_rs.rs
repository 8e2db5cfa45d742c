//! kube-rs, with objects of no type.

use std::os::fd::AsFd;

use futures::{StreamExt, TryStreamExt};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, Config};
use pintle_testkit::Cluster;
use serde_json::{Value, json};

use crate::{NAMESPACE, cluster, named_objects};

/// Runs on the cluster's machine: in a thread whose network is that machine's.
fn on_machine(cluster: &Cluster, f: impl AsyncFnOnce(Client) + Send) {
    let netns = std::fs::File::open(cluster.machine().netns()).expect("the machine is there");
    let kubeconfig = cluster.kubeconfig();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(netns.as_fd(), network).expect("tests run as root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let config = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
                let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
                f(Client::try_from(config.expect("a configuration")).expect("a client")).await;
            });
        });
    });
}

async fn one(client: &Client, object: Value) {
    let what = format!("{} {}", object["apiVersion"], object["kind"]);
    let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let (resource, capabilities) =
        pinned_kind(client, &GroupVersionKind::gvk(group, version, kind)).await.expect(&what);
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Namespaced => Api::namespaced_with(client.clone(), NAMESPACE, &resource),
        Scope::Cluster => Api::all_with(client.clone(), &resource),
    };
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let typed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let ours = ListParams::default().labels("compat=yes");
    let before = api.list(&ours).await.unwrap().metadata.resource_version.unwrap();
    let watch = WatchParams::default().labels("compat=yes").timeout(60);
    let mut events = api.watch(&watch, &before).await.unwrap().boxed();
    let made = api.create(&PostParams::default(), &typed).await.expect(&what);
    let twice = api.create(&PostParams::default(), &typed).await.unwrap_err();
    assert!(matches!(&twice, kube::Error::Api(s) if s.reason == "AlreadyExists"), "{what}: {twice}");
    assert_eq!(api.get(&name).await.unwrap().metadata.uid, made.metadata.uid, "{what}");
    assert!(api.list(&ours).await.unwrap().iter().any(|o| o.metadata.name.as_deref() == Some(&name)), "{what}");
    let note = |key: &str| json!({"metadata": {"annotations": {key: "1"}}});
    let plain = PatchParams::default();
    api.patch(&name, &plain, &Patch::Merge(note("merge"))).await.expect(&what);
    api.patch(&name, &plain, &Patch::Strategic(note("strategic"))).await.expect(&what);
    let mut applied = object.clone();
    applied.as_object_mut().unwrap().remove("stringData");
    applied["metadata"] = json!({"name": name, "annotations": {"applied": "1"}});
    api.patch(&name, &PatchParams::apply("compat").force(), &Patch::Apply(&applied)).await.expect(&what);
    let now = api.get_metadata(&name).await.unwrap().metadata;
    for key in ["merge", "strategic", "applied"] {
        assert_eq!(now.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str), Some("1"), "{what} {key}");
    }
    api.delete_collection(&DeleteParams::default(), &ours.clone().fields(&format!("metadata.name={name}")))
        .await
        .expect(&what);
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.expect(&what) {
        let (word, o) = match event {
            WatchEvent::Added(o) => ("added", o),
            WatchEvent::Modified(o) => ("modified", o),
            WatchEvent::Deleted(o) => ("deleted", o),
            other => panic!("{what}: {other:?}"),
        };
        if o.metadata.name.as_deref() == Some(&name) {
            seen.push(word);
        }
        if seen.last() == Some(&"deleted") {
            break;
        }
    }
    assert!(seen.first() == Some(&"added") && seen.contains(&"modified"), "{what}: {seen:?}");
    assert!(api.get_opt(&name).await.unwrap().is_none(), "{what}");
}

#[test]
fn kube_rs() {
    let cluster = cluster();
    on_machine(&cluster, async |client| {
        for object in named_objects("r") {
            // Namespaces cannot be deleted as a collection.
            if object["kind"] != "Namespace" {
                one(&client, object).await;
            }
        }
    });
}

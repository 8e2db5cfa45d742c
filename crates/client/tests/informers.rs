//! Informers and views against the in-memory API, with faults.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use pintle_api::Status;
use pintle_api::resources::by_kind;
use pintle_api::service::UserInfo;
use pintle_client::informers::{BY_CONTROLLER, index_by_controller, orphans_of};
use pintle_client::meta::MetaOnly;
use pintle_client::testing::{FakeApi, Fault};
use pintle_client::{Change, Client, Informers, Patch, Scope, Subscription};
use serde_json::json;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "namespace": "n", "labels": {"v": value}}, "data": {"v": value}}),
    )
    .unwrap()
}

async fn set(client: &Client, name: &str, value: &str) {
    let patch = Patch::merge(&json!({"metadata": {"labels": {"v": value}}, "data": {"v": value}})).unwrap();
    client.of::<ConfigMap>().patch("n", name, patch).await.unwrap();
}

async fn next(events: &mut Subscription<MetaOnly>) -> String {
    let change =
        tokio::time::timeout(Duration::from_secs(600), events.next()).await.expect("a change").expect("a change");
    let label = |m: &MetaOnly| m.metadata.labels.get("v").map(str::to_owned).unwrap_or_default();
    match change {
        Change::Added(k, v) => format!("+{k} {}", label(&v)),
        Change::Modified(k, a, b) => format!("~{k} {}>{}", label(&a), label(&b)),
        Change::Deleted(k, v) => format!("-{k} {}", label(&v)),
    }
}

#[tokio::test(start_paused = true)]
async fn follows_through_faults() {
    let api = FakeApi::new();
    let client = Client::in_process(api.service(), UserInfo::default());
    client.of::<ConfigMap>().create(&config_map("a", "1")).await.unwrap();
    // The first list is refused, and every watch ends after one event.
    let lists = Arc::new(AtomicUsize::new(0));
    let counted = lists.clone();
    api.fault(move |r| {
        let uri = r.uri().to_string();
        if uri.contains("watch=true") {
            return Some(Fault::DropWatch(1));
        }
        if r.method() == http::Method::GET
            && uri.ends_with("/configmaps")
            && counted.fetch_add(1, Ordering::SeqCst) == 0
        {
            return Some(Fault::Status(Status::unavailable("not yet")));
        }
        None
    });
    let informers = Informers::new(client.clone());
    let informer = informers.of::<ConfigMap>();
    let view = informer.view::<MetaOnly>();
    let mut events = view.subscribe();
    view.synced().await;
    assert_eq!(next(&mut events).await, "+n/a 1");
    for i in 2..10 {
        set(&client, "a", &i.to_string()).await;
        assert_eq!(next(&mut events).await, format!("~n/a {}>{i}", i - 1));
    }
    assert_eq!(lists.load(Ordering::SeqCst), 2, "watches were resumed, not listed again");

    // Each watch carried one change; the ninth is open now.
    api.until(|a| a.requests().iter().filter(|(_, uri)| uri.contains("watch=true")).count() == 9).await;
    // History is gone while the informer is away: it lists again and tells the difference.
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    api.fault(move |r| {
        (r.uri().to_string().contains("watch=true") && is_down.load(Ordering::SeqCst))
            .then(|| Fault::Status(Status::unavailable("down")))
    });
    set(&client, "a", "10").await;
    // The open watch delivers this one and then ends.
    assert_eq!(next(&mut events).await, "~n/a 9>10");
    client.of::<ConfigMap>().create(&config_map("b", "1")).await.unwrap();
    client.of::<ConfigMap>().delete("n", "a", None).await.unwrap();
    client.of::<ConfigMap>().create(&config_map("c", "1")).await.unwrap();
    client.of::<ConfigMap>().delete("n", "c", None).await.unwrap();
    api.compact();
    down.store(false, Ordering::SeqCst);
    assert_eq!(next(&mut events).await, "-n/a 10");
    assert_eq!(next(&mut events).await, "+n/b 1");
    assert_eq!(informer.keys().iter().map(ToString::to_string).collect::<Vec<_>>(), ["n/b"]);
    assert!(informers.of::<ConfigMap>().get("n/b").is_some());
}

#[tokio::test(start_paused = true)]
async fn one_informer_for_all_and_scopes_apart() {
    let api = FakeApi::new();
    let client = Client::in_process(api.service(), UserInfo::default());
    let resource = by_kind("v1", "ConfigMap").unwrap();
    let informers = Informers::new(client.clone());
    for _ in 0..5 {
        informers.get(resource).synced().await;
        let _ = informers.of::<ConfigMap>().view::<MetaOnly>();
    }
    let lists =
        || api.requests().iter().filter(|(_, uri)| uri.contains("/configmaps") && !uri.contains("watch=true")).count();
    assert_eq!(lists(), 1);
    let ones = informers.scoped(resource, &Scope { labels: "v=1".into(), ..Scope::default() });
    let view = ones.view::<MetaOnly>();
    let mut events = view.subscribe();
    client.of::<ConfigMap>().create(&config_map("a", "1")).await.unwrap();
    client.of::<ConfigMap>().create(&config_map("b", "2")).await.unwrap();
    assert_eq!(next(&mut events).await, "+n/a 1");
    set(&client, "b", "1").await;
    assert_eq!(next(&mut events).await, "+n/b 1");
    set(&client, "a", "2").await;
    assert_eq!(next(&mut events).await, "-n/a 1");
    let uid = client.of::<ConfigMap>().get("n", "b").await.unwrap().metadata.uid.unwrap();
    assert!(client.of::<ConfigMap>().delete("n", "b", Some("other")).await.unwrap_err().is_conflict());
    client.of::<ConfigMap>().delete("n", "b", Some(&uid)).await.unwrap();
    assert_eq!(next(&mut events).await, "-n/b 1");
}

#[tokio::test(start_paused = true)]
async fn orphans_are_found_by_each_label() {
    let api = FakeApi::new();
    let client = Client::in_process(api.service(), UserInfo::default());
    let informers = Informers::new(client.clone());
    let view = informers.view::<ConfigMap, MetaOnly>();
    index_by_controller(&view);
    let mut events = view.subscribe();
    let owned = json!({"metadata": {"name": "owned", "namespace": "n", "labels": {"v": "1"}, "ownerReferences": [
        {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u", "controller": true}]}});
    for map in [config_map("a", "1"), config_map("b", "2"), serde_json::from_value(owned).unwrap()] {
        client.of::<ConfigMap>().create(&map).await.unwrap();
        next(&mut events).await;
    }
    let found = |value: &str| view.index_keys(BY_CONTROLLER, value).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found(&orphans_of("n", None)), ["n/a", "n/b"]);
    assert_eq!(found(&orphans_of("n", Some(("v", "1")))), ["n/a"]);
    assert_eq!(found(&orphans_of("n", Some(("v", "3")))), Vec::<String>::new());
    assert_eq!(found("u"), ["n/owned"]);
}

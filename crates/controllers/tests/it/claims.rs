//! Resource claims, tokens, service CIDRs, bootstrap tokens, and the lead, on the in-memory API.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use pintle_client::{Clock, Informers, Patch};
use pintle_controllers::Config;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::common::{Cluster, start};

#[tokio::test(start_paused = true)]
async fn claims_are_made_and_freed() {
    let c = start(&["resourceclaim-controller"], Config::default());
    c.create::<Pod>(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}})).await;
    c.settle().await;
    c.create::<ResourceClaimTemplate>(
        json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}),
    )
    .await;
    let pods = c
        .until::<Pod>("n", "named in the pod", |p| {
            p[0].status.as_ref().is_some_and(|s| s.resource_claim_statuses.as_ref().is_some_and(|s| s.len() == 1))
        })
        .await;
    let claims = c.list::<ResourceClaim>("n").await;
    assert_eq!(claims.len(), 1);
    let name = claims[0].metadata.name.clone().unwrap();
    assert!(name.starts_with("p-gpu-"), "{name}");
    assert_eq!(claims[0].metadata.labels.as_ref().unwrap()["a"], "b");
    // The scheduler allocates it; the pod runs and ends; it is freed, and gone.
    let uid = pods[0].metadata.uid.clone().unwrap();
    let hold = json!({"metadata": {"finalizers": ["resource.kubernetes.io/delete-protection"]}});
    c.client.of::<ResourceClaim>().patch("n", &name, Patch::merge(&hold).unwrap()).await.unwrap();
    let allocated =
        json!({"status": {"allocation": {}, "reservedFor": [{"resource": "pods", "name": "p", "uid": uid}]}});
    c.client.of::<ResourceClaim>().patch_status("n", &name, Patch::merge(&allocated).unwrap()).await.unwrap();
    c.client.of::<Pod>().patch("n", "p", Patch::merge(&json!({"spec": {"nodeName": "x"}})).unwrap()).await.unwrap();
    c.settle().await;
    assert!(c.list::<ResourceClaim>("n").await[0].status.as_ref().unwrap().allocation.is_some());
    let done = json!({"status": {"phase": "Succeeded"}});
    c.client.of::<Pod>().patch_status("n", "p", Patch::merge(&done).unwrap()).await.unwrap();
    c.until::<ResourceClaim>("n", "gone with its pod's work", <[_]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn secrets_are_given_tokens() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let config = Config { service_account_key: Some(key), root_ca: Some("CA".into()), ..Config::default() };
    let c = start(&["serviceaccount-token-controller"], config);
    let account: ServiceAccount = c.create(json!({"metadata": {"name": "sa", "namespace": "n"}})).await;
    let secret = |name: &str, account: &str| json!({"metadata": {"name": name, "namespace": "n", "annotations": {"kubernetes.io/service-account.name": account}}, "type": "kubernetes.io/service-account-token"});
    c.create::<Secret>(secret("t", "sa")).await;
    let filled =
        c.until::<Secret>("n", "filled", |s| s[0].data.as_ref().is_some_and(|d| d.contains_key("token"))).await;
    let data = filled[0].data.as_ref().unwrap();
    assert_eq!((data["ca.crt"].0.as_slice(), data["namespace"].0.as_slice()), (b"CA".as_slice(), b"n".as_slice()));
    assert_eq!(
        filled[0].metadata.annotations.as_ref().unwrap()["kubernetes.io/service-account.uid"],
        account.metadata.uid.unwrap()
    );
    // Of nobody there is no token, and with its account it goes.
    c.create::<Secret>(secret("nobody", "no-one")).await;
    c.until::<Secret>("n", "that of nobody is gone", |s| s.len() == 1).await;
    c.client.of::<ServiceAccount>().delete("n", "sa", None).await.unwrap();
    c.until::<Secret>("n", "gone", <[_]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn service_cidrs_stay_while_they_are_used() {
    let c = start(&["service-cidr-controller"], Config::default());
    c.create::<ServiceCIDR>(json!({"metadata": {"name": "a"}, "spec": {"cidrs": ["10.0.0.0/24"]}})).await;
    let condition = |s: &ServiceCIDR| {
        let c = s.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")?;
        Some((c.status.clone(), c.reason.clone()))
    };
    let is = |s: &[ServiceCIDR], status: &str, reason: &str| {
        s.first().and_then(condition) == Some((status.to_owned(), reason.to_owned()))
    };
    c.until::<ServiceCIDR>("", "ready", |s| is(s, "True", "") && s[0].metadata.finalizers.is_some()).await;
    c.create::<IPAddress>(json!({"metadata": {"name": "10.0.0.9", "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}}, "spec": {"parentRef": {"resource": "services", "name": "s"}}})).await;
    c.client.of::<ServiceCIDR>().delete("", "a", None).await.unwrap();
    c.until::<ServiceCIDR>("", "waits", |s| is(s, "False", "Terminating")).await;
    c.client.of::<IPAddress>().delete("", "10.0.0.9", None).await.unwrap();
    c.until::<ServiceCIDR>("", "gone", <[_]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn bootstrap_tokens_sign_and_expire() {
    let c = start(&["bootstrap-signer-controller", "token-cleaner-controller", "ttl-controller"], Config::default());
    c.create::<ConfigMap>(
        json!({"metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"kubeconfig": "x"}}),
    )
    .await;
    // Base64 of abcdef, 0123456789abcdef, true, and a time an hour from the start.
    c.create::<Secret>(json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}, "type": "bootstrap.kubernetes.io/token",
        "data": {"token-id": "YWJjZGVm", "token-secret": "MDEyMzQ1Njc4OWFiY2RlZg==", "usage-bootstrap-signing": "dHJ1ZQ==", "expiration": "MjAyNC0wMS0wMVQwMTowMDowMFo="}}))
    .await;
    let signatures = |m: &[ConfigMap]| m[0].data.as_ref().unwrap().keys().filter(|k| k.starts_with("jws-")).count();
    c.until::<ConfigMap>("kube-public", "signed", |m| signatures(m) == 1).await;
    c.until::<Secret>("kube-system", "expired", <[_]>::is_empty).await;
    c.until::<ConfigMap>("kube-public", "signed no more", |m| signatures(m) == 0).await;
    c.create::<Node>(json!({"metadata": {"name": "x"}})).await;
    c.until::<Node>("", "a time for its caches", |n| {
        n[0].metadata.annotations.as_ref().is_some_and(|a| a["node.alpha.kubernetes.io/ttl"] == "0")
    })
    .await;
}

/// Stands for the lead beside what runs already.
fn stand(c: &Cluster, identity: &'static str, clock: &Clock) -> CancellationToken {
    let stop = CancellationToken::new();
    let config = Config { controllers: vec!["serviceaccount-controller".into()], ..Config::default() };
    let (client, informers, clock, token) =
        (c.client.clone(), Informers::new(c.client.clone()), clock.clone(), stop.clone());
    tokio::spawn(async move { pintle_controllers::lead(client, informers, config, identity, clock, token).await });
    stop
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over() {
    let c = start(&[], Config::default());
    let first = stand(&c, "one", &c.clock);
    let holder = |l: &[Lease], who: &str| {
        l.first().is_some_and(|l| l.spec.as_ref().is_some_and(|s| s.holder_identity.as_deref() == Some(who)))
    };
    c.until::<Lease>("kube-system", "the first leads", |l| holder(l, "one")).await;
    let second = stand(&c, "two", &c.clock);
    c.create::<k8s_openapi::api::core::v1::Namespace>(
        json!({"metadata": {"name": "n"}, "status": {"phase": "Active"}}),
    )
    .await;
    c.until::<ServiceAccount>("n", "it works", |a| a.len() == 1).await;
    first.cancel();
    c.until::<Lease>("kube-system", "the second leads", |l| holder(l, "two")).await;
    c.client.of::<ServiceAccount>().delete("n", "default", None).await.unwrap();
    c.until::<ServiceAccount>("n", "it works, too", |a| a.len() == 1).await;
    second.cancel();
}

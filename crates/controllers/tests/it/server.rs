//! All controllers on the real API server, each under its own account and its bootstrap role.

use std::sync::Arc;
use std::time::Instant;

use super::common::Cluster;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use pintle_apiserver::ApiServer;
use pintle_client::{Clock, Patch};
use pintle_controllers::Config;
use pintle_store::MemoryStore;
use serde_json::{Value, json};

async fn cluster() -> Cluster {
    // RUST_LOG tells what controllers were refused.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let mut server = pintle_apiserver::Config::new(Arc::new(MemoryStore::new()));
    server.advertise_address = [192, 0, 2, 1].into();
    let server = ApiServer::new(server).unwrap();
    server.start().await.unwrap();
    let config =
        Config { root_ca: Some("CA".into()), cluster_cidrs: vec!["10.244.0.0/16".into()], ..Config::default() };
    super::common::start_on(server.service(), Clock::system(), &["*"], config)
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

#[tokio::test]
async fn workloads_on_the_real_server() {
    let c = cluster().await;
    let _kubelet = c.kubelet();
    c.create::<Namespace>(json!({"metadata": {"name": "n"}})).await;
    c.until::<ServiceAccount>("n", "default account", |a| a.len() == 1).await;
    c.until::<ConfigMap>("n", "root CA", |m| m.len() == 1).await;

    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}})).await;
    c.create::<Service>(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})).await;
    let complete = |d: &[Deployment]| {
        d.first().and_then(|d| Some((d.metadata.generation, d.status.as_ref()?))).is_some_and(|(g, s)| {
            s.observed_generation == g
                && s.updated_replicas == Some(3)
                && s.replicas == Some(3)
                && s.available_replicas == Some(3)
                && s.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"))
        })
    };
    c.until::<Deployment>("n", "rolled out", complete).await;
    c.until::<EndpointSlice>("n", "slices", |s| {
        s.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>() == 3
    })
    .await;
    c.until::<Endpoints>("n", "endpoints", |e| {
        e.first()
            .is_some_and(|e| e.subsets.as_ref().is_some_and(|s| s[0].addresses.as_ref().is_some_and(|a| a.len() == 3)))
    })
    .await;

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    c.client.of::<Deployment>().patch("n", "web", Patch::strategic(&image).unwrap()).await.unwrap();
    let d = c
        .until::<Deployment>("n", "rolled over", |d| {
            complete(d)
                && d[0].metadata.annotations.as_ref().is_some_and(|a| a["deployment.kubernetes.io/revision"] == "2")
        })
        .await;
    assert_eq!(c.list::<ReplicaSet>("n").await.len(), 2);
    assert_eq!(d[0].metadata.generation, Some(2), "the controller's writes are no new generation");
    let events =
        c.until::<Event>("n", "events", |e| e.iter().any(|e| e.reason.as_deref() == Some("ScalingReplicaSet"))).await;
    assert!(events.iter().all(|e| e.type_.as_deref() == Some("Normal")), "{events:#?}");

    // The Service's slices, and the Deployment's sets and pods, go with them.
    c.client.of::<Service>().delete("n", "web", None).await.unwrap();
    c.client.of::<Deployment>().delete("n", "web", None).await.unwrap();
    c.until::<EndpointSlice>("n", "no slices", <[_]>::is_empty).await;
    c.until::<Endpoints>("n", "no endpoints", <[_]>::is_empty).await;
    c.until::<ReplicaSet>("n", "no sets", <[_]>::is_empty).await;
    c.until::<Pod>("n", "no pods", <[_]>::is_empty).await;

    c.create::<StatefulSet>(json!({"metadata": {"name": "db", "namespace": "n"}, "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": template("v1"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})).await;
    c.until::<StatefulSet>("n", "in order", |s| {
        s[0].status.as_ref().is_some_and(|s| s.ready_replicas == Some(2) && s.current_revision == s.update_revision)
    })
    .await;
    assert_eq!(c.list::<PersistentVolumeClaim>("n").await.len(), 2);
    c.create::<Node>(json!({"metadata": {"name": "node"}})).await;
    c.create::<DaemonSet>(json!({"metadata": {"name": "ds", "namespace": "n"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "c", "image": "x"}]}}}})).await;
    c.until::<DaemonSet>("n", "a daemon", |d| {
        d[0].status.as_ref().is_some_and(|s| s.number_ready == 1 && s.updated_number_scheduled == Some(1))
    })
    .await;
    let node: Node = c.client.of::<Node>().get("", "node").await.unwrap();
    assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("10.244.0.0/24"));

    c.client.of::<Namespace>().delete("", "n", None).await.unwrap();
    c.until::<Namespace>("", "the namespace is gone", |n| !n.iter().any(|n| n.metadata.name.as_deref() == Some("n")))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_replicas() {
    let c = cluster().await;
    c.until::<ServiceAccount>("default", "default account", |a| a.len() == 1).await;
    let began = Instant::now();
    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 1000, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}})).await;
    c.until::<Pod>("default", "a thousand pods", |p| p.len() == 1000).await;
    println!("a thousand pods after {:?}", began.elapsed());
}

/// The Job once it is over.
async fn job_ends(c: &Cluster, name: &str) -> Job {
    let over = |j: &Job| {
        j.metadata.name.as_deref() == Some(name)
            && j.status.as_ref().and_then(|s| s.conditions.as_ref()).is_some_and(|c| {
                c.iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
            })
    };
    let jobs = c.until::<Job>("default", name, |j| j.iter().any(over)).await;
    jobs.into_iter().find(over).unwrap()
}

fn job(name: &str, image: &str, extra: Value) -> Value {
    let mut v = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "serviceAccountName": "default", "containers": [{"name": "c", "image": image}]}}}});
    for (k, e) in extra.as_object().unwrap() {
        v["spec"][k] = e.clone();
    }
    v
}

#[tokio::test]
async fn jobs_and_budgets_on_the_real_server() {
    let c = cluster().await;
    let _kubelet = c.kubelet();
    c.until::<ServiceAccount>("default", "default account", |a| a.len() == 1).await;
    c.create::<Job>(job("three", "succeeds", json!({"completions": 3, "parallelism": 2}))).await;
    let done = job_ends(&c, "three").await;
    let s = done.status.unwrap();
    assert_eq!((s.succeeded, s.failed.unwrap_or(0)), (Some(3), 0));
    assert!(s.completion_time.is_some() && s.start_time.is_some());
    // Every pod was let go once it was counted.
    let held = |p: &Pod| p.metadata.finalizers.iter().flatten().any(|f| f.contains("job-tracking"));
    c.until::<Pod>("default", "no pod is held", |p| p.len() == 3 && !p.iter().any(held)).await;

    c.create::<Job>(job(
        "indexed",
        "succeeds",
        json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed"}),
    ))
    .await;
    let done = job_ends(&c, "indexed").await;
    assert_eq!(done.status.unwrap().completed_indexes.as_deref(), Some("0,1"));

    c.create::<Job>(job("fails", "fails", json!({"backoffLimit": 0, "ttlSecondsAfterFinished": 0}))).await;
    c.create::<Job>(job("fails-too", "fails", json!({"backoffLimit": 0}))).await;
    let done = job_ends(&c, "fails-too").await;
    let failed = done.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    c.until::<Job>("default", "the one with no time left is gone", |j| {
        !j.iter().any(|j| j.metadata.name.as_deref() == Some("fails"))
    })
    .await;

    c.create::<Namespace>(json!({"metadata": {"name": "q"}})).await;
    c.until::<ServiceAccount>("q", "default account", |a| a.len() == 1).await;
    c.create::<ResourceQuota>(json!({"metadata": {"name": "q", "namespace": "q"}, "spec": {"hard": {"pods": "3", "count/replicasets.apps": "5", "requests.cpu": "10"}}})).await;
    let used = |q: &[ResourceQuota], key: &str| {
        q[0].status.as_ref().and_then(|s| s.used.as_ref()?.get(key).map(|q| q.0.clone()))
    };
    c.until::<ResourceQuota>("q", "counted", |q| used(q, "pods").as_deref() == Some("0")).await;
    let mut spec = template("v1");
    spec["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    c.create::<ReplicaSet>(json!({"metadata": {"name": "web", "namespace": "q"}, "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": spec}})).await;
    c.until::<ReplicaSet>("q", "three of five, and says why", |r| {
        r[0].status.as_ref().is_some_and(|s| {
            s.replicas == 3
                && s.conditions
                    .as_ref()
                    .is_some_and(|c| c[0].message.as_deref().is_some_and(|m| m.contains("exceeded quota")))
        })
    })
    .await;
    c.until::<ResourceQuota>("q", "used", |q| {
        used(q, "pods").as_deref() == Some("3") && used(q, "requests.cpu").as_deref() == Some("3")
    })
    .await;
    c.client.of::<ReplicaSet>().delete("q", "web", None).await.unwrap();
    c.until::<ResourceQuota>("q", "free again", |q| {
        used(q, "pods").as_deref() == Some("0") && used(q, "count/replicasets.apps").as_deref() == Some("0")
    })
    .await;

    c.create::<PodDisruptionBudget>(json!({"metadata": {"name": "b", "namespace": "default"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}})).await;
    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}})).await;
    c.until::<PodDisruptionBudget>("default", "one may go", |b| {
        b[0].status.as_ref().is_some_and(|s| s.disruptions_allowed == Some(1) && s.expected_pods == Some(3))
    })
    .await;
}

#[tokio::test]
async fn a_token_kept_in_a_secret_is_good_while_it_is_there_and_its_use_is_noted() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let mut config = pintle_apiserver::Config::new(Arc::new(MemoryStore::new()));
    config.advertise_address = [192, 0, 2, 1].into();
    config.service_account_signing_key = Some(pintle_apiserver::Pem::Text(key.clone().into_bytes()));
    let server = ApiServer::new(config).unwrap();
    server.start().await.unwrap();
    let config = Config { service_account_key: Some(key), ..Config::default() };
    let c = super::common::start_on(server.service(), Clock::system(), &["serviceaccount-token-controller"], config);
    c.create::<ServiceAccount>(json!({"metadata": {"name": "sa", "namespace": "default"}})).await;
    c.create::<Secret>(json!({"metadata": {"name": "t", "namespace": "default", "annotations": {"kubernetes.io/service-account.name": "sa"}}, "type": "kubernetes.io/service-account-token"})).await;
    let filled = c
        .until::<Secret>("default", "filled", |s| {
            s.iter().any(|s| s.data.as_ref().is_some_and(|d| d.contains_key("token")))
        })
        .await;
    let token = String::from_utf8(filled[0].data.as_ref().unwrap()["token"].0.clone()).unwrap();
    let who = || {
        let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}).to_string();
        let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(pintle_api::service::full(review))
            .unwrap();
        let service = server.service();
        async move { tower::ServiceExt::oneshot(service, request).await.unwrap() }
    };
    let answer = who().await;
    assert_eq!(answer.status(), 201);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "system:serviceaccount:default:sa");
    // Its use is noted, and since when that is done.
    let a_day = |d: &str| d.parse::<jiff::civil::Date>().is_ok();
    let used = c.list::<Secret>("default").await;
    let label = |key: &str| used[0].metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    assert!(label("kubernetes.io/legacy-token-last-used").is_some_and(|d| a_day(&d)), "{:?}", used[0].metadata);
    let tracking = "kube-apiserver-legacy-service-account-token-tracking";
    let since = c.list::<k8s_openapi::api::core::v1::ConfigMap>("kube-system").await;
    let since = since.into_iter().find(|m| m.metadata.name.as_deref() == Some(tracking)).unwrap();
    assert!(since.data.is_some_and(|d| a_day(&d["since"])));
    c.client.of::<Secret>().delete("default", "t", None).await.unwrap();
    assert_eq!(who().await.status(), 401);
}

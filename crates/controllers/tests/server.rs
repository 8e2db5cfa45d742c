//! All controllers on the real API server, each under its own account and its bootstrap role.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Cluster;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
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
    common::start_on(server.service(), Clock::system(), &["*"], config)
}

/// Plays kubelet and scheduler: pods are bound to a node and ready.
async fn make_ready(c: &Cluster, namespace: &str) {
    for pod in c.list::<Pod>(namespace).await {
        let name = pod.metadata.name.clone().unwrap();
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            let _ = c.client.of::<Pod>().delete_with(namespace, &name, &now).await;
        } else if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Running") {
            let at = pintle_api::time::format(c.clock.now());
            let ip = format!("10.1.{}.{}", name.len(), name.bytes().map(u32::from).sum::<u32>() % 250 + 1);
            let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}]}});
            let _ = c.client.of::<Pod>().patch_status(namespace, &name, Patch::strategic(&status).unwrap()).await;
        }
    }
}

async fn until<T: pintle_client::typed::Kind>(
    c: &Cluster,
    namespace: &str,
    what: &str,
    done: impl Fn(&[T]) -> bool,
) -> Vec<T> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        make_ready(c, namespace).await;
        let all = c.list::<T>(namespace).await;
        if done(&all) {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events: Vec<String> =
        c.list::<Event>(namespace).await.into_iter().map(|e| format!("{:?} {:?}", e.reason, e.message)).collect();
    panic!("never: {what}; {}\n{events:#?}", serde_json::to_string_pretty(&c.list::<T>(namespace).await).unwrap());
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

#[tokio::test]
async fn workloads_on_the_real_server() {
    let c = cluster().await;
    c.create::<Namespace>(json!({"metadata": {"name": "n"}})).await;
    until::<ServiceAccount>(&c, "n", "default account", |a| a.len() == 1).await;
    until::<ConfigMap>(&c, "n", "root CA", |m| m.len() == 1).await;

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
    until::<Deployment>(&c, "n", "rolled out", complete).await;
    until::<EndpointSlice>(&c, "n", "slices", |s| {
        s.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>() == 3
    })
    .await;
    until::<Endpoints>(&c, "n", "endpoints", |e| {
        e.first()
            .is_some_and(|e| e.subsets.as_ref().is_some_and(|s| s[0].addresses.as_ref().is_some_and(|a| a.len() == 3)))
    })
    .await;

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    c.client.of::<Deployment>().patch("n", "web", Patch::strategic(&image).unwrap()).await.unwrap();
    let d = until::<Deployment>(&c, "n", "rolled over", |d| {
        complete(d) && d[0].metadata.annotations.as_ref().is_some_and(|a| a["deployment.kubernetes.io/revision"] == "2")
    })
    .await;
    assert_eq!(c.list::<ReplicaSet>("n").await.len(), 2);
    assert_eq!(d[0].metadata.generation, Some(2), "the controller's writes are no new generation");
    let events =
        until::<Event>(&c, "n", "events", |e| e.iter().any(|e| e.reason.as_deref() == Some("ScalingReplicaSet"))).await;
    assert!(events.iter().all(|e| e.type_.as_deref() == Some("Normal")), "{events:#?}");

    // The Service's slices, and the Deployment's sets and pods, go with them.
    c.client.of::<Service>().delete("n", "web", None).await.unwrap();
    c.client.of::<Deployment>().delete("n", "web", None).await.unwrap();
    until::<EndpointSlice>(&c, "n", "no slices", <[_]>::is_empty).await;
    until::<Endpoints>(&c, "n", "no endpoints", <[_]>::is_empty).await;
    until::<ReplicaSet>(&c, "n", "no sets", <[_]>::is_empty).await;
    until::<Pod>(&c, "n", "no pods", <[_]>::is_empty).await;

    c.create::<StatefulSet>(json!({"metadata": {"name": "db", "namespace": "n"}, "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": template("v1"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})).await;
    until::<StatefulSet>(&c, "n", "in order", |s| {
        s[0].status.as_ref().is_some_and(|s| s.ready_replicas == Some(2) && s.current_revision == s.update_revision)
    })
    .await;
    assert_eq!(c.list::<PersistentVolumeClaim>("n").await.len(), 2);
    c.create::<Node>(json!({"metadata": {"name": "node"}})).await;
    c.create::<DaemonSet>(json!({"metadata": {"name": "ds", "namespace": "n"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "c", "image": "x"}]}}}})).await;
    until::<DaemonSet>(&c, "n", "a daemon", |d| {
        d[0].status.as_ref().is_some_and(|s| s.number_ready == 1 && s.updated_number_scheduled == Some(1))
    })
    .await;
    let node: Node = c.client.of::<Node>().get("", "node").await.unwrap();
    assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("10.244.0.0/24"));

    c.client.of::<Namespace>().delete("", "n", None).await.unwrap();
    let began = Instant::now();
    while c.client.of::<Namespace>().get_opt("", "n").await.unwrap().is_some() {
        make_ready(&c, "n").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let left =
            || async { serde_json::to_string_pretty(&c.client.of::<Namespace>().get("", "n").await.unwrap()).unwrap() };
        assert!(began.elapsed() < Duration::from_secs(30), "{}", left().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_replicas() {
    let c = cluster().await;
    until::<ServiceAccount>(&c, "default", "default account", |a| a.len() == 1).await;
    let began = Instant::now();
    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 1000, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}})).await;
    let pods = pintle_client::api::resources::by_kind("v1", "Pod").unwrap();
    while c.client.list(pods, "default", &pintle_client::ListParams::default()).await.unwrap().items.len() < 1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < Duration::from_secs(60), "a thousand pods take too long");
    }
    println!("a thousand pods after {:?}", began.elapsed());
}

/// Plays kubelet for a Job's pods: they end as told.
async fn end_pods(c: &Cluster, namespace: &str, phase: &str, code: i32) {
    for pod in c.list::<Pod>(namespace).await {
        let name = pod.metadata.name.clone().unwrap();
        let at = pintle_api::time::format(c.clock.now());
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = c.client.of::<Pod>().delete_with(namespace, &name, &now).await;
        } else if !matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")) {
            let status = json!({"status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": "Done", "startedAt": at, "finishedAt": at}}}]}});
            c.client.of::<Pod>().patch_status(namespace, &name, Patch::strategic(&status).unwrap()).await.unwrap();
        }
    }
}

async fn job_ends(c: &Cluster, name: &str, phase: &str, code: i32) -> Job {
    let began = Instant::now();
    loop {
        end_pods(c, "default", phase, code).await;
        let job: Job = c.client.of::<Job>().get("default", name).await.unwrap();
        let ended = |j: &Job| {
            j.status.as_ref().and_then(|s| s.conditions.as_ref()).is_some_and(|c| {
                c.iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
            })
        };
        if ended(&job) {
            return job;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", serde_json::to_string_pretty(&job).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn job(name: &str, extra: Value) -> Value {
    let mut v = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "serviceAccountName": "default", "containers": [{"name": "c", "image": "x"}]}}}});
    for (k, e) in extra.as_object().unwrap() {
        v["spec"][k] = e.clone();
    }
    v
}

#[tokio::test]
async fn jobs_and_budgets_on_the_real_server() {
    let c = cluster().await;
    until::<ServiceAccount>(&c, "default", "default account", |a| a.len() == 1).await;
    c.create::<Job>(job("three", json!({"completions": 3, "parallelism": 2}))).await;
    let done = job_ends(&c, "three", "Succeeded", 0).await;
    let s = done.status.unwrap();
    assert_eq!((s.succeeded, s.failed.unwrap_or(0)), (Some(3), 0));
    assert!(s.completion_time.is_some() && s.start_time.is_some());
    // Every pod was let go once it was counted.
    let held = |p: &Pod| p.metadata.finalizers.iter().flatten().any(|f| f.contains("job-tracking"));
    until::<Pod>(&c, "default", "no pod is held", |p| p.len() == 3 && !p.iter().any(held)).await;

    c.create::<Job>(job("indexed", json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed"}))).await;
    let done = job_ends(&c, "indexed", "Succeeded", 0).await;
    assert_eq!(done.status.unwrap().completed_indexes.as_deref(), Some("0,1"));

    c.create::<Job>(job("fails", json!({"backoffLimit": 0, "ttlSecondsAfterFinished": 0}))).await;
    c.create::<Job>(job("fails-too", json!({"backoffLimit": 0}))).await;
    let done = job_ends(&c, "fails-too", "Failed", 1).await;
    let failed = done.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    until::<Job>(&c, "default", "the one with no time left is gone", |j| {
        !j.iter().any(|j| j.metadata.name.as_deref() == Some("fails"))
    })
    .await;

    c.create::<Namespace>(json!({"metadata": {"name": "q"}})).await;
    until::<ServiceAccount>(&c, "q", "default account", |a| a.len() == 1).await;
    c.create::<ResourceQuota>(json!({"metadata": {"name": "q", "namespace": "q"}, "spec": {"hard": {"pods": "3", "count/replicasets.apps": "5", "requests.cpu": "10"}}})).await;
    let used = |q: &[ResourceQuota], key: &str| {
        q[0].status.as_ref().and_then(|s| s.used.as_ref()?.get(key).map(|q| q.0.clone()))
    };
    until::<ResourceQuota>(&c, "q", "counted", |q| used(q, "pods").as_deref() == Some("0")).await;
    let mut spec = template("v1");
    spec["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    c.create::<ReplicaSet>(json!({"metadata": {"name": "web", "namespace": "q"}, "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": spec}})).await;
    until::<ReplicaSet>(&c, "q", "three of five, and says why", |r| {
        r[0].status.as_ref().is_some_and(|s| {
            s.replicas == 3
                && s.conditions
                    .as_ref()
                    .is_some_and(|c| c[0].message.as_deref().is_some_and(|m| m.contains("exceeded quota")))
        })
    })
    .await;
    until::<ResourceQuota>(&c, "q", "used", |q| {
        used(q, "pods").as_deref() == Some("3") && used(q, "requests.cpu").as_deref() == Some("3")
    })
    .await;
    c.client.of::<ReplicaSet>().delete("q", "web", None).await.unwrap();
    until::<ResourceQuota>(&c, "q", "free again", |q| {
        used(q, "pods").as_deref() == Some("0") && used(q, "count/replicasets.apps").as_deref() == Some("0")
    })
    .await;

    c.create::<PodDisruptionBudget>(json!({"metadata": {"name": "b", "namespace": "default"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}})).await;
    c.create::<Deployment>(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}})).await;
    until::<PodDisruptionBudget>(&c, "default", "one may go", |b| {
        b[0].status.as_ref().is_some_and(|s| s.disruptions_allowed == Some(1) && s.expected_pods == Some(3))
    })
    .await;
}

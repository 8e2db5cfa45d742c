//! Workload controllers on the in-memory API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::common::{Cluster, start};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod};
use pintle_api::Status;
use pintle_client::Patch;
use pintle_client::testing::Fault;
use pintle_controllers::Config;
use serde_json::json;

const WORKLOADS: &[&str] = &[
    "daemonset-controller",
    "statefulset-controller",
    "replicaset-controller",
    "replicationcontroller-controller",
    "deployment-controller",
];

fn deployment(replicas: i32, image: &str) -> serde_json::Value {
    json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    }})
}

async fn rolled_out(c: &Cluster, n: i32) {
    c.until::<Deployment>("n", "rolled out", |d| {
        d[0].status.as_ref().is_some_and(|s| {
            s.updated_replicas == Some(n)
                && s.replicas == Some(n)
                && s.available_replicas == Some(n)
                && s.observed_generation == d[0].metadata.generation
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_scales_and_goes_back() {
    let c = start(WORKLOADS, Config::default());
    let _kubelet = c.kubelet();
    let d: Deployment = c.create(deployment(5, "v1")).await;
    rolled_out(&c, 5).await;
    let sets = c.list::<ReplicaSet>("n").await;
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0].metadata.owner_references.as_ref().unwrap()[0].uid, d.metadata.uid.unwrap());

    let image = |v: &str| {
        Patch::merge(&json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": v}]}}}})).unwrap()
    };
    c.client.of::<Deployment>().patch("n", "web", image("v2")).await.unwrap();
    rolled_out(&c, 5).await;
    let sizes = |sets: &[ReplicaSet]| {
        let mut v: Vec<_> = sets
            .iter()
            .map(|s| {
                (
                    s.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone(),
                    s.spec.as_ref().unwrap().replicas,
                )
            })
            .collect();
        v.sort();
        v
    };
    assert_eq!(sizes(&c.list::<ReplicaSet>("n").await), [("1".into(), Some(0)), ("2".into(), Some(5))]);

    c.client.of::<Deployment>().patch("n", "web", image("v1")).await.unwrap();
    rolled_out(&c, 5).await;
    assert_eq!(sizes(&c.list::<ReplicaSet>("n").await), [("2".into(), Some(0)), ("3".into(), Some(5))]);
    let d: Deployment = c.client.of::<Deployment>().get("n", "web").await.unwrap();
    assert_eq!(d.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"], "3");
    let condition = |kind: &str| {
        d.status
            .as_ref()
            .unwrap()
            .conditions
            .as_ref()
            .unwrap()
            .iter()
            .find(|c| c.type_ == kind)
            .unwrap()
            .reason
            .clone()
            .unwrap()
    };
    assert_eq!(
        (condition("Available"), condition("Progressing")),
        ("MinimumReplicasAvailable".into(), "NewReplicaSetAvailable".into())
    );

    c.client
        .of::<Deployment>()
        .patch("n", "web", Patch::merge(&json!({"spec": {"replicas": 2}})).unwrap())
        .await
        .unwrap();
    rolled_out(&c, 2).await;
    let events = c
        .until::<Event>("n", "scaling events", |e| e.iter().any(|e| e.reason.as_deref() == Some("ScalingReplicaSet")))
        .await;
    assert!(events.iter().any(|e| e.message.as_deref().unwrap().starts_with("Scaled up replica set web-")));
    // Settled: nobody writes any more.
    c.settle().await;
    let before = c.api.requests().len();
    c.settle().await;
    assert_eq!(c.api.requests().len(), before);
}

#[tokio::test(start_paused = true)]
async fn replicas_through_faults_are_neither_lost_nor_doubled() {
    let c = start(WORKLOADS, Config::default());
    let _kubelet = c.kubelet();
    // Every seventh write fails in turn with one or the other error.
    let n = Arc::new(AtomicUsize::new(0));
    c.api.fault(move |r| {
        let agent = r.headers().get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if r.method() == http::Method::GET || !agent.contains("controller") {
            return None;
        }
        let i = n.fetch_add(1, Ordering::SeqCst);
        (i % 7 == 3).then(|| match i % 3 {
            0 => Fault::Status(Status::modified("", "x", "y")),
            1 => Fault::Status(Status::internal("broken")),
            _ => Fault::Status(Status::too_many_requests("busy", 1)),
        })
    });
    c.create::<Deployment>(deployment(60, "v1")).await;
    c.until::<Pod>("n", "60 pods", |p| p.len() == 60).await;
    rolled_out(&c, 60).await;
    c.settle().await;
    assert_eq!(c.list::<Pod>("n").await.len(), 60);
}

#[tokio::test(start_paused = true)]
async fn replica_sets_adopt_release_and_replace() {
    let c = start(WORKLOADS, Config::default());
    let pod = |name: &str, app: &str| json!({"metadata": {"name": name, "namespace": "n", "labels": {"app": app}}, "spec": {"containers": []}});
    c.create::<Pod>(pod("orphan", "x")).await;
    let rs: ReplicaSet = c
        .create(json!({"metadata": {"name": "rs", "namespace": "n"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}}))
        .await;
    let uid = rs.metadata.uid.unwrap();
    let owned = |p: &Pod| p.metadata.owner_references.iter().flatten().any(|o| o.uid == uid);
    c.until::<Pod>("n", "one adopted, one made", |p| p.len() == 2 && p.iter().all(owned)).await;
    // A pod that stops matching is let go and replaced.
    c.client
        .of::<Pod>()
        .patch("n", "orphan", Patch::merge(&json!({"metadata": {"labels": {"app": "y"}}})).unwrap())
        .await
        .unwrap();
    let pods = c
        .until::<Pod>("n", "released and replaced", |p| p.len() == 3 && p.iter().filter(|p| owned(p)).count() == 2)
        .await;
    assert!(!owned(pods.iter().find(|p| p.metadata.name.as_deref() == Some("orphan")).unwrap()));
    // A pod that goes is replaced; one too many is deleted.
    let name = pods.iter().find(|p| owned(p)).unwrap().metadata.name.clone().unwrap();
    c.client.of::<Pod>().delete("n", &name, None).await.unwrap();
    c.until::<Pod>("n", "replaced", |p| {
        p.iter().filter(|p| owned(p)).count() == 2 && !p.iter().any(|p| p.metadata.name.as_ref() == Some(&name))
    })
    .await;
    c.client
        .of::<Pod>()
        .patch("n", "orphan", Patch::merge(&json!({"metadata": {"labels": {"app": "x"}}})).unwrap())
        .await
        .unwrap();
    c.until::<Pod>("n", "back to two", |p| p.iter().filter(|p| owned(p)).count() == 2 && p.len() == 2).await;
    c.until::<ReplicaSet>("n", "status", |r| r[0].status.as_ref().is_some_and(|s| s.replicas == 2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_keeps_its_number() {
    let c = start(WORKLOADS, Config::default());
    c.create::<k8s_openapi::api::core::v1::ReplicationController>(
        json!({"metadata": {"name": "rc", "namespace": "n"}, "spec": {"replicas": 3, "selector": {"app": "x"},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}}),
    )
    .await;
    let pods = c.until::<Pod>("n", "three pods", |p| p.len() == 3).await;
    assert_eq!(pods[0].metadata.owner_references.as_ref().unwrap()[0].kind, "ReplicationController");
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_goes_in_order_and_rolls() {
    let c = start(WORKLOADS, Config::default());
    c.create::<StatefulSet>(json!({"metadata": {"name": "db", "namespace": "n"}, "spec": {
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
    }}))
    .await;
    c.until::<Pod>("n", "the first alone", |p| p.len() == 1).await;
    c.settle().await;
    assert_eq!(c.list::<Pod>("n").await.len(), 1, "the second waits for the first");
    let _kubelet = c.kubelet();
    let rolled = |n: i32| {
        move |s: &[StatefulSet]| {
            s[0].status.as_ref().is_some_and(|s| {
                s.ready_replicas == Some(n)
                    && s.updated_replicas == Some(n)
                    && s.replicas == n
                    && s.current_revision == s.update_revision
            })
        }
    };
    c.until::<StatefulSet>("n", "three ready", rolled(3)).await;
    let names = |p: &[Pod]| p.iter().map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(names(&c.list::<Pod>("n").await), ["db-0", "db-1", "db-2"]);
    assert_eq!(c.list::<PersistentVolumeClaim>("n").await.len(), 3);
    let patch =
        Patch::merge(&json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}})).unwrap();
    c.client.of::<StatefulSet>().patch("n", "db", patch).await.unwrap();
    c.settle().await;
    c.until::<StatefulSet>("n", "rolled", rolled(3)).await;
    assert!(
        c.list::<Pod>("n").await.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v2"))
    );
    assert_eq!(c.list::<ControllerRevision>("n").await.len(), 2);
    c.client
        .of::<StatefulSet>()
        .patch("n", "db", Patch::merge(&json!({"spec": {"replicas": 1}})).unwrap())
        .await
        .unwrap();
    c.until::<StatefulSet>("n", "one left", rolled(1)).await;
    assert_eq!(names(&c.list::<Pod>("n").await), ["db-0"]);
    let owned = c
        .list::<PersistentVolumeClaim>("n")
        .await
        .iter()
        .filter(|p| p.metadata.owner_references.as_ref().is_some_and(|o| o[0].kind == "Pod"))
        .count();
    assert_eq!(owned, 2, "the claims of pods that are scaled away go with them");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_follows_nodes() {
    let c = start(WORKLOADS, Config::default());
    let _kubelet = c.kubelet();
    for name in ["a", "b"] {
        c.create::<Node>(json!({"metadata": {"name": name}})).await;
    }
    c.create::<DaemonSet>(json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}))
    .await;
    let ready = |n: i32| {
        move |d: &[DaemonSet]| {
            d[0].status.as_ref().is_some_and(|s| {
                s.number_ready == n
                    && s.desired_number_scheduled == n
                    && s.updated_number_scheduled == Some(n)
                    && s.observed_generation == d[0].metadata.generation
            })
        }
    };
    c.until::<DaemonSet>("n", "two", ready(2)).await;
    c.create::<Node>(json!({"metadata": {"name": "c"}})).await;
    c.until::<DaemonSet>("n", "three", ready(3)).await;
    let patch =
        Patch::merge(&json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}})).unwrap();
    c.client.of::<DaemonSet>().patch("n", "d", patch).await.unwrap();
    c.until::<DaemonSet>("n", "rolled", ready(3)).await;
    assert!(
        c.list::<Pod>("n").await.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v2"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_runs_by_the_clock() {
    use k8s_openapi::api::batch::v1::{CronJob, Job};
    let c = start(&["cronjob-controller", "job-controller", "ttl-after-finished-controller"], Config::default());
    c.create::<CronJob>(json!({"metadata": {"name": "tick", "namespace": "n"}, "spec": {"schedule": "*/10 * * * *", "concurrencyPolicy": "Forbid",
        "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1,
        "jobTemplate": {"spec": {"completions": 1, "parallelism": 1, "selector": {"matchLabels": {"app": "tick"}},
            "template": {"metadata": {"labels": {"app": "tick"}}, "spec": {"containers": [{"name": "c", "image": "succeeds"}]}}}}}}))
    .await;
    let _kubelet = c.kubelet();
    for hour in 0..3 {
        c.until::<CronJob>("n", "the full hour", |c| {
            let last = c[0].status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
            last.is_some_and(|t| t.0.to_string() == format!("2024-01-01T0{}:00:00Z", hour + 1))
        })
        .await;
    }
    let jobs = c.list::<Job>("n").await;
    assert!((2..=3).contains(&jobs.len()), "history is kept short: {}", jobs.len());
    assert!(jobs.iter().all(|j| j.metadata.name.as_deref().unwrap().starts_with("tick-")));
    let created = c
        .list::<Event>("n")
        .await
        .into_iter()
        .filter(|e| {
            e.reason.as_deref() == Some("SuccessfulCreate") && e.involved_object.kind.as_deref() == Some("CronJob")
        })
        .count();
    assert!(created > 0);
}

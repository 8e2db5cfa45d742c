//! Every controller under an API that fails at random, and that is left and taken up again at any point: in the end
//! everything is as it should be, nothing is there twice, nothing is left behind, and nobody goes on writing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use pintle_api::Status;
use pintle_client::testing::{FakeApi, Fault};
use pintle_client::typed::Kind;
use pintle_client::{Clock, Patch};
use pintle_controllers::Config;
use serde_json::{Value, json};

use super::common::{Cluster, start_controllers};

/// Everything but what has to do with the time nodes are silent.
const ALL: &[&str] = &["*", "-node-lifecycle-controller", "-horizontal-pod-autoscaler-controller"];

/// Of the Job.
const COMPLETIONS: usize = 9;
const PARALLELISM: usize = 4;

/// A cluster whose controllers come and go.
struct Shaken {
    c: Cluster,
    config: Config,
    random: fastrand::Rng,
    /// How many requests something went wrong with.
    faults: Arc<AtomicUsize>,
    /// How many pods were made by somebody who was not told.
    lost: Arc<AtomicUsize>,
}

/// What goes wrong with a request: one in so many.
fn fault(random: &mut fastrand::Rng, is_watch: bool) -> Option<Fault> {
    if is_watch {
        return random.bool().then(|| Fault::DropWatch(random.usize(1..20)));
    }
    (random.usize(0..6) == 0).then(|| match random.usize(0..6) {
        0 => Fault::Status(Status::modified("", "x", "y")),
        1 => Fault::Status(Status::too_many_requests("busy", 1)),
        2 => Fault::Status(Status::unavailable("not now")),
        3 => Fault::Delay(Duration::from_millis(random.u64(1..500))),
        4 => Fault::LoseAnswer,
        _ => Fault::Status(Status::internal("broken")),
    })
}

impl Shaken {
    fn new(seed: u64) -> Self {
        let config =
            Config { root_ca: Some("CA".into()), cluster_cidrs: vec!["10.244.0.0/16".into()], ..Config::default() };
        let api = FakeApi::new();
        let clock = Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap());
        let c = start_controllers(&api, clock, ALL, config.clone());
        Self { c, config, random: fastrand::Rng::with_seed(seed), faults: Arc::default(), lost: Arc::default() }
    }

    fn shake(&mut self) {
        let random = Arc::new(parking_lot::Mutex::new(self.random.fork()));
        let (faults, lost) = (self.faults.clone(), self.lost.clone());
        self.c.api.fault(move |r| {
            let agent = r.headers().get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default();
            // The controllers and their informers are disturbed, the test itself is not.
            if !agent.contains("controller") {
                return None;
            }
            let fault = fault(&mut random.lock(), r.uri().query().is_some_and(|q| q.contains("watch=true")));
            faults.fetch_add(usize::from(fault.is_some()), Relaxed);
            let makes_pod = r.method() == http::Method::POST && r.uri().path().ends_with("/pods");
            lost.fetch_add(usize::from(makes_pod && matches!(fault, Some(Fault::LoseAnswer))), Relaxed);
            fault
        });
    }

    /// The controllers die where they stand, and others take over what is there.
    async fn restart(&mut self) {
        self.c.pass(Duration::from_millis(self.random.u64(0..400))).await;
        self.c.shutdown.cancel();
        let (api, clock) = (self.c.api.clone(), self.c.clock.clone());
        self.c = start_controllers(&api, clock, ALL, self.config.clone());
    }

    async fn patch<T: Kind>(&self, name: &str, patch: Value) {
        self.c.client.of::<T>().patch("n", name, Patch::merge(&patch).unwrap()).await.unwrap();
    }
}

fn workload(kind: &str, extra: Value) -> Value {
    let mut v = json!({"metadata": {"name": kind, "namespace": "n"}, "spec": {
        "selector": {"matchLabels": {"app": kind}},
        "template": {"metadata": {"labels": {"app": kind}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}});
    v["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    v
}

fn owner(p: &Pod) -> Option<(String, String)> {
    let o = p.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    Some((o.kind.clone(), o.name.clone()))
}

/// What must hold at any moment: no two pods of one place.
fn check_places(pods: &[Pod]) {
    let mut seen = BTreeMap::new();
    for p in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let Some((kind, name)) = owner(p) else { continue };
        if kind == "StatefulSet" {
            let place = (name, p.metadata.name.clone().unwrap());
            assert!(seen.insert(place.clone(), ()).is_none(), "{place:?} is there twice");
        }
    }
}

async fn run(seed: u64) {
    let mut s = Shaken::new(seed);
    s.shake();
    s.c.create::<Namespace>(
        json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    )
    .await;
    for name in ["a", "b", "c"] {
        s.c.create::<Node>(json!({"metadata": {"name": name}})).await;
    }
    let kubelet = s.c.kubelet();
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    s.c.create::<Deployment>(workload(
        "web",
        json!({"replicas": 12, "strategy": rolling, "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600}),
    ))
    .await;
    let sts = json!({"replicas": 3, "serviceName": "db", "updateStrategy": {"type": "RollingUpdate"}, "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}}]});
    s.c.create::<StatefulSet>(workload("db", sts)).await;
    s.c.create::<DaemonSet>(workload(
        "agent",
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}),
    ))
    .await;
    let mut job = workload("work", json!({"completions": COMPLETIONS, "parallelism": PARALLELISM, "backoffLimit": 6}));
    job["spec"]["template"]["spec"]["containers"][0]["image"] = json!("succeeds");
    s.c.create::<Job>(job).await;
    s.c.create::<Service>(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {"selector": {"app": "web"}, "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]}})).await;
    for i in 0..3 {
        s.c.create::<PersistentVolume>(json!({"metadata": {"name": format!("v{i}")}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain"}})).await;
    }
    s.c.create::<ResourceClaimTemplate>(json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"spec": {}}}))
        .await;
    s.c.create::<Pod>(json!({"metadata": {"name": "own", "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": "v1"}], "resourceClaims": [{"name": "r", "resourceClaimTemplateName": "t"}]}})).await;

    // Changes under their feet, and they die and come back.
    for round in 0..6u32 {
        s.restart().await;
        s.shake();
        check_places(&s.c.list::<Pod>("n").await);
        match round {
            1 => {
                s.patch::<Deployment>(
                    "web",
                    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
                )
                .await;
            }
            2 => s.patch::<Deployment>("web", json!({"spec": {"replicas": 7}})).await,
            3 => {
                let pods = s.c.list::<Pod>("n").await;
                let victims: Vec<&Pod> =
                    pods.iter().filter(|p| owner(p).is_some_and(|(k, _)| k == "ReplicaSet")).collect();
                for v in victims.iter().take(s.random.usize(1..4)) {
                    drop(s.c.client.of::<Pod>().delete("n", v.metadata.name.as_ref().unwrap(), None).await);
                }
            }
            4 => {
                s.patch::<StatefulSet>(
                    "db",
                    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
                )
                .await;
            }
            _ => {}
        }
    }
    settled(&s.c, seed, s.lost.load(Relaxed)).await;

    // All of it goes again, through the same.
    s.shake();
    s.c.client.of::<Deployment>().delete("n", "web", None).await.unwrap();
    s.restart().await;
    s.c.until::<ReplicaSet>("n", "no sets", <[_]>::is_empty).await;
    s.c.until::<Pod>("n", "no pods of theirs", |p| !p.iter().any(|p| owner(p).is_some_and(|(k, _)| k == "ReplicaSet")))
        .await;
    s.shake();
    s.c.client.of::<Namespace>().delete("", "n", None).await.unwrap();
    s.restart().await;
    s.c.pass(Duration::from_secs(60)).await;
    // It asks for every resource in turn, and is only done when none of that failed.
    s.c.api.no_faults();
    s.c.until::<Namespace>("", "gone", |n| !n.iter().any(|n| n.metadata.name.as_deref() == Some("n"))).await;
    assert!(s.c.list::<Pod>("n").await.is_empty(), "seed {seed}");
    let faults = s.faults.load(Relaxed);
    assert!(faults > 200, "seed {seed}: something went wrong {faults} times only");
    drop(kubelet);
}

/// Waits until everything is as it should be, and then that nobody writes any more.
async fn settled(c: &Cluster, seed: u64, lost: usize) {
    let whole = |s: Option<(i32, i32, i32)>, n: i32| s == Some((n, n, n));
    c.until::<Deployment>("n", &format!("seed {seed}: rolled out"), |d| {
        let of = |d: &Deployment| {
            let s = d.status.as_ref()?;
            (s.observed_generation == d.metadata.generation).then_some(())?;
            Some((s.updated_replicas?, s.replicas?, s.available_replicas?))
        };
        d.first().is_some_and(|d| whole(of(d), 7))
    })
    .await;
    c.until::<StatefulSet>("n", &format!("seed {seed}: the set"), |d| {
        let of = |d: &StatefulSet| {
            let s = d.status.as_ref()?;
            (s.current_revision == s.update_revision).then_some(())?;
            Some((s.updated_replicas?, s.replicas, s.available_replicas?))
        };
        d.first().is_some_and(|d| whole(of(d), 3))
    })
    .await;
    c.until::<DaemonSet>("n", &format!("seed {seed}: a pod a node"), |d| {
        let of = |d: &DaemonSet| {
            let s = d.status.as_ref()?;
            Some((s.updated_number_scheduled?, s.number_ready, s.number_available?))
        };
        d.first().is_some_and(|d| whole(of(d), 3))
    })
    .await;
    let jobs = c
        .until::<Job>("n", &format!("seed {seed}: the job is done"), |j| {
            j.first()
                .and_then(|j| j.status.as_ref()?.conditions.as_ref())
                .is_some_and(|c| c.iter().any(|c| c.type_ == "Complete" && c.status == "True"))
        })
        .await;
    let counted = jobs[0].status.clone().unwrap();
    // An answer that was lost, or that nobody lived to hear, may have made one too many; each end counts once all the
    // same. Who dies has asked for no more than run beside each other.
    let succeeded = usize::try_from(counted.succeeded.unwrap()).unwrap();
    assert!(
        (COMPLETIONS..=COMPLETIONS + PARALLELISM + lost).contains(&succeeded),
        "seed {seed}: {counted:?}, {lost} lost"
    );
    c.until::<PersistentVolumeClaim>("n", &format!("seed {seed}: claims are bound"), |p| {
        p.len() == 3 && p.iter().all(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound"))
    })
    .await;
    c.until::<EndpointSlice>("n", &format!("seed {seed}: endpoints"), |s| {
        s.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>() == 7
    })
    .await;
    c.until::<Endpoints>("n", &format!("seed {seed}: older endpoints"), |e| {
        e.iter()
            .flat_map(|e| e.subsets.iter().flatten())
            .map(|s| s.addresses.as_ref().map_or(0, Vec::len))
            .sum::<usize>()
            == 7
    })
    .await;
    c.until::<ServiceAccount>("n", "its account", |a| a.len() == 1).await;
    c.until::<ResourceClaim>("n", &format!("seed {seed}: its claim"), |r| !r.is_empty()).await;

    c.api.no_faults();
    c.settle().await;
    let pods = c.list::<Pod>("n").await;
    let mut by_owner: BTreeMap<String, usize> = BTreeMap::new();
    for p in &pods {
        *by_owner.entry(owner(p).map(|(k, _)| k).unwrap_or_default()).or_default() += 1;
    }
    let want = [("", 1), ("DaemonSet", 3), ("Job", by_owner["Job"]), ("ReplicaSet", 7), ("StatefulSet", 3)];
    assert_eq!(by_owner, want.map(|(k, n)| (k.to_owned(), n)).into(), "seed {seed}");
    let ended = |p: &&Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
    assert!(pods.iter().filter(ended).count() >= succeeded, "seed {seed}: no end counts twice");
    assert!(pods.iter().all(|p| p.metadata.finalizers.iter().flatten().count() == 0), "seed {seed}: nothing is held");
    let volumes = c.list::<PersistentVolume>("").await;
    let bound: Vec<_> = volumes.iter().filter_map(|v| v.spec.as_ref()?.claim_ref.as_ref()?.name.clone()).collect();
    assert_eq!(bound.len(), 3, "seed {seed}: a volume each");
    // Nobody goes on: no hot loop is left.
    let before = c.api.requests().len();
    c.pass(Duration::from_secs(5)).await;
    let after = c.api.requests();
    assert!(after.len() <= before + 2, "seed {seed}: somebody goes on: {:?}", &after[before..]);
}

#[tokio::test(start_paused = true)]
async fn faults_and_restarts_at_any_point() {
    // Others by `PINTLE_SEEDS=10..50`.
    let seeds = std::env::var("PINTLE_SEEDS").unwrap_or_else(|_| "0..4".into());
    let (from, to) = seeds.split_once("..").expect("FROM..TO");
    for seed in from.parse().unwrap()..to.parse().unwrap() {
        run(seed).await;
    }
}

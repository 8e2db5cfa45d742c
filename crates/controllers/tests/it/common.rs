//! A cluster of controllers on the in-memory API.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use pintle_api::service::{ApiService, UserInfo};
use pintle_client::testing::FakeApi;
use pintle_client::typed::Kind;
use pintle_client::{Client, Clock, Informers, ListParams, Patch};
use pintle_controllers::{Config, run};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    /// The in-memory API, unless it runs on another.
    pub api: FakeApi,
    pub client: Client,
    pub clock: Clock,
    pub shutdown: CancellationToken,
    simulated: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Starts these controllers on an API of their own. Time is simulated: it moves when everybody waits.
pub fn start(controllers: &[&str], config: Config) -> Cluster {
    let clock = Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap());
    start_controllers(&FakeApi::new(), clock, controllers, config)
}

/// Starts these controllers on an in-memory API that there is.
pub fn start_controllers(api: &FakeApi, clock: Clock, controllers: &[&str], config: Config) -> Cluster {
    let mut cluster = start_on(api.service(), clock, controllers, config);
    cluster.api = api.clone();
    cluster.simulated = true;
    cluster
}

/// Starts these controllers on an API server of this process.
pub fn start_on(service: ApiService, clock: Clock, controllers: &[&str], config: Config) -> Cluster {
    let client = Client::in_process(service, UserInfo::authenticated("admin", &["system:masters"]));
    let shutdown = CancellationToken::new();
    let config = Config { controllers: controllers.iter().map(|s| (*s).to_owned()).collect(), ..config };
    let informers = client
        .as_user(UserInfo::authenticated("system:kube-controller-manager", &[]))
        .with_user_agent("pintle/test (informers of the controllers)");
    let informers = Informers::new(informers);
    tokio::spawn(run(client.clone(), informers, config, clock.clone(), shutdown.clone()));
    Cluster { api: FakeApi::new(), client, clock, shutdown, simulated: false }
}

/// Requests after which somebody asks without end.
const HOT: usize = 6_000;
/// How long a test waits for a change at most.
const PATIENCE: Duration = Duration::from_secs(60);

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.containers.first()).and_then(|c| c.image.as_deref()).unwrap_or_default()
}

/// What a kubelet would report of a pod that it has not reported anything of yet.
fn report(pod: &Pod, now: &str) -> Option<Value> {
    if pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| p != "Pending") {
        return None;
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let ended = |phase: &str, code: i32| {
        json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "reason": "Done", "startedAt": now, "finishedAt": now}}}]})
    };
    Some(match image(pod) {
        "succeeds" => ended("Succeeded", 0),
        "fails" => ended("Failed", 1),
        "pending" => return None,
        _ => {
            let ip = format!("10.1.{}.{}", name.len(), name.bytes().map(u32::from).sum::<u32>() % 250 + 1);
            json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]})
        }
    })
}

/// Plays kubelet until it is dropped.
pub struct Kubelet(tokio::task::JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cluster {
    pub async fn create<T: Kind>(&self, value: Value) -> T {
        self.client.of::<T>().create(&serde_json::from_value(value).unwrap()).await.unwrap()
    }

    pub async fn list<T: Kind>(&self, namespace: &str) -> Vec<T> {
        self.client.of::<T>().list(namespace, &ListParams::default()).await.unwrap()
    }

    /// Waits until the objects are as wanted; they are looked at whenever one of them changes.
    pub async fn until<T: Kind>(&self, namespace: &str, what: &str, wanted: impl Fn(&[T]) -> bool) -> Vec<T> {
        let informers = Informers::new(self.client.clone());
        let informer = informers.of::<T>();
        let mut changes = informer.subscribe();
        let began = tokio::time::Instant::now();
        let most = self.api.request_count() + HOT;
        loop {
            // Who asks without end keeps the time from passing.
            if self.api.request_count() > most {
                self.hot(what);
            }
            let all = self.list::<T>(namespace).await;
            if wanted(&all) {
                return all;
            }
            // Simulated time is cheap; on the real server the clock is real, too.
            let patience = if self.simulated { PATIENCE * 100 } else { PATIENCE };
            let late = tokio::time::timeout(patience, changes.next()).await.is_err();
            if late || began.elapsed() > patience * 2 {
                let events: Vec<String> = self
                    .list::<Event>(namespace)
                    .await
                    .into_iter()
                    .map(|e| format!("{:?} {:?}", e.reason, e.message))
                    .collect();
                panic!("never: {what}; {}\n{events:#?}", serde_json::to_string_pretty(&all).unwrap());
            }
        }
    }

    /// Waits, while nobody asks without end: that keeps simulated time from passing.
    async fn unless_hot(&self, wait: impl Future<Output = ()>) {
        let most = self.api.request_count() + HOT;
        tokio::select! {
            () = wait => {}
            () = self.api.until(|a| a.request_count() > most) => self.hot("quiet"),
        }
    }

    fn hot(&self, what: &str) -> ! {
        let requests = self.api.requests();
        panic!("never: {what}; a hot loop: {:#?}", &requests[requests.len() - 60..]);
    }

    /// Waits until nobody asks the API for anything.
    pub async fn settle(&self) {
        self.unless_hot(self.api.quiet(Duration::from_secs(3))).await;
    }

    /// Lets simulated time pass.
    pub async fn pass(&self, time: Duration) {
        assert!(self.simulated, "real time is not waited for");
        self.unless_hot(tokio::time::sleep(time)).await;
    }

    /// Plays kubelet: new pods of the image `succeeds` or `fails` end so, those of the image `pending` stay as they
    /// are, and all others become ready; pods that are being deleted are gone.
    pub fn kubelet(&self) -> Kubelet {
        let (client, clock) = (self.client.clone(), self.clock.clone());
        Kubelet(tokio::spawn(async move {
            let informers = Informers::new(client.clone());
            let mut changes = informers.of::<Pod>().subscribe();
            let pods = client.of::<Pod>();
            while let Some(change) = changes.next().await {
                let Some(pod) = change.now().and_then(|o| o.view::<Pod>().ok()) else { continue };
                let (namespace, name) =
                    (pod.metadata.namespace.as_deref().unwrap(), pod.metadata.name.as_deref().unwrap());
                // Failures are those of pods that are gone or changed meanwhile; their event comes.
                if pod.metadata.deletion_timestamp.is_some() {
                    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
                    let _ = pods.delete_with(namespace, name, &now).await;
                } else if let Some(status) = report(&pod, &pintle_api::time::format(clock.now())) {
                    let _ = pods.patch_status(namespace, name, Patch::merge(&json!({"status": status})).unwrap()).await;
                }
            }
        }))
    }
}

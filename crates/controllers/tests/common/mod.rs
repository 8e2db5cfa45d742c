//! A cluster of controllers on the in-memory API.
#![allow(dead_code, missing_docs)]

use std::time::Duration;

use pintle_api::service::{ApiService, UserInfo};
use pintle_client::testing::FakeApi;
use pintle_client::typed::Kind;
use pintle_client::{Client, Clock, Informers, ListParams};
use pintle_controllers::{Config, run};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    /// The in-memory API, unless it runs on another.
    pub api: FakeApi,
    pub client: Client,
    pub clock: Clock,
    pub shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Starts these controllers. Time is simulated: it moves when everybody waits.
pub fn start(controllers: &[&str], config: Config) -> Cluster {
    let api = FakeApi::new();
    let clock = Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap());
    let mut cluster = start_on(api.service(), clock, controllers, config);
    cluster.api = api;
    cluster
}

/// Starts these controllers on an API server of this process.
pub fn start_on(service: ApiService, clock: Clock, controllers: &[&str], config: Config) -> Cluster {
    let client = Client::in_process(service, UserInfo::authenticated("admin", &["system:masters"]));
    let shutdown = CancellationToken::new();
    let config = Config { controllers: controllers.iter().map(|s| (*s).to_owned()).collect(), ..config };
    let informers = Informers::new(client.as_user(UserInfo::authenticated("system:kube-controller-manager", &[])));
    tokio::spawn(run(client.clone(), informers, config, clock.clone(), shutdown.clone()));
    Cluster { api: FakeApi::new(), client, clock, shutdown }
}

impl Cluster {
    pub async fn create<T: Kind>(&self, value: Value) -> T {
        self.client.of::<T>().create(&serde_json::from_value(value).unwrap()).await.unwrap()
    }

    pub async fn list<T: Kind>(&self, namespace: &str) -> Vec<T> {
        self.client.of::<T>().list(namespace, &ListParams::default()).await.unwrap()
    }

    /// Waits until the objects are as wanted.
    pub async fn until<T: Kind>(&self, namespace: &str, what: &str, wanted: impl Fn(&[T]) -> bool) -> Vec<T> {
        for _ in 0..10_000 {
            let all = self.list::<T>(namespace).await;
            if wanted(&all) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let all = self.list::<T>(namespace).await;
        panic!("never: {what}; {}", serde_json::to_string_pretty(&all).unwrap());
    }

    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

//! The real API server and all controllers in this process.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceAccount;
use pintle_api::service::UserInfo;
use pintle_apiserver::ApiServer;
use pintle_client::typed::Kind;
use pintle_client::{Client, Clock, Informers};
use pintle_controllers::Config;
use pintle_store::Store;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What runs.
pub struct Cluster {
    /// Calls as the administrator.
    pub client: Client,
    /// The informers that the controllers use.
    pub informers: Informers,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    /// Starts on a store, and waits until the namespace `default` takes pods.
    pub async fn start(store: Arc<dyn Store>) -> Self {
        let mut config = pintle_apiserver::Config::new(store);
        config.advertise_address = [192, 0, 2, 1].into();
        let server = ApiServer::new(config).expect("a server");
        server.start().await.expect("it starts");
        let client = Client::in_process(server.service(), UserInfo::authenticated("admin", &["system:masters"]));
        let manager = client.as_user(UserInfo::authenticated("system:kube-controller-manager", &[]));
        let (informers, stop) = (Informers::new(manager.clone()), CancellationToken::new());
        let config = Config { root_ca: Some("CA".into()), ..Config::default() };
        tokio::spawn(pintle_controllers::run(manager, informers.clone(), config, Clock::system(), stop.clone()));
        let accounts = informers.of::<ServiceAccount>();
        let mut changes = accounts.subscribe();
        while accounts.get("default/default").is_none() {
            changes.next().await.expect("the watch goes on");
        }
        Self { client, informers, stop }
    }

    /// Creates an object.
    pub async fn create<T: Kind>(&self, value: Value) -> T {
        let object = serde_json::from_value(value).expect("it fits its type");
        self.client.of::<T>().create(&object).await.expect("it is accepted")
    }
}

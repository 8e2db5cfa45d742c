//! The control plane of `pintle up`: store, API server, controllers, scheduler.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use pintle_api::features::FeatureGates;
use pintle_apiserver::{ApiServer, Config, Pem};
use pintle_client::api::service::UserInfo;
use pintle_client::{Client, Clock, Informers};
use pintle_store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Facts;
use super::progress::Progress;

/// A running control plane.
pub(crate) struct ControlPlane {
    server: ApiServer,
    store: Arc<dyn Store>,
    serving: JoinHandle<()>,
    parts: Vec<JoinHandle<()>>,
    admin: Client,
    informers: Informers,
}

/// The scheduler's configuration, from its file when there is one.
///
/// # Errors
/// When the file cannot be read, or is wrong.
pub(crate) fn scheduler_config(
    file: Option<&Path>,
    features: &FeatureGates,
) -> anyhow::Result<pintle_scheduler::Config> {
    let Some(file) = file else { return Ok(pintle_scheduler::Config::with(features)) };
    let text = std::fs::read_to_string(file).with_context(|| format!("--scheduler-config {}", file.display()))?;
    pintle_scheduler::Config::parse(&text, features)
        .map_err(|e| anyhow::anyhow!("--scheduler-config {}: {e}", file.display()))
}

fn pem(text: &str) -> Option<Pem> {
    Some(Pem::Text(text.as_bytes().to_vec()))
}

/// The flags of the command line, for `/flagz`.
fn given_flags() -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut args = std::env::args().skip(1).peekable();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--") else { continue };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let value = args.next_if(|next| !next.starts_with("--")).unwrap_or_else(|| "true".into());
                (flag.to_owned(), value)
            }
        };
        out.push((name, value));
    }
    out
}

/// Who holds the Leases of this process' parts: the same after a restart, so that the Lease of a process that was killed
/// is not waited for; no other process has this data directory.
fn identity(facts: &Facts) -> String {
    format!("{}_{}", facts.node_name, facts.paths.fingerprint())
}

impl ControlPlane {
    pub(crate) async fn start(
        facts: &Facts,
        listener: TcpListener,
        shutdown: &CancellationToken,
        progress: &mut Progress,
    ) -> anyhow::Result<Self> {
        let api = &facts.options.api;
        let store: Arc<dyn Store> = api.store.open(&facts.paths.store, api.compaction()).await?;
        crate::snapshot::serve(&facts.paths.store_socket(), store.clone(), shutdown.clone())?;
        progress.done("store");

        let (pki, options) = (&facts.pki, &facts.options);
        let mut config = Config::new(store.clone());
        config.tls_cert = pem(&pki.apiserver.cert);
        config.tls_key = pem(&pki.apiserver.key);
        config.client_ca = pem(&pki.ca.cert);
        config.request_header_ca = pem(&pki.front_proxy_ca.cert);
        config.request_header_allowed_names = vec!["front-proxy-client".into()];
        config.service_account_signing_key = pem(&pki.service_account.key);
        config.service_account_issuer = format!("https://kubernetes.default.svc.{}", options.cluster_domain);
        config.service_cidrs = options.service_cluster_ip_range.clone();
        config.node_port_range = options.service_node_port_range;
        config.runtime_config = options.runtime_config.clone();
        config.feature_gates = options.feature_gates;
        config.advertise_address = facts.address;
        config.advertise_port = facts.port;
        config.kubelet_client_cert = pem(&pki.apiserver_kubelet_client.cert);
        config.kubelet_client_key = pem(&pki.apiserver_kubelet_client.key);
        config.kubelet_ca = pem(&pki.ca.cert);
        config.kubelet_preferred_address_types = vec!["InternalIP".into(), "Hostname".into()];
        config.enable_bootstrap_token_auth = true;
        config.enable_admission_plugins = vec!["NodeRestriction".into()];
        api.apply(&mut config);
        config.flags = given_flags();
        let server = ApiServer::new(config)?;
        server.start().await?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let serving = tokio::spawn({
            let server = server.clone();
            async move {
                if let Err(e) = server.serve(listener).await {
                    tracing::error!("the API server stopped: {e}");
                }
            }
        });
        progress.done(format_args!("API server on port {}", facts.port));

        let admin =
            Client::in_process(server.service(), UserInfo::authenticated("kubernetes-admin", &["system:masters"]));
        let mut plane = Self {
            informers: Informers::new(admin.as_user(UserInfo::authenticated("system:kube-controller-manager", &[]))),
            server,
            store,
            serving,
            parts: Vec::new(),
            admin,
        };
        plane.start_controllers(facts, shutdown);
        plane.start_scheduler(
            facts,
            scheduler_config(options.scheduler_config.as_deref(), &options.feature_gates)?,
            shutdown,
        );
        progress.done("controllers and scheduler");
        Ok(plane)
    }

    fn start_controllers(&mut self, facts: &Facts, shutdown: &CancellationToken) {
        let client = self.admin.as_user(UserInfo::authenticated("system:kube-controller-manager", &[]));
        let config = pintle_controllers::Config {
            controllers: facts.options.controllers.clone(),
            root_ca: Some(facts.pki.ca.cert.clone()),
            service_account_key: Some(facts.pki.service_account.key.clone()),
            cluster_signing: Some((facts.pki.ca.cert.clone(), facts.pki.ca.key.clone())),
            cluster_cidrs: facts.options.cluster_cidr.clone(),
            service_cidrs: facts.options.service_cluster_ip_range.clone(),
            ..pintle_controllers::Config::default()
        };
        let (informers, stop) = (self.informers.clone(), shutdown.clone());
        let identity = identity(facts);
        self.run("controller-manager", async move {
            let ended =
                pintle_controllers::lead(client, informers, config, &identity, Clock::system(), stop.clone()).await;
            if let Err(e) = ended {
                eprintln!("the controllers stopped: {e}");
                stop.cancel();
            }
        });
    }

    /// Starts a part, whose health the API server tells.
    fn run(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let part = tokio::spawn(part);
        let handle = part.abort_handle();
        self.server.component(name, move || !handle.is_finished());
        self.parts.push(part);
    }

    fn start_scheduler(&mut self, facts: &Facts, config: pintle_scheduler::Config, shutdown: &CancellationToken) {
        // The name before the slash is the manager that managed fields name.
        let client = self.admin.as_user(UserInfo::authenticated("system:kube-scheduler", &[]));
        let client = client.with_user_agent("kube-scheduler/v1.36.0 pintle");
        let (informers, stop) = (self.informers.clone(), shutdown.clone());
        let identity = identity(facts);
        self.run("scheduler", async move {
            if let Err(e) = pintle_scheduler::lead(client, informers, config, &identity, stop.clone()).await {
                eprintln!("the scheduler stopped: {e}");
                stop.cancel();
            }
        });
    }

    /// A client as the administrator.
    pub(crate) fn admin(&self) -> &Client {
        &self.admin
    }

    /// Waits for all parts to end after the shutdown was told, the store last.
    pub(crate) async fn stop(self) {
        for part in self.parts {
            let _ = part.await;
        }
        self.server.shutdown();
        let _ = self.serving.await;
        if let Err(e) = self.store.close().await {
            tracing::error!("the store did not close: {e}");
        }
    }
}

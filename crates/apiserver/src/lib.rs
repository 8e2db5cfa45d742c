//! The Kubernetes API over HTTP.
//!
//! [`ApiServer::new`] makes a server of a [`Config`]; [`ApiServer::service`] is it in process, [`ApiServer::serve`]
//! over TLS. Requests in process carry [`pintle_api::service::InProcessUser`]; they skip authentication, never
//! authorization.
#![allow(clippy::result_large_err, reason = "an error is the answer of the request: made once, never in a hot loop")]

mod admission;
mod audit;
mod authn;
mod authz;
mod bootstrap;
pub mod cache;
mod clock;
mod codec;
mod config;
mod discovery;
mod fairness;
mod http;
pub mod kinds;
mod metrics;
mod openapi;
mod registry;
mod subresources;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use audit::{AuditConfig, LogConfig, WebhookConfig};
pub use authz::AuthorizationMode;
pub use clock::{Clock, SystemClock};
pub use config::{Config, Pem, runtime_setting};
use pintle_api::features::Feature;
use pintle_api::service::{ApiService, InProcessUser, UserInfo};
use registry::Registry;
pub use registry::form::StorageMediaType;

fn service_accounts(config: &Config) -> Result<authn::service_account::ServiceAccounts, String> {
    use authn::jwt::{PublicKey, Signer};
    let signer = match &config.service_account_signing_key {
        Some(pem) => Some(Signer::from_pem(&pem.read()?)?),
        None => None,
    };
    let mut keys: Vec<PublicKey> = signer.iter().map(|s| s.public().clone()).collect();
    for pem in &config.service_account_keys {
        for key in PublicKey::from_pem(&pem.read()?)? {
            if !keys.iter().any(|k| k.id == key.id) {
                keys.push(key);
            }
        }
    }
    let issuer = config.service_account_issuer.clone();
    let audiences = if config.api_audiences.is_empty() { vec![issuer.clone()] } else { config.api_audiences.clone() };
    Ok(authn::service_account::ServiceAccounts { signer, keys, issuer, audiences })
}

/// What goes wrong when a server is set up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// Everything requests share.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    pub(crate) admission: admission::Chain,
    pub(crate) rbac: authz::rbac::Rbac,
    pub(crate) client_ca: Option<authn::x509::ClientCa>,
    pub(crate) front_proxy: Option<authn::x509::FrontProxy>,
    pub(crate) services: kinds::core::service::alloc::ServiceAllocator,
    pub(crate) addresses: registry::services::Addresses,
    pub(crate) kubelets: subresources::Kubelets,
    pub(crate) components: subresources::Components,
    pub(crate) service_accounts: authn::service_account::ServiceAccounts,
    pub(crate) static_tokens: Vec<authn::tokens::StaticToken>,
    pub(crate) openapi: openapi::OpenApi,
    pub(crate) discovery: discovery::Discovery,
    pub(crate) inflight: http::inflight::InFlight,
    pub(crate) audit: Option<Arc<audit::Audit>>,
    pub(crate) fairness: Arc<fairness::Fairness>,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) started: jiff::Timestamp,
    /// Names of the APIServices that other servers are to serve.
    pub(crate) elsewhere: parking_lot::RwLock<std::collections::BTreeSet<String>>,
    /// Set when no new watch may start and running ones must end.
    pub(crate) stopping: CancellationToken,
    /// What the server still has to do before it is ready.
    pub(crate) hooks: bootstrap::Hooks,
}

/// An API server.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Server>,
}

impl ApiServer {
    /// Sets a server up. Call [`ApiServer::start`] to let it fill its store and keep its indexes.
    ///
    /// # Errors
    /// When the configuration makes no sense or names files that cannot be read.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        let read = |pem: &Option<Pem>| pem.as_ref().map(Pem::read).transpose();
        let err = SetupError;
        let registry = {
            let (prefix, media) = (&config.storage_prefix, config.storage_media_type);
            Registry::new(&config.store, prefix, media, config.feature_gates, |r| config.serves(r))
        };
        if config.feature_gates.on(Feature::GenericWorkload) && !registry.serves("scheduling.k8s.io", "v1alpha2") {
            let why =
                "the feature GenericWorkload needs the API group version scheduling.k8s.io/v1alpha2 (--runtime-config)";
            return Err(SetupError(why.into()));
        }
        let client_ca =
            read(&config.client_ca).and_then(|p| p.map(|p| authn::x509::ClientCa::new(&p)).transpose()).map_err(err)?;
        let proxy_ca = read(&config.request_header_ca)
            .and_then(|p| p.map(|p| authn::x509::ClientCa::new(&p)).transpose())
            .map_err(err)?;
        let front_proxy =
            proxy_ca.map(|ca| authn::x509::FrontProxy { ca, names: config.request_header_allowed_names.clone() });
        let static_tokens = match &config.token_auth_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| SetupError(format!("cannot read {}: {e}", path.display())))?;
                authn::tokens::parse_file(&text).map_err(err)?
            }
            None => Vec::new(),
        };
        let service_accounts = service_accounts(&config).map_err(err)?;
        let cidrs: Vec<&str> = config.service_cidrs.iter().map(String::as_str).collect();
        let addresses = registry::services::Addresses::default();
        let services = kinds::core::service::alloc::ServiceAllocator::new(
            &cidrs,
            config.node_port_range,
            rand::random(),
            Some(Box::new(addresses.clone())),
            Box::new(registry::ports::StoredPorts::new(
                Arc::clone(&config.store),
                &config.storage_prefix,
                config.storage_media_type,
            )),
        )
        .map_err(err)?;
        let kubelets = subresources::Kubelets::new(&config).map_err(err)?;
        let admission =
            admission::Chain::new(&config.enable_admission_plugins, &config.disable_admission_plugins).map_err(err)?;
        let discovery = discovery::Discovery::new(&registry);
        let openapi = openapi::OpenApi::new(&registry);
        let inflight =
            http::inflight::InFlight::new(config.max_requests_inflight, config.max_mutating_requests_inflight);
        let seats = if config.enable_priority_and_fairness {
            config.max_requests_inflight + config.max_mutating_requests_inflight
        } else {
            0
        };
        let server = Server {
            audit: audit::Audit::new(&config.audit, Arc::clone(&config.clock)).map_err(err)?,
            fairness: Arc::new(fairness::Fairness::new(seats)),
            clock: Arc::clone(&config.clock),
            registry,
            admission,
            rbac: authz::rbac::Rbac::default(),
            client_ca,
            front_proxy,
            services,
            addresses: addresses.clone(),
            kubelets,
            components: subresources::Components::default(),
            service_accounts,
            static_tokens,
            discovery,
            openapi,
            inflight,
            metrics: metrics::Metrics::default(),
            elsewhere: parking_lot::RwLock::default(),
            started: config.clock.now(),
            stopping: CancellationToken::new(),
            hooks: bootstrap::Hooks::default(),
            config,
        };
        let inner = Arc::new(server);
        addresses.attach(&inner);
        inner.collect();
        Ok(Self { inner })
    }

    /// Fills the store with what every cluster has, and starts to follow the objects the server decides by. Returns
    /// when the server is ready.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn start(&self) -> Result<(), SetupError> {
        if let Some(audit) = &self.inner.audit {
            audit.start();
        }
        bootstrap::start(&self.inner).await.map_err(|s| SetupError(s.message))
    }

    /// The server as a service of this process.
    #[must_use]
    pub fn service(&self) -> ApiService {
        let inner = Arc::clone(&self.inner);
        tower::util::BoxCloneSyncService::new(tower::service_fn(move |request| {
            let inner = Arc::clone(&inner);
            async move { Ok(inner.handle(request).await) }
        }))
    }

    /// Says that `scheduler` or `controller-manager` runs in this process: `componentstatuses` ask `works` instead of the
    /// port it has when it runs alone.
    pub fn component(&self, name: &'static str, works: impl Fn() -> bool + Send + Sync + 'static) {
        self.inner.components.add(name, Box::new(works));
    }

    /// Ends watches, and lets `/readyz` fail.
    pub fn shutdown(&self) {
        self.inner.hooks.stop();
        self.inner.stopping.cancel();
    }

    /// A request extension that makes a request that of a user of this process.
    #[must_use]
    pub fn identity(user: UserInfo) -> InProcessUser {
        InProcessUser(Arc::new(user))
    }
}

//! How an API server is set up.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pintle_api::features::FeatureGates;
use pintle_api::resources::{Resource, Stage, all};
use pintle_store::Store;

use crate::authz::AuthorizationMode;
use crate::clock::{Clock, SystemClock};

/// PEM text, given or in a file.
#[derive(Clone)]
pub enum Pem {
    /// The text itself.
    Text(Vec<u8>),
    /// A file that holds it.
    File(PathBuf),
}

impl Pem {
    /// The text.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(t) => Ok(t.clone()),
            Self::File(p) => std::fs::read(p).map_err(|e| format!("cannot read {}: {e}", p.display())),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be a private key.
            Self::Text(_) => f.write_str("Pem(..)"),
            Self::File(p) => write!(f, "Pem({})", p.display()),
        }
    }
}

/// Everything an API server is told at its start.
#[derive(Clone)]
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// Prefix of all keys in the store.
    pub storage_prefix: String,
    /// How objects are written there; either form is read.
    pub storage_media_type: crate::StorageMediaType,
    /// The serving certificate and its chain.
    pub tls_cert: Option<Pem>,
    /// The key of the serving certificate.
    pub tls_key: Option<Pem>,
    /// Authority of client certificates.
    pub client_ca: Option<Pem>,
    /// Authority of front proxies.
    pub request_header_ca: Option<Pem>,
    /// Common names of front proxies; empty allows any of that authority.
    pub request_header_allowed_names: Vec<String>,
    /// Key that signs service account tokens (PKCS#8 or PKCS#1 RSA, or EC P-256).
    pub service_account_signing_key: Option<Pem>,
    /// Further keys (public or private) whose service account tokens are good.
    pub service_account_keys: Vec<Pem>,
    /// Issuer of service account tokens.
    pub service_account_issuer: String,
    /// Audiences of the API server itself; empty means the issuer.
    pub api_audiences: Vec<String>,
    /// Longest life of a service account token; 0 is no limit.
    pub service_account_max_token_expiration: Duration,
    /// Issue tokens that live a year instead of an hour to clients that do not yet reload theirs, as upstream does.
    pub service_account_extend_token_expiration: bool,
    /// URI of the key set in the discovery document; empty means the server's own.
    pub service_account_jwks_uri: String,
    /// Static tokens, in upstream's file format.
    pub token_auth_file: Option<PathBuf>,
    /// Whether bootstrap tokens are good.
    pub enable_bootstrap_token_auth: bool,
    /// Whether requests without credentials are let in as `system:anonymous`.
    pub anonymous: bool,
    /// Who decides what is allowed, in order.
    pub authorization_modes: Vec<AuthorizationMode>,
    /// Admission plugins to switch on beside the default ones.
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to switch off.
    pub disable_admission_plugins: Vec<String>,
    /// Networks of cluster IPs; the first is the primary.
    pub service_cidrs: Vec<String>,
    /// First and last node port.
    pub node_port_range: (u16, u16),
    /// Address that clients in the cluster reach this server at.
    pub advertise_address: IpAddr,
    /// Port that goes with it.
    pub advertise_port: u16,
    /// Group-versions and resources to switch on or off (`api/beta`, `resource.k8s.io/v1beta1=true`).
    pub runtime_config: Vec<(String, bool)>,
    /// Features that are on.
    pub feature_gates: FeatureGates,
    /// Client certificate towards kubelets.
    pub kubelet_client_cert: Option<Pem>,
    /// Its key.
    pub kubelet_client_key: Option<Pem>,
    /// Authority of the kubelets' serving certificates; without it they are not checked, as upstream.
    pub kubelet_ca: Option<Pem>,
    /// Node address types to reach kubelets at, best first.
    pub kubelet_preferred_address_types: Vec<String>,
    /// How long events live.
    pub event_ttl: Duration,
    /// Longest time of a request that is no watch or stream.
    pub request_timeout: Duration,
    /// Shortest time of a watch that does not say how long; the longest is twice that.
    pub min_request_timeout: Duration,
    /// Reading requests at once; 0 is no limit.
    pub max_requests_inflight: usize,
    /// Writing requests at once; 0 is no limit.
    pub max_mutating_requests_inflight: usize,
    /// Whether flow schemas and priority levels decide who executes, waits or is refused; else only the numbers above.
    pub enable_priority_and_fairness: bool,
    /// How long after the wish to stop new requests are still taken.
    pub shutdown_delay: Duration,
    /// What requests are recorded and where.
    pub audit: crate::audit::AuditConfig,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Flags as given, for `/flagz`.
    pub flags: Vec<(String, String)>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("issuer", &self.service_account_issuer).finish_non_exhaustive()
    }
}

impl Config {
    /// Upstream's defaults, on this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            storage_prefix: "/registry".into(),
            storage_media_type: crate::StorageMediaType::default(),
            tls_cert: None,
            tls_key: None,
            client_ca: None,
            request_header_ca: None,
            request_header_allowed_names: Vec::new(),
            service_account_signing_key: None,
            service_account_keys: Vec::new(),
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
            api_audiences: Vec::new(),
            service_account_max_token_expiration: Duration::ZERO,
            service_account_extend_token_expiration: true,
            service_account_jwks_uri: String::new(),
            token_auth_file: None,
            enable_bootstrap_token_auth: false,
            anonymous: true,
            authorization_modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac],
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            service_cidrs: vec!["10.96.0.0/12".into()],
            node_port_range: (30000, 32767),
            advertise_address: IpAddr::from([127, 0, 0, 1]),
            advertise_port: 6443,
            runtime_config: Vec::new(),
            feature_gates: FeatureGates::default(),
            kubelet_client_cert: None,
            kubelet_client_key: None,
            kubelet_ca: None,
            kubelet_preferred_address_types: ["InternalIP", "Hostname", "InternalDNS", "ExternalDNS", "ExternalIP"]
                .map(str::to_owned)
                .to_vec(),
            event_ttl: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1800),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            enable_priority_and_fairness: true,
            shutdown_delay: Duration::ZERO,
            audit: crate::audit::AuditConfig::default(),
            clock: Arc::new(SystemClock),
            flags: Vec::new(),
        }
    }

    /// Whether a resource is served.
    pub(crate) fn serves(&self, r: &Resource) -> bool {
        let gv = r.group_version().to_string();
        let named = |key: &str| self.runtime_config.iter().rev().find(|(k, _)| k == key).map(|(_, on)| *on);
        let stage = match r.stage {
            Stage::Ga => "api/ga",
            Stage::Beta => "api/beta",
            Stage::Alpha => "api/alpha",
        };
        named(&format!("{gv}/{}", r.resource))
            .or_else(|| named(&gv))
            .or_else(|| named(stage))
            .or_else(|| named("api/all"))
            .unwrap_or(r.on)
    }
}

/// Reads one setting of `--runtime-config`: `api/beta=true`, `resource.k8s.io/v1beta1`,
/// `networking.k8s.io/v1beta1/ipaddresses=true`.
///
/// # Errors
/// When the key names nothing there is, or the value is neither true nor false.
pub fn runtime_setting(text: &str) -> Result<(String, bool), String> {
    let (key, value) = text.split_once('=').map_or((text, ""), |(k, v)| (k.trim(), v.trim()));
    let on = match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return Err(format!("invalid value of {text}: it must be true or false")),
    };
    let of_core = |key: &str| all().iter().any(|r| r.group.is_empty() && r.version == key);
    let known = match key.split('/').collect::<Vec<_>>().as_slice() {
        ["api", "all" | "ga" | "beta" | "alpha"] => true,
        [version] => of_core(version),
        // Upstream also takes the core group by its path.
        ["api", version] => return if of_core(version) { Ok(((*version).to_owned(), on)) } else { Err(unknown(key)) },
        [version, resource] if of_core(version) => all().iter().any(|r| r.group.is_empty() && r.resource == *resource),
        // A version that is gone is no error: the setting outlives it.
        [group, _] => all().iter().any(|r| r.group == *group),
        [group, version, resource] => {
            all().iter().any(|r| r.group == *group && r.version == *version && r.resource == *resource)
        }
        _ => return Err(format!("runtime-config invalid key {key}")),
    };
    if known { Ok((key.to_owned(), on)) } else { Err(unknown(key)) }
}

fn unknown(key: &str) -> String {
    format!("unknown api groups {}", key.split('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        for (text, want) in [
            ("api/all=false", Ok(("api/all", false))),
            ("api/beta", Ok(("api/beta", true))),
            ("v1=false", Ok(("v1", false))),
            ("api/v1=true", Ok(("v1", true))),
            ("v1/secrets=false", Ok(("v1/secrets", false))),
            ("resource.k8s.io/v1beta1=1", Ok(("resource.k8s.io/v1beta1", true))),
            ("extinct.k8s.io/v1", Err("unknown api groups extinct.k8s.io")),
            ("networking.k8s.io/v1beta1/ipaddresses=true", Ok(("networking.k8s.io/v1beta1/ipaddresses", true))),
            ("networking.k8s.io/v1beta1/nopes", Err("unknown api groups networking.k8s.io")),
            ("a/b/c/d", Err("runtime-config invalid key a/b/c/d")),
            ("api/beta=perhaps", Err("invalid value of api/beta=perhaps: it must be true or false")),
        ] {
            let want = want.map(|(k, on): (&str, bool)| (k.to_owned(), on)).map_err(str::to_owned);
            assert_eq!(runtime_setting(text), want, "{text}");
        }
    }

    #[test]
    fn the_nearest_setting_counts() {
        let store = Arc::new(pintle_store::MemoryStore::new());
        let served = |settings: &[&str]| {
            let mut config = Config::new(store.clone());
            config.runtime_config = settings.iter().map(|s| runtime_setting(s).unwrap()).collect();
            let mut out: Vec<String> = all()
                .iter()
                .filter(|r| r.group == "networking.k8s.io" && config.serves(r))
                .map(|r| format!("{}/{}", r.version, r.resource))
                .collect();
            out.retain(|r| r.ends_with("ipaddresses") || r.ends_with("servicecidrs"));
            out.join(" ")
        };
        for (settings, want) in [
            (&[][..], "v1/ipaddresses v1/servicecidrs"),
            (&["api/beta"], "v1/ipaddresses v1/servicecidrs v1beta1/ipaddresses v1beta1/servicecidrs"),
            (&["api/all=false", "networking.k8s.io/v1beta1"], "v1beta1/ipaddresses v1beta1/servicecidrs"),
            (&["networking.k8s.io/v1beta1/ipaddresses"], "v1/ipaddresses v1/servicecidrs v1beta1/ipaddresses"),
            (&["networking.k8s.io/v1/ipaddresses=false"], "v1/servicecidrs"),
            (&["api/ga=false", "api/ga=true"], "v1/ipaddresses v1/servicecidrs"),
        ] {
            assert_eq!(served(settings), want, "{settings:?}");
        }
    }
}

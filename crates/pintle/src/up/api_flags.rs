//! Flags of the API server and its store, named as upstream's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pintle_api::duration;
use pintle_apiserver::{AuditConfig, Config, LogConfig, StorageMediaType, WebhookConfig};
use pintle_store::{EmbeddedOptions, EmbeddedStore, EtcdOptions, EtcdStore, Store};

/// Where the cluster's objects are kept.
#[derive(Args, Clone, Debug, Default)]
pub struct StoreFlags {
    /// URLs of etcd servers to keep objects in, instead of the embedded store.
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    pub etcd_servers: Vec<String>,
    /// File with the certificates that etcd's certificate must come from.
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// File with the certificate to show to etcd.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// File with the key of that certificate.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
}

impl StoreFlags {
    /// Opens the store.
    ///
    /// # Errors
    /// When it cannot be reached, or its files cannot be read.
    pub async fn open(&self, embedded: &Path, compaction: Option<Duration>) -> anyhow::Result<Arc<dyn Store>> {
        if self.etcd_servers.is_empty() {
            let store = EmbeddedStore::open(embedded, EmbeddedOptions::default()).await;
            return Ok(Arc::new(store.context("the store cannot be opened")?));
        }
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut options = EtcdOptions::new(&self.etcd_servers);
        options.ca = self.etcd_cafile.as_ref().map(read).transpose()?;
        options.client = match (&self.etcd_certfile, &self.etcd_keyfile) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            _ => None,
        };
        options.compaction_interval = compaction;
        let store = EtcdStore::connect(&options).await;
        Ok(Arc::new(store.with_context(|| format!("etcd at {} cannot be used", self.etcd_servers.join(", ")))?))
    }
}

/// Flags of the API server.
#[derive(Args, Clone, Debug)]
pub struct ApiFlags {
    /// The store.
    #[command(flatten)]
    pub store: StoreFlags,
    /// Prefix of all keys in etcd.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// How often etcd's history is compacted; 0s leaves that to others.
    #[arg(long, default_value = "5m", value_parser = duration::parse)]
    pub etcd_compaction_interval: Duration,
    /// How objects are stored: application/json or application/vnd.kubernetes.protobuf [default: protobuf in etcd,
    /// JSON in the embedded store].
    #[arg(long)]
    pub storage_media_type: Option<StorageMediaType>,
    /// File with the audit policy (audit.k8s.io/v1); without it nothing is recorded.
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// File to write audit events to, a line each; - is standard output.
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept; 0 is for ever.
    #[arg(long, default_value_t = 366)]
    pub audit_log_maxage: u32,
    /// How many old audit logs are kept; 0 is all.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxbackup: usize,
    /// Megabytes at which the audit log is put aside; 0 is never.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// Compress old audit logs.
    #[arg(long)]
    pub audit_log_compress: bool,
    /// A kubeconfig that names the server to send audit events to.
    #[arg(long, value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Audit events that wait to be sent at most.
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// Audit events sent at once at most.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// How long an audit event waits for others at most.
    #[arg(long, default_value = "30s", value_parser = duration::parse)]
    pub audit_webhook_batch_max_wait: Duration,
    /// The pause before audit events that could not be sent are sent again.
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    pub audit_webhook_initial_backoff: Duration,
    /// Reading requests at once; with the writing ones, the seats of priority and fairness.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Writing requests at once.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Let flow schemas and priority levels decide which requests execute, wait or are refused.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_priority_and_fairness: bool,
    /// Longest time of a request that is no watch.
    #[arg(long, default_value = "1m", value_parser = duration::parse)]
    pub request_timeout: Duration,
    /// Shortest time, in seconds, of a watch that does not say how long; the longest is twice that.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// How long Events are kept.
    #[arg(long, default_value = "1h", value_parser = duration::parse)]
    pub event_ttl: Duration,
    /// Admission plugins to switch on beside the default ones.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to switch off.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// Let requests without credentials in as system:anonymous.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
    /// File with static tokens.
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
}

impl ApiFlags {
    /// How often etcd's history is compacted.
    pub fn compaction(&self) -> Option<Duration> {
        Some(self.etcd_compaction_interval).filter(|d| !d.is_zero())
    }

    /// Puts what the flags say into the server's configuration.
    pub fn apply(&self, config: &mut Config) {
        let etcd = !self.store.etcd_servers.is_empty();
        if etcd {
            config.storage_prefix = format!("/{}", self.etcd_prefix.trim_matches('/'));
        }
        let media = if etcd { StorageMediaType::Protobuf } else { StorageMediaType::Json };
        config.storage_media_type = self.storage_media_type.unwrap_or(media);
        config.audit = AuditConfig {
            policy_file: self.audit_policy_file.clone(),
            log: self.audit_log_path.clone().map(|path| LogConfig {
                path,
                max_age: self.audit_log_maxage,
                max_backups: self.audit_log_maxbackup,
                max_size: self.audit_log_maxsize,
                compress: self.audit_log_compress,
            }),
            webhook: self.audit_webhook_config_file.clone().map(|config_file| WebhookConfig {
                config_file,
                buffer: self.audit_webhook_batch_buffer_size,
                batch: self.audit_webhook_batch_max_size.max(1),
                wait: self.audit_webhook_batch_max_wait,
                backoff: self.audit_webhook_initial_backoff,
            }),
        };
        config.max_requests_inflight = self.max_requests_inflight;
        config.max_mutating_requests_inflight = self.max_mutating_requests_inflight;
        config.enable_priority_and_fairness = self.enable_priority_and_fairness;
        config.request_timeout = self.request_timeout;
        config.min_request_timeout = Duration::from_secs(self.min_request_timeout);
        config.event_ttl = self.event_ttl;
        config.enable_admission_plugins.extend(self.enable_admission_plugins.iter().cloned());
        config.disable_admission_plugins.clone_from(&self.disable_admission_plugins);
        config.anonymous = self.anonymous_auth;
        config.token_auth_file.clone_from(&self.token_auth_file);
    }
}

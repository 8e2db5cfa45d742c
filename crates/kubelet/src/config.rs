//! The node agent's configuration, with the names of `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`).

use k8s_openapi::api::core::v1::Taint;
use pintle_api::duration::{self, go};
use pintle_api::quantity::Quantity;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All of it. [`KubeletConfig::default`] has upstream's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletConfig {
    /// `--hostname-override`: the node's name.
    #[serde(skip)]
    pub node_name: String,
    /// `--node-ip`: the node's addresses, the primary first; empty finds them.
    #[serde(skip)]
    pub node_ips: Vec<IpAddr>,
    /// `--node-labels`.
    #[serde(skip)]
    pub node_labels: BTreeMap<String, String>,
    /// `--root-dir`.
    #[serde(skip)]
    pub root_dir: PathBuf,
    /// The certificate and key of the server; made and self-signed when there are none.
    #[serde(skip)]
    pub serving_cert: Option<ServingCert>,
    /// Whether the machine's control groups are version 2, found out by default.
    #[serde(skip)]
    pub cgroup_v2: bool,
    /// The port actually taken is told here, for port 0.
    #[serde(skip)]
    pub bound: Option<tokio::sync::watch::Sender<u16>>,

    /// Directory of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// Directory of pods' logs.
    pub pod_logs_dir: PathBuf,
    /// Address to serve on.
    pub address: IpAddr,
    /// Port to serve on.
    pub port: u16,
    /// Port of the local health endpoint; 0 is none.
    pub healthz_port: u16,
    /// Its address.
    pub healthz_bind_address: IpAddr,
    /// Who may use the server.
    pub authentication: Authentication,
    /// And for what.
    pub authorization: Authorization,
    /// Whether exec, logs and the like are served at all.
    pub enable_debugging_handlers: bool,
    /// Domain of the cluster's services.
    pub cluster_domain: String,
    /// Addresses of the cluster's DNS.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<IpAddr>,
    /// The host's resolver configuration; empty is none.
    #[serde(rename = "resolvConf")]
    pub resolv_conf: PathBuf,
    /// How often an unchanged node status is reported.
    #[serde(with = "go")]
    pub node_status_report_frequency: Duration,
    /// How often the node's state is looked at.
    #[serde(with = "go")]
    pub node_status_update_frequency: Duration,
    /// Life of the node's Lease.
    pub node_lease_duration_seconds: i32,
    /// How many images the node's status lists; -1 is all.
    pub node_status_max_images: i64,
    /// Whether to make the Node object.
    pub register_node: bool,
    /// Taints of the new Node object.
    pub register_with_taints: Vec<Taint>,
    /// The cloud's name for the machine.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// How many pods the node takes.
    pub max_pods: i64,
    /// How many processes a pod may have; -1 is no limit.
    pub pod_pids_limit: i64,
    /// Whether CPU limits are enforced by CFS quota.
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    /// Its period.
    #[serde(rename = "cpuCFSQuotaPeriod", with = "go")]
    pub cpu_cfs_quota_period: Duration,
    /// Whether images are pulled one at a time.
    pub serialize_image_pulls: bool,
    /// How many are pulled at once when they are not.
    pub max_parallel_image_pulls: Option<usize>,
    /// An unused image is kept at least so long.
    #[serde(rename = "imageMinimumGCAge", with = "go")]
    pub image_minimum_gc_age: Duration,
    /// An unused image is kept at most so long; zero is for ever.
    #[serde(rename = "imageMaximumGCAge", with = "go")]
    pub image_maximum_gc_age: Duration,
    /// Above this use of the disk images are removed …
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u8,
    /// … down to this.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u8,
    /// Hard eviction thresholds.
    pub eviction_hard: BTreeMap<String, String>,
    /// Soft ones.
    pub eviction_soft: BTreeMap<String, String>,
    /// How long a soft one must hold.
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    /// A pressure condition stays at least so long.
    #[serde(with = "go")]
    pub eviction_pressure_transition_period: Duration,
    /// Longest grace period for soft evictions.
    pub eviction_max_pod_grace_period: i64,
    /// What is kept for the system.
    pub system_reserved: BTreeMap<String, String>,
    /// What is kept for the node agent.
    pub kube_reserved: BTreeMap<String, String>,
    /// Size at which a container's log is rotated.
    pub container_log_max_size: String,
    /// How many files a container's log may have.
    pub container_log_max_files: usize,
    /// How often logs are looked at.
    #[serde(with = "go")]
    pub container_log_monitor_interval: Duration,
    /// Sysctls outside the safe set that pods may use.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Give containers the runtime's seccomp profile unless they say otherwise.
    pub seccomp_default: bool,
    /// Limits of restart back-off.
    pub crash_loop_back_off: CrashLoopBackOff,
    /// Dead containers kept of each container (`--maximum-dead-containers-per-container`).
    #[serde(skip)]
    pub max_dead_containers_per_container: usize,
    /// Parent of all pods' cgroups.
    pub cgroup_root: String,
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ServingCert {
    /// The chain, the server's own first.
    pub cert_pem: String,
    /// The key.
    pub key_pem: String,
}

impl std::fmt::Debug for ServingCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServingCert")
    }
}

/// How callers of the server prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Authentication {
    /// Client certificates.
    pub x509: X509Authentication,
    /// Bearer tokens, by TokenReview.
    pub webhook: WebhookAuthentication,
    /// Neither.
    pub anonymous: AnonymousAuthentication,
}

/// Client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct X509Authentication {
    /// File of the authorities whose certificates count.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
    /// The same, given directly.
    #[serde(skip)]
    pub client_ca_pem: Option<String>,
}

/// Tokens asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WebhookAuthentication {
    /// Whether they count.
    pub enabled: bool,
    /// How long an answer is good for.
    #[serde(rename = "cacheTTL", with = "go")]
    pub cache_ttl: Duration,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        Self { enabled: true, cache_ttl: Duration::from_secs(120) }
    }
}

/// Callers without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnonymousAuthentication {
    /// Whether they are `system:anonymous` rather than refused.
    pub enabled: bool,
}

/// Who may do what with the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Authorization {
    /// `Webhook` (SubjectAccessReview) or `AlwaysAllow`.
    pub mode: String,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { mode: "Webhook".into() }
    }
}

/// Limits of restart back-off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CrashLoopBackOff {
    /// The longest delay.
    pub max_container_restart_period: Option<String>,
}

impl Default for KubeletConfig {
    fn default() -> Self {
        let any = IpAddr::from([0, 0, 0, 0]);
        let map = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Self {
            cgroup_v2: std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            node_name: String::new(),
            node_ips: vec![],
            node_labels: BTreeMap::new(),
            root_dir: "/var/lib/kubelet".into(),
            serving_cert: None,
            bound: None,
            static_pod_path: None,
            pod_logs_dir: "/var/log/pods".into(),
            address: any,
            port: 10250,
            healthz_port: 10248,
            healthz_bind_address: IpAddr::from([127, 0, 0, 1]),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            enable_debugging_handlers: true,
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec![],
            resolv_conf: "/etc/resolv.conf".into(),
            node_status_report_frequency: Duration::from_secs(300),
            node_status_update_frequency: Duration::from_secs(10),
            node_lease_duration_seconds: 40,
            node_status_max_images: 50,
            register_node: true,
            register_with_taints: vec![],
            provider_id: String::new(),
            max_pods: 110,
            pod_pids_limit: -1,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            serialize_image_pulls: true,
            max_parallel_image_pulls: None,
            image_minimum_gc_age: Duration::from_secs(120),
            image_maximum_gc_age: Duration::ZERO,
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            eviction_hard: map(&[
                ("memory.available", "100Mi"),
                ("nodefs.available", "10%"),
                ("nodefs.inodesFree", "5%"),
                ("imagefs.available", "15%"),
                ("imagefs.inodesFree", "5%"),
            ]),
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_pressure_transition_period: Duration::from_secs(300),
            eviction_max_pod_grace_period: 0,
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            container_log_monitor_interval: Duration::from_secs(10),
            allowed_unsafe_sysctls: vec![],
            seccomp_default: false,
            crash_loop_back_off: CrashLoopBackOff::default(),
            max_dead_containers_per_container: 1,
            cgroup_root: "/".into(),
        }
    }
}

impl KubeletConfig {
    /// Reads a `KubeletConfiguration` from YAML or JSON. What it does not name has upstream's default.
    ///
    /// # Errors
    /// Text that is no object of that kind, and fields that are unknown or not supported: none is silently ignored.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        let mut value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let object = value.as_object_mut().ok_or("it is not an object")?;
        let (version, kind) = (object.remove("apiVersion"), object.remove("kind"));
        if version != Some("kubelet.config.k8s.io/v1beta1".into()) || kind != Some("KubeletConfiguration".into()) {
            return Err("it is not of kind KubeletConfiguration, apiVersion kubelet.config.k8s.io/v1beta1".into());
        }
        let config: Self = serde_json::from_value(value).map_err(|e| e.to_string())?;
        config.check().map(|()| config)
    }

    /// What types do not say of the file's values. Source: `kubelet/apis/config/validation`.
    fn check(&self) -> Result<(), String> {
        self.check_eviction()?;
        for (field, map) in [("systemReserved", &self.system_reserved), ("kubeReserved", &self.kube_reserved)] {
            map.iter().try_for_each(|(name, text)| quantity(&format!("{field} {name}"), text))?;
        }
        quantity("containerLogMaxSize", &self.container_log_max_size)?;
        if let Some(period) = &self.crash_loop_back_off.max_container_restart_period {
            let field = "crashLoopBackOff.maxContainerRestartPeriod";
            let period = duration::parse(period).map_err(|e| format!("{field}: {e}"))?;
            if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&period) {
                return Err(format!("{field} must be between 1s and 300s"));
            }
        }
        let (high, low) = (self.image_gc_high_threshold_percent, self.image_gc_low_threshold_percent);
        let wrong = [
            (self.container_log_max_files < 2, "containerLogMaxFiles must be greater than 1"),
            (high > 100, "imageGCHighThresholdPercent must be between 0 and 100"),
            (low >= high, "imageGCLowThresholdPercent must be less than imageGCHighThresholdPercent"),
            (
                !["Webhook", "AlwaysAllow"].contains(&self.authorization.mode.as_str()),
                "authorization.mode must be Webhook or AlwaysAllow",
            ),
            (
                self.serialize_image_pulls && self.max_parallel_image_pulls.is_some_and(|n| n > 1),
                "maxParallelImagePulls cannot be larger than 1 unless serializeImagePulls is false",
            ),
            (self.max_parallel_image_pulls == Some(0), "maxParallelImagePulls must be a positive number"),
            (self.max_pods < 0, "maxPods must not be negative"),
            (self.node_lease_duration_seconds <= 0, "nodeLeaseDurationSeconds must be greater than 0"),
            (self.pod_pids_limit < -1, "podPidsLimit must be -1 or more"),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, why)) => Err((*why).into()),
            None => Ok(()),
        }
    }

    fn check_eviction(&self) -> Result<(), String> {
        for (field, map) in [
            ("evictionHard", &self.eviction_hard),
            ("evictionSoft", &self.eviction_soft),
            ("evictionSoftGracePeriod", &self.eviction_soft_grace_period),
        ] {
            let known = |signal: &str| crate::eviction::SIGNALS.iter().any(|(known, _)| *known == signal);
            if let Some(signal) = map.keys().find(|s| !known(s)) {
                return Err(format!("{field}: unknown eviction signal {signal:?}"));
            }
        }
        for (signal, threshold) in self.eviction_hard.iter().chain(&self.eviction_soft) {
            match threshold.strip_suffix('%') {
                Some(percent) if percent.parse::<f64>().is_ok_and(|p| (0.0..=100.0).contains(&p)) => {}
                Some(_) => return Err(format!("eviction threshold {signal}: {threshold:?} is no percentage")),
                None => quantity(&format!("eviction threshold {signal}"), threshold)?,
            }
        }
        if let Some(signal) = self.eviction_soft.keys().find(|s| !self.eviction_soft_grace_period.contains_key(*s)) {
            return Err(format!("grace period must be specified for the soft eviction threshold {signal}"));
        }
        for (signal, grace) in &self.eviction_soft_grace_period {
            duration::parse(grace).map_err(|e| format!("evictionSoftGracePeriod {signal}: {e}"))?;
        }
        Ok(())
    }

    /// The longest delay between restarts of a container.
    #[must_use]
    pub fn max_restart_delay(&self) -> Duration {
        let set = self.crash_loop_back_off.max_container_restart_period.as_deref();
        set.and_then(|s| duration::parse(s).ok()).unwrap_or(Duration::from_secs(300))
    }

    /// The directory of one pod.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// The directory of one pod's logs.
    #[must_use]
    pub fn pod_log_dir(&self, pod: &crate::pod::spec::PodRef) -> PathBuf {
        self.pod_logs_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }
}

fn quantity(field: &str, text: &str) -> Result<(), String> {
    Quantity::parse(text).map(|_| ()).map_err(|e| format!("{field}: {text:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_nothing_is_ignored() {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let read = |rest: &str| KubeletConfig::from_yaml(&format!("{head}{rest}"));
        let config =
            read("maxPods: 7\nimageGCHighThresholdPercent: 90\nevictionHard: {nodefs.available: 1%}\n").unwrap();
        assert_eq!((config.max_pods, config.image_gc_high_threshold_percent), (7, 90));
        assert_eq!(config.eviction_hard.len(), 1);
        assert_eq!(read("").unwrap().max_pods, 110);
        let config = read("authentication: {webhook: {cacheTTL: 1m}}\n").unwrap();
        assert_eq!(config.authentication.webhook.cache_ttl, Duration::from_secs(60));
        assert!(config.authentication.webhook.enabled);
        for (bad, why) in [
            ("authentication: {webhook: {cacheTtl: 1m}}", "cacheTtl"),
            ("evictionHard: {disk: 1%}", "unknown eviction signal \"disk\""),
            ("evictionHard: {nodefs.available: many}", "quantities must match"),
            ("evictionHard: {nodefs.available: 101%}", "no percentage"),
            ("evictionSoft: {nodefs.available: 20%}", "grace period must be specified"),
            ("systemReserved: {cpu: much}", "systemReserved cpu"),
            ("containerLogMaxSize: big", "containerLogMaxSize"),
            ("containerLogMaxFiles: 1", "greater than 1"),
            ("imageGCLowThresholdPercent: 90", "must be less than"),
            ("crashLoopBackOff: {maxContainerRestartPeriod: 10m}", "between 1s and 300s"),
            ("authorization: {mode: RBAC}", "must be Webhook"),
            ("maxParallelImagePulls: 3", "serializeImagePulls"),
            ("streamingConnectionIdleTimeout: 1h", "streamingConnectionIdleTimeout"),
        ] {
            let got = read(&format!("{bad}\n")).unwrap_err();
            assert!(got.contains(why), "{bad}: {got}");
        }
        assert!(read("maxPodz: 7\n").unwrap_err().contains("maxPodz"));
        assert!(read("maxPods: many\n").is_err());
        assert!(KubeletConfig::from_yaml("maxPods: 7").unwrap_err().contains("KubeletConfiguration"));
    }
}

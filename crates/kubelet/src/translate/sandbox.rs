//! The sandbox a pod asks for.

use super::dns::{NodeDns, hostname, pod_dns};
use super::{resources, security};
use crate::config::KubeletConfig;
use crate::pod::spec::{self, PodRef};
use crate::pod::state::labels;
use k8s_openapi::api::core::v1::Pod;
use pintle_runtime::{LinuxSandboxConfig, PortMapping, Protocol, SandboxConfig, SandboxMetadata, StringMap};

/// Events to tell of: reason and message.
pub type Notes = Vec<(&'static str, String)>;

/// The labels under which sandbox and containers are found again.
#[must_use]
pub fn pod_labels(r: &PodRef) -> StringMap {
    [(labels::POD_NAME, &r.name), (labels::POD_NAMESPACE, &r.namespace), (labels::POD_UID, &r.uid)]
        .map(|(k, v)| (k.to_string(), v.clone()))
        .into()
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if spec::host_network(pod) {
        return vec![];
    }
    spec::containers(pod)
        .flat_map(|(_, c)| c.ports.clone().unwrap_or_default())
        .filter_map(|p| {
            let port = |n: i32| u16::try_from(n).unwrap_or_default();
            Some(PortMapping {
                protocol: match p.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: port(p.container_port),
                host_port: port(p.host_port.filter(|n| *n > 0)?),
                host_ip: p.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
            })
        })
        .collect()
}

/// The sandbox.
///
/// # Errors
/// What makes it impossible, in upstream's words.
pub fn of(
    pod: &Pod,
    attempt: u32,
    handler: &str,
    dns: &NodeDns,
    config: &KubeletConfig,
) -> Result<(SandboxConfig, Notes), String> {
    let r = PodRef::of(pod);
    let (resolver, notes) = pod_dns(pod, dns);
    let (hostname, _) = hostname(pod, &dns.cluster_domain)?;
    let mut all_labels = pod.metadata.labels.clone().unwrap_or_default();
    all_labels.extend(pod_labels(&r));
    let sysctls = spec::spec(pod).security_context.as_ref().and_then(|s| s.sysctls.as_ref());
    let sandbox = SandboxConfig {
        hostname: if spec::host_network(pod) { String::new() } else { hostname },
        log_directory: config.pod_log_dir(&r).display().to_string(),
        dns_config: Some(resolver),
        port_mappings: port_mappings(pod),
        labels: all_labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: LinuxSandboxConfig {
            cgroup_parent: resources::cgroup_parent(pod, config),
            security_context: security::of_sandbox(pod, config),
            sysctls: sysctls.into_iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect(),
            resources: Some(resources::of_pod(pod, config)),
        },
        runtime_handler: handler.into(),
        metadata: SandboxMetadata { name: r.name, uid: r.uid, namespace: r.namespace, attempt },
    };
    Ok((sandbox, notes))
}

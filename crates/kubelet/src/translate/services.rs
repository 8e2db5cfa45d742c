//! The environment variables that tell a container of the services it may use.

use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;
use std::sync::Arc;

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.into() }
}

fn add(out: &mut BTreeMap<String, String>, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let (Some(name), Some(ip)) = (&service.metadata.name, &spec.cluster_ip) else { return };
    if ip.is_empty() || ip == "None" {
        return;
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let name = variable(name);
    out.insert(format!("{name}_SERVICE_HOST"), ip.clone());
    out.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for p in ports {
        if let Some(port_name) = p.name.as_deref().filter(|n| !n.is_empty()) {
            out.insert(format!("{name}_SERVICE_PORT_{}", variable(port_name)), p.port.to_string());
        }
    }
    for (i, p) in ports.iter().enumerate() {
        let protocol = p.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP");
        let url = format!("{}://{}:{}", protocol.to_lowercase(), host(ip), p.port);
        if i == 0 {
            out.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", p.port, protocol.to_uppercase());
        out.insert(prefix.clone(), url);
        out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{prefix}_PORT"), p.port.to_string());
        out.insert(format!("{prefix}_ADDR"), ip.clone());
    }
}

/// The variables for a pod of `namespace`: the API server's service always, the namespace's own if `links`.
#[must_use]
pub fn variables(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let named = |s: &Service, ns: &str| s.metadata.namespace.as_deref() == Some(ns);
    let master = |s: &Service| named(s, "default") && s.metadata.name.as_deref() == Some("kubernetes");
    // A service of the pod's own namespace wins over the API server's.
    for s in services.iter().filter(|s| master(s)) {
        add(&mut out, s);
    }
    for s in services.iter().filter(|s| links && named(s, namespace)) {
        add(&mut out, s);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(yaml: &str) -> Arc<Service> {
        Arc::new(serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn links() {
        let all = [
            service(
                "{metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.0.0.1, ports: [{name: https, port: 443}]}}",
            ),
            service(
                "{metadata: {name: my-db, namespace: ns}, spec: {clusterIP: 'fd00::5', ports: [{port: 53, protocol: UDP}]}}",
            ),
            service("{metadata: {name: headless, namespace: ns}, spec: {clusterIP: None, ports: [{port: 1}]}}"),
            service("{metadata: {name: far, namespace: other}, spec: {clusterIP: 10.0.0.9, ports: [{port: 1}]}}"),
        ];
        let without = variables(&all, "ns", false);
        assert_eq!(without.len(), 8);
        assert_eq!(without["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(without["KUBERNETES_PORT_443_TCP"], "tcp://10.0.0.1:443");
        let with = variables(&all, "ns", true);
        assert_eq!(with["MY_DB_PORT"], "udp://[fd00::5]:53");
        assert_eq!(with["MY_DB_PORT_53_UDP_ADDR"], "fd00::5");
        assert_eq!(with.len(), 8 + 7);
    }
}

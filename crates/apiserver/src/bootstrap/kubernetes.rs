//! What tells a cluster how to reach its API: the `kubernetes` service and its endpoints, the service network, the
//! authorities of clients, and the server's identity.

use std::sync::Arc;
use std::time::Duration;

use pintle_api::Status;
use serde_json::{Value, json};

use crate::Server;
use crate::config::Pem;
use crate::http::context::Ctx;
use crate::registry::create::Write;
use crate::registry::meta;
use crate::registry::options::WriteOptions;
use crate::registry::update::Change;

/// How long the server's identity lease is good, and how often it is renewed.
const LEASE_SECONDS: i64 = 3600;
const RENEW: Duration = Duration::from_secs(300);

impl Server {
    /// Makes an object of the server's own what it should be, creating it when it is not there.
    async fn put_own(
        &self,
        (group, version, resource): (&str, &str, &str),
        namespace: &str,
        object: Value,
        change: &mut (dyn FnMut(&mut Value) + Send),
    ) -> Result<(), Status> {
        let name = meta::name(&object).to_owned();
        self.ensure(group, version, resource, namespace, object).await?;
        let res = self.registry.must(group, version, resource)?;
        let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
        let w = Write { ctx: &ctx, res, namespace, subresource: "", options: &options };
        let mut make = |present: Option<&Value>| {
            let mut new = present.cloned().ok_or_else(|| res.not_found(&name))?;
            change(&mut new);
            Ok(new)
        };
        self.update(&w, &mut Change { name: &name, allow_create: false, uid: None, make: &mut make }).await.map(|_| ())
    }
}

/// Makes them all.
pub(super) async fn ensure(server: &Arc<Server>) -> Result<(), Status> {
    service_network(server).await?;
    service(server).await?;
    authorities(server).await?;
    token_tracking(server).await?;
    identity(server).await
}

/// Since when it is noted which tokens kept in Secrets are used: whoever clears away the unused ones wants to know.
async fn token_tracking(server: &Server) -> Result<(), Status> {
    let today = crate::authn::service_account::day(server.clock.now()).to_string();
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"since": today},
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"}});
    let mut mend = |map: &mut Value| {
        let since = map.pointer("/data/since").and_then(Value::as_str);
        if since.is_none_or(|s| s.parse::<jiff::civil::Date>().is_err()) {
            map["data"] = json!({"since": today});
        }
    };
    server.put_own(("", "v1", "configmaps"), "kube-system", object, &mut mend).await
}

async fn service_network(server: &Server) -> Result<(), Status> {
    let cidrs = &server.config.service_cidrs;
    let object = json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
    server.ensure("networking.k8s.io", "v1", "servicecidrs", "", object).await?;
    let res = server.registry.must("networking.k8s.io", "v1", "servicecidrs")?;
    let now = pintle_api::time::format(server.clock.now());
    let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
    let w = Write { ctx: &ctx, res, namespace: "", subresource: "status", options: &options };
    let mut make = |present: Option<&Value>| {
        let mut new = present.cloned().ok_or_else(|| res.not_found("kubernetes"))?;
        let has = new.pointer("/status/conditions").and_then(Value::as_array).is_some_and(|c| !c.is_empty());
        if !has {
            new["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "",
                "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": now}]});
        }
        Ok(new)
    };
    server.update(&w, &mut Change { name: "kubernetes", allow_create: false, uid: None, make: &mut make }).await?;
    Ok(())
}

/// The first address of a network after its own.
fn first_address(cidr: &str) -> Option<String> {
    let (ip, _) = cidr.split_once('/')?;
    Some(match ip.parse().ok()? {
        std::net::IpAddr::V4(ip) => std::net::Ipv4Addr::from(u32::from(ip) + 1).to_string(),
        std::net::IpAddr::V6(ip) => std::net::Ipv6Addr::from(u128::from(ip) + 1).to_string(),
    })
}

async fn service(server: &Server) -> Result<(), Status> {
    let port = server.config.advertise_port;
    let ports = json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ip = server.config.service_cidrs.first().and_then(|c| first_address(c));
    let ip = ip.ok_or_else(|| Status::internal("no service network is configured"))?;
    let object = json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"clusterIP": ip, "ports": ports, "sessionAffinity": "None", "type": "ClusterIP",
            "ipFamilyPolicy": "SingleStack"}});
    let wanted = ports.clone();
    server
        .put_own(("", "v1", "services"), "default", object, &mut |s| {
            let same = s.pointer("/spec/ports/0/targetPort") == wanted.pointer("/0/targetPort");
            if !same {
                s["spec"]["ports"] = wanted.clone();
            }
        })
        .await?;

    let address = server.config.advertise_address;
    if address.is_loopback() {
        // No pod could reach it there, and endpoints may not name such addresses.
        tracing::warn!(%address, "the kubernetes service has no endpoints: the advertised address is a loopback one");
        return Ok(());
    }
    let subsets =
        json!([{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]);
    let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let object = json!({"kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": skip}, "subsets": subsets});
    server.put_own(("", "v1", "endpoints"), "default", object, &mut |e| e["subsets"] = subsets.clone()).await?;

    let endpoints = json!([{"addresses": [address], "conditions": {"ready": true}}]);
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let object = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" }, "endpoints": endpoints, "ports": ports});
    server
        .put_own(("discovery.k8s.io", "v1", "endpointslices"), "default", object, &mut |s| {
            s["endpoints"] = endpoints.clone();
            s["ports"] = ports.clone();
        })
        .await
}

async fn authorities(server: &Server) -> Result<(), Status> {
    let config = &server.config;
    let read = |pem: &Option<Pem>| -> Result<Option<String>, Status> {
        let Some(pem) = pem else { return Ok(None) };
        let bytes = pem.read().map_err(Status::internal)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    };
    let mut data = json!({});
    if let Some(ca) = read(&config.client_ca)? {
        data["client-ca-file"] = ca.into();
    }
    if let Some(ca) = read(&config.request_header_ca)? {
        data["requestheader-client-ca-file"] = ca.into();
        data["requestheader-allowed-names"] = json!(config.request_header_allowed_names).to_string().into();
        for (key, value) in [
            ("requestheader-username-headers", "X-Remote-User"),
            ("requestheader-uid-headers", "X-Remote-Uid"),
            ("requestheader-group-headers", "X-Remote-Group"),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ] {
            data[key] = json!([value]).to_string().into();
        }
    }
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}, "data": data});
    server.put_own(("", "v1", "configmaps"), "kube-system", object, &mut |c| c["data"] = data.clone()).await
}

async fn identity(server: &Arc<Server>) -> Result<(), Status> {
    use sha2::Digest;
    let host = std::env::var("HOSTNAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_else(|_| "localhost".into());
    let host = host.trim().to_owned();
    let digest = hex::encode(sha2::Sha256::digest(format!("{host}:{}", server.config.advertise_port)));
    let name = format!("apiserver-{}", &digest[..26]);
    let holder = format!("{name}_{}", uuid::Uuid::new_v4());
    renew(server, &name, &holder, &host).await?;
    let server = Arc::clone(server);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = server.stopping.cancelled() => return,
            }
            if let Err(e) = renew(&server, &name, &holder, &host).await {
                tracing::warn!("renewing the server's lease failed: {e}");
            }
        }
    });
    Ok(())
}

async fn renew(server: &Server, name: &str, holder: &str, host: &str) -> Result<(), Status> {
    let now = pintle_api::time::format_micro(server.clock.now());
    let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
    let object = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": name, "namespace": "kube-system",
            "labels": {"apiserver.kubernetes.io/identity": "kube-apiserver", "kubernetes.io/hostname": host}},
        "spec": spec});
    server
        .put_own(("coordination.k8s.io", "v1", "leases"), "kube-system", object, &mut |l| l["spec"] = spec.clone())
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first() {
        assert_eq!(first_address("10.96.0.0/12").as_deref(), Some("10.96.0.1"));
        assert_eq!(first_address("fd00::/112").as_deref(), Some("fd00::1"));
        assert_eq!(first_address("x"), None);
    }
}

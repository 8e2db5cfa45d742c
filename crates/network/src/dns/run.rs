//! Keeping the zone as the objects of the API say, and the objects users expect in place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pintle_client::api::k8s_openapi::api::core::v1::{Namespace, Node, Service as ServiceObject};
use pintle_client::api::k8s_openapi::api::discovery::v1::EndpointSlice;
use pintle_client::api::resources::Resource;
use pintle_client::{Backoff, Client, Informers, Patch, WriteParams};
use serde_json::Value;

use super::{Dns, service_object, slice_object};
use crate::follow;
use crate::nft::Sentinel;

/// Who writes the objects.
const MANAGER: &str = "pintle-dns";

impl Dns {
    /// Follows Services, EndpointSlices and Namespaces. Returns once the zone knows everything there is; it stays current
    /// for as long as the informers live.
    pub async fn follow(&self, informers: &Informers) {
        let services = follow::services(informers);
        let slices = follow::slices(informers);
        let namespaces = informers.of::<Namespace>();
        let zone = self.zone().clone();
        services.on_change(move |change| match change.now() {
            Some(service) => zone.write().set_service(service.clone()),
            None => zone.write().remove_service(&follow::name_of(change)),
        });
        let zone = self.zone().clone();
        slices.on_change(move |change| {
            let slice = change.now().and_then(|slice| slice.as_ref().as_ref()).cloned();
            zone.write().set_slice(&follow::name_of(change), slice);
        });
        let zone = self.zone().clone();
        namespaces.on_change(move |change| zone.write().set_namespace(change.key(), change.now().is_some()));
        services.synced().await;
        slices.synced().await;
        namespaces.synced().await;
    }
}

/// Puts the `kube-dns` Service and this node's part of its endpoints in place, trying until it is done.
pub async fn publish(client: &Client, node: &str, cluster_ips: &[IpAddr], node_ips: &[IpAddr]) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 0.2);
    while let Err(err) = try_publish(client, node, cluster_ips, node_ips).await {
        let delay = backoff.next_delay();
        tracing::warn!(%err, ?delay, "publishing the kube-dns Service; trying again");
        tokio::time::sleep(delay).await;
    }
}

async fn try_publish(
    client: &Client,
    node: &str,
    cluster_ips: &[IpAddr],
    node_ips: &[IpAddr],
) -> pintle_client::Result<()> {
    let services = pintle_client::typed::resource_of::<ServiceObject>();
    put(client, services, &service_object(cluster_ips), false).await?;
    let slices = pintle_client::typed::resource_of::<EndpointSlice>();
    let owner = client.get(pintle_client::typed::resource_of::<Node>(), "", node).await?;
    for ip in node_ips {
        if cluster_ips.iter().any(|cluster| cluster.is_ipv4() == ip.is_ipv4()) {
            put(client, slices, &slice_object(node, owner.uid(), *ip), true).await?;
        }
    }
    Ok(())
}

/// Creates an object, or, if it is there, makes it say the same where it is ours alone. It is looked for first: creating
/// a Service whose cluster address is taken, be it by itself, is refused as invalid.
async fn put(client: &Client, resource: &'static Resource, object: &Value, ours: bool) -> pintle_client::Result<()> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let params = WriteParams { field_manager: MANAGER.into(), ..WriteParams::default() };
    match client.get(resource, &namespace, &name).await {
        Ok(_) if ours => {
            client.patch(resource, &namespace, &name, "", Patch::merge(object)?, &params).await?;
        }
        Ok(_) => {}
        Err(err) if err.is_not_found() => {
            client.create(resource, &namespace, pintle_client::client::encode(object)?, &params).await?;
        }
        Err(err) => return Err(err),
    }
    Ok(())
}

/// Starts DNS and fills it; publishing it goes on behind. It answers until the returned server is dropped or stopped.
///
/// # Errors
/// When an address or port cannot be taken.
pub async fn run(informers: &Informers, config: &super::Config, node: &str) -> Result<Arc<Dns>, super::Error> {
    let dns = Arc::new(Dns::start(config).await?);
    dns.follow(informers).await;
    let (client, node, config) = (informers.client().clone(), node.to_owned(), config.clone());
    let running = Arc::downgrade(&dns);
    tokio::spawn(async move {
        publish(&client, &node, &config.cluster_ips, &config.node_ips).await;
        let mut sentinel = match Sentinel::new(&config.ns, super::TABLES) {
            Ok(sentinel) => sentinel,
            Err(err) => return tracing::error!(%err, "nobody looks after the rules of DNS"),
        };
        loop {
            sentinel.gone().await;
            if running.strong_count() == 0 {
                return;
            }
            if let Err(err) = super::write_rules(&config) {
                tracing::error!(%err, "the rules of DNS were refused");
            }
        }
    });
    Ok(dns)
}

//! The proxy's loop: objects in, rules out.

use std::sync::Arc;
use std::time::Duration;

use pintle_client::{Backoff, Change, Informers};

use super::{Config, Proxy};
use crate::follow;
use crate::nft::Sentinel;
use crate::sysctl;
use crate::views::{Node, Service, Slice};

/// Keeps the rules as the objects of the API say, until the informers end. A refused change is tried again.
///
/// # Errors
/// When the kernel offers no nftables.
pub async fn run(informers: &Informers, config: Config) -> std::io::Result<()> {
    let own_key: Arc<str> = config.node.as_str().into();
    let (services, slices, nodes) = (follow::services(informers), follow::slices(informers), follow::nodes(informers));
    let (mut service_changes, mut slice_changes, mut node_changes) =
        (services.subscribe(), slices.subscribe(), nodes.subscribe());
    services.synced().await;
    slices.synced().await;
    nodes.synced().await;
    if let Err(err) = config.ns.run(tune)? {
        tracing::warn!(%err, "the limits of connection tracking stay as they are");
    }
    let mut sentinel = Sentinel::new(&config.ns, super::layout::TABLES)?;
    let mut proxy = Proxy::new(config)?;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 0.2);
    loop {
        // Everything that is known by now goes into one change of the rules.
        while let Some(change) = service_changes.try_next() {
            take_service(&mut proxy, &change);
        }
        while let Some(change) = slice_changes.try_next() {
            take_slice(&mut proxy, &change);
        }
        while let Some(change) = node_changes.try_next() {
            take_node(&mut proxy, &change, &own_key);
        }
        let mut again = None;
        if proxy.is_dirty() {
            let (back, result) = tokio::task::spawn_blocking(move || {
                let result = proxy.sync();
                (proxy, result)
            })
            .await
            .map_err(std::io::Error::other)?;
            proxy = back;
            match result {
                Ok(()) => backoff.reset(),
                Err(err) => {
                    let delay = backoff.next_delay();
                    tracing::error!(%err, ?delay, "the proxy's rules were refused; trying again");
                    again = Some(delay);
                }
            }
        }
        let retry = async {
            match again {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = service_changes.next() => match change {
                Some(change) => take_service(&mut proxy, &change),
                None => return Ok(()),
            },
            change = slice_changes.next() => match change {
                Some(change) => take_slice(&mut proxy, &change),
                None => return Ok(()),
            },
            change = node_changes.next() => match change {
                Some(change) => take_node(&mut proxy, &change, &own_key),
                None => return Ok(()),
            },
            () = retry => {}
            () = sentinel.gone() => proxy.write_anew(),
        }
    }
}

/// Room for tracked connections, and how long idle ones are kept, as kube-proxy sets them. Limits are only ever raised.
fn tune() -> std::io::Result<()> {
    const PER_CORE: usize = 32_768;
    const LEAST: usize = 131_072;
    let wanted = std::thread::available_parallelism().map_or(LEAST, |cores| (cores.get() * PER_CORE).max(LEAST));
    let now = sysctl::get("netfilter/nf_conntrack_max")?.parse::<usize>().unwrap_or(usize::MAX);
    if now < wanted {
        sysctl::set("netfilter/nf_conntrack_max", &wanted.to_string())?;
    }
    sysctl::set("netfilter/nf_conntrack_tcp_timeout_established", "86400")?;
    sysctl::set("netfilter/nf_conntrack_tcp_timeout_close_wait", "3600")
}

fn take_service(proxy: &mut Proxy, change: &Change<Service>) {
    match change.now() {
        Some(service) => proxy.set_service(service.clone()),
        None => proxy.remove_service(&follow::name_of(change)),
    }
}

fn take_slice(proxy: &mut Proxy, change: &Change<Option<Arc<Slice>>>) {
    let slice = change.now().and_then(|slice| slice.as_ref().as_ref()).cloned();
    proxy.set_slice(&follow::name_of(change), slice);
}

fn take_node(proxy: &mut Proxy, change: &Change<Node>, own: &Arc<str>) {
    if let Some(node) = change.now().filter(|_| change.key() == own) {
        proxy.set_node(node);
    }
}

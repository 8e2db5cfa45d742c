//! Following the objects policies depend on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use pintle_client::api::k8s_openapi::api::core::v1 as core;
use pintle_client::api::k8s_openapi::api::networking::v1::NetworkPolicy;
use pintle_client::{Backoff, Informers};

use super::{Guard, Namespace, Pod, Policy, World};
use crate::netns::NetNs;
use crate::nft::Sentinel;
use crate::views::Name;

/// Keeps the rules as the policies say, until the informers end. `dns` are cluster addresses this node answers itself.
///
/// # Errors
/// When the kernel offers no nftables.
pub async fn run(informers: &Informers, ns: &NetNs, node: &str, dns: Vec<IpAddr>) -> std::io::Result<()> {
    let policies = informers.of::<NetworkPolicy>().view_with(|object| {
        // A policy that cannot be understood is left out, and logged by the informer.
        Policy::decode(object.bytes()).map_err(<serde_json::Error as serde::de::Error>::custom)
    });
    let pods = informers.of::<core::Pod>().view_with(|object| Pod::decode(object.bytes()));
    let namespaces = informers.of::<core::Namespace>().view_with(|object| Namespace::decode(object.bytes()));
    let (mut policy_changes, mut pod_changes, mut namespace_changes) =
        (policies.subscribe(), pods.subscribe(), namespaces.subscribe());
    policies.synced().await;
    pods.synced().await;
    namespaces.synced().await;
    let mut guard = Guard::new(ns, dns.clone())?;
    let mut sentinel = Sentinel::new(ns, super::TABLES)?;
    // Policies name DNS as they would name its pods elsewhere.
    let dns_pod = Pod {
        name: Name::new("kube-system", "kube-dns"),
        labels: BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
        ips: dns,
        ..Pod::default()
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 0.2);
    // Whether the rules say that there are no policies.
    let mut open = false;
    loop {
        while policy_changes.try_next().is_some() {}
        while pod_changes.try_next().is_some() {}
        while namespace_changes.try_next().is_some() {}
        let mut again = None;
        if !(open && policies.is_empty()) {
            let (all_policies, all_pods) = (policies.list(), pods.list());
            let all_namespaces: Vec<_> =
                namespaces.keys().into_iter().filter_map(|key| Some((key.clone(), namespaces.get(&key)?))).collect();
            let (node_name, dns_pod_now) = (node.to_owned(), dns_pod.clone());
            let (back, result) = tokio::task::spawn_blocking(move || {
                let world = World {
                    node: &node_name,
                    policies: all_policies.iter().map(AsRef::as_ref).collect(),
                    pods: all_pods.iter().map(AsRef::as_ref).chain([&dns_pod_now]).collect(),
                    namespaces: all_namespaces
                        .iter()
                        .map(|(key, namespace)| (key.as_ref(), namespace.as_ref()))
                        .collect(),
                };
                let result = guard.sync(&world).map(|()| world.policies.is_empty());
                (guard, result)
            })
            .await
            .map_err(std::io::Error::other)?;
            guard = back;
            match result {
                Ok(none) => {
                    open = none;
                    backoff.reset();
                }
                Err(err) => {
                    let delay = backoff.next_delay();
                    tracing::error!(%err, ?delay, "the rules of policies were refused; trying again");
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
        let alive = tokio::select! {
            change = policy_changes.next() => change.is_some(),
            change = pod_changes.next() => change.is_some(),
            change = namespace_changes.next() => change.is_some(),
            () = retry => true,
            () = sentinel.gone() => {
                guard.write_anew();
                open = false;
                true
            }
        };
        if !alive {
            return Ok(());
        }
    }
}

//! Following the Node objects: routes to the pods of other nodes. And looking after the rules.

use std::time::Duration;

use pintle_client::{Backoff, Informers};

use super::{Peer, PodNetwork};
use crate::follow;
use crate::nft::Sentinel;

impl PodNetwork {
    /// Keeps the routes to other nodes' pods as the Node objects say, until the informers end.
    pub async fn follow_nodes(&self, informers: &Informers, node: &str) {
        let nodes = follow::nodes(informers);
        let mut changes = nodes.subscribe();
        nodes.synced().await;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 0.2);
        let mut known = None;
        let mut sentinel = match Sentinel::new(&self.config.ns, super::rules::TABLES) {
            Ok(sentinel) => sentinel,
            Err(err) => return tracing::error!(%err, "nobody looks after the pod network"),
        };
        loop {
            while changes.try_next().is_some() {}
            let mut own = Vec::new();
            let mut peers = Vec::new();
            for found in nodes.list() {
                if found.name == node {
                    own.clone_from(&found.ips);
                } else if !found.pod_cidrs.is_empty() {
                    peers.push(Peer {
                        name: found.name.clone(),
                        ips: found.ips.clone(),
                        pod_cidrs: found.pod_cidrs.clone(),
                    });
                }
            }
            let now = Some((own, peers));
            let mut again = None;
            if known != now
                && let Some((own, peers)) = &now
            {
                match self.set_peers(own, peers).await {
                    Ok(()) => {
                        known.clone_from(&now);
                        backoff.reset();
                    }
                    Err(err) => {
                        let delay = backoff.next_delay();
                        tracing::error!(%err, ?delay, "the routes to other nodes were refused; trying again");
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
                change = changes.next() => if change.is_none() { return },
                () = retry => {}
                () = sentinel.gone() => if let Err(err) = self.rewrite_rules() {
                    tracing::error!(%err, "the pod network's rules were refused");
                },
            }
        }
    }
}

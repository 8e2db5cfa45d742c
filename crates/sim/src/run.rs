//! The simulation at work: nodes are made, their Leases renewed, and what was decided of pods is written.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use parking_lot::Mutex;
use pintle_api::resources::{Resource, by_kind};
use pintle_client::client::encode;
use pintle_client::{
    Change, Client, Clock, Informers, Key, ListParams, Patch, QueueOptions, Scope, UnlessGone, View, WorkQueue,
    WriteParams,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::Addresses;
use crate::config::Config;
use crate::heartbeat::Rota;
use crate::node::{self, Node};
use crate::rules::{self, Next, Pod};
use crate::status;

/// Signs of life are looked after so often at most: those due in between go together.
const TOGETHER: Duration = Duration::from_millis(100);
/// The index of pods by node.
const BY_NODE: &str = "node";

/// What keeps nodes from being simulated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Node of a name that is needed is there, and is not one of the simulation's.
    #[error("node {0:?} exists and is not simulated in this group: choose another --group")]
    Foreign(String),
    /// All addresses are given.
    #[error("the network of {0} has no address left: give it a larger one")]
    Full(&'static str),
    /// The API refused, or was not reached.
    #[error("{0}: {1}")]
    Api(String, #[source] pintle_client::Error),
    /// The registry of resources is not whole.
    #[error("the resource registry lacks {0}")]
    Registry(&'static str),
}

type Result<T> = std::result::Result<T, Error>;

struct Sim {
    config: Config,
    client: Client,
    clock: Clock,
    nodes: View<Node>,
    pods: View<Pod>,
    kinds: Kinds,
    node_ips: Mutex<Addresses>,
    pod_ips: Mutex<Addresses>,
    /// Pods to look at.
    queue: WorkQueue<Key>,
    /// Nodes to look at.
    nodes_queue: WorkQueue<Key>,
}

struct Kinds {
    node: &'static Resource,
    pod: &'static Resource,
    lease: &'static Resource,
}

/// A node came or went.
enum News {
    Node(Arc<str>),
    Gone(Arc<str>),
}

/// Simulates nodes until `shutdown`; `ready` is called once all are Ready.
///
/// # Errors
/// What keeps the nodes from being made or, in the end, from being removed.
pub async fn run(
    client: Client,
    config: Config,
    clock: Clock,
    shutdown: CancellationToken,
    ready: impl FnOnce(usize),
) -> Result<()> {
    let kind = |api: &str, kind: &'static str| by_kind(api, kind).ok_or(Error::Registry(kind));
    let kinds =
        Kinds { node: kind("v1", "Node")?, pod: kind("v1", "Pod")?, lease: kind("coordination.k8s.io/v1", "Lease")? };
    // An API that cannot be read is told at once; informers would try for ever.
    let one = ListParams { limit: 1, ..ListParams::default() };
    for kind in [kinds.node, kinds.pod] {
        client.list(kind, "", &one).await.map_err(|e| Error::Api(format!("cannot list {}", kind.resource), e))?;
    }
    let informers = Informers::new(client.clone());
    let nodes = informers.get(kinds.node).view::<Node>();
    let bound = Scope { fields: "spec.nodeName!=".into(), ..Scope::default() };
    let pods = informers.scoped(kinds.pod, &bound).view::<Pod>();
    pods.add_index(BY_NODE, |p| vec![p.spec.node_name.clone()]);
    let sim = Arc::new(Sim {
        node_ips: Mutex::new(Addresses::new(config.node_addresses.clone())),
        pod_ips: Mutex::new(Addresses::new(config.pod_addresses.clone())),
        queue: WorkQueue::new(retries()),
        nodes_queue: WorkQueue::new(retries()),
        config,
        client,
        clock,
        nodes,
        pods,
        kinds,
    });
    let (news, received) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tokio::select! {
        () = informers.synced() => {}
        () = shutdown.cancelled() => return sim.leave().await,
    }
    follow(&sim, news);
    tasks.spawn(heartbeats(sim.clone(), received));
    tasks.spawn(drive(sim.clone(), sim.queue.clone(), |sim, key| async move { sim.pod(&key).await }));
    tasks.spawn(drive(sim.clone(), sim.nodes_queue.clone(), |sim, key| async move { sim.node(&key).await }));
    let outcome = tokio::select! {
        made = sim.make_nodes(ready) => match made {
            Ok(()) => {
                shutdown.cancelled().await;
                Ok(())
            }
            Err(e) => Err(e),
        },
        () = shutdown.cancelled() => Ok(()),
    };
    sim.queue.shutdown();
    sim.nodes_queue.shutdown();
    tasks.shutdown().await;
    sim.leave().await?;
    outcome
}

/// Works a queue until it is shut down.
async fn drive<F, R>(sim: Arc<Sim>, queue: WorkQueue<Key>, work: F)
where
    F: Fn(Arc<Sim>, Key) -> R + Send + Sync + 'static,
    R: Future<Output = pintle_client::Result<Option<Duration>>> + Send,
{
    queue.run(sim.config.concurrency, move |key| work(sim.clone(), key)).await;
}

/// What failed is tried again soon.
fn retries() -> QueueOptions {
    QueueOptions { max_delay: Duration::from_secs(10), ..QueueOptions::default() }
}

/// Hears of every node and every pod that has one.
fn follow(sim: &Arc<Sim>, news: mpsc::UnboundedSender<News>) {
    let me = sim.clone();
    sim.nodes.on_change(move |change| {
        let group = &me.config.group;
        let was = change.before().is_some_and(|n| n.is_of(group));
        let key = change.key();
        match change.now().filter(|n| n.is_of(group)) {
            Some(node) => {
                for ip in node.addresses() {
                    me.node_ips.lock().note(&node.metadata.name, ip);
                }
                if !node.is_ready() {
                    me.nodes_queue.add(key.clone());
                }
                if !was {
                    // The receiver lives as long as the tasks, and nobody minds once they have ended.
                    let _ = news.send(News::Node(key.clone()));
                    for pod in me.pods.by_index(BY_NODE, key) {
                        me.queue.add(format!("{}/{}", pod.metadata.namespace, pod.metadata.name).into());
                    }
                }
            }
            None if was => {
                me.node_ips.lock().give_back(key);
                let _ = news.send(News::Gone(key.clone()));
            }
            None => {}
        }
    });
    let me = sim.clone();
    sim.pods.on_change(move |change| {
        match change {
            Change::Modified(_, old, new) if old.metadata.uid == new.metadata.uid => {}
            Change::Modified(_, old, _) | Change::Deleted(_, old) => me.pod_ips.lock().give_back(&old.metadata.uid),
            Change::Added(..) => {}
        }
        if let Some(pod) = change.now().filter(|p| me.owns(p)) {
            if let Some(ip) = pod.status.pod_ip.filter(|_| !pod.spec.host_network) {
                me.pod_ips.lock().note(&pod.metadata.uid, ip);
            }
            me.queue.add(change.key().clone());
        }
    });
}

/// Renews Leases, and now and then says that nothing changed.
async fn heartbeats(sim: Arc<Sim>, mut news: mpsc::UnboundedReceiver<News>) {
    let mut leases = Rota::new(sim.config.lease_duration / 4);
    let mut statuses = Rota::new(sim.config.status_interval);
    let (mut received, mut looked) = (Vec::new(), Instant::now());
    loop {
        let next = [leases.next(), statuses.next()].into_iter().flatten().min();
        let at = next.map(|next| next.max(looked + TOGETHER));
        let due = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            n = news.recv_many(&mut received, usize::MAX) => if n == 0 { return },
            () = due => {}
        }
        let now = Instant::now();
        for change in received.drain(..) {
            match change {
                News::Node(name) => {
                    leases.add(name.clone(), now, fastrand::f64());
                    statuses.add(name, now, fastrand::f64());
                }
                News::Gone(name) => {
                    leases.remove(&name);
                    statuses.remove(&name);
                }
            }
        }
        looked = now;
        let renewed = leases.due(now).into_iter().map(|n| (n, true));
        let all = renewed.chain(statuses.due(now).into_iter().map(|n| (n, false)));
        stream::iter(all)
            .for_each_concurrent(sim.config.concurrency, |(name, lease)| {
                let sim = &sim;
                async move {
                    let said = if lease { sim.renew(&name).await } else { sim.still_ready(&name).await };
                    if let Err(error) = said {
                        tracing::warn!(node = &*name, %error, "the node's sign of life was not written");
                    }
                }
            })
            .await;
    }
}

impl Sim {
    fn owns(&self, pod: &Pod) -> bool {
        self.nodes.get(&pod.spec.node_name).is_some_and(|n| n.is_of(&self.config.group))
    }

    fn node_addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        self.node_ips.lock().take(name).ok_or(Error::Full("nodes"))
    }

    /// Makes the nodes that are not there and waits until all are Ready.
    async fn make_nodes(&self, ready: impl FnOnce(usize)) -> Result<()> {
        let make = |i: usize| async move {
            let name = node::name(&self.config, i);
            match self.nodes.get(&name) {
                Some(node) if node.is_of(&self.config.group) => return Ok(()),
                Some(_) => return Err(Error::Foreign(name)),
                None => {}
            }
            let object = node::object(&self.config, i, &self.node_addresses(&name)?, self.clock.now());
            let failed = |e| Error::Api(format!("cannot create node {name}"), e);
            let body = encode(&object).map_err(failed)?;
            self.client.create(self.kinds.node, "", body, &WriteParams::default()).await.map(drop).map_err(failed)
        };
        let all = stream::iter(0..self.config.nodes).map(make).buffer_unordered(self.config.concurrency);
        all.try_for_each(|()| async { Ok(()) }).await?;
        let mut changes = self.nodes.subscribe();
        let is_ready = |i| self.nodes.get(&node::name(&self.config, i)).is_some_and(|n| n.is_ready());
        // In order: those found ready once are not asked for again.
        for i in 0..self.config.nodes {
            while !is_ready(i) {
                if changes.next().await.is_none() {
                    return Ok(());
                }
            }
        }
        drop(changes);
        ready(self.config.nodes);
        Ok(())
    }

    /// Removes the nodes, when that is wanted in the end.
    async fn leave(&self) -> Result<()> {
        if !self.config.remove {
            return Ok(());
        }
        let mine = ListParams { labels: format!("{}={}", node::GROUP, self.config.group), ..ListParams::default() };
        let gone = self.client.delete_collection(self.kinds.node, "", &mine, &DeleteOptions::default()).await;
        gone.map_err(|e| Error::Api("cannot remove the nodes".into(), e))
    }

    /// Sees to it that a node is Ready.
    async fn node(&self, key: &Key) -> pintle_client::Result<Option<Duration>> {
        let Some(node) = self.nodes.get(key).filter(|n| n.is_of(&self.config.group) && !n.is_ready()) else {
            return Ok(None);
        };
        let ips = match self.node_addresses(&node.metadata.name) {
            Ok(ips) => ips,
            Err(error) => {
                tracing::error!(node = &**key, %error, "the node is not made ready");
                return Ok(None);
            }
        };
        let status = node::made_ready(&self.config, &node, &ips, self.clock.now());
        self.write_status(self.kinds.node, "", key, &status).await?;
        Ok(None)
    }

    async fn still_ready(&self, name: &str) -> pintle_client::Result<()> {
        self.write_status(self.kinds.node, "", name, &node::still_ready(self.clock.now())).await
    }

    async fn renew(&self, name: &str) -> pintle_client::Result<()> {
        let now = self.clock.now();
        let (leases, params) = (self.kinds.lease, WriteParams::default());
        let patch = Patch::merge(&node::renewal(now))?;
        match self.client.patch(leases, "kube-node-lease", name, "", patch, &params).await {
            Err(e) if e.is_not_found() => {
                let Some(node) = self.nodes.get(name) else { return Ok(()) };
                let lease = node::lease(name, &node.metadata.uid, self.config.lease_duration.as_secs(), now);
                self.client.create(leases, "kube-node-lease", encode(&lease)?, &params).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn write_status(
        &self,
        kind: &'static Resource,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> pintle_client::Result<()> {
        let patch = Patch::strategic(status)?;
        let params = WriteParams::default();
        self.client.patch(kind, namespace, name, "status", patch, &params).await.unless_gone().map(drop)
    }

    /// Does what is to be done about a pod; says when to look again.
    async fn pod(&self, key: &Key) -> pintle_client::Result<Option<Duration>> {
        let Some(pod) = self.pods.get(key).filter(|p| self.owns(p)) else { return Ok(None) };
        let now = self.clock.now();
        let m = &pod.metadata;
        let status = match rules::decide(&pod, &self.config.rules, now) {
            Next::Nothing => return Ok(None),
            Next::After(delay) => return Ok(Some(delay)),
            Next::Start => match self.start(&pod) {
                Some((ips, host)) => status::started(&pod, &ips, &host, now),
                None => {
                    tracing::error!(pod = &**key, error = %Error::Full("pods"), "the pod does not start");
                    return Ok(None);
                }
            },
            Next::Ready(ready) => status::readiness(&pod, ready, now),
            Next::Restart(code) => status::restarted(&pod, code, now),
            Next::Finish(code) => status::finished(&pod, code, now),
            Next::Remove(show) => {
                if show {
                    self.write_status(self.kinds.pod, &m.namespace, &m.name, &status::stopped(&pod, now)).await?;
                }
                let options = DeleteOptions {
                    grace_period_seconds: Some(0),
                    preconditions: Some(Preconditions { uid: Some(m.uid.clone()), ..Preconditions::default() }),
                    ..DeleteOptions::default()
                };
                let gone = self.client.delete(self.kinds.pod, &m.namespace, &m.name, &options).await;
                return gone.unless_gone().map(|_| None);
            }
        };
        self.write_status(self.kinds.pod, &m.namespace, &m.name, &status).await?;
        Ok(None)
    }

    /// The addresses that a pod starts with, and those of its node.
    fn start(&self, pod: &Pod) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
        let host = self.nodes.get(&pod.spec.node_name)?.addresses();
        if pod.spec.host_network {
            return Some((host.clone(), host));
        }
        Some((self.pod_ips.lock().take(&pod.metadata.uid)?, host))
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;

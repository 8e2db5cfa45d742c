//! What a controller is given: its client, the shared informers, a recorder, the clock and the configuration.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pintle_client::{Cache, Change, Client, Clock, Error, Informers, Key, QueueOptions, Recorder, WorkQueue};
use tokio_util::sync::CancellationToken;

/// Settings of the controllers, with upstream's defaults.
#[derive(Clone)]
pub struct Config {
    /// Which controllers run: names, `-name` to leave one out, `*` for all that are on by default.
    pub controllers: Vec<String>,
    /// CA bundle that pods verify the API server with (`--root-ca-file`), PEM.
    pub root_ca: Option<String>,
    /// Certificate and key that sign requests of the built-in signers (`--cluster-signing-cert-file` and key), PEM.
    pub cluster_signing: Option<(String, String)>,
    /// Key that signs tokens kept in Secrets (`--service-account-private-key-file`), PEM.
    pub service_account_key: Option<String>,
    /// Pod address ranges to give nodes a part of (`--cluster-cidr` with `--allocate-node-cidrs`).
    pub cluster_cidrs: Vec<String>,
    /// Prefix length of a node's part, IPv4 and IPv6.
    pub node_cidr_mask: (u8, u8),
    /// Address ranges of Services, never given to nodes.
    pub service_cidrs: Vec<String>,
    /// How long a node may be silent before it counts as unknown (`--node-monitor-grace-period`).
    pub node_monitor_grace: Duration,
    /// Ended pods that are kept before the oldest go (`--terminated-pod-gc-threshold`).
    pub terminated_pods: usize,
    /// Rate of evictions from unreachable nodes, nodes a second (`--node-eviction-rate`).
    pub node_eviction_rate: f64,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the keys.
        f.debug_struct("Config").field("controllers", &self.controllers).finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: vec!["*".into()],
            root_ca: None,
            cluster_signing: None,
            service_account_key: None,
            cluster_cidrs: Vec::new(),
            node_cidr_mask: (24, 64),
            service_cidrs: Vec::new(),
            node_monitor_grace: Duration::from_secs(50),
            terminated_pods: 12_500,
            node_eviction_rate: 0.1,
        }
    }
}

/// What a controller is given.
#[derive(Clone)]
pub struct Context {
    /// Calls as the controller's own service account.
    pub client: Client,
    /// The informers of the process.
    pub informers: Informers,
    /// Writes Events under the controller's name.
    pub recorder: Recorder,
    /// The time.
    pub clock: Clock,
    /// The settings.
    pub config: Arc<Config>,
    /// Cancelled when the controller has to end.
    pub shutdown: CancellationToken,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({:?})", self.client)
    }
}

/// What processing a key comes to: done, or again after a delay.
pub type Outcome = Result<Option<Duration>, Error>;

impl Context {
    /// A queue that counts under this name, upstream's.
    #[must_use]
    pub fn queue(&self, name: &'static str) -> WorkQueue<Key> {
        WorkQueue::new(QueueOptions::named(name))
    }

    /// Waits until the informers are synced and then works the queue until shutdown.
    pub async fn work<C, F, R>(&self, me: Arc<C>, queue: &WorkQueue<Key>, workers: usize, sync: F)
    where
        C: Send + Sync + 'static,
        F: Fn(Arc<C>, Key) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send,
    {
        tokio::select! {
            () = self.informers.synced() => {}
            () = self.shutdown.cancelled() => return,
        }
        self.drive(me, queue, workers, sync).await;
    }

    /// Works the queue until shutdown, for those who cannot wait for every informer.
    pub async fn drive<C, F, R>(&self, me: Arc<C>, queue: &WorkQueue<Key>, workers: usize, sync: F)
    where
        C: Send + Sync + 'static,
        F: Fn(Arc<C>, Key) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send,
    {
        let stop = {
            let (queue, shutdown) = (queue.clone(), self.shutdown.clone());
            tokio::spawn(async move {
                shutdown.cancelled().await;
                queue.shutdown();
            })
        };
        queue.run(workers, move |key| sync(me.clone(), key)).await;
        stop.abort();
    }
}

/// Calls `f` for every object of a cache and every change of it, as long as `me` lives.
pub fn listen<T, C>(cache: &Cache<T>, me: &Arc<C>, f: impl Fn(&Arc<C>, &Change<T>) + Send + Sync + 'static)
where
    C: Send + Sync + 'static,
{
    let weak = Arc::downgrade(me);
    cache.on_change(move |change| {
        if let Some(me) = weak.upgrade() {
            f(&me, change);
        }
    });
}

//! The whole: what all parts share, and the loop that hands events to the pods' workers.

use crate::config::KubeletConfig;
use crate::images::Images;
use crate::node::NodeState;
use crate::objects::ObjectCache;
use crate::pod::admit;
use crate::pod::spec::{self, PodRef};
use crate::pod::state::{RuntimeState, labels};
use crate::pod::status::Ending;
use crate::translate::dns::{NodeDns, parse_resolv_conf};
use crate::translate::security;
use crate::volumes::tokens::Tokens;
use crate::worker::{self, Handle, Message};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use parking_lot::{Mutex, RwLock};
use pintle_client::{Change, Client, Clock, Informers, Recorder, Scope, View};
use pintle_runtime::{self as rt, Runtime};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The labels of a probe's counter.
type ProbeLabels = Vec<(&'static str, String)>;

/// What all parts share.
pub struct Shared {
    /// Configuration.
    pub config: Arc<KubeletConfig>,
    /// The time.
    pub clock: Clock,
    /// The API.
    pub client: Client,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// Writes Events.
    pub recorder: Recorder,
    /// Pulls images.
    pub images: Images,
    /// ConfigMaps of pods.
    pub config_maps: Arc<ObjectCache<ConfigMap>>,
    /// Secrets of pods.
    pub secrets: Arc<ObjectCache<Secret>>,
    /// Tokens of pods.
    pub tokens: Tokens,
    /// What is known of the node.
    pub node: NodeState,
    services: View<Service>,
    dns: RwLock<NodeDns>,
    workers: Mutex<HashMap<String, Handle>>,
    /// Pod uids by sandbox id.
    sandboxes: Mutex<HashMap<String, String>>,
    /// How often probes were answered how.
    probe_counts: Mutex<BTreeMap<ProbeLabels, u64>>,
    /// Told the uids of workers that ended.
    gone: mpsc::UnboundedSender<String>,
}

impl Shared {
    /// The resolver configuration of the host and the cluster.
    #[must_use]
    pub fn dns(&self) -> NodeDns {
        self.dns.read().clone()
    }

    /// All services.
    ///
    /// # Errors
    /// When they cannot be read yet.
    pub async fn services(&self) -> Result<Vec<Arc<Service>>, String> {
        if !self.services.is_synced()
            && tokio::time::timeout(Duration::from_secs(10), self.services.synced()).await.is_err()
        {
            return Err("services have not yet been read at least once, cannot construct envvars".into());
        }
        Ok(self.services.list())
    }

    /// Counts an answer of a probe.
    pub fn count_probe(&self, labels: ProbeLabels) {
        *self.probe_counts.lock().entry(labels).or_default() += 1;
    }

    /// How often probes were answered how.
    #[must_use]
    pub fn probe_counts(&self) -> Vec<(ProbeLabels, u64)> {
        self.probe_counts.lock().iter().map(|(k, v)| (k.clone(), *v)).collect()
    }

    /// A sandbox belongs to this pod.
    pub fn own_sandbox(&self, sandbox: &str, uid: &str) {
        self.sandboxes.lock().insert(sandbox.into(), uid.into());
    }

    /// A sandbox is gone.
    pub fn disown_sandbox(&self, sandbox: &str) {
        self.sandboxes.lock().remove(sandbox);
    }

    /// A worker ended.
    pub fn worker_gone(&self, uid: &str) {
        self.workers.lock().remove(uid);
        self.probe_counts.lock().retain(|labels, _| !labels.iter().any(|(k, v)| *k == "pod_uid" && v == uid));
        // The loop may have ended before.
        let _ = self.gone.send(uid.into());
    }

    /// The worker of the pod with this uid.
    #[must_use]
    pub fn worker(&self, uid: &str) -> Option<Handle> {
        self.workers.lock().get(uid).cloned()
    }

    /// All workers.
    #[must_use]
    pub fn all_workers(&self) -> Vec<Handle> {
        self.workers.lock().values().cloned().collect()
    }

    /// The worker of the pod of this name, the newest if there are several.
    #[must_use]
    pub fn worker_named(&self, namespace: &str, name: &str) -> Option<Handle> {
        let named = |h: &Handle| {
            let seen = h.seen.lock();
            let r = PodRef::of(&seen.pod);
            r.namespace == namespace && r.name == name
        };
        let mut found: Vec<Handle> = self.all_workers().into_iter().filter(named).collect();
        found.sort_by_key(|h| h.seen.lock().pod.metadata.creation_timestamp.clone().map(|t| t.0));
        found.pop()
    }

    fn tell(&self, uid: &str, message: Message) {
        if let Some(h) = self.worker(uid) {
            // A worker that is ending needs no more news.
            let _ = h.tx.send(message);
        }
    }

    /// Ends a pod by the node's decision. Resolves when nothing of it runs any more.
    pub fn end_pod(&self, uid: &str, ending: Ending, grace: Option<i64>) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        self.tell(uid, Message::End(ending, grace, Some(tx)));
        rx
    }
}

/// The pod's address for probes and hooks.
#[must_use]
pub fn pod_ip(pod: &Pod, state: &RuntimeState, host: &[IpAddr]) -> String {
    let own = state.sandboxes.first().and_then(|s| s.ips.first());
    let ip = if spec::host_network(pod) { host.first() } else { own };
    ip.map(ToString::to_string).unwrap_or_default()
}

/// What the runtime has of the pod with this uid.
///
/// # Errors
/// When the runtime does not say.
pub async fn runtime_state(runtime: &dyn Runtime, uid: &str) -> rt::Result<RuntimeState> {
    let own: rt::StringMap = [(labels::POD_UID.to_string(), uid.to_string())].into();
    let of_pod = rt::SandboxFilter { labels: own.clone(), ..Default::default() };
    let sandboxes = runtime.list_pod_sandboxes(&of_pod).await?;
    let containers = runtime.list_containers(&rt::ContainerFilter { labels: own, ..Default::default() }).await?;
    Ok(RuntimeState::new(sandboxes, containers))
}

/// What the runtime has of every pod, by uid.
async fn all_states(runtime: &dyn Runtime) -> rt::Result<BTreeMap<String, RuntimeState>> {
    let mut out: BTreeMap<String, (Vec<rt::SandboxStatus>, Vec<rt::ContainerStatus>)> = BTreeMap::new();
    for s in runtime.list_pod_sandboxes(&rt::SandboxFilter::default()).await? {
        if let Some(uid) = s.labels.get(labels::POD_UID).cloned() {
            out.entry(uid).or_default().0.push(s);
        }
    }
    for c in runtime.list_containers(&rt::ContainerFilter::default()).await? {
        if let Some(uid) = c.labels.get(labels::POD_UID).cloned() {
            out.entry(uid).or_default().1.push(c);
        }
    }
    Ok(out.into_iter().map(|(uid, (s, c))| (uid, RuntimeState::new(s, c))).collect())
}

/// Why the node agent could not start or go on.
#[derive(Debug)]
pub struct KubeletError(pub String);

impl std::fmt::Display for KubeletError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KubeletError {}

/// Runs the node agent until `shutdown`. Containers go on when it ends.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    config: KubeletConfig,
    client: Client,
    runtime: Arc<dyn Runtime>,
    shutdown: CancellationToken,
) -> Result<(), KubeletError> {
    run_with(config, client, runtime, Clock::system(), shutdown).await
}

/// As [`run`], by another clock.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: KubeletConfig,
    client: Client,
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), KubeletError> {
    let fail = |what: &str| {
        let what = what.to_string();
        move |e: &dyn std::fmt::Display| KubeletError(format!("{what}: {e}"))
    };
    let client = client.with_user_agent("kubelet/v1.36.0 (linux) pintle");
    let config = Arc::new(config);
    for dir in [&config.root_dir.join("pods"), &config.pod_logs_dir] {
        std::fs::create_dir_all(dir).map_err(|e| fail(&dir.display().to_string())(&e))?;
    }
    let mut events = runtime.events();
    let states = all_states(&*runtime).await.map_err(|e| fail("cannot read the runtime's state")(&e))?;
    let informers = Informers::new(client.clone());
    let (gone_tx, gone) = mpsc::unbounded_channel();
    let (poke_tx, mut pokes) = mpsc::unbounded_channel::<String>();
    // The caches outlive the loop by a moment at its end.
    let on_change: crate::objects::OnChange = Arc::new(move |uid| drop(poke_tx.send(uid.into())));
    let node = NodeState::probe(&config, &*runtime).await.map_err(|e| fail("cannot find out about the node")(&e))?;
    let resolv = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let node_credentials = std::fs::read(config.root_dir.join("config.json")).ok();
    let parallel = if config.serialize_image_pulls { 1 } else { config.max_parallel_image_pulls.unwrap_or(usize::MAX) };
    let k = Arc::new(Shared {
        recorder: Recorder::new(client.clone(), "kubelet", Some(&config.node_name), clock.clone()),
        images: Images::new(runtime.clone(), parallel, node_credentials.as_deref()),
        config_maps: ObjectCache::new(client.clone(), "configmap", on_change.clone()),
        secrets: ObjectCache::new(client.clone(), "secret", on_change),
        tokens: Tokens::new(client.clone()),
        services: informers.of::<Service>().view::<Service>(),
        dns: RwLock::new(NodeDns {
            host: parse_resolv_conf(&resolv),
            cluster_dns: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
        }),
        workers: Mutex::default(),
        sandboxes: Mutex::default(),
        probe_counts: Mutex::default(),
        gone: gone_tx,
        node,
        config,
        clock,
        client,
        runtime,
    });
    for (uid, state) in &states {
        for s in &state.sandboxes {
            k.own_sandbox(&s.id, uid);
        }
    }
    let server = crate::server::start(k.clone(), shutdown.clone()).await.map_err(KubeletError)?;
    let scope = Scope { fields: format!("spec.nodeName={}", k.config.node_name), ..Default::default() };
    let pods = informers.scoped(pintle_client::typed::resource_of::<Pod>(), &scope).view::<Pod>();
    let mut background = tokio::task::JoinSet::new();
    background.spawn(crate::node::run(k.clone(), server.port));
    background.spawn(crate::housekeeping::run(k.clone()));
    let (static_tx, mut from_files) = mpsc::unbounded_channel();
    background.spawn(crate::static_pods::follow(k.config.clone(), static_tx));
    // Without a directory of static pods there are none to wait for.
    let mut files_read = k.config.static_pod_path.is_none();
    let mut manager = Manager { k: k.clone(), orphans: states, files: BTreeMap::new(), gone };
    let mut changes = pods.subscribe();
    let mut synced = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(change) = changes.next() => manager.changed(change),
            Some(event) = events.next() => manager.runtime_event(event),
            Some(uid) = pokes.recv() => k.tell(&uid, Message::Objects),
            Some(_) = manager.gone.recv() => manager.worker_gone(),
            Some(all) = from_files.recv() => {
                manager.files_changed(all);
                files_read = true;
                if synced {
                    manager.end_orphans();
                }
            }
            () = pods.synced(), if !synced => {
                synced = true;
                // Everything there is has been told as a change before this.
                while let Some(change) = changes.try_next() {
                    manager.changed(change);
                }
                if files_read {
                    manager.end_orphans();
                }
            }
        }
    }
    background.shutdown().await;
    drop(informers);
    Ok(())
}

struct Manager {
    k: Arc<Shared>,
    /// What the runtime had at the start of pods that no worker has taken over yet.
    orphans: BTreeMap<String, RuntimeState>,
    /// Static pods by uid.
    files: BTreeMap<String, Arc<Pod>>,
    gone: mpsc::UnboundedReceiver<String>,
}

impl Manager {
    fn changed(&mut self, change: Change<Pod>) {
        match change {
            Change::Added(_, pod) => self.told(pod),
            Change::Modified(_, old, pod) => {
                if old.metadata.uid != pod.metadata.uid {
                    self.lost(&old);
                }
                self.told(pod);
            }
            Change::Deleted(_, pod) => self.lost(&pod),
        }
    }

    fn lost(&mut self, pod: &Arc<Pod>) {
        if spec::is_mirror(pod) {
            // Someone deleted what stands for a static pod.
            if let Some(own) = self.static_pod(pod) {
                self.mirror(own);
            }
            return;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.k.tell(&uid, Message::Gone(pod.clone()));
    }

    fn told(&mut self, pod: Arc<Pod>) {
        if spec::is_mirror(&pod) {
            return self.mirror_told(pod);
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(h) = self.k.worker(&uid) {
            // A worker that is ending needs no more news.
            let _ = h.tx.send(Message::Pod(pod));
            return;
        }
        let state = self.orphans.remove(&uid).unwrap_or_default();
        if spec::is_finished(&pod) && state == RuntimeState::default() && pod.metadata.deletion_timestamp.is_none() {
            // It was over before; there is nothing to do until it is deleted.
            return;
        }
        self.start(pod, state);
    }

    /// Starts a worker, if the node takes the pod.
    fn start(&mut self, pod: Arc<Pod>, state: RuntimeState) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let runs_already = !state.sandboxes.is_empty();
        let over = spec::is_finished(&pod) || pod.metadata.deletion_timestamp.is_some();
        let ending = if runs_already || over { None } else { self.rejection(&pod) };
        if let Some(e) = &ending {
            let about = pintle_client::recorder::reference_of(&*pod);
            let text = e.message.strip_prefix("Pod was rejected: ").unwrap_or(&e.message);
            self.k.recorder.warning(&about, &e.reason, text);
        }
        let handle = worker::start(self.k.clone(), pod, state, ending);
        self.k.workers.lock().insert(uid, handle);
    }

    fn rejection(&self, pod: &Arc<Pod>) -> Option<Ending> {
        let refuse = |reason: &str, message: &str| {
            Some(Ending { reason: reason.into(), message: format!("Pod was rejected: {message}"), conditions: vec![] })
        };
        if let Err(e) = security::check_sysctls(pod, &self.k.config) {
            return refuse("SysctlForbidden", &e);
        }
        let others: Vec<Arc<Pod>> = self
            .k
            .all_workers()
            .into_iter()
            .filter_map(|h| {
                let seen = h.seen.lock();
                (!seen.over && !seen.rejected).then(|| seen.pod.clone())
            })
            .collect();
        let others: Vec<&Pod> = others.iter().map(|p| &**p).collect();
        let view = self.k.node.view();
        match admit::admit(pod, &others, &view) {
            Ok(()) => None,
            Err(r) if spec::is_critical(pod) && r.reason.starts_with("OutOf") => {
                let Some(victims) = admit::make_room(pod, &others, &view) else { return refuse(&r.reason, &r.message) };
                for v in victims {
                    let message = "Preempted in order to admit critical pod";
                    let about = pintle_client::recorder::reference_of(v);
                    self.k.recorder.warning(&about, "Preempting", message);
                    let ending = Ending { reason: "Preempting".into(), message: message.into(), conditions: vec![] };
                    let uid = v.metadata.uid.as_deref().unwrap_or_default();
                    // Nobody waits: their place counts as free from now on.
                    drop(self.k.end_pod(uid, ending, None));
                }
                None
            }
            Err(r) => refuse(&r.reason, &r.message),
        }
    }

    fn runtime_event(&mut self, event: rt::Event) {
        if event.kind == rt::EventKind::Resync {
            for h in self.k.all_workers() {
                let _ = h.tx.send(Message::Runtime(event.clone()));
            }
            return;
        }
        let uid = self.k.sandboxes.lock().get(&event.sandbox_id).cloned();
        if let Some(uid) = uid {
            self.k.tell(&uid, Message::Runtime(event));
        }
    }

    /// A worker ended. A static pod whose file is there again, or still, starts anew.
    fn worker_gone(&mut self) {
        for h in self.k.all_workers() {
            // A worker that is ending needs no room.
            let _ = h.tx.send(Message::Room);
        }
        self.start_files();
    }

    /// Starts the static pods that have no worker, each once the one of its name before it is gone.
    fn start_files(&mut self) {
        for (uid, pod) in self.files.clone() {
            let r = PodRef::of(&pod);
            if self.k.worker_named(&r.namespace, &r.name).is_none() {
                let state = self.orphans.remove(&uid).unwrap_or_default();
                self.start(pod.clone(), state);
                self.mirror(pod);
            }
        }
    }

    /// The static pod of the same name.
    fn static_pod(&self, mirror: &Pod) -> Option<Arc<Pod>> {
        let same =
            |p: &Pod| p.metadata.name == mirror.metadata.name && p.metadata.namespace == mirror.metadata.namespace;
        self.files.values().find(|p| same(p)).cloned()
    }

    fn files_changed(&mut self, all: BTreeMap<String, Arc<Pod>>) {
        let before = std::mem::replace(&mut self.files, all);
        for (uid, pod) in before.iter().filter(|(uid, _)| !self.files.contains_key(*uid)) {
            self.k.tell(uid, Message::Gone(pod.clone()));
            let replaced = self.static_pod(pod).is_some();
            let r = PodRef::of(pod);
            if !replaced {
                let client = self.k.client.clone();
                tokio::spawn(async move {
                    let there = client.of::<Pod>().get_opt(&r.namespace, &r.name).await;
                    if let Ok(Some(mirror)) = there
                        && spec::is_mirror(&mirror)
                        && let Err(e) = crate::static_pods::delete_mirror(&client, &mirror).await
                    {
                        tracing::warn!(pod = %r, error = %e, "cannot delete a static pod's object");
                    }
                });
            }
        }
        self.start_files();
    }

    /// The API shows an object that stands for a static pod.
    fn mirror_told(&mut self, mirror: Arc<Pod>) {
        match self.static_pod(&mirror) {
            Some(own) if crate::static_pods::stands_for(&mirror, &own) => {
                let uid = own.metadata.uid.clone().unwrap_or_default();
                self.k.tell(&uid, Message::Mirror(mirror));
            }
            Some(own) => self.mirror(own),
            None => {
                let client = self.k.client.clone();
                tokio::spawn(async move {
                    if let Err(e) = crate::static_pods::delete_mirror(&client, &mirror).await {
                        tracing::warn!(pod = %PodRef::of(&mirror), error = %e, "cannot delete an object that stands for nothing");
                    }
                });
            }
        }
    }

    /// Has an API object made that stands for a static pod.
    fn mirror(&self, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let k = self.k.clone();
        let wanted = move || k.worker(&uid).is_some();
        let (client, node) = (self.k.client.clone(), self.k.config.node_name.clone());
        tokio::spawn(crate::static_pods::make_mirror(client, node, pod, wanted));
    }

    /// What the runtime had of pods that the API does not know any more is ended and removed.
    fn end_orphans(&mut self) {
        for (uid, state) in std::mem::take(&mut self.orphans) {
            let Some(s) = state.sandboxes.first() else { continue };
            let meta = &s.metadata;
            let mut pod = Pod::default();
            pod.metadata.name = Some(meta.name.clone());
            pod.metadata.namespace = Some(meta.namespace.clone());
            pod.metadata.uid = Some(uid.clone());
            let pod = Arc::new(pod);
            let handle = worker::start(self.k.clone(), pod.clone(), state, None);
            // The receiver is the worker just made.
            let _ = handle.tx.send(Message::Gone(pod));
            self.k.workers.lock().insert(uid, handle);
        }
    }
}

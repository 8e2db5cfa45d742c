//! The Node object and its Lease: what the machine has, and how it is.

mod info;
mod status;

use crate::config::KubeletConfig;
use crate::kubelet::Shared;
use crate::pod::admit::NodeView;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::RwLock;
use pintle_client::clock::micro_time;
use pintle_client::{Informers, Patch, Scope};
use pintle_runtime::Runtime;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

pub use info::Machine;
pub use status::{Pressure, VERSION};

/// The namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// What is known of the node.
pub struct NodeState {
    machine: Machine,
    addresses: Vec<IpAddr>,
    capacity: BTreeMap<String, Quantity>,
    allocatable: BTreeMap<String, Quantity>,
    view: RwLock<NodeView>,
    extended: RwLock<Extended>,
    pressure: RwLock<Pressure>,
    changed: Notify,
}

impl NodeState {
    /// Looks at the machine.
    ///
    /// # Errors
    /// When it cannot be told what it is.
    pub async fn probe(config: &Arc<KubeletConfig>, runtime: &dyn Runtime) -> Result<Self, String> {
        let machine = Machine::probe(config, runtime).await?;
        let capacity = status::capacity(&machine, config);
        let allocatable = status::allocatable(&capacity, config)?;
        let addresses = if config.node_ips.is_empty() { info::own_addresses() } else { config.node_ips.clone() };
        let mut labels = config.node_labels.clone();
        labels.extend(status::labels(config));
        let taints = config.register_with_taints.iter();
        let view = NodeView {
            name: config.node_name.clone(),
            labels,
            allocatable: allocatable.clone(),
            taints: taints.map(|t| (t.key.clone(), t.value.clone().unwrap_or_default(), t.effect.clone())).collect(),
        };
        Ok(Self {
            machine,
            addresses,
            capacity,
            allocatable,
            view: RwLock::new(view),
            extended: RwLock::default(),
            pressure: RwLock::default(),
            changed: Notify::new(),
        })
    }

    /// Its addresses, the primary first.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.clone()
    }

    /// What it has for pods.
    #[must_use]
    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        self.allocatable.clone()
    }

    /// Its memory in bytes.
    #[must_use]
    pub fn memory_capacity(&self) -> i64 {
        self.machine.memory
    }

    /// What admission looks at.
    #[must_use]
    pub fn view(&self) -> NodeView {
        self.view.read().clone()
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Which resources are short.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure.read().clone()
    }

    /// Notes which resources are short; a change is reported at once.
    pub fn set_pressure(&self, p: Pressure) {
        let mut now = self.pressure.write();
        if *now != p {
            *now = p;
            self.changed.notify_one();
        }
    }

    /// Takes over what the Node object says now.
    fn saw(&self, node: &Node) {
        let mut view = self.view.write();
        view.labels = node.metadata.labels.clone().unwrap_or_default();
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
        view.taints = taints
            .into_iter()
            .flatten()
            .map(|t| (t.key.clone(), t.value.clone().unwrap_or_default(), t.effect.clone()))
            .collect();
        drop(view);
        let extended = Extended::of(node);
        let mut known = self.extended.write();
        if *known != extended {
            *known = extended;
            self.changed.notify_one();
        }
    }

    /// Extended resources that others wrote into the Node's capacity.
    fn extended(&self) -> Extended {
        self.extended.read().clone()
    }
}

/// Extended resources of the Node object: their capacity is anyone's to write, and the node agent makes it allocatable.
/// Source: `kubelet/nodestatus`, `MachineInfo`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Extended {
    capacity: BTreeMap<String, Quantity>,
    /// Allocatable, but no longer there.
    gone: Vec<String>,
}

impl Extended {
    fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let is_extended = |name: &str| {
            name.split_once('/').is_some_and(|(domain, _)| {
                domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && !domain.starts_with("requests.")
            })
        };
        let of = |map: Option<&BTreeMap<String, Quantity>>| -> BTreeMap<String, Quantity> {
            map.into_iter()
                .flatten()
                .filter(|(name, _)| is_extended(name))
                .map(|(n, q)| (n.clone(), q.clone()))
                .collect()
        };
        let capacity = of(status.and_then(|s| s.capacity.as_ref()));
        let allocatable = of(status.and_then(|s| s.allocatable.as_ref()));
        let gone = allocatable.into_keys().filter(|name| !capacity.contains_key(name)).collect();
        Self { capacity, gone }
    }
}

/// A reference to the node, as Events about nodes have it: the name stands for the uid.
#[must_use]
pub fn reference(name: &str) -> ObjectReference {
    ObjectReference { kind: Some("Node".into()), name: Some(name.into()), uid: Some(name.into()), ..Default::default() }
}

/// While the node is not ready it is looked at so often.
const IMPATIENT: Duration = Duration::from_millis(200);

/// Registers the node, then keeps its status and Lease. Never ends.
pub async fn run(k: Arc<Shared>, port: u16) {
    let name = k.config.node_name.clone();
    k.recorder.normal(&reference(&name), "Starting", "Starting kubelet.");
    let mut reported = Reported::default();
    if k.config.register_node {
        register(&k, port, &mut reported).await;
    }
    let informers = Informers::new(k.client.clone());
    let scope = Scope { fields: format!("metadata.name={name}"), ..Default::default() };
    let nodes = informers.scoped(pintle_client::typed::resource_of::<Node>(), &scope).view::<Node>();
    let mut seen = nodes.subscribe();
    let mut lease = LeaseKeeper::default();
    let renew = Duration::from_secs(u64::try_from(k.config.node_lease_duration_seconds).unwrap_or(40)) / 4;
    let mut next_lease = tokio::time::Instant::now();
    let mut next_status = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next_lease) => {
                next_lease = tokio::time::Instant::now()
                    + if lease.renew(&k).await { renew } else { Duration::from_secs(1) };
            }
            () = tokio::time::sleep_until(next_status) => {
                next_status = tokio::time::Instant::now() + report(&k, port, &mut reported).await;
            }
            () = k.node.changed.notified() => next_status = tokio::time::Instant::now(),
            Some(change) = seen.next() => match change.now() {
                Some(node) => k.node.saw(node),
                // Someone deleted it: it registers again.
                None if k.config.register_node => {
                    reported = Reported::default();
                    register(&k, port, &mut reported).await;
                }
                None => {}
            },
        }
    }
}

/// What was told last, and when.
#[derive(Default)]
struct Reported {
    status: Option<k8s_openapi::api::core::v1::NodeStatus>,
    at: Option<tokio::time::Instant>,
    /// Until then a node that was ready when it was taken over is not said to be unready: its parts start, and all its pods
    /// would be marked unready with it.
    starts_until: Option<tokio::time::Instant>,
}

/// How long the parts of a node agent may take to start.
const START: Duration = Duration::from_secs(10);

/// Makes the Node object, or takes over the one that is there. Tries until it works.
async fn register(k: &Shared, port: u16, reported: &mut Reported) {
    let nodes = k.client.of::<Node>();
    let mut retry = Duration::from_millis(100);
    loop {
        let status = status::current(k, port, None).await;
        let node = status::node(k, status.clone());
        let outcome = match nodes.create(&node).await {
            Ok(made) => {
                k.node.saw(&made);
                status::tell_conditions(k, None, &status);
                reported.at = Some(tokio::time::Instant::now());
                reported.status = Some(status);
                return;
            }
            Err(e) if e.is_already_exists() => take_over(k, &node).await,
            Err(e) => Err(e),
        };
        match outcome {
            Ok(found) => {
                k.node.saw(&found);
                let ready = found.status.as_ref().is_some_and(status::is_ready);
                reported.starts_until = ready.then(|| tokio::time::Instant::now() + START);
                reported.status = found.status;
                return;
            }
            Err(e) => tracing::warn!(node = k.config.node_name, error = %e, "cannot register the node"),
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(Duration::from_secs(7));
    }
}

/// Brings the labels of an existing Node up to date that the node agent owns.
async fn take_over(k: &Shared, wanted: &Node) -> Result<Node, pintle_client::Error> {
    let nodes = k.client.of::<Node>();
    let name = &k.config.node_name;
    let found = nodes.get("", name).await?;
    let have = found.metadata.labels.clone().unwrap_or_default();
    let want = wanted.metadata.labels.clone().unwrap_or_default();
    if want.iter().all(|(key, v)| have.get(key) == Some(v)) {
        return Ok(found);
    }
    let patch = json!({"metadata": {"labels": want, "annotations": wanted.metadata.annotations}});
    nodes.patch("", name, Patch::strategic(&patch)?).await
}

/// Writes the status if it changed or was not written for long. Answers when to look again.
async fn report(k: &Shared, port: u16, reported: &mut Reported) -> Duration {
    let mut status = status::current(k, port, reported.status.as_ref()).await;
    let extended = k.node.extended();
    if let Some(allocatable) = &mut status.allocatable {
        allocatable.extend(extended.capacity);
    }
    let ready = status::is_ready(&status);
    let again = if ready { k.config.node_status_update_frequency } else { IMPATIENT };
    if !ready && reported.starts_until.is_some_and(|until| tokio::time::Instant::now() < until) {
        return again;
    }
    let changed = reported.status.as_ref().is_none_or(|old| status::differs(old, &status));
    let due = reported.at.is_none_or(|at| at.elapsed() >= k.config.node_status_report_frequency);
    if !changed && !due && extended.gone.is_empty() {
        return again;
    }
    let nodes = k.client.of::<Node>();
    let patched = match Patch::strategic(&status::patch(&status, &extended.gone)) {
        Ok(patch) => nodes.patch_status("", &k.config.node_name, patch).await,
        Err(e) => Err(e),
    };
    match patched {
        Ok(_) => {
            status::tell_conditions(k, reported.status.as_ref(), &status);
            *reported = Reported { status: Some(status), at: Some(tokio::time::Instant::now()), starts_until: None };
            again
        }
        Err(e) => {
            tracing::warn!(node = k.config.node_name, error = %e, "cannot write the node's status");
            Duration::from_secs(1)
        }
    }
}

#[derive(Default)]
struct LeaseKeeper {
    held: Option<Lease>,
}

impl LeaseKeeper {
    /// Renews the Lease; answers whether it worked.
    async fn renew(&mut self, k: &Shared) -> bool {
        let leases = k.client.of::<Lease>();
        let name = &k.config.node_name;
        let outcome = match self.held.take() {
            Some(mut lease) => {
                if let Some(spec) = &mut lease.spec {
                    spec.renew_time = Some(micro_time(k.clock.now()));
                }
                leases.update(&lease).await
            }
            None => match leases.get_opt(LEASES, name).await {
                Ok(Some(mut lease)) => {
                    lease.spec = Some(spec(k));
                    leases.update(&lease).await
                }
                Ok(None) => leases.create(&new_lease(k).await).await,
                Err(e) => Err(e),
            },
        };
        match outcome {
            Ok(lease) => {
                self.held = Some(lease);
                true
            }
            Err(e) => {
                tracing::warn!(node = name, error = %e, "cannot renew the node's lease");
                false
            }
        }
    }
}

fn spec(k: &Shared) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(k.config.node_name.clone()),
        lease_duration_seconds: Some(k.config.node_lease_duration_seconds),
        renew_time: Some(micro_time(k.clock.now())),
        ..Default::default()
    }
}

async fn new_lease(k: &Shared) -> Lease {
    let name = k.config.node_name.clone();
    // Without its owner the Lease is made anyway, and outlives the node.
    let owner = k.client.of::<Node>().get("", &name).await.ok().and_then(|n| n.metadata.uid);
    let owner = owner.map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid,
        ..Default::default()
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(LEASES.into()),
            owner_references: owner.map(|o| vec![o]),
            ..Default::default()
        },
        spec: Some(spec(k)),
    }
}

/// The time in whole seconds, as statuses have it.
pub(crate) fn seconds(t: Timestamp) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    pintle_client::clock::time(t)
}

/// Size and free bytes, inodes and free inodes of the file system that holds the images.
///
/// # Errors
/// When it cannot be asked.
pub async fn disk_of_images(k: &Shared) -> std::io::Result<(u64, u64, u64, u64)> {
    let info = k.runtime.image_fs_info().await.map_err(std::io::Error::other)?;
    let at = info.images.first().map_or_else(|| k.config.root_dir.clone(), |f| f.mountpoint.clone().into());
    info::disk(&at)
}

/// The same of the node agent's data.
///
/// # Errors
/// When it cannot be asked.
pub fn disk_of_node(k: &Shared) -> std::io::Result<(u64, u64, u64, u64)> {
    info::disk(&k.config.root_dir)
}

/// Memory not in use, in bytes: what the kernel could give out without swapping.
#[must_use]
pub fn memory_available() -> Option<i64> {
    info::meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}

/// Memory of this process that is in RAM, in bytes.
#[must_use]
pub fn own_memory() -> Option<u64> {
    let rss = info::meminfo(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS")?;
    u64::try_from(rss).ok()
}

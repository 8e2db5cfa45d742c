//! The objects besides pods and nodes, by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pintle_api::selector::Selector;

use crate::model::affinity::Namespaces;
use crate::model::devices::{Allocation, DeviceClass, DeviceId, Given, ResourceClaim, ResourceSlice};
use crate::model::objects::{
    Attachment, Budget, Claim, CsiDriver, CsiNode, Grouping, Namespace, PodGroup, SELECTED_NODE, StorageCapacity,
    StorageClass, Volume,
};

/// What kind of grouping it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupingKind {
    /// `Service`.
    Service,
    /// `ReplicationController`.
    ReplicationController,
    /// `ReplicaSet`.
    ReplicaSet,
    /// `StatefulSet`.
    StatefulSet,
}

/// Something that is new, changed (old and new) or gone (old only).
#[derive(Clone, Debug)]
pub struct Delta<T> {
    /// The state before.
    pub old: Option<Arc<T>>,
    /// The state now.
    pub new: Option<Arc<T>>,
}

impl<T> Delta<T> {
    /// The newest state known.
    ///
    /// One of the two is always there: what is neither new nor gone has not changed.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<T>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// A change of an object that is neither pod nor node.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is named for its kind")]
pub enum ObjectChange {
    Namespace(Delta<Namespace>),
    Claim(Delta<Claim>),
    Volume(Delta<Volume>),
    StorageClass(Delta<StorageClass>),
    CsiNode(Delta<CsiNode>),
    CsiDriver(Delta<CsiDriver>),
    StorageCapacity(Delta<StorageCapacity>),
    Attachment(Delta<Attachment>),
    Budget(Delta<Budget>),
    Grouping(GroupingKind, Delta<Grouping>),
    ResourceClaim(Delta<ResourceClaim>),
    ResourceSlice(Delta<ResourceSlice>),
    DeviceClass(Delta<DeviceClass>),
    PodGroup(Delta<PodGroup>),
}

impl<T> Delta<T> {
    /// One of three, by what happened.
    fn pick(&self, [added, updated, gone]: [&'static str; 3]) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => added,
            (_, Some(_)) => updated,
            (_, None) => gone,
        }
    }
}

impl ObjectChange {
    /// Upstream's name of the event.
    #[must_use]
    pub fn event_name(&self) -> &'static str {
        macro_rules! names {
            ($delta:expr, $kind:literal) => {
                $delta.pick([concat!($kind, "Add"), concat!($kind, "Update"), concat!($kind, "Delete")])
            };
        }
        match self {
            Self::Namespace(d) => names!(d, "Namespace"),
            Self::Claim(d) => names!(d, "PersistentVolumeClaim"),
            Self::Volume(d) => names!(d, "PersistentVolume"),
            Self::StorageClass(d) => names!(d, "StorageClass"),
            Self::CsiNode(d) => names!(d, "CSINode"),
            Self::CsiDriver(d) => names!(d, "CSIDriver"),
            Self::StorageCapacity(d) => names!(d, "CSIStorageCapacity"),
            Self::Attachment(d) => names!(d, "VolumeAttachment"),
            Self::Budget(d) => names!(d, "PodDisruptionBudget"),
            Self::Grouping(_, d) => names!(d, "Grouping"),
            Self::ResourceClaim(d) => names!(d, "ResourceClaim"),
            Self::ResourceSlice(d) => names!(d, "ResourceSlice"),
            Self::DeviceClass(d) => names!(d, "DeviceClass"),
            Self::PodGroup(d) => names!(d, "PodGroup"),
        }
    }
}

/// The objects.
#[derive(Debug, Default)]
pub struct Objects {
    /// Labels of the namespaces.
    pub namespaces: Namespaces,
    /// Claims by `namespace/name`.
    pub claims: HashMap<String, Arc<Claim>>,
    /// Volumes by name; ordered, so that the same cluster gives the same choice.
    pub volumes: BTreeMap<String, Arc<Volume>>,
    /// Storage classes by name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// CSI nodes by name.
    pub csi_nodes: HashMap<String, Arc<CsiNode>>,
    /// CSI drivers by name.
    pub csi_drivers: HashMap<String, Arc<CsiDriver>>,
    /// Storage capacities by `namespace/name`.
    pub capacities: BTreeMap<String, Arc<StorageCapacity>>,
    /// Attachments by name.
    pub attachments: HashMap<String, Arc<Attachment>>,
    /// Volumes meant for a claim by a pod that is being bound: the claim as `namespace/name` and the pod's uid, by the
    /// volume's name.
    pub assumed_volumes: HashMap<String, (String, String)>,
    /// Claims for which a node was chosen by a pod that is being bound: the node and the pod's uid, by the claim as
    /// `namespace/name`.
    pub assumed_nodes: HashMap<String, (String, String)>,
    /// Resource claims by `namespace/name`.
    pub resource_claims: HashMap<String, Arc<ResourceClaim>>,
    /// Resource slices by name.
    pub slices: BTreeMap<String, Arc<ResourceSlice>>,
    /// Device classes by name.
    pub device_classes: HashMap<String, Arc<DeviceClass>>,
    /// Pod groups by `namespace/name`.
    pub pod_groups: HashMap<String, Arc<PodGroup>>,
    /// What claims were given by pods that are being bound: with the pod's uid, by `namespace/name`.
    pub assumed_claims: HashMap<String, (Allocation, String)>,
    /// Devices that claims have, and how many times.
    pub given_devices: HashMap<DeviceId, usize>,
    /// Budgets by namespace, with their selectors.
    pub budgets: HashMap<String, BTreeMap<String, (Arc<Budget>, Selector)>>,
    /// How often one changed.
    pub budget_changes: u64,
    /// Selectors of what groups pods, by namespace.
    groupings: HashMap<String, BTreeMap<(GroupingKind, String), Selector>>,
}

fn put<M: Extend<(String, Arc<T>)>, T>(
    map: &mut M,
    key: String,
    value: &Option<Arc<T>>,
    remove: impl FnOnce(&mut M, &str),
) {
    match value {
        Some(v) => map.extend([(key, v.clone())]),
        None => remove(map, &key),
    }
}

macro_rules! keep {
    ($map:expr, $delta:expr, $key:expr) => {
        if let Some(last) = $delta.last() {
            put(&mut $map, $key(last), &$delta.new, |m, k| {
                m.remove(k);
            });
        }
    };
}

impl Objects {
    /// Takes in a change.
    pub fn apply(&mut self, change: &ObjectChange) {
        match change {
            ObjectChange::Namespace(d) => {
                let Some(last) = d.last() else { return };
                let name = last.metadata.name.clone();
                match &d.new {
                    Some(n) => self.namespaces.insert(name, n.metadata.labels.clone()),
                    None => self.namespaces.remove(&name),
                };
            }
            ObjectChange::Claim(d) => {
                keep!(self.claims, d, |c: &Arc<Claim>| c.key());
                // What was assumed has come true, or never will.
                let open = |c: &Arc<Claim>| !c.is_bound() && !c.metadata.annotations.contains_key(SELECTED_NODE);
                if !d.new.as_ref().is_some_and(open)
                    && let Some(last) = d.last()
                {
                    self.assumed_nodes.remove(&last.key());
                }
            }
            ObjectChange::Volume(d) => {
                keep!(self.volumes, d, |v: &Arc<Volume>| v.metadata.name.clone());
                if d.new.as_ref().is_none_or(|v| v.spec.claim_ref.is_some())
                    && let Some(last) = d.last()
                {
                    self.assumed_volumes.remove(&last.metadata.name);
                }
            }
            ObjectChange::StorageClass(d) => keep!(self.classes, d, |c: &Arc<StorageClass>| c.metadata.name.clone()),
            ObjectChange::CsiNode(d) => keep!(self.csi_nodes, d, |n: &Arc<CsiNode>| n.metadata.name.clone()),
            ObjectChange::CsiDriver(d) => keep!(self.csi_drivers, d, |n: &Arc<CsiDriver>| n.metadata.name.clone()),
            ObjectChange::Attachment(d) => keep!(self.attachments, d, |a: &Arc<Attachment>| a.metadata.name.clone()),
            ObjectChange::StorageCapacity(d) => keep!(self.capacities, d, |c: &Arc<StorageCapacity>| format!(
                "{}/{}",
                c.metadata.namespace, c.metadata.name
            )),
            ObjectChange::Budget(d) => {
                let Some(last) = d.last() else { return };
                self.budget_changes += 1;
                let of = self.budgets.entry(last.metadata.namespace.clone()).or_default();
                match &d.new {
                    Some(b) => {
                        // A budget without a selector, or with one that does not parse, guards nothing.
                        let selector =
                            Selector::from_object(b.spec.selector.as_ref()).unwrap_or_else(|_| Selector::nothing());
                        of.insert(b.metadata.name.clone(), (b.clone(), selector));
                    }
                    None => {
                        of.remove(&last.metadata.name);
                    }
                }
            }
            ObjectChange::ResourceClaim(d) => {
                let Some(key) = d.last().map(|c| c.key()) else { return };
                let allocation = |c: &Option<Arc<ResourceClaim>>| c.as_ref().and_then(|c| c.status.allocation.clone());
                if let Some(a) = allocation(&d.old) {
                    self.count_devices(&a, false);
                }
                if let Some(a) = allocation(&d.new) {
                    self.count_devices(&a, true);
                }
                // What was assumed has come true, or never will.
                let open = d.new.as_ref().is_some_and(|c| c.status.allocation.is_none());
                if !open && let Some((a, _)) = self.assumed_claims.remove(&key) {
                    self.count_devices(&a, false);
                }
                keep!(self.resource_claims, d, |c: &Arc<ResourceClaim>| c.key());
            }
            ObjectChange::ResourceSlice(d) => keep!(self.slices, d, |s: &Arc<ResourceSlice>| s.metadata.name.clone()),
            ObjectChange::DeviceClass(d) => {
                keep!(self.device_classes, d, |c: &Arc<DeviceClass>| c.metadata.name.clone());
            }
            ObjectChange::PodGroup(d) => keep!(self.pod_groups, d, |g: &Arc<PodGroup>| g.key()),
            ObjectChange::Grouping(kind, d) => {
                let Some(last) = d.last() else { return };
                let of = self.groupings.entry(last.metadata.namespace.clone()).or_default();
                let key = (*kind, last.metadata.name.clone());
                match d.new.as_deref().and_then(|g| grouping_selector(*kind, g)) {
                    Some(selector) => of.insert(key, selector),
                    None => of.remove(&key),
                };
            }
        }
    }

    fn count_devices(&mut self, allocation: &Allocation, add: bool) {
        for id in allocation.devices.results.iter().filter_map(Given::id) {
            let n = self.given_devices.entry(id.clone()).or_default();
            *n = if add { *n + 1 } else { n.saturating_sub(1) };
            if *n == 0 {
                self.given_devices.remove(&id);
            }
        }
    }

    /// Notes what a claim is given, until the API says so.
    pub fn assume_claim(&mut self, key: &str, allocation: Allocation, pod: &str) {
        self.count_devices(&allocation, true);
        if let Some((before, _)) = self.assumed_claims.insert(key.to_owned(), (allocation, pod.to_owned())) {
            self.count_devices(&before, false);
        }
    }

    /// Takes back what the claims of a pod were given.
    pub fn unassume_claims(&mut self, pod: &str) {
        let keys: Vec<String> =
            self.assumed_claims.iter().filter(|(_, (_, uid))| uid == pod).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some((a, _)) = self.assumed_claims.remove(&key) {
                self.count_devices(&a, false);
            }
        }
    }

    /// The selector of pods that belong with a pod: of all Services that select it and of its controller, taken
    /// together, as upstream's default spreading has it. `None` when there is none.
    #[must_use]
    pub fn group_of(&self, pod: &crate::model::Pod) -> Option<Selector> {
        let of = self.groupings.get(&pod.namespace)?;
        let mut all = Vec::new();
        let services = of.iter().take_while(|((kind, _), _)| *kind == GroupingKind::Service);
        for (_, s) in services.filter(|(_, s)| s.matches_labels(&pod.labels)) {
            all.extend_from_slice(s.requirements());
        }
        if let Some(owner) = &pod.controller {
            let kind = match owner.kind.as_str() {
                "ReplicationController" => Some(GroupingKind::ReplicationController),
                "ReplicaSet" => Some(GroupingKind::ReplicaSet),
                "StatefulSet" => Some(GroupingKind::StatefulSet),
                _ => None,
            };
            if let Some(s) = kind.and_then(|kind| of.get(&(kind, owner.name.clone()))) {
                for r in s.requirements() {
                    if !all.contains(r) {
                        all.push(r.clone());
                    }
                }
            }
        }
        (!all.is_empty()).then(|| Selector::new(all))
    }
}

fn grouping_selector(kind: GroupingKind, g: &Grouping) -> Option<Selector> {
    match kind {
        GroupingKind::Service | GroupingKind::ReplicationController => {
            let labels = g.labels().filter(|l| !l.is_empty())?;
            Some(Selector::from_set(labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))))
        }
        GroupingKind::ReplicaSet | GroupingKind::StatefulSet => Selector::from_object(Some(&g.selector()?)).ok(),
    }
}

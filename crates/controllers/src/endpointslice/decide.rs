//! Which slices a Service has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pintle_client::Meta;

use crate::support::pods::Pod;
use crate::support::services::{Service, address, target_port};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Endpoints a slice.
const FULL: usize = 100;

/// Endpoints with the same address family and the same ports share slices.
#[derive(Debug)]
pub struct Group {
    pub family: String,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// Whose slices these are, and what they are labelled with.
#[derive(Debug)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub reference: OwnerReference,
    /// Whether an empty slice stands for having no endpoints.
    pub placeholder: bool,
}

/// One write.
#[derive(Debug)]
pub enum Write {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(String),
}

/// The reference of slices to what they are of.
pub fn owner_reference(kind: &str, meta: &Meta) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: kind.into(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

impl Owner {
    pub fn of(service: &Service, manager: &str) -> Self {
        let mut labels = service.metadata.labels.to_map();
        labels.retain(|k, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&k.as_str()));
        if service.is_headless() {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(SERVICE_NAME.into(), service.metadata.name.clone());
        labels.insert(MANAGED_BY.into(), manager.into());
        Self {
            namespace: service.metadata.namespace.clone(),
            name: service.metadata.name.clone(),
            labels,
            annotations: BTreeMap::new(),
            reference: owner_reference("Service", &service.metadata),
            placeholder: true,
        }
    }
}

/// The endpoints of a Service's pods.
pub fn wanted(service: &Service, pods: &[Arc<Pod>], zone: impl Fn(&str) -> Option<String>) -> Vec<Group> {
    let mut families = service.spec.ip_families.clone();
    if families.is_empty() {
        // A headless Service from before there were families has those of its pods.
        families = ["IPv4", "IPv6"]
            .iter()
            .filter(|f| pods.iter().any(|p| address(p, f).is_some()))
            .map(|f| (*f).into())
            .collect();
        if families.is_empty() {
            families.push("IPv4".into());
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for family in families {
        for pod in pods.iter().filter(|p| !p.is_terminal()) {
            let Some(ip) = address(pod, &family) else { continue };
            let ports = ports(service, pod);
            let endpoint = endpoint(service, pod, ip, &zone);
            match groups.iter_mut().find(|g| g.family == family && g.ports == ports) {
                Some(g) => g.endpoints.push(endpoint),
                None => groups.push(Group { family: family.clone(), ports, endpoints: vec![endpoint] }),
            }
        }
        if !groups.iter().any(|g| g.family == family) {
            groups.push(Group { family, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let of = |p: &crate::support::services::Port| {
        Some(EndpointPort {
            name: Some(p.name.clone()),
            port: Some(target_port(pod, p)?),
            protocol: Some(if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() }),
            app_protocol: p.app_protocol.clone(),
        })
    };
    service.spec.ports.iter().filter_map(of).collect()
}

fn endpoint(service: &Service, pod: &Pod, ip: &str, zone: &impl Fn(&str) -> Option<String>) -> Endpoint {
    let serving = service.spec.publish_not_ready_addresses || pod.is_ready();
    let ready = service.spec.publish_not_ready_addresses || (pod.is_ready() && !pod.is_deleting());
    let node = &pod.spec.node_name;
    let zone = (!node.is_empty()).then(|| zone(node)).flatten();
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name;
    // Traffic that prefers its own zone or node is told so by hints.
    let hints = match service.spec.traffic_distribution.as_str() {
        "PreferClose" | "PreferSameZone" if ready => zone
            .clone()
            .map(|z| EndpointHints { for_zones: Some(vec![ForZone { name: z }]), ..EndpointHints::default() }),
        "PreferSameNode" if ready && !node.is_empty() => Some(EndpointHints {
            for_zones: zone.clone().map(|z| vec![ForZone { name: z }]),
            for_nodes: Some(vec![k8s_openapi::api::discovery::v1::ForNode { name: node.clone() }]),
        }),
        _ => None,
    };
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(pod.is_deleting()),
        }),
        hostname: named.then(|| pod.spec.hostname.clone()),
        node_name: (!node.is_empty()).then(|| node.clone()),
        zone,
        hints,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(pod.metadata.namespace.clone()),
            name: Some(pod.metadata.name.clone()),
            uid: Some(pod.metadata.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn same_ports(slice: &EndpointSlice, ports: &[EndpointPort]) -> bool {
    slice.ports.as_deref().unwrap_or_default() == ports
}

fn count(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

/// What tells one endpoint from another.
fn identity(e: &Endpoint) -> (&str, &str) {
    let uid = e.target_ref.as_ref().and_then(|t| t.uid.as_deref()).unwrap_or_default();
    (uid, e.addresses.first().map_or("", String::as_str))
}

/// The writes that turn the slices there are into those wanted, as few as possible: endpoints stay in their slices,
/// and new ones go where there is room.
pub fn reconcile(owner: &Owner, wanted: Vec<Group>, existing: Vec<EndpointSlice>) -> Vec<Write> {
    let mut existing: Vec<Option<EndpointSlice>> = existing.into_iter().map(Some).collect();
    let mut writes = Vec::new();
    for group in wanted {
        let mut pending: HashMap<(String, String), Endpoint> = HashMap::new();
        let mut order = Vec::new();
        for e in group.endpoints {
            let id = (identity(&e).0.to_owned(), identity(&e).1.to_owned());
            order.push(id.clone());
            pending.insert(id, e);
        }
        // Slices of the group, with what stays in each.
        let mut kept: Vec<(EndpointSlice, bool)> = Vec::new();
        for slot in &mut existing {
            let fits = slot.as_ref().is_some_and(|s| {
                s.address_type == group.family
                    && s.metadata.deletion_timestamp.is_none()
                    && (same_ports(s, &group.ports) || (count(s) == 0 && group.ports.is_empty()))
            });
            let Some(mut slice) = (if fits { slot.take() } else { None }) else { continue };
            let before = slice.endpoints.take().unwrap_or_default();
            let mut stay = Vec::new();
            for old in &before {
                let id = (identity(old).0.to_owned(), identity(old).1.to_owned());
                if stay.len() < FULL
                    && let Some(new) = pending.remove(&id)
                {
                    stay.push(new);
                }
            }
            let stamped = stamp(owner, &mut slice);
            let changed = stamped || stay != before || !same_ports(&slice, &group.ports);
            slice.endpoints = Some(stay);
            slice.ports = Some(group.ports.clone());
            kept.push((slice, changed));
        }
        let mut rest: Vec<Endpoint> = order.iter().filter_map(|id| pending.remove(id)).collect();
        rest.reverse();
        // The fullest first: fewer slices in the end.
        kept.sort_by_key(|(s, _)| std::cmp::Reverse(count(s)));
        for (slice, changed) in &mut kept {
            while count(slice) < FULL
                && let Some(e) = rest.pop()
            {
                slice.endpoints.get_or_insert_default().push(e);
                *changed = true;
            }
        }
        while !rest.is_empty() {
            let mut slice = new_slice(owner, &group.family, &group.ports);
            while count(&slice) < FULL
                && let Some(e) = rest.pop()
            {
                slice.endpoints.get_or_insert_default().push(e);
            }
            writes.push(Write::Create(Box::new(slice)));
        }
        // One slice stands for none, so that readers can tell "none" from "not yet".
        let some = !writes.is_empty() || kept.iter().any(|(s, _)| count(s) > 0);
        let mut placeholder = owner.placeholder && order.is_empty() && !some;
        for (slice, changed) in kept {
            if count(&slice) == 0 && !std::mem::take(&mut placeholder) {
                writes.push(Write::Delete(slice.metadata.name.unwrap_or_default()));
            } else if changed {
                writes.push(Write::Update(Box::new(slice)));
            }
        }
        if placeholder {
            writes.push(Write::Create(Box::new(new_slice(owner, &group.family, &[]))));
        }
    }
    let stale = existing.into_iter().flatten().filter(|s| s.metadata.deletion_timestamp.is_none());
    writes.extend(stale.map(|s| Write::Delete(s.metadata.name.unwrap_or_default())));
    writes
}

/// Brings a slice's labels and annotations up to date; says whether that changed anything.
fn stamp(owner: &Owner, slice: &mut EndpointSlice) -> bool {
    let meta = &mut slice.metadata;
    let annotations = (!owner.annotations.is_empty()).then(|| owner.annotations.clone());
    let same = meta.labels.as_ref() == Some(&owner.labels)
        && meta.annotations.clone().filter(|a| !a.is_empty()) == annotations;
    meta.labels = Some(owner.labels.clone());
    meta.annotations = annotations;
    !same
}

fn new_slice(owner: &Owner, family: &str, ports: &[EndpointPort]) -> EndpointSlice {
    let mut slice = EndpointSlice {
        address_type: family.into(),
        endpoints: Some(Vec::new()),
        ports: Some(ports.to_vec()),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(owner.namespace.clone()),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
    };
    stamp(owner, &mut slice);
    slice
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(extra: serde_json::Value) -> Service {
        let mut v = json!({"metadata": {"name": "s", "namespace": "n", "uid": "s", "labels": {"x": "y"}},
            "spec": {"selector": {"a": "b"}, "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}});
        for (k, e) in extra.as_object().unwrap() {
            v["spec"][k] = e.clone();
        }
        serde_json::from_value(v).unwrap()
    }

    /// `name ip ready deleting port`.
    fn pod(line: &str) -> Arc<Pod> {
        let f: Vec<&str> = line.split(' ').collect();
        let deleting = (f[3] == "deleting").then_some("2024-01-01T00:00:00Z");
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": f[0], "namespace": "n", "uid": f[0], "deletionTimestamp": deleting},
                "spec": {"nodeName": "n1", "hostname": f[0], "subdomain": "s", "containers": [{"ports": [{"name": "web", "containerPort": f[4].parse::<i32>().unwrap()}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": f[1]}], "conditions": [{"type": "Ready", "status": if f[2] == "ready" { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    fn groups(s: &Service, pods: &[&str]) -> Vec<Group> {
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        wanted(s, &pods, |_| Some("z1".into()))
    }

    #[test]
    fn endpoints_of_pods() {
        let s = service(json!({}));
        let g = groups(
            &s,
            &[
                "a 10.0.0.1 ready - 8080",
                "b 10.0.0.2 no - 8080",
                "c 10.0.0.3 ready deleting 8080",
                "d 10.0.0.4 ready - 9090",
                "e fd::1 ready - 8080",
            ],
        );
        assert_eq!(g.len(), 2);
        assert_eq!(g[0].ports[0].port, Some(8080));
        let conditions: Vec<_> = g[0]
            .endpoints
            .iter()
            .map(|e| e.conditions.clone().unwrap())
            .map(|c| (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap()))
            .collect();
        assert_eq!(conditions, [(true, true, false), (false, false, false), (false, true, true)]);
        let e = &g[0].endpoints[0];
        assert_eq!(
            (e.hostname.as_deref(), e.zone.as_deref(), e.node_name.as_deref()),
            (Some("a"), Some("z1"), Some("n1"))
        );
        let s = service(json!({"publishNotReadyAddresses": true}));
        assert_eq!(groups(&s, &["b 10.0.0.2 no - 1"])[0].endpoints[0].conditions.as_ref().unwrap().ready, Some(true));
        let s = service(json!({"trafficDistribution": "PreferClose"}));
        assert_eq!(
            groups(&s, &["b 10.0.0.2 ready - 1"])[0].endpoints[0].hints.as_ref().unwrap().for_zones.as_ref().unwrap()
                [0]
            .name,
            "z1"
        );
    }

    /// Applies writes to slices, giving names.
    fn apply(mut slices: Vec<EndpointSlice>, writes: Vec<Write>) -> (Vec<EndpointSlice>, String) {
        let mut log = String::new();
        for w in writes {
            match w {
                Write::Create(mut s) => {
                    static NAMED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
                    let n = NAMED.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    s.metadata.name = Some(format!("s-{n}"));
                    slices.push(*s);
                    log.push('+');
                }
                Write::Update(s) => {
                    let at = slices.iter().position(|o| o.metadata.name == s.metadata.name).unwrap();
                    slices[at] = *s;
                    log.push('~');
                }
                Write::Delete(n) => {
                    slices.retain(|s| s.metadata.name.as_deref() != Some(&n));
                    log.push('-');
                }
            }
        }
        (slices, log)
    }

    #[test]
    fn writes_are_few() {
        let s = service(json!({}));
        let owner = Owner::of(&s, "m");
        let many =
            |n: usize| (0..n).map(|i| format!("p{i} 10.0.{}.{} ready - 8080", i / 200, i % 200)).collect::<Vec<_>>();
        let step = |slices: Vec<EndpointSlice>, pods: &[String]| {
            let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
            apply(slices.clone(), reconcile(&owner, groups(&s, &pods), slices))
        };
        let (slices, log) = step(vec![], &[]);
        assert_eq!(log, "+", "a placeholder");
        assert_eq!(step(slices.clone(), &[]).1, "", "and only one");
        let (slices, log) = step(slices, &many(250));
        assert_eq!(log, "+++-");
        assert_eq!(slices.iter().map(count).sum::<usize>(), 250);
        assert_eq!(step(slices.clone(), &many(250)).1, "");
        let (slices, log) = step(slices, &many(251));
        assert_eq!(log, "~", "the one with room");
        let (slices, log) = step(slices, &many(1));
        assert_eq!(log.len(), 3, "{log}");
        assert_eq!(slices.len(), 1);
        let labels = slices[0].metadata.labels.as_ref().unwrap();
        assert_eq!((labels[SERVICE_NAME].as_str(), labels["x"].as_str(), labels[MANAGED_BY].as_str()), ("s", "y", "m"));
        let (slices, log) = step(slices, &[]);
        assert!(slices.len() == 1 && count(&slices[0]) == 0, "{log}");
    }
}

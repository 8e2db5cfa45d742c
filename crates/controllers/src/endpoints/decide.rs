//! The subsets of an Endpoints object.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::support::pods::Pod;
use crate::support::services::{Service, address, target_port};

pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses an Endpoints object holds.
const CAPACITY: usize = 1000;

/// Addresses of the same set of ports stand together, sorted as upstream repacks them.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let family = service.spec.ip_families.first().map_or("IPv4", String::as_str);
    // By ports, then by address: ready and not ready.
    type Ports = Vec<(String, i32, String, Option<String>)>;
    let mut by_ports: BTreeMap<Ports, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in
        pods.iter().filter(|p| !p.is_terminal() && (!p.is_deleting() || service.spec.publish_not_ready_addresses))
    {
        let Some(ip) = address(pod, family) else { continue };
        let mut ports: Ports = service
            .spec
            .ports
            .iter()
            .filter_map(|p| {
                let protocol = if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() };
                Some((p.name.clone(), target_port(pod, p)?, protocol, p.app_protocol.clone()))
            })
            .collect();
        ports.sort();
        if ports.is_empty() && !service.spec.ports.is_empty() {
            continue;
        }
        let (ready, not_ready) = by_ports.entry(ports).or_default();
        let ready_now = service.spec.publish_not_ready_addresses || pod.is_ready();
        if ready_now { ready } else { not_ready }.push(endpoint(service, pod, ip));
    }
    let some = |mut a: Vec<EndpointAddress>| {
        a.sort_by(|x, y| x.ip.cmp(&y.ip));
        (!a.is_empty()).then_some(a)
    };
    by_ports
        .into_iter()
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
        })
        .collect()
}

fn port((name, port, protocol, app_protocol): (String, i32, String, Option<String>)) -> EndpointPort {
    EndpointPort { name: (!name.is_empty()).then_some(name), port, protocol: Some(protocol), app_protocol }
}

fn endpoint(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name;
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: named.then(|| pod.spec.hostname.clone()),
        node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(pod.metadata.namespace.clone()),
            name: Some(pod.metadata.name.clone()),
            uid: Some(pod.metadata.uid.clone()),
            ..ObjectReference::default()
        }),
    }
}

/// Cuts to capacity, ready addresses before others; says whether it had to.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let mut room = CAPACITY;
    let mut cut = false;
    let ready = |s: &mut EndpointSubset| s.addresses.take();
    let mut take = |list: Option<Vec<EndpointAddress>>| {
        let mut list = list?;
        cut |= list.len() > room;
        list.truncate(room);
        room -= list.len();
        (!list.is_empty()).then_some(list)
    };
    for s in subsets.iter_mut() {
        let list = ready(s);
        s.addresses = take(list);
    }
    for s in subsets.iter_mut() {
        let list = s.not_ready_addresses.take();
        s.not_ready_addresses = take(list);
    }
    cut
}

/// The object to write; `None` when it is there already.
pub fn endpoints(service: &Service, there: Option<Endpoints>, mut subsets: Vec<EndpointSubset>) -> Option<Endpoints> {
    let cut = truncate(&mut subsets);
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    let mut labels = service.metadata.labels.to_map();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.is_headless() {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let is_new = there.is_none();
    let mut new = there.unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: Some(service.metadata.name.clone()),
            namespace: Some(service.metadata.namespace.clone()),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let before = new.clone();
    new.subsets = subsets;
    new.metadata.labels = Some(labels);
    let annotations = new.metadata.annotations.get_or_insert_default();
    if cut {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        new.metadata.annotations = None;
    }
    let same = before.subsets.clone().filter(|s| !s.is_empty()) == new.subsets
        && before.metadata.labels == new.metadata.labels
        && before.metadata.annotations.filter(|a| !a.is_empty()) == new.metadata.annotations;
    (is_new || !same).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(i: usize, ready: bool, port: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{i}"), "namespace": "n", "uid": format!("{i}")},
                "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
                "status": {"podIP": format!("10.0.{}.{}", i / 200, i % 200), "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn addresses_with_the_same_ports_stand_together() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "web"}]}}))
        .unwrap();
        let s = subsets(&service, &[pod(2, true, 80), pod(1, true, 80), pod(3, false, 80), pod(4, true, 81)]);
        assert_eq!(s.len(), 2);
        let ips: Vec<&str> = s[0].addresses.as_ref().unwrap().iter().map(|a| a.ip.as_str()).collect();
        assert_eq!(ips, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(s[0].not_ready_addresses.as_ref().unwrap().len(), 1);
        let made = endpoints(&service, None, s.clone()).unwrap();
        assert_eq!(made.metadata.labels.as_ref().unwrap()[MANAGED_BY], MANAGER);
        assert!(endpoints(&service, Some(made.clone()), s).is_none());
        assert!(endpoints(&service, Some(made), vec![]).unwrap().subsets.is_none());
    }

    #[test]
    fn too_many_are_cut() {
        let service: Service = serde_json::from_value(
            json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"selector": {"a": "b"}}}),
        )
        .unwrap();
        let pods: Vec<_> = (0..1100).map(|i| pod(i, i % 2 == 0, 80)).collect();
        let e = endpoints(&service, None, subsets(&service, &pods)).unwrap();
        assert_eq!(e.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY], "truncated");
        let s = &e.subsets.unwrap()[0];
        assert_eq!((s.addresses.as_ref().unwrap().len(), s.not_ready_addresses.as_ref().unwrap().len()), (550, 450));
    }
}

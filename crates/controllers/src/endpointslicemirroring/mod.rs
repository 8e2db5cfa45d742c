//! EndpointSlice mirroring: Endpoints that users write for Services without a selector, as slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use pintle_client::informers::View;
use pintle_client::meta::{MetaOnly, key};
use pintle_client::typed::decode;
use pintle_client::{Informer, Key, Meta};

use crate::context::{Context, Outcome};
use crate::endpointslice::{self, MANAGED_BY, SERVICE_NAME, index_by_service, reconcile, slices_of};
use crate::support::services::{self, Service};

const WORKERS: usize = 5;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are not copied to slices.
const NOT_COPIED: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];
/// Most addresses of one subset that are mirrored.
const MOST: usize = 1000;

struct Controller {
    cx: Context,
    services: View<Service>,
    endpoints: Informer,
    slices: Informer,
    slice_metas: View<MetaOnly>,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("endpoint_slice_mirroring");
    let me = Arc::new(Controller {
        services: services::view(&cx.informers),
        endpoints: cx.informers.of::<Endpoints>(),
        slices: cx.informers.of::<EndpointSlice>(),
        slice_metas: cx.informers.view::<EndpointSlice, MetaOnly>(),
        cx: cx.clone(),
    });
    index_by_service(&me.slice_metas);
    let q = queue.clone();
    me.services.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    me.endpoints.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    me.slice_metas.on_change(move |change| {
        let m = &change.last().metadata;
        if change.before().is_some()
            && m.labels.get(MANAGED_BY).is_some_and(|v| v == MANAGER)
            && let Some(service) = m.labels.get(SERVICE_NAME)
        {
            q.add(key(&m.namespace, service).into());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

fn mirrored(e: &Endpoints) -> bool {
    let skip = e.metadata.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
    let leader = e.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    !skip && !leader
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let existing = slices_of(&self.slice_metas, &self.slices, k, MANAGER)?;
        let service = self.services.get(k);
        let endpoints: Option<Endpoints> = self.endpoints.get(k).map(|o| decode(&o)).transpose()?;
        let endpoints = endpoints.filter(|e| mirrored(e) && service.as_ref().is_some_and(|s| !s.has_selector()));
        let (namespace, name) = pintle_client::meta::split_key(k);
        let (owner, wanted) = match &endpoints {
            Some(e) => (owner(e), groups(e)),
            None if existing.is_empty() => return Ok(None),
            None => (owner(&Endpoints::default()), Vec::new()),
        };
        let owner = endpointslice_owner(owner, namespace, name);
        endpointslice::apply(&self.cx, namespace, reconcile(&owner, wanted, existing)).await?;
        Ok(None)
    }
}

type Stamps = (BTreeMap<String, String>, BTreeMap<String, String>, Meta);

fn owner(e: &Endpoints) -> Stamps {
    let m = &e.metadata;
    let mut annotations = m.annotations.clone().unwrap_or_default();
    annotations.retain(|k, _| !NOT_COPIED.contains(&k.as_str()));
    let meta =
        Meta { name: m.name.clone().unwrap_or_default(), uid: m.uid.clone().unwrap_or_default(), ..Meta::default() };
    (m.labels.clone().unwrap_or_default(), annotations, meta)
}

fn endpointslice_owner((mut labels, annotations, meta): Stamps, namespace: &str, name: &str) -> endpointslice::Owner {
    labels.insert(SERVICE_NAME.into(), name.into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    endpointslice::Owner {
        namespace: namespace.into(),
        name: name.into(),
        labels,
        annotations,
        reference: endpointslice::owner_reference("Endpoints", &meta),
        placeholder: false,
    }
}

fn groups(e: &Endpoints) -> Vec<endpointslice::Group> {
    let mut out: Vec<endpointslice::Group> = Vec::new();
    for subset in e.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: p.protocol.clone().or_else(|| Some("TCP".into())),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        for (address, ready) in ready.chain(not_ready).take(MOST) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let endpoint = endpoint(address, ready);
            match out.iter_mut().find(|g| g.family == family && g.ports == ports) {
                Some(g) => g.endpoints.push(endpoint),
                None => out.push(endpointslice::Group {
                    family: family.into(),
                    ports: ports.clone(),
                    endpoints: vec![endpoint],
                }),
            }
        }
    }
    out
}

fn endpoint(a: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![a.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: a.hostname.clone(),
        node_name: a.node_name.clone(),
        target_ref: a.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subsets_become_groups() {
        let e: Endpoints = serde_json::from_value(json!({"metadata": {"name": "s"}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}]}))
        .unwrap();
        let g = groups(&e);
        assert_eq!(
            g.iter().map(|g| (g.family.as_str(), g.endpoints.len())).collect::<Vec<_>>(),
            [("IPv4", 2), ("IPv6", 1)]
        );
        assert!(mirrored(&e));
        let e: Endpoints = serde_json::from_value(json!({"metadata": {"labels": {SKIP: "true"}}})).unwrap();
        assert!(!mirrored(&e));
    }
}

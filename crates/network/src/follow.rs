//! The objects the parts of this crate follow, decoded once for all of them.

use std::sync::Arc;

use pintle_client::api::k8s_openapi::api::core::v1 as core;
use pintle_client::api::k8s_openapi::api::discovery::v1 as discovery;
use pintle_client::{Change, Informers, View};

use crate::views::{Name, Node, Service, Slice};

/// All Services.
pub fn services(informers: &Informers) -> View<Service> {
    informers.of::<core::Service>().view_with(|object| Service::decode(object.bytes()))
}

/// All EndpointSlices; `None` stands for one that belongs to no Service.
pub fn slices(informers: &Informers) -> View<Option<Arc<Slice>>> {
    informers.of::<discovery::EndpointSlice>().view_with(|object| Ok(Slice::decode(object.bytes())?.map(Arc::new)))
}

/// All Nodes.
pub fn nodes(informers: &Informers) -> View<Node> {
    informers.of::<core::Node>().view_with(|object| Node::decode(object.bytes()))
}

/// The name of the changed object.
pub fn name_of<T>(change: &Change<T>) -> Name {
    let (namespace, name) = pintle_client::meta::split_key(change.key());
    Name::new(namespace, name)
}

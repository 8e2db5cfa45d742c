//! Writing a part of an object, as it was seen.

use std::sync::Arc;

use pintle_api::Object;
use pintle_api::resources::Resource;
use pintle_client::client::encode;
use pintle_client::{Client, Error, WriteParams};
use serde::Serialize;
use serde_json::{Map, Value};

/// Puts a status into an object as it was seen, so that a write in between is a conflict.
///
/// # Errors
/// As the API or the connection fails.
pub async fn put(
    client: &Client,
    resource: &'static Resource,
    object: &Object,
    status: &impl Serialize,
) -> Result<Arc<Object>, Error> {
    let mut value: Value = object.view().map_err(|e| Error::decode("object", e))?;
    value["status"] = serde_json::to_value(status).map_err(|e| Error::decode("status", e))?;
    client.update(resource, object.namespace(), object.name(), "status", encode(&value)?, &WriteParams::default()).await
}

/// Writes an object's metadata changed, as it was seen.
///
/// # Errors
/// As the API or the connection fails.
pub async fn put_metadata(
    client: &Client,
    resource: &'static Resource,
    object: &Object,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<Arc<Object>, Error> {
    let mut value: Value = object.view().map_err(|e| Error::decode("object", e))?;
    if let Some(metadata) = value["metadata"].as_object_mut() {
        change(metadata);
    }
    client.update(resource, object.namespace(), object.name(), "", encode(&value)?, &WriteParams::default()).await
}

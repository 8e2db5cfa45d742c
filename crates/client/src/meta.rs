//! `Meta`: the part of an object's metadata that controllers look at, decoded once an event.

use std::ops::Not;

use jiff::Timestamp;
use pintle_api::{Labels, Object};
use serde::{Deserialize, Serialize};

/// One owner reference, which is written as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerRef {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether it is the managing controller.
    #[serde(skip_serializing_if = "Not::not")]
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this dependent.
    #[serde(skip_serializing_if = "Not::not")]
    pub block_owner_deletion: bool,
}

/// Metadata as most controllers need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// The object's name.
    pub name: String,
    /// Its namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Its generation.
    pub generation: i64,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Its owners.
    pub owner_references: Box<[OwnerRef]>,
    /// Its finalizers.
    pub finalizers: Box<[String]>,
    /// When it was made.
    pub creation_timestamp: Option<Timestamp>,
    /// When its deletion was asked for, or will end.
    pub deletion_timestamp: Option<Timestamp>,
}

impl Meta {
    /// The managing controller among its owners.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.owner_references.iter().find(|o| o.controller)
    }

    /// `namespace/name`, or the name alone.
    #[must_use]
    pub fn key(&self) -> String {
        key(&self.namespace, &self.name)
    }

    /// Whether its deletion was asked for.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// Something with metadata, in its typed or a narrow form.
pub trait HasMeta {
    /// Its metadata.
    fn meta(&self) -> &Meta;
}

/// Only an object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct MetaOnly {
    /// The metadata.
    #[serde(default)]
    pub metadata: Meta,
}

impl HasMeta for MetaOnly {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// `namespace/name`, or the name alone when there is no namespace.
#[must_use]
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// A key's namespace (empty for cluster-scoped objects) and name.
#[must_use]
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// The uid of an object's managing controller.
#[must_use]
pub fn controller_uid(object: &Object) -> Option<String> {
    #[derive(Deserialize)]
    struct Owners {
        #[serde(rename = "ownerReferences", default)]
        owners: Vec<OwnerRef>,
    }
    let owners: Owners = serde_json::from_slice(object.metadata()).ok()?;
    owners.owners.into_iter().find(|o| o.controller).map(|o| o.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_owners() {
        let text = r#"{"metadata":{"name":"a","namespace":"n","ownerReferences":[
            {"apiVersion":"v1","kind":"X","name":"x","uid":"1"},
            {"apiVersion":"apps/v1","kind":"ReplicaSet","name":"y","uid":"2","controller":true,"blockOwnerDeletion":true}]}}"#;
        let o = Object::from_wire(text.as_bytes().to_vec().into(), &[]).unwrap();
        assert_eq!(controller_uid(&o).as_deref(), Some("2"));
        let m: MetaOnly = o.view().unwrap();
        assert_eq!(m.meta().controller().map(|o| o.name.as_str()), Some("y"));
        assert_eq!(m.meta().key(), "n/a");
        assert_eq!((split_key("n/a"), split_key("a")), (("n", "a"), ("", "a")));
    }
}

//! Who owns what: finding owners of changed objects, adopting orphans that match, releasing what no longer does.

use std::sync::Arc;

use pintle_api::resources::Resource;
use pintle_client::meta::HasMeta;
use pintle_client::{Change, Client, Error, Meta, OwnerRef, Patch, WriteParams};
use serde_json::json;

/// The controller reference to an owner, as upstream writes it.
#[must_use]
pub fn controller_ref(resource: &Resource, owner: &Meta) -> OwnerRef {
    OwnerRef {
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    }
}

/// The controller reference of an object when it is of this kind, whatever its version.
#[must_use]
pub fn controller_of<'a>(meta: &'a Meta, resource: &Resource) -> Option<&'a OwnerRef> {
    meta.controller().filter(|o| {
        o.kind == resource.kind && pintle_api::resources::GroupVersion::parse(&o.api_version).group == resource.group
    })
}

/// Owners that a change concerns.
#[derive(Debug, PartialEq, Eq)]
pub struct Concerned {
    /// The controller before, when it is another now.
    pub before: Option<OwnerRef>,
    /// The controller now (or last, for an object that is gone).
    pub now: Option<OwnerRef>,
    /// It has no controller at all, and is new or its labels or owners changed: someone may want to adopt it.
    pub orphan: bool,
}

/// Whom a change of an owned object concerns.
#[must_use]
pub fn concerned<T: HasMeta>(change: &Change<T>, resource: &Resource) -> Concerned {
    let last = change.last().meta();
    let now = controller_of(last, resource).cloned();
    let old = change.before().map(|b| b.meta());
    let before =
        old.and_then(|m| controller_of(m, resource)).filter(|o| now.as_ref().is_none_or(|n| n.uid != o.uid)).cloned();
    let gone = change.now().is_none();
    let changed = old.is_none_or(|o| o.labels != last.labels || o.controller() != last.controller());
    Concerned { before, now, orphan: !gone && !last.is_deleting() && last.controller().is_none() && changed }
}

/// An owner that claims objects.
#[derive(Clone, Copy, Debug)]
pub struct Claimer<'a> {
    /// Calls as the controller.
    pub client: &'a Client,
    /// The owner's resource.
    pub owner_resource: &'static Resource,
    /// The owner.
    pub owner: &'a Meta,
    /// Resource of what is claimed.
    pub resource: &'static Resource,
}

impl Claimer<'_> {
    /// Of these objects, those the owner controls once orphans that match are adopted and controlled ones that do not
    /// match are released. `adoptable` says which orphans may be adopted at all.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn claim<T: HasMeta>(
        &self,
        objects: Vec<Arc<T>>,
        matches: impl Fn(&Meta) -> bool,
        adoptable: impl Fn(&T) -> bool,
    ) -> Result<Vec<Arc<T>>, Error> {
        let mut out = Vec::with_capacity(objects.len());
        let mut checked = false;
        for object in objects {
            let meta = object.meta();
            let fits = matches(meta);
            match meta.controller() {
                Some(c) if c.uid == self.owner.uid => {
                    if fits {
                        out.push(object);
                    } else if !self.owner.is_deleting() {
                        self.release(meta).await?;
                    }
                }
                Some(_) => {}
                None if !fits || meta.is_deleting() || self.owner.is_deleting() || !adoptable(&object) => {}
                None => {
                    if !checked {
                        self.check_owner().await?;
                        checked = true;
                    }
                    match self.adopt(meta).await {
                        Ok(()) => out.push(object),
                        // It is gone, or is no longer what it was: the next event tells.
                        Err(e) if e.is_not_found() || e.is_invalid() => {}
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        Ok(out)
    }

    /// An owner that is being deleted, or is another of the same name, must not adopt; its cache may not know yet.
    async fn check_owner(&self) -> Result<(), Error> {
        let fresh = self.client.get(self.owner_resource, &self.owner.namespace, &self.owner.name).await?;
        if fresh.uid() != self.owner.uid || fresh.is_deleting() {
            return Err(Error::Config(format!(
                "{} {} is going or gone, and cannot adopt",
                self.owner_resource.kind,
                self.owner.key()
            )));
        }
        Ok(())
    }

    async fn set_owners(&self, meta: &Meta, owners: &[OwnerRef]) -> Result<(), Error> {
        let patch =
            json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
        let params = WriteParams::default();
        self.client
            .patch(self.resource, &meta.namespace, &meta.name, "", Patch::merge(&patch)?, &params)
            .await
            .map(drop)
    }

    async fn adopt(&self, meta: &Meta) -> Result<(), Error> {
        let mut owners = meta.owner_references.to_vec();
        owners.push(controller_ref(self.owner_resource, self.owner));
        self.set_owners(meta, &owners).await
    }

    async fn release(&self, meta: &Meta) -> Result<(), Error> {
        let owners: Vec<OwnerRef> = meta.owner_references.iter().filter(|o| o.uid != self.owner.uid).cloned().collect();
        match self.set_owners(meta, &owners).await {
            Err(e) if e.is_not_found() || e.is_invalid() => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_client::meta::MetaOnly;
    use serde_json::Value;

    fn object(owner: Option<&str>, label: &str) -> Arc<MetaOnly> {
        let owners: Vec<Value> = owner
            .map(|u| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": u, "uid": u, "controller": true}))
            .into_iter()
            .collect();
        let value =
            json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": label}, "ownerReferences": owners}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn whom_a_change_concerns() {
        let rs = pintle_api::resources::by_kind("apps/v1", "ReplicaSet").unwrap();
        let key: pintle_client::Key = "n/p".into();
        let of = |c: &Change<MetaOnly>| {
            let c = concerned(c, rs);
            (c.before.map(|o| o.name), c.now.map(|o| o.name), c.orphan)
        };
        let s = |t: &str| Some(t.to_owned());
        assert_eq!(of(&Change::Added(key.clone(), object(Some("x"), "1"))), (None, s("x"), false));
        assert_eq!(of(&Change::Added(key.clone(), object(None, "1"))), (None, None, true));
        assert_eq!(
            of(&Change::Modified(key.clone(), object(Some("x"), "1"), object(Some("y"), "1"))),
            (s("x"), s("y"), false)
        );
        assert_eq!(of(&Change::Modified(key.clone(), object(Some("x"), "1"), object(None, "1"))), (s("x"), None, true));
        assert_eq!(of(&Change::Modified(key.clone(), object(None, "1"), object(None, "1"))), (None, None, false));
        assert_eq!(of(&Change::Modified(key.clone(), object(None, "1"), object(None, "2"))), (None, None, true));
        assert_eq!(of(&Change::Deleted(key, object(Some("x"), "1"))), (None, s("x"), false));
    }
}

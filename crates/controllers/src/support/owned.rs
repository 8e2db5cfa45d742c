//! Owners and what they own, the way every workload controller sees them: whoever a change concerns is queued, what was
//! asked for and not yet seen is counted, orphans that match are adopted and others let go, pods are made and deleted.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use pintle_api::Object;
use pintle_api::resources::Resource;
use pintle_api::selector::Selector;
use pintle_client::informers::{BY_CONTROLLER, View, orphans_of};
use pintle_client::meta::{HasMeta, key};
use pintle_client::{Change, Error, Informer, Key, Meta, WorkQueue, WriteParams};
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::context::{Context, listen};
use crate::support::batch;
use crate::support::expectations::Expectations;
use crate::support::ownership::{Claimer, concerned};
use crate::support::pods::Pod;

/// An owner: it says which objects it may claim.
pub trait Selects: HasMeta + Send + Sync + 'static {
    /// Its selector: nothing else is wanted.
    fn selector(&self) -> &Selector;

    /// Whether an object of its namespace with this metadata is one it wants.
    fn wants(&self, object: &Meta) -> bool {
        self.selector().matches_labels(&object.labels)
    }
}

/// The narrow form of a workload: its metadata and its label selector.
#[derive(Debug)]
pub struct Workload {
    /// Metadata.
    pub metadata: Meta,
    /// What it selects; nothing when its selector is empty or invalid.
    pub selector: Selector,
}

impl Workload {
    /// Decodes it from an object with `spec.selector`.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn decode(object: &Object) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            metadata: Meta,
            #[serde(borrow, default)]
            spec: Option<Spec<'a>>,
        }
        #[derive(Deserialize)]
        struct Spec<'a> {
            #[serde(borrow)]
            selector: Option<&'a RawValue>,
        }
        let wire: Wire = object.view()?;
        let text = wire.spec.and_then(|s| s.selector).map_or("null", RawValue::get);
        let parsed: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector> = serde_json::from_str(text)?;
        let selector = Selector::from_object(parsed.as_ref()).map_err(serde_json::Error::custom)?;
        // An empty selector must never claim every object of the namespace.
        let selector = if selector.is_everything() { Selector::nothing() } else { selector };
        Ok(Self { metadata: wire.metadata, selector })
    }

    /// The shared view of an informer's objects in this form.
    #[must_use]
    pub fn view(informer: &Informer) -> View<Self> {
        informer.view_with(Self::decode)
    }
}

impl HasMeta for Workload {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

impl Selects for Workload {
    fn selector(&self) -> &Selector {
        &self.selector
    }
}

/// Owners of one kind and the objects of one kind they own.
pub struct Owned<O, T> {
    cx: Context,
    owner_resource: &'static Resource,
    resource: &'static Resource,
    /// The owners.
    pub owners: View<O>,
    /// The objects, with the index [`BY_CONTROLLER`].
    pub objects: View<T>,
    /// What was asked for and not yet seen, by the owner's key.
    pub expectations: Expectations,
    /// Keys of owners to look at.
    pub queue: WorkQueue<Key>,
}

impl<O, T> std::fmt::Debug for Owned<O, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Owned({} of {})", self.resource.resource, self.owner_resource.resource)
    }
}

/// What is owned and by whom.
#[derive(Debug)]
pub struct Kinds<O, T> {
    /// The owners' resource.
    pub owner: &'static Resource,
    /// The owners.
    pub owners: View<O>,
    /// The objects' resource.
    pub object: &'static Resource,
    /// The objects.
    pub objects: View<T>,
}

impl<O: Selects, T: HasMeta + Send + Sync + 'static> Owned<O, T> {
    /// Follows owners and objects, and queues under upstream's name of the queue whoever a change concerns.
    #[must_use]
    pub fn start(cx: &Context, queue: &'static str, kinds: Kinds<O, T>) -> Arc<Self> {
        let me = Arc::new(Self {
            queue: cx.queue(queue),
            cx: cx.clone(),
            owner_resource: kinds.owner,
            resource: kinds.object,
            owners: kinds.owners,
            objects: kinds.objects,
            expectations: Expectations::default(),
        });
        listen(&me.owners, &me, |me, change| {
            // What was expected of one that is gone does not hold for a new one of the same name.
            let replaced = change.before().zip(change.now()).is_some_and(|(a, b)| a.meta().uid != b.meta().uid);
            if change.now().is_none() || replaced {
                me.expectations.forget(change.key());
            }
            me.queue.add(change.key().clone());
        });
        listen(&me.objects, &me, |me, change| me.object_changed(change));
        me
    }

    fn object_changed(&self, change: &Change<T>) {
        let object = change.last().meta();
        let concerned = concerned(change, self.owner_resource);
        if let Some(owner) = &concerned.now {
            let owner = key(&object.namespace, &owner.name);
            match change {
                Change::Added(_, o) if !o.meta().is_deleting() => self.expectations.created(&owner, 1),
                _ if change.now().is_none_or(|o| o.meta().is_deleting()) => {
                    self.expectations.deleted(&owner, &object.name);
                }
                _ => {}
            }
        }
        for owner in [concerned.before, concerned.now].into_iter().flatten() {
            let k = key(&object.namespace, &owner.name);
            // One that is not known yet is queued when it shows; one of another uid is somebody else.
            if self.owners.get(&k).is_some_and(|o| o.meta().uid == owner.uid) {
                self.queue.add(k.into());
            }
        }
        if concerned.orphan {
            for (k, owner) in self.owners.namespace_entries(&object.namespace) {
                if owner.wants(object) {
                    self.queue.add(k);
                }
            }
        }
    }

    /// The objects an owner has, once orphans it wants are adopted (if `adoptable`) and those it wants no more are let
    /// go.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn claim(&self, owner: &O, adoptable: impl Fn(&T) -> bool) -> Result<Vec<Arc<T>>, Error> {
        let meta = owner.meta();
        let claimer = Claimer {
            client: &self.cx.client,
            owner_resource: self.owner_resource,
            owner: meta,
            resource: self.resource,
        };
        let mut candidates = self.objects.by_index(BY_CONTROLLER, &meta.uid);
        // There may be any number of orphans that others made; those it wants have this label.
        let orphans = orphans_of(&meta.namespace, owner.selector().label());
        candidates.extend(self.objects.by_index(BY_CONTROLLER, &orphans));
        claimer.claim(candidates, |m| owner.wants(m), adoptable).await
    }
}

impl<O: Selects> Owned<O, Pod> {
    /// Makes pods of these bodies for an owner, slowly at first. Answers the first failure; a namespace that goes away
    /// is none.
    pub async fn create(
        self: &Arc<Self>,
        k: &Key,
        about: ObjectReference,
        n: usize,
        body: impl Fn(usize) -> Result<Bytes, Error> + Send + Sync + 'static,
    ) -> Option<Error> {
        let (me, about, body, namespace) =
            (self.clone(), Arc::new(about), Arc::new(body), pintle_client::meta::split_key(k).0.to_owned());
        let namespace: Arc<str> = namespace.into();
        let (made, error) = batch::slow_start(n, move |i| -> BoxFuture<'static, Result<(), Error>> {
            let (me, about, body, namespace) = (me.clone(), about.clone(), body.clone(), namespace.clone());
            async move {
                match me.cx.client.create(me.resource, &namespace, body(i)?, &WriteParams::default()).await {
                    Ok(pod) => {
                        me.cx.recorder.normal(&about, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                        Ok(())
                    }
                    // Nothing can be made in a namespace that goes away, and nothing needs to be.
                    Err(e) if e.is_namespace_terminating() => Err(e),
                    Err(e) => {
                        me.cx.recorder.warning(&about, "FailedCreate", format!("Error creating: {e}"));
                        Err(e)
                    }
                }
            }
            .boxed()
        })
        .await;
        // Those that failed or were never tried will not be seen.
        self.expectations.created(k, n - made);
        error.filter(|e| !e.is_namespace_terminating())
    }

    /// Deletes pods of an owner, all at once. Answers the first failure.
    pub async fn delete(self: &Arc<Self>, k: &Key, about: ObjectReference, doomed: Vec<Arc<Pod>>) -> Option<Error> {
        let (me, about, k, doomed) = (self.clone(), Arc::new(about), k.clone(), Arc::new(doomed));
        let n = doomed.len();
        let (_, error) = batch::at_once(n, move |i| {
            let (me, about, k, doomed) = (me.clone(), about.clone(), k.clone(), doomed.clone());
            async move {
                let m = &doomed[i].metadata;
                let api = me.cx.client.of::<k8s_openapi::api::core::v1::Pod>();
                match api.delete(&m.namespace, &m.name, Some(&m.uid)).await {
                    Ok(()) => {
                        me.cx.recorder.normal(&about, "SuccessfulDelete", format!("Deleted pod: {}", m.name));
                        Ok(())
                    }
                    Err(e) => {
                        me.expectations.deleted(&k, &m.name);
                        if e.is_not_found() {
                            return Ok(());
                        }
                        me.cx.recorder.warning(&about, "FailedDelete", format!("Error deleting: {e}"));
                        Err(e)
                    }
                }
            }
        })
        .await;
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_workloads() {
        for (spec, wants) in [
            (r#"{"selector":{"matchLabels":{"a":"b"}}}"#, true),
            (r#"{"selector":{"matchExpressions":[{"key":"a","operator":"Exists"}]}}"#, true),
            (r#"{"selector":{"matchLabels":{"a":"c"}}}"#, false),
            (r#"{"selector":{}}"#, false),
            ("{}", false),
        ] {
            let text = format!(r#"{{"metadata":{{"name":"x"}},"spec":{spec}}}"#);
            let w = Workload::decode(&Object::from_wire(text.into_bytes().into(), &[]).unwrap()).unwrap();
            let meta = Meta { labels: [("a".to_owned(), "b".to_owned())].into(), ..Meta::default() };
            assert_eq!(w.wants(&meta), wants, "{spec}");
        }
    }
}

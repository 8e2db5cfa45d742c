//! What the scheduler follows, and how a change comes to the engine.

use std::sync::Arc;

use pintle_api::resources::by_resource;
use pintle_client::{Change, Informers, View};
use serde::de::DeserializeOwned;

use super::{News, POD_GROUPS, Shared};
use crate::cache::objects::{Delta, GroupingKind, ObjectChange};
use crate::model::objects::Grouping;
use crate::model::{Node, Pod};

fn delta<T>(change: &Change<T>) -> Delta<T> {
    Delta { old: change.before().cloned(), new: change.now().cloned() }
}

/// A Service as what groups pods: each kind of grouping is a type of its own, for a view is known by its type.
macro_rules! groupings {
    ($($name:ident),*) => { $(
        #[derive(serde::Deserialize)]
        #[serde(transparent)]
        struct $name(Grouping);
        impl From<&$name> for Grouping {
            fn from(g: &$name) -> Self {
                g.0.clone()
            }
        }
    )* };
}
groupings!(Service, ReplicationController, ReplicaSet, StatefulSet);

struct Follower<'a> {
    shared: &'a Arc<Shared>,
    informers: &'a Informers,
}

impl Follower<'_> {
    fn objects<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        (group, version, resource): (&str, &str, &str),
        to: impl Fn(&Change<T>) -> ObjectChange + Send + Sync + 'static,
    ) {
        let Some(resource) = by_resource(group, version, resource) else {
            tracing::error!(group, resource, "the resource registry lacks it");
            return;
        };
        let view: View<T> = self.informers.get(resource).view::<T>();
        let shared = self.shared.clone();
        view.on_change(move |change| shared.tell(News::Object(to(change))));
    }

    fn groupings<T: DeserializeOwned + Send + Sync + 'static>(&self, resource: (&str, &str, &str), kind: GroupingKind)
    where
        Grouping: for<'g> From<&'g T>,
    {
        self.objects::<T>(resource, move |change| {
            let of = |g: &Arc<T>| Arc::new(Grouping::from(&**g));
            ObjectChange::Grouping(kind, Delta { old: change.before().map(of), new: change.now().map(of) })
        });
    }
}

/// Follows everything that bears on placement; returns when all of it is in the inbox once.
pub(super) async fn follow(shared: &Arc<Shared>, informers: &Informers, groups: bool) {
    let (Some(pods), Some(nodes)) = (by_resource("", "v1", "pods"), by_resource("", "v1", "nodes")) else { return };
    let f = Follower { shared, informers };
    f.objects(("", "v1", "namespaces"), |c| ObjectChange::Namespace(delta(c)));
    f.objects(("", "v1", "persistentvolumes"), |c| ObjectChange::Volume(delta(c)));
    f.objects(("", "v1", "persistentvolumeclaims"), |c| ObjectChange::Claim(delta(c)));
    f.objects(("storage.k8s.io", "v1", "storageclasses"), |c| ObjectChange::StorageClass(delta(c)));
    f.objects(("storage.k8s.io", "v1", "csinodes"), |c| ObjectChange::CsiNode(delta(c)));
    f.objects(("storage.k8s.io", "v1", "csidrivers"), |c| ObjectChange::CsiDriver(delta(c)));
    f.objects(("storage.k8s.io", "v1", "csistoragecapacities"), |c| ObjectChange::StorageCapacity(delta(c)));
    f.objects(("storage.k8s.io", "v1", "volumeattachments"), |c| ObjectChange::Attachment(delta(c)));
    f.objects(("policy", "v1", "poddisruptionbudgets"), |c| ObjectChange::Budget(delta(c)));
    f.objects(("resource.k8s.io", "v1", "resourceclaims"), |c| ObjectChange::ResourceClaim(delta(c)));
    f.objects(("resource.k8s.io", "v1", "resourceslices"), |c| ObjectChange::ResourceSlice(delta(c)));
    f.objects(("resource.k8s.io", "v1", "deviceclasses"), |c| ObjectChange::DeviceClass(delta(c)));
    if groups {
        f.objects(POD_GROUPS, |c| ObjectChange::PodGroup(delta(c)));
    }
    f.groupings::<Service>(("", "v1", "services"), GroupingKind::Service);
    f.groupings::<ReplicationController>(("", "v1", "replicationcontrollers"), GroupingKind::ReplicationController);
    f.groupings::<ReplicaSet>(("apps", "v1", "replicasets"), GroupingKind::ReplicaSet);
    f.groupings::<StatefulSet>(("apps", "v1", "statefulsets"), GroupingKind::StatefulSet);
    let to = shared.clone();
    informers.get(nodes).view_with(Node::decode).on_change(move |change| {
        to.tell(match change.now() {
            Some(node) => News::Node(node.clone()),
            None => News::NodeGone(change.last().clone()),
        });
    });
    let to = shared.clone();
    informers.get(pods).view_with(Pod::decode).on_change(move |change| match change {
        Change::Added(_, new) => to.tell(News::Pod(None, new.clone())),
        Change::Modified(_, old, new) if old.uid == new.uid => to.tell(News::Pod(Some(old.clone()), new.clone())),
        Change::Modified(_, old, new) => {
            to.tell(News::PodGone(old.clone()));
            to.tell(News::Pod(None, new.clone()));
        }
        Change::Deleted(_, last) => to.tell(News::PodGone(last.clone())),
    });
    informers.synced().await;
}

//! StatefulSet: pods with names, storage and an order.

mod decide;
mod pod;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as TypedPod};
use pintle_api::metrics::{Family, Kind, Stability};
use pintle_api::selector::Selector;
use pintle_client::informers::View;
use pintle_client::meta::{HasMeta, MetaOnly, key};
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key, Meta, Patch, UnlessGone};
use serde_json::{Value, json};

use crate::context::{Context, Outcome};
use crate::support::history::{self, Revisions, Synced};
use crate::support::owned::{Kinds, Owned, Selects, Workload};
use crate::support::pods::{self, Pod};
use crate::support::status;

use decide::{Action, Snapshot};

const WORKERS: usize = 5;

struct Controller {
    cx: Context,
    sets: Informer,
    pods: Arc<Owned<Set, Pod>>,
    claims: View<MetaOnly>,
    claim_objects: Informer,
    revisions: Revisions,
}

static MAX_UNAVAILABLE: Family = Family::new(
    "statefulset_controller_statefulset_max_unavailable",
    Kind::Gauge,
    Stability::Beta,
    &["statefulset_namespace", "statefulset_name", "pod_management_policy"],
    "Maximum number of unavailable pods allowed during StatefulSet rolling updates",
);
static UNAVAILABLE: Family = Family::new(
    "statefulset_controller_statefulset_unavailable_replicas",
    Kind::Gauge,
    Stability::Beta,
    &["statefulset_namespace", "statefulset_name", "pod_management_policy"],
    "Current number of unavailable pods in StatefulSet",
);

/// Says how a set is, or nothing more of one that is gone.
fn gauge(set: &StatefulSet, status: &StatefulSetStatus) {
    let m = &set.metadata;
    let policy = set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref()).unwrap_or("OrderedReady");
    let labels = [m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default(), policy];
    if m.deletion_timestamp.is_some() {
        MAX_UNAVAILABLE.forget(&labels);
        UNAVAILABLE.forget(&labels);
        return;
    }
    let replicas = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    MAX_UNAVAILABLE.with(&labels).set(f64::from(decide::max_unavailable(set, replicas)));
    UNAVAILABLE.with(&labels).set(f64::from((replicas - status.available_replicas.unwrap_or(0)).max(0)));
}

/// A set owns pods of its name only.
struct Set(Workload);

impl HasMeta for Set {
    fn meta(&self) -> &Meta {
        &self.0.metadata
    }
}

impl Selects for Set {
    fn selector(&self) -> &Selector {
        self.0.selector()
    }

    fn wants(&self, object: &Meta) -> bool {
        self.0.wants(object) && pod::split_name(&object.name).is_some_and(|(s, _)| s == self.0.metadata.name)
    }
}

/// The controller.
pub async fn run(cx: Context) {
    let sets = cx.informers.of::<StatefulSet>();
    let kinds = Kinds {
        owner: resource_of::<StatefulSet>(),
        owners: sets.view_with(|o| Workload::decode(o).map(Set)),
        object: resource_of::<TypedPod>(),
        objects: pods::view(&cx.informers),
    };
    let me = Arc::new(Controller {
        sets,
        pods: Owned::start(&cx, "statefulset", kinds),
        claims: cx.informers.view::<PersistentVolumeClaim, MetaOnly>(),
        claim_objects: cx.informers.of::<PersistentVolumeClaim>(),
        revisions: Revisions::new(&cx.informers),
        cx: cx.clone(),
    });
    let queue = me.pods.queue.clone();
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.sets.get(k) else { return Ok(None) };
        let set: StatefulSet = decode(&object)?;
        let Some(spec) = &set.spec else { return Ok(None) };
        let Some(owner) = self.pods.owners.get(k).filter(|o| o.meta().uid == object.uid()) else { return Ok(None) };
        let pods = self.pods.claim(&owner, |p| !p.is_deleting()).await?;

        let owner = history::Owner {
            reference: pod::owner_reference(&set, true),
            namespace: object.namespace(),
            collisions: set.status.as_ref().and_then(|s| s.collision_count),
        };
        let revisions = self.revisions.of_owner(object.uid())?;
        let update = if object.is_deleting() {
            let Some(last) = revisions.last() else { return Ok(None) };
            last.clone()
        } else {
            match history::sync(&self.cx.client, &owner, &spec.template, &revisions).await? {
                Synced::Current(r) => *r,
                Synced::Collision => {
                    let mut s = set.status.clone().unwrap_or_default();
                    s.collision_count = Some(s.collision_count.unwrap_or(0).saturating_add(1));
                    status::put(&self.cx.client, resource_of::<StatefulSet>(), &object, &s).await?;
                    return Ok(None);
                }
            }
        };
        let current_name = set.status.as_ref().and_then(|s| s.current_revision.clone());
        let current = revisions.iter().find(|r| r.metadata.name == current_name).unwrap_or(&update).clone();
        let snapshot = Snapshot { set: &set, current: &current, update: &update, pods };
        let now = self.cx.clock.now();
        let plan = decide::decide(&snapshot, now);
        // Before a pod goes its claims say whether they go with it.
        self.keep_claims(&set, &snapshot.pods).await?;
        for action in plan.actions {
            self.act(&set, action).await?;
        }
        gauge(&set, &plan.status);
        if set.status.as_ref() != Some(&plan.status) {
            status::put(&self.cx.client, resource_of::<StatefulSet>(), &object, &plan.status).await?;
        }
        let used = |r: &ControllerRevision| {
            let name = r.metadata.name.as_deref().unwrap_or_default();
            [&current, &update].iter().any(|u| u.metadata.name == r.metadata.name)
                || snapshot.pods.iter().any(|p| p.metadata.labels.get(history::HASH_LABEL).is_some_and(|h| h == name))
        };
        if !object.is_deleting() {
            history::truncate(&self.cx.client, &revisions, spec.revision_history_limit.unwrap_or(10), used).await?;
        }
        Ok(plan.again)
    }

    async fn act(&self, set: &StatefulSet, action: Action) -> Result<(), Error> {
        let about = reference_of(set);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let api = self.cx.client.of::<TypedPod>();
        match action {
            Action::Create(new) => {
                let pod = new.metadata.name.clone().unwrap_or_default();
                let ordinal = pod::split_name(&pod).map_or(0, |(_, o)| o);
                if let Err(e) = self.make_claims(set, ordinal).await {
                    self.cx.recorder.warning(
                        &about,
                        "FailedCreate",
                        format!("create Pod {pod} in StatefulSet {name} failed error: {e}"),
                    );
                    return Err(e);
                }
                match api.create(&new).await {
                    Ok(_) => self.cx.recorder.normal(
                        &about,
                        "SuccessfulCreate",
                        format!("create Pod {pod} in StatefulSet {name} successful"),
                    ),
                    // The cache is behind; the pod's event brings us back.
                    Err(e) if e.is_already_exists() || e.is_namespace_terminating() => {}
                    Err(e) => {
                        self.cx.recorder.warning(
                            &about,
                            "FailedCreate",
                            format!("create Pod {pod} in StatefulSet {name} failed error: {e}"),
                        );
                        return Err(e);
                    }
                }
            }
            Action::Delete(pod, why) => {
                let m = &pod.metadata;
                if let Some(why) = why {
                    let (reason, state) = if why == "Failed" {
                        ("RecreatingFailedPod", "failed")
                    } else {
                        ("RecreatingTerminatedPod", "terminated")
                    };
                    self.cx.recorder.warning(
                        &about,
                        reason,
                        format!("StatefulSet {}/{name} is recreating {state} Pod {}", m.namespace, m.name),
                    );
                }
                match api.delete(&m.namespace, &m.name, Some(&m.uid)).await {
                    Ok(()) => self.cx.recorder.normal(
                        &about,
                        "SuccessfulDelete",
                        format!("delete Pod {} in StatefulSet {name} successful", m.name),
                    ),
                    Err(e) if e.is_not_found() => {}
                    Err(e) => {
                        self.cx.recorder.warning(
                            &about,
                            "FailedDelete",
                            format!("delete Pod {} in StatefulSet {name} failed error: {e}", m.name),
                        );
                        return Err(e);
                    }
                }
            }
            Action::Claims(ordinal) => self.make_claims(set, ordinal).await?,
            Action::Label(pod, labels) => {
                let m = &pod.metadata;
                let patch = Patch::merge(&json!({"metadata": {"uid": m.uid, "labels": labels}}))?;
                api.patch(&m.namespace, &m.name, patch).await.unless_gone()?;
            }
        }
        Ok(())
    }

    /// A pod's claims are there before it is.
    async fn make_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        let about = reference_of(set);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let pod = format!("{name}-{ordinal}");
        for claim in pod::claims(set, ordinal) {
            let claim_name = claim.metadata.name.clone().unwrap_or_default();
            let k = key(claim.metadata.namespace.as_deref().unwrap_or_default(), &claim_name);
            if let Some(there) = self.claims.get(&k) {
                if there.metadata.is_deleting() {
                    return Err(Error::Config(format!("pvc {claim_name} is being deleted")));
                }
                continue;
            }
            match self.cx.client.of::<PersistentVolumeClaim>().create(&claim).await {
                Ok(_) => self.cx.recorder.normal(
                    &about,
                    "SuccessfulCreate",
                    format!("create Claim {claim_name} Pod {pod} in StatefulSet {name} success"),
                ),
                Err(e) if e.is_already_exists() => {}
                Err(e) => {
                    self.cx.recorder.warning(
                        &about,
                        "FailedCreate",
                        format!("create Claim {claim_name} for Pod {pod} in StatefulSet {name} failed error: {e}"),
                    );
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Claims are owned by the set, by the pod that goes, or by nobody, as the retention policy says.
    async fn keep_claims(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<(), Error> {
        for pod in pods {
            let Some((_, ordinal)) = pod::split_name(&pod.metadata.name) else { continue };
            let condemned = !pod::range(set).contains(&ordinal);
            for claim in pod::claims(set, ordinal) {
                let k = key(&pod.metadata.namespace, claim.metadata.name.as_deref().unwrap_or_default());
                let Some(there) = self.claims.get(&k) else { continue };
                let want = pod::claim_owner(set, pod, condemned);
                let pod_uid = pod.metadata.uid.as_str();
                let set_uid = set.metadata.uid.as_deref().unwrap_or_default();
                let ours = |uid: &str| uid == pod_uid || uid == set_uid;
                let have: Vec<&str> =
                    there.metadata.owner_references.iter().map(|o| o.uid.as_str()).filter(|u| ours(u)).collect();
                if have == want.iter().map(|o| o.uid.as_str()).collect::<Vec<_>>() {
                    continue;
                }
                let others = there.metadata.owner_references.iter().filter(|o| !ours(&o.uid));
                let owners: Vec<Value> = others.map(|o| json!(o)).chain(want.map(|o| json!(o))).collect();
                let Some(object) = self.claim_objects.get(&k).filter(|o| o.uid() == there.metadata.uid) else {
                    continue;
                };
                let put = |m: &mut serde_json::Map<String, Value>| {
                    drop(m.insert("ownerReferences".into(), owners.into()));
                };
                status::put_metadata(&self.cx.client, resource_of::<PersistentVolumeClaim>(), &object, put)
                    .await
                    .unless_gone()?;
            }
        }
        Ok(())
    }
}

/// Labels to set on a pod.
type Labels = BTreeMap<String, String>;

//! Deployment: rolls a template out by a ReplicaSet for each version of it.

mod conditions;
mod decide;
mod replicasets;
mod revision;
mod scaling;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use pintle_api::selector::Selector;
use pintle_client::informers::{BY_CONTROLLER, View};
use pintle_client::meta::{MetaOnly, key};
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Change, Error, Informer, Key};

use crate::context::{Context, Outcome, listen};
use crate::support::owned::{Kinds, Owned, Workload};
use crate::support::ownership::controller_of;
use crate::support::pods::{self, Pod};

use decide::{Plan, Snapshot, Write};

const WORKERS: usize = 5;

struct Controller {
    cx: Context,
    deployments: Informer,
    replica_sets: Informer,
    sets: Arc<Owned<Workload, MetaOnly>>,
    pods: View<Pod>,
}

/// The controller.
pub async fn run(cx: Context) {
    let deployments = cx.informers.of::<Deployment>();
    let kinds = Kinds {
        owner: resource_of::<Deployment>(),
        owners: Workload::view(&deployments),
        object: resource_of::<ReplicaSet>(),
        objects: cx.informers.view::<ReplicaSet, MetaOnly>(),
    };
    let me = Arc::new(Controller {
        deployments,
        replica_sets: cx.informers.of::<ReplicaSet>(),
        sets: Owned::start(&cx, "deployment", kinds),
        pods: pods::view(&cx.informers),
        cx: cx.clone(),
    });
    listen(&me.pods, &me, |me, change| me.pod_changed(change));
    let queue = me.sets.queue.clone();
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

fn selector(d: &Deployment) -> Option<Selector> {
    d.spec.as_ref().and_then(|s| Selector::from_object(Some(&s.selector)).ok())
}

impl Controller {
    /// A `Recreate` rollout waits until the last old pod is gone.
    fn pod_changed(&self, change: &Change<Pod>) {
        let ended = change.now().is_none_or(|p| p.is_terminal());
        let pod = &change.last().metadata;
        let Some(rs) = controller_of(pod, resource_of::<ReplicaSet>()).filter(|_| ended) else { return };
        let Some(rs) = self.sets.objects.get(&key(&pod.namespace, &rs.name)) else { return };
        if let Some(d) = controller_of(&rs.metadata, resource_of::<Deployment>()) {
            let k = key(&pod.namespace, &d.name);
            let recreates = self
                .deployments
                .get(&k)
                .is_some_and(|o| o.at(&["spec", "strategy", "type"]).is_some_and(|t| t == b"\"Recreate\""));
            if recreates {
                self.sets.queue.add(k.into());
            }
        }
    }

    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.deployments.get(k) else { return Ok(None) };
        let mut d: Deployment = decode(&object)?;
        let Some(selector) = selector(&d) else {
            tracing::error!(key = %k, "the selector is invalid");
            return Ok(None);
        };
        d.status.get_or_insert_default();
        if selector.is_everything() {
            self.cx.recorder.warning(
                &reference_of(&d),
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            let seen = d.metadata.generation;
            if d.status.as_ref().is_some_and(|s| s.observed_generation < seen) {
                d.status.get_or_insert_default().observed_generation = seen;
                self.cx.client.of::<Deployment>().update_status(&d).await?;
            }
            return Ok(None);
        }
        // The owner as it was queued and the object decided on are the same, or an event brings us back.
        let Some(owner) = self.sets.owners.get(k).filter(|o| o.metadata.uid == object.uid()) else { return Ok(None) };
        let claimed = self.sets.claim(&owner, |_| true).await?;
        let replica_sets: Vec<ReplicaSet> = claimed
            .iter()
            .filter_map(|m| self.replica_sets.get(&m.metadata.key()))
            .map(|o| decode(&o))
            .collect::<Result<_, _>>()?;
        let pods = replica_sets
            .iter()
            .flat_map(|rs| self.pods.by_index(BY_CONTROLLER, rs.metadata.uid.as_deref().unwrap_or_default()))
            .collect();
        let snapshot = Snapshot { deployment: d, replica_sets, pods };
        let plan = decide::decide(&snapshot, self.cx.clock.now());
        self.apply(snapshot, plan).await
    }

    async fn apply(&self, snapshot: Snapshot, plan: Plan) -> Outcome {
        let mut d = snapshot.deployment;
        let about = reference_of(&d);
        let sets = self.cx.client.of::<ReplicaSet>();
        for write in plan.writes {
            match write {
                Write::Create(rs) => match sets.create(&rs).await {
                    Ok(_) => {}
                    Err(e) => return self.create_failed(d, *rs, e).await,
                },
                Write::Update(rs) => drop(sets.update(&rs).await?),
                Write::Delete(rs) => {
                    let m = &rs.metadata;
                    let gone = sets
                        .delete(
                            m.namespace.as_deref().unwrap_or_default(),
                            m.name.as_deref().unwrap_or_default(),
                            m.uid.as_deref(),
                        )
                        .await;
                    if let Err(e) = gone
                        && !e.is_not_found()
                    {
                        return Err(e);
                    }
                }
                Write::Deployment(new) => {
                    // The rest was decided on what this replaces; the event of the write brings us back.
                    self.cx.client.of::<Deployment>().update(&new).await?;
                    for (reason, message, normal) in plan.events {
                        self.say(&about, normal, reason, message);
                    }
                    return Ok(None);
                }
                Write::Event(message) => self.cx.recorder.normal(&about, "ScalingReplicaSet", message),
            }
        }
        for (reason, message, normal) in plan.events {
            self.say(&about, normal, reason, message);
        }
        if let Some(status) = plan.status {
            d.status = Some(status);
            d.metadata.annotations = plan.annotations.or(d.metadata.annotations);
            self.cx.client.of::<Deployment>().update_status(&d).await?;
        }
        Ok(plan.again)
    }

    fn say(&self, about: &k8s_openapi::api::core::v1::ObjectReference, normal: bool, reason: &str, message: String) {
        if normal {
            self.cx.recorder.normal(about, reason, message);
        } else {
            self.cx.recorder.warning(about, reason, message);
        }
    }

    /// The ReplicaSet could not be made. If one of its name is there that is not ours, its hash collided: the next
    /// try has another one.
    async fn create_failed(&self, mut d: Deployment, wanted: ReplicaSet, error: Error) -> Outcome {
        let namespace = d.metadata.namespace.clone().unwrap_or_default();
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let now = self.cx.clock.now();
        let mut status = d.status.clone().unwrap_or_default();
        if error.is_already_exists() {
            let there: ReplicaSet = self.cx.client.of::<ReplicaSet>().get(&namespace, &name).await?;
            let ours = there
                .metadata
                .owner_references
                .iter()
                .flatten()
                .any(|o| o.controller == Some(true) && Some(&o.uid) == d.metadata.uid.as_ref());
            if ours && replicasets::same_template(&there, &d) {
                // The cache is behind; its event brings us back.
                return Ok(None);
            }
            status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        } else if error.is_namespace_terminating() {
            return Err(error);
        } else {
            let message = format!("Failed to create new replica set {name:?}: {error}");
            self.cx.recorder.warning(&reference_of(&d), conditions::CREATE_ERROR, message.clone());
            if conditions::has_deadline(&d) {
                conditions::set(
                    &mut status,
                    conditions::new("Progressing", "False", conditions::CREATE_ERROR, message, now),
                );
            }
        }
        d.status = Some(status);
        self.cx.client.of::<Deployment>().update_status(&d).await?;
        Err(error)
    }
}

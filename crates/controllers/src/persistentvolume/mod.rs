//! Persistent volumes: claims and volumes are bound to each other, and released volumes are reclaimed.
//!
//! A binding is four writes (each side's spec and status), any of which may be the last before a crash; what is there
//! says how to go on.

mod decide;
#[cfg(test)]
mod decide_tests;
mod matching;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use parking_lot::Mutex;
use pintle_client::informers::View;
use pintle_client::meta::split_key;
use pintle_client::recorder::reference_of;
use pintle_client::typed::{Kind, decode};
use pintle_client::{Change, Error, Informer, Key, WorkQueue};

use crate::context::{Context, Outcome, listen};
use crate::support::pods::{self, BY_CLAIM, Pod};

use decide::{ClaimPlan, VolumePlan, World};

/// One: two claims must not be given the same volume.
const WORKERS: usize = 1;
const CLAIM: &str = "claim:";
const VOLUME: &str = "volume:";

/// Objects as last seen or written, whichever is newer: a decision must see the writes before it.
struct Known<T>(Mutex<BTreeMap<String, T>>);

impl<T: Kind + Clone> Known<T> {
    fn version(object: &T) -> u64 {
        object.metadata().resource_version.as_ref().and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    fn see(&self, key: &str, object: Option<&T>) {
        let mut all = self.0.lock();
        match object {
            None => drop(all.remove(key)),
            Some(new) => {
                let uid = |o: &T| o.metadata().uid.clone();
                if all.get(key).is_none_or(|old| Self::version(old) < Self::version(new) || uid(old) != uid(new)) {
                    all.insert(key.to_owned(), new.clone());
                }
            }
        }
    }

    fn get(&self, key: &str) -> Option<T> {
        self.0.lock().get(key).cloned()
    }
}

struct Controller {
    cx: Context,
    claims: Known<PersistentVolumeClaim>,
    volumes: Known<PersistentVolume>,
    classes: Informer,
    pods: View<Pod>,
    queue: WorkQueue<Key>,
}

fn claim_key(key: &str) -> Key {
    format!("{CLAIM}{key}").into()
}

fn volume_key(name: &str) -> Key {
    format!("{VOLUME}{name}").into()
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        claims: Known(Mutex::default()),
        volumes: Known(Mutex::default()),
        classes: cx.informers.of::<StorageClass>(),
        pods: pods::view(&cx.informers),
        queue: cx.queue("claims"),
        cx: cx.clone(),
    });
    listen(&cx.informers.of::<PersistentVolumeClaim>(), &me, |me, change| me.claim_changed(change));
    listen(&cx.informers.of::<PersistentVolume>(), &me, |me, change| me.volume_changed(change));
    listen(&me.classes, &me, |me, change| {
        if change.now().is_some() {
            me.retry_pending();
        }
    });
    listen(&me.pods, &me, |me, change| {
        // Claims that wait for their first pod say which one they wait for.
        let bound = |p: &Pod| !p.spec.node_name.is_empty();
        if change.before().is_none() || change.now().is_none_or(|p| bound(p)) {
            for claim in change.last().claims() {
                if me.claims.get(&claim).is_some_and(|c| !is_bound(&c)) {
                    me.queue.add(claim_key(&claim));
                }
            }
        }
    });
    let queue = me.queue.clone();
    cx.work(me, &queue, WORKERS, |me, key| async move {
        if let Some(claim) = key.strip_prefix(CLAIM) {
            me.sync_claim(claim).await
        } else if let Some(volume) = key.strip_prefix(VOLUME) {
            me.sync_volume(volume).await
        } else {
            Ok(None)
        }
    })
    .await;
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    matching::annotation(&claim.metadata, decide::BIND_COMPLETED).is_some()
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

impl Controller {
    fn claim_changed(&self, change: &Change<pintle_api::Object>) {
        let Ok(last) = decode::<PersistentVolumeClaim>(change.last()) else { return };
        self.claims.see(change.key(), change.now().is_some().then_some(&last));
        self.queue.add(claim_key(change.key()));
        if change.now().is_none()
            && let Some(volume) = last.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|v| !v.is_empty())
        {
            self.queue.add(volume_key(volume));
        }
    }

    fn volume_changed(&self, change: &Change<pintle_api::Object>) {
        let Ok(last) = decode::<PersistentVolume>(change.last()) else { return };
        self.volumes.see(change.key(), change.now().is_some().then_some(&last));
        self.queue.add(volume_key(change.key()));
        match last.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
            Some(claim) => self.queue.add(claim_key(&decide::key_of(claim))),
            None if change.now().is_some() && phase(&last) == "Available" => self.retry_pending(),
            None => {}
        }
    }

    /// Claims without a volume may get one now.
    fn retry_pending(&self) {
        let pending: Vec<Key> =
            self.claims.0.lock().iter().filter(|(_, c)| !is_bound(c)).map(|(k, _)| claim_key(k)).collect();
        pending.into_iter().for_each(|k| self.queue.add(k));
    }

    async fn sync_claim(&self, key: &str) -> Outcome {
        let Some(claim) = self.claims.get(key) else { return Ok(None) };
        let classes: Vec<StorageClass> = self.classes.list().iter().map(|o| decode(o)).collect::<Result<_, Error>>()?;
        let waiting = self
            .pods
            .by_index(BY_CLAIM, key)
            .iter()
            .filter(|p| p.spec.node_name.is_empty() && !p.is_terminal())
            .map(|p| p.metadata.name.clone())
            .collect();
        let plan = {
            let volumes = self.volumes.0.lock();
            decide::claim(&claim, &World { volumes: &volumes, classes: &classes, waiting })
        };
        let about = reference_of(&claim);
        let say = |(normal, reason, message): decide::Say| {
            if normal {
                self.cx.recorder.normal(&about, reason, message);
            } else {
                self.cx.recorder.warning(&about, reason, message);
            }
        };
        match plan {
            ClaimPlan::Bind(volume) => self.bind(&volume, claim).await?,
            ClaimPlan::Pending(event) => {
                event.into_iter().for_each(say);
                self.set_claim_phase(&claim, "Pending", None).await?;
            }
            ClaimPlan::Lost(reason, message) => {
                if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
                    say((false, reason, message.into()));
                }
                self.set_claim_phase(&claim, "Lost", None).await?;
            }
            ClaimPlan::SetClass(class) => {
                let mut new = claim.clone();
                new.spec.get_or_insert_default().storage_class_name = Some(class);
                self.put_claim(key, self.cx.client.of().update(&new).await)?;
                self.queue.add(claim_key(key));
            }
            ClaimPlan::Provision(provisioner) => {
                if let Some(new) = decide::set_provisioner(&claim, &provisioner) {
                    self.put_claim(key, self.cx.client.of().update(&new).await)?;
                }
                say((
                    true,
                    "ExternalProvisioning",
                    format!(
                        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
                    ),
                ));
            }
            ClaimPlan::Tell(event) => say(event),
            ClaimPlan::Fail(why) => return Err(Error::Config(why)),
        }
        Ok(None)
    }

    fn put_claim(
        &self,
        key: &str,
        written: Result<PersistentVolumeClaim, Error>,
    ) -> Result<PersistentVolumeClaim, Error> {
        let claim = written?;
        self.claims.see(key, Some(&claim));
        Ok(claim)
    }

    fn put_volume(&self, written: Result<PersistentVolume, Error>) -> Result<PersistentVolume, Error> {
        let volume = written?;
        self.volumes.see(volume.metadata.name.as_deref().unwrap_or_default(), Some(&volume));
        Ok(volume)
    }

    async fn set_claim_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        if let Some(new) = decide::claim_phase(claim, phase, volume) {
            let m = &claim.metadata;
            let key = pintle_client::meta::key(
                m.namespace.as_deref().unwrap_or_default(),
                m.name.as_deref().unwrap_or_default(),
            );
            self.put_claim(&key, self.cx.client.of().update_status(&new).await)?;
        }
        Ok(())
    }

    async fn set_phase(&self, volume: PersistentVolume, phase: &str, message: &str) -> Result<PersistentVolume, Error> {
        let status = volume.status.as_ref();
        if status.and_then(|s| s.phase.as_deref()) == Some(phase)
            && status.and_then(|s| s.message.as_deref()).unwrap_or_default() == message
        {
            return Ok(volume);
        }
        let mut new = volume;
        let status = new.status.get_or_insert_default();
        status.phase = Some(phase.into());
        status.message = (!message.is_empty()).then(|| message.to_owned());
        self.put_volume(self.cx.client.of().update_status(&new).await)
    }

    /// Binds both sides, or finishes that.
    async fn bind(&self, name: &str, claim: PersistentVolumeClaim) -> Result<(), Error> {
        let Some(mut volume) = self.volumes.get(name) else { return Ok(()) };
        if let Some(new) = decide::bind_volume(&volume, &claim) {
            volume = self.put_volume(self.cx.client.of().update(&new).await)?;
        }
        let volume = self.set_phase(volume, "Bound", "").await?;
        let m = &claim.metadata;
        let key =
            pintle_client::meta::key(m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default());
        let claim = match decide::bind_claim(&claim, &volume) {
            Some(new) => self.put_claim(&key, self.cx.client.of().update(&new).await)?,
            None => claim,
        };
        self.set_claim_phase(&claim, "Bound", Some(&volume)).await
    }

    async fn sync_volume(&self, name: &str) -> Outcome {
        let Some(volume) = self.volumes.get(name) else { return Ok(None) };
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.clone());
        let mut claim = reference.as_ref().and_then(|r| self.claims.get(&decide::key_of(r)));
        let named = reference.as_ref().filter(|r| r.uid.as_ref().is_some_and(|u| !u.is_empty()));
        if let Some(r) = named.filter(|r| claim.as_ref().is_none_or(|c| c.metadata.uid != r.uid))
            && !matches!(phase(&volume), "Released" | "Failed")
        {
            // The cache may be behind whoever bound it; nothing may be reclaimed for that.
            let key = decide::key_of(r);
            let (namespace, claim_name) = split_key(&key);
            claim = self.cx.client.of::<PersistentVolumeClaim>().get_opt(namespace, claim_name).await?;
        }
        match decide::volume(&volume, claim.as_ref()) {
            VolumePlan::Phase(phase) => drop(self.set_phase(volume, phase, "").await?),
            VolumePlan::Claim(key) => self.queue.add(claim_key(&key)),
            VolumePlan::Mismatch(key) => {
                let claim_name = split_key(&key).1.to_owned();
                self.cx.recorder.warning(
                    &reference_of(&volume),
                    "VolumeMismatch",
                    format!("Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim_name:?} due to incompatible volumeMode."),
                );
                if let Some(claim) = claim {
                    self.cx.recorder.warning(
                        &reference_of(&claim),
                        "VolumeMismatch",
                        format!("Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim {claim_name:?} due to incompatible volumeMode."),
                    );
                }
            }
            VolumePlan::Reclaim => {
                let volume = if matches!(phase(&volume), "Released" | "Failed") {
                    volume
                } else {
                    self.set_phase(volume, "Released", "").await?
                };
                if let Some((reason, message)) = decide::reclaim_failure(&volume) {
                    if phase(&volume) != "Failed" {
                        self.cx.recorder.warning(&reference_of(&volume), reason, message.clone());
                    }
                    self.set_phase(volume, "Failed", &message).await?;
                }
            }
            VolumePlan::Unbind => {
                let new = decide::unbind_volume(&volume);
                let volume = self.put_volume(self.cx.client.of().update(&new).await)?;
                self.set_phase(volume, "Available", "").await?;
            }
        }
        Ok(None)
    }
}

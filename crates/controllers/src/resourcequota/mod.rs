//! Resource quota: what a namespace uses of what it may. Admission counts what is added; this counts anew when
//! something goes, or the quota changes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as TypedQuantity;
use parking_lot::Mutex;
use pintle_api::Object;
use pintle_api::quantity::Quantity;
use pintle_api::quota;
use pintle_api::resources::{self, Resource};
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Change, Error, Informer, Key, WorkQueue};
use serde_json::Value;

use crate::context::{Context, Outcome};
use crate::support::status;

const WORKERS: usize = 5;
/// How often a quota is counted anew though nothing told of a change (`--resource-quota-sync-period`): others may have
/// written its status.
const RESYNC: Duration = Duration::from_secs(300);
/// Kinds with names of their own in quotas, which every quota may name.
const CORE: [&str; 7] =
    ["pods", "services", "persistentvolumeclaims", "replicationcontrollers", "secrets", "configmaps", "resourcequotas"];

struct Controller {
    cx: Context,
    quotas: Informer,
    /// Resources whose objects are followed.
    followed: Mutex<HashSet<(&'static str, &'static str)>>,
    queue: WorkQueue<Key>,
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        quotas: cx.informers.of::<ResourceQuota>(),
        followed: Mutex::default(),
        queue: cx.queue("resourcequota_primary"),
        cx,
    });
    let queue = me.queue.clone();
    me.quotas.on_change(move |change| {
        // Its status alone is ours, or admission's.
        let hard = |o: Option<&Arc<Object>>| o.and_then(|o| o.at(&["spec"]).map(<[u8]>::to_vec));
        let unset = change.now().is_some_and(|o| o.at(&["status", "hard"]).is_none());
        if unset || hard(change.before()) != hard(change.now()) {
            queue.add(change.key().clone());
        }
    });
    let (cx, queue) = (me.cx.clone(), me.queue.clone());
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

/// The resources that count for a key of a quota.
fn counted(key: &str) -> Option<&'static Resource> {
    let of = |resource: &str, group: &str| {
        resources::all().iter().find(|r| r.on && r.resource == resource && r.group == group && r.has_verb("list"))
    };
    if let Some(rest) = key.strip_prefix("count/") {
        let (resource, group) = rest.split_once('.').unwrap_or((rest, ""));
        return of(resource, group);
    }
    if CORE.contains(&key) {
        return of(key, "");
    }
    if key.starts_with("services.") {
        return of("services", "");
    }
    if key == "requests.storage" || key.contains(".storageclass.storage.k8s.io/") {
        return of("persistentvolumeclaims", "");
    }
    of("pods", "")
}

/// Whether a change can free something of a quota, or take it without admission having counted it.
fn matters(resource: &Resource, change: &Change<Object>) -> bool {
    match change {
        Change::Added(..) => false,
        Change::Deleted(..) => true,
        Change::Modified(_, old, new) => {
            let part = |o: &Object, path: &[&str]| o.at(path).map(<[u8]>::to_vec);
            match resource.resource {
                "pods" => {
                    part(old, &["status", "phase"]) != part(new, &["status", "phase"])
                        || part(old, &["spec", "activeDeadlineSeconds"])
                            != part(new, &["spec", "activeDeadlineSeconds"])
                }
                "services" | "persistentvolumeclaims" => part(old, &["spec"]) != part(new, &["spec"]),
                _ => false,
            }
        }
    }
}

impl Controller {
    async fn follow(self: &Arc<Self>, resource: &'static Resource) -> Informer {
        let informer = self.cx.informers.get(resource);
        if self.followed.lock().insert((resource.group, resource.resource)) {
            let weak = Arc::downgrade(self);
            informer.on_change(move |change| {
                if let Some(me) = weak.upgrade()
                    && matters(resource, change)
                {
                    me.quotas
                        .namespace_entries(change.last().namespace())
                        .into_iter()
                        .for_each(|(k, _)| me.queue.add(k));
                }
            });
        }
        informer.synced().await;
        informer
    }

    async fn sync(self: &Arc<Self>, k: &Key) -> Outcome {
        let Some(object) = self.quotas.get(k) else { return Ok(None) };
        let typed: ResourceQuota = decode(&object)?;
        let value: Value = object.view().map_err(|e| Error::decode("quota", e))?;
        let hard = typed.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
        let mut used: quota::Usage = hard.keys().map(|k| (k.clone(), Quantity::default())).collect();
        let mut seen = Vec::new();
        for resource in hard.keys().filter_map(|k| counted(k)) {
            if seen.contains(&(resource.group, resource.resource)) {
                continue;
            }
            seen.push((resource.group, resource.resource));
            let informer = self.follow(resource).await;
            let is_pod = resource.resource == "pods" && resource.group.is_empty();
            for counted in informer.namespace(object.namespace()) {
                let item: Value = counted.view().map_err(|e| Error::decode("object", e))?;
                if !quota::covers(&value, &item, is_pod) {
                    continue;
                }
                for (key, amount) in quota::usage(resource.resource, resource.group, &item) {
                    if hard.contains_key(&key) {
                        quota::add(&mut used, &key, &amount);
                    }
                }
            }
        }
        let used: BTreeMap<String, TypedQuantity> =
            used.into_iter().map(|(k, q)| (k, TypedQuantity(q.to_string()))).collect();
        let new =
            ResourceQuotaStatus { hard: (!hard.is_empty()).then_some(hard), used: (!used.is_empty()).then_some(used) };
        if typed.status.as_ref() != Some(&new) {
            status::put(&self.cx.client, resource_of::<ResourceQuota>(), &object, &new).await?;
        }
        Ok(Some(RESYNC))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_resources() {
        for (key, want) in [
            ("pods", "pods"),
            ("requests.cpu", "pods"),
            ("limits.memory", "pods"),
            ("services.nodeports", "services"),
            ("count/deployments.apps", "deployments.apps"),
            ("requests.storage", "persistentvolumeclaims"),
            ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims"),
            ("secrets", "secrets"),
        ] {
            assert_eq!(counted(key).map(Resource::group_resource).as_deref(), Some(want), "{key}");
        }
        assert!(counted("count/widgets.example.com").is_none());
    }
}

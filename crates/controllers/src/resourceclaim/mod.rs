//! Resource claims: those that pods have by a template are made for them, and what nobody uses any more is freed.

mod decide;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod as TypedPod, PodResourceClaim, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pintle_api::metrics::{Family, Kind, Stability};
use pintle_client::informers::{BY_CONTROLLER, View};
use pintle_client::meta::{MetaOnly, key, split_key};
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key, Patch, UnlessGone, WorkQueue};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::support::status;

use decide::{FINALIZER, POD_CLAIM, Plan};

const WORKERS: usize = 10;
const POD: &str = "pod:";
const CLAIM: &str = "claim:";

static CREATES: Family = Family::new(
    "resourceclaim_controller_creates_total",
    Kind::Counter,
    Stability::Alpha,
    &["status", "admin_access"],
    "Number of ResourceClaims creation requests, categorized by creation status and admin access",
);

struct Controller {
    cx: Context,
    pods: Informer,
    claims: Informer,
    claim_metas: View<MetaOnly>,
    templates: Informer,
    queue: WorkQueue<Key>,
}

fn claim_key(namespace: &str, name: &str) -> Key {
    format!("{CLAIM}{}", key(namespace, name)).into()
}

/// The controller.
pub async fn run(cx: Context) {
    let me = Arc::new(Controller {
        pods: cx.informers.of::<TypedPod>(),
        claims: cx.informers.of::<ResourceClaim>(),
        claim_metas: cx.informers.view::<ResourceClaim, MetaOnly>(),
        templates: cx.informers.of::<ResourceClaimTemplate>(),
        queue: cx.queue("resource_claim"),
        cx: cx.clone(),
    });
    listen(&me.pods, &me, |me, change| {
        // Most pods have no claims and cost nothing here.
        if change.last().at(&["spec", "resourceClaims"]).is_none() {
            return;
        }
        me.queue.add(format!("{POD}{}", change.key()).into());
        if let Ok(pod) = decode::<TypedPod>(change.last())
            && (change.now().is_none() || decide::is_done(&pod))
        {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            decide::claims_of(&pod).into_iter().for_each(|(_, name)| me.queue.add(claim_key(namespace, &name)));
        }
    });
    listen(&me.claims, &me, |me, change| {
        me.queue.add(format!("{CLAIM}{}", change.key()).into());
        // A claim that is gone is made anew for the pod that has it.
        if change.now().is_none()
            && let Ok(claim) = decode::<ResourceClaim>(change.last())
            && let Some(pod) = decide::pod_of(&claim)
        {
            me.queue.add(format!("{POD}{}", key(change.last().namespace(), pod)).into());
        }
    });
    listen(&me.templates, &me, |me, change| {
        if change.now().is_none() {
            return;
        }
        for (k, pod) in me.pods.namespace_entries(change.last().namespace()) {
            if pod.at(&["spec", "resourceClaims"]).is_some() {
                me.queue.add(format!("{POD}{k}").into());
            }
        }
    });
    let queue = me.queue.clone();
    cx.work(me, &queue, WORKERS, |me, key| async move {
        if let Some(pod) = key.strip_prefix(POD) {
            me.sync_pod(pod).await
        } else if let Some(claim) = key.strip_prefix(CLAIM) {
            me.sync_claim(claim).await
        } else {
            Ok(None)
        }
    })
    .await;
}

impl Controller {
    async fn sync_pod(&self, k: &str) -> Outcome {
        let Some(object) = self.pods.get(k) else { return Ok(None) };
        let pod: TypedPod = decode(&object)?;
        if pod.metadata.deletion_timestamp.is_some() || decide::is_done(&pod) {
            return Ok(None);
        }
        let mut statuses = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.clone()).unwrap_or_default();
        let before = statuses.clone();
        for claim in pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()) {
            if let Some(template) = &claim.resource_claim_template_name {
                match self.made(&pod, claim, template).await {
                    Ok(name) => set(&mut statuses, &claim.name, name),
                    Err(error) => {
                        let message = format!("PodResourceClaim {}: {error}", claim.name);
                        self.cx.recorder.warning(&reference_of(&pod), "FailedResourceClaimCreation", message);
                        return Err(error);
                    }
                }
            }
        }
        if statuses != before {
            let patch = Patch::strategic(
                &json!({"metadata": {"uid": object.uid()}, "status": {"resourceClaimStatuses": statuses}}),
            )?;
            self.cx
                .client
                .of::<TypedPod>()
                .patch_status(object.namespace(), object.name(), patch)
                .await
                .unless_gone()?;
        }
        self.reserve(&pod).await?;
        Ok(None)
    }

    /// The claim made for a pod by a template; `None` when the template is for none.
    async fn made(&self, pod: &TypedPod, claim: &PodResourceClaim, template: &str) -> Result<String, Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        for meta in self.claim_metas.by_index(BY_CONTROLLER, uid) {
            if meta.metadata.annotations.get(POD_CLAIM) == Some(&claim.name) {
                return Ok(meta.metadata.name.clone());
            }
        }
        // Made before, and not yet seen.
        let status = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
        let named = status.into_iter().find(|s| s.name == claim.name).and_then(|s| s.resource_claim_name.clone());
        if let Some(name) = named
            && self.cx.client.of::<ResourceClaim>().get_opt(namespace, &name).await?.is_some()
        {
            return Ok(name);
        }
        let found = self.templates.get(&key(namespace, template));
        let Some(found) = found else {
            return Err(Error::Config(format!(
                "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found"
            )));
        };
        let template: ResourceClaimTemplate = decode(&found)?;
        let m = template.spec.metadata.unwrap_or_default();
        let mut annotations = m.annotations.unwrap_or_default();
        annotations.insert(POD_CLAIM.into(), claim.name.clone());
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let new = ResourceClaim {
            metadata: ObjectMeta {
                generate_name: Some(decide::name_prefix(&pod_name, &claim.name)),
                namespace: Some(namespace.into()),
                labels: m.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Pod".into(),
                    name: pod_name,
                    uid: uid.into(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            },
            spec: template.spec.spec,
            status: None,
        };
        let admin = new
            .spec
            .devices
            .iter()
            .flat_map(|d| d.requests.iter().flatten())
            .any(|r| r.exactly.as_ref().is_some_and(|e| e.admin_access == Some(true)));
        let admin = if admin { "true" } else { "false" };
        match self.cx.client.of::<ResourceClaim>().create(&new).await {
            Ok(made) => {
                CREATES.with(&["success", admin]).inc();
                Ok(made.metadata.name.unwrap_or_default())
            }
            Err(e) => {
                CREATES.with(&["failure", admin]).inc();
                Err(Error::decode("create ResourceClaim", e))
            }
        }
    }

    /// A pod that came to its node without a scheduler has its allocated claims reserved for it here.
    async fn reserve(&self, pod: &TypedPod) -> Result<(), Error> {
        if pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_none_or(str::is_empty) {
            return Ok(());
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let me = ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".into(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        };
        for (_, name) in decide::claims_of(pod) {
            let Some(object) = self.claims.get(&key(namespace, &name)) else { continue };
            let claim: ResourceClaim = decode(&object)?;
            let mut new = claim.status.unwrap_or_default();
            let reserved = new.reserved_for.get_or_insert_default();
            if new.allocation.is_none() || reserved.iter().any(|r| r.uid == me.uid) {
                continue;
            }
            reserved.push(me.clone());
            status::put(&self.cx.client, resource_of::<ResourceClaim>(), &object, &new).await?;
        }
        Ok(())
    }

    async fn sync_claim(&self, k: &str) -> Outcome {
        let Some(object) = self.claims.get(k) else { return Ok(None) };
        let claim: ResourceClaim = decode(&object)?;
        let namespace = split_key(k).0;
        let mut users = Vec::new();
        for r in claim.status.iter().flat_map(|s| s.reserved_for.iter().flatten()) {
            if r.resource != "pods" || r.api_group.as_ref().is_some_and(|g| !g.is_empty()) {
                return Err(Error::Config(format!("unsupported consumer of a ResourceClaim: {}", r.resource)));
            }
            if self.uses(namespace, r).await? {
                users.push(r.clone());
            }
        }
        let owner = match decide::pod_of(&claim) {
            Some(name) => self.pods.get(&key(namespace, name)).map(|o| decode::<TypedPod>(&o)).transpose()?,
            None => None,
        };
        match decide::claim(&claim, users, owner.as_ref()) {
            Plan::Nothing => {}
            Plan::Status(new) => {
                status::put(&self.cx.client, resource_of::<ResourceClaim>(), &object, &*new).await?;
            }
            Plan::RemoveFinalizer => {
                let rest: Vec<&String> =
                    claim.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
                status::put_metadata(&self.cx.client, resource_of::<ResourceClaim>(), &object, |m| {
                    drop(m.insert("finalizers".into(), json!(rest)));
                })
                .await?;
            }
            Plan::Delete => {
                self.cx
                    .client
                    .of::<ResourceClaim>()
                    .delete(namespace, object.name(), Some(object.uid()))
                    .await
                    .unless_gone()?;
            }
        }
        Ok(None)
    }

    /// Whether a pod still uses what is reserved for it.
    async fn uses(&self, namespace: &str, r: &ResourceClaimConsumerReference) -> Result<bool, Error> {
        let cached = self.pods.get(&key(namespace, &r.name)).filter(|o| o.uid() == r.uid);
        if let Some(object) = cached {
            return Ok(!decide::is_done(&decode(&object)?));
        }
        // The cache may be behind: nothing that is in use may be freed.
        let fresh = self.cx.client.of::<TypedPod>().get_opt(namespace, &r.name).await?;
        Ok(fresh.is_some_and(|p| p.metadata.uid.as_deref() == Some(&r.uid) && !decide::is_done(&p)))
    }
}

fn set(statuses: &mut Vec<PodResourceClaimStatus>, name: &str, claim: String) {
    let new = PodResourceClaimStatus { name: name.into(), resource_claim_name: Some(claim) };
    match statuses.iter_mut().find(|s| s.name == name) {
        Some(s) => *s = new,
        None => statuses.push(new),
    }
}

//! Endpoints: the older form of where a Service's pods answer.

mod decide;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service as TypedService};
use pintle_client::informers::View;
use pintle_client::recorder::reference;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Change, Informer, Key, UnlessGone};

use crate::context::{Context, Outcome};
use crate::support::pods;
use crate::support::services::{self, Members, Service};

const WORKERS: usize = 5;

struct Controller {
    cx: Context,
    services: View<Service>,
    members: Arc<Members>,
    endpoints: Informer,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("endpoint");
    let me = Arc::new(Controller {
        services: services::view(&cx.informers),
        members: Members::shared(&cx.informers),
        endpoints: cx.informers.of::<Endpoints>(),
        cx: cx.clone(),
    });
    let q = queue.clone();
    me.services.on_change(move |change| q.add(change.key().clone()));
    let (q, services) = (queue.clone(), me.services.clone());
    pods::view(&cx.informers)
        .on_change(move |change| services::of_pod(change, &services).into_iter().for_each(|k| q.add(k)));
    let (q, services) = (queue.clone(), me.services.clone());
    me.endpoints.on_change(move |change| {
        // What others do to ours; what nobody has a Service for is left over from one that is gone.
        let removed = matches!(change, Change::Deleted(..) | Change::Modified(..));
        let ours = change.last().label(decide::MANAGED_BY) == Some(decide::MANAGER);
        if (removed && services.get(change.key()).is_some_and(|s| s.has_selector()))
            || (ours && services.get(change.key()).is_none())
        {
            q.add(change.key().clone());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let api = self.cx.client.of::<Endpoints>();
        let there: Option<Endpoints> = self.endpoints.get(k).map(|o| decode(&o)).transpose()?;
        let Some(service) = self.services.get(k) else {
            // Endpoints have no owner: they go with their Service by name, if this controller made them.
            let ours = |e: &Endpoints| {
                e.metadata
                    .labels
                    .as_ref()
                    .is_some_and(|l| l.get(decide::MANAGED_BY).is_some_and(|v| v == decide::MANAGER))
            };
            if let Some(e) = there.filter(ours) {
                let (namespace, name) = pintle_client::meta::split_key(k);
                return api.delete(namespace, name, e.metadata.uid.as_deref()).await.unless_gone().map(|_| None);
            }
            return Ok(None);
        };
        if !service.has_selector() || service.spec.kind == "ExternalName" {
            return Ok(None);
        }
        let subsets = decide::subsets(&service, &self.members.of(&service));
        let Some(new) = decide::endpoints(&service, there.clone(), subsets) else { return Ok(None) };
        let written = if there.is_none() { api.create(&new).await } else { api.update(&new).await };
        match written {
            Ok(_) => Ok(None),
            Err(e) if e.is_namespace_terminating() => Ok(None),
            Err(e) => {
                let (reason, verb) = if there.is_none() {
                    ("FailedToCreateEndpoint", "create")
                } else {
                    ("FailedToUpdateEndpoint", "update")
                };
                let about = reference(resource_of::<TypedService>(), &service.metadata);
                self.cx.recorder.warning(&about, reason, format!("Failed to {verb} endpoint {k}: {e}"));
                Err(e)
            }
        }
    }
}

//! `APIService` objects: one for each group and version that is served here, and what can be said of others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use http::Response;
use pintle_api::Status;
use pintle_api::object::{EventType, Object, WatchEvent};
use pintle_api::service::Body;
use serde_json::{Value, json};

use crate::discovery::{priority, version_priority};
use crate::http::context::Ctx;
use crate::http::respond;
use crate::registry::create::Write;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::update::Change;
use crate::registry::{Res, watch};
use crate::{Server, kinds};

const GROUP: &str = "apiregistration.k8s.io";
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// What is written of a condition beside its type and time.
type State = (&'static str, &'static str, &'static str);

const LOCAL: State = ("True", "Local", "Local APIServices are always available");
const ELSEWHERE: State =
    ("False", "FailedDiscoveryCheck", "this server does not forward requests to other API servers");

fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

impl Server {
    /// The answer about a group and version that is not served here: another server may be said to have it.
    pub(crate) fn not_here(&self, group: &str, version: &str) -> Response<Body> {
        if self.elsewhere.read().contains(&name(group, version)) {
            respond::text(503, "service unavailable\n")
        } else {
            respond::page_not_found()
        }
    }

    async fn register(&self, group: &str, version: &str) -> Result<(), Status> {
        let name = name(group, version);
        let spec = json!({"group": group, "version": version, "groupPriorityMinimum": priority(group),
            "versionPriority": version_priority(group, version)});
        let object = json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
            "metadata": {"name": name, "labels": {AUTOMANAGED: "onstart"}}, "spec": spec});
        self.ensure(GROUP, "v1", "apiservices", "", object).await?;
        self.change(&name, "", &|present| {
            // Whoever takes the label away takes the object over.
            if automanaged(present) {
                present["spec"] = spec.clone();
            }
        })
        .await?;
        self.tell(&name, LOCAL).await
    }

    async fn change(&self, name: &str, subresource: &str, change: &(dyn Fn(&mut Value) + Sync)) -> Result<(), Status> {
        let res = self.registry.must(GROUP, "v1", "apiservices")?;
        let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
        let w = Write { ctx: &ctx, res, namespace: "", subresource, options: &options };
        let mut make = |present: Option<&Value>| {
            let mut new = present.cloned().ok_or_else(|| res.not_found(name))?;
            change(&mut new);
            Ok(new)
        };
        self.update(&w, &mut Change { name, allow_create: false, uid: None, make: &mut make }).await.map(drop)
    }

    /// Writes whether an API is available, unless it says so already.
    async fn tell(&self, name: &str, (status, reason, message): State) -> Result<(), Status> {
        let now = pintle_api::time::format(self.clock.now());
        self.change(name, "status", &|object| {
            let mut conditions = match object.pointer_mut("/status/conditions").map(Value::take) {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            };
            let before = conditions.iter().position(|c| c["type"] == "Available").map(|i| conditions.remove(i));
            let since = before.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
            conditions.push(json!({"type": "Available", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": since.unwrap_or_else(|| now.clone().into())}));
            object["status"] = json!({"conditions": conditions});
        })
        .await
    }
}

fn automanaged(object: &Value) -> bool {
    kinds::value::str_at(object, &["metadata", "labels", AUTOMANAGED]) == "onstart"
}

/// Registers what is served, unregisters what no longer is, and from then on says of every `APIService` whether it is
/// available.
pub(super) async fn start(server: &Arc<Server>) -> Result<(), Status> {
    let Some(res) = server.registry.get(GROUP, "v1", "apiservices").cloned() else { return Ok(()) };
    let served: BTreeSet<(&str, &str)> = server
        .registry
        .all()
        .iter()
        // The group of these objects is the aggregator's own, which registers only what it delegates.
        .filter(|r| r.def.group != GROUP)
        .map(|r| (r.def.group, r.def.version))
        .collect();
    let names: BTreeSet<String> = served.iter().map(|(group, version)| name(group, version)).collect();
    try_join_all(served.iter().map(|(group, version)| server.register(group, version))).await?;
    for object in res.objects()?.fresh().await?.iter("") {
        let gone = !names.contains(object.name()) && automanaged(&object.view().map_err(Status::internal)?);
        if gone {
            let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
            let w = Write { ctx: &ctx, res: &res, namespace: "", subresource: "", options: &options };
            server.delete(&w, object.name(), &DeleteOptions::default()).await?;
        }
    }
    tokio::spawn(follow(Arc::clone(server), res));
    Ok(())
}

async fn follow(server: Arc<Server>, res: Arc<Res>) {
    loop {
        if let Ok(mut events) = watch::follow(&res).await {
            server.elsewhere.write().clear();
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = server.stopping.cancelled() => return,
                };
                let Some(Ok(event)) = event else { break };
                if let Err(e) = seen(&server, &event).await {
                    tracing::warn!(
                        name = event.object.name(),
                        "the status of an APIService was not written: {}",
                        e.message
                    );
                }
            }
        }
        // The cache began anew; so does this.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = server.stopping.cancelled() => return,
        }
    }
}

async fn seen(server: &Server, event: &WatchEvent) -> Result<(), Status> {
    let (object, gone): (&Object, _) = (&event.object, event.kind == EventType::Deleted);
    if event.kind == EventType::Bookmark {
        return Ok(());
    }
    let value: Value = object.view().map_err(Status::internal)?;
    let remote = value.pointer("/spec/service").is_some();
    if remote && !gone {
        server.elsewhere.write().insert(object.name().to_owned());
    } else {
        server.elsewhere.write().remove(object.name());
    }
    let state = if remote { ELSEWHERE } else { LOCAL };
    let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
    let told = conditions.into_iter().flatten().any(|c| {
        c["type"] == "Available" && (c["status"].as_str(), c["reason"].as_str()) == (Some(state.0), Some(state.1))
    });
    if gone || told {
        return Ok(());
    }
    match server.tell(object.name(), state).await {
        // It went meanwhile.
        Err(e) if e.is("NotFound") => Ok(()),
        other => other,
    }
}

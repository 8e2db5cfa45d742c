//! `APIService` objects: one for each group and version that is served here, and what can be said of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::try_join_all;
use http::Response;
use pintle_api::Status;
use pintle_api::object::{EventType, WatchEvent};
use pintle_api::service::Body;
use serde_json::{Value, json};

use crate::discovery::{priority, version_priority};
use crate::http::context::Ctx;
use crate::http::respond;
use crate::registry::Res;
use crate::registry::create::Write;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::update::Change;
use crate::registry::watch::{self, News};
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

/// As it is stored: the core group's name is left out.
fn spec(group: &str, version: &str) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": priority(group),
        "versionPriority": version_priority(group, version)});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    spec
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

/// What was to be changed may be gone: then somebody else has seen to it.
fn unless_gone(done: Result<(), Status>) -> Result<(), Status> {
    done.or_else(|e| if e.is("NotFound") { Ok(()) } else { Err(e) })
}

/// Registers what is served and unregisters what no longer is. What is registered as it should be is not written.
async fn register(server: &Server, res: &Arc<Res>) -> Result<(), Status> {
    let mut missing = BTreeMap::new();
    // The group of these objects is the aggregator's own, which registers only what it delegates.
    for of in server.registry.all().iter().map(|r| r.def).filter(|of| of.group != GROUP) {
        missing.entry(name(of.group, of.version)).or_insert_with(|| spec(of.group, of.version));
    }
    for object in res.objects()?.fresh().await?.iter("") {
        let (name, wanted) = (object.name(), missing.remove(object.name()));
        let present: Value = object.view().map_err(Status::internal)?;
        let done = match wanted {
            // Whoever takes the label away takes the object over.
            _ if !automanaged(&present) => Ok(()),
            Some(spec) if present["spec"] == spec => Ok(()),
            Some(spec) => {
                let change = |present: &mut Value| {
                    if automanaged(present) {
                        present["spec"] = spec.clone();
                    }
                };
                server.change(name, "", &change).await
            }
            None => {
                let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
                let w = Write { ctx: &ctx, res, namespace: "", subresource: "", options: &options };
                server.delete(&w, name, &DeleteOptions::default()).await.map(drop)
            }
        };
        unless_gone(done)?;
    }
    try_join_all(missing.into_iter().map(|(name, spec)| {
        let object = json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
            "metadata": {"name": name, "labels": {AUTOMANAGED: "onstart"}}, "spec": spec});
        server.ensure(GROUP, "v1", "apiservices", "", object)
    }))
    .await
    .map(drop)
}

/// Registers what is served, and from then on says of every `APIService` whether it is available.
pub(super) async fn start(server: &Arc<Server>) -> Result<(), Status> {
    let Some(res) = server.registry.get(GROUP, "v1", "apiservices") else { return Ok(()) };
    register(server, res).await?;
    let mut news = watch::keep_following(server, res).await?;
    let server = Arc::clone(server);
    tokio::spawn(async move {
        while let Some(one) = news.next().await {
            match one {
                News::Event(event) => {
                    if let Err(e) = seen(&server, &event).await {
                        let name = event.object.name();
                        tracing::warn!(name, "the status of an APIService was not written: {}", e.message);
                    }
                }
                News::Complete => {}
                News::Anew => server.elsewhere.write().clear(),
            }
        }
    });
    Ok(())
}

/// Takes note of an `APIService`, and says in it whether it is available.
async fn seen(server: &Server, event: &WatchEvent) -> Result<(), Status> {
    let (object, gone) = (&event.object, event.kind == EventType::Deleted);
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
    unless_gone(server.tell(object.name(), state).await)
}

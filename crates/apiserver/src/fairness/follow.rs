//! Keeps priority and fairness as its objects say, and their conditions true.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use pintle_api::Status;
use pintle_api::object::{EventType, Object};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Flow;
use super::levels::LevelConfig;
use super::metrics::{self, SchemaMetrics};
use super::rules::Schema;
use crate::Server;
use crate::http::context::Ctx;
use crate::registry::create::Write;
use crate::registry::meta;
use crate::registry::options::WriteOptions;
use crate::registry::update::Change;
use crate::registry::watch::{self, News};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";

type Objects = BTreeMap<String, Arc<Object>>;

/// What is known of a resource.
#[derive(Default)]
struct Known {
    objects: Objects,
    complete: bool,
}

impl Known {
    fn note(&mut self, news: News) {
        match news {
            News::Event(e) if e.kind == EventType::Deleted => drop(self.objects.remove(e.object.name())),
            News::Event(e) => drop(self.objects.insert(e.object.name().to_owned(), e.object)),
            News::Complete => self.complete = true,
            News::Anew => *self = Self::default(),
        }
    }
}

/// Reads the objects and follows them. Returns when priority and fairness is as they say.
///
/// # Errors
/// When they cannot be read.
pub(crate) async fn start(server: &Arc<Server>) -> Result<(), Status> {
    if !server.fairness.is_on() {
        return Ok(());
    }
    let of_schemas = watch::keep_following(server, server.registry.must(GROUP, "v1", SCHEMAS)?).await?;
    let of_levels = watch::keep_following(server, server.registry.must(GROUP, "v1", LEVELS)?).await?;
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(follow(Arc::clone(server), of_schemas, of_levels, ready));
    is_ready.await.map_err(|_| Status::internal("priority and fairness has ended"))
}

async fn follow(
    server: Arc<Server>,
    mut of_schemas: BoxStream<'static, News>,
    mut of_levels: BoxStream<'static, News>,
    ready: oneshot::Sender<()>,
) {
    let (mut schemas, mut levels) = (Known::default(), Known::default());
    let mut ready = Some(ready);
    loop {
        // Both end when the server stops.
        tokio::select! {
            news = of_schemas.next() => match news {
                Some(news) => schemas.note(news),
                None => return,
            },
            news = of_levels.next() => match news {
                Some(news) => levels.note(news),
                None => return,
            },
        }
        if schemas.complete && levels.complete {
            configure(&server, &schemas.objects, &levels.objects);
            if let Some(ready) = ready.take() {
                // Who waited for it may have gone.
                let _ = ready.send(());
            }
            for schema in schemas.objects.values() {
                if let Err(e) = condition(&server, schema, &levels.objects).await {
                    tracing::debug!(schema = schema.name(), "writing its condition failed: {e}");
                }
            }
        }
    }
}

fn configure(server: &Server, schemas: &Objects, levels: &Objects) {
    let fairness = &server.fairness;
    let configs: Vec<LevelConfig> = levels.values().filter_map(|o| LevelConfig::new(o).ok()).collect();
    let mut flows: Vec<Arc<Flow>> = schemas
        .values()
        .filter_map(|o| Schema::new(o).ok())
        .filter_map(|schema| {
            // One that names no level there is counts for nothing.
            let level_uid = configs.iter().find(|c| c.name == schema.level)?.uid.clone();
            let metrics = SchemaMetrics::new(&schema.level, &schema.name);
            Some(Arc::new(Flow { schema, level_uid, metrics }))
        })
        .collect();
    flows.sort_by(|a, b| a.schema.order().cmp(&b.schema.order()));
    let mut levels = fairness.levels.lock();
    levels.iter().filter(|l| !configs.contains(&l.config)).for_each(|l| metrics::forget(&l.config.name));
    levels.configure(configs);
    levels.iter().for_each(|l| metrics::nominal(&l.config.name, l.nominal));
    *fairness.flows.write() = Arc::new(flows);
}

/// Says in a schema's status whether the level it names exists.
async fn condition(server: &Server, schema: &Object, levels: &Objects) -> Result<(), Status> {
    let view: Value = schema.view().map_err(Status::internal)?;
    let level = view.pointer("/spec/priorityLevelConfiguration/name").and_then(Value::as_str).unwrap_or_default();
    let there = levels.contains_key(level);
    let (status, reason, so) =
        if there { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {so}");
    let conditions = view.pointer("/status/conditions").and_then(Value::as_array);
    let old = conditions.into_iter().flatten().find(|c| c["type"] == "Dangling");
    if old.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message.as_str()) {
        return Ok(());
    }
    let mut since = pintle_api::time::format(server.clock.now());
    if let Some(old) = old.filter(|c| c["status"] == status)
        && let Some(t) = old["lastTransitionTime"].as_str()
    {
        t.clone_into(&mut since);
    }
    let config = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": schema.name()},
        "status": {"conditions": [{"type": "Dangling", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since}]},
    })
    .to_string();
    let res = server.registry.must(GROUP, "v1", SCHEMAS)?;
    let ctx = Ctx::loopback();
    let options = WriteOptions {
        field_manager: "api-priority-and-fairness-config-consumer-v1".into(),
        force: Some(true),
        applies: true,
        ..WriteOptions::default()
    };
    let w = Write { ctx: &ctx, res, namespace: "", subresource: "status", options: &options };
    let uid = meta::get(&view, "uid").to_owned();
    let mut make = |present: Option<&Value>| match present {
        Some(present) if meta::get(present, "uid") == uid => server.applied(&w, Some(present), config.as_bytes()),
        _ => Err(res.not_found(schema.name())),
    };
    let mut change = Change { name: schema.name(), allow_create: false, uid: None, make: &mut make };
    match server.update(&w, &mut change).await {
        // Gone, or changed by another server: the next event tells.
        Err(e) if !e.is("NotFound") && !e.is("Conflict") => Err(e),
        _ => Ok(()),
    }
}

//! `componentstatuses`: of old, kept for clients that still ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use http::Response;
use parking_lot::Mutex;
use pintle_api::Status;
use pintle_api::object::Object;
use pintle_api::service::{Body, full};
use serde_json::{Value, json};

use super::kubelet::Target;
use crate::Server;
use crate::http::context::Ctx;
use crate::registry::Res;
use crate::registry::list::Listed;
use crate::registry::options::ListOptions;

/// Parts of a control plane, in upstream's order, and the ports at which they tell their health when apart.
const PARTS: &[(&str, u16)] = &[("scheduler", 10259), ("controller-manager", 10257)];
const STORE: &str = "etcd-0";

/// Whether a part works.
type Works = Box<dyn Fn() -> bool + Send + Sync>;

/// The parts that run in this process.
#[derive(Default)]
pub(crate) struct Components(Mutex<BTreeMap<&'static str, Works>>);

impl Components {
    /// From now on this part is here.
    pub(crate) fn add(&self, name: &'static str, works: Works) {
        self.0.lock().insert(name, works);
    }

    fn works(&self, name: &str) -> Option<bool> {
        self.0.lock().get(name).map(|works| works())
    }
}

impl Server {
    async fn component(&self, name: &str) -> Value {
        let state = match PARTS.iter().find(|(part, _)| *part == name) {
            None => self.config.store.current_revision().await.map(|_| ()).map_err(|e| e.to_string()),
            Some((part, port)) => match self.components.works(part) {
                Some(true) => Ok(()),
                Some(false) => Err(format!("the {part} of this process has stopped")),
                None => self.asked(*port).await,
            },
        };
        let condition = match state {
            Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
            Err(error) => json!({"type": "Healthy", "status": "False", "error": error}),
        };
        json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
    }

    /// Asks a process on this machine.
    async fn asked(&self, port: u16) -> Result<(), String> {
        let target = Target { tls: true, host: "127.0.0.1".into(), port, path: "/healthz".into(), kubelet: false };
        let answer = self.forward(&Ctx::loopback(), &target, full("")).await;
        let answer = answer.map_err(|e| {
            // As a Go client words it.
            let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
            let why = if e.message.contains("refused") { refused } else { e.message };
            format!("Get \"https://127.0.0.1:{port}/healthz\": {why}")
        })?;
        match answer.status().as_u16() {
            200 => Ok(()),
            code => Err(format!("unexpected status code: {code}")),
        }
    }

    /// GET and LIST.
    ///
    /// # Errors
    /// 404 for a component there is not.
    pub(crate) async fn components(&self, ctx: &Ctx, res: &Arc<Res>) -> Result<Response<Body>, Status> {
        let accepted = crate::http::resource::accepted(ctx)?;
        let object = |value: Value| {
            Object::from_wire(res.encode(&value), res.strategy.selectable).map(Arc::new).map_err(Status::internal)
        };
        let names = || PARTS.iter().map(|(name, _)| *name).chain([STORE]);
        if ctx.info.verb == "list" {
            let options = ListOptions::parse(&ctx.query, false)?;
            res.check_fields(&options.fields)?;
            let all = join_all(names().map(|name| self.component(name))).await;
            let mut items = all.into_iter().map(object).collect::<Result<Vec<_>, _>>()?;
            items.retain(|o| options.labels.matches_object(o) && options.fields.matches_object(o));
            let found = Listed { items, revision: 0, continue_token: String::new(), remaining: None };
            return self.listed(ctx, res, &accepted, found);
        }
        if !names().any(|name| name == ctx.info.name) {
            return Err(res.not_found(&ctx.info.name));
        }
        let one = object(self.component(&ctx.info.name).await)?;
        self.object(200, ctx, res, &accepted, &one)
    }
}

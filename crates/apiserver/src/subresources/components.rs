//! `componentstatuses`: of old, kept for clients that still ask.

use http::Response;
use pintle_api::Status;
use pintle_api::service::Body;
use serde_json::{Value, json};

use super::answer;
use crate::Server;
use crate::http::context::Ctx;

impl Server {
    /// GET and LIST.
    ///
    /// # Errors
    /// 404 for a component there is not.
    pub(crate) async fn components(&self, ctx: &Ctx) -> Result<Response<Body>, Status> {
        ctx.warn("v1 ComponentStatus is deprecated in v1.19+");
        let condition = match self.config.store.current_revision().await {
            Ok(_) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
            Err(e) => json!({"type": "Healthy", "status": "False", "error": e.to_string()}),
        };
        let one = json!({"metadata": {"name": "etcd-0"}, "conditions": [condition]});
        let typed = |kind: &str, mut v: Value| {
            v["kind"] = kind.into();
            v["apiVersion"] = "v1".into();
            v
        };
        if ctx.info.verb == "list" {
            return answer(ctx, 200, &typed("ComponentStatusList", json!({"metadata": {}, "items": [one]})));
        }
        if ctx.info.name != "etcd-0" {
            return Err(Status::not_found("", "componentstatuses", &ctx.info.name));
        }
        answer(ctx, 200, &typed("ComponentStatus", one))
    }
}

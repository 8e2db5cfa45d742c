//! Sub-resources and virtual resources that are more than part of an object.

mod access;
mod binding;
mod components;
mod eviction;
mod kubelet;
mod proxy;
mod rewrite;
mod scale;
mod streams;
mod token;

use std::sync::Arc;

use http::Response;
use pintle_api::Status;
use pintle_api::service::Body;
use serde_json::Value;

use crate::Server;
use crate::http::context::Ctx;
use crate::http::negotiate::{self, Accepted, Media};
use crate::http::resource::method_not_allowed;
use crate::http::{body, respond};
use crate::registry::Res;
use crate::registry::options::{FieldValidation, WriteOptions};

pub(crate) use components::Components;
pub(crate) use kubelet::Kubelets;

/// The body of a POST as an object of a kind.
pub(crate) async fn posted(
    ctx: &Ctx,
    body: &mut Body,
    api_version: &str,
    kind: &str,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let body = body::read(body).await?;
    let media = negotiate::input(&ctx.headers, Media::ALL)?;
    let (value, complaints) = crate::codec::decode(media, &body, api_version, kind, validation)?;
    for text in complaints {
        ctx.warn(text);
    }
    Ok(value)
}

/// A value of a built-in kind as the answer.
pub(crate) fn answer(ctx: &Ctx, code: u16, value: &Value) -> Result<Response<Body>, Status> {
    let accepted: Accepted = negotiate::output(&ctx.headers, &ctx.query, Media::ALL, false, |_, t| t.is_none())?;
    let text = |k: &str| value.get(k).and_then(Value::as_str).unwrap_or_default();
    let bytes = match pintle_schema::kind(text("apiVersion"), text("kind")) {
        Some(ty) => pintle_schema::encode(value, ty),
        None => value.to_string().into_bytes(),
    };
    Ok(respond::json(code, &accepted, &ctx.headers, &bytes))
}

/// `Status` Success with a code.
pub(crate) fn success(ctx: &Ctx, code: u16) -> Result<Response<Body>, Status> {
    let mut s = Status::failure(code, "", "");
    s.status = "Success".into();
    let accepted = negotiate::output(&ctx.headers, &ctx.query, Media::ALL, false, |_, t| t.is_none())?;
    Ok(respond::json(code, &accepted, &ctx.headers, &s.to_json()))
}

/// The options of a POST.
pub(crate) fn create_options(ctx: &Ctx) -> Result<WriteOptions, Status> {
    WriteOptions::parse(&ctx.query, "CreateOptions", false)
}

impl Server {
    /// Serves a request on a sub-resource.
    ///
    /// # Errors
    /// The `Status` to answer with.
    pub(crate) async fn subresource(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let i = &ctx.info;
        let Some(sub) = res.def.subresource(&i.subresource) else { return Err(Status::path_not_found()) };
        if sub.name != "proxy" && i.parts.len() > 3 {
            return Err(Status::path_not_found());
        }
        // OPTIONS has no verb; what is proxied answers it like any other method.
        let options = sub.name == "proxy" && ctx.method == http::Method::OPTIONS;
        if !options && !sub.verbs.contains(&i.verb.as_str()) {
            return Err(method_not_allowed());
        }
        match (i.subresource.as_str(), i.verb.as_str()) {
            ("scale", _) => self.scale(ctx, res, body).await,
            ("binding", "create") => self.bind(ctx, res, body, Some(&i.name)).await,
            ("eviction", "create") => self.evict(ctx, res, body).await,
            ("token", "create") => self.token(ctx, res, body).await,
            ("log", _) => self.logs(ctx, res).await,
            ("exec" | "attach" | "portforward", _) => self.stream(ctx, res).await,
            ("proxy", _) => self.proxy(ctx, res, body).await,
            (name, "get") if res.strategy.subresource(name).is_some() => self.get(ctx, res).await,
            (name, "update") if res.strategy.subresource(name).is_some() => self.put(ctx, res, body, name).await,
            (name, "patch") if res.strategy.subresource(name).is_some() => self.patch(ctx, res, body, name).await,
            _ => Err(Status::path_not_found()),
        }
    }

    /// Serves a request on a resource that is never stored.
    ///
    /// # Errors
    /// The `Status` to answer with.
    pub(crate) async fn virtual_resource(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        match (res.def.resource, ctx.info.verb.as_str()) {
            ("bindings", "create") => {
                let pods = Arc::clone(self.registry.must("", "v1", "pods")?);
                self.bind(ctx, &pods, body, None).await
            }
            ("componentstatuses", "get" | "list") => self.components(ctx, res).await,
            ("tokenreviews", "create") => self.token_review(ctx, body).await,
            ("selfsubjectreviews", "create") => self.self_review(ctx, body).await,
            ("subjectaccessreviews" | "localsubjectaccessreviews" | "selfsubjectaccessreviews", "create") => {
                self.access_review(ctx, res, body).await
            }
            ("selfsubjectrulesreviews", "create") => self.rules_review(ctx, body).await,
            _ => Err(method_not_allowed()),
        }
    }
}

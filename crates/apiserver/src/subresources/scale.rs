//! `scale`: the replicas of a workload as `autoscaling/v1` `Scale`.

use std::sync::Arc;

use http::Response;
use pintle_api::Status;
use pintle_api::service::Body;
use pintle_schema::cursor::Cursor;
use pintle_schema::errors::Errors;
use pintle_schema::{Mode, decode};
use serde_json::{Value, json};

use super::answer;
use crate::Server;
use crate::http::body;
use crate::http::context::Ctx;
use crate::http::negotiate::{self, Media};
use crate::http::resource::namespace;
use crate::kinds::scale::Mapping;
use crate::registry::create::Write;
use crate::registry::options::{FieldValidation, WriteOptions, causes};
use crate::registry::patch::PatchType;
use crate::registry::update::Change;
use crate::registry::{Res, meta};

const API_VERSION: &str = "autoscaling/v1";

impl Server {
    /// GET, PUT and PATCH of `scale`.
    ///
    /// # Errors
    /// As of the object; 422 for a number below zero.
    pub(crate) async fn scale(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let Some(mapping) = res.strategy.scale else { return Err(Status::path_not_found()) };
        let ns = namespace(ctx, res);
        let name = ctx.info.name.as_str();
        if ctx.info.verb == "get" {
            let object = res.objects()?.get(&ns, name).await?.ok_or_else(|| res.not_found(name))?;
            return answer(ctx, 200, &mapping.to_scale(&object.view().map_err(Status::internal)?));
        }
        let patches = ctx.info.verb == "patch";
        let content_type =
            ctx.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let patch_type = if patches { Some(PatchType::parse(content_type)?) } else { None };
        let kind = if patches { "PatchOptions" } else { "UpdateOptions" };
        let options = WriteOptions::parse(&ctx.query, kind, patch_type == Some(PatchType::Apply))?;
        let bytes = body::read(body).await?;
        let given = if patches {
            Value::Null
        } else {
            let media = negotiate::input(&ctx.headers, Media::ALL)?;
            let (scale, complaints) = crate::codec::decode(media, &bytes, API_VERSION, "Scale", options.validation)?;
            complaints.into_iter().for_each(|text| ctx.warn(text));
            scale
        };
        let uid = Some(meta::get(&given, "uid").to_owned()).filter(|u| !u.is_empty());
        // The main strategy counts the generation; the sub-resource is named to admission only.
        let w = Write { ctx, res, namespace: &ns, subresource: "scale", options: &options };
        let mut make = |present: Option<&Value>| -> Result<Value, Status> {
            let present = present.ok_or_else(|| res.not_found(name))?;
            let scale = match patch_type {
                None => given.clone(),
                Some(PatchType::Apply) => {
                    let config = self.applied_scale(&w, mapping, present, &bytes)?;
                    return self.applied(&w, Some(present), &config).map_err(in_terms_of_scale(&res.api_version));
                }
                Some(t) => {
                    let ty = pintle_schema::kind(API_VERSION, "Scale");
                    let current = mapping.to_scale(present);
                    let (scale, complaints) = crate::codec::patched(t, &current, &bytes, ty, options.validation)?;
                    complaints.into_iter().for_each(|text| ctx.warn(text));
                    scale
                }
            };
            if meta::name(&scale) != name {
                return Err(Status::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({name})",
                    meta::name(&scale)
                )));
            }
            let mut errors = Errors::new();
            mapping.validate(&Cursor::root(&scale), &mut errors);
            if !errors.is_empty() {
                return Err(Status::invalid("autoscaling", "Scale", name, causes(&errors)));
            }
            let mut object = present.clone();
            mapping.apply(&mut object, &scale);
            if meta::get(&scale, "resourceVersion").is_empty() {
                meta::set(&mut object, "resourceVersion", meta::get(present, "resourceVersion"));
            }
            Ok(object)
        };
        let mut change = Change { name, allow_create: false, uid, make: &mut make };
        let (object, _) = self.update(&w, &mut change).await?;
        answer(ctx, 200, &mapping.to_scale(&object.view().map_err(Status::internal)?))
    }

    /// The configuration of the object itself that an applied `Scale` comes to.
    fn applied_scale(
        &self,
        w: &Write<'_>,
        mapping: &Mapping,
        present: &Value,
        config: &[u8],
    ) -> Result<Vec<u8>, Status> {
        let bad = |why: &str| Status::bad_request(format!("error decoding patch: {why}"));
        let ty = pintle_schema::kind(API_VERSION, "Scale").ok_or_else(|| Status::internal("no schema of Scale"))?;
        let (scale, duplicates) = decode::yaml_to_value(config).map_err(|e| bad(&e.to_string()))?;
        let decoded = decode::decode_value(scale, ty, Mode::Strict).map_err(|e| bad(&e.to_string()))?;
        let complaints: Vec<String> =
            Some(duplicates).filter(|d| !d.is_empty()).into_iter().chain(decoded.strict).collect();
        match w.options.validation {
            FieldValidation::Strict if !complaints.is_empty() => {
                return Err(Status::bad_request(format!("error strict decoding patch: {}", complaints.join(", "))));
            }
            FieldValidation::Warn => complaints.into_iter().for_each(|text| w.ctx.warn(text)),
            _ => {}
        }
        let scale = decoded.value;
        let (api_version, kind) =
            (scale["apiVersion"].as_str().unwrap_or_default(), scale["kind"].as_str().unwrap_or_default());
        if (api_version, kind) != (API_VERSION, "Scale") {
            return Err(Status::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({API_VERSION})"
            )));
        }
        let name = meta::name(present);
        let named = meta::name(&scale);
        if !named.is_empty() && named != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({name})"
            )));
        }
        let mut errors = Errors::new();
        let replicas = scale.pointer("/spec/replicas").filter(|v| !v.is_null());
        if let Some(n) = replicas.and_then(Value::as_i64).filter(|n| *n < 0) {
            errors.invalid_value("spec.replicas", n, "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", name, causes(&errors)));
        }
        let mut own = json!({
            "apiVersion": w.res.storage_api_version, "kind": w.res.storage.kind,
            "metadata": {"name": name, "namespace": meta::namespace(present)},
        });
        for key in ["uid", "resourceVersion"] {
            if !meta::get(&scale, key).is_empty() {
                meta::set(&mut own, key, meta::get(&scale, key).to_owned());
            }
        }
        if let Some(n) = replicas {
            mapping.set_replicas(&mut own, n.as_i64().unwrap_or_default());
        }
        Ok(own.to_string().into_bytes())
    }
}

/// Conflicts as they are seen by who knows the `Scale` only.
fn in_terms_of_scale(api_version: &str) -> impl Fn(Status) -> Status {
    let own = format!(" using {api_version}");
    move |mut status| {
        let shown = |text: &str| text.replace(&own, &format!(" using {API_VERSION}"));
        status.message = shown(&status.message);
        for cause in status.details.iter_mut().flat_map(|d| d.causes.iter_mut()) {
            cause.message = shown(&cause.message);
        }
        status
    }
}

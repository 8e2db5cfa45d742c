//! `scale`: the replicas of a workload as `autoscaling/v1` `Scale`.

use std::sync::Arc;

use http::Response;
use pintle_api::Status;
use pintle_api::service::Body;
use pintle_schema::cursor::Cursor;
use pintle_schema::errors::Errors;
use serde_json::Value;

use super::answer;
use crate::Server;
use crate::http::body;
use crate::http::context::Ctx;
use crate::http::negotiate::{self, Media};
use crate::http::resource::namespace;
use crate::registry::create::Write;
use crate::registry::options::{WriteOptions, causes};
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
        body: Body,
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
        let mut make = |present: Option<&Value>| -> Result<Value, Status> {
            let present = present.ok_or_else(|| res.not_found(name))?;
            let scale = match patch_type {
                None => given.clone(),
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
        // The main strategy counts the generation; the sub-resource is named to admission only.
        let w = Write { ctx, res, namespace: &ns, subresource: "scale", options: &options };
        let mut change = Change { name, allow_create: false, uid, make: &mut make };
        let (object, _) = self.update(&w, &mut change).await?;
        answer(ctx, 200, &mapping.to_scale(&object.view().map_err(Status::internal)?))
    }
}

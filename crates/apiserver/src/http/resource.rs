//! Requests about resources: decoding, the registry's verbs, encoding.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use pintle_api::object::Object;
use pintle_api::selector::FieldSelector;
use pintle_api::service::{Body, ObjectList, SharedObject};
use pintle_api::status::Status;
use pintle_schema::proto::{List, Transcoder};
use serde_json::{Value, json};

use super::context::Ctx;
use super::negotiate::{self, Accepted, Media};
use super::pieces::{self, Pieces};
use super::{body, respond, watch};
use crate::registry::create::Write;
use crate::registry::list::Listed;
use crate::registry::options::{DeleteOptions, FieldValidation, ListOptions, WriteOptions, parse_version};
use crate::registry::patch::PatchType;
use crate::registry::update::Change;
use crate::registry::{Res, list, meta, table};
use crate::{Server, codec};

/// In longer lists it is worth while to look for what objects have in common.
const A_FEW: usize = 16;

/// The form in which a client takes an object or a list.
pub(crate) fn accepted(ctx: &Ctx) -> Result<Accepted, Status> {
    negotiate::output(&ctx.headers, &ctx.query, Media::ALL, false, negotiate::resource_allows)
}

impl Server {
    /// Serves one request about a resource.
    ///
    /// # Errors
    /// The `Status` to answer with.
    pub(crate) async fn resource(self: &Arc<Self>, ctx: &Ctx, body: &mut Body) -> Result<Response<Body>, Status> {
        let i = &ctx.info;
        let Some(res) = self.registry.get(&i.group, &i.version, &i.resource) else {
            if self.registry.serves(&i.group, &i.version) {
                return Err(Status::path_not_found());
            }
            return Ok(self.not_here(&i.group, &i.version));
        };
        // A namespaced resource is listed across namespaces without one, but nothing else is done so.
        let named = i.parts.len() > 1;
        let unscoped = res.def.namespaced && i.namespace.is_empty() && !matches!(i.verb.as_str(), "list" | "watch");
        let scoped = !res.def.namespaced && !i.namespace.is_empty() && i.resource != "namespaces";
        let no_route = scoped || (unscoped && (named || !res.def.has_verb("list")));
        if no_route || (i.subresource.is_empty() && i.parts.len() > 2) {
            return Err(Status::path_not_found());
        }
        self.warn_deprecated(ctx, res);
        if !i.subresource.is_empty() {
            return self.subresource(ctx, res, body).await;
        }
        if res.objects.is_none() {
            return self.virtual_resource(ctx, res, body).await;
        }
        let fits = match i.verb.as_str() {
            "create" | "deletecollection" => !named,
            "get" | "update" | "patch" | "delete" => named,
            _ => true,
        };
        if unscoped || !fits || !res.def.has_verb(&i.verb) {
            return Err(method_not_allowed());
        }
        match i.verb.as_str() {
            "get" => self.get(ctx, res).await,
            "list" => self.list(ctx, res).await,
            "watch" => watch::serve(self, ctx, res).await,
            "create" => self.post(ctx, res, body).await,
            "update" => self.put(ctx, res, body, "").await,
            "patch" => self.patch(ctx, res, body, "").await,
            "delete" => self.delete_one(ctx, res, body).await,
            "deletecollection" => self.delete_many(ctx, res, body).await,
            _ => Err(method_not_allowed()),
        }
    }

    pub(crate) async fn get(&self, ctx: &Ctx, res: &Arc<Res>) -> Result<Response<Body>, Status> {
        let accepted = accepted(ctx)?;
        let version = ctx.query.non_empty("resourceVersion").map(parse_version).transpose().map_err(|why| {
            let given = ctx.query.non_empty("resourceVersion").unwrap_or_default();
            let given = pintle_schema::quote::quoted(given);
            Status::failure(500, "", format!("resourceVersion: Invalid value: {given}: {why}"))
        })?;
        let object = list::get(res, &namespace(ctx, res), &ctx.info.name, version).await?;
        self.object(200, ctx, res, &accepted, &object)
    }

    async fn list(&self, ctx: &Ctx, res: &Arc<Res>) -> Result<Response<Body>, Status> {
        let accepted = accepted(ctx)?;
        let mut o = ListOptions::parse(&ctx.query, false)?;
        name_selector(ctx, &mut o)?;
        let found = list::list(res, &namespace(ctx, res), &o).await?;
        self.listed(ctx, res, &accepted, found)
    }

    /// A list as the answer.
    pub(crate) fn listed(
        &self,
        ctx: &Ctx,
        res: &Arc<Res>,
        accepted: &Accepted,
        mut found: Listed,
    ) -> Result<Response<Body>, Status> {
        if res.converts() {
            found.items = found.items.iter().map(|o| res.shown(o)).collect::<Result<_, _>>()?;
        }
        if ctx.want_objects {
            let mut r = respond::bytes(200, Media::Json.name(), Bytes::new());
            r.extensions_mut().insert(ObjectList {
                items: Arc::new(found.items),
                resource_version: found.revision,
                continue_token: found.continue_token,
            });
            return Ok(r);
        }
        let metadata = list_metadata(&found);
        if accepted.media == Media::Protobuf
            && accepted.target.is_none()
            && let Some(ty) = res.ty
        {
            let items = found.items;
            let mut by = if items.len() > A_FEW { Transcoder::for_many() } else { Transcoder::default() };
            let lengths = items.iter().map(|item| codec::protobuf_body_by(&mut by, item, ty).len());
            let List { head, tail, size } = List::new(&res.api_version, &res.list_kind(), &metadata, lengths);
            let put = move |out: &mut BytesMut, i: usize| {
                let Some(item) = items.get(i) else { return false };
                let body = codec::protobuf_body(item, ty);
                out.put_slice(List::before(body.len()).as_ref());
                out.put_slice(body);
                true
            };
            let parts = Pieces { size, head, tail, put };
            let gzip = size > respond::GZIP_OVER && respond::takes_gzip(&ctx.headers);
            if !gzip && size > pieces::STREAM_OVER {
                return Ok(parts.streamed(Media::Protobuf.name()));
            }
            return Ok(respond::raw(200, Media::Protobuf.name(), &ctx.headers, parts.whole()));
        }
        let bytes = match &accepted.target {
            None => {
                let head = format!(
                    "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                    res.list_kind(),
                    res.api_version
                );
                let plain = accepted.media == Media::Json && !accepted.pretty && !respond::takes_gzip(&ctx.headers);
                let commas = found.items.len().saturating_sub(1);
                let size = head.len() + commas + found.items.iter().map(|o| res.item(o).len() + 1).sum::<usize>() + 2;
                let (res, items) = (Arc::clone(res), found.items);
                let put = move |out: &mut BytesMut, i: usize| {
                    let Some(object) = items.get(i) else { return false };
                    out.put_slice(if i > 0 { b",{" } else { b"{" });
                    out.put_slice(res.item(object));
                    true
                };
                let mut parts = Pieces { size, head: head.into(), tail: b"]}".to_vec(), put };
                if plain && size > pieces::STREAM_OVER {
                    // As every other text, it ends with its line.
                    parts.tail.push(b'\n');
                    parts.size += 1;
                    return Ok(parts.streamed(Media::Json.name()));
                }
                parts.whole()
            }
            Some(t) if t.kind == "Table" => table::table(
                res,
                &t.version,
                &metadata,
                found.items.iter().map(|o| &**o),
                table::include(&ctx.query)?,
                ctx.query.flag("noHeaders") != Some(true),
                self.clock.now(),
            )?
            .into(),
            Some(t) if t.kind == "PartialObjectMetadataList" => {
                let mut out = BytesMut::new();
                out.put_slice(
                    format!("{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/{}\",\"metadata\":{metadata},\"items\":[", t.version)
                        .as_bytes(),
                );
                for (i, object) in found.items.iter().enumerate() {
                    if i > 0 {
                        out.put_u8(b',');
                    }
                    out.put_slice(&table::partial(object, &t.version));
                }
                out.put_slice(b"]}");
                out.freeze()
            }
            Some(_) => {
                return Err(Status::failure(
                    406,
                    "NotAcceptable",
                    format!(
                        "you requested PartialObjectMetadata, but the requested object is a list (*{}.{})",
                        res.def.version,
                        res.list_kind()
                    ),
                ));
            }
        };
        Ok(respond::json(200, accepted, &ctx.headers, &bytes))
    }

    /// One object as the answer.
    pub(crate) fn object(
        &self,
        code: u16,
        ctx: &Ctx,
        res: &Arc<Res>,
        accepted: &Accepted,
        object: &Arc<Object>,
    ) -> Result<Response<Body>, Status> {
        let object = res.shown(object)?;
        if ctx.want_objects && accepted.target.is_none() {
            let mut r = respond::bytes(code, Media::Json.name(), Bytes::new());
            r.extensions_mut().insert(respond::Length(object.bytes().len() as u64));
            r.extensions_mut().insert(SharedObject(object));
            return Ok(r);
        }
        match &accepted.target {
            None => match (accepted.media, res.ty) {
                (Media::Protobuf, Some(ty)) => {
                    let body = codec::protobuf_body(&object, ty);
                    let bytes = pintle_schema::proto::seal(&res.api_version, res.def.kind, body);
                    Ok(respond::raw(code, Media::Protobuf.name(), &ctx.headers, bytes.into()))
                }
                _ => Ok(respond::json(code, accepted, &ctx.headers, object.bytes())),
            },
            Some(t) if t.kind == "Table" => {
                let metadata = json!({"resourceVersion": object.resource_version().to_string()});
                let head = ctx.query.flag("noHeaders") != Some(true);
                let include = table::include(&ctx.query)?;
                let bytes = table::table(
                    res,
                    &t.version,
                    &metadata,
                    std::iter::once(&*object),
                    include,
                    head,
                    self.clock.now(),
                )?;
                Ok(respond::json(code, accepted, &ctx.headers, &bytes))
            }
            Some(t) if t.kind == "PartialObjectMetadata" => {
                Ok(respond::json(code, accepted, &ctx.headers, &table::partial(&object, &t.version)))
            }
            Some(_) => Err(Status::failure(
                406,
                "NotAcceptable",
                format!(
                    "you requested PartialObjectMetadataList, but the requested object is not a list (*{}.{})",
                    res.def.version, res.def.kind
                ),
            )),
        }
    }

    /// Decodes and defaults an object of this resource, in the stored version.
    fn decode(&self, ctx: &Ctx, res: &Res, body: &[u8], validation: FieldValidation) -> Result<Value, Status> {
        let media = negotiate::input(&ctx.headers, Media::ALL)?;
        let (mut object, complaints) = codec::decode(media, body, &res.api_version, res.def.kind, validation)?;
        for text in complaints {
            ctx.warn(text);
        }
        crate::registry::versions::convert(&mut object, res.def, res.storage);
        res.default(&mut object);
        Ok(object)
    }

    async fn post(self: &Arc<Self>, ctx: &Ctx, res: &Arc<Res>, body: &mut Body) -> Result<Response<Body>, Status> {
        let accepted = accepted(ctx)?;
        let body = body::read(body).await?;
        let options = WriteOptions::parse(&ctx.query, "CreateOptions", false)?;
        let object = self.decode(ctx, res, &body, options.validation)?;
        let w = Write { ctx, res, namespace: &ctx.info.namespace, subresource: "", options: &options };
        let created = self.create(&w, object).await?;
        self.object(201, ctx, res, &accepted, &created)
    }

    pub(crate) async fn put(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
        subresource: &str,
    ) -> Result<Response<Body>, Status> {
        let accepted = accepted(ctx)?;
        let body = body::read(body).await?;
        let options = WriteOptions::parse(&ctx.query, "UpdateOptions", false)?;
        let object = self.decode(ctx, res, &body, options.validation)?;
        let name = ctx.info.name.as_str();
        if meta::name(&object) != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                meta::name(&object)
            )));
        }
        let uid = Some(meta::get(&object, "uid").to_owned()).filter(|u| !u.is_empty());
        let w = Write { ctx, res, namespace: &namespace(ctx, res), subresource, options: &options };
        // Asked for again only when another write came between.
        let mut object = Some(object);
        let mut change = Change {
            name,
            allow_create: res.strategy.create_on_update && subresource.is_empty(),
            uid,
            make: &mut |_| match object.take() {
                Some(object) => Ok(object),
                None => self.decode(ctx, res, &body, options.validation),
            },
        };
        let (object, created) = self.update(&w, &mut change).await?;
        self.object(if created { 201 } else { 200 }, ctx, res, &accepted, &object)
    }

    pub(crate) async fn patch(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
        subresource: &str,
    ) -> Result<Response<Body>, Status> {
        let content_type =
            ctx.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let patch_type = PatchType::parse(content_type)?;
        let accepted = accepted(ctx)?;
        let body = body::read(body).await?;
        let options = WriteOptions::parse(&ctx.query, "PatchOptions", patch_type == PatchType::Apply)?;
        let w = Write { ctx, res, namespace: &namespace(ctx, res), subresource, options: &options };
        let applies = patch_type == PatchType::Apply;
        let mut make = |current: Option<&Value>| -> Result<Value, Status> {
            if applies {
                return self.applied(&w, current, &body);
            }
            let Some(current) = current else { return Err(res.not_found(&ctx.info.name)) };
            let shown;
            let current = if res.converts() {
                let mut c = current.clone();
                crate::registry::versions::convert(&mut c, res.storage, res.def);
                shown = c;
                &shown
            } else {
                current
            };
            let (mut object, complaints) = codec::patched(patch_type, current, &body, res.ty, options.validation)?;
            for text in complaints {
                ctx.warn(text);
            }
            crate::registry::versions::convert(&mut object, res.def, res.storage);
            res.default(&mut object);
            Ok(object)
        };
        let allow_create = applies && subresource.is_empty();
        let mut change = Change { name: &ctx.info.name, allow_create, uid: None, make: &mut make };
        let (object, created) = self.update(&w, &mut change).await?;
        self.object(if created { 201 } else { 200 }, ctx, res, &accepted, &object)
    }

    async fn delete_one(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let accepted = accepted(ctx)?;
        let o = delete_options(ctx, body).await?;
        let options = WriteOptions { dry_run: o.dry_run, ..WriteOptions::default() };
        let w = Write { ctx, res, namespace: &namespace(ctx, res), subresource: "", options: &options };
        let done = self.delete(&w, &ctx.info.name, &o).await?;
        let code = if !done.gone && o.orphan_dependents == Some(false) { 202 } else { 200 };
        // An object that still exists, and some kinds always, are shown; else a Status says it is done.
        if !done.gone || returns_deleted(res) {
            return self.object(code, ctx, res, &accepted, &done.object);
        }
        let mut s = Status::success(res.def.group, res.def.resource, done.object.name(), done.object.uid());
        s.code = 0;
        Ok(respond::json(code, &Accepted { target: None, ..accepted }, &ctx.headers, &s.to_json()))
    }

    async fn delete_many(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let accepted = accepted(ctx)?;
        let mut lo = ListOptions::parse(&ctx.query, false)?;
        name_selector(ctx, &mut lo)?;
        let o = delete_options(ctx, body).await?;
        let options = WriteOptions { dry_run: o.dry_run, ..WriteOptions::default() };
        let w = Write { ctx, res, namespace: &namespace(ctx, res), subresource: "", options: &options };
        let (items, revision) = self.delete_collection(&w, &lo, &o).await?;
        self.listed(ctx, res, &accepted, Listed { items, revision, continue_token: String::new(), remaining: None })
    }
}

/// The namespace in whose keys the object stands.
pub(crate) fn namespace(ctx: &Ctx, res: &Res) -> String {
    if res.def.namespaced { ctx.info.namespace.clone() } else { String::new() }
}

/// A name in the path or in `fieldSelector` of a list narrows it to that object.
pub(crate) fn name_selector(ctx: &Ctx, o: &mut ListOptions) -> Result<(), Status> {
    if ctx.info.group == "events.k8s.io" {
        event_fields(&mut o.fields);
    }
    if ctx.info.name.is_empty() {
        return Ok(());
    }
    if o.fields.is_everything() {
        o.fields.terms.push(("metadata.name".into(), ctx.info.name.clone(), true));
    } else if o.fields.exact("metadata.name") != Some(&ctx.info.name) {
        return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    Ok(())
}

/// Fields of an event of events.k8s.io, by the names they are stored under.
fn event_fields(fields: &mut FieldSelector) {
    for (field, _, _) in &mut fields.terms {
        if let Some(rest) = field.strip_prefix("regarding.") {
            *field = format!("involvedObject.{rest}");
        } else if field == "reportingController" {
            "reportingComponent".clone_into(field);
        }
    }
}

fn list_metadata(found: &Listed) -> Value {
    // What is not stored has no version.
    let mut m = if found.revision > 0 { json!({"resourceVersion": found.revision.to_string()}) } else { json!({}) };
    if !found.continue_token.is_empty() {
        m["continue"] = found.continue_token.as_str().into();
    }
    if let Some(n) = found.remaining {
        m["remainingItemCount"] = n.into();
    }
    m
}

/// `DeleteOptions` of the body or the query.
pub(crate) async fn delete_options(ctx: &Ctx, body: &mut Body) -> Result<DeleteOptions, Status> {
    let body = body::read(body).await?;
    if body.is_empty() {
        return DeleteOptions::parse(&ctx.query, None);
    }
    let media = negotiate::input(&ctx.headers, Media::ALL)?;
    let value = codec::options(media, &body, "DeleteOptions")?;
    DeleteOptions::parse(&ctx.query, Some(&value))
}

/// 405 as upstream's router answers it.
pub(crate) fn method_not_allowed() -> Status {
    let mut s =
        Status::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    s.details_mut();
    s
}

/// Kinds whose DELETE answers the object even when it is gone.
fn returns_deleted(res: &Res) -> bool {
    match res.def.group {
        "" => matches!(
            res.def.resource,
            "persistentvolumes"
                | "persistentvolumeclaims"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "services"
                | "serviceaccounts"
        ),
        "storage.k8s.io" => res.def.resource != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_selected_by_the_names_of_their_group() {
        let mut fields = FieldSelector::parse("regarding.name=a,reportingController=b,type!=Normal").unwrap();
        event_fields(&mut fields);
        let names: Vec<&str> = fields.terms.iter().map(|(field, ..)| field.as_str()).collect();
        assert_eq!(names, ["involvedObject.name", "reportingComponent", "type"]);
    }
}

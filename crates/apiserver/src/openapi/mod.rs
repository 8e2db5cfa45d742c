//! OpenAPI: one document a group-version, made when first asked for.

mod paths;
mod schemas;
mod v2;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::{Response, StatusCode};
use pintle_api::Status;
use pintle_api::service::{Body, full};
use serde_json::{Value, json};

use crate::Server;
use crate::http::context::Ctx;
use crate::http::negotiate::{self, Media};
use crate::http::respond;
use crate::registry::Registry;

/// One document, and the tag that tells its content.
struct Document {
    json: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        use sha2::Digest;
        let json = Bytes::from(value.to_string());
        let hash = hex::encode_upper(sha2::Sha512::digest(&json));
        Self { json, hash }
    }
}

/// The documents by path: `api/v1`, `apis/apps/v1`.
pub(crate) struct OpenApi {
    documents: BTreeMap<String, OnceLock<Document>>,
    v2: OnceLock<Document>,
}

impl OpenApi {
    pub(crate) fn new(registry: &Registry) -> Self {
        let documents = registry.all().iter().map(|r| (path_of(r.def.group, r.def.version), OnceLock::new())).collect();
        Self { documents, v2: OnceLock::new() }
    }

    fn document(&self, registry: &Registry, path: &str) -> Option<&Document> {
        let slot = self.documents.get(path)?;
        Some(slot.get_or_init(|| Document::new(&build(registry, path))))
    }
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn build(registry: &Registry, path: &str) -> Value {
    let mut used = schemas::Schemas::default();
    let mut paths = serde_json::Map::new();
    for res in registry.all().iter().filter(|r| path_of(r.def.group, r.def.version) == path) {
        paths::add(&mut paths, res, &mut used);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": format!("v1.{}.0", crate::discovery::MINOR)},
        "paths": paths,
        "components": {
            "schemas": used.finish(),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer Token authentication"}},
        },
        "security": [{"BearerToken": []}],
    })
}

impl Server {
    /// Serves `/openapi/v3` and what is below.
    ///
    /// # Errors
    /// 406 for a client that takes no JSON.
    pub(crate) fn openapi(&self, ctx: &Ctx, path: &str) -> Result<Response<Body>, Status> {
        let rest = path.trim_start_matches("/openapi/v3").trim_matches('/');
        if rest.is_empty() {
            let mut index = serde_json::Map::new();
            for path in self.openapi.documents.keys() {
                if let Some(d) = self.openapi.document(&self.registry, path) {
                    let url = format!("/openapi/v3/{path}?hash={}", d.hash);
                    index.insert(path.clone(), json!({"serverRelativeURL": url}));
                }
            }
            let text = json!({"paths": index}).to_string();
            let mut r = respond::raw(200, "application/json", &ctx.headers, text.into());
            r.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            return Ok(r);
        }
        let Some(document) = self.openapi.document(&self.registry, rest) else { return Ok(respond::page_not_found()) };
        let asked = ctx.query.non_empty("hash");
        if asked.is_some_and(|h| h != document.hash) {
            // An index of before; the present document stands elsewhere.
            let mut r = Response::new(full(Bytes::new()));
            *r.status_mut() = StatusCode::MOVED_PERMANENTLY;
            if let Ok(v) = HeaderValue::from_str(&format!("/openapi/v3/{rest}?hash={}", document.hash)) {
                r.headers_mut().insert(LOCATION, v);
            }
            return Ok(r);
        }
        let mut r = tagged(ctx, document);
        if asked.is_some() {
            r.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        }
        Ok(r)
    }

    /// Serves `/openapi/v2`, in JSON.
    ///
    /// # Errors
    /// 406 for a client that takes only protobuf.
    pub(crate) fn openapi_v2(&self, ctx: &Ctx) -> Result<Response<Body>, Status> {
        negotiate::output(&ctx.headers, &ctx.query, &[Media::Json], false, |_, t| t.is_none())?;
        let document = self.openapi.v2.get_or_init(|| {
            let all = self.openapi.documents.keys().map(|path| build(&self.registry, path));
            Document::new(&v2::merge(all))
        });
        Ok(tagged(ctx, document))
    }
}

/// A document, unless the client has it.
fn tagged(ctx: &Ctx, document: &Document) -> Response<Body> {
    let tag = format!("\"{}\"", document.hash);
    let known = ctx.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&tag);
    let mut r = if known {
        let mut r = Response::new(full(Bytes::new()));
        *r.status_mut() = StatusCode::NOT_MODIFIED;
        r
    } else {
        respond::raw(200, "application/json", &ctx.headers, document.json.clone())
    };
    let h = r.headers_mut();
    if let Ok(v) = HeaderValue::from_str(&tag) {
        h.insert(ETAG, v);
    }
    if known {
        h.remove(CONTENT_TYPE);
    }
    r
}

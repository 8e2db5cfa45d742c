//! OpenAPI documents: the v3 index with its hashes, a v3 document for each group-version, and the v2 document. They are
//! made when they are asked for and kept by clients, which ask again only when a hash has changed.

use std::fmt::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Response};
use pintle_api::resources::{GroupVersion, Resource};
use pintle_api::service::{Body, full};
use pintle_schema::openapi;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::context::Ctx;
use super::respond;
use crate::Server;
use crate::discovery::git_version;

impl Server {
    /// Serves `/openapi/...`; `None` for a path that is no document.
    pub(crate) fn openapi(self: &Arc<Self>, ctx: &Ctx, path: &str) -> Option<Response<Body>> {
        match path.strip_prefix("/openapi/")? {
            "v2" => Some(self.v2(ctx)),
            "v3" => Some(respond::bytes(200, "application/json", self.v3_index().to_string())),
            rest => self.v3(ctx, rest.strip_prefix("v3/")?),
        }
    }

    fn served(&self) -> impl Iterator<Item = &'static Resource> {
        self.registry.all().iter().map(|r| r.def)
    }

    fn group_versions(&self) -> Vec<GroupVersion<'static>> {
        let mut all: Vec<_> = self.served().map(Resource::group_version).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A hash of everything a document is made from.
    fn hash(&self, of: Option<GroupVersion<'_>>) -> String {
        let mut hash = Sha512::new();
        for part in openapi::source() {
            hash.update(part);
        }
        for r in self.served().filter(|r| of.is_none_or(|gv| r.group_version() == gv)) {
            hash.update(r.path(None));
            hash.update([0]);
        }
        hash.finalize().iter().fold(String::with_capacity(128), |mut out, b| {
            // Writing to a string cannot fail.
            let _ = write!(out, "{b:02X}");
            out
        })
    }

    fn v3_index(&self) -> Value {
        let paths: Map<String, Value> = self
            .group_versions()
            .into_iter()
            .map(|gv| {
                let path = document_path(gv);
                let url = format!("/openapi/v3/{path}?hash={}", self.hash(Some(gv)));
                (path, json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths})
    }

    fn v3(&self, ctx: &Ctx, path: &str) -> Option<Response<Body>> {
        let gv = self.group_versions().into_iter().find(|gv| document_path(*gv) == path)?;
        let hash = self.hash(Some(gv));
        if let Some(asked) = ctx.query.get("hash")
            && asked != hash
        {
            let mut response = Response::new(full(""));
            *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
            let to = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")).ok()?;
            response.headers_mut().insert(LOCATION, to);
            return Some(response);
        }
        let mut response = document(&ctx.headers, &hash, || {
            openapi::v3(self.served().filter(|r| r.group_version() == gv), &git_version())
        });
        if ctx.query.get("hash").is_some() {
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            headers.insert(EXPIRES, HeaderValue::from_static("Thu, 31 Dec 2099 23:59:59 GMT"));
        }
        Some(response)
    }

    fn v2(&self, ctx: &Ctx) -> Response<Body> {
        let accept = ctx.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
        let takes = |m: &str| accept.split(',').any(|a| a.split(';').next().is_some_and(|a| a.trim() == m));
        if !["application/json", "application/*", "*/*", ""].into_iter().any(takes) {
            let mut response = Response::new(full(""));
            *response.status_mut() = http::StatusCode::NOT_ACCEPTABLE;
            return response;
        }
        document(&ctx.headers, &self.hash(None), || openapi::v2(self.served(), &git_version()))
    }
}

/// The part of the path that names a group-version: `api/v1`, `apis/apps/v1`.
fn document_path(gv: GroupVersion<'_>) -> String {
    if gv.group.is_empty() { format!("api/{gv}") } else { format!("apis/{gv}") }
}

/// The document, or 304 when the client has it.
fn document(headers: &HeaderMap, hash: &str, make: impl FnOnce() -> Value) -> Response<Body> {
    let tag = format!("\"{hash}\"");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut r = Response::new(full(""));
        *r.status_mut() = http::StatusCode::NOT_MODIFIED;
        r
    } else if respond::takes_gzip(headers) {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing into memory cannot fail, and a value always serialises.
        let written = serde_json::to_writer(&mut zip, &make()).is_ok();
        let body = zip.finish().unwrap_or_default();
        debug_assert!(written);
        let mut r = respond::bytes(200, "application/json", body);
        r.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        r
    } else {
        respond::bytes(200, "application/json", make().to_string())
    };
    let out = response.headers_mut();
    out.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(ETAG, tag);
    }
    response
}

//! OpenAPI: one document a group-version in v3, one in all in v2, each made when first asked for and kept packed.

mod document;
mod gnostic;
mod gnostic3;
mod parameters;
mod paths;
mod schemas;
pub(crate) mod texts;
mod v2;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use pintle_api::Status;
use pintle_api::service::{Body, full};
use serde_json::json;

pub(crate) use schemas::name as type_name;

use crate::Server;
use crate::http::context::Ctx;
use crate::http::respond;
use crate::registry::Registry;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What clients ask for, and what they get.
const V2_MEDIA: &[(&str, &str)] =
    &[(JSON, JSON), ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF), (PROTOBUF, PROTOBUF)];

const PROTOBUF_3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// The same of v3.
const V3_MEDIA: &[(&str, &str)] = &[
    (JSON, JSON),
    (PROTOBUF_3, PROTOBUF_3),
    ("application/com.github.proto-openapi.spec.v3@v1.0+protobuf", PROTOBUF_3),
];

/// One document of v3, and the tag that tells its content.
struct Document {
    hash: String,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

/// The documents by path: `api/v1`, `apis/apps/v1`.
pub(crate) struct OpenApi {
    documents: BTreeMap<String, Document>,
    v2_hash: String,
    v2_json: OnceLock<Bytes>,
    v2_protobuf: OnceLock<Bytes>,
}

/// Tells the content of a document without making it: what it is made from is known, and so is what made it.
fn hash(registry: &Registry, document: &str) -> String {
    use sha2::Digest;
    let mut digest = sha2::Sha512::new();
    digest.update(env!("PINTLE_OPENAPI_HASH"));
    digest.update(document);
    for r in
        registry.all().iter().filter(|r| document == "v2" || document::path_of(r.def.group, r.def.version) == document)
    {
        digest.update([0]);
        digest.update(r.def.api_version());
        digest.update([0]);
        digest.update(r.def.resource);
    }
    hex::encode_upper(digest.finalize())
}

impl OpenApi {
    pub(crate) fn new(registry: &Registry) -> Self {
        let documents = document::all(registry)
            .into_iter()
            .map(|path| {
                let hash = hash(registry, &path);
                (path, Document { hash, json: OnceLock::new(), protobuf: OnceLock::new() })
            })
            .collect();
        let v2_hash = hash(registry, "v2");
        Self { documents, v2_hash, v2_json: OnceLock::new(), v2_protobuf: OnceLock::new() }
    }
}

/// The media type a client gets: the first of those it names, best first, that there is.
fn choose(headers: &HeaderMap, offered: &[(&'static str, &'static str)]) -> Option<&'static str> {
    let all: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let text = if all.is_empty() { "*/*".to_owned() } else { all.join(",") };
    let mut clauses: Vec<(f32, &str)> = text
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let q = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0);
            (q, range)
        })
        .filter(|(q, _)| *q > 0.0)
        .collect();
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.iter().find_map(|(_, range)| {
        let any = matches!(*range, "*/*" | "application/*" | "*");
        offered.iter().find(|(asked, _)| any || asked == range).map(|(_, given)| *given)
    })
}

fn not_acceptable() -> Response<Body> {
    let mut r = Response::new(full(Bytes::new()));
    *r.status_mut() = StatusCode::NOT_ACCEPTABLE;
    r
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut out)?;
    Ok(out)
}

/// What is kept in `slot`, made now if it is not there.
fn kept(slot: &OnceLock<Bytes>, make: impl FnOnce() -> io::Result<Vec<u8>>) -> Result<Bytes, Status> {
    if let Some(b) = slot.get() {
        return Ok(b.clone());
    }
    let made = make().map_err(|e| Status::internal(e.to_string()))?;
    Ok(slot.get_or_init(|| made.into()).clone())
}

/// A document, unless the client has it.
fn tagged(
    ctx: &Ctx,
    hash: &str,
    content_type: &'static str,
    document: impl FnOnce() -> Result<Bytes, Status>,
) -> Result<Response<Body>, Status> {
    let tag = format!("\"{hash}\"");
    let known = ctx.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag)
    });
    let mut r = if known {
        let mut r = Response::new(full(Bytes::new()));
        *r.status_mut() = StatusCode::NOT_MODIFIED;
        r
    } else {
        let packed = document()?;
        if respond::takes_gzip(&ctx.headers) {
            let mut r = respond::bytes(200, content_type, packed);
            r.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            r
        } else {
            let plain = unpack(&packed).map_err(|e| Status::internal(e.to_string()))?;
            respond::bytes(200, content_type, plain)
        }
    };
    let h = r.headers_mut();
    if let Ok(v) = HeaderValue::from_str(&tag) {
        h.insert(ETAG, v);
    }
    h.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    h.append(VARY, HeaderValue::from_static("Accept"));
    if known {
        h.remove(CONTENT_TYPE);
    }
    Ok(r)
}

impl Server {
    /// Serves `/openapi/v3` and what is below.
    ///
    /// # Errors
    /// When a document cannot be made.
    pub(crate) fn openapi(&self, ctx: &Ctx, path: &str) -> Result<Response<Body>, Status> {
        let rest = path.trim_start_matches("/openapi/v3").trim_matches('/');
        if rest.is_empty() {
            let mut index = serde_json::Map::new();
            for (path, d) in &self.openapi.documents {
                let url = format!("/openapi/v3/{path}?hash={}", d.hash);
                index.insert(path.clone(), json!({"serverRelativeURL": url}));
            }
            let text = json!({"paths": index}).to_string();
            let mut r = respond::raw(200, JSON, &ctx.headers, text.into());
            r.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            return Ok(r);
        }
        let Some(document) = self.openapi.documents.get(rest) else { return Ok(respond::page_not_found()) };
        let Some(media) = choose(&ctx.headers, V3_MEDIA) else { return Ok(not_acceptable()) };
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
        let mut r = tagged(ctx, &document.hash, media, || {
            if media == JSON {
                kept(&document.json, || document::v3(&self.registry, rest))
            } else {
                kept(&document.protobuf, || document::v3_protobuf(&self.registry, rest))
            }
        })?;
        if asked.is_some() {
            r.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            let year = self.clock.now() + jiff::SignedDuration::from_hours(365 * 24);
            if let Ok(v) = HeaderValue::from_str(&year.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()) {
                r.headers_mut().insert(EXPIRES, v);
            }
        }
        Ok(r)
    }

    /// Serves `/openapi/v2`, in JSON or protobuf.
    ///
    /// # Errors
    /// When the document cannot be made.
    pub(crate) fn openapi_v2(&self, ctx: &Ctx) -> Result<Response<Body>, Status> {
        let Some(media) = choose(&ctx.headers, V2_MEDIA) else { return Ok(not_acceptable()) };
        let all = &self.openapi;
        tagged(ctx, &all.v2_hash, media, || {
            if media == JSON {
                kept(&all.v2_json, || document::v2_json(&self.registry))
            } else {
                kept(&all.v2_protobuf, || document::v2_protobuf(&self.registry))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media() {
        let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        for (accept, want) in [
            ("", Some(JSON)),
            ("*/*", Some(JSON)),
            ("application/json", Some(JSON)),
            ("application/*", Some(JSON)),
            (old, Some(PROTOBUF)),
            (PROTOBUF, Some(PROTOBUF)),
            ("application/json;q=0.5,application/com.github.proto-openapi.spec.v2.v1.0+protobuf", Some(PROTOBUF)),
            ("text/html, */*;q=0.1", Some(JSON)),
            ("text/html", None),
        ] {
            let mut h = HeaderMap::new();
            if !accept.is_empty() {
                h.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
            }
            assert_eq!(choose(&h, V2_MEDIA), want, "{accept}");
            // Of v3 the other way round: what is of v2 there is none.
            let of_v2 = want == Some(PROTOBUF);
            let want = if of_v2 { accept.contains("json").then_some(JSON) } else { want };
            assert_eq!(choose(&h, V3_MEDIA), want, "{accept}");
        }
        let mut h = HeaderMap::new();
        h.insert(ACCEPT, HeaderValue::from_static("application/com.github.proto-openapi.spec.v3@v1.0+protobuf"));
        assert_eq!(choose(&h, V3_MEDIA), Some(PROTOBUF_3));
    }
}

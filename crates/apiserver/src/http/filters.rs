//! The filters around every request, in upstream's order.

use std::collections::HashSet;
use std::io::Read;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WARNING};
use http::{Request, Response};
use http_body_util::BodyExt;
use pintle_api::Status;
use pintle_api::service::{Body, InProcessUser};
use serde_json::Value;

use super::context::Ctx;
use super::info::RequestInfo;
use super::negotiate::Media;
use super::query::Query;
use super::respond;
use crate::Server;
use crate::audit::{self, Level, Record, Stage};
use crate::registry::options::FieldValidation;

const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

impl Server {
    /// Serves one request; whatever goes wrong is an answer.
    pub(crate) async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (mut parts, mut body) = request.into_parts();
        let query = Query::parse(parts.uri.query());
        let info = RequestInfo::new(&parts.method, parts.uri.path(), &query);
        let audit_id = parts
            .headers
            .get(&AUDIT_ID)
            .and_then(|v| v.to_str().ok())
            .filter(|v| !v.is_empty() && v.len() <= 64)
            .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let head = parts.method == http::Method::HEAD;
        let in_process = parts.extensions.remove::<InProcessUser>();
        let peer = parts.extensions.remove::<crate::authn::Peer>().unwrap_or_default();
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let mut ctx = Ctx::new(parts, query, info, audit_id);
        ctx.upgrade = parking_lot::Mutex::new(upgrade);
        let started = std::time::Instant::now();

        let outcome = AssertUnwindSafe(self.filtered(&mut ctx, in_process, &peer, &mut body)).catch_unwind().await;
        let mut refused = None;
        let panicked = outcome.is_err();
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => {
                let response = respond::error(&status, &ctx.headers, &ctx.query);
                refused = Some(status);
                response
            }
            Err(_) => {
                tracing::error!(path = %ctx.raw_path, "panic while serving a request");
                let text = format!(
                    "This request caused apiserver to panic. Look in the logs for details. (audit id {})",
                    ctx.audit_id
                );
                let mut s = Status::failure(500, "InternalError", text);
                s.details_mut();
                respond::error(&s, &ctx.headers, &ctx.query)
            }
        };
        if response.status().is_client_error() || response.status().is_server_error() {
            super::body::drain(&mut body).await;
        }
        if let Some(record) = ctx.audit.clone() {
            response = audited(&record, &ctx, response, refused.as_ref(), panicked).await;
        }
        self.count(&ctx, &response, started.elapsed());
        let headers = response.headers_mut();
        if let Ok(mut v) = HeaderValue::from_str(&ctx.audit_id) {
            // It does not come again: in HTTP/2's table of headers it would only push out those that do.
            v.set_sensitive(true);
            headers.insert(AUDIT_ID, v);
        }
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        if let Some((schema, level)) = ctx.flow() {
            for (name, uid) in [(FLOW_SCHEMA, schema), (PRIORITY_LEVEL, level)] {
                if let Ok(v) = HeaderValue::from_str(uid) {
                    headers.insert(name, v);
                }
            }
        }
        for text in sent(ctx.take_warnings()) {
            if let Some(v) = warning(&text) {
                headers.append(WARNING, v);
            }
        }
        if head {
            *response.body_mut() = pintle_api::service::full(bytes::Bytes::new());
        }
        response
    }

    /// Records a request whose sender could not be told.
    fn audit_stranger(&self, ctx: &Ctx, peer: &crate::authn::Peer, status: &Status) {
        let Some(audit) = &self.audit else { return };
        let Some(record) = audit.record(ctx, audit::sources(&ctx.headers, peer.address)) else { return };
        let mut attempted = Vec::new();
        if crate::authn::bearer(ctx).is_some() {
            attempted.push("bearer");
        }
        if !peer.certificates.is_empty() {
            attempted.push("x509");
        }
        let mut status = status.clone();
        if !attempted.is_empty() {
            status.message = format!("Authentication failed, attempted: {}", attempted.join(", "));
        }
        record.outcome(401, Some(&status));
        record.stage(Stage::ResponseStarted);
    }

    /// Counts an answered request.
    fn count(&self, ctx: &Ctx, response: &Response<Body>, took: std::time::Duration) {
        let (code, i) = (response.status().as_u16(), &ctx.info);
        // Paths and names that nobody serves must not make series without end.
        if code == 404 && (!i.is_resource || self.registry.get(&i.group, &i.version, &i.resource).is_none()) {
            return;
        }
        let size = response.extensions().get::<respond::Length>().map(|l| l.0);
        let size = size.or_else(|| http_body::Body::size_hint(response.body()).exact());
        self.metrics.observe(ctx, code, size, took, ctx.held());
    }

    async fn filtered(
        self: &Arc<Self>,
        ctx: &mut Ctx,
        in_process: Option<InProcessUser>,
        peer: &crate::authn::Peer,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let local = in_process.is_some();
        ctx.user = match in_process {
            Some(InProcessUser(user)) => user,
            None => match self.authenticate(ctx, peer).await {
                Ok(user) => user,
                Err(status) => {
                    self.audit_stranger(ctx, peer, &status);
                    return Err(status);
                }
            },
        };
        if let Some(audit) = &self.audit {
            let from = if local { Some(IpAddr::from([127, 0, 0, 1])) } else { peer.address };
            ctx.audit = audit.record(ctx, audit::sources(&ctx.headers, from));
        }
        if let Some(record) = &ctx.audit {
            record.stage(Stage::RequestReceived);
            ctx.want_objects &= record.level() < Level::RequestResponse || ctx.info.verb == "watch";
        }
        let asks = Arc::clone(&ctx.user);
        self.impersonate(ctx).await?;
        if let Some(record) = ctx.audit.as_ref().filter(|_| !Arc::ptr_eq(&asks, &ctx.user)) {
            record.impersonated(&ctx.user);
        }
        let long = ctx.info.is_long_running();
        let fair = self.fairness.is_on();
        let _guard = if long || local { None } else { Some(self.inflight.enter(ctx, !fair).await?) };
        let _ticket = if fair && !local && (!long || ctx.info.verb == "watch") {
            let patience = self.config.request_timeout / 4;
            match self.fairness.enter(ctx, self.seats(ctx), patience).await {
                Ok(ticket) => ticket,
                Err(_rejected) => {
                    self.metrics.terminated(ctx, 429);
                    let mut r = respond::text(429, "Too many requests, please try again later.\n");
                    r.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                    return Ok(r);
                }
            }
        } else {
            None
        };
        self.authorize(ctx).await?;
        let ctx = &*ctx;
        if !long {
            audit_request(self, ctx, body).await?;
        }
        if long || ctx.info.verb == "deletecollection" {
            return self.route(ctx, body).await;
        }
        let limit = self.config.request_timeout;
        tokio::time::timeout(limit, self.route(ctx, body)).await.unwrap_or_else(|_| {
            self.metrics.terminated(ctx, 504);
            Err(Status::timeout("request did not complete within the allotted timeout", 0))
        })
    }

    async fn route(self: &Arc<Self>, ctx: &Ctx, body: &mut Body) -> Result<Response<Body>, Status> {
        if ctx.info.is_resource { self.resource(ctx, body).await } else { self.other(ctx, body).await }
    }
}

/// Notes what is sent, when the audit policy wants it.
async fn audit_request(server: &Server, ctx: &Ctx, body: &mut Body) -> Result<(), Status> {
    let writes = matches!(ctx.info.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
    let Some(record) = ctx.audit.as_ref().filter(|r| writes && r.level() >= Level::Request) else { return Ok(()) };
    let bytes = super::body::read(body).await?;
    if !bytes.is_empty() {
        let kind = ctx.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let i = &ctx.info;
        let res = server.registry.get(&i.group, &i.version, &i.resource);
        let (api_version, of) = res.map_or(("", ""), |r| (r.api_version.as_str(), r.def.kind));
        record.sent(audit_value(kind, &bytes, api_version, of));
    }
    *body = pintle_api::service::full(bytes);
    Ok(())
}

/// An encoded object as a value, as far as it can be read.
fn audit_value(content_type: &str, bytes: &[u8], api_version: &str, kind: &str) -> Value {
    let base = content_type.split(';').next().unwrap_or_default();
    if base.contains("protobuf") {
        let decoded = crate::codec::decode(Media::Protobuf, bytes, api_version, kind, FieldValidation::Ignore);
        return decoded.map(|(v, _)| v).unwrap_or_default();
    }
    let media = if base.contains("yaml") { Media::Yaml } else { Media::Json };
    crate::codec::plain(media, bytes).unwrap_or_default()
}

/// Completes the audit record of an answered request.
async fn audited(
    record: &Arc<Record>,
    ctx: &Ctx,
    response: Response<Body>,
    refused: Option<&Status>,
    panicked: bool,
) -> Response<Body> {
    let code = response.status().as_u16();
    let long = ctx.info.is_long_running();
    let mut response = response;
    if record.level() == Level::RequestResponse && !long {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut plain = Vec::new();
        let zipped = parts.headers.contains_key(CONTENT_ENCODING)
            && flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).is_ok();
        record.answered(audit_value(kind, if zipped { &plain } else { &bytes }, "", ""));
        response = Response::from_parts(parts, pintle_api::service::full(bytes));
    }
    record.outcome(code, refused);
    if panicked {
        record.stage(Stage::Panic);
    } else if !long {
        record.stage(Stage::ResponseComplete);
    } else {
        record.stage(Stage::ResponseStarted);
        // A watch is complete when its stream is.
        if ctx.info.verb != "watch" || code >= 300 {
            record.stage(Stage::ResponseComplete);
        }
    }
    response
}

/// The texts as they are sent: each once, and all cut short when together they are too long for headers.
fn sent(texts: Vec<String>) -> Vec<String> {
    const MOST_IN_ALL: usize = 4 * 1024;
    const MOST_OF_ONE: usize = 256;
    let mut seen = HashSet::new();
    let mut texts: Vec<String> = texts.into_iter().filter(|t| !t.is_empty() && seen.insert(t.clone())).collect();
    let length = |t: &String| t.chars().count();
    if texts.iter().map(length).sum::<usize>() <= MOST_IN_ALL {
        return texts;
    }
    let mut written = 0;
    texts.retain_mut(|text| {
        if written >= MOST_IN_ALL {
            return false;
        }
        if let Some((end, _)) = text.char_indices().nth(MOST_OF_ONE) {
            text.truncate(end);
        }
        written += length(text);
        true
    });
    texts
}

/// The value of a `Warning` header.
fn warning(text: &str) -> Option<HeaderValue> {
    let mut out = String::from("299 - \"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    HeaderValue::from_bytes(out.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings() {
        let long = |n: usize| format!("{n}{}", "x".repeat(400));
        let check = |texts: Vec<String>, lengths: &[usize]| {
            assert_eq!(sent(texts).iter().map(String::len).collect::<Vec<_>>(), lengths);
        };
        check(vec!["a".into(), String::new(), "a".into(), "bc".into()], &[1, 2]);
        check((0..10).map(long).collect(), &[401; 10]);
        check((10..21).map(long).collect(), &[256; 11]);
        check((10..99).map(long).collect(), &[256; 16]);
        assert_eq!(warning("a \"b\"\n").unwrap(), "299 - \"a \\\"b\\\"\"");
        assert!(warning("é").is_some());
    }
}

//! WATCH over HTTP: frames of a chunked answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pintle_api::Status;
use pintle_api::object::{EventType, Object, WatchEvent};
use pintle_api::service::{Body, BoxError, ObjectStream};
use rand::RngExt;
use serde_json::json;

use super::context::Ctx;
use super::negotiate::{self, Accepted, Media};
use super::resource::{name_selector, namespace};
use super::{respond, websocket};
use crate::Server;
use crate::cache::{Watch, WatchItem, json_frame};
use crate::metrics::WatchMetrics;
use crate::registry::options::ListOptions;
use crate::registry::{Res, table, watch};

/// Starts a watch and answers with its stream.
///
/// # Errors
/// What is wrong with the request; what goes wrong later is an ERROR event.
pub(crate) async fn serve(server: &Arc<Server>, ctx: &Ctx, res: &Arc<Res>) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&ctx.headers, &ctx.query, Media::ALL, true, negotiate::resource_allows)?;
    let mut o = ListOptions::parse(&ctx.query, true).map_err(|e| named(e, res))?;
    name_selector(ctx, &mut o)?;
    let timeout = match o.timeout_seconds {
        Some(s) => Duration::from_secs(s),
        None => server.config.min_request_timeout.mul_f64(1.0 + rand::rng().random::<f64>()),
    };
    let include = match &accepted.target {
        Some(t) if t.kind == "Table" => table::include(&ctx.query)?,
        _ => table::Include::None,
    };
    let items = limited(server, watch::watch(res, &namespace(ctx, res), &o).await?, timeout);
    let running = (server.metrics.long_running(ctx), ctx.audit.clone().map(crate::audit::Completion));
    if ctx.want_objects {
        let res = Arc::clone(res);
        let events = items.map(move |item| {
            let _ = &running;
            item.and_then(|i| watch::event(&res, &i))
        });
        let mut r = respond::bytes(200, Media::Json.name(), Bytes::new());
        r.extensions_mut().insert(ObjectStream::new(events.boxed()));
        return Ok(r);
    }
    let content_type = match accepted.media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let binary = accepted.media == Media::Protobuf;
    let metrics = WatchMetrics::new(ctx);
    let mut framer =
        Framer { server: Arc::clone(server), res: Arc::clone(res), accepted, include, head: true, metrics };
    let frames = items.map(move |item| {
        let _ = &running;
        framer.frame(item)
    });
    if websocket::wanted(ctx) {
        // A message has its own length.
        let frames = frames.map(move |f| if binary { f.slice(4..) } else { f });
        let media = if binary { Media::Protobuf.name() } else { "application/json" };
        return websocket::serve(ctx, media, !binary, frames);
    }
    let frames = frames.map(|f| Ok::<_, BoxError>(Frame::data(f)));
    let mut r = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(r)
}

/// An error about where a watch starts names the resource.
fn named(status: Status, res: &Res) -> Status {
    match &status.details {
        Some(d) if d.kind.is_empty() && status.code == 422 => {
            Status::invalid(res.def.group, res.def.resource, "", d.causes.clone())
        }
        _ => status,
    }
}

/// Ends the stream at its time, after the first error and when the server stops.
fn limited(
    server: &Arc<Server>,
    items: Watch,
    timeout: Duration,
) -> impl Stream<Item = Result<WatchItem, Status>> + Send + use<> {
    let stop = server.stopping.clone().cancelled_owned();
    let until = Box::pin(async move {
        tokio::select! { () = tokio::time::sleep(timeout) => {}, () = stop => {} }
    });
    let mut failed = false;
    items
        .take_while(move |item| {
            let go_on = !failed;
            failed = item.is_err();
            std::future::ready(go_on)
        })
        .take_until(until)
}

/// Turns items into frames of the wire.
struct Framer {
    server: Arc<Server>,
    res: Arc<Res>,
    accepted: Accepted,
    include: table::Include,
    /// The next Table describes its columns.
    head: bool,
    metrics: WatchMetrics,
}

impl Framer {
    fn frame(&mut self, item: Result<WatchItem, Status>) -> Bytes {
        let complete = matches!(item, Ok(WatchItem::Bookmark { initial_events_end: true, .. }));
        let frame = self.make(item);
        self.metrics.event(frame.len());
        if complete {
            self.metrics.listed();
        }
        frame
    }

    fn make(&mut self, item: Result<WatchItem, Status>) -> Bytes {
        let made = item.and_then(|item| match &item {
            // The same frame for all who watch.
            WatchItem::Event(d) if self.accepted.target.is_none() && !self.res.converts() => {
                Ok(match self.accepted.media {
                    Media::Protobuf => d.protobuf_frame(|d| self.protobuf(d.kind, &d.object)).clone(),
                    _ => d.json_frame().clone(),
                })
            }
            item => watch::event(&self.res, item).and_then(|e| self.own(&e)),
        });
        made.unwrap_or_else(|status| {
            let text = status.to_json();
            match self.accepted.media {
                Media::Protobuf => crate::codec::protobuf_frame("ERROR", &text),
                _ => {
                    let mut out = b"{\"type\":\"ERROR\",\"object\":".to_vec();
                    out.extend_from_slice(&text);
                    out.extend_from_slice(b"}\n");
                    out.into()
                }
            }
        })
    }

    /// The frame of an object whose body the cache keeps.
    fn protobuf(&self, kind: EventType, object: &Object) -> Bytes {
        let Some(ty) = self.res.ty else { return Bytes::new() };
        let body = crate::codec::protobuf_body(object, ty);
        let enveloped = pintle_schema::proto::seal(&self.res.api_version, self.res.def.kind, body);
        pintle_schema::proto::watch_frame(kind.as_str(), &enveloped).into()
    }

    fn own(&mut self, e: &WatchEvent) -> Result<Bytes, Status> {
        let object: Bytes = match &self.accepted.target {
            None => e.object.bytes().clone(),
            Some(t) if t.kind == "Table" => {
                let head = std::mem::replace(&mut self.head, false);
                let metadata = json!({"resourceVersion": e.object.resource_version().to_string()});
                let now = self.server.clock.now();
                let one = std::iter::once(&*e.object);
                table::table(&self.res, &t.version, &metadata, one, self.include, head, now)?.into()
            }
            Some(t) => table::partial(&e.object, &t.version),
        };
        Ok(match self.accepted.media {
            Media::Protobuf => protobuf(e.kind, &object),
            _ => json_frame(e.kind, &object),
        })
    }
}

fn protobuf(kind: EventType, object: &[u8]) -> Bytes {
    crate::codec::protobuf_frame(kind.as_str(), object)
}

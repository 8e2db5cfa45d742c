//! WATCH over HTTP: frames of a chunked answer, or messages of a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pintle_api::Status;
use pintle_api::object::WatchEvent;
use pintle_api::service::{Body, BoxError, EventStream, ObjectStream};
use rand::RngExt;
use serde_json::json;

use super::context::Ctx;
use super::negotiate::{self, Accepted, Media};
use super::resource::{name_selector, namespace};
use super::respond;
use crate::Server;
use crate::registry::options::ListOptions;
use crate::registry::{Res, table, watch};

/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Starts a watch and answers with its stream.
///
/// # Errors
/// What is wrong with the request; what goes wrong later is an ERROR event.
pub(crate) async fn serve(server: &Arc<Server>, ctx: &Ctx, res: &Arc<Res>) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&ctx.headers, &ctx.query, Media::ALL, true, negotiate::resource_allows)?;
    let mut o = ListOptions::parse(&ctx.query, true)?;
    name_selector(ctx, &mut o)?;
    let timeout = match o.timeout_seconds {
        Some(s) => Duration::from_secs(s),
        None => server.config.min_request_timeout.mul_f64(1.0 + rand::rng().random::<f64>()),
    };
    let include = match &accepted.target {
        Some(t) if t.kind == "Table" => table::include(&ctx.query)?,
        _ => table::Include::None,
    };
    let events = watch::watch(res, &namespace(ctx, res), &o).await?;
    let events = limited(server, res, events, timeout, o.bookmarks);
    if ctx.want_objects {
        let mut r = respond::bytes(200, Media::Json.name(), Bytes::new());
        r.extensions_mut().insert(ObjectStream::new(events.boxed()));
        return Ok(r);
    }
    let content_type = match accepted.media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let framer = Framer { server: Arc::clone(server), res: Arc::clone(res), accepted, include, head: true };
    let frames = framer.frames(events);
    let body = StreamBody::new(frames.map(|b| Ok::<_, BoxError>(Frame::data(b))));
    let mut r = Response::new(BodyExt::boxed_unsync(body));
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(r)
}

/// Ends the stream at its time, at the first error and when the server stops; adds bookmarks.
fn limited(
    server: &Arc<Server>,
    res: &Arc<Res>,
    events: EventStream,
    timeout: Duration,
    bookmarks: bool,
) -> impl Stream<Item = Result<WatchEvent, Status>> + Send + use<> {
    let stop = server.stopping.clone();
    let res = Arc::clone(res);
    let deadline = tokio::time::Instant::now() + timeout;
    let next_bookmark = tokio::time::Instant::now() + BOOKMARK_EVERY;
    futures::stream::unfold((events, false, next_bookmark, 0u64), move |(mut events, done, mut mark, mut seen)| {
        let (stop, res) = (stop.clone(), Arc::clone(&res));
        async move {
            if done {
                return None;
            }
            tokio::select! {
                biased;
                event = events.next() => {
                    let event = event?;
                    let failed = event.is_err();
                    if let Ok(e) = &event {
                        seen = seen.max(e.object.resource_version());
                    }
                    Some((event, (events, failed, mark, seen)))
                }
                () = tokio::time::sleep_until(deadline) => None,
                () = stop.cancelled() => None,
                () = tokio::time::sleep_until(mark), if bookmarks && seen > 0 => {
                    mark = tokio::time::Instant::now() + BOOKMARK_EVERY;
                    let event = watch::bookmark(&res, seen, false);
                    Some((event, (events, false, mark, seen)))
                }
            }
        }
    })
}

/// Turns events into frames of the wire.
struct Framer {
    server: Arc<Server>,
    res: Arc<Res>,
    accepted: Accepted,
    include: table::Include,
    /// The next Table describes its columns.
    head: bool,
}

impl Framer {
    fn frames(
        mut self,
        events: impl Stream<Item = Result<WatchEvent, Status>> + Send + 'static,
    ) -> impl Stream<Item = Bytes> + Send {
        // What is ready together is written together.
        events.ready_chunks(64).map(move |batch| {
            let mut out = BytesMut::new();
            for event in batch {
                self.frame(&mut out, event);
            }
            out.freeze()
        })
    }

    fn frame(&mut self, out: &mut BytesMut, event: Result<WatchEvent, Status>) {
        let made = event.and_then(|e| {
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
            Ok((e.kind, object))
        });
        let (kind, object) = match made {
            Ok((kind, object)) => (kind.as_str(), object),
            Err(status) => ("ERROR", status.to_json().into()),
        };
        if self.accepted.media == Media::Protobuf {
            crate::codec::protobuf_frame(out, kind, &object);
            return;
        }
        out.reserve(object.len() + 40);
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\",\"object\":");
        out.put_slice(&object);
        out.put_slice(b"}\n");
    }
}

//! The image service of a running node: HTTP on a Unix socket that only root can open.

use std::convert::Infallible;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pintle_runtime::ImageService;
use pintle_runtime::embedded::Embedded;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Body of requests and answers.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// An image as this service shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) tags: Vec<String>,
    pub(crate) digests: Vec<String>,
    pub(crate) size: u64,
    pub(crate) pinned: bool,
}

impl From<pintle_runtime::Image> for Listed {
    fn from(i: pintle_runtime::Image) -> Self {
        Self { id: i.id, tags: i.repo_tags, digests: i.repo_digests, size: i.size, pinned: i.pinned }
    }
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn serve(socket: &Path, runtime: Embedded, shutdown: CancellationToken) -> anyhow::Result<()> {
    // One from a run that was killed; the lock of the data directory says that nobody uses it.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        tracing::error!("the image socket is gone: {e}");
                        return;
                    }
                },
                () = shutdown.cancelled() => return,
            };
            let runtime = runtime.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let runtime = runtime.clone();
                    async move {
                        let request = request.map(|b| b.map_err(Into::into).boxed_unsync());
                        Ok::<_, Infallible>(answer(&runtime, request).await)
                    }
                });
                // A client that goes away is its own affair.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(())
}

/// Answers one request.
pub(crate) async fn answer(runtime: &Embedded, request: Request<Body>) -> Response<Body> {
    act(runtime, request).await.unwrap_or_else(|e| {
        let mut response = Response::new(full(format!("{e:#}")));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response
    })
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn listed(images: Vec<Listed>) -> anyhow::Result<Response<Body>> {
    Ok(Response::new(full(serde_json::to_vec(&images)?)))
}

async fn act(runtime: &Embedded, request: Request<Body>) -> anyhow::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let query: Vec<(String, String)> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.to_owned(), percent_encoding::percent_decode_str(v).decode_utf8_lossy().into_owned()))
        .collect();
    let all = |key: &str| query.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect::<Vec<_>>();
    let images = runtime.images().clone();
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/images") => {
            let mut found: Vec<Listed> = images.all().iter().map(|r| r.image().into()).collect();
            found.sort_by(|a, b| a.tags.cmp(&b.tags));
            listed(found)
        }
        (&Method::DELETE, "/images") => {
            for name in all("image") {
                if images.find(&name).is_none() {
                    anyhow::bail!("no such image: {name}");
                }
                images.remove(&name)?;
            }
            listed(Vec::new())
        }
        (&Method::POST, "/import") => {
            let name = all("name").pop();
            let data = BodyStream::new(body).try_filter_map(|frame| async move { Ok(frame.into_data().ok()) });
            let reader = StreamReader::new(data.map_err(std::io::Error::other).boxed());
            let ids = tokio::task::spawn_blocking({
                let images = images.clone();
                move || images.import(SyncIoBridge::new(reader), name.as_deref())
            });
            let ids = ids.await??;
            listed(ids.iter().filter_map(|id| images.find(id)).map(|r| r.image().into()).collect())
        }
        (&Method::POST, "/pull") => {
            let mut found = Vec::new();
            for name in all("image") {
                let reference = runtime.pull_image(&name, None).await?;
                found.extend(images.find(&reference).map(|r| r.image().into()));
            }
            listed(found)
        }
        (&Method::POST, "/prune") => {
            let gone = images.prune(|_| false)?;
            listed(
                gone.into_iter()
                    .map(|id| Listed { id, tags: vec![], digests: vec![], size: 0, pinned: false })
                    .collect(),
            )
        }
        (&Method::GET, "/export") => {
            let names = all("image");
            if let Some(missing) = names.iter().find(|n| images.find(n).is_none()) {
                anyhow::bail!("no such image: {missing}");
            }
            let (writer, reader) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(8);
            tokio::task::spawn_blocking(move || {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let mut to = std::io::BufWriter::with_capacity(64 << 10, Frames(writer.clone()));
                let done = images
                    .export(&names, &mut to)
                    .map_err(|e| e.to_string())
                    .and_then(|()| to.flush().map_err(|e| e.to_string()));
                if let Err(e) = done {
                    // A reader that went away hears of nothing.
                    let _ = writer.blocking_send(Err(e.into()));
                }
            });
            let frames = futures::stream::unfold(reader, |mut r| async move { Some((r.recv().await?, r)) });
            Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
        }
        (method, path) => anyhow::bail!("the image service knows no {method} {path}"),
    }
}

/// Writes go out as frames of a body.
struct Frames(tokio::sync::mpsc::Sender<Result<Frame<Bytes>, BoxError>>);

impl Write for Frames {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let frame = Frame::data(Bytes::copy_from_slice(data));
        self.0.blocking_send(Ok(frame)).map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

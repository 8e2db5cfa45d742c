//! Streams of frames over WebSocket, for clients that watch so.

use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pintle_api::Status;
use pintle_api::service::{Body, full};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::context::Ctx;

const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

fn names(headers: &HeaderMap, name: http::HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case(wanted))
}

/// Whether the client asks for a WebSocket.
pub(crate) fn wanted(ctx: &Ctx) -> bool {
    ctx.method == Method::GET && names(&ctx.headers, CONNECTION, "upgrade") && names(&ctx.headers, UPGRADE, "websocket")
}

/// The protocols a client offers, in its order; a bearer token among them is none.
pub(crate) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).map(str::trim).filter(|p| !p.is_empty() && !p.starts_with(BEARER))
}

/// One frame as a message: text as it is.
fn message(frame: Bytes, text: bool) -> Message {
    if text {
        match Utf8Bytes::try_from(frame) {
            Ok(text) => return Message::Text(text),
            // Frames of text are JSON, which always is UTF-8.
            Err(_) => return Message::Text(Utf8Bytes::default()),
        }
    }
    Message::Binary(frame)
}

/// Switches the connection to a WebSocket and sends each frame as a message. What the client sends is ignored; its end
/// ends the stream.
///
/// # Errors
/// 400 when the handshake or the connection does not allow it.
pub(crate) fn serve(
    ctx: &Ctx,
    content_type: &'static str,
    text: bool,
    frames: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Response<Body>, Status> {
    let bad = Status::bad_request;
    if !names(&ctx.headers, http::header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(bad("missing or bad WebSocket Version"));
    }
    let key = ctx.headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("mismatch challenge/response"))?;
    let accept = derive_accept_key(key.as_bytes());
    let protocol = protocols(&ctx.headers).next().and_then(|p| HeaderValue::from_str(p).ok());
    let Some(upgrade) = ctx.upgrade.lock().take() else {
        return Err(bad("the connection cannot switch protocols"));
    };
    tokio::spawn(async move {
        let stream = match upgrade.await {
            Ok(stream) => TokioIo::new(stream),
            Err(e) => return tracing::debug!("switching to a WebSocket failed: {e}"),
        };
        let (mut out, mut back) = WebSocketStream::from_raw_socket(stream, Role::Server, None).await.split();
        let mut frames = std::pin::pin!(frames);
        loop {
            tokio::select! {
                frame = frames.next() => {
                    let Some(frame) = frame else { break };
                    if out.send(message(frame, text)).await.is_err() {
                        return;
                    }
                }
                received = back.next() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        }
        let _ = out.close().await;
    });
    let mut r = Response::new(full(Bytes::new()));
    *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = r.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(v) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, v);
    }
    if let Some(v) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, v);
    }
    Ok(r)
}

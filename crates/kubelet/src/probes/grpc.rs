//! The gRPC health check (`grpc.health.v1.Health/Check`), spoken by hand: one message each way.

use super::http::connect;
use super::{Answer, USER_AGENT};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;

/// A request: field 1 is the service's name.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(0));
    framed.put(message);
    framed.freeze()
}

fn varint(out: &mut BytesMut, mut n: usize) {
    while n >= 0x80 {
        out.put_u8(u8::try_from(n & 0x7f).unwrap_or(0) | 0x80);
        n >>= 7;
    }
    out.put_u8(u8::try_from(n).unwrap_or(0));
}

/// The status in an answer: field 1, a number; absent is 0.
fn status(framed: &[u8]) -> Option<u8> {
    let message = framed.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, n, ..] => Some(*n),
        _ => None,
    }
}

fn name(status: u8) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

async fn ask(host: &str, port: u16, service: &str) -> Result<Answer, String> {
    let stream = connect(host, port).await?;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = hyper::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(Full::new(request(service)))
        .map_err(|e| e.to_string())?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let in_header = |h: &hyper::HeaderMap, k: &str| h.get(k).and_then(|v| v.to_str().ok()).map(String::from);
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.map_err(|e| e.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let get = |k: &str| in_header(&trailers, k).or_else(|| in_header(&headers, k));
        let code = get("grpc-status").unwrap_or_else(|| "0".into());
        match code.as_str() {
            "0" => {}
            "12" => {
                return Ok(Answer::Failure(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
                        .to_string()
                        + &get("grpc-message").unwrap_or_default(),
                ));
            }
            _ => {
                return Ok(Answer::Failure(format!(
                    "error: health rpc probe failed: {}",
                    get("grpc-message").unwrap_or_default()
                )));
            }
        }
        Ok(match status(&body.to_bytes()) {
            Some(1) => Answer::Success,
            Some(n) => Answer::Failure(format!("service unhealthy (responded with {:?})", name(n))),
            None => Answer::Failure("error: health rpc probe failed: malformed answer".into()),
        })
    };
    let out = answered.await;
    driver.abort();
    out
}

/// A probe by gRPC.
pub async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Answer {
    let at = format!("{host}:{port}");
    let within = pintle_api::duration::format(timeout);
    match tokio::time::timeout(timeout, ask(host, port, service)).await {
        Ok(Ok(a)) => a,
        Ok(Err(e)) => Answer::Failure(format!(
            "error: failed to connect service at {at:?}: connection error: desc = \"transport: Error while dialing: {e}\""
        )),
        Err(_) => Answer::Failure(format!(
            "timeout: failed to connect service {at:?} within {within}: context deadline exceeded"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(request(&"x".repeat(200)).len(), 5 + 3 + 200);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0]), None);
    }
}

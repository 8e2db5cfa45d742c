//! Writing answers.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use http::{HeaderMap, Response, StatusCode};
use pintle_api::Status;
use pintle_api::service::{Body, full};

use super::negotiate::{Accepted, Media};
use super::query::Query;
use crate::codec;

/// Answers at least this long are compressed for clients that take gzip.
pub(crate) const GZIP_OVER: usize = 128 * 1024;

/// An answer of these bytes.
pub(crate) fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body: Bytes = body.into();
    let mut r = Response::new(full(body));
    *r.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    r
}

/// Response extension: how long a body that is written piece by piece will be.
#[derive(Clone, Copy)]
pub(crate) struct Length(pub(crate) u64);

/// A plain text answer.
pub(crate) fn text(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    let mut r = bytes(code, "text/plain; charset=utf-8", body);
    r.headers_mut().insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    r
}

/// Upstream's answer to a path nobody serves.
pub(crate) fn page_not_found() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// JSON text in the form the client asked for.
pub(crate) fn json(code: u16, accepted: &Accepted, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    match accepted.media {
        Media::Yaml => bytes(code, "application/yaml", codec::json_to_yaml(body)),
        Media::Protobuf => match codec::json_to_protobuf(body) {
            Ok(b) => compressed(code, Media::Protobuf.name(), headers, b),
            // What has no protobuf form (a Table) was not offered in it, so this is a fault of ours.
            Err(e) => error(&e, headers, &Query::default()),
        },
        Media::Json if accepted.pretty => compressed(code, Media::Json.name(), headers, pretty(body)),
        Media::Json => {
            let mut out = BytesMut::with_capacity(body.len() + 1);
            out.put_slice(body);
            out.put_u8(b'\n');
            compressed(code, Media::Json.name(), headers, out.freeze())
        }
    }
}

/// Indented JSON with keys in the order they have.
pub(crate) fn pretty(body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(body.len() * 2);
    let mut depth = 0usize;
    let mut i = 0;
    let indent = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth * 2));
    };
    while i < body.len() {
        match body[i] {
            b'"' => {
                let end = pintle_api::scan::skip_value(body, i).unwrap_or(body.len());
                out.extend_from_slice(&body[i..end]);
                i = end;
                continue;
            }
            open @ (b'{' | b'[') => {
                out.push(open);
                let next = pintle_api::scan::skip_space(body, i + 1);
                if matches!(body.get(next), Some(b'}' | b']')) {
                    out.push(body[next]);
                    i = next + 1;
                    continue;
                }
                depth += 1;
                indent(&mut out, depth);
            }
            close @ (b'}' | b']') => {
                depth = depth.saturating_sub(1);
                indent(&mut out, depth);
                out.push(close);
            }
            b',' => {
                out.push(b',');
                indent(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\t' | b'\r' => {}
            other => out.push(other),
        }
        i += 1;
    }
    out.into()
}

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.split(';').next().unwrap_or_default().trim() == "gzip")
}

/// Bytes as they are, compressed for those who take that.
pub(crate) fn raw(code: u16, content_type: &'static str, headers: &HeaderMap, body: Bytes) -> Response<Body> {
    compressed(code, content_type, headers, body)
}

fn compressed(code: u16, content_type: &'static str, headers: &HeaderMap, body: Bytes) -> Response<Body> {
    if body.len() <= GZIP_OVER || !takes_gzip(headers) {
        return bytes(code, content_type, body);
    }
    let mut gz = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    // Writing to a vector does not fail; were it to, the plain form is right too.
    let packed = gz.write_all(&body).and_then(|()| gz.finish());
    let Ok(packed) = packed else { return bytes(code, content_type, body) };
    let mut r = bytes(code, content_type, packed);
    r.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    r.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    r
}

/// A `Status` as the answer, in a form the client takes when it asks for one we have, else in JSON.
pub(crate) fn error(status: &Status, headers: &HeaderMap, query: &Query) -> Response<Body> {
    let accepted = super::negotiate::output(headers, query, Media::ALL, false, |_, t| t.is_none())
        .unwrap_or_else(|_| Accepted::json());
    let code = if status.code == 0 { 500 } else { status.code };
    let mut r = match accepted.media {
        Media::Protobuf => match codec::json_to_protobuf(&status.to_json()) {
            Ok(b) => bytes(code, Media::Protobuf.name(), b),
            Err(_) => json(code, &Accepted::json(), headers, &status.to_json()),
        },
        _ => json(code, &accepted, headers, &status.to_json()),
    };
    if let Some(d) = &status.details
        && d.retry_after_seconds > 0
    {
        r.headers_mut().insert(RETRY_AFTER, HeaderValue::from(d.retry_after_seconds));
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indents() {
        let got = pretty(br#"{"a":{},"b":[1,{"c":"x:,{"}],"d":[]}"#);
        assert_eq!(
            std::str::from_utf8(&got).unwrap(),
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": \"x:,{\"\n    }\n  ],\n  \"d\": []\n}"
        );
    }

    #[test]
    fn compresses_only_what_is_large() {
        let mut h = HeaderMap::new();
        h.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        assert!(
            compressed(200, "a/b", &h, Bytes::from(vec![b'x'; GZIP_OVER])).headers().get(CONTENT_ENCODING).is_none()
        );
        assert_eq!(
            compressed(200, "a/b", &h, Bytes::from(vec![b'x'; GZIP_OVER + 1])).headers().get(CONTENT_ENCODING).unwrap(),
            "gzip"
        );
    }
}

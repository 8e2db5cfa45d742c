//! Answers, and the query of a request.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::io;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer.
pub struct Reply {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Reply {
    /// Plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let kind = (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        Self { status, headers: vec![kind], body: full(text.into()) }
    }

    /// JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => {
                let kind = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Self { status: 200, headers: vec![kind], body: full(bytes) }
            }
            Err(e) => Self::text(500, format!("{e}\n")),
        }
    }

    /// Bytes of a kind.
    pub fn bytes(kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self { status: 200, headers: vec![(CONTENT_TYPE, HeaderValue::from_static(kind))], body: full(bytes) }
    }

    /// Plain text as it comes.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        let kind = (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        let body = StreamBody::new(stream.map(|b| b.map(Frame::data))).boxed_unsync();
        Self { status: 200, headers: vec![kind], body }
    }

    /// The same with further headers.
    #[must_use]
    pub fn with(mut self, headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Only a status and headers.
    pub fn switching(headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self { status: 101, headers, body: full(Bytes::new()) }
    }

    /// As hyper wants it.
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
            .headers_mut()
            .extend(self.headers.into_iter().map(|(k, v)| (Some(k), v)).filter_map(|(k, v)| Some((k?, v))));
        response
    }
}

/// The parameters of a query, decoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

impl Query {
    /// Of a URI's query.
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|p| p.split_once('=').map_or_else(|| (decode(p), String::new()), |(k, v)| (decode(k), decode(v))))
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == name).map(|(_, v)| v.clone()).collect()
    }

    /// Whether a parameter is set to something true.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true" | "True" | "TRUE" | "t" | "T"))
    }

    /// A number.
    ///
    /// # Errors
    /// When it is not one.
    pub fn number(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(v) => v.parse().map(Some).map_err(|_| format!("invalid value {v:?} for {name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let q = Query::parse(Some("command=sh&command=-c&command=a%20b+c&tty=1&x"));
        assert_eq!(q.all("command"), ["sh", "-c", "a b c"]);
        assert!(q.is("tty") && !q.is("x") && q.get("none").is_none());
        assert!(q.number("command").is_err());
    }
}

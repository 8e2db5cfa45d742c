//! Links in what a proxied server answers: made to lead through the proxy again.
//!
//! Source of the behaviour: `k8s.io/apimachinery/pkg/util/proxy`, type `Transport`.

use std::io::{Read as _, Write as _};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use html5gum::emitters::default::{DefaultEmitter, StartTag, Token};
use html5gum::{SpanBound, Tokenizer};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use pintle_api::Status;
use pintle_api::service::{Body, full};

/// The longest page that is rewritten, in bytes: it must be held in memory.
const MAX_PAGE: usize = if cfg!(test) { 64 << 10 } else { 64 << 20 };

const TOO_LONG: &str = "the page is too long to be rewritten";

/// Attributes that hold a link.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where a proxied answer comes from and how the client got there.
#[derive(Debug)]
pub(super) struct Rewrite {
    /// The path of the proxy: `/api/v1/namespaces/n/pods/p/proxy`.
    pub(super) prefix: String,
    /// `host:port` that was asked.
    pub(super) source: String,
    /// `Host` of the client's request.
    pub(super) requested: String,
}

impl Rewrite {
    /// A link that leads through the proxy; `None` when it stays as it is: another host's, or a relative one.
    fn link(&self, target: &str) -> Option<String> {
        let (host, rest) = match target.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => match target.split_once("://") {
                Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
                    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
                }
                _ => ("", target),
            },
        };
        let (path, after) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        if !path.starts_with('/') || !(host.is_empty() || host == self.source || host == self.requested) {
            return None;
        }
        // A link by the name under which the client knows the API server keeps it.
        let front = if host == self.requested { &target[..target.len() - rest.len()] } else { "" };
        if path.starts_with(&self.prefix) {
            return Some(format!("{front}{path}{after}"));
        }
        let slash = if path.ends_with('/') && clean(path) != "/" { "/" } else { "" };
        let joined = if clean(path) == "/" { format!("{}/", self.prefix) } else { self.prefix.clone() + &clean(path) };
        Some(format!("{front}{joined}{slash}{after}"))
    }

    /// The text of a page with its links led through the proxy.
    fn page(&self, html: &str) -> String {
        let mut out = String::with_capacity(html.len() + 256);
        let mut done = 0;
        let tokens = Tokenizer::new_with_emitter(html, DefaultEmitter::<usize>::new_with_span());
        for Ok(token) in tokens {
            let Token::StartTag(tag) = token else { continue };
            let Some(text) = self.tag(&tag) else { continue };
            let (Some(before), Some(_)) = (html.get(done..tag.span.start), html.get(tag.span.end..)) else { continue };
            out.push_str(before);
            out.push_str(&text);
            done = tag.span.end;
        }
        out.push_str(html.get(done..).unwrap_or_default());
        out
    }

    /// A tag with other links; `None` when there is none to change.
    fn tag<S: SpanBound + Ord>(&self, tag: &StartTag<S>) -> Option<String> {
        let name = std::str::from_utf8(&tag.name).ok()?;
        let (_, links) = LINKS.iter().find(|(n, _)| *n == name)?;
        let mut changed = false;
        let mut attributes: Vec<_> = tag.attributes.iter().collect();
        attributes.sort_by_key(|(_, v)| v.span.start);
        let mut out = format!("<{name}");
        for (key, value) in attributes {
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            let link = links.contains(&&*key).then(|| self.link(&value)).flatten();
            changed |= link.is_some();
            let value = link.as_deref().unwrap_or(&value);
            let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
            out.push_str(&format!(" {key}=\"{value}\""));
        }
        out.push_str(if tag.self_closing { "/>" } else { ">" });
        changed.then_some(out)
    }

    /// An answer as the client may use it.
    ///
    /// # Errors
    /// A page that breaks off, is too long, or is not what its `Content-Encoding` says.
    pub(super) async fn answer(self, mut answer: Response<Body>) -> Result<Response<Body>, Status> {
        if let Some(location) = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()) {
            if let Some(v) = self.link(location).and_then(|l| HeaderValue::from_str(&l).ok()) {
                answer.headers_mut().insert(LOCATION, v);
            }
            return Ok(answer);
        }
        let header = |h: &HeaderMap, name| h.get(name).and_then(|v: &HeaderValue| v.to_str().ok().map(str::to_owned));
        let kind = header(answer.headers(), CONTENT_TYPE).unwrap_or_default();
        let coding = header(answer.headers(), CONTENT_ENCODING).unwrap_or_default();
        let html = kind.split(';').next().unwrap_or_default().trim() == "text/html";
        if !html || !matches!(&*coding, "" | "gzip" | "deflate") {
            return Ok(answer);
        }
        let (mut parts, mut incoming) = answer.into_parts();
        let mut body = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            body.extend_from_slice(&data);
            if body.len() > MAX_PAGE {
                return Err(broken(TOO_LONG));
            }
        }
        let body = body.freeze();
        let text = decoded(&coding, &body).map_err(broken)?;
        // Bytes that are no UTF-8 are not ours to mend.
        let body = match std::str::from_utf8(&text) {
            Ok(text) => encoded(&coding, self.page(text).into_bytes()).map_err(broken)?.into(),
            Err(_) => body,
        };
        parts.headers.remove(CONTENT_LENGTH);
        Ok(Response::from_parts(parts, full(body)))
    }
}

fn broken(e: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("error trying to reach service: {e}"))
}

fn decoded(coding: &str, body: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let most = MAX_PAGE as u64 + 1;
    match coding {
        "gzip" => flate2::read::GzDecoder::new(&**body).take(most).read_to_end(&mut out)?,
        "deflate" => flate2::read::DeflateDecoder::new(&**body).take(most).read_to_end(&mut out)?,
        _ => return Ok(body.to_vec()),
    };
    if out.len() > MAX_PAGE { Err(std::io::Error::other(TOO_LONG)) } else { Ok(out) }
}

fn encoded(coding: &str, text: Vec<u8>) -> std::io::Result<Vec<u8>> {
    match coding {
        "gzip" => {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
            w.write_all(&text)?;
            w.finish()
        }
        "deflate" => {
            let mut w = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
            w.write_all(&text)?;
            w.finish()
        }
        _ => Ok(text),
    }
}

/// A path that starts with `/`, without empty parts, `.` and `..`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite() -> Rewrite {
        Rewrite { prefix: "/p/proxy".into(), source: "10.0.0.1:80".into(), requested: "api:6443".into() }
    }

    #[test]
    fn links() {
        let check =
            |target: &str, expect: Option<&str>| assert_eq!(rewrite().link(target).as_deref(), expect, "{target}");
        check("/a", Some("/p/proxy/a"));
        check("/a/?q=/x#/y", Some("/p/proxy/a/?q=/x#/y"));
        check("/", Some("/p/proxy/"));
        check("/a/../b//c", Some("/p/proxy/b/c"));
        check("/p/proxy/a", Some("/p/proxy/a"));
        check("http://10.0.0.1:80/a", Some("/p/proxy/a"));
        check("//10.0.0.1:80/a", Some("/p/proxy/a"));
        check("https://api:6443/a", Some("https://api:6443/p/proxy/a"));
        check("http://elsewhere/a", None);
        check("a/b", None);
        check("", None);
        check("#here", None);
        check("mailto:a@b", None);
        check("http://10.0.0.1:80", None);
    }

    #[test]
    fn pages() {
        let check = |html: &str, expect: &str| assert_eq!(rewrite().page(html), expect);
        check("<a href=\"/rewriteme\">test</a>", "<a href=\"/p/proxy/rewriteme\">test</a>");
        check(
            "<!DOCTYPE html>\n<p id=x>é <A class=c  HREF=/a?b&amp;c>t</A><img src='/i'/>",
            "<!DOCTYPE html>\n<p id=x>é <a class=\"c\" href=\"/p/proxy/a?b&amp;c\">t</A><img src=\"/p/proxy/i\"/>",
        );
        check("<a href=\"rel\">x</a> 1 < 2 & </b", "<a href=\"rel\">x</a> 1 < 2 & </b");
        check("<a href=\"/broken", "<a href=\"/broken");
        check("", "");
    }

    #[tokio::test]
    async fn answers() {
        let answer = |headers: &[(&'static str, &'static str)], body: Vec<u8>| {
            let mut r = Response::new(full(Bytes::from(body)));
            r.headers_mut()
                .extend(headers.iter().map(|(k, v)| (http::HeaderName::from_static(k), HeaderValue::from_static(v))));
            r
        };
        let moved = rewrite().answer(answer(&[("location", "/a")], vec![])).await.unwrap();
        assert_eq!(moved.headers()[LOCATION], "/p/proxy/a");
        let page = b"<a href=/a>".to_vec();
        for coding in ["gzip", "deflate", ""] {
            let body = encoded(coding, page.clone()).unwrap();
            let headers = [("content-type", "text/html; charset=utf-8"), ("content-encoding", coding)];
            let got = rewrite().answer(answer(&headers, body)).await.unwrap();
            let got = got.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(decoded(coding, &got).unwrap(), b"<a href=\"/p/proxy/a\">");
        }
        let plain = rewrite().answer(answer(&[("content-type", "text/plain")], page.clone())).await.unwrap();
        assert_eq!(plain.into_body().collect().await.unwrap().to_bytes(), page);
        // Small as it comes, and longer than may be held when unpacked.
        let long = encoded("gzip", vec![b' '; MAX_PAGE + 1]).unwrap();
        let long = answer(&[("content-type", "text/html"), ("content-encoding", "gzip")], long);
        assert_eq!(rewrite().answer(long).await.err().unwrap().code, 503);
        let broken = answer(&[("content-type", "text/html"), ("content-encoding", "gzip")], page);
        assert_eq!(rewrite().answer(broken).await.err().unwrap().code, 503);
    }
}

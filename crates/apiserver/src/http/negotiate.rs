//! Content negotiation: `Accept` and `Content-Type`.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use pintle_api::Status;

use super::query::Query;

/// A serialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Media {
    /// In upstream's order of preference.
    pub(crate) const ALL: &'static [Self] = &[Self::Json, Self::Yaml, Self::Protobuf];

    /// Its media type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn subtype(self) -> &'static str {
        &self.name()["application/".len()..]
    }
}

/// The GVK a client wants the answer turned into (`as=…;g=…;v=…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// `as`
    pub(crate) kind: String,
    /// `g`
    pub(crate) group: String,
    /// `v`
    pub(crate) version: String,
}

/// The outcome for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// How to write.
    pub(crate) media: Media,
    /// Indented JSON.
    pub(crate) pretty: bool,
    /// What to turn the object into.
    pub(crate) target: Option<Target>,
}

impl Accepted {
    /// Plain JSON.
    pub(crate) fn json() -> Self {
        Self { media: Media::Json, pretty: false, target: None }
    }
}

struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    q: f32,
    params: Vec<(&'a str, &'a str)>,
}

fn parse_accept(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut bits = part.split(';').map(str::trim);
            let range = bits.next()?;
            let (kind, subtype) = match range.split_once('/') {
                Some((k, s)) => (k.trim(), s.trim()),
                None if range == "*" => ("*", "*"),
                None => return None,
            };
            let mut q = 1.0;
            let mut params = Vec::new();
            for bit in bits {
                let Some((k, v)) = bit.split_once('=') else { continue };
                let (k, v) = (k.trim(), v.trim().trim_matches('"'));
                if k == "q" {
                    q = v.parse().unwrap_or(1.0);
                } else {
                    params.push((k, v));
                }
            }
            Some(Clause { kind, subtype, q, params })
        })
        .collect();
    // Higher quality first; of the same quality the more exact first; else as written.
    let exactness = |c: &Clause<'_>| u8::from(c.kind != "*") + u8::from(c.subtype != "*");
    clauses.sort_by(|a, b| b.q.total_cmp(&a.q).then_with(|| exactness(b).cmp(&exactness(a))));
    clauses
}

/// Whether the client wants indented JSON though it did not say so in `Accept`.
pub(crate) fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(v) = query.non_empty("pretty") {
        return matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| agent.starts_with(p))
}

fn accept_header(headers: &HeaderMap) -> String {
    let all: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    all.join(",")
}

/// Chooses the form of the answer. `allows(media, target)` says what the endpoint can do.
///
/// # Errors
/// 406 when nothing fits.
pub(crate) fn output(
    headers: &HeaderMap,
    query: &Query,
    offered: &[Media],
    streaming: bool,
    allows: impl Fn(Media, Option<&Target>) -> bool,
) -> Result<Accepted, Status> {
    let pretty = wants_pretty(headers, query);
    let header = accept_header(headers);
    if header.is_empty() {
        return Ok(Accepted { media: offered.first().copied().unwrap_or(Media::Json), pretty, target: None });
    }
    for clause in parse_accept(&header) {
        if clause.q <= 0.0 {
            continue;
        }
        for &media in offered {
            let fits = match clause.kind {
                "application" => clause.subtype == "*" || clause.subtype == media.subtype(),
                "*" => clause.subtype == "*",
                _ => false,
            };
            if !fits {
                continue;
            }
            let mut target = Target::default();
            let mut convert = false;
            let mut pretty = pretty;
            let mut usable = true;
            for (k, v) in &clause.params {
                match *k {
                    "as" => (target.kind, convert) = ((*v).to_owned(), true),
                    "g" => (target.group, convert) = ((*v).to_owned(), true),
                    "v" => (target.version, convert) = ((*v).to_owned(), true),
                    "stream" => usable &= v.is_empty() || *v == "watch",
                    "sv" => usable &= v.is_empty() || *v == "v1",
                    "pretty" => pretty = pretty || *v == "1",
                    _ => {}
                }
            }
            let target = convert.then_some(target);
            if usable && allows(media, target.as_ref()) && !(streaming && media == Media::Yaml) {
                return Ok(Accepted { media, pretty, target });
            }
        }
    }
    let names: Vec<String> = offered
        .iter()
        .filter(|m| !(streaming && **m == Media::Yaml))
        .map(|m| if streaming { format!("{};stream=watch", m.name()) } else { m.name().to_owned() })
        .collect();
    Err(Status::not_acceptable(&names.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// What a resource endpoint allows: Tables as text, object metadata in any form.
pub(crate) fn resource_allows(media: Media, target: Option<&Target>) -> bool {
    let Some(t) = target else { return true };
    if t.group != "meta.k8s.io" || !matches!(t.version.as_str(), "v1" | "v1beta1") {
        return false;
    }
    match t.kind.as_str() {
        "Table" => media != Media::Protobuf,
        "PartialObjectMetadata" | "PartialObjectMetadataList" => true,
        _ => false,
    }
}

/// The serialisation of the request's body.
///
/// # Errors
/// 415 when it is none of those offered.
pub(crate) fn input(headers: &HeaderMap, offered: &[Media]) -> Result<Media, Status> {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if text.is_empty() {
        return Ok(Media::Json);
    }
    let base = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    offered
        .iter()
        .copied()
        .find(|m| m.name() == base)
        .ok_or_else(|| Status::unsupported_media_type(&offered.iter().map(|m| m.name()).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Result<Accepted, Status> {
        let mut h = HeaderMap::new();
        if !text.is_empty() {
            h.insert(ACCEPT, text.parse().unwrap());
        }
        output(&h, &Query::default(), &[Media::Json, Media::Yaml, Media::Protobuf], false, resource_allows)
    }

    #[test]
    fn chooses() {
        for (text, media, kind) in [
            ("", Media::Json, None),
            ("*/*", Media::Json, None),
            ("application/yaml", Media::Yaml, None),
            ("application/vnd.kubernetes.protobuf,application/json", Media::Protobuf, None),
            ("application/json;q=0.5, application/yaml", Media::Yaml, None),
            ("text/html, application/xml;q=0.9, */*;q=0.8", Media::Json, None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Media::Json, Some("Table")),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/yaml", Media::Yaml, None),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Media::Protobuf,
                Some("PartialObjectMetadata"),
            ),
        ] {
            let got = accept(text).unwrap();
            assert_eq!((got.media, got.target.as_ref().map(|t| t.kind.as_str())), (media, kind), "{text}");
        }
        let err = accept("text/plain").unwrap_err();
        assert_eq!(err.code, 406);
        assert!(err.message.contains("application/json, application/yaml, application/vnd.kubernetes.protobuf"));
        assert_eq!(accept("application/json;as=Nope;v=v1;g=meta.k8s.io").unwrap_err().code, 406);
    }

    #[test]
    fn reads_content_type() {
        let mut h = HeaderMap::new();
        assert_eq!(input(&h, Media::ALL).unwrap(), Media::Json);
        h.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        assert_eq!(input(&h, Media::ALL).unwrap(), Media::Json);
        h.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(input(&h, Media::ALL).unwrap_err().code, 415);
    }
}

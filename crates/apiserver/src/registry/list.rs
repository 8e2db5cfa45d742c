//! GET of one object and LIST.

use std::sync::Arc;

use base64::Engine;
use pintle_api::Status;
use pintle_api::object::Object;
use pintle_schema::b64::{RAW_URL, complaint};
use pintle_schema::decode::decode_raw;
use serde::Serialize;
use serde_json::Value;

use super::Res;
use super::options::{ListOptions, VersionMatch};

/// A list's outcome.
pub(crate) struct Listed {
    pub(crate) items: Vec<Arc<Object>>,
    pub(crate) revision: u64,
    pub(crate) continue_token: String,
    pub(crate) remaining: Option<u64>,
}

/// What a continue token holds; upstream's form.
#[derive(Debug, Serialize)]
struct Token {
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "rv")]
    revision: i64,
    #[serde(rename = "start")]
    start: String,
}

impl Token {
    /// Reads it as Go does, also what it says of other types.
    fn of(value: &Value) -> Result<Self, String> {
        let kind = |value: &Value| match value {
            Value::Array(_) => "array",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            _ => "object",
        };
        let wrong = |what: &str, field: &str, wanted: &str| {
            format!("json: cannot unmarshal {what} into Go struct field continueToken.{field} of type {wanted}")
        };
        if !matches!(value, Value::Object(_) | Value::Null) {
            return Err(format!("json: cannot unmarshal {} into Go value of type storage.continueToken", kind(value)));
        }
        let text = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(wrong(kind(other), name, "string")),
        };
        let revision = match value.get("rv") {
            None | Some(Value::Null) => 0,
            Some(Value::Number(n)) => n.as_i64().ok_or_else(|| wrong(&format!("number {n}"), "rv", "int64"))?,
            Some(other) => return Err(wrong(kind(other), "rv", "int64")),
        };
        Ok(Self { version: text("v")?, revision, start: text("start")? })
    }
}

fn encode_token(revision: i64, start: &str) -> String {
    let token = Token { version: "meta.k8s.io/v1".into(), revision, start: start.to_owned() };
    // A struct of strings and a number always serialises.
    RAW_URL.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn decode_token(text: &str) -> Result<Token, Status> {
    let bad = |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = RAW_URL.decode(text).map_err(|e| bad(complaint(text, false, &e)))?;
    let token = decode_raw(&bytes).map_err(|e| bad(e.to_string()))?;
    let token = Token::of(&token).map_err(bad)?;
    if token.version != "meta.k8s.io/v1" {
        return Err(bad(format!("server does not recognize this encoded version {}", token.version)));
    }
    if token.revision == 0 {
        return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
    }
    if token.start.is_empty() {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)".into()));
    }
    if token.start.strip_prefix('/').unwrap_or(&token.start).split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err(bad(token.start));
    }
    Ok(token)
}

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Reads one object. `version` is the query's resourceVersion.
///
/// # Errors
/// 404 when it is not there, 504 when the version is in the future.
pub(crate) async fn get(res: &Res, namespace: &str, name: &str, version: Option<u64>) -> Result<Arc<Object>, Status> {
    let objects = res.objects()?;
    let found = match version {
        Some(v) => objects.cache().await?.at_least(v).await?.get(namespace, name).cloned(),
        None => objects.get(namespace, name).await?,
    };
    found.ok_or_else(|| res.not_found(name))
}

/// Lists objects.
///
/// # Errors
/// 400 for tokens and selectors that make no sense, 410 for a revision that is gone, 504 for one in the future.
pub(crate) async fn list(res: &Res, namespace: &str, o: &ListOptions) -> Result<Listed, Status> {
    let objects = res.objects()?;
    res.check_fields(&o.fields)?;
    let mut namespace = namespace;
    if namespace.is_empty()
        && res.def.namespaced
        && let Some(ns) = o.fields.exact("metadata.namespace")
    {
        namespace = ns;
    }
    let cache = objects.cache().await?;
    let mut from = None;
    let snapshot = if o.continue_token.is_empty() {
        match o.version {
            None => cache.fresh().await?,
            // With a limit and no word on the match, a version means exactly that version, as it always did.
            Some(v)
                if o.version_match == Some(VersionMatch::Exact)
                    || (o.version_match.is_none() && o.limit > 0 && v > 0) =>
            {
                cache.at(v).await.map_err(|e| match e.code {
                    410 => Status::expired("The resourceVersion for the provided list is too old."),
                    _ => e,
                })?
            }
            Some(v) => cache.at_least(v).await?,
        }
    } else {
        if o.version.is_some_and(|v| v > 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = decode_token(&o.continue_token)?;
        let start = token.start.trim_start_matches('/').to_owned();
        // A token goes on where its list ended; a list of one namespace counts from there.
        let place = if namespace.is_empty() { start.clone() } else { format!("{namespace}/{start}") };
        let snapshot = match u64::try_from(token.revision) {
            Ok(v) => cache.at(v).await.map_err(|e| match e.code {
                410 => {
                    let mut e = Status::expired(CONTINUE_EXPIRED);
                    e.metadata.continue_token = encode_token(-1, &start);
                    e
                }
                _ => e,
            })?,
            Err(_) => cache.fresh().await?,
        };
        from = Some(place);
        snapshot
    };
    let revision = snapshot.revision();
    let matches = |object: &Object| o.labels.matches_object(object) && o.fields.matches_object(object);
    if let Some(name) = o.fields.exact("metadata.name").filter(|_| !namespace.is_empty() || !res.def.namespaced) {
        // One name: no need to look at others.
        let found = snapshot.get(namespace, name).filter(|object| matches(object)).cloned();
        return Ok(Listed {
            items: found.into_iter().collect(),
            revision,
            continue_token: String::new(),
            remaining: None,
        });
    }
    // Who takes any state gets all of it, as upstream has it.
    let limit = if o.version == Some(0) { 0 } else { o.limit };
    let page = snapshot.page(namespace, from.as_deref(), limit, &matches, o.selects_all());
    let continue_token = page.next.map(|start| {
        cache.retain(&snapshot);
        let own = start.strip_prefix(namespace).and_then(|s| s.strip_prefix('/')).filter(|_| !namespace.is_empty());
        encode_token(i64::try_from(revision).unwrap_or(i64::MAX), own.unwrap_or(&start))
    });
    Ok(Listed {
        items: page.items,
        revision,
        continue_token: continue_token.unwrap_or_default(),
        remaining: page.remaining,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let t = encode_token(7, "ns/a\u{0}");
        let back = decode_token(&t).unwrap();
        assert_eq!((back.revision, back.start.as_str()), (7, "ns/a\u{0}"));
        for (text, want) in [
            ("!!", "continue key is not valid: illegal base64 data at input byte 0"),
            (&RAW_URL.encode("{"), "continue key is not valid: unexpected end of JSON input"),
            (&RAW_URL.encode("x"), "continue key is not valid: invalid character 'x' looking for beginning of value"),
            (&RAW_URL.encode("{}"), "continue key is not valid: server does not recognize this encoded version "),
            (&RAW_URL.encode("[]"), "valid: json: cannot unmarshal array into Go value of type storage.continueToken"),
            (&RAW_URL.encode(r#"{"rv":"1"}"#), "unmarshal string into Go struct field continueToken.rv of type int64"),
            (&RAW_URL.encode(r#"{"rv":1.5}"#), "unmarshal number 1.5 into Go struct field continueToken.rv of type"),
            (&encode_token(1, "//a"), "continue key is not valid: //a"),
            (&RAW_URL.encode(r#"{"v":"x","rv":1,"start":"a"}"#), "does not recognize"),
            (&encode_token(0, "a"), "incorrect encoded start resourceVersion"),
            (&encode_token(1, ""), "encoded start key empty"),
            (&encode_token(1, "../x"), "continue key is not valid: ../x"),
        ] {
            let e = decode_token(text).unwrap_err();
            assert_eq!(e.code, 400);
            assert!(e.message.contains(want), "{}", e.message);
        }
    }
}

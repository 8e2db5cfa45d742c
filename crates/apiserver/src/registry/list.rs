//! GET of one object and LIST.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pintle_api::Status;
use pintle_api::object::Object;
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "rv")]
    revision: i64,
    #[serde(rename = "start")]
    start: String,
}

fn encode_token(revision: i64, start: &str) -> String {
    let token = Token { version: "meta.k8s.io/v1".into(), revision, start: start.to_owned() };
    // A struct of strings and a number always serialises.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn decode_token(text: &str) -> Result<Token, Status> {
    let bad = |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| bad(e.to_string()))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    if token.version != "meta.k8s.io/v1" {
        return Err(bad(format!("server does not recognize this encoded version {}", token.version)));
    }
    if token.revision == 0 {
        return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
    }
    if token.start.is_empty() {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)".into()));
    }
    if token.start.trim_start_matches('/').split('/').any(|s| matches!(s, "" | "." | "..")) {
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
            ("!!", "continue key is not valid: "),
            (&URL_SAFE_NO_PAD.encode("{"), "continue key is not valid: "),
            (&URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"start":"a"}"#), "does not recognize"),
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

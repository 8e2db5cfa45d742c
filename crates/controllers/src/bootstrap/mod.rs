//! Bootstrap tokens, by which machines join: the cluster's public information is signed with each of them, and those
//! that expired are deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use pintle_client::clock::since;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Key, Scope, UnlessGone};
use ring::hmac;

use crate::context::{Context, listen};

const WORKERS: usize = 1;
/// Type of a Secret that is a bootstrap token; it lives in `kube-system`.
const TOKEN: &str = "bootstrap.kubernetes.io/token";
const TOKENS: &str = "kube-system";
/// The public information: namespace, name, field.
const INFO: (&str, &str, &str) = ("kube-public", "cluster-info", "kubeconfig");
/// What a signature's field begins with.
const SIGNATURE: &str = "jws-kubeconfig-";

fn text<'a>(secret: &'a Secret, field: &str) -> &'a str {
    secret.data.as_ref().and_then(|d| d.get(field)).and_then(|v| std::str::from_utf8(&v.0).ok()).unwrap_or_default()
}

/// How long a token is good for; `None` for ever, zero when it is good no more or its time cannot be read.
fn life_left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let expiration = text(secret, "expiration");
    if expiration.is_empty() {
        return None;
    }
    Some(expiration.parse().map_or(Duration::ZERO, |end| since(now, end)))
}

/// The id and secret of a token that may sign; `None` when it is malformed, expired or for other use.
fn signs(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let part = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let (id, key) = (text(secret, "token-id"), text(secret, "token-secret"));
    let named = secret.metadata.name.as_deref().and_then(|n| n.strip_prefix("bootstrap-token-")) == Some(id);
    let lives = life_left(secret, now).is_none_or(|l| !l.is_zero());
    (secret.type_.as_deref() == Some(TOKEN)
        && named
        && part(id, 6)
        && part(key, 16)
        && lives
        && text(secret, "usage-bootstrap-signing") == "true")
        .then_some((id, key))
}

/// A detached signature of a text.
fn sign(content: &str, id: &str, secret: &str) -> String {
    let header = B64.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{id}.{secret}").as_bytes());
    let tag = hmac::sign(&key, format!("{header}.{}", B64.encode(content)).as_bytes());
    format!("{header}..{}", B64.encode(tag))
}

/// The information with a signature of each token, and none else.
fn signed(info: &BTreeMap<String, String>, tokens: &[Secret], now: Timestamp) -> BTreeMap<String, String> {
    let mut new = info.clone();
    new.retain(|k, _| !k.starts_with(SIGNATURE));
    if let Some(content) = info.get(INFO.2) {
        for (id, key) in tokens.iter().filter_map(|t| signs(t, now)) {
            new.insert(format!("{SIGNATURE}{id}"), sign(content, id, key));
        }
    }
    new
}

fn tokens(cx: &Context) -> pintle_client::Informer {
    let scope = Scope { namespace: TOKENS.into(), fields: format!("type={TOKEN}"), ..Scope::default() };
    cx.informers.scoped(resource_of::<Secret>(), &scope)
}

/// The signer.
pub async fn run_signer(cx: Context) {
    let queue = cx.queue("bootstrap_signer_queue");
    let tokens = tokens(&cx);
    let scope = Scope { namespace: INFO.0.into(), fields: format!("metadata.name={}", INFO.1), ..Scope::default() };
    let infos = cx.informers.scoped(resource_of::<ConfigMap>(), &scope);
    let me = Arc::new((cx.clone(), tokens, infos));
    let key: Key = format!("{}/{}", INFO.0, INFO.1).into();
    for informer in [&me.1, &me.2] {
        let (q, key) = (queue.clone(), key.clone());
        listen(informer, &me, move |_, _| q.add(key.clone()));
    }
    cx.work(me, &queue, WORKERS, |me, key| async move {
        let (cx, tokens, infos) = &*me;
        let Some(object) = infos.get(&key) else { return Ok(None) };
        let mut info: ConfigMap = decode(&object)?;
        let now = cx.clock.now();
        let tokens: Vec<Secret> =
            tokens.list().iter().map(|o| decode(o)).collect::<Result<_, pintle_client::Error>>()?;
        let new = signed(&info.data.clone().unwrap_or_default(), &tokens, now);
        if info.data.as_ref() != Some(&new) {
            info.data = Some(new);
            cx.client.of::<ConfigMap>().update(&info).await?;
        }
        // When the next one expires its signature goes.
        Ok(tokens.iter().filter(|t| signs(t, now).is_some()).filter_map(|t| life_left(t, now)).min())
    })
    .await;
}

/// The cleaner.
pub async fn run_cleaner(cx: Context) {
    let queue = cx.queue("token_cleaner");
    let tokens = tokens(&cx);
    let me = Arc::new((cx.clone(), tokens));
    let q = queue.clone();
    listen(&me.1, &me, move |_, change| {
        if change.now().is_some() {
            q.add(change.key().clone());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move {
        let (cx, tokens) = &*me;
        let Some(object) = tokens.get(&key) else { return Ok(None) };
        match life_left(&decode(&object)?, cx.clock.now()) {
            Some(left) if left.is_zero() => cx
                .client
                .of::<Secret>()
                .delete(object.namespace(), object.name(), Some(object.uid()))
                .await
                .unless_gone()
                .map(|_| None),
            left => Ok(left),
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(id: &str, usage: &str, expiration: &str) -> Secret {
        let mut s: Secret =
            serde_json::from_value(json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": TOKEN}))
                .unwrap();
        let data = [
            ("token-id", id),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", usage),
            ("expiration", expiration),
        ];
        s.data =
            Some(data.iter().map(|(k, v)| ((*k).to_owned(), k8s_openapi::ByteString(v.as_bytes().to_vec()))).collect());
        s
    }

    #[test]
    fn who_signs() {
        let now = "2024-01-01T00:00:00Z".parse().unwrap();
        for (id, usage, expiration, want) in [
            ("abcdef", "true", "", true),
            ("abcdef", "true", "2024-01-02T00:00:00Z", true),
            ("abcdef", "true", "2023-01-02T00:00:00Z", false),
            ("abcdef", "true", "soon", false),
            ("abcdef", "false", "", false),
            ("ABCDEF", "true", "", false),
            ("abc", "true", "", false),
        ] {
            assert_eq!(signs(&token(id, usage, expiration), now).is_some(), want, "{id} {usage} {expiration}");
        }
    }

    #[test]
    fn signatures_follow_tokens() {
        let now = "2024-01-01T00:00:00Z".parse().unwrap();
        let info: BTreeMap<String, String> =
            [("kubeconfig".to_owned(), "content".to_owned()), ("jws-kubeconfig-gone00".to_owned(), "x".to_owned())]
                .into();
        let new = signed(&info, &[token("abcdef", "true", "")], now);
        assert_eq!(new.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "kubeconfig"]);
        // As upstream computes it.
        let parts: Vec<&str> = new["jws-kubeconfig-abcdef"].split('.').collect();
        assert_eq!((parts.len(), parts[1]), (3, ""));
        assert_eq!(B64.decode(parts[0]).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"abcdef.0123456789abcdef");
        let message = format!("{}.{}", parts[0], B64.encode("content"));
        hmac::verify(&key, message.as_bytes(), &B64.decode(parts[2]).unwrap()).unwrap();
    }
}

//! Who asks, and whether they may: TokenReview and SubjectAccessReview, their answers kept for a while.

use super::tls::Peer;
use crate::kubelet::Shared;
use hyper::header::{AUTHORIZATION, HeaderMap};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// How long a permission is good for, and a refusal.
const ALLOWED: Duration = Duration::from_secs(300);
const REFUSED: Duration = Duration::from_secs(30);
/// Beyond so many kept answers, old ones are dropped.
const MAX_KEPT: usize = 4096;

struct Kept<V> {
    value: V,
    until: Instant,
}

/// Answers by question, each for a while.
struct Answers<K, V>(Mutex<HashMap<K, Kept<V>>>);

impl<K: std::hash::Hash + Eq, V: Clone> Answers<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).filter(|k| k.until > Instant::now()).map(|k| k.value.clone())
    }
    fn put(&self, key: K, value: V, good_for: Duration) {
        let mut all = self.0.lock();
        let now = Instant::now();
        if all.len() >= MAX_KEPT {
            all.retain(|_, k| k.until > now);
        }
        if all.len() < MAX_KEPT {
            all.insert(key, Kept { value, until: now + good_for });
        }
    }
}

/// Decides who may what.
pub struct Guard {
    tokens: Answers<[u8; 32], Option<User>>,
    permissions: Answers<(User, &'static str, &'static str), bool>,
}

impl Guard {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self { tokens: Answers(Mutex::default()), permissions: Answers(Mutex::default()) }
    }

    /// Who asks; `None` if that is not proven.
    pub async fn user(&self, k: &Shared, headers: &HeaderMap, peer: &Peer) -> Option<User> {
        if let Some(user) = &peer.user {
            return Some(user.clone());
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = bearer.and_then(|b| b.strip_prefix("Bearer ")).map(str::trim).filter(|t| !t.is_empty());
        if let Some(token) = token {
            return if k.config.authentication.webhook.enabled { self.review(k, token).await } else { None };
        }
        k.config.authentication.anonymous.enabled.then(|| User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Default::default()
        })
    }

    async fn review(&self, k: &Shared, token: &str) -> Option<User> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let request =
            TokenReview { spec: TokenReviewSpec { token: token.into(), ..Default::default() }, ..Default::default() };
        match k.client.of::<TokenReview>().create(&request).await {
            Ok(answer) => {
                let status = answer.status.filter(|s| s.authenticated == Some(true));
                let user = status.and_then(|s| s.user).map(|u| User {
                    name: u.username.unwrap_or_default(),
                    uid: u.uid.unwrap_or_default(),
                    groups: u.groups.unwrap_or_default(),
                    extra: u.extra.unwrap_or_default(),
                });
                self.tokens.put(key, user.clone(), k.config.authentication.webhook.cache_ttl);
                user
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot have a token reviewed");
                None
            }
        }
    }

    /// Whether `user` may `verb` one of these sub-resources of the node.
    pub async fn may(&self, k: &Shared, user: &User, verb: &'static str, subresources: &[&'static str]) -> bool {
        if k.config.authorization.mode == "AlwaysAllow" {
            return true;
        }
        for sub in subresources {
            if self.may_one(k, user, verb, sub).await {
                return true;
            }
        }
        false
    }

    async fn may_one(&self, k: &Shared, user: &User, verb: &'static str, sub: &'static str) -> bool {
        let key = (user.clone(), verb, sub);
        if let Some(known) = self.permissions.get(&key) {
            return known;
        }
        let request = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
                extra: Some(user.extra.clone()).filter(|e| !e.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(sub.into()),
                    name: Some(k.config.node_name.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        match k.client.of::<SubjectAccessReview>().create(&request).await {
            Ok(answer) => {
                let allowed = answer.status.is_some_and(|s| s.allowed);
                self.permissions.put(key, allowed, if allowed { ALLOWED } else { REFUSED });
                allowed
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot ask for a permission");
                false
            }
        }
    }
}

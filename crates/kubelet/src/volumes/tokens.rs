//! Tokens of service accounts for pods, renewed in time.

use super::payload::TokenSource;
use crate::pod::spec::{self, PodRef};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use parking_lot::Mutex;
use pintle_client::Client;
use std::collections::BTreeMap;

#[derive(Clone)]
struct Token {
    token: String,
    renew: Timestamp,
}

/// Tokens by pod and source.
pub struct Tokens {
    client: Client,
    known: Mutex<BTreeMap<(String, TokenSource), Token>>,
}

/// A token is renewed after this share of its life, and after a day at the latest.
const SHARE_PERCENT: i64 = 80;
const AT_MOST: SignedDuration = SignedDuration::from_hours(24);

/// When to renew a token.
fn renew_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(issued);
    let share = SignedDuration::from_secs(life.as_secs() * SHARE_PERCENT / 100);
    issued.saturating_add(std::cmp::min(share, AT_MOST)).unwrap_or(expires)
}

impl Tokens {
    /// Tokens asked of this API.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The token for a source of a pod, and when it must be asked for again.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, pod: &Pod, source: &TokenSource, now: Timestamp) -> Result<(String, Timestamp), String> {
        let r = PodRef::of(pod);
        let key = (r.uid.clone(), source.clone());
        if let Some(t) = self.known.lock().get(&key).filter(|t| t.renew > now) {
            return Ok((t.token.clone(), t.renew));
        }
        let account = spec::spec(pod).service_account_name.clone().filter(|n| !n.is_empty());
        let account = account.unwrap_or_else(|| "default".into());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(source.audience.clone()).filter(|a| !a.is_empty()).map(|a| vec![a]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(r.name.clone()),
                    uid: Some(r.uid.clone()),
                }),
                expiration_seconds: Some(source.expiration_seconds),
            }),
            ..Default::default()
        };
        let fetched = async {
            let body = pintle_client::client::encode(&request)?;
            let resource = pintle_client::typed::resource_of::<ServiceAccount>();
            self.client.create_subresource(resource, &r.namespace, &account, "token", body).await
        };
        let bytes = fetched.await.map_err(|e| format!("failed to fetch token: {e}"))?;
        let answer: TokenRequest = serde_json::from_slice(&bytes).map_err(|e| format!("failed to fetch token: {e}"))?;
        let status = answer.status.ok_or("failed to fetch token: the answer has no status")?;
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("failed to fetch token: the answer has no token".into());
        };
        let token = Token { token, renew: renew_at(now, expires.0) };
        self.known.lock().insert(key, token.clone());
        Ok((token.token, token.renew))
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        self.known.lock().retain(|(u, _), _| u != uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn renewal() {
        assert_eq!(renew_at(at(0), at(1000)), at(800));
        assert_eq!(renew_at(at(0), at(365 * 86_400)), at(86_400));
    }
}

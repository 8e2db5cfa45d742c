//! Service account tokens: issued by `serviceaccounts/token`, checked on every request that carries one.

use std::sync::Arc;

use base64::Engine;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use pintle_api::Status;
use pintle_api::object::Object;
use pintle_api::service::UserInfo;
use serde_json::{Value, json};

use super::jwt;
use crate::Server;

/// Keys and names of service account tokens.
pub(crate) struct ServiceAccounts {
    pub(crate) signer: Option<jwt::Signer>,
    pub(crate) keys: Vec<jwt::PublicKey>,
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
}

/// What a token is bound to.
pub(crate) struct Bound {
    /// `pod`, `secret` or `node`: the claim.
    pub(crate) claim: &'static str,
    pub(crate) object: Arc<Object>,
}

/// How long a deleted object's tokens are still good.
const LEEWAY: i64 = 60;

/// Who tokens kept in Secrets say they are from.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const EXTRA: &str = "authentication.kubernetes.io/";

/// The day of a time, as all servers count it.
pub(crate) fn day(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

impl ServiceAccounts {
    /// Claims of a token of an account, as upstream makes them. `node` is the node a bound pod runs on.
    #[expect(clippy::too_many_arguments, reason = "the claims are these")]
    pub(crate) fn claims(
        &self,
        account: &Object,
        bound: Option<&Bound>,
        node: Option<&Object>,
        audiences: &[String],
        now: Timestamp,
        seconds: i64,
        warn_after: Option<i64>,
        id: &str,
    ) -> Value {
        let reference = |o: &Object| json!({"name": o.name(), "uid": o.uid()});
        let mut private = json!({"namespace": account.namespace(), "serviceaccount": reference(account)});
        if let Some(b) = bound {
            private[b.claim] = reference(&b.object);
        }
        if let Some(n) = node {
            private["node"] = reference(n);
        }
        let now = now.as_second();
        if let Some(w) = warn_after {
            private["warnafter"] = (now + w).into();
        }
        json!({
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": id,
            "kubernetes.io": private,
            "nbf": now,
            "sub": format!("system:serviceaccount:{}:{}", account.namespace(), account.name()),
        })
    }
}

impl Server {
    /// The user of a service account token and the audiences it is good for among those asked; `None` when it is no
    /// token of ours or no longer good.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn service_account_user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, Status> {
        let sa = &self.service_accounts;
        let issuer = jwt::unverified(token).and_then(|c| Some(c.get("iss")?.as_str()?.to_owned()));
        if issuer.as_deref() == Some(LEGACY_ISSUER) {
            return self.legacy_user(token, audiences).await;
        }
        let ours = jwt::unverified(token).is_some_and(|c| c.get("iss").and_then(Value::as_str) == Some(&sa.issuer));
        if !ours {
            return Ok(None);
        }
        let Some(claims) = jwt::verify(token, &sa.keys) else { return Ok(None) };
        let now = self.clock.now().as_second();
        let time = |key: &str| claims.get(key).and_then(Value::as_f64);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a double")]
        let now_f = now as f64;
        if time("exp").is_none_or(|t| now_f > t) || time("nbf").is_some_and(|t| now_f + 10.0 < t) {
            return Ok(None);
        }
        let named: Vec<String> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            other => crate::registry::meta::strings(other),
        };
        let wanted = if audiences.is_empty() { &sa.audiences } else { audiences };
        let good: Vec<String> = wanted.iter().filter(|a| named.contains(a)).cloned().collect();
        if good.is_empty() {
            return Ok(None);
        }
        let Some(private) = claims.get("kubernetes.io") else { return Ok(None) };
        let text = |path: &str| private.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name, uid) = (text("/namespace"), text("/serviceaccount/name"), text("/serviceaccount/uid"));
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject != format!("system:serviceaccount:{namespace}:{name}") {
            return Ok(None);
        }
        if !self.still_there("serviceaccounts", namespace, name, uid, now).await? {
            return Ok(None);
        }
        let mut user = UserInfo::service_account(namespace, name);
        user.uid = uid.to_owned();
        let mut extra = |key: &str, value: &str| {
            user.extra.insert(format!("{EXTRA}{key}"), vec![value.to_owned()]);
        };
        if private.get("secret").is_some()
            && !self.still_there("secrets", namespace, text("/secret/name"), text("/secret/uid"), now).await?
        {
            return Ok(None);
        }
        if private.get("pod").is_some() {
            if !self.still_there("pods", namespace, text("/pod/name"), text("/pod/uid"), now).await? {
                return Ok(None);
            }
            extra("pod-name", text("/pod/name"));
            extra("pod-uid", text("/pod/uid"));
        }
        if private.get("node").is_some() {
            // A token bound to the node itself goes with it; for a pod's token its node is only information.
            if private.get("pod").is_none()
                && !self.still_there("nodes", "", text("/node/name"), text("/node/uid"), now).await?
            {
                return Ok(None);
            }
            extra("node-name", text("/node/name"));
            extra("node-uid", text("/node/uid"));
        }
        if let Some(id) = claims.get("jti").and_then(Value::as_str) {
            extra("credential-id", &format!("JTI={id}"));
        }
        Ok(Some((user, good)))
    }

    /// The user of a token that is kept in a Secret: it is good as long as it is there.
    async fn legacy_user(&self, token: &str, audiences: &[String]) -> Result<Option<(UserInfo, Vec<String>)>, Status> {
        let sa = &self.service_accounts;
        let Some(claims) = jwt::verify(token, &sa.keys) else { return Ok(None) };
        let text = |name: &str| {
            claims.get(format!("kubernetes.io/serviceaccount/{name}")).and_then(Value::as_str).unwrap_or_default()
        };
        let (namespace, name, uid) = (text("namespace"), text("service-account.name"), text("service-account.uid"));
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if namespace.is_empty() || subject != format!("system:serviceaccount:{namespace}:{name}") {
            return Ok(None);
        }
        let wanted = if audiences.is_empty() { &sa.audiences } else { audiences };
        let good: Vec<String> = wanted.iter().filter(|a| sa.audiences.contains(a)).cloned().collect();
        let secrets = self.registry.must("", "v1", "secrets")?.objects()?;
        let Some(secret) = secrets.get(namespace, text("secret.name")).await?.filter(|s| !s.is_deleting()) else {
            return Ok(None);
        };
        let kept: Option<String> = secret.at(&["data", "token"]).and_then(|t| serde_json::from_slice(t).ok());
        let same = kept.and_then(|t| base64::engine::general_purpose::STANDARD.decode(t).ok());
        if good.is_empty()
            || same.as_deref() != Some(token.as_bytes())
            || secret.label("kubernetes.io/legacy-token-invalid-since").is_some()
            || !self.still_there("serviceaccounts", namespace, name, uid, self.clock.now().as_second()).await?
        {
            return Ok(None);
        }
        self.note_use(&secret).await;
        let mut user = UserInfo::service_account(namespace, name);
        user.uid = uid.to_owned();
        Ok(Some((user, good)))
    }

    /// Notes on a Secret the day on which its token was last used. Servers' clocks differ, so tomorrow will do, too.
    async fn note_use(&self, secret: &Object) {
        const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
        let today = day(self.clock.now());
        let fresh =
            |d: &str| d.parse::<Date>().is_ok_and(|d| d == today || today.tomorrow().is_ok_and(|next| d == next));
        if secret.label(LAST_USED).is_some_and(fresh) {
            return;
        }
        let noted = async {
            let secrets = self.registry.must("", "v1", "secrets")?;
            let mut note = |s: &mut Value| {
                s["metadata"]["labels"][LAST_USED] = today.to_string().into();
                Ok(())
            };
            self.modify(secrets, secret.namespace(), secret.name(), false, &mut note).await
        };
        // Nobody is refused for that.
        if let Err(error) = noted.await {
            tracing::warn!(secret = %secret.key(), %error, "cannot note the use of its token");
        }
    }

    /// Whether an object a token names is there, has that uid and was not deleted a while ago.
    async fn still_there(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        uid: &str,
        now: i64,
    ) -> Result<bool, Status> {
        let objects = self.registry.must("", "v1", resource)?.objects()?;
        let Some(object) = objects.get(namespace, name).await? else { return Ok(false) };
        if object.uid() != uid {
            return Ok(false);
        }
        if !object.is_deleting() {
            return Ok(true);
        }
        let since = object
            .at(&["metadata", "deletionTimestamp"])
            .and_then(|t| serde_json::from_slice::<String>(t).ok())
            .and_then(|t| pintle_api::time::parse(&t));
        Ok(since.is_none_or(|t| t.as_second() >= now - LEEWAY))
    }
}

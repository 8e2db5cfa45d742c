//! Tokens of service accounts that are kept in Secrets: filled in when such a Secret is made, gone with their account,
//! and cleared away when nobody used them for a year.

mod cleaner;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use pintle_client::meta::{key, split_key};
use pintle_client::typed::decode;
use pintle_client::{Informer, Key, UnlessGone};

use crate::context::{Context, Outcome, listen};

pub use cleaner::run as run_cleaner;
use token::Signer;

const WORKERS: usize = 5;
/// Type of a Secret that holds a token.
pub(crate) const TOKEN: &str = "kubernetes.io/service-account-token";
/// On such a Secret: whose token it is.
pub(crate) const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

struct Controller {
    cx: Context,
    accounts: Informer,
    secrets: Informer,
    signer: Signer,
}

/// Whose token a Secret is; `None` when it is none.
pub(crate) fn account_of(secret: &pintle_api::Object) -> Option<String> {
    let kind = secret.at(&["type"]).and_then(|t| serde_json::from_slice::<String>(t).ok())?;
    let name = secret.at(&["metadata", "annotations", ACCOUNT])?;
    (kind == TOKEN).then(|| serde_json::from_slice(name).ok())?
}

/// The controller; without a key to sign with there are no tokens.
pub async fn run(cx: Context) {
    let Some(pem) = cx.config.service_account_key.clone() else { return };
    let signer = match Signer::new(&pem) {
        Ok(s) => s,
        Err(error) => {
            tracing::error!(%error, "the service account key cannot be used; no token is made");
            return;
        }
    };
    let queue = cx.queue("serviceaccount_tokens_secret");
    let me = Arc::new(Controller {
        accounts: cx.informers.of::<ServiceAccount>(),
        secrets: cx.informers.of::<Secret>(),
        signer,
        cx: cx.clone(),
    });
    let q = queue.clone();
    listen(&me.secrets, &me, move |_, change| {
        if change.now().is_some_and(|s| account_of(s).is_some()) {
            q.add(change.key().clone());
        }
    });
    let q = queue.clone();
    listen(&me.accounts, &me, move |me, change| {
        if change.before().is_some() && change.now().is_some() {
            return;
        }
        for (k, secret) in me.secrets.namespace_entries(change.last().namespace()) {
            if account_of(&secret).as_deref() == Some(change.last().name()) {
                q.add(k);
            }
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

/// What a Secret has to hold beside what it holds; `None` when it is complete.
fn completed(
    secret: &Secret,
    account_uid: &str,
    ca: Option<&str>,
    sign: impl FnOnce() -> Result<String, String>,
) -> Result<Option<Secret>, String> {
    let mut new = secret.clone();
    let data: &mut BTreeMap<String, ByteString> = new.data.get_or_insert_default();
    if let Some(ca) = ca {
        data.insert("ca.crt".into(), ByteString(ca.as_bytes().to_vec()));
    }
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    data.entry("namespace".into())
        .and_modify(|n| n.0 = namespace.clone().into_bytes())
        .or_insert(ByteString(namespace.into_bytes()));
    if data.get("token").is_none_or(|t| t.0.is_empty()) {
        data.insert("token".into(), ByteString(sign()?.into_bytes()));
    }
    new.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.into(), account_uid.into());
    Ok((new != *secret).then_some(new))
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.secrets.get(k).filter(|o| !o.is_deleting()) else { return Ok(None) };
        let Some(account) = account_of(&object) else { return Ok(None) };
        let secret: Secret = decode(&object)?;
        let namespace = split_key(k).0;
        let wanted = secret.metadata.annotations.as_ref().and_then(|a| a.get(ACCOUNT_UID)).filter(|u| !u.is_empty());
        let mut found = self.accounts.get(&key(namespace, &account)).map(|o| o.uid().to_owned());
        if found.is_none() {
            // The cache may be behind; a token must not go for that.
            let fresh = self.cx.client.of::<ServiceAccount>().get_opt(namespace, &account).await?;
            found = fresh.and_then(|a| a.metadata.uid);
        }
        let Some(uid) = found.filter(|u| wanted.is_none_or(|w| w == u)) else {
            return self
                .cx
                .client
                .of::<Secret>()
                .delete(namespace, object.name(), Some(object.uid()))
                .await
                .unless_gone()
                .map(|_| None);
        };
        let sign = || self.signer.legacy(namespace, object.name(), &account, &uid);
        let new =
            completed(&secret, &uid, self.cx.config.root_ca.as_deref(), sign).map_err(pintle_client::Error::Config)?;
        if let Some(new) = new {
            self.cx.client.of::<Secret>().update(&new).await.unless_gone()?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_secret_holds() {
        let secret: Secret = serde_json::from_value(
            json!({"metadata": {"name": "t", "namespace": "n", "annotations": {ACCOUNT: "sa"}}, "type": TOKEN}),
        )
        .unwrap();
        let full = completed(&secret, "u", Some("CA"), || Ok("signed".into())).unwrap().unwrap();
        let data = full.data.as_ref().unwrap();
        let text = |k: &str| String::from_utf8(data[k].0.clone()).unwrap();
        assert_eq!((text("ca.crt"), text("namespace"), text("token")), ("CA".into(), "n".into(), "signed".into()));
        assert_eq!(full.metadata.annotations.as_ref().unwrap()[ACCOUNT_UID], "u");
        assert_eq!(completed(&full, "u", Some("CA"), || Err("it has one".into())), Ok(None));
        let other = completed(&full, "u", Some("new"), || Err("it has one".into())).unwrap().unwrap();
        assert_eq!(other.data.unwrap()["ca.crt"].0, b"new");
    }
}

//! Impersonation: acting as someone else, when allowed to.

use std::sync::Arc;

use http::HeaderMap;
use pintle_api::Status;
use pintle_api::service::UserInfo;

use crate::Server;
use crate::authz::{Attributes, Decision};
use crate::http::context::Ctx;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Who the headers ask to be.
#[derive(Debug, Default)]
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: Vec<(String, String)>,
}

fn wanted(headers: &HeaderMap) -> Wanted {
    let text = |v: &http::HeaderValue| v.to_str().ok().map(str::to_owned);
    let mut w = Wanted {
        user: headers.get(USER).and_then(text).unwrap_or_default(),
        groups: headers.get_all(GROUP).iter().filter_map(text).collect(),
        uid: headers.get(UID).and_then(text).unwrap_or_default(),
        extra: Vec::new(),
    };
    for (k, v) in headers {
        if let Some(key) = k.as_str().strip_prefix(EXTRA)
            && let Some(v) = text(v)
        {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().to_lowercase();
            w.extra.push((key, v));
        }
    }
    w
}

/// `system:serviceaccount:NS:NAME`, split.
pub(crate) fn service_account(user: &str) -> Option<(&str, &str)> {
    let (ns, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!ns.is_empty() && !name.is_empty() && !name.contains(':')).then_some((ns, name))
}

impl Server {
    /// Makes the request that of the user its headers name.
    ///
    /// # Errors
    /// 403 when its own user may not impersonate them; 400/500 when only parts are named.
    pub(crate) async fn impersonate(&self, ctx: &mut Ctx) -> Result<(), Status> {
        let w = wanted(&ctx.headers);
        if w.user.is_empty() && w.groups.is_empty() && w.uid.is_empty() && w.extra.is_empty() {
            return Ok(());
        }
        if w.user.is_empty() {
            return Err(Status::internal(format!("requested {:?} without impersonating a user", wanted_list(&w))));
        }
        let mut asks: Vec<(&str, &str, &str, &str, &str)> = Vec::new();
        let account = service_account(&w.user);
        match account {
            Some((ns, name)) => asks.push(("", "serviceaccounts", "", ns, name)),
            None => asks.push(("", "users", "", "", &w.user)),
        }
        asks.extend(w.groups.iter().map(|g| ("", "groups", "", "", g.as_str())));
        if !w.uid.is_empty() {
            asks.push(("authentication.k8s.io", "uids", "", "", &w.uid));
        }
        asks.extend(w.extra.iter().map(|(k, v)| ("authentication.k8s.io", "userextras", k.as_str(), "", v.as_str())));
        for (group, resource, subresource, namespace, name) in asks {
            let a = Attributes {
                user: &ctx.user,
                verb: "impersonate",
                is_resource: true,
                group,
                resource,
                subresource,
                namespace,
                name,
                path: "",
                fields: "",
            };
            match self.decide(&a).await {
                Decision::Allow(_) => {}
                Decision::NoOpinion(r) => return Err(a.forbidden(&r)),
            }
        }
        let mut groups = w.groups.clone();
        if groups.is_empty()
            && let Some((ns, _)) = account
        {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{ns}")];
        }
        if w.user == "system:anonymous" {
            if !groups.iter().any(|g| g == "system:unauthenticated") {
                groups.push("system:unauthenticated".into());
            }
        } else if !groups.iter().any(|g| g == "system:authenticated" || g == "system:unauthenticated") {
            groups.push("system:authenticated".into());
        }
        let mut user = UserInfo { name: w.user, uid: w.uid, groups, ..UserInfo::default() };
        for (k, v) in w.extra {
            user.extra.entry(k).or_default().push(v);
        }
        ctx.user = Arc::new(user);
        let ours: Vec<http::HeaderName> =
            ctx.headers.keys().filter(|k| k.as_str().starts_with("impersonate-")).cloned().collect();
        for k in ours {
            ctx.headers.remove(k);
        }
        Ok(())
    }
}

fn wanted_list(w: &Wanted) -> Vec<&str> {
    let mut out: Vec<&str> = w.groups.iter().map(String::as_str).collect();
    out.extend(w.extra.iter().map(|(k, _)| k.as_str()));
    if !w.uid.is_empty() {
        out.push(&w.uid);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers() {
        let mut h = HeaderMap::new();
        h.insert("Impersonate-User", "u".parse().unwrap());
        h.append("Impersonate-Group", "a".parse().unwrap());
        h.append("Impersonate-Group", "b".parse().unwrap());
        h.insert("Impersonate-Extra-Acme.com%2Fx", "1".parse().unwrap());
        let w = wanted(&h);
        assert_eq!((w.user.as_str(), w.groups.len()), ("u", 2));
        assert_eq!(w.extra, [("acme.com/x".to_owned(), "1".to_owned())]);
        assert_eq!(service_account("system:serviceaccount:a:b"), Some(("a", "b")));
        assert_eq!(service_account("system:serviceaccount:a"), None);
    }
}

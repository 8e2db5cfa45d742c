//! Bearer tokens: a static file, service accounts, bootstrap tokens.

use pintle_api::Status;
use pintle_api::service::UserInfo;

use crate::Server;

/// A token of the static token file.
#[derive(Clone, Debug)]
pub(crate) struct StaticToken {
    token: String,
    user: UserInfo,
}

/// Parses upstream's token file: `token,user,uid[,"group1,group2"]` a line.
///
/// # Errors
/// The line that does not parse.
pub(crate) fn parse_file(text: &str) -> Result<Vec<StaticToken>, String> {
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
        let fields = csv(line);
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(format!("token file: line {}: at least 3 fields are needed", n + 1));
        };
        if token.is_empty() {
            continue;
        }
        let groups = rest.first().map(|g| g.split(',').map(|s| s.trim().to_owned()).collect()).unwrap_or_default();
        out.push(StaticToken {
            token: token.clone(),
            user: UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() },
        });
    }
    Ok(out)
}

fn csv(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    for f in &mut out {
        *f = f.trim().to_owned();
    }
    out
}

/// Compares without telling by its time how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

impl Server {
    /// The user of a token and the audiences it is good for, or `None` when no one knows it. `audiences` are those the
    /// caller is; empty means the API server's own.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn token_user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, Status> {
        if let Some(t) = self.static_tokens.iter().find(|t| same(t.token.as_bytes(), token.as_bytes())) {
            return Ok(Some((t.user.clone(), self.own_audiences(audiences))));
        }
        if let Some(found) = self.service_account_user(token, audiences).await? {
            return Ok(Some(found));
        }
        if self.config.enable_bootstrap_token_auth
            && let Some(user) = self.bootstrap_user(token).await?
        {
            return Ok(Some((user, self.own_audiences(audiences))));
        }
        Ok(None)
    }

    /// Tokens that name no audience are good for the API server's own.
    fn own_audiences(&self, asked: &[String]) -> Vec<String> {
        self.service_accounts.audiences.iter().filter(|a| asked.contains(a)).cloned().collect()
    }

    /// The user of a bootstrap token, `abcdef.0123456789abcdef`, whose secret lies in kube-system.
    async fn bootstrap_user(&self, token: &str) -> Result<Option<UserInfo>, Status> {
        let lower = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let Some((id, secret)) =
            token.split_once('.').filter(|(i, s)| i.len() == 6 && s.len() == 16 && lower(i) && lower(s))
        else {
            return Ok(None);
        };
        let secrets = self.registry.must("", "v1", "secrets")?.objects()?;
        let Some(object) = secrets.get("kube-system", &format!("bootstrap-token-{id}")).await? else { return Ok(None) };
        if object.is_deleting() {
            return Ok(None);
        }
        let view: serde_json::Value = object.view().map_err(Status::internal)?;
        let data = |key: &str| -> Option<String> {
            use base64::Engine;
            let text = view.get("data")?.get(key)?.as_str()?;
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
        };
        let good = view.get("type").and_then(serde_json::Value::as_str) == Some("bootstrap.kubernetes.io/token")
            && data("token-id").as_deref() == Some(id)
            && data("token-secret").is_some_and(|s| same(s.as_bytes(), secret.as_bytes()))
            && data("usage-bootstrap-authentication").as_deref() == Some("true")
            && data("expiration").is_none_or(|e| pintle_api::time::parse(&e).is_some_and(|t| t > self.clock.now()));
        if !good {
            return Ok(None);
        }
        let mut groups = vec!["system:bootstrappers".to_owned()];
        for g in data("auth-extra-groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
            // Only groups of this name space may be given, as upstream.
            if !g.starts_with("system:bootstrappers:") {
                return Ok(None);
            }
            groups.push(g.to_owned());
        }
        Ok(Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file() {
        let t = parse_file("abc,joe,1,\"a,b\"\n\n# no\nx,y,z\n").unwrap();
        assert_eq!(t.len(), 2);
        assert_eq!(t[0].user.groups, ["a", "b"]);
        assert!(t[1].user.groups.is_empty());
        assert!(parse_file("abc,joe").is_err());
    }
}

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
        _audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, Status> {
        if let Some(t) = self.static_tokens.iter().find(|t| same(t.token.as_bytes(), token.as_bytes())) {
            return Ok(Some((t.user.clone(), Vec::new())));
        }
        Ok(None)
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

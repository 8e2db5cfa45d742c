//! `/healthz`, `/livez`, `/readyz` and their parts.

use std::sync::Arc;

use http::Response;
use pintle_api::service::Body;

use super::context::Ctx;
use super::respond;
use crate::Server;
use crate::bootstrap::Check;

impl Server {
    /// Serves a health endpoint or one check of it; `None` for what is neither.
    pub(crate) async fn health(self: &Arc<Self>, ctx: &Ctx, path: &str) -> Option<Response<Body>> {
        let trimmed = path.trim_end_matches('/');
        let mut parts = trimmed.trim_start_matches('/').splitn(2, '/');
        let endpoint = parts.next().filter(|e| matches!(*e, "healthz" | "livez" | "readyz"))?;
        let checks = self.hooks.checks(self, endpoint).await;
        if let Some(name) = parts.next() {
            let check = checks.iter().find(|c| c.name == name)?;
            return Some(match &check.state {
                Ok(()) => respond::text(200, "ok"),
                Err(why) => respond::text(500, format!("internal server error: {why}\n")),
            });
        }
        for check in &checks {
            self.metrics.health(&check.name, endpoint, check.state.is_ok());
        }
        let excluded: Vec<&str> = ctx.query.all("exclude").collect();
        Some(summary(endpoint, &checks, &excluded, ctx.query.has("verbose")))
    }
}

fn summary(endpoint: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> Response<Body> {
    let mut text = String::new();
    let mut unknown: Vec<&str> = excluded.to_vec();
    unknown.sort_unstable();
    unknown.dedup();
    let mut failed = Vec::new();
    for Check { name, group, state } in checks {
        if excluded.contains(&name.as_str()) {
            unknown.retain(|u| u != name);
            text.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if let Some(group) = group.filter(|g| excluded.contains(g)) {
            unknown.retain(|u| *u != group);
            text.push_str(&format!("[+]{name} excluded with {group}: ok\n"));
        } else if let Err(why) = state {
            failed.push(name.as_str());
            tracing::debug!(endpoint, check = name, why, "a health check failed");
            text.push_str(&format!("[-]{name} failed: reason withheld\n"));
        } else {
            text.push_str(&format!("[+]{name} ok\n"));
        }
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|n| pintle_schema::quote::quoted(n)).collect();
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(",")));
    }
    if !failed.is_empty() {
        return respond::text(500, format!("{text}{endpoint} check failed\n"));
    }
    if verbose { respond::text(200, format!("{text}{endpoint} check passed\n")) } else { respond::text(200, "ok") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn says_what_fails() {
        let check = |name: &str, group, state: Result<(), &str>| Check {
            name: name.into(),
            group,
            state: state.map_err(str::to_owned),
        };
        let checks = [
            check("ping", None, Ok(())),
            check("etcd", Some("storage"), Ok(())),
            check("poststarthook/x", None, Err("not finished")),
        ];
        for (excluded, verbose, code, want) in [
            (
                vec![],
                false,
                500,
                "[+]ping ok\n[+]etcd ok\n[-]poststarthook/x failed: reason withheld\nreadyz check failed\n",
            ),
            (vec!["poststarthook/x"], false, 200, "ok"),
            (
                vec!["poststarthook/x", "storage", "b", "a"],
                true,
                200,
                "[+]ping ok\n[+]etcd excluded with storage: ok\n[+]poststarthook/x excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nreadyz check passed\n",
            ),
        ] {
            let r = summary("readyz", &checks, &excluded, verbose);
            assert_eq!(r.status(), code);
            assert_eq!(r.into_body().collect().await.unwrap().to_bytes(), want);
        }
    }
}

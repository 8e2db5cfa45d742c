//! Everything that is no resource: discovery, version, health, metrics, the index.

use std::sync::Arc;

use http::{Method, Response};
use pintle_api::Status;
use pintle_api::service::Body;
use serde_json::json;

use super::context::Ctx;
use super::negotiate::{self, Accepted, Media};
use super::respond;
use crate::Server;

const UNSTABLE: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n";

impl Server {
    /// Serves a request about anything but a resource.
    ///
    /// # Errors
    /// The `Status` to answer with.
    pub(crate) async fn other(self: &Arc<Self>, ctx: &Ctx, _body: Body) -> Result<Response<Body>, Status> {
        let path = ctx.info.path.as_str();
        let trimmed = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let reads = matches!(ctx.method, Method::GET | Method::HEAD);
        if trimmed == "/api" || trimmed == "/apis" || trimmed.starts_with("/api/") || trimmed.starts_with("/apis/") {
            if !reads {
                return Err(super::resource::method_not_allowed());
            }
            return self.discover(ctx, trimmed);
        }
        if reads && (trimmed == "/openapi/v3" || trimmed.starts_with("/openapi/v3/")) {
            return self.openapi(ctx, trimmed);
        }
        match trimmed {
            "/openid/v1/jwks" if reads && !self.service_accounts.keys.is_empty() => {
                let keys: Vec<_> = self.service_accounts.keys.iter().map(crate::authn::jwt::PublicKey::jwk).collect();
                let mut r = respond::bytes(200, "application/jwk-set+json", json!({"keys": keys}).to_string());
                r.headers_mut()
                    .insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("public, max-age=3600"));
                Ok(r)
            }
            "/.well-known/openid-configuration" if reads && !self.service_accounts.keys.is_empty() => {
                let mut r = respond::bytes(200, "application/json", self.openid_configuration().to_string());
                r.headers_mut()
                    .insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("public, max-age=3600"));
                Ok(r)
            }
            "/openapi/v2" if reads => self.openapi_v2(ctx),
            "/statusz" if reads => Ok(respond::text(200, self.statusz())),
            "/flagz" if reads => Ok(respond::text(200, self.flagz())),
            "/" => Ok(self.plain(ctx, &json!({"paths": self.paths()}))),
            "/version" if reads => Ok(self.plain(ctx, &crate::discovery::version())),
            "/metrics" => {
                Ok(respond::bytes(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics_text().await))
            }
            _ => self.health(ctx, path).await.map_or_else(|| Ok(respond::page_not_found()), Ok),
        }
    }

    /// A JSON answer that knows no other form.
    pub(crate) fn plain(&self, _ctx: &Ctx, value: &serde_json::Value) -> Response<Body> {
        // Upstream indents these for everyone.
        let text = respond::pretty(value.to_string().as_bytes());
        respond::bytes(200, "application/json", text)
    }

    /// A discovery document that is no resource.
    pub(crate) fn document(&self, ctx: &Ctx, value: &serde_json::Value) -> Result<Response<Body>, Status> {
        let accepted: Accepted =
            negotiate::output(&ctx.headers, &ctx.query, Media::ALL, false, |m, t| t.is_none() && m != Media::Protobuf)?;
        Ok(respond::json(200, &accepted, &ctx.headers, value.to_string().as_bytes()))
    }

    /// Where verifiers of service account tokens find the keys.
    fn openid_configuration(&self) -> serde_json::Value {
        let sa = &self.service_accounts;
        let uri = if self.config.service_account_jwks_uri.is_empty() {
            let (ip, port) = (self.config.advertise_address, self.config.advertise_port);
            let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            format!("https://{host}:{port}/openid/v1/jwks")
        } else {
            self.config.service_account_jwks_uri.clone()
        };
        let mut algorithms: Vec<&str> = sa.keys.iter().map(crate::authn::jwt::PublicKey::algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": sa.issuer,
            "jwks_uri": uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    fn paths(&self) -> Vec<String> {
        let mut all: Vec<String> = [
            "/.well-known/openid-configuration",
            "/api",
            "/apis",
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned)
        .to_vec();
        for r in self.registry.all() {
            if r.def.group.is_empty() {
                all.push("/api/v1".into());
            } else {
                all.push(format!("/apis/{}", r.def.group));
                all.push(format!("/apis/{}/{}", r.def.group, r.def.version));
            }
        }
        all.sort();
        all.dedup();
        all
    }

    async fn metrics_text(&self) -> String {
        use crate::metrics::{head, line};
        let (mut out, mut watches) = (String::new(), String::new());
        self.metrics.write(&mut out);
        let (reading, writing) = self.inflight.now();
        head(
            &mut out,
            "apiserver_current_inflight_requests",
            "gauge",
            "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        );
        line(&mut out, "apiserver_current_inflight_requests", "request_kind=\"mutating\"", writing);
        line(&mut out, "apiserver_current_inflight_requests", "request_kind=\"readOnly\"", reading);
        head(
            &mut out,
            "apiserver_storage_objects",
            "gauge",
            "[STABLE] Number of stored objects at the time of last check split by kind.",
        );
        head(
            &mut watches,
            "apiserver_longrunning_requests",
            "gauge",
            "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        );
        for res in self.registry.all() {
            let Some(cache) = res.objects.as_ref().and_then(|o| o.loaded()) else { continue };
            if !res.converts() {
                if let Ok(all) = cache.at_least(0).await {
                    let name = res.def.group_resource();
                    line(&mut out, "apiserver_storage_objects", &format!("resource=\"{name}\""), all.len());
                }
                let d = res.def;
                let labels = format!(
                    "component=\"apiserver\",group=\"{}\",resource=\"{}\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"{}\"",
                    d.group, d.resource, d.version
                );
                line(&mut watches, "apiserver_longrunning_requests", &labels, cache.watchers());
            }
        }
        out.push_str(&watches);
        crate::metrics::process(&mut out);
        pintle_api::metrics::write(&mut out);
        out
    }

    /// `/statusz`: what runs here and since when.
    fn statusz(&self) -> String {
        let up = self.clock.now().duration_since(self.started).as_secs();
        let version = crate::discovery::version();
        format!(
            "kube-apiserver statusz\n{UNSTABLE}\nStarted: {}\nUp: {}\nGo version: {}\nBinary version: {}\nEmulation version: 1.{}\nPaths: {}\n",
            pintle_api::time::format(self.started),
            pintle_api::time::human_duration(up),
            version["goVersion"].as_str().unwrap_or_default(),
            version["gitVersion"].as_str().unwrap_or_default(),
            crate::discovery::MINOR,
            "/healthz /livez /metrics /readyz /statusz /version"
        )
    }

    /// `/flagz`: the flags as given.
    fn flagz(&self) -> String {
        let mut out = format!("kube-apiserver flagz\n{UNSTABLE}\n");
        for (k, v) in &self.config.flags {
            out.push_str(&format!("{k}={v}\n"));
        }
        out
    }

    /// `/healthz`, `/livez`, `/readyz` and their parts.
    async fn health(&self, ctx: &Ctx, path: &str) -> Option<Response<Body>> {
        let trimmed = path.trim_end_matches('/');
        let mut parts = trimmed.trim_start_matches('/').splitn(2, '/');
        let endpoint = parts.next().filter(|e| matches!(*e, "healthz" | "livez" | "readyz"))?;
        let one = parts.next();
        let checks = self.hooks.checks(self, endpoint).await;
        if let Some(name) = one {
            let (_, state) = checks.iter().find(|(n, _)| n == name)?;
            return Some(match state {
                Ok(()) => respond::text(200, "ok"),
                Err(why) => respond::text(500, format!("internal server error: {why}\n")),
            });
        }
        let excluded: Vec<&str> = ctx.query.all("exclude").collect();
        let mut text = String::new();
        let mut failed = Vec::new();
        for (name, state) in &checks {
            if excluded.contains(&name.as_str()) {
                text.push_str(&format!("[+]{name} excluded: ok\n"));
            } else if state.is_ok() {
                text.push_str(&format!("[+]{name} ok\n"));
            } else {
                failed.push(name.as_str());
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
        let unknown: Vec<&&str> = excluded.iter().filter(|e| !checks.iter().any(|(n, _)| n == *e)).collect();
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|n| format!("\"{n}\"")).collect();
            text.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {}\n",
                names.join(", ")
            ));
        }
        if !failed.is_empty() {
            return Some(respond::text(500, format!("{text}{endpoint} check failed\n")));
        }
        if ctx.query.has("verbose") {
            return Some(respond::text(200, format!("{text}{endpoint} check passed\n")));
        }
        Some(respond::text(200, "ok"))
    }
}

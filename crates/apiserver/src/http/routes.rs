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

impl Server {
    /// Serves a request about anything but a resource.
    ///
    /// # Errors
    /// The `Status` to answer with.
    pub(crate) async fn other(self: &Arc<Self>, ctx: &Ctx, _body: &mut Body) -> Result<Response<Body>, Status> {
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
            "/statusz" if reads => self.statusz(ctx),
            "/flagz" if reads => self.flagz(ctx),
            "/configz" if reads => Ok(respond::bytes(200, "application/json", self.configz().to_string())),
            "/" => Ok(self.plain(ctx, &json!({"paths": self.paths()}))),
            "/version" if reads => Ok(self.plain(ctx, &crate::discovery::version())),
            "/metrics" if reads => {
                if let Ok(size) = self.config.store.size().await {
                    crate::metrics::store_size(size.total);
                }
                let mut text = String::new();
                pintle_api::metrics::write(&mut text);
                Ok(respond::bytes(200, "text/plain; version=0.0.4; charset=utf-8", text))
            }
            "/debug/api_priority_and_fairness/dump_priority_levels" if reads && self.fairness.is_on() => {
                Ok(respond::text(200, self.fairness.dump()))
            }
            path if reads && path.starts_with("/debug/pprof") => {
                Ok(self.pprof(path).unwrap_or_else(respond::page_not_found))
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
        const PLAIN: &[&str] = &[
            "/.well-known/openid-configuration",
            "/api",
            "/apis",
            "/configz",
            "/debug/pprof",
            "/flagz",
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
            "/readyz",
            "/statusz",
            "/version",
        ];
        let mut all: Vec<String> = PLAIN.iter().map(|p| (*p).to_owned()).collect();
        for endpoint in ["healthz", "livez", "readyz"] {
            all.extend(crate::bootstrap::Hooks::names(endpoint).map(|n| format!("/{endpoint}/{n}")));
        }
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
}

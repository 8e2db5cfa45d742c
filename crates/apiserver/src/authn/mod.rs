//! Authentication: who is asking?

pub(crate) mod impersonation;
pub(crate) mod jwt;
pub(crate) mod service_account;
pub(crate) mod tokens;
pub(crate) mod x509;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::header::AUTHORIZATION;
use pintle_api::Status;
use pintle_api::service::UserInfo;
use rustls_pki_types::CertificateDer;

use crate::Server;
use crate::http::context::Ctx;

/// Request extension: what is known of the other end of the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The client's certificate and its chain, proven to be its own but not yet to be trusted.
    pub(crate) certificates: Arc<Vec<CertificateDer<'static>>>,
    pub(crate) address: Option<IpAddr>,
    /// What the certificate was found to be worth when the connection's first request came.
    known: Arc<OnceLock<Option<x509::Client>>>,
}

impl Peer {
    /// The other end with this chain.
    pub(crate) fn new(certificates: Vec<CertificateDer<'static>>, address: Option<IpAddr>) -> Self {
        Self { certificates: Arc::new(certificates), address, known: Arc::default() }
    }
}

/// The bearer token of a request, from its header or, for WebSockets of browsers, from a sub-protocol.
pub(crate) fn bearer(ctx: &Ctx) -> Option<String> {
    let header = ctx.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut words = header.trim().splitn(2, ' ');
    if words.next().is_some_and(|w| w.eq_ignore_ascii_case("bearer"))
        && let Some(token) = words.next().map(str::trim).filter(|t| !t.is_empty())
    {
        return Some(token.to_owned());
    }
    use base64::Engine;
    ctx.headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .find_map(|p| p.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))
        .and_then(|t| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(t).ok())
        .and_then(|t| String::from_utf8(t).ok())
}

impl Server {
    /// The user of a request.
    ///
    /// # Errors
    /// 401.
    pub(crate) async fn authenticate(&self, ctx: &mut Ctx, peer: &Peer) -> Result<Arc<UserInfo>, Status> {
        if let Some(proxy) = &self.front_proxy
            && let Some(user) = proxy.user(&mut ctx.headers, &peer.certificates)
        {
            return Ok(Arc::new(authenticated(user)));
        }
        if let Some(clients) = &self.client_ca {
            let client = peer.known.get_or_init(|| clients.client(&peer.certificates));
            let now = self.clock.now().as_second();
            if let Some(client) = client.as_ref().filter(|c| c.until >= now) {
                self.metrics.certificate(client.until - now);
                return Ok(Arc::clone(&client.user));
            }
        }
        if let Some(token) = bearer(ctx) {
            let user = self.token_user(&token, &[]).await?.map(|(user, _)| user);
            ctx.headers.remove(AUTHORIZATION);
            return user.map(authenticated).map(Arc::new).ok_or_else(Status::unauthorized);
        }
        // A certificate that nobody here trusts is a failed attempt, not an anonymous request.
        if !peer.certificates.is_empty() && self.client_ca.is_some() {
            return Err(Status::unauthorized());
        }
        if self.config.anonymous {
            return Ok(Arc::new(UserInfo {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..UserInfo::default()
            }));
        }
        Err(Status::unauthorized())
    }
}

/// Puts the user into the group of all who are authenticated.
pub(crate) fn authenticated(mut user: UserInfo) -> UserInfo {
    let anonymous = user.name == "system:anonymous";
    let group = if anonymous { "system:unauthenticated" } else { "system:authenticated" };
    if !user.groups.iter().any(|g| matches!(g.as_str(), "system:authenticated" | "system:unauthenticated")) {
        user.groups.push(group.into());
    }
    user
}

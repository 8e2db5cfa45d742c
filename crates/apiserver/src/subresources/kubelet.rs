//! Connections to other servers on behalf of a client: kubelets, pods and services.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use pintle_api::Status;
use pintle_api::service::{Body, BoxError, full};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Server;
use crate::authn::x509;
use crate::config::Config;
use crate::http::context::Ctx;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(30);

/// TLS towards kubelets, and towards others whose certificates nobody here can check.
pub(crate) struct Kubelets {
    kubelet: TlsConnector,
    unchecked: TlsConnector,
}

/// Where to send a request.
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `http` or `https`.
    pub(crate) tls: bool,
    /// With the client certificate for kubelets.
    pub(crate) kubelet: bool,
    /// Path and query.
    pub(crate) path: String,
}

#[derive(Debug)]
struct Unchecked(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Kubelets {
    /// From the configuration. Without an authority of kubelets their certificates are not checked, as upstream.
    ///
    /// # Errors
    /// When a certificate or key does not parse.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())
        };
        let unchecked = || Arc::new(Unchecked(Arc::clone(&provider)));
        let checked = match &config.kubelet_ca {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for c in x509::certificates(&pem.read()?)? {
                    roots.add(c).map_err(|e| format!("kubelet CA: {e}"))?;
                }
                builder()?.with_root_certificates(roots)
            }
            None => builder()?.dangerous().with_custom_certificate_verifier(unchecked()),
        };
        let kubelet = match (&config.kubelet_client_cert, &config.kubelet_client_key) {
            (Some(cert), Some(key)) => {
                let chain = x509::certificates(&cert.read()?)?;
                let key =
                    PrivateKeyDer::from_pem_slice(&key.read()?).map_err(|e| format!("kubelet client key: {e}"))?;
                checked.with_client_auth_cert(chain, key).map_err(|e| format!("kubelet client certificate: {e}"))?
            }
            _ => checked.with_no_client_auth(),
        };
        let other = builder()?.dangerous().with_custom_certificate_verifier(unchecked()).with_no_client_auth();
        Ok(Self { kubelet: TlsConnector::from(Arc::new(kubelet)), unchecked: TlsConnector::from(Arc::new(other)) })
    }
}

/// Either side of a connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn failed(target: &Target, e: &dyn std::fmt::Display) -> Status {
    Status::unavailable(format!("error trying to reach service: {e}")).cause(
        "",
        format!("{}:{}", target.host, target.port),
        "",
    )
}

/// Headers that speak of one connection only.
const HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Server {
    async fn connect(&self, t: &Target) -> Result<Box<dyn Stream>, Status> {
        let host = t.host.trim_matches(['[', ']']);
        let tcp = tokio::time::timeout(CONNECT, TcpStream::connect((host, t.port)))
            .await
            .map_err(|_| failed(t, &format!("dial tcp {}:{}: i/o timeout", t.host, t.port)))?
            .map_err(|e| failed(t, &format!("dial tcp {}:{}: {e}", t.host, t.port)))?;
        // Without it small frames of a terminal wait for more.
        let _ = tcp.set_nodelay(true);
        if !t.tls {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|e| failed(t, &e))?;
        let connector = if t.kubelet { &self.kubelets.kubelet } else { &self.kubelets.unchecked };
        let tls = tokio::time::timeout(CONNECT, connector.connect(name, tcp))
            .await
            .map_err(|_| failed(t, &"TLS handshake timeout"))?
            .map_err(|e| failed(t, &e))?;
        Ok(Box::new(tls))
    }

    /// Sends the client's request on and answers with what comes back; a switch of protocols joins both connections.
    ///
    /// # Errors
    /// 503 when the other side cannot be reached.
    pub(crate) async fn forward(&self, ctx: &Ctx, target: &Target, body: Body) -> Result<Response<Body>, Status> {
        let stream = self.connect(target).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(target, &e))?;
        tokio::spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                tracing::debug!("forwarded connection ended: {e}");
            }
        });
        let mut request = Request::new(body);
        *request.method_mut() = ctx.method.clone();
        *request.uri_mut() = target.path.parse().map_err(|e| Status::bad_request(format!("{e}")))?;
        let upgrade = ctx.headers.get(UPGRADE).cloned();
        copy_headers(&ctx.headers, request.headers_mut(), target.kubelet);
        if let Some(u) = &upgrade {
            request.headers_mut().insert(UPGRADE, u.clone());
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        let port =
            if target.port == if target.tls { 443 } else { 80 } { String::new() } else { format!(":{}", target.port) };
        if let Ok(host) = HeaderValue::from_str(&format!("{}{port}", target.host)) {
            request.headers_mut().insert(HOST, host);
        }
        let mut answer = sender.send_request(request).await.map_err(|e| failed(target, &e))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS && upgrade.is_some() {
            let Some(ours) = ctx.upgrade.lock().take() else {
                return Err(Status::bad_request("the connection cannot switch protocols"));
            };
            let theirs = hyper::upgrade::on(&mut answer);
            let stop = self.stopping.clone();
            tokio::spawn(async move {
                let (ours, theirs) = match tokio::try_join!(ours, theirs) {
                    Ok(both) => both,
                    Err(e) => return tracing::debug!("switching protocols failed: {e}"),
                };
                let (mut a, mut b) = (TokioIo::new(ours), TokioIo::new(theirs));
                tokio::select! {
                    r = tokio::io::copy_bidirectional(&mut a, &mut b) => {
                        if let Err(e) = r {
                            tracing::debug!("stream ended: {e}");
                        }
                    }
                    () = stop.cancelled() => {}
                }
            });
            let mut response = Response::new(full(bytes::Bytes::new()));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = answer.headers().clone();
            return Ok(response);
        }
        let (mut parts, body) = answer.into_parts();
        for h in HOP {
            parts.headers.remove(*h);
        }
        let body = body.map_err(|e| -> BoxError { Box::new(e) }).boxed_unsync();
        // The connection lives as long as its answer is read: the sender is not needed for that.
        drop(sender);
        Ok(Response::from_parts(parts, body))
    }

    /// Address and port of a node's kubelet.
    ///
    /// # Errors
    /// 404 for a node there is not, 503 for one without an address.
    pub(crate) async fn kubelet_of(&self, node: &str) -> Result<(String, u16), Status> {
        let nodes = self.registry.must("", "v1", "nodes")?;
        let object = nodes.objects()?.get("", node).await?.ok_or_else(|| nodes.not_found(node))?;
        let view: Value = object.view().map_err(Status::internal)?;
        let addresses = view.pointer("/status/addresses").and_then(Value::as_array);
        let host = self.config.kubelet_preferred_address_types.iter().find_map(|wanted| {
            addresses?.iter().find(|a| a["type"] == wanted.as_str()).and_then(|a| a["address"].as_str())
        });
        let Some(host) = host else {
            return Err(Status::internal(format!(
                "no preferred addresses found; known addresses: {}",
                addresses.map(|a| Value::Array(a.clone()).to_string()).unwrap_or_else(|| "[]".into())
            )));
        };
        let port =
            view.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64).unwrap_or(10250);
        Ok((host.to_owned(), u16::try_from(port).unwrap_or(10250)))
    }
}

/// Copies what is meant for the other end.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, kubelet: bool) {
    let named: Vec<HeaderName> = from
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    for (k, v) in from {
        let own = HOP.contains(&k.as_str()) || named.contains(k) || k == HOST;
        // Who asks is not the other end's business; the kubelet knows this server by its certificate.
        let secret = k == http::header::AUTHORIZATION || (kubelet && k.as_str().starts_with("impersonate-"));
        if !own && !secret {
            to.append(k.clone(), v.clone());
        }
    }
}

/// Whether the client asks to switch protocols.
pub(crate) fn wants_upgrade(ctx: &Ctx) -> bool {
    ctx.headers.contains_key(UPGRADE) && matches!(ctx.method, Method::GET | Method::POST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let mut from = HeaderMap::new();
        for (k, v) in [
            ("connection", "upgrade, x-hop"),
            ("x-hop", "1"),
            ("authorization", "Bearer x"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("host", "h"),
            ("sec-websocket-key", "k"),
        ] {
            from.insert(k.parse::<HeaderName>().unwrap(), v.parse().unwrap());
        }
        let mut to = HeaderMap::new();
        copy_headers(&from, &mut to, true);
        let mut names: Vec<&str> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["sec-websocket-key", "x-stream-protocol-version"]);
    }
}

//! Audit events sent to a server that a kubeconfig names, many at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use pintle_api::service::BoxError;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Where events go and how many at once.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// A kubeconfig whose current context names the server.
    pub config_file: PathBuf,
    /// Events that wait at most; more are dropped.
    pub buffer: usize,
    /// Events sent at once at most.
    pub batch: usize,
    /// How long an event waits for others at most.
    pub wait: Duration,
    /// The pause before a failed request is tried again.
    pub backoff: Duration,
}

impl WebhookConfig {
    /// Upstream's defaults.
    #[must_use]
    pub fn new(config_file: PathBuf) -> Self {
        let second = Duration::from_secs(1);
        Self { config_file, buffer: 10_000, batch: 400, wait: 30 * second, backoff: 10 * second }
    }
}

/// How often a batch is tried before it is given up.
const ATTEMPTS: u32 = 4;
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

fn pem(dir: &Path, file: Option<&PathBuf>, data: Option<&String>) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = data {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data.trim()).map_err(|e| e.to_string())?;
        return Ok(Some(bytes));
    }
    let Some(file) = file else { return Ok(None) };
    let file = dir.join(file);
    std::fs::read(&file).map(Some).map_err(|e| format!("cannot read {}: {e}", file.display()))
}

/// The other end.
struct Target {
    host: String,
    port: u16,
    path: String,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    token: Option<String>,
}

impl Target {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, dir).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn parse(text: &str, dir: &Path) -> Result<Self, String> {
        let config: Kubeconfig = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let context = config.contexts.iter().find(|c| c.name == config.current_context).map(|c| &c.context);
        let cluster = match context {
            Some(context) => config.clusters.iter().find(|c| c.name == context.cluster),
            None => config.clusters.first(),
        };
        let cluster = cluster.map(|c| &c.cluster).ok_or("it names no cluster")?;
        let none = User::default();
        let user = context.and_then(|context| config.users.iter().find(|u| u.name == context.user));
        let user = user.map_or(&none, |u| &u.user);
        let uri: http::Uri = cluster.server.parse().map_err(|e| format!("server {:?}: {e}", cluster.server))?;
        let host = uri.host().ok_or("its server has no host")?.trim_matches(['[', ']']).to_owned();
        let https = uri.scheme_str() != Some("http");
        let tls = if https {
            let mut roots = RootCertStore::empty();
            let ca = pem(dir, cluster.certificate_authority.as_ref(), cluster.certificate_authority_data.as_ref())?
                .ok_or("a server over https needs certificate-authority or certificate-authority-data")?;
            for c in crate::authn::x509::certificates(&ca)? {
                roots.add(c).map_err(|e| e.to_string())?;
            }
            let builder =
                rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .map_err(|e| e.to_string())?
                    .with_root_certificates(roots);
            let cert = pem(dir, user.client_certificate.as_ref(), user.client_certificate_data.as_ref())?;
            let key = pem(dir, user.client_key.as_ref(), user.client_key_data.as_ref())?;
            let tls = match (cert, key) {
                (Some(cert), Some(key)) => {
                    let chain: Vec<CertificateDer<'static>> = crate::authn::x509::certificates(&cert)?;
                    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("client key: {e}"))?;
                    builder.with_client_auth_cert(chain, key).map_err(|e| e.to_string())?
                }
                _ => builder.with_no_client_auth(),
            };
            let name = cluster.tls_server_name.clone().unwrap_or_else(|| host.clone());
            Some((Arc::new(tls), ServerName::try_from(name).map_err(|e| e.to_string())?))
        } else {
            None
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { host, port, path, tls, token: user.token.clone() })
    }

    async fn send(&self, body: Bytes) -> Result<(), BoxError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            None => self.over(TokioIo::new(tcp), body).await,
            Some((tls, name)) => {
                let stream = tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name.clone(), tcp).await?;
                self.over(TokioIo::new(stream), body).await
            }
        }
    }

    async fn over<S>(&self, stream: S, body: Bytes) -> Result<(), BoxError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::post(&self.path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
        }
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // Read to its end, so that the other side sees an orderly one.
        answer.into_body().collect().await?;
        drop(sender);
        connection.abort();
        if status.is_success() { Ok(()) } else { Err(format!("the server answered {status}").into()) }
    }
}

/// Takes events and sends them.
pub(super) struct Webhook {
    queue: mpsc::Sender<Bytes>,
    /// Until the server runs.
    idle: parking_lot::Mutex<Option<(WebhookConfig, Target, mpsc::Receiver<Bytes>)>>,
}

impl Webhook {
    /// Reads the configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let target = Target::read(&config.config_file)?;
        let (queue, events) = mpsc::channel(config.buffer.max(1));
        Ok(Self { queue, idle: parking_lot::Mutex::new(Some((config.clone(), target, events))) })
    }

    /// Starts to send.
    pub(super) fn start(&self) {
        if let Some((config, target, events)) = self.idle.lock().take() {
            tokio::spawn(run(config, target, events));
        }
    }

    /// Takes an event's JSON, unless too many wait.
    pub(super) fn push(&self, event: &Bytes) -> bool {
        self.queue.try_send(event.clone()).is_ok()
    }
}

async fn run(config: WebhookConfig, target: Target, mut events: mpsc::Receiver<Bytes>) {
    let mut batch = Vec::new();
    while let Some(first) = events.recv().await {
        batch.push(first);
        let until = tokio::time::Instant::now() + config.wait;
        while batch.len() < config.batch {
            match tokio::time::timeout_at(until, events.recv()).await {
                Ok(Some(event)) => batch.push(event),
                _ => break,
            }
        }
        let mut body = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
        body.extend_from_slice(&batch.join(&b','));
        body.extend_from_slice(b"]}\n");
        batch.clear();
        let body = Bytes::from(body);
        let mut pause = config.backoff;
        for attempt in 1..=ATTEMPTS {
            let sent = tokio::time::timeout(TIMEOUT, target.send(body.clone())).await;
            let error = match sent {
                Ok(Ok(())) => break,
                Ok(Err(e)) => e.to_string(),
                Err(_) => "it took too long".to_owned(),
            };
            tracing::warn!(attempt, "sending audit events failed: {error}");
            if attempt == ATTEMPTS {
                super::lost();
            } else {
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(1.5);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kubeconfigs() {
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
            clusters: [{name: k, cluster: {server: 'http://127.0.0.1:99/audit?x=1'}}]\nusers: [{name: u, user: {token: t}}]\n";
        let t = Target::parse(text, Path::new(".")).unwrap();
        assert_eq!((t.host.as_str(), t.port, t.path.as_str()), ("127.0.0.1", 99, "/audit?x=1"));
        assert_eq!(t.token.as_deref(), Some("t"));
        let e = Target::parse(&text.replace("http:", "https:"), Path::new(".")).err().unwrap();
        assert!(e.contains("certificate-authority"), "{e}");
        assert!(Target::parse("clusters: []", Path::new(".")).is_err());
    }
}

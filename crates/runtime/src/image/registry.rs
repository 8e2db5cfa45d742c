//! A registry's client: the distribution protocol's pulling half, with tokens, mirrors and resumed downloads.

use super::manifest::{INDEXES, MANIFESTS};
use super::name::ImageName;
use crate::sys::Context as _;
use crate::{Code, Error, RegistryAuth, Result};
use base64::Engine as _;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The largest manifest or configuration taken.
const MAX_DOCUMENT: usize = 4 << 20;
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a download that broke off is resumed.
const RETRIES: u32 = 5;
const REDIRECTS: u32 = 10;

/// Where images of a registry are fetched from, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHost {
    /// `https://mirror.example:5000`, or with `http`.
    pub url: String,
    /// Take any certificate.
    pub skip_verify: bool,
    /// A file of certificates (PEM) to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// Credentials for this host, when the pull brings none.
    pub auth: Option<RegistryAuth>,
}

/// The hosts by registry (`docker.io`), asked in order; `_default` is for registries that are not named. The registry
/// itself comes last unless it is among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHosts(pub BTreeMap<String, Vec<RegistryHost>>);

impl RegistryHosts {
    /// The hosts to ask for a registry's images.
    #[must_use]
    pub fn of(&self, registry: &str) -> Vec<RegistryHost> {
        let own = match registry {
            "docker.io" => "https://registry-1.docker.io".to_string(),
            r if is_loopback(r) => format!("http://{r}"),
            r => format!("https://{r}"),
        };
        let mut hosts = self.0.get(registry).or_else(|| self.0.get("_default")).cloned().unwrap_or_default();
        let host = |url: &str| url.split("://").nth(1).unwrap_or(url).trim_end_matches('/').to_string();
        if !hosts.iter().any(|h| host(&h.url) == host(&own)) {
            hosts.push(RegistryHost { url: own, ..RegistryHost::default() });
        }
        hosts
    }
}

/// Registries on this machine speak plain HTTP.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

type Http = HyperClient<HttpsConnector<Connector>, Empty<Bytes>>;

/// Connects straight, or through the proxy that the environment names for a destination (`HTTPS_PROXY`, `NO_PROXY`, …).
#[derive(Clone)]
struct Connector {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

impl tower::Service<Uri> for Connector {
    type Response = <HttpConnector as tower::Service<Uri>>::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::poll_ready(&mut self.direct, cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&to) else {
            let connecting = tower::Service::call(&mut self.direct, to);
            return async move { connecting.await.map_err(Into::into) }.boxed();
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        async move { tower::Service::call(&mut tunnel, to).await.map_err(Into::into) }.boxed()
    }
}

/// One host, for one image.
pub struct Registry {
    http: Http,
    base: String,
    /// The registry a mirror stands for.
    namespace: Option<String>,
    repository: String,
    auth: Option<RegistryAuth>,
    /// The header that was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

fn tls(host: &RegistryHost) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(e.to_string()))?;
    if host.skip_verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth());
    }
    let mut roots = rustls::RootCertStore::empty();
    // A machine without any can still use what is given, or plain HTTP.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(ca) = &host.ca {
        let text = std::fs::read(ca).context(format!("reading certificates from {}", ca.display()))?;
        for cert in rustls::pki_types::CertificateDer::pem_slice_iter(&text) {
            let cert = cert.map_err(|e| Error::invalid(format!("{}: {e}", ca.display())))?;
            roots.add(cert).map_err(|e| Error::invalid(format!("{}: {e}", ca.display())))?;
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// For hosts whose owner said not to look.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn unavailable(what: &str, url: &str, e: impl std::error::Error) -> Error {
    // The innermost cause says most.
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Error::new(Code::Unavailable, format!("failed to do request: {what} {url:?}: {text}"))
}

impl Registry {
    /// A client for `name`'s repository at `host`.
    pub fn new(host: &RegistryHost, name: &ImageName, auth: Option<&RegistryAuth>) -> Result<Self> {
        Self::with_proxies(host, name, auth, Matcher::from_env())
    }

    fn with_proxies(
        host: &RegistryHost,
        name: &ImageName,
        auth: Option<&RegistryAuth>,
        proxies: Matcher,
    ) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(Duration::from_secs(30)));
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(host)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector { direct: connector, proxies: Arc::new(proxies) });
        let own = RegistryHosts::default().of(&name.registry);
        let base = host.url.trim_end_matches('/').to_string();
        let mirror = own.first().is_none_or(|o| o.url != base);
        Ok(Self {
            http: HyperClient::builder(TokioExecutor::new()).build(https),
            base,
            namespace: mirror.then(|| name.registry.clone()),
            repository: name.repository.clone(),
            // Credentials are for the registry that was named, never for another that stands for it.
            auth: if mirror { host.auth.clone() } else { auth.cloned().or_else(|| host.auth.clone()) },
            authorization: Mutex::new(None),
        })
    }

    fn url(&self, rest: &str) -> String {
        let query = self.namespace.as_ref().map(|n| format!("?ns={n}")).unwrap_or_default();
        format!("{}/v2/{}/{rest}{query}", self.base, self.repository)
    }

    async fn send(
        &self,
        url: &str,
        headers: &HeaderMap,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>> {
        let uri: Uri = url.parse().map_err(|e| Error::invalid(format!("invalid address {url:?}: {e}")))?;
        let mut request = Request::get(uri);
        if let Some(all) = request.headers_mut() {
            all.extend(headers.clone());
            all.insert(USER_AGENT, HeaderValue::from_static("pintle"));
            all.extend(authorization.map(|a| (AUTHORIZATION, a)));
        }
        let request = request.body(Empty::new()).map_err(|e| Error::invalid(e.to_string()))?;
        match tokio::time::timeout(SILENCE, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => Err(unavailable("Get", url, e)),
            Err(_) => Err(Error::new(Code::Unavailable, format!("failed to do request: Get {url:?}: timeout"))),
        }
    }

    /// Asks, with a token if the server wants one, and follows where it points.
    async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Response<Incoming>> {
        let known = self.authorization.lock().clone();
        let mut response = self.send(url, headers, known).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = response.headers().get_all(WWW_AUTHENTICATE);
            let challenges: Vec<Challenge> =
                challenge.iter().filter_map(|c| Challenge::parse(c.to_str().ok()?)).collect();
            let header = self.authorize(&challenges).await?;
            *self.authorization.lock() = Some(header.clone());
            response = self.send(url, headers, Some(header)).await?;
        }
        let mut at: Uri = url.parse().map_err(|_| Error::invalid(format!("invalid address {url:?}")))?;
        for _ in 0..REDIRECTS {
            if !response.status().is_redirection() {
                break;
            }
            let to = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let to = to.ok_or_else(|| Error::unknown("a redirection to nowhere"))?;
            let next: Uri = if to.starts_with('/') {
                format!("{}://{}{to}", at.scheme_str().unwrap_or("https"), at.authority().map_or("", |a| a.as_str()))
                    .parse()
            } else {
                to.parse()
            }
            .map_err(|_| Error::unknown(format!("a redirection to {to:?}")))?;
            // Credentials stay with the host they are for.
            let same = next.authority() == at.authority() && next.scheme() == at.scheme();
            let header = if same { self.authorization.lock().clone() } else { None };
            response = self.send(&next.to_string(), headers, header).await?;
            at = next;
        }
        Ok(response)
    }

    async fn authorize(&self, challenges: &[Challenge]) -> Result<HeaderValue> {
        let sensitive = |text: String| -> Result<HeaderValue> {
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| Error::invalid("the credentials cannot be sent"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let auth = self.auth.clone().unwrap_or_default();
        if !auth.registry_token.is_empty() {
            return sensitive(format!("Bearer {}", auth.registry_token));
        }
        let basic = || {
            let pair = format!("{}:{}", auth.username, auth.password);
            sensitive(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        };
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            let token = self.token(bearer, &auth, &basic).await?;
            return sensitive(format!("Bearer {token}"));
        }
        if challenges.iter().any(|c| c.scheme == "basic") && !auth.username.is_empty() {
            return basic();
        }
        Err(Error::new(
            Code::Unauthenticated,
            "pull access denied, repository does not exist or may require authorization: no basic auth credentials",
        ))
    }

    /// Trades credentials, or none, for a token.
    async fn token(
        &self,
        challenge: &Challenge,
        auth: &RegistryAuth,
        basic: &(impl Fn() -> Result<HeaderValue> + Sync),
    ) -> Result<String> {
        let realm = challenge.get("realm").ok_or_else(|| Error::unknown("the registry names no token server"))?;
        let scope = challenge.get("scope").map_or_else(|| format!("repository:{}:pull", self.repository), Into::into);
        let mut query = vec![("scope", scope)];
        query.extend(challenge.get("service").map(|s| ("service", s.to_string())));
        let with_login = !auth.username.is_empty();
        if with_login {
            query.push(("account", auth.username.clone()));
        }
        let encode = |v: &str| percent_encoding::utf8_percent_encode(v, percent_encoding::NON_ALPHANUMERIC).to_string();
        let query: Vec<String> = query.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
        let url = format!("{realm}{}{}", if realm.contains('?') { '&' } else { '?' }, query.join("&"));
        let header = match (&auth.identity_token, with_login) {
            (t, _) if !t.is_empty() => {
                // An identity token is sent as the password of nobody.
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("<token>:{t}"));
                HeaderValue::from_str(&format!("Basic {pair}")).ok()
            }
            (_, true) => Some(basic()?),
            _ => None,
        };
        let response = self.send(&url, &HeaderMap::new(), header).await?;
        let status = response.status();
        if !status.is_success() {
            let kind = if with_login { "oauth" } else { "anonymous" };
            return Err(Error::new(
                if status == StatusCode::FORBIDDEN { Code::PermissionDenied } else { Code::Unauthenticated },
                format!(
                    "failed to authorize: failed to fetch {kind} token: unexpected status from GET request to {url}: {status}"
                ),
            ));
        }
        #[derive(serde::Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let body = read_all(response).await?;
        let token: Token = serde_json::from_slice(&body)
            .map_err(|e| Error::unknown(format!("failed to authorize: the token server answered nonsense: {e}")))?;
        Ok(if token.token.is_empty() { token.access_token } else { token.token })
    }

    fn refused(&self, url: &str, status: StatusCode, body: &[u8]) -> Error {
        #[derive(serde::Deserialize)]
        struct Errors {
            #[serde(default)]
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let said: Errors = serde_json::from_slice(body).unwrap_or(Errors { errors: vec![] });
        let words =
            said.errors.first().map(|e| format!("{}: {}", e.code.to_lowercase(), e.message)).unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND => Error::not_found("not found"),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::new(
                if status == StatusCode::FORBIDDEN { Code::PermissionDenied } else { Code::Unauthenticated },
                format!(
                    "pull access denied, repository does not exist or may require authorization: server message: {words}"
                ),
            ),
            s if s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS => {
                Error::new(Code::Unavailable, format!("unexpected status from GET request to {url}: {status} {words}"))
            }
            _ => Error::unknown(format!("unexpected status from GET request to {url}: {status} {words}")),
        }
    }

    /// A manifest or index by tag or digest.
    pub async fn manifest(&self, reference: &str) -> Result<Vec<u8>> {
        let mut headers = HeaderMap::new();
        let accept = MANIFESTS.iter().chain(&INDEXES).copied().collect::<Vec<_>>().join(", ");
        headers.extend(HeaderValue::from_str(&accept).ok().map(|v| (ACCEPT, v)));
        self.document(&format!("manifests/{reference}"), &headers).await
    }

    /// A small blob.
    pub async fn small_blob(&self, digest: &str) -> Result<Vec<u8>> {
        self.document(&format!("blobs/{digest}"), &HeaderMap::new()).await
    }

    async fn document(&self, rest: &str, headers: &HeaderMap) -> Result<Vec<u8>> {
        let url = self.url(rest);
        let response = self.get(&url, headers).await?;
        let status = response.status();
        let body = read_all(response).await?;
        if status == StatusCode::OK { Ok(body) } else { Err(self.refused(&url, status, &body)) }
    }

    /// A blob of `size` bytes, to a file. A connection that breaks is made again, and goes on where it broke.
    pub async fn blob(&self, digest: &str, size: u64, path: &Path) -> Result<()> {
        let url = self.url(&format!("blobs/{digest}"));
        let mut file = std::fs::File::create(path).context("keeping a blob")?;
        let (mut have, mut failures) = (0u64, 0);
        while have < size {
            match self.piece(&url, have, size, &mut file).await {
                Ok(()) => {}
                Err((e, true)) if failures < RETRIES => {
                    failures += 1;
                    tracing::debug!("{e}; trying again");
                    tokio::time::sleep(Duration::from_millis(100 << failures)).await;
                }
                Err((e, _)) => return Err(e),
            }
            have = file.metadata().context("keeping a blob")?.len();
        }
        if have == size { Ok(()) } else { Err(Error::unknown(format!("blob {digest} is larger than {size} bytes"))) }
    }

    /// Fetches from `have` on. An error says whether trying again may help.
    async fn piece(&self, url: &str, have: u64, size: u64, file: &mut std::fs::File) -> Result<(), (Error, bool)> {
        let mut headers = HeaderMap::new();
        if have > 0 {
            headers.extend(HeaderValue::from_str(&format!("bytes={have}-")).ok().map(|v| (RANGE, v)));
        }
        let response = self.get(url, &headers).await.map_err(|e| {
            let again = e.code == Code::Unavailable;
            (e, again)
        })?;
        let status = response.status();
        if status == StatusCode::OK && have > 0 {
            // It does not know how to go on: from the beginning, then.
            use std::io::Seek as _;
            file.set_len(0).and_then(|()| file.rewind()).context("keeping a blob").map_err(|e| (e, false))?;
        } else if !status.is_success() {
            let body = read_all(response).await.unwrap_or_default();
            let e = self.refused(url, status, &body);
            let again = e.code == Code::Unavailable;
            return Err((e, again));
        }
        let mut body = Limited::new(response.into_body(), usize::try_from(size).unwrap_or(usize::MAX));
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await;
            let frame =
                frame.map_err(|_| (Error::new(Code::Unavailable, format!("{url}: the download stalled")), true))?;
            match frame {
                None => return Ok(()),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        file.write_all(data).context("keeping a blob").map_err(|e| (e, false))?;
                    }
                }
                Some(Err(e)) => {
                    return Err((Error::new(Code::Unavailable, format!("{url}: the download broke off: {e}")), true));
                }
            }
        }
    }
}

async fn read_all(response: Response<Incoming>) -> Result<Vec<u8>> {
    let body = Limited::new(response.into_body(), MAX_DOCUMENT);
    let body = tokio::time::timeout(SILENCE, body.collect()).await;
    let body = body.map_err(|_| Error::new(Code::Unavailable, "the registry stopped in the middle of an answer"))?;
    let body = body.map_err(|e| Error::new(Code::Unavailable, format!("the registry's answer broke off: {e}")))?;
    Ok(body.to_bytes().to_vec())
}

/// What a server wants to see.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parameters = vec![];
        while let Some((key, after)) = rest.split_once('=') {
            let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            parameters.push((key, value.trim().to_string()));
            rest = next;
        }
        Some(Self { scheme: scheme.to_ascii_lowercase(), parameters })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// Reads a directory with a file for each registry (`docker.io`, `_default`): a line a host, its address first, then
/// `skip_verify` or `ca=<file>`. A directory that is not there names none.
pub fn read_hosts(dir: &Path) -> Result<RegistryHosts> {
    let mut out = BTreeMap::new();
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(RegistryHosts::default()),
        other => other.context(format!("reading {}", dir.display()))?,
    };
    for entry in entries.flatten() {
        use std::io::BufRead as _;
        let file = std::fs::File::open(entry.path()).context(format!("reading {}", entry.path().display()))?;
        let mut hosts = vec![];
        for line in BufReader::new(file).lines() {
            let line = line.context(format!("reading {}", entry.path().display()))?;
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(url) = words.next() else { continue };
            let bad = |what: &str| Error::invalid(format!("{}: {what}", entry.path().display()));
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(bad(&format!("{url:?} is no address of a host")));
            }
            let mut host = RegistryHost { url: url.into(), ..RegistryHost::default() };
            for word in words {
                match word.split_once('=') {
                    Some(("ca", file)) => host.ca = Some(file.into()),
                    None if word == "skip_verify" => host.skip_verify = true,
                    _ => return Err(bad(&format!("unknown setting {word:?}"))),
                }
            }
            hosts.push(host);
        }
        out.insert(entry.file_name().to_string_lossy().into_owned(), hosts);
    }
    Ok(RegistryHosts(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let c = Challenge::parse(r#"Bearer realm="https://auth/token",service="r.io", scope="repository:a/b:pull""#)
            .unwrap();
        assert_eq!((c.scheme.as_str(), c.get("realm")), ("bearer", Some("https://auth/token")));
        assert_eq!((c.get("service"), c.get("scope")), (Some("r.io"), Some("repository:a/b:pull")));
        assert_eq!(Challenge::parse("Basic realm=x").unwrap().get("realm"), Some("x"));
        assert_eq!(Challenge::parse("Negotiate").unwrap().parameters, []);
    }

    #[tokio::test]
    async fn proxies() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = tokio::spawn(async move {
            let (mut s, _) = listener.accept().await.unwrap();
            let mut seen = String::new();
            for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"] {
                let mut chunk = [0; 4096];
                let n = s.read(&mut chunk).await.unwrap();
                seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
                s.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        });
        let proxies = Matcher::builder().all(format!("http://me:pw@{address}")).no("direct.example").build();
        let host = RegistryHost { url: "http://far.example:5000".into(), ..RegistryHost::default() };
        let name = "far.example:5000/app:v1".parse().unwrap();
        let registry = Registry::with_proxies(&host, &name, None, proxies).unwrap();
        assert_eq!(registry.manifest("v1").await.unwrap(), b"{}");
        let seen = seen.await.unwrap().to_lowercase();
        assert!(seen.starts_with("connect far.example:5000 http/1.1\r\n"), "{seen}");
        assert!(
            seen.contains("proxy-authorization: basic bwu6chc=") && seen.contains("get /v2/app/manifests/v1"),
            "{seen}"
        );
    }

    #[test]
    fn hosts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("docker.io"), "# mirrors\nhttp://m1:5000\nhttps://m2 ca=/x.pem\n").unwrap();
        let hosts = read_hosts(dir.path()).unwrap();
        let check = |registry: &str, expect: &[&str]| {
            assert_eq!(hosts.of(registry).iter().map(|h| h.url.clone()).collect::<Vec<_>>(), expect, "{registry}");
        };
        check("docker.io", &["http://m1:5000", "https://m2", "https://registry-1.docker.io"]);
        check("localhost:5000", &["http://localhost:5000"]);
        check("127.0.0.1:5000", &["http://127.0.0.1:5000"]);
        check("[::1]:5000", &["http://[::1]:5000"]);
        check("quay.example", &["https://quay.example"]);
        std::fs::write(dir.path().join("bad"), "ftp://x\n").unwrap();
        assert!(read_hosts(dir.path()).is_err());
        assert_eq!(read_hosts(Path::new("/nowhere")).unwrap(), RegistryHosts::default());
    }
}

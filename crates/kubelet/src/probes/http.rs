//! A small HTTP client for probes and hooks: no keep-alive, no certificate is checked, few redirects.

use super::{Answer, USER_AGENT};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT as AGENT};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::net::TcpStream;

/// How much of an answer is read.
const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// Probes trust whoever answers: they ask whether, not who.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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

static TLS: LazyLock<Option<Arc<rustls::ClientConfig>>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = builder.ok()?.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    Some(Arc::new(config.with_no_client_auth()))
});

/// The number of a port given by number or by its name in the container.
///
/// # Errors
/// When the container has no such port, in upstream's words.
pub fn port(p: &IntOrString, c: &Container) -> Result<u16, String> {
    let number = match p {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => match c.ports.iter().flatten().find(|x| x.name.as_deref() == Some(name)) {
            Some(found) => found.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port: {name:?} in container"))?,
        },
    };
    match u16::try_from(number) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("invalid port number: {number}")),
    }
}

/// A request to make.
#[derive(Clone, Debug)]
pub struct Get {
    /// `http` or `https`.
    pub https: bool,
    /// Host to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Get {
    /// The request an `httpGet` action asks for; `default_host` is the pod's address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(action: &HTTPGetAction, c: &Container, default_host: &str) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for h in action.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(h.name.as_bytes()).map_err(|e| format!("{}: {e}", h.name))?;
            let value = HeaderValue::from_str(&h.value).map_err(|e| format!("{}: {e}", h.name))?;
            headers.append(name, value);
        }
        headers.entry(AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // Given empty, they are not sent at all.
        for name in [AGENT, ACCEPT] {
            if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                headers.remove(name);
            }
        }
        let path = action.path.clone().unwrap_or_default();
        Ok(Self {
            https: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| default_host.into()),
            port: port(&action.port, c)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers,
        })
    }

    /// The whole address.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", host_port(&self.host, self.port), self.path)
    }

    /// Makes the request within `timeout`; redirects on the same host are followed. Answers status and body, and where
    /// it was sent elsewhere to.
    ///
    /// # Errors
    /// What failed, close to Go's words.
    pub async fn send(&self, timeout: Duration) -> Result<Response, String> {
        let late = || {
            format!("Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", self.url())
        };
        match tokio::time::timeout(timeout, self.follow()).await {
            Ok(outcome) => outcome.map_err(|e| format!("Get {:?}: {e}", self.url())),
            Err(_) => Err(late()),
        }
    }

    async fn follow(&self) -> Result<Response, String> {
        let mut at = self.clone();
        for _ in 0..MAX_REDIRECTS {
            let response = at.once().await?;
            let Some(location) = response.location.as_deref().filter(|_| (300..400).contains(&response.status)) else {
                return Ok(response);
            };
            match at.redirected(location) {
                Some(next) if next.host == self.host => at = next,
                _ => return Ok(Response { elsewhere: true, ..response }),
            }
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    }

    fn redirected(&self, location: &str) -> Option<Self> {
        if let Some(path) = location.strip_prefix('/').filter(|p| !p.starts_with('/')) {
            return Some(Self { path: format!("/{path}"), ..self.clone() });
        }
        let uri: hyper::Uri = location.parse().ok()?;
        let https = uri.scheme_str() == Some("https");
        Some(Self {
            https,
            host: uri.host()?.trim_matches(['[', ']']).into(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
            path: uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string),
            headers: self.headers.clone(),
        })
    }

    async fn once(&self) -> Result<Response, String> {
        if self.https {
            return self.talk(TokioIo::new(connect_tls(&self.host, self.port).await?)).await;
        }
        self.talk(TokioIo::new(connect(&self.host, self.port).await?)).await
    }

    async fn talk<S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static>(
        &self,
        stream: S,
    ) -> Result<Response, String> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(|e| e.to_string())?;
        // It ends with the request.
        let driver = tokio::spawn(connection);
        let mut request = hyper::Request::get(&self.path).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        request.headers_mut().clone_from(&self.headers);
        let host = HeaderValue::from_str(&host_port(&self.host, self.port)).map_err(|e| e.to_string())?;
        request.headers_mut().entry(HOST).or_insert(host);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let answered = async {
            let response = sender.send_request(request).await.map_err(|e| {
                if e.is_incomplete_message() || e.is_canceled() { "EOF".to_string() } else { e.to_string() }
            })?;
            let status = response.status().as_u16();
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).map(String::from);
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
            Ok(Response { status, body, location, elsewhere: false })
        };
        let out = answered.await;
        driver.abort();
        out
    }
}

/// Connects, with Go's words for what fails.
///
/// # Errors
/// `dial tcp …`.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let at = host_port(host, port);
    TcpStream::connect((host, port)).await.map_err(|e| {
        let what = match e.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
            std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_string(),
            _ => format!("connect: {e}"),
        };
        format!("dial tcp {at}: {what}")
    })
}

/// Connects by TLS with whoever answers.
///
/// # Errors
/// What failed.
pub async fn connect_tls(host: &str, port: u16) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let stream = connect(host, port).await?;
    let tls = TLS.clone().ok_or("no TLS is available")?;
    let name = ServerName::try_from(host.to_string()).map_err(|e| e.to_string())?;
    tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.map_err(|e| e.to_string())
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
    location: Option<String>,
    /// It was a redirect to another host, which is not followed.
    pub elsewhere: bool,
}

/// A probe by HTTP.
pub async fn probe(action: &HTTPGetAction, c: &Container, pod_ip: &str, timeout: Duration) -> Answer {
    let get = match Get::of(action, c, pod_ip) {
        Ok(g) => g,
        Err(e) => return Answer::Error(e),
    };
    match get.send(timeout).await {
        Ok(r) if r.elsewhere => Answer::Warning(format!("Probe terminated redirects, Response body: {}", r.body)),
        Ok(r) if (200..400).contains(&r.status) => Answer::Success,
        Ok(r) => Answer::Failure(format!("HTTP probe failed with statuscode: {}", r.status)),
        Err(e) => Answer::Failure(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn serve(answers: &'static [&'static str]) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for a in answers {
                let (mut s, _) = listener.accept().await.unwrap();
                let mut buf = vec![0; 4096];
                let n = s.read(&mut buf).await.unwrap();
                let text = String::from_utf8_lossy(&buf[..n]).to_lowercase();
                assert!(text.contains("user-agent: kube-probe/1.36") && text.contains("x-a: b"), "{text}");
                s.write_all(a.as_bytes()).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn answers() {
        let c: Container = serde_saphyr::from_str("{name: c, ports: [{name: web, containerPort: 80}]}").unwrap();
        let action = |port: u16| -> HTTPGetAction {
            serde_saphyr::from_str(&format!("{{path: /x, port: {port}, httpHeaders: [{{name: X-A, value: b}}]}}"))
                .unwrap()
        };
        let ask = |port: u16| {
            let (c, a) = (c.clone(), action(port));
            async move { probe(&a, &c, "127.0.0.1", Duration::from_secs(5)).await }
        };
        assert_eq!(ask(serve(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await).await, Answer::Success);
        let port = serve(&["HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"]).await;
        assert_eq!(ask(port).await, Answer::Failure("HTTP probe failed with statuscode: 503".into()));
        let redirect = &["HTTP/1.1 302 Found\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 204 OK\r\n\r\n"];
        assert_eq!(ask(serve(redirect).await).await, Answer::Success);
        let away = &["HTTP/1.1 302 Found\r\nlocation: http://example.invalid/\r\ncontent-length: 1\r\n\r\nx"];
        assert!(matches!(ask(serve(away).await).await, Answer::Warning(_)));
        let closed = { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port() };
        let at = format!("127.0.0.1:{closed}");
        let want = format!("Get \"http://{at}/x\": dial tcp {at}: connect: connection refused");
        assert_eq!(ask(closed).await, Answer::Failure(want));
        assert_eq!(port_of(&c, "web"), Ok(80));
        assert_eq!(port_of(&c, "none"), Err("couldn't find port: \"none\" in container".into()));
    }

    fn port_of(c: &Container, name: &str) -> Result<u16, String> {
        super::port(&IntOrString::String(name.into()), c)
    }
}

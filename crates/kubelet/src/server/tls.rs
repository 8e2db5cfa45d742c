//! TLS of the server: its certificate, and its clients'.

use super::auth::User;
use crate::config::KubeletConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Takes connections.
#[derive(Clone)]
pub struct Acceptor(tokio_rustls::TlsAcceptor);

/// Who is at the other end, by certificate.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The holder of the certificate, if one was shown.
    pub user: Option<User>,
}

/// A certificate for nobody in particular, as upstream makes when it is given none.
fn self_signed(config: &KubeletConfig) -> Result<(String, String), String> {
    let mut names = vec![config.node_name.clone(), "localhost".into()];
    names.extend(config.node_ips.iter().map(ToString::to_string));
    names.retain(|n| !n.is_empty());
    let made = rcgen::generate_simple_self_signed(names).map_err(|e| e.to_string())?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

impl Acceptor {
    /// As configured.
    ///
    /// # Errors
    /// When a certificate or key cannot be read.
    pub fn new(config: &KubeletConfig) -> Result<Self, String> {
        let (cert, key) = match &config.serving_cert {
            Some(c) => (c.cert_pem.clone(), c.key_pem.clone()),
            None => self_signed(config)?,
        };
        let bad = |what: &str| {
            let what = what.to_string();
            move |e: &dyn std::fmt::Display| format!("{what}: {e}")
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| bad("serving certificate")(&e))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| bad("serving key")(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let x509 = &config.authentication.x509;
        let authorities = match (&x509.client_ca_pem, &x509.client_ca_file) {
            (Some(pem), _) => Some(pem.clone()),
            (None, Some(file)) => {
                Some(std::fs::read_to_string(file).map_err(|e| bad(&format!("client CA {}", file.display()))(&e))?)
            }
            (None, None) => None,
        };
        let builder = match authorities {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots.add(cert.map_err(|e| bad("client CA")(&e))?).map_err(|e| bad("client CA")(&e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| bad("client CA")(&e))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut tls = builder.with_single_cert(chain, key).map_err(|e| bad("serving certificate")(&e))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(tokio_rustls::TlsAcceptor::from(Arc::new(tls))))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When it fails.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, Peer)> {
        let stream = self.0.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
        let user = certificate.and_then(|c| subject(c));
        Ok((stream, Peer { user }))
    }
}

/// The user a certificate names: the common name, and the organizations as groups.
fn subject(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(String::from);
    let name = parsed.subject().iter_common_name().next().and_then(text)?;
    let mut groups: Vec<String> = parsed.subject().iter_organization().filter_map(text).collect();
    groups.push("system:authenticated".into());
    Some(User { name, groups, ..Default::default() })
}

//! Client certificates: the subject's common name is the user, its organisations are the groups.

use std::sync::Arc;

use http::HeaderMap;
use pintle_api::service::UserInfo;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Trusts the clients of one authority.
#[derive(Debug)]
pub(crate) struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The certificates of a PEM text.
///
/// # Errors
/// What does not parse.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| format!("certificates: {e}"))
}

impl ClientCa {
    /// From a PEM bundle.
    ///
    /// # Errors
    /// When the bundle holds no usable certificate.
    pub(crate) fn new(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for c in certificates(pem)? {
            roots.add(c).map_err(|e| format!("client CA: {e}"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| format!("client CA: {e}"))?;
        Ok(Self { verifier })
    }

    /// Whether a certificate is of this authority and in its time.
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'static>]) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return false };
        self.verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
    }

    /// The user of a trusted certificate.
    pub(crate) fn client(&self, chain: &[CertificateDer<'static>]) -> Option<Client> {
        if !self.trusts(chain) {
            return None;
        }
        let (name, groups) = subject(chain.first()?)?;
        let mut user = UserInfo { name, groups, ..UserInfo::default() };
        let digest = sha2_hex(chain.first()?);
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={digest}")]);
        let ends = |der| Some(X509Certificate::from_der(der).ok()?.1.validity().not_after.timestamp());
        let until = chain.iter().map(|der| ends(der.as_ref())).collect::<Option<Vec<i64>>>()?.into_iter().min()?;
        Some(Client { user: Arc::new(super::authenticated(user)), until })
    }
}

/// Who a certificate says its holder is.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) user: Arc<UserInfo>,
    /// Until when that is so, in seconds since 1970.
    pub(crate) until: i64,
}

fn sha2_hex(der: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(der))
}

/// Common name and organisations.
fn subject(der: &[u8]) -> Option<(String, Vec<String>)> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let name = cert.subject().iter_common_name().last()?.as_str().ok()?.to_owned();
    let groups = cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    (!name.is_empty()).then_some((name, groups))
}

/// A proxy that has authenticated the user and says so in headers.
#[derive(Debug)]
pub(crate) struct FrontProxy {
    pub(crate) ca: ClientCa,
    /// Common names of proxies; empty trusts any.
    pub(crate) names: Vec<String>,
}

impl FrontProxy {
    /// The user a trusted proxy speaks for. The headers are taken away.
    pub(crate) fn user(&self, headers: &mut HeaderMap, chain: &[CertificateDer<'static>]) -> Option<UserInfo> {
        let name = headers.get("x-remote-user")?.to_str().ok().filter(|n| !n.is_empty())?.to_owned();
        if !self.ca.trusts(chain) {
            return None;
        }
        let (proxy, _) = subject(chain.first()?)?;
        if !self.names.is_empty() && !self.names.contains(&proxy) {
            return None;
        }
        let mut user = UserInfo { name, ..UserInfo::default() };
        let text = |v: &http::HeaderValue| v.to_str().ok().map(str::to_owned);
        user.groups = headers.get_all("x-remote-group").iter().filter_map(text).collect();
        user.uid = headers.get("x-remote-uid").and_then(text).unwrap_or_default();
        const EXTRA: &str = "x-remote-extra-";
        for (k, v) in headers.iter() {
            if let (Some(key), Some(v)) = (k.as_str().strip_prefix(EXTRA), text(v)) {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
                user.extra.entry(key).or_default().push(v);
            }
        }
        let ours: Vec<http::HeaderName> =
            headers.keys().filter(|k| k.as_str().starts_with("x-remote-")).cloned().collect();
        for k in ours {
            headers.remove(k);
        }
        Some(user)
    }
}

/// Takes any client certificate whose key the client holds; whether it is trusted is decided when a request is
/// authenticated, so that an untrusted one is answered with 401 rather than a broken connection.
#[derive(Debug)]
pub(crate) struct AnyCertificate {
    provider: Arc<rustls::crypto::CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

impl AnyCertificate {
    /// Names the authorities of these bundles as those whose certificates are wanted.
    pub(crate) fn new(provider: Arc<rustls::crypto::CryptoProvider>, bundles: &[&[u8]]) -> Self {
        let hints = bundles
            .iter()
            .filter_map(|pem| certificates(pem).ok())
            .flatten()
            .filter_map(|der| {
                let (_, c) = X509Certificate::from_der(&der).ok()?;
                Some(DistinguishedName::from(c.subject().as_raw().to_vec()))
            })
            .collect();
        Self { provider, hints }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

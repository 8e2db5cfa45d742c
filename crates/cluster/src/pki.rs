//! The cluster's certificates, in kubeadm's file layout below one directory.
//!
//! [`Pki::ensure`] makes what is missing, renews what is near its end or no longer covers its names, and leaves the rest
//! alone; the keys of the authorities never change once made.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::files::{self, FileError};

/// Life of an authority: ten years, as kubeadm's.
pub const CA_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// Life of any other certificate: one year; renewed when a third is left.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Making a certificate failed.
    #[error("certificate {name}: {source}")]
    Make {
        /// Which.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A certificate without its key or the other way round.
    #[error("{0} exists but {1} does not: restore it, or remove both to have new ones made")]
    HalfPair(PathBuf, PathBuf),
    /// A name that cannot stand in a certificate.
    #[error("{0:?} cannot stand in a certificate as a name")]
    Name(String),
}

/// PEM texts of a certificate and its key.
#[derive(Clone)]
pub struct Pair {
    /// Certificate.
    pub cert: String,
    /// Private key (PKCS #8).
    pub key: String,
}

/// What a leaf certificate is for.
pub struct Leaf<'a> {
    /// File name without ending.
    pub file: &'a str,
    /// Common name: the user, for clients.
    pub common_name: &'a str,
    /// Organisations: the groups, for clients.
    pub organizations: &'a [&'a str],
    /// DNS names and IP addresses it serves; with none it is for clients only.
    pub sans: &'a [String],
    /// Whether clients show it.
    pub client: bool,
}

/// A directory of certificates.
pub struct Pki {
    dir: PathBuf,
    now: Timestamp,
}

impl Pki {
    /// Opens a directory; `now` decides what is due for renewal.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, now: Timestamp) -> Self {
        Self { dir: dir.into(), now }
    }

    /// Path of a certificate file.
    #[must_use]
    pub fn cert_path(&self, file: &str) -> PathBuf {
        self.dir.join(format!("{file}.crt"))
    }

    /// Path of a key file.
    #[must_use]
    pub fn key_path(&self, file: &str) -> PathBuf {
        self.dir.join(format!("{file}.key"))
    }

    fn read(&self, file: &str) -> Result<Option<Pair>, PkiError> {
        let (c, k) = (self.cert_path(file), self.key_path(file));
        match (c.exists(), k.exists()) {
            (false, false) => Ok(None),
            (true, false) => Err(PkiError::HalfPair(c, k)),
            (false, true) => Err(PkiError::HalfPair(k, c)),
            (true, true) => Ok(Some(Pair {
                cert: fs::read_to_string(&c).map_err(files::at(&c))?,
                key: fs::read_to_string(&k).map_err(files::at(&k))?,
            })),
        }
    }

    fn write(&self, file: &str, pair: &Pair) -> Result<(), PkiError> {
        // The key first: a key without its certificate is noticed, a certificate with an older key would not be.
        files::write_atomic(&self.key_path(file), pair.key.as_bytes(), 0o600)?;
        files::write_atomic(&self.cert_path(file), pair.cert.as_bytes(), 0o644)?;
        Ok(())
    }

    /// The authority in `<file>.crt` and `<file>.key`, made when absent.
    ///
    /// # Errors
    /// When files cannot be read or written, or one of the two is missing.
    pub fn ca(&self, file: &str, common_name: &str) -> Result<Pair, PkiError> {
        if let Some(pair) = self.read(file)? {
            return Ok(pair);
        }
        let make = || {
            let mut p = self.params(common_name, &[], CA_LIFE);
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            p.key_usages =
                vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
            p.subject_alt_names = dns_name(common_name).into_iter().collect();
            let key = KeyPair::generate()?;
            Ok(Pair { cert: p.self_signed(&key)?.pem(), key: key.serialize_pem() })
        };
        let pair = make().map_err(|source| PkiError::Make { name: file.into(), source })?;
        self.write(file, &pair)?;
        Ok(pair)
    }

    /// A certificate signed by `ca`: the one on disk while it is good, else a new one.
    ///
    /// # Errors
    /// When files cannot be read or written, or a name cannot stand in a certificate.
    pub fn leaf(&self, ca: &Pair, leaf: &Leaf) -> Result<Pair, PkiError> {
        if let Some(pair) = self.read(leaf.file)?
            && self.still_good(&pair.cert, ca, leaf)
        {
            return Ok(pair);
        }
        let pair = self.sign(ca, leaf)?;
        self.write(leaf.file, &pair)?;
        Ok(pair)
    }

    /// A new certificate that is not kept in the directory.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn sign(&self, ca: &Pair, leaf: &Leaf) -> Result<Pair, PkiError> {
        let err = |source| PkiError::Make { name: leaf.file.into(), source };
        let mut p = self.params(leaf.common_name, leaf.organizations, LEAF_LIFE);
        for san in leaf.sans {
            p.subject_alt_names.push(match san.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => dns_name(san).ok_or_else(|| PkiError::Name(san.clone()))?,
            });
        }
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        if leaf.client {
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if !leaf.sans.is_empty() {
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        p.use_authority_key_identifier_extension = true;
        let ca_key = KeyPair::from_pem(&ca.key).map_err(err)?;
        let issuer = Issuer::from_ca_cert_pem(&ca.cert, ca_key).map_err(err)?;
        let key = KeyPair::generate().map_err(err)?;
        let cert = p.signed_by(&key, &issuer).map_err(err)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }

    /// The key pair that signs service account tokens: `sa.key` (private) and `sa.pub`.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn service_account_key(&self) -> Result<Pair, PkiError> {
        let err = |source| PkiError::Make { name: "sa".into(), source };
        let path = self.dir.join("sa.key");
        let key = if path.exists() {
            let text = fs::read_to_string(&path).map_err(files::at(&path))?;
            KeyPair::from_pem(&text).map_err(err)?
        } else {
            let key = KeyPair::generate().map_err(err)?;
            files::write_atomic(&path, key.serialize_pem().as_bytes(), 0o600)?;
            key
        };
        let public = key.public_key_pem();
        let public_path = self.dir.join("sa.pub");
        if !public_path.exists() {
            files::write_atomic(&public_path, public.as_bytes(), 0o644)?;
        }
        Ok(Pair { cert: public, key: key.serialize_pem() })
    }

    fn params(&self, common_name: &str, organizations: &[&str], life: SignedDuration) -> CertificateParams {
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::CommonName, common_name);
        for o in organizations {
            p.distinguished_name.push(DnType::OrganizationName, *o);
        }
        // Clocks of joining machines may be a little behind.
        p.not_before = to_time(self.now - SignedDuration::from_mins(5));
        p.not_after = to_time(self.now + life);
        p
    }

    fn still_good(&self, cert: &str, ca: &Pair, leaf: &Leaf) -> bool {
        let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(cert.as_bytes()) else { return false };
        let Ok(x) = pem.parse_x509() else { return false };
        let due = x.validity().not_after.timestamp() - LEAF_LIFE.as_secs() / 3;
        let Ok((_, ca_pem)) = x509_parser::pem::parse_x509_pem(ca.cert.as_bytes()) else { return false };
        let Ok(ca_x) = ca_pem.parse_x509() else { return false };
        let subject_is = x.subject().iter_common_name().next().and_then(|c| c.as_str().ok()) == Some(leaf.common_name);
        self.now.as_second() < due
            && subject_is
            && x.issuer() == ca_x.subject()
            && leaf.sans.iter().all(|s| covers(&x, s))
    }
}

fn covers(x: &x509_parser::certificate::X509Certificate, san: &str) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(names)) = x.subject_alternative_name() else { return false };
    let ip = san.parse::<IpAddr>().ok();
    names.value.general_names.iter().any(|n| match (n, ip) {
        (GeneralName::DNSName(d), None) => *d == san,
        (GeneralName::IPAddress(b), Some(IpAddr::V4(v))) => *b == v.octets(),
        (GeneralName::IPAddress(b), Some(IpAddr::V6(v))) => *b == v.octets(),
        _ => false,
    })
}

fn dns_name(name: &str) -> Option<SanType> {
    name.try_into().ok().map(SanType::DnsName)
}

fn to_time(t: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(t.as_second()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// Everything a control plane and its node need, by kubeadm's names.
pub struct ClusterPki {
    /// Signs servers and clients.
    pub ca: Pair,
    /// Signs the aggregation layer's proxy client.
    pub front_proxy_ca: Pair,
    /// Serves the API.
    pub apiserver: Pair,
    /// The API server's client certificate towards node agents.
    pub apiserver_kubelet_client: Pair,
    /// The aggregation layer's client certificate.
    pub front_proxy_client: Pair,
    /// The administrator.
    pub admin: Pair,
    /// The node agent's client certificate.
    pub kubelet_client: Pair,
    /// The node agent's server certificate.
    pub kubelet_server: Pair,
    /// Signs service account tokens; `cert` is the public key.
    pub service_account: Pair,
}

impl ClusterPki {
    /// Makes or renews everything below `dir`. `sans` are the names and addresses the API server is reached by (its
    /// in-cluster names are added), `node_sans` those of the node.
    ///
    /// # Errors
    /// When files cannot be read or written, or a name cannot stand in a certificate.
    pub fn ensure(
        dir: &Path,
        now: Timestamp,
        node_name: &str,
        cluster_domain: &str,
        sans: &[String],
        node_sans: &[String],
    ) -> Result<Self, PkiError> {
        let pki = Pki::new(dir, now);
        let ca = pki.ca("ca", "kubernetes")?;
        let front_proxy_ca = pki.ca("front-proxy-ca", "front-proxy-ca")?;
        let mut api_sans: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(String::from).into();
        api_sans.push(format!("kubernetes.default.svc.{cluster_domain}"));
        api_sans.extend_from_slice(sans);
        api_sans.dedup();
        let client =
            |file, common_name, organizations| Leaf { file, common_name, organizations, sans: &[], client: true };
        let node_user = format!("system:node:{node_name}");
        let server = |file, common_name, sans| Leaf { file, common_name, organizations: &[], sans, client: false };
        Ok(Self {
            apiserver: pki.leaf(&ca, &server("apiserver", "kube-apiserver", &api_sans))?,
            apiserver_kubelet_client: pki
                .leaf(&ca, &client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"]))?,
            front_proxy_client: pki.leaf(&front_proxy_ca, &client("front-proxy-client", "front-proxy-client", &[]))?,
            admin: pki.leaf(&ca, &client("admin", "kubernetes-admin", &["system:masters"]))?,
            kubelet_client: pki.leaf(&ca, &client("kubelet-client", &node_user, &["system:nodes"]))?,
            kubelet_server: pki.leaf(&ca, &server("kubelet", &node_user, node_sans))?,
            service_account: pki.service_account_key()?,
            ca,
            front_proxy_ca,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(s: &str) -> Timestamp {
        s.parse().unwrap()
    }

    fn names(cert: &str) -> (String, i64) {
        let (_, pem) = x509_parser::pem::parse_x509_pem(cert.as_bytes()).unwrap();
        let x = pem.parse_x509().unwrap();
        (x.subject().to_string(), x.validity().not_after.timestamp())
    }

    #[test]
    fn made_once_renewed_when_due() {
        let dir = tempfile::tempdir().unwrap();
        let sans = vec!["10.96.0.1".to_owned(), "host".to_owned()];
        let ensure = |now: &str, sans: &[String]| {
            ClusterPki::ensure(dir.path(), t(now), "n1", "cluster.local", sans, &["n1".to_owned()]).unwrap()
        };
        let first = ensure("2026-01-01T00:00:00Z", &sans);
        assert_eq!(names(&first.kubelet_client.cert).0, "CN=system:node:n1, O=system:nodes");
        let again = ensure("2026-06-01T00:00:00Z", &sans);
        assert_eq!(first.apiserver.cert, again.apiserver.cert);
        assert_eq!(first.service_account.key, again.service_account.key);
        // Eleven months on it is due, and a new address makes a new one at once; the authority stays.
        let due = ensure("2026-12-01T00:00:00Z", &sans);
        assert_ne!(first.apiserver.cert, due.apiserver.cert);
        assert!(names(&due.apiserver.cert).1 > t("2027-11-01T00:00:00Z").as_second());
        assert_eq!(first.ca.cert, due.ca.cert);
        let mut more = sans.clone();
        more.push("192.0.2.7".into());
        assert_ne!(due.apiserver.cert, ensure("2026-12-01T00:00:00Z", &more).apiserver.cert);
    }

    #[test]
    fn half_a_pair_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path(), t("2026-01-01T00:00:00Z"));
        pki.ca("ca", "x").unwrap();
        fs::remove_file(pki.key_path("ca")).unwrap();
        assert!(matches!(pki.ca("ca", "x"), Err(PkiError::HalfPair(..))));
    }

    #[test]
    fn keys_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path(), t("2026-01-01T00:00:00Z"));
        pki.ca("ca", "x").unwrap();
        assert_eq!(fs::metadata(pki.key_path("ca")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

//! Reading requests and signing certificates.

use jiff::Timestamp;
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Longest life of a certificate.
const LIFE_SECONDS: i64 = 365 * 24 * 3600;
/// Certificates begin a little in the past, for clocks differ.
const BACKDATE_SECONDS: i64 = 300;

/// What a request asks for.
pub struct Request {
    params: CertificateSigningRequestParams,
    /// Common name of the subject.
    pub common_name: String,
    /// Organizations of the subject.
    pub organizations: Vec<String>,
    /// Alternative names in all.
    pub names: usize,
    /// Alternative names that are DNS names or addresses.
    pub hosts: usize,
}

impl Request {
    /// Reads a request and verifies that it was made with its key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pem: &str) -> Result<Self, String> {
        let params = CertificateSigningRequestParams::from_pem(pem).map_err(|e| format!("unable to parse csr: {e}"))?;
        let bad = || "unable to parse csr".to_owned();
        let (_, der) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| bad())?;
        let (_, raw) = X509CertificationRequest::from_der(&der.contents).map_err(|_| bad())?;
        let subject = &raw.certification_request_info.subject;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or_default().to_owned();
        let sans = &params.params.subject_alt_names;
        let hosts = sans.iter().filter(|s| matches!(s, SanType::DnsName(_) | SanType::IpAddress(_))).count();
        let common_name = subject.iter_common_name().next().map(text).unwrap_or_default();
        let organizations = subject.iter_organization().map(text).collect();
        Ok(Self { common_name, organizations, names: sans.len(), hosts, params })
    }
}

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// From PEM texts of the certificate and its key.
    ///
    /// # Errors
    /// When they do not parse.
    pub fn new(cert: &str, key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|e| format!("signing key: {e}"))?;
        let issuer = Issuer::from_ca_cert_pem(cert, key).map_err(|e| format!("signing certificate: {e}"))?;
        Ok(Self { issuer })
    }

    /// Signs a request for these usages.
    ///
    /// # Errors
    /// When a usage is unknown or the certificate cannot be made.
    pub fn sign(
        &self,
        request: Request,
        usages: &[String],
        seconds: Option<u64>,
        now: Timestamp,
    ) -> Result<String, String> {
        // The certificate is made anew from what was read, which holds one organization.
        if request.organizations.len() > 1 {
            return Err("a subject with more than one organization is not supported".into());
        }
        let mut csr = request.params;
        let at = |s: i64| OffsetDateTime::from_unix_timestamp(s).map_err(|e| e.to_string());
        let asked = seconds.and_then(|s| i64::try_from(s).ok()).unwrap_or(LIFE_SECONDS).min(LIFE_SECONDS);
        csr.params.not_before = at(now.as_second() - BACKDATE_SECONDS)?;
        csr.params.not_after = at(now.as_second() - BACKDATE_SECONDS + asked.max(600 + BACKDATE_SECONDS))?;
        csr.params.is_ca = IsCa::ExplicitNoCa;
        csr.params.use_authority_key_identifier_extension = true;
        csr.params.key_usages.clear();
        csr.params.extended_key_usages.clear();
        // 127 bits at random: positive, and never the same twice.
        let mut serial = fastrand::u128(..).to_be_bytes();
        serial[0] &= 0x7f;
        csr.params.serial_number = Some(SerialNumber::from_slice(&serial));
        for usage in usages {
            match usage.as_str() {
                "signing" | "digital signature" => csr.params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "content commitment" => csr.params.key_usages.push(KeyUsagePurpose::ContentCommitment),
                "key encipherment" => csr.params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "data encipherment" => csr.params.key_usages.push(KeyUsagePurpose::DataEncipherment),
                "key agreement" => csr.params.key_usages.push(KeyUsagePurpose::KeyAgreement),
                "any" => csr.params.extended_key_usages.push(ExtendedKeyUsagePurpose::Any),
                "server auth" => csr.params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                "client auth" => csr.params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "code signing" => csr.params.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning),
                "email protection" => csr.params.extended_key_usages.push(ExtendedKeyUsagePurpose::EmailProtection),
                "timestamping" => csr.params.extended_key_usages.push(ExtendedKeyUsagePurpose::TimeStamping),
                "ocsp signing" => csr.params.extended_key_usages.push(ExtendedKeyUsagePurpose::OcspSigning),
                other => return Err(format!("unrecognized usage values: [{other:?}]")),
            }
        }
        csr.params.key_usages.dedup();
        csr.signed_by(&self.issuer).map(|c| c.pem()).map_err(|e| format!("error signing csr: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide;
    use super::*;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    use rcgen::{BasicConstraints, CertificateParams, DnType};
    use serde_json::json;

    fn request(name: &str, organization: &str, sans: &[&str]) -> String {
        let mut params = CertificateParams::new(sans.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn csr(user: &str, signer: &str, usages: &[&str]) -> CertificateSigningRequest {
        serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"request": "", "username": user, "signerName": signer, "usages": usages}})).unwrap()
    }

    #[test]
    fn signs_what_kubelets_ask_for() {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let cert = ca.self_signed(&key).unwrap().pem();
        let authority = Authority::new(&cert, &key.serialize_pem()).unwrap();
        let usages = ["digital signature", "client auth"];
        let client = "kubernetes.io/kube-apiserver-client-kubelet";
        for (name, organization, sans, user, usages, want) in [
            ("system:node:a", "system:nodes", &[][..], "system:node:a", &usages[..], 2),
            ("system:node:a", "system:nodes", &[], "system:bootstrap:x", &usages, 1),
            ("system:node:a", "other", &[], "system:node:a", &usages, 0),
            ("admin", "system:nodes", &[], "admin", &usages, 0),
            ("system:node:a", "system:nodes", &["host"], "system:node:a", &usages, 0),
            ("system:node:a", "system:nodes", &[], "system:node:a", &["server auth"], 0),
        ] {
            let parsed = Request::parse(&request(name, organization, sans)).unwrap();
            let csr = csr(user, client, usages);
            assert_eq!(
                decide::approvals(&csr, &parsed).len(),
                want,
                "{name} {organization} {sans:?} {user} {usages:?}"
            );
            assert_eq!(decide::check(&csr, &parsed).is_ok(), want > 0);
        }
        let now: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
        let parsed = Request::parse(&request("system:node:a", "system:nodes", &[])).unwrap();
        let signed = authority.sign(parsed, &usages.map(str::to_owned), Some(3600), now).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let cert = pem.parse_x509().unwrap();
        assert_eq!(cert.subject().to_string(), "CN=system:node:a, O=system:nodes");
        assert_eq!(cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp(), 3600);
        assert!(cert.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(Request::parse("nonsense").is_err());
    }
}

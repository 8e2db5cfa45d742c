//! `CertificateApproval`, `CertificateSigning` and `CertificateSubjectRestriction`.

use async_trait::async_trait;
use pintle_api::Status;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::authz::{Attributes as Access, Decision};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

fn signer(v: &Value) -> &str {
    v.pointer("/spec/signerName").and_then(Value::as_str).unwrap_or_default()
}

/// Whether the user may do this with a signer: named itself, or all of its domain.
async fn may(server: &Server, a: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let access = Access {
            user: &a.ctx.user,
            verb,
            is_resource: true,
            group: GROUP,
            resource: "signers",
            subresource: "",
            namespace: "",
            name: &name,
            path: "",
            fields: "",
        };
        if let Decision::Allow(_) = server.decide(&access).await {
            return true;
        }
    }
    false
}

/// Approving needs the right to approve for that signer.
pub(super) struct CertificateApproval;

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Update && a.about(GROUP, RESOURCE) && a.subresource == "approval"
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, _csr: &Value) -> Result<(), Status> {
        let name = a.old.map(signer).unwrap_or_default();
        if may(server, a, "approve", name).await {
            return Ok(());
        }
        Err(a.forbidden(&format!("user not permitted to approve requests with signerName \"{name}\"")))
    }
}

/// Signing needs the right to sign for that signer.
pub(super) struct CertificateSigning;

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Update && a.about(GROUP, RESOURCE) && a.subresource == "status"
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, csr: &Value) -> Result<(), Status> {
        let Some(old) = a.old else { return Ok(()) };
        let same = |path: &str| old.pointer(path) == csr.pointer(path);
        if same("/status/certificate") && same("/status/conditions") {
            return Ok(());
        }
        let name = signer(old);
        if may(server, a, "sign", name).await {
            return Ok(());
        }
        Err(a.forbidden(&format!("user not permitted to sign requests with signerName \"{name}\"")))
    }
}

/// Nobody gets a certificate of the all-powerful group.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Create && a.is(GROUP, RESOURCE)
    }

    async fn validate(&self, _server: &Server, a: &Attributes<'_>, csr: &Value) -> Result<(), Status> {
        use base64::Engine;
        if signer(csr) != "kubernetes.io/kube-apiserver-client" {
            return Ok(());
        }
        let text = csr.pointer("/spec/request").and_then(Value::as_str).unwrap_or_default();
        // What does not parse was refused by validation.
        let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(text) else { return Ok(()) };
        let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return Ok(()) };
        let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return Ok(()) };
        let subject = &request.certification_request_info.subject;
        if subject.iter_organization().any(|o| o.as_str() == Ok("system:masters")) {
            return Err(a.forbidden(
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
            ));
        }
        Ok(())
    }
}

//! Which requests are approved and signed, and how long they are kept.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use pintle_client::clock::since;

use super::sign::Request;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

const HOUR: Duration = Duration::from_secs(3600);

/// A way to approve a kubelet's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// A kubelet renews its own certificate.
    SelfNode,
    /// Someone asks for a kubelet's first certificate.
    Node,
}

impl Approval {
    /// Sub-resource that who asks must be allowed to create.
    pub fn permission(self) -> &'static str {
        match self {
            Self::SelfNode => "selfnodeclient",
            Self::Node => "nodeclient",
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::SelfNode => "Auto approving self kubelet client certificate after SubjectAccessReview.",
            Self::Node => "Auto approving kubelet client certificate after SubjectAccessReview.",
        }
    }
}

pub fn condition<'a>(csr: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    csr.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub fn is_ours(signer: &str) -> bool {
    [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&signer)
}

fn usages(csr: &CertificateSigningRequest) -> Vec<&str> {
    let mut all: Vec<&str> =
        csr.spec.usages.iter().flatten().map(String::as_str).filter(|u| *u != "key encipherment").collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What is wrong with a kubelet's request, besides its usages.
fn kubelet(request: &Request) -> Result<(), String> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".into());
    }
    if !request.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".into());
    }
    Ok(())
}

fn kubelet_client(csr: &CertificateSigningRequest, request: &Request) -> Result<(), String> {
    kubelet(request)?;
    if request.names > 0 {
        return Err("DNS, IP, Email and URI subjectAltNames are not allowed".into());
    }
    if usages(csr) != ["client auth", "digital signature"] {
        return Err("usages did not match [key encipherment digital signature client auth]".into());
    }
    Ok(())
}

/// The ways in which a request may be approved, to be tried in order.
pub fn approvals(csr: &CertificateSigningRequest, request: &Request) -> Vec<Approval> {
    if csr.spec.signer_name != KUBELET_CLIENT || kubelet_client(csr, request).is_err() {
        return Vec::new();
    }
    let own = csr.spec.username.as_deref() == Some(request.common_name.as_str());
    if own { vec![Approval::SelfNode, Approval::Node] } else { vec![Approval::Node] }
}

/// What the request's signer refuses it for.
pub fn check(csr: &CertificateSigningRequest, request: &Request) -> Result<(), String> {
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT => kubelet_client(csr, request),
        KUBELET_SERVING => {
            kubelet(request)?;
            if request.hosts == 0 {
                return Err("at least one DNS or IP subjectAltName is required".into());
            }
            if request.names > request.hosts {
                return Err("Email and URI subjectAltNames are not allowed".into());
            }
            if usages(csr) != ["digital signature", "server auth"] {
                return Err("usages did not match [key encipherment digital signature server auth]".into());
            }
            Ok(())
        }
        CLIENT => {
            let allowed = ["digital signature", "client auth"];
            let all = usages(csr);
            if !all.contains(&"client auth") || !all.iter().all(|u| allowed.contains(u)) {
                return Err(format!("invalid usage for client certificate: {all:?}"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How long a request is still kept.
pub fn life_left(csr: &CertificateSigningRequest, now: Timestamp) -> Duration {
    let of = |c: &CertificateSigningRequestCondition| c.last_update_time.as_ref().map(|t| t.0);
    let issued = csr.status.as_ref().is_some_and(|s| s.certificate.is_some());
    let from = |kind: &str| condition(csr, kind).and_then(of);
    let (start, keep) = if let Some(at) = from("Denied") {
        (at, HOUR)
    } else if let Some(at) = from("Failed") {
        (at, HOUR)
    } else if let Some(at) = from("Approved") {
        // One that is approved but was not signed waits for its signer, though not for ever.
        (at, if issued { HOUR } else { 24 * HOUR })
    } else {
        (csr.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0), 24 * HOUR)
    };
    keep.saturating_sub(since(start, now))
}

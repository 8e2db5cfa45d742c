//! Certificate signing requests: approving those of kubelets, signing what is approved, and clearing away what is old.

mod decide;
mod sign;

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use pintle_client::client::encode;
use pintle_client::clock::time;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, UnlessGone, WriteParams};

use crate::context::{Context, Outcome};
use crate::support::status;

use decide::{Approval, condition};
use sign::Authority;

const WORKERS: usize = 2;

/// Wires a controller that looks at each request.
async fn each<F, R>(cx: Context, name: &'static str, sync: F)
where
    F: Fn(Context, CertificateSigningRequest, Informer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    let queue = cx.queue(name);
    let requests = cx.informers.of::<CertificateSigningRequest>();
    let q = queue.clone();
    requests.on_change(move |change| {
        if change.now().is_some() {
            q.add(change.key().clone());
        }
    });
    let me = Arc::new((cx.clone(), requests, sync));
    cx.work(me, &queue, WORKERS, |me, key| async move {
        let (cx, requests, sync) = &*me;
        match requests.get(&key) {
            Some(object) => sync(cx.clone(), decode(&object)?, requests.clone()).await,
            None => Ok(None),
        }
    })
    .await;
}

/// Approves kubelets' requests for client certificates.
pub async fn run_approving(cx: Context) {
    each(cx, "certificate", |cx, csr, _| approve(cx, csr)).await;
}

async fn approve(cx: Context, mut csr: CertificateSigningRequest) -> Outcome {
    if csr.status.as_ref().is_some_and(|s| s.certificate.is_some())
        || condition(&csr, "Approved").is_some()
        || condition(&csr, "Denied").is_some()
    {
        return Ok(None);
    }
    let pem = String::from_utf8_lossy(&csr.spec.request.0).into_owned();
    let Ok(parsed) = sign::Request::parse(&pem) else { return Ok(None) };
    for approval in decide::approvals(&csr, &parsed) {
        if !allowed(&cx, &csr, approval).await? {
            continue;
        }
        let now = cx.clock.now();
        csr.status.get_or_insert_default().conditions.get_or_insert_default().push(
            CertificateSigningRequestCondition {
                type_: "Approved".into(),
                status: "True".into(),
                reason: Some("AutoApproved".into()),
                message: Some(approval.message().into()),
                last_update_time: Some(time(now)),
                last_transition_time: Some(time(now)),
            },
        );
        let name = csr.metadata.name.clone().unwrap_or_default();
        let body = encode(&csr)?;
        cx.client
            .update(resource_of::<CertificateSigningRequest>(), "", &name, "approval", body, &WriteParams::default())
            .await?;
        return Ok(None);
    }
    Ok(None)
}

/// Whether who asks may have it approved.
async fn allowed(cx: &Context, csr: &CertificateSigningRequest, approval: Approval) -> Result<bool, Error> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("certificatesigningrequests".into()),
                verb: Some("create".into()),
                subresource: Some(approval.permission().into()),
                version: Some("*".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = cx.client.of::<SubjectAccessReview>().create(&review).await?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}

/// Signs approved requests of the built-in signers.
pub async fn run_signing(cx: Context) {
    let Some((cert, key)) = cx.config.cluster_signing.clone() else { return };
    let authority = match Authority::new(&cert, &key) {
        Ok(a) => Arc::new(a),
        Err(error) => {
            tracing::error!(%error, "the signing authority cannot be used; no certificate is signed");
            return;
        }
    };
    each(cx, "certificate", move |cx, csr, requests| {
        let authority = authority.clone();
        async move { sign_one(&cx, csr, &authority, &requests).await }
    })
    .await;
}

async fn sign_one(cx: &Context, csr: CertificateSigningRequest, authority: &Authority, requests: &Informer) -> Outcome {
    let done = csr.status.as_ref().is_some_and(|s| s.certificate.is_some()) || condition(&csr, "Failed").is_some();
    if done
        || condition(&csr, "Approved").is_none()
        || condition(&csr, "Denied").is_some()
        || !decide::is_ours(&csr.spec.signer_name)
    {
        return Ok(None);
    }
    let name = csr.metadata.name.as_deref().unwrap_or_default();
    let Some(object) = requests.get(name) else { return Ok(None) };
    let pem = String::from_utf8_lossy(&csr.spec.request.0).into_owned();
    let now = cx.clock.now();
    let mut new = csr.status.clone().unwrap_or_default();
    let signed = sign::Request::parse(&pem).and_then(|request| {
        decide::check(&csr, &request)?;
        let asked = csr.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
        authority.sign(request, csr.spec.usages.as_deref().unwrap_or_default(), asked, now)
    });
    match signed {
        Ok(chain) => new.certificate = Some(ByteString(chain.into_bytes())),
        Err(message) => {
            new.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                type_: "Failed".into(),
                status: "True".into(),
                reason: Some("SignerValidationFailure".into()),
                message: Some(message),
                last_update_time: Some(time(now)),
                last_transition_time: Some(time(now)),
            });
        }
    }
    status::put(&cx.client, resource_of::<CertificateSigningRequest>(), &object, &new).await?;
    Ok(None)
}

/// Deletes requests that nobody needs any more.
pub async fn run_cleaning(cx: Context) {
    each(cx, "certificate_cleaner", |cx, csr, _| async move {
        let left = decide::life_left(&csr, cx.clock.now());
        if !left.is_zero() {
            return Ok(Some(left));
        }
        let (name, uid) = (csr.metadata.name.unwrap_or_default(), csr.metadata.uid);
        cx.client.of::<CertificateSigningRequest>().delete("", &name, uid.as_deref()).await.unless_gone().map(|_| None)
    })
    .await;
}

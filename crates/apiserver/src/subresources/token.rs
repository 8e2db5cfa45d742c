//! `serviceaccounts/token`: issues a token of a service account.

use std::sync::Arc;

use http::Response;
use jiff::SignedDuration;
use pintle_api::Status;
use pintle_api::service::Body;
use pintle_schema::errors::Errors;
use serde_json::{Value, json};

use super::{answer, create_options, posted};
use crate::Server;
use crate::admission::Operation;
use crate::authn::service_account::Bound;
use crate::http::context::Ctx;
use crate::registry::create::Write;
use crate::registry::options::causes;
use crate::registry::{Res, meta};

const API_VERSION: &str = "authentication.k8s.io/v1";
/// The shortest and the longest life that can be asked for.
const MIN: i64 = 600;
const MAX: i64 = 1 << 32;
/// The life that kubelet's projected volumes ask for when nobody chose one; such tokens live a year, with a warning
/// after that hour.
const PROJECTED: i64 = 3607;
const YEAR: i64 = 365 * 24 * 3600;

impl Server {
    /// Issues a token.
    ///
    /// # Errors
    /// 404 for the account or what the token is to be bound to, 400 and 409 for bindings that do not fit.
    pub(crate) async fn token(
        self: &Arc<Self>,
        ctx: &Ctx,
        accounts: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let options = create_options(ctx)?;
        let mut request = posted(ctx, body, API_VERSION, "TokenRequest", options.validation).await?;
        if let Some(ty) = pintle_schema::kind(API_VERSION, "TokenRequest") {
            pintle_schema::apply_defaults(&mut request, ty);
        }
        let name = ctx.info.name.as_str();
        let namespace = ctx.info.namespace.as_str();
        if !meta::name(&request).is_empty() && meta::name(&request) != name {
            return Err(Status::bad_request("the name of the object does not match the name on the URL"));
        }
        meta::set(&mut request, "name", name);
        meta::set(&mut request, "namespace", namespace);
        let account = accounts.objects()?.get(namespace, name).await?.ok_or_else(|| accounts.not_found(name))?;
        let w = Write { ctx, res: accounts, namespace, subresource: "token", options: &options };
        let a = w.attributes(Operation::Create, name, None);
        self.admission.admit(self, &a, &mut request).await?;
        let mut seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
        check_life(seconds, name)?;
        self.admission.validate(self, &a, &request).await?;

        let sa = &self.service_accounts;
        let Some(signer) = &sa.signer else { return Err(Status::path_not_found()) };
        let (bound, node) = self.bound(&request, namespace, name).await?;
        let mut audiences = meta::strings(request.pointer("/spec/audiences"));
        if audiences.is_empty() {
            audiences.clone_from(&sa.audiences);
            request["spec"]["audiences"] = json!(audiences);
        }
        let max = i64::try_from(self.config.service_account_max_token_expiration.as_secs()).unwrap_or(i64::MAX);
        if max > 0 && seconds > max {
            ctx.warn(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
            seconds = max;
        }
        // Programs that never read their token again would fail after an hour.
        let mut lives = seconds;
        let mut warn_after = None;
        if self.config.service_account_extend_token_expiration
            && seconds == PROJECTED
            && bound.as_ref().is_some_and(|b| b.claim == "pod")
            && audiences.iter().all(|a| sa.audiences.contains(a))
        {
            warn_after = Some(seconds);
            lives = if max > 0 { YEAR.min(max) } else { YEAR };
        }
        let now = self.clock.now();
        let id = uuid::Uuid::new_v4().to_string();
        let claims = sa.claims(&account, bound.as_ref(), node.as_deref(), &audiences, now, lives, warn_after, &id);
        let token = signer.sign(&claims).map_err(Status::internal)?;
        let expires = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        request["spec"]["expirationSeconds"] = seconds.into();
        request["status"] = json!({"token": token, "expirationTimestamp": pintle_api::time::format(expires)});
        meta::set(&mut request, "creationTimestamp", pintle_api::time::format(now));
        answer(ctx, 201, &request)
    }

    /// What a token is to be bound to, and the node of a pod.
    async fn bound(
        &self,
        request: &Value,
        namespace: &str,
        account: &str,
    ) -> Result<(Option<Bound>, Option<Arc<pintle_api::Object>>), Status> {
        let Some(r) = request.pointer("/spec/boundObjectRef").filter(|r| !r.is_null()) else {
            return Ok((None, None));
        };
        let text = |k: &str| r.get(k).and_then(Value::as_str).unwrap_or_default();
        let (resource, claim) = match (text("apiVersion"), text("kind")) {
            ("v1", "Pod") => ("pods", "pod"),
            ("v1", "Secret") => ("secrets", "secret"),
            ("v1", "Node") => ("nodes", "node"),
            (v, k) => return Err(Status::bad_request(format!("cannot bind token to object of type {v}, Kind={k}"))),
        };
        let res = self.registry.must("", "v1", resource)?;
        let found = text("name");
        let object = res.objects()?.get(namespace, found).await?.ok_or_else(|| res.not_found(found))?;
        let mut node = None;
        if claim == "pod" {
            let view: Value = object.view().map_err(Status::internal)?;
            let at = |p: &str| view.pointer(p).and_then(Value::as_str).unwrap_or_default();
            if at("/spec/serviceAccountName") != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
                )));
            }
            let on = at("/spec/nodeName");
            if !on.is_empty() {
                node = self.registry.must("", "v1", "nodes")?.objects()?.get("", on).await?;
            }
        }
        let uid = text("uid");
        if !uid.is_empty() && uid != object.uid() {
            return Err(Status::conflict(
                "",
                text("kind"),
                found,
                &format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            ));
        }
        Ok((Some(Bound { claim, object }), node))
    }
}

fn check_life(seconds: i64, name: &str) -> Result<(), Status> {
    let mut errors = Errors::new();
    if seconds < MIN {
        errors.invalid_value("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX {
        errors.invalid_value("spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, causes(&errors)))
}

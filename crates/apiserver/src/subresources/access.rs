//! Reviews: who a token is, and what a user may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Response;
use pintle_api::Status;
use pintle_api::service::{Body, UserInfo};
use pintle_schema::errors::Errors;
use serde_json::{Value, json};

use super::{answer, create_options, posted};
use crate::Server;
use crate::authn::authenticated;
use crate::authz::{Attributes, Decision};
use crate::http::context::Ctx;
use crate::registry::options::causes;
use crate::registry::{Res, meta};

fn user_json(u: &UserInfo) -> Value {
    let mut out = json!({});
    if !u.name.is_empty() {
        out["username"] = u.name.as_str().into();
    }
    if !u.uid.is_empty() {
        out["uid"] = u.uid.as_str().into();
    }
    if !u.groups.is_empty() {
        out["groups"] = json!(u.groups);
    }
    if !u.extra.is_empty() {
        out["extra"] = json!(u.extra);
    }
    out
}

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

impl Server {
    /// `tokenreviews`.
    ///
    /// # Errors
    /// 400 for a review without a token.
    pub(crate) async fn token_review(self: &Arc<Self>, ctx: &Ctx, body: &mut Body) -> Result<Response<Body>, Status> {
        let options = create_options(ctx)?;
        let mut review = posted(ctx, body, "authentication.k8s.io/v1", "TokenReview", options.validation).await?;
        let token = text(&review, "/spec/token").to_owned();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = meta::strings(review.pointer("/spec/audiences"));
        let audiences = if asked.is_empty() { self.service_accounts.audiences.clone() } else { asked };
        review["status"] = match self.token_user(&token, &audiences).await? {
            Some((user, good)) if !good.is_empty() => {
                json!({"authenticated": true, "user": user_json(&authenticated(user)), "audiences": good})
            }
            _ => json!({"user": {}, "error": "invalid bearer token"}),
        };
        answer(ctx, 201, &review)
    }

    /// `selfsubjectreviews`.
    ///
    /// # Errors
    /// 400 for a body that does not parse.
    pub(crate) async fn self_review(self: &Arc<Self>, ctx: &Ctx, body: &mut Body) -> Result<Response<Body>, Status> {
        let options = create_options(ctx)?;
        let mut review = posted(ctx, body, "authentication.k8s.io/v1", "SelfSubjectReview", options.validation).await?;
        meta::set(&mut review, "creationTimestamp", pintle_api::time::format(self.clock.now()));
        review["status"] = json!({"userInfo": user_json(&ctx.user)});
        answer(ctx, 201, &review)
    }

    /// The three kinds of access review.
    ///
    /// # Errors
    /// 422 for a review that asks nothing, or two things.
    pub(crate) async fn access_review(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let options = create_options(ctx)?;
        let mut review = posted(ctx, body, &res.api_version, res.def.kind, options.validation).await?;
        let own = res.def.resource == "selfsubjectaccessreviews";
        let local = res.def.resource == "localsubjectaccessreviews";
        let user = if own { (*ctx.user).clone() } else { reviewed(&review) };
        let mut errors = Errors::new();
        let resource = review.pointer("/spec/resourceAttributes").filter(|v| !v.is_null()).cloned();
        let other = review.pointer("/spec/nonResourceAttributes").filter(|v| !v.is_null()).cloned();
        if resource.is_some()
            && let Some(other) = &other
        {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.invalid_value("spec.nonResourceAttributes", other.clone(), why);
        }
        if resource.is_none() && (other.is_none() || local) {
            let why = if local {
                "must specify resourceAttributes"
            } else {
                "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            };
            errors.invalid_value("spec.resourceAttributes", Value::Null, why);
        }
        if !own && user.name.is_empty() && user.groups.is_empty() {
            errors.invalid_value("spec.user", "", "at least one of user or group must be specified");
        }
        if local && resource.as_ref().is_some_and(|r| text(r, "/namespace") != ctx.info.namespace) {
            let ns = &ctx.info.namespace;
            return Err(Status::bad_request(format!("spec.resourceAttributes.namespace must match namespace: {ns}")));
        }
        if !errors.is_empty() {
            return Err(Status::invalid(res.def.group, res.def.kind, "", causes(&errors)));
        }
        let (r, n) = (resource.unwrap_or_default(), other.unwrap_or_default());
        let about_resource = r.is_object();
        let a = Attributes {
            user: &user,
            verb: if about_resource { text(&r, "/verb") } else { text(&n, "/verb") },
            is_resource: about_resource,
            group: text(&r, "/group"),
            resource: text(&r, "/resource"),
            subresource: text(&r, "/subresource"),
            namespace: text(&r, "/namespace"),
            name: text(&r, "/name"),
            path: text(&n, "/path"),
            fields: "",
        };
        review["status"] = match self.decide(&a).await {
            Decision::Allow(reason) => with_reason(json!({"allowed": true}), &reason),
            Decision::NoOpinion(reason) => with_reason(json!({"allowed": false}), &reason),
        };
        answer(ctx, 201, &review)
    }

    /// `selfsubjectrulesreviews`.
    ///
    /// # Errors
    /// 400 without a namespace.
    pub(crate) async fn rules_review(self: &Arc<Self>, ctx: &Ctx, body: &mut Body) -> Result<Response<Body>, Status> {
        let options = create_options(ctx)?;
        let mut review =
            posted(ctx, body, "authorization.k8s.io/v1", "SelfSubjectRulesReview", options.validation).await?;
        let namespace = text(&review, "/spec/namespace");
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (rules, missing) = self.rbac.rules_for(&ctx.user, namespace);
        let (mut resources, mut others) = (Vec::new(), Vec::new());
        if ctx.user.groups.iter().any(|g| g == "system:masters") {
            resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            others.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        for rule in rules {
            if rule.resources.is_empty() {
                others.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            } else {
                let mut one = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
                if !rule.resource_names.is_empty() {
                    one["resourceNames"] = json!(rule.resource_names);
                }
                resources.push(one);
            }
        }
        let mut status =
            json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": !missing.is_empty()});
        if !missing.is_empty() {
            status["evaluationError"] = missing.join(", ").into();
        }
        review["status"] = status;
        answer(ctx, 201, &review)
    }
}

fn with_reason(mut status: Value, reason: &str) -> Value {
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

/// The user a review asks about.
fn reviewed(review: &Value) -> UserInfo {
    let mut extra = BTreeMap::new();
    for (k, v) in review.pointer("/spec/extra").and_then(Value::as_object).into_iter().flatten() {
        extra.insert(k.clone(), meta::strings(Some(v)));
    }
    UserInfo {
        name: text(review, "/spec/user").to_owned(),
        uid: text(review, "/spec/uid").to_owned(),
        groups: meta::strings(review.pointer("/spec/groups")),
        extra,
    }
}

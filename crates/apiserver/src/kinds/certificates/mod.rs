//! The certificates group.

mod bundle;
mod pem;
mod validate;

pub use bundle::CLUSTER_TRUST_BUNDLE;
use jiff::Timestamp;
use pintle_api::time;
use pintle_schema::cursor::Cursor;
use serde_json::{Value, json};

use super::strategy::{Sub, keep_all_but_status};
use super::table::{self, Column, text};
use super::{Ctx, Strategy, names, value};

/// The strategy of certificate signing requests.
pub static CERTIFICATE_SIGNING_REQUEST: Strategy = Strategy {
    selectable: &[("spec.signerName", &["spec", "signerName"], "")],
    // Nobody cares what a request is called.
    name: names::path_segment,
    on_create: sign_by_requestor,
    validate: validate::request,
    full_meta_on_update: true,
    // The request is what it was when its author was known.
    on_update: |_, new, old| value::copy(new, old, &["spec"]),
    subresources: &[
        (
            "status",
            Sub {
                prepare: keep_approval,
                validate: validate::verdict,
                reset_fields: &[&["spec"], &["status", "conditions"]],
            },
        ),
        (
            "approval",
            Sub {
                prepare: only_approval,
                validate: validate::verdict,
                reset_fields: &[&["spec"], &["status", "certificate"]],
            },
        ),
    ],
    columns: &[
        Column::NAME,
        Column::AGE,
        text("SignerName", "@CertificateSigningRequestSpec.signerName"),
        text("Requestor", "@CertificateSigningRequestSpec.request"),
        text("RequestedDuration", "@CertificateSigningRequestSpec.expirationSeconds"),
        text("Condition", "@CertificateSigningRequestStatus.conditions"),
    ],
    row,
    ..Strategy::DEFAULT
};

/// Records who asks.
fn sign_by_requestor(ctx: &Ctx<'_>, request: &mut Value) {
    for field in ["username", "uid", "groups", "extra"] {
        value::remove(request, &["spec", field]);
    }
    let user = ctx.user;
    let facts = [
        ("username", !user.name.is_empty(), json!(user.name)),
        ("uid", !user.uid.is_empty(), json!(user.uid)),
        ("groups", !user.groups.is_empty(), json!(user.groups)),
        ("extra", !user.extra.is_empty(), json!(user.extra)),
    ];
    for (field, _, fact) in facts.into_iter().filter(|(_, known, _)| *known) {
        value::set(request, &["spec", field], fact);
    }
}

fn is_verdict(condition: &Value) -> bool {
    matches!(value::str_at(condition, &["type"]), "Approved" | "Denied")
}

/// `status` may not approve or deny; upstream drops such changes silently.
fn keep_approval(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    keep_all_but_status(ctx, new, old);
    let old_verdicts: Vec<&Value> =
        value::items_at(old, &["status", "conditions"]).iter().filter(|c| is_verdict(c)).collect();
    let new_verdicts: Vec<&Value> =
        value::items_at(new, &["status", "conditions"]).iter().filter(|c| is_verdict(c)).collect();
    if old_verdicts != new_verdicts {
        let others = value::items_at(new, &["status", "conditions"]).iter().filter(|c| !is_verdict(c));
        let merged: Vec<Value> = old_verdicts.into_iter().chain(others).cloned().collect();
        value::set(new, &["status", "conditions"], merged);
    }
    stamp_conditions(ctx, new, old);
}

/// `approval` writes the conditions and nothing else.
fn only_approval(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    let conditions = value::at(new, &["status", "conditions"]).cloned();
    keep_all_but_status(ctx, new, old);
    value::copy(new, old, &["status"]);
    match conditions {
        Some(conditions) => value::set(new, &["status", "conditions"], conditions),
        None => drop(value::remove(new, &["status", "conditions"])),
    }
    stamp_conditions(ctx, new, old);
}

/// Fills in the times of conditions.
fn stamp_conditions(ctx: &Ctx<'_>, new: &mut Value, old: &Value) {
    let now = time::format(ctx.now);
    let conditions = value::entry(new, &["status"]).and_then(|s| s.get_mut("conditions")).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let was = value::items_at(old, &["status", "conditions"]).iter().find(|c| {
            value::str_at(c, &["type"]) == value::str_at(condition, &["type"])
                && value::str_at(c, &["status"]) == value::str_at(condition, &["status"])
        });
        if value::str_at(condition, &["lastUpdateTime"]).is_empty() {
            value::set(condition, &["lastUpdateTime"], now.as_str());
        }
        if value::str_at(condition, &["lastTransitionTime"]).is_empty() {
            let since = was.map_or("", |c| value::str_at(c, &["lastTransitionTime"]));
            value::set(condition, &["lastTransitionTime"], if since.is_empty() { &now } else { since });
        }
    }
}

fn row(request: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (request.get("spec"), request.get("status"));
    let has = |kind| table::condition(request, kind).is_some();
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !status.get("certificate").is_empty() {
        state.push_str(",Issued");
    }
    let duration = spec.get("expirationSeconds").opt_int().map_or_else(|| "<none>".to_owned(), time::human_duration);
    vec![
        table::name(request),
        table::age(request, now),
        table::or_none(spec.get("signerName").str().to_owned()).into(),
        spec.get("username").str().into(),
        duration.into(),
        state.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{self, with_ctx};

    const GV: &str = "certificates.k8s.io/v1";
    const KIND: &str = "CertificateSigningRequest";

    fn request() -> Value {
        json!({
            "apiVersion": GV, "kind": KIND, "metadata": {"name": "c", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"signerName": "a.b/c", "username": "u", "expirationSeconds": 3600},
            "status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="},
        })
    }

    #[test]
    fn rows() {
        assert_eq!(testing::row(&request(), 5), ["c", "5s", "a.b/c", "u", "60m", "Approved,Issued"]);
    }

    #[test]
    fn the_author_is_recorded() {
        let mut made = request();
        with_ctx(GV, KIND, |ctx| CERTIFICATE_SIGNING_REQUEST.prepare_create(ctx, &mut made));
        assert_eq!((&made["spec"]["username"], made.get("status")), (&json!("alice"), None));
    }

    #[test]
    fn only_approval_approves() {
        let old = testing::changed(&request(), "status", json!({}));
        let new = request();
        with_ctx(GV, KIND, |ctx| {
            let run = |sub: &str| {
                let mut new = new.clone();
                CERTIFICATE_SIGNING_REQUEST.subresource(sub).unwrap().prepare_update(ctx, &mut new, &old);
                new
            };
            let status = run("status");
            assert_eq!(
                (&status["status"]["conditions"], &status["status"]["certificate"]),
                (&json!([]), &json!("eA=="))
            );
            let approval = run("approval");
            assert_eq!(approval["status"].get("certificate"), None);
            assert_eq!(approval["status"]["conditions"][0]["lastUpdateTime"], "2023-11-14T22:13:20Z");
        });
    }
}

//! The admissionregistration group.

mod expressions;
mod policies;
mod rules;
mod url;
mod validate;

use pintle_schema::cursor::Cursor;
use serde_json::Value;

use super::Strategy;
use super::strategy::Sub;
use super::table::{self, Column, integer, text};

const WEBHOOKS: Strategy = Strategy {
    generation: &[&["webhooks"]],
    full_meta_on_update: true,
    validate: validate::webhooks,
    unconditional_update: false,
    columns: &[
        Column::NAME,
        integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
        Column::AGE,
    ],
    row: |o, now| vec![table::name(o), o.get("webhooks").len().into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of mutating webhook configurations.
pub static MUTATING_WEBHOOK: Strategy = WEBHOOKS;

/// The strategy of validating webhook configurations.
pub static VALIDATING_WEBHOOK: Strategy = WEBHOOKS;

const POLICY: Strategy =
    Strategy { generation: &[&["spec"]], unconditional_update: false, full_meta_on_update: true, ..Strategy::DEFAULT };

/// The strategy of validating admission policies.
pub static VALIDATING_POLICY: Strategy = Strategy {
    validate: policies::validating_policy,
    subresources: &[("status", Sub { validate: policies::policy_status, ..Sub::STATUS })],
    columns: &[
        Column::NAME,
        integer("Validations", "Validations indicates the number of validation rules defined in this configuration"),
        text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::AGE,
    ],
    row: |o, now| {
        vec![table::name(o), o.get("spec").get("validations").len().into(), param_kind(o), table::age(o, now)]
    },
    ..POLICY
};

/// The strategy of mutating admission policies.
pub static MUTATING_POLICY: Strategy = Strategy {
    validate: policies::mutating_policy,
    columns: &[
        Column::NAME,
        integer("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
        text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::AGE,
    ],
    row: |o, now| vec![table::name(o), o.get("spec").get("mutations").len().into(), param_kind(o), table::age(o, now)],
    ..POLICY
};

const BINDING: Strategy = Strategy {
    columns: &[
        Column::NAME,
        text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
        text("ParamRef", "ParamRef indicates the param resource which sets the configration param"),
        Column::AGE,
    ],
    row: |o, now| {
        vec![table::name(o), o.get("spec").get("policyName").str().into(), param_ref(o).into(), table::age(o, now)]
    },
    ..POLICY
};

/// The strategy of validating admission policy bindings.
pub static VALIDATING_BINDING: Strategy =
    Strategy { validate: |_, binding, _, errors| policies::validating_binding(binding, errors), ..BINDING };

/// The strategy of mutating admission policy bindings.
pub static MUTATING_BINDING: Strategy =
    Strategy { validate: |_, binding, _, errors| policies::mutating_binding(binding, errors), ..BINDING };

fn param_kind(policy: &Cursor<'_>) -> Value {
    let kind = policy.get("spec").get("paramKind");
    if kind.is_absent() {
        return "<unset>".into();
    }
    format!("{}/{}", kind.get("apiVersion").str(), kind.get("kind").str()).into()
}

fn param_ref(binding: &Cursor<'_>) -> String {
    let param = binding.get("spec").get("paramRef");
    match (param.get("name").str(), param.get("namespace").str()) {
        ("", _) => match param.get("selector").value() {
            Some(selector) => super::scale::selector_text(selector),
            None => "<unset>".to_owned(),
        },
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}

//! Validation of certificate signing requests.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pintle_schema::cursor::{Cursor, Errors};
use pintle_schema::quote::quoted;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer;

use super::pem::blocks;
use crate::kinds::Ctx;
use crate::kinds::core::signer;
use crate::kinds::value::nothing;

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const SHORTEST: i64 = 600;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Checks a request; faults that the stored one has may stay.
pub(super) fn request<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let none = nothing();
    let (spec, before) = (object.get("spec"), old.unwrap_or(&none).get("spec"));
    let request = spec.get("request");
    if let Err(why) = signed(&request) {
        errors.invalid_value(&request, request.value().cloned().unwrap_or(Value::Null), why);
    }
    usages(&spec.get("usages"), &before.get("usages"), errors);
    let signer = spec.get("signerName");
    if signer.str() == LEGACY_SIGNER && before.get("signerName").str() != LEGACY_SIGNER {
        errors.invalid(&signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer::name(&signer, errors);
    }
    let expiration = spec.get("expirationSeconds");
    if expiration.opt_int().is_some_and(|s| s < SHORTEST) {
        errors.invalid(&expiration, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    let (status, was) = (object.get("status"), old.unwrap_or(&none).get("status"));
    conditions(&status.get("conditions"), &was.get("conditions"), errors);
    let (certificate, stored) = (status.get("certificate"), was.get("certificate"));
    if certificate.str() != stored.str()
        && certificates(&stored).is_ok()
        && let Err(why) = certificates(&certificate)
    {
        errors.invalid_value(&certificate, "<certificate data>", why);
    }
}

fn decoded(at: &Cursor<'_>) -> Vec<u8> {
    STANDARD.decode(at.str()).unwrap_or_default()
}

/// Whether a request can be read, and was signed by the key that it is for.
fn signed(at: &Cursor<'_>) -> Result<(), &'static str> {
    let found = blocks(&decoded(at));
    let Some(block) = found.first().filter(|b| b.label == "CERTIFICATE REQUEST") else {
        return Err("PEM block type must be CERTIFICATE REQUEST");
    };
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|_| "x509: malformed certificate request")?;
    request.verify_signature().map_err(|why| match why {
        X509Error::SignatureUnsupportedAlgorithm => "x509: cannot verify signature: algorithm unimplemented",
        _ => match request.signature_algorithm.algorithm.to_id_string().as_str() {
            ecdsa if ecdsa.starts_with("1.2.840.10045.") => "x509: ECDSA verification failure",
            "1.3.101.112" => "x509: Ed25519 verification failure",
            _ => "crypto/rsa: verification error",
        },
    })
}

/// Whether a field holds certificates, or nothing.
fn certificates(at: &Cursor<'_>) -> Result<(), String> {
    let data = decoded(at);
    let found = blocks(&data);
    for block in &found {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {}", quoted(&block.label)));
        }
        if block.headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        let mut rest = &block.contents[..];
        if rest.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        while !rest.is_empty() {
            rest = x509_parser::parse_x509_certificate(rest).map_err(|_| "x509: malformed certificate")?.0;
        }
    }
    if found.is_empty() && !data.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

fn repeats<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let (mut values, mut seen) = (values, HashSet::new());
    values.any(|v| !seen.insert(v))
}

fn usages(list: &Cursor<'_>, stored: &Cursor<'_>, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, "");
    }
    let known = |usage: &Cursor<'_>| USAGES.contains(&usage.str());
    if stored.items().all(|u| known(&u)) {
        for usage in list.items().filter(|u| !known(u)) {
            errors.not_supported(&usage, usage.str(), USAGES);
        }
    }
    if !repeats(stored.items().map(|u| u.str())) {
        let mut seen = HashSet::new();
        for usage in list.items().filter(|u| !seen.insert(u.str())) {
            errors.duplicate(&usage, usage.str());
        }
    }
}

fn has(list: &Cursor<'_>, kind: &str) -> bool {
    list.items().any(|c| c.get("type").str() == kind)
}

/// Approval, denial and failure are said or not; the first two exclude each other.
fn conditions(list: &Cursor<'_>, stored: &Cursor<'_>, errors: &mut Errors) {
    let both = has(stored, "Approved") && has(stored, "Denied");
    let repeated = repeats(stored.items().map(|c| c.get("type").str()));
    let mut seen: HashSet<&str> = HashSet::new();
    for condition in list.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.is_empty() && !has(stored, "") {
            errors.required(&kind, "");
        }
        let allowed: &[&str] = match kind.str() {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        crate::kinds::checks::one_of(&status, allowed, true, errors);
        let other = match kind.str() {
            "Approved" => Some("Denied"),
            "Denied" => Some("Approved"),
            _ => None,
        };
        if !both && other.is_some_and(|other| seen.contains(&other)) {
            errors.invalid_value(list, kind.str(), "Approved and Denied conditions are mutually exclusive");
        }
        if !repeated && seen.contains(&kind.str()) {
            errors.duplicate(&kind, kind.str());
        }
        seen.insert(kind.str());
    }
}

/// Checks what a write of the status or the approval makes of a request: what was said stays said.
pub(super) fn verdict<'a>(ctx: &Ctx<'_>, new: &Cursor<'a>, old: &Cursor<'a>, errors: &mut Errors) {
    request(ctx, new, Some(old), errors);
    let (status, was) = (new.get("status"), old.get("status"));
    let (list, before) = (status.get("conditions"), was.get("conditions"));
    let count = |list: &Cursor<'_>, kind: &str| list.items().filter(|c| c.get("type").str() == kind).count();
    for kind in ["Approved", "Denied", "Failed"] {
        if count(&list, kind) < count(&before, kind) {
            errors.forbidden(&list, format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
    let (certificate, stored) = (status.get("certificate"), was.get("certificate"));
    if !stored.is_empty() && certificate.str() != stored.str() {
        errors.forbidden(&certificate, "updates may not modify existing certificate content");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{changed, create_errors, status_errors, update_errors};
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    fn pem_of_request() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["a.b".to_owned()]).unwrap().serialize_request(&key).unwrap().pem().unwrap()
    }

    fn pem_of_certificate() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["a.b".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    }

    fn base64(text: &str) -> Value {
        STANDARD.encode(text).into()
    }

    fn request() -> Value {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "Any_Name", "resourceVersion": "1"},
            "spec": {"request": base64(&pem_of_request()), "signerName": "a.b/c", "usages": ["client auth"], "expirationSeconds": 600}})
    }

    #[test]
    fn requests() {
        let whole = request();
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&whole, path, to)), expect, "{path}");
        };
        check(
            "spec/expirationSeconds",
            json!(599),
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        );
        check("spec/expirationSeconds", Value::Null, "");
        check("spec/usages", json!([]), "spec.usages: Required value");
        let known: Vec<String> = USAGES.iter().map(|u| format!("\"{u}\"")).collect();
        check(
            "spec/usages",
            json!(["any", "odd", "any"]),
            &format!(
                "spec.usages[1]: Unsupported value: \"odd\": supported values: {}\nspec.usages[2]: Duplicate value: \"any\"",
                known.join(", ")
            ),
        );
        check(
            "spec/signerName",
            json!("kubernetes.io/legacy-unknown"),
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
        );
        check("spec/signerName", Value::Null, "spec.signerName: Required value");
        check(
            "spec/request",
            Value::Null,
            "spec.request: Invalid value: null: PEM block type must be CERTIFICATE REQUEST",
        );
        let wrong = |text: &str, why: &str| {
            let data = base64(text);
            check("spec/request", data.clone(), &format!("spec.request: Invalid value: {data}: {why}"));
        };
        wrong("hello", "PEM block type must be CERTIFICATE REQUEST");
        wrong(&pem_of_certificate(), "PEM block type must be CERTIFICATE REQUEST");
        wrong(
            "-----BEGIN CERTIFICATE REQUEST-----\naGVsbG8=\n-----END CERTIFICATE REQUEST-----\n",
            "x509: malformed certificate request",
        );
        // The last byte is of the signature.
        let pem = pem_of_request();
        let mut der = blocks(pem.as_bytes()).remove(0).contents;
        *der.last_mut().unwrap() ^= 1;
        let forged = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        );
        wrong(&forged, "x509: ECDSA verification failure");
        let odd = changed(&whole, "spec/usages", json!(["odd", "odd"]));
        assert_eq!(update_errors(&odd, &odd), "");
        let legacy = changed(&whole, "spec/signerName", json!("kubernetes.io/legacy-unknown"));
        assert_eq!(update_errors(&legacy, &legacy), "");
    }

    #[test]
    fn verdicts() {
        let whole = request();
        let check = |old: &Value, path: &str, to: Value, expect: &str| {
            assert_eq!(status_errors(&changed(old, path, to), old), expect, "{path}");
        };
        let is = |kind: &str| json!({"type": kind, "status": "True"});
        check(&whole, "status/conditions", json!([is("Failed")]), "");
        check(
            &whole,
            "status/conditions",
            json!([{"type": "", "status": ""}]),
            "status.conditions[0].type: Required value\nstatus.conditions[0].status: Required value",
        );
        check(
            &whole,
            "status/conditions",
            json!([{"type": "Approved", "status": "False"}]),
            "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
        );
        check(
            &whole,
            "status/conditions",
            json!([is("Approved"), is("Denied")]),
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
        );
        check(
            &whole,
            "status/conditions",
            json!([is("Failed"), is("Failed")]),
            "status.conditions[1].type: Duplicate value: \"Failed\"",
        );
        let failed = changed(&whole, "status/conditions", json!([is("Failed")]));
        check(
            &failed,
            "status/conditions",
            json!([]),
            "status.conditions: Forbidden: updates may not remove a condition of type \"Failed\"",
        );
        let certificate = |text: &str, why: &str| {
            let expect = if why.is_empty() {
                String::new()
            } else {
                format!("status.certificate: Invalid value: \"<certificate data>\": {why}")
            };
            check(&whole, "status/certificate", base64(text), &expect);
        };
        let good = pem_of_certificate();
        certificate(&good, "");
        certificate(&format!("{good}{good}"), "");
        certificate("hello", "must contain at least one CERTIFICATE PEM block");
        certificate(&pem_of_request(), "only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"");
        certificate(&good.replacen('\n', "\nX: y\n\n", 1), "no PEM block headers are permitted");
        certificate(
            "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
            "x509: malformed certificate",
        );
        certificate(
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            "found CERTIFICATE PEM block containing 0 certificates",
        );
        let issued = changed(&whole, "status/certificate", base64(&good));
        check(
            &issued,
            "status/certificate",
            base64(&format!("{good}{good}")),
            "status.certificate: Forbidden: updates may not modify existing certificate content",
        );
    }
}

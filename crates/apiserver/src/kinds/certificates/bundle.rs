//! Cluster trust bundles, a kind that is off unless it is asked for.

use std::collections::HashMap;

use pintle_api::names::dns1123_subdomain;
use pintle_schema::cursor::{Cursor, Errors};

use super::pem;
use crate::kinds::core::signer;
use crate::kinds::table::{self, Column, text};
use crate::kinds::{Ctx, Strategy, meta};

/// The strategy of cluster trust bundles.
pub static CLUSTER_TRUST_BUNDLE: Strategy = Strategy {
    selectable: &[("spec.signerName", &["spec", "signerName"], "")],
    unconditional_update: false,
    // The name depends on the signer.
    name: |_, _| Vec::new(),
    validate,
    validate_change: |_, new, old, errors| {
        meta::immutable(&new.get("spec").get("signerName"), &old.get("spec").get("signerName"), errors);
    },
    columns: &[Column::NAME, text("SignerName", "@ClusterTrustBundleSpec.signerName")],
    row: |o, _| {
        let signer = o.get("spec").get("signerName").str();
        vec![table::name(o), if signer.is_empty() { "<none>" } else { signer }.into()]
    },
    ..Strategy::DEFAULT
};

/// The longest bundle.
const MOST: usize = 1 << 20;

fn validate(_: &Ctx<'_>, bundle: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let (spec, name) = (bundle.get("spec"), bundle.get("metadata").get("name"));
    let signer = spec.get("signerName");
    if !name.is_empty() {
        meta::invalid_each(&name, name_of(name.str(), signer.str()), errors);
    }
    if !signer.is_empty() {
        signer::name(&signer, errors);
    }
    let text = spec.get("trustBundle");
    if old.is_none_or(|old| old.get("spec").get("trustBundle").str() != text.str()) {
        certificates(&text, errors);
    }
}

/// What is wrong with the name, for this signer.
fn name_of(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()];
        }
        return dns1123_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

/// The certificates of authorities, each once, and nothing else.
fn certificates(text: &Cursor<'_>, errors: &mut Errors) {
    if text.str().len() > MOST {
        return errors.too_long(text, MOST);
    }
    let before = errors.len();
    let mut found: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    let mut order: Vec<Vec<u8>> = Vec::new();
    for (i, block) in pem::blocks(text.str().as_bytes()).into_iter().enumerate() {
        let wrong = if block.label != "CERTIFICATE" {
            Some(format!("entry {i} has bad block type: {}", block.label))
        } else if block.headers {
            Some(format!("entry {i} has PEM block headers"))
        } else {
            match x509_parser::parse_x509_certificate(&block.contents) {
                Ok(([], certificate)) => {
                    (!certificate.is_ca()).then(|| format!("entry {i} does not have the CA bit set"))
                }
                _ => Some(format!("entry {i} does not parse as X.509")),
            }
        };
        match wrong {
            Some(wrong) => errors.invalid_value(text, "<value omitted>", wrong),
            None => {
                if !found.contains_key(&block.contents) {
                    order.push(block.contents.clone());
                }
                found.entry(block.contents).or_default().push(i);
            }
        }
    }
    // Of a bundle that cannot be read nothing more is told.
    if errors.len() != before {
        return;
    }
    if found.is_empty() {
        errors.invalid_value(text, "<value omitted>", "at least one trust anchor must be provided");
    }
    for at in order.iter().map(|contents| &found[contents]).filter(|at| at.len() > 1) {
        let list: Vec<String> = at.iter().map(usize::to_string).collect();
        let message = format!("duplicate trust anchor (indices [{}])", list.join(" "));
        errors.invalid_value(text, "<value omitted>", message);
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    #[test]
    fn bundles() {
        let certificate = |is_ca: bool| {
            let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
            if is_ca {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let authority = certificate(true);
        let bundle = json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
            "metadata": {"name": "example.com:s:a", "resourceVersion": "1"},
            "spec": {"signerName": "example.com/s", "trustBundle": authority}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&bundle, path, to)), expect, "{path}");
        };
        check("spec/trustBundle", json!(format!("{authority}{}", certificate(true))), "");
        check(
            "metadata/name",
            json!("a"),
            "metadata.name: Invalid value: \"a\": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:",
        );
        check(
            "spec/signerName",
            json!(null),
            "metadata.name: Invalid value: \"example.com:s:a\": ClusterTrustBundle without signer name must not have \":\" in its name",
        );
        let at = "spec.trustBundle: Invalid value: \"<value omitted>\"";
        check("spec/trustBundle", json!(""), &format!("{at}: at least one trust anchor must be provided"));
        check(
            "spec/trustBundle",
            json!(format!("{authority}{authority}")),
            &format!("{at}: duplicate trust anchor (indices [0 1])"),
        );
        check("spec/trustBundle", json!(certificate(false)), &format!("{at}: entry 0 does not have the CA bit set"));
        check(
            "spec/trustBundle",
            json!("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"),
            &format!("{at}: entry 0 does not parse as X.509"),
        );
        check(
            "spec/trustBundle",
            json!("-----BEGIN KEY-----\naGVsbG8=\n-----END KEY-----\n"),
            &format!("{at}: entry 0 has bad block type: KEY"),
        );
        // What is stored may stay as it is.
        let bad = changed(&bundle, "spec/trustBundle", json!("x"));
        assert_eq!(update_errors(&bad, &bad), "");
    }
}

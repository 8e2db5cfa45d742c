//! Names of certificate signers.

use pintle_api::names::{dns1123_label, dns1123_subdomain};
use pintle_schema::cursor::{Cursor, Errors};

/// Whether the signer is one of Kubernetes itself.
pub fn is_kubernetes(signer: &str) -> bool {
    let host = signer.split('/').next().unwrap_or(signer);
    host == "kubernetes.io" || host.ends_with(".kubernetes.io")
}

/// `example.com/signer-name`, at the cursor.
pub fn name(at: &Cursor<'_>, errors: &mut Errors) {
    let name = at.str();
    if name.is_empty() {
        return errors.required(at, "");
    }
    let [domain, path] = name.split('/').collect::<Vec<_>>()[..] else {
        return errors.invalid(at, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    };
    if domain.len() > 253 {
        errors.too_long(at, 253);
    }
    parts(at, domain, dns1123_label, errors);
    if !domain.contains('.') {
        errors.invalid_value(at, domain, "should be a domain with at least two segments separated by dots");
    }
    parts(at, path, dns1123_subdomain, errors);
    if name.len() > 571 {
        errors.too_long(at, 571);
    }
}

/// Complains of the first part that is wrong.
fn parts(at: &Cursor<'_>, text: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let bad = text.split('.').find_map(|part| Some((part, rule(part))).filter(|(_, found)| !found.is_empty()));
    if let Some((part, found)) = bad {
        for message in found {
            errors.invalid_value(at, text, format!("validating label \"{part}\": {message}"));
        }
    }
}

/// What is wrong with the name of a cluster trust bundle.
pub fn trust_bundle_name(name: &str) -> Vec<String> {
    dns1123_subdomain(name.rsplit_once(':').map_or(name, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let check = |text: &str, expect: usize| {
            let value = json!({ "s": text });
            let mut errors = Errors::new();
            name(&Cursor::root(&value).get("s"), &mut errors);
            assert_eq!(errors.len(), expect, "{text}: {errors}");
        };
        check("example.com/name", 0);
        check("kubernetes.io/kubelet-serving", 0);
        check("", 1);
        check("example.com", 1);
        check("example/name", 1);
        check("Example.com/name", 1);
        check("a.b/c/d", 1);
        assert!(is_kubernetes("x.kubernetes.io/y") && !is_kubernetes("notkubernetes.io/y"));
        assert!(trust_bundle_name("a.b:c").is_empty() && !trust_bundle_name("A").is_empty());
    }
}

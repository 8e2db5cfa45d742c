//! ConfigMaps, Secrets and ServiceAccounts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Map, Value};

use crate::kinds::table::{self, Column, text};
use crate::kinds::{Ctx, Strategy, checks, meta};

const MAX_SIZE: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// The strategy of config maps.
pub static CONFIG_MAP: Strategy = Strategy {
    full_meta_on_update: true,
    validate: config_map,
    validate_change: |_, new, old, errors| frozen(new, old, &["data", "binaryData"], errors),
    columns: &[Column::NAME, text("Data", "@ConfigMap.data"), Column::AGE],
    row: |o, now| vec![table::name(o), count(o, &["data", "binaryData"]), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of secrets.
pub static SECRET: Strategy = Strategy {
    selectable: &[("type", &["type"], "")],
    full_meta_on_update: true,
    validate: secret,
    validate_change: |_, new, old, errors| {
        meta::immutable(&new.get("type"), &old.get("type"), errors);
        frozen(new, old, &["data"], errors);
    },
    columns: &[Column::NAME, text("Type", "@Secret.type"), text("Data", "@Secret.data"), Column::AGE],
    row: |o, now| vec![table::name(o), o.get("type").str().into(), count(o, &["data"]), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// The strategy of service accounts.
pub static SERVICE_ACCOUNT: Strategy = Strategy {
    full_meta_on_update: true,
    // Since 1.35 without the number of Secrets, which says nothing any more.
    columns: &[Column::NAME, Column::AGE],
    row: |o, now| vec![table::name(o), table::age(o, now)],
    ..Strategy::DEFAULT
};

/// Keys, each complained of at its own place, and the size of the values as their bytes.
fn keys(map: &Cursor<'_>, size: fn(&str) -> usize, errors: &mut Errors) -> usize {
    let mut total = 0;
    for (key, v) in map.entries() {
        total += size(v.str());
        for message in checks::config_key(key) {
            errors.invalid_value(&v, key, message);
        }
    }
    total
}

/// The number of bytes that base64 text stands for.
fn decoded(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn config_map(_: &Ctx<'_>, map: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let (data, binary) = (map.get("data"), map.get("binaryData"));
    let size = keys(&data, str::len, errors) + keys(&binary, decoded, errors);
    for (key, v) in data.entries().filter(|(key, _)| binary.key(key).is_present()) {
        errors.invalid_value(&v, key, "duplicate of key present in binaryData");
    }
    if size > MAX_SIZE {
        errors.too_long("", MAX_SIZE);
    }
}

fn secret(_: &Ctx<'_>, secret: &Cursor<'_>, _: Option<&Cursor<'_>>, errors: &mut Errors) {
    let data = secret.get("data");
    if keys(&data, decoded, errors) > MAX_SIZE {
        errors.too_long(&data, MAX_SIZE);
    }
    let missing = |key: &'static str| !data.object().is_some_and(|d| d.contains_key(key));
    match secret.get("type").str() {
        "kubernetes.io/service-account-token" => {
            let name = secret.get("metadata").get("annotations").key("kubernetes.io/service-account.name");
            if name.is_empty() {
                errors.required(&name, "");
            }
        }
        "kubernetes.io/dockercfg" => docker(&data.key(".dockercfg"), missing(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => {
            docker(&data.key(".dockerconfigjson"), missing(".dockerconfigjson"), errors);
        }
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            errors.required(data.key("username"), "");
            errors.required(data.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if data.key("ssh-privatekey").is_empty() => {
            errors.required(data.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|k| missing(k)) {
                errors.required(data.key(key), "");
            }
        }
        _ => {}
    }
}

fn docker(config: &Cursor<'_>, missing: bool, errors: &mut Errors) {
    if missing {
        return errors.required(config, "");
    }
    let bytes = STANDARD.decode(config.str()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        errors.invalid_value(config, "<secret contents redacted>", error.to_string());
    }
}

fn frozen<'a>(new: &Cursor<'a>, old: &Cursor<'a>, fields: &[&'static str], errors: &mut Errors) {
    if !old.get("immutable").bool() {
        return;
    }
    if !new.get("immutable").bool() {
        errors.forbidden(new.get("immutable"), FROZEN);
    }
    for field in fields {
        if new.get(field).value() != old.get(field).value() {
            errors.forbidden(new.get(field), FROZEN);
        }
    }
}

fn count(object: &Cursor<'_>, fields: &[&'static str]) -> Value {
    fields.iter().map(|f| object.get(f).len()).sum::<usize>().into()
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn object(kind: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "ns", "resourceVersion": "1"}})
    }

    #[test]
    fn config_maps() {
        let map = changed(&object("ConfigMap"), "data", json!({"a": "b"}));
        assert_eq!(create_errors(&map), "");
        assert_eq!(
            create_errors(&changed(&map, "binaryData", json!({"a": "eA=="}))),
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData"
        );
        assert!(
            create_errors(&changed(&map, "data", json!({"a/b": ""})))
                .starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key")
        );
        let big = json!({"a": "x".repeat(1024 * 1024 + 1)});
        assert_eq!(create_errors(&changed(&map, "data", big)), ": Too long: may not be more than 1048576 bytes");
        let frozen = changed(&map, "immutable", json!(true));
        assert_eq!(update_errors(&map, &frozen), "immutable: Forbidden: field is immutable when `immutable` is set");
        assert_eq!(
            update_errors(&changed(&frozen, "data", json!({})), &frozen),
            "data: Forbidden: field is immutable when `immutable` is set"
        );
    }

    #[test]
    fn secrets() {
        let check = |kind: &str, data: Value, expect: &str| {
            let secret = changed(&changed(&object("Secret"), "type", json!(kind)), "data", data);
            assert_eq!(create_errors(&secret), expect, "{kind}");
        };
        check("Opaque", json!({"a": "eA=="}), "");
        check("kubernetes.io/tls", json!({"tls.crt": ""}), "data[tls.key]: Required value");
        check("kubernetes.io/basic-auth", json!({}), "data[username]: Required value\ndata[password]: Required value");
        check("kubernetes.io/ssh-auth", json!({}), "data[ssh-privatekey]: Required value");
        check("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "e30="}), "");
        check("kubernetes.io/dockerconfigjson", json!({}), "data[.dockerconfigjson]: Required value");
        check(
            "kubernetes.io/service-account-token",
            json!({}),
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
        );
        let opaque = changed(&object("Secret"), "type", json!("Opaque"));
        assert_eq!(
            update_errors(&changed(&opaque, "type", json!("x")), &opaque),
            "type: Invalid value: \"x\": field is immutable"
        );
    }
}

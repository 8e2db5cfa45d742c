//! Validation of claims, their templates and classes.

use std::collections::HashSet;

use pintle_api::names::{dns1123_subdomain, label_value};
use pintle_schema::cel::{self, Type};
use pintle_schema::cursor::{Cursor, ErrorKind, Errors};
use serde_json::Value;

use crate::kinds::core::pod::resources::is_extended;
use crate::kinds::core::volume::csi_driver_name;
use crate::kinds::value::same;
use crate::kinds::{Ctx, checks, meta};

/// Most requests, results, or names of requests in one place.
pub(super) const MOST_REQUESTS: usize = 32;
/// Most constraints, and configurations of a claim or class.
pub(super) const MOST_CONFIGS: usize = 32;
const MOST_SELECTORS: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
/// The longest expression, and the longest parameters of a driver, in bytes.
const LONGEST_EXPRESSION: usize = 10 * 1024;
/// What evaluating one may cost, in cel-go's units.
const MOST_COST: u64 = 1_000_000;
pub(super) const LONGEST_PARAMETERS: usize = 10 * 1024;
/// The longest name of an attribute without its domain.
const LONGEST_ID: usize = 32;
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// A claim. Its spec stays as it is, so it is not checked again.
pub(super) fn claim(_: &Ctx<'_>, claim: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    match old {
        None => claim_spec(&claim.get("spec"), errors),
        Some(old) => meta::immutable(&claim.get("spec"), &old.get("spec"), errors),
    }
}

/// A template of claims, of which the same holds.
pub(super) fn template(_: &Ctx<'_>, template: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = template.get("spec");
    if let Some(old) = old {
        return meta::immutable(&spec, &old.get("spec"), errors);
    }
    let metadata = spec.get("metadata");
    meta::annotations(&metadata.get("annotations"), errors);
    meta::labels(&metadata.get("labels"), errors);
    for (field, value) in metadata.object().into_iter().flatten() {
        if !matches!(field.as_str(), "annotations" | "labels") && !value.is_null() {
            errors.forbidden(metadata.get(field), "cannot be set");
        }
    }
    claim_spec(&spec.get("spec"), errors);
}

/// The spec of a class. What was stored before need not be checked again.
pub(super) fn class(spec: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let stored = |field: &'static str| old.is_some_and(|o| same(spec.get(field).value(), o.get(field).value()));
    selectors(&spec.get("selectors"), stored("selectors"), errors);
    let config = spec.get("config");
    if few(&config, MOST_CONFIGS, errors) {
        for one in config.items() {
            configuration(&one, stored("config"), errors);
        }
    }
    let name = spec.get("extendedResourceName");
    if name.is_present() && !is_extended(name.str()) {
        errors.invalid(&name, "must be a valid extended resource name");
    }
}

/// Whether a list is not too long.
pub(super) fn few(list: &Cursor<'_>, most: usize, errors: &mut Errors) -> bool {
    if list.len() > most {
        errors.too_many(list, list.len(), most);
    }
    list.len() <= most
}

/// Complains of the items of a list that another before has the key of.
pub(super) fn unique<'a>(list: &Cursor<'a>, key: impl Fn(&Cursor<'a>) -> String, errors: &mut Errors) {
    let mut seen: HashSet<String> = HashSet::new();
    for item in list.items() {
        let key = key(&item);
        if seen.contains(&key) {
            errors.duplicate(&item, key);
        } else {
            seen.insert(key);
        }
    }
}

/// The names by which parts of a claim refer to its requests: `request` or `request/subrequest`.
pub(super) fn request_names(devices: &Cursor<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for request in devices.get("requests").items() {
        let name = request.get("name").str();
        names.push(name.to_owned());
        for inner in request.get("firstAvailable").items() {
            names.push(format!("{name}/{}", inner.get("name").str()));
        }
    }
    names
}

/// A reference to a request.
pub(super) fn request_ref(at: &Cursor<'_>, known: &[String], errors: &mut Errors) {
    if at.str().split('/').count() > 2 {
        return errors.invalid(at, NO_REQUEST);
    }
    for part in at.str().split('/') {
        for message in pintle_api::names::dns1123_label(part) {
            errors.invalid_value(at, part, message);
        }
    }
    if !known.iter().any(|k| k == at.str()) {
        errors.invalid(at, NO_REQUEST);
    }
}

/// References to requests.
pub(super) fn request_refs(list: &Cursor<'_>, known: &[String], errors: &mut Errors) {
    if few(list, MOST_REQUESTS, errors) {
        for one in list.items() {
            request_ref(&one, known, errors);
        }
        unique(list, |r| r.str().to_owned(), errors);
    }
}

fn claim_spec(spec: &Cursor<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    let requests = devices.get("requests");
    if few(&requests, MOST_REQUESTS, errors) {
        for request in requests.items() {
            device_request(&request, errors);
        }
        unique(&requests, |r| r.get("name").str().to_owned(), errors);
    }
    let names = request_names(&devices);
    let constraints = devices.get("constraints");
    if few(&constraints, MOST_CONFIGS, errors) {
        for constraint in constraints.items() {
            request_refs(&constraint.get("requests"), &names, errors);
            let (matches, differs) = (constraint.get("matchAttribute"), constraint.get("distinctAttribute"));
            if matches.is_present() {
                fully_qualified(&matches, errors);
            } else if differs.is_present() {
                fully_qualified(&differs, errors);
            } else {
                errors.required(
                    &constraint,
                    "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                );
            }
        }
    }
    let config = devices.get("config");
    if few(&config, MOST_CONFIGS, errors) {
        for one in config.items() {
            request_refs(&one.get("requests"), &names, errors);
            configuration(&one, false, errors);
        }
    }
}

fn device_request(request: &Cursor<'_>, errors: &mut Errors) {
    checks::label(&request.get("name"), errors);
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_present(), !first.is_empty()) {
        (false, false) => errors.required(request, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, true) => errors.invalid_value(
            request,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (true, false) => wanted(&exactly, errors),
        (false, true) if few(&first, MOST_ALTERNATIVES, errors) => {
            for alternative in first.items() {
                checks::label(&alternative.get("name"), errors);
                wanted(&alternative, errors);
            }
            unique(&first, |r| r.get("name").str().to_owned(), errors);
        }
        (false, true) => {}
    }
}

/// What a request or an alternative asks for.
fn wanted(request: &Cursor<'_>, errors: &mut Errors) {
    let (class, mode, count) = (request.get("deviceClassName"), request.get("allocationMode"), request.get("count"));
    if class.is_empty() {
        errors.required(&class, "");
    } else {
        checks::subdomain(&class, errors);
    }
    selectors(&request.get("selectors"), false, errors);
    match mode.str() {
        "All" if count.int() != 0 => {
            errors.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if count.int() <= 0 => errors.invalid_value(&count, count.int(), checks::NOT_POSITIVE),
        "ExactCount" => {}
        other => errors.not_supported(&mode, other, &["All", "ExactCount"]),
    }
    for one in request.get("tolerations").items() {
        toleration(&one, errors);
    }
}

fn selectors(list: &Cursor<'_>, stored: bool, errors: &mut Errors) {
    if !few(list, MOST_SELECTORS, errors) {
        return;
    }
    for selector in list.items() {
        let cel = selector.get("cel");
        let expression = cel.get("expression");
        if cel.is_absent() {
            errors.required(&cel, "");
        } else if stored {
            // It was compiled when it came.
        } else if expression.str().len() > LONGEST_EXPRESSION {
            errors.too_long(&expression, LONGEST_EXPRESSION);
        } else if expression.is_empty() {
            errors.required(&expression, "");
        } else {
            match selector_of_devices(expression.str()) {
                Ok(cost) if cost > MOST_COST => errors.forbidden(&expression, "too complex, exceeds cost limit"),
                Ok(_) => {}
                Err(detail) => errors.invalid(&expression, detail),
            }
        }
    }
}

/// What the expression costs at most.
fn selector_of_devices(expression: &str) -> Result<u64, String> {
    let compiled = cel::compile(expression, &cel::DEVICE).map_err(|issues| format!("compilation failed: {issues}"))?;
    match compiled.result {
        Type::Bool | Type::Any => Ok(compiled.cost.map_or(u64::MAX, |cost| cost.max)),
        other => Err(format!("must evaluate to bool or the unknown type, not {}", other.declared())),
    }
}

/// What a driver is told.
pub(super) fn configuration(config: &Cursor<'_>, stored: bool, errors: &mut Errors) {
    let opaque = config.get("opaque");
    if opaque.is_absent() {
        return errors.required(&opaque, "");
    }
    csi_driver_name(&opaque.get("driver"), errors);
    raw(&opaque.get("parameters"), stored, LONGEST_PARAMETERS, errors);
}

/// A JSON object of which nothing is known but how long it may be.
pub(super) fn raw(at: &Cursor<'_>, stored: bool, longest: usize, errors: &mut Errors) {
    match at.value() {
        None | Some(Value::Null) => errors.required(at, ""),
        Some(value) if !stored && value.to_string().len() > longest => errors.too_long(at, longest),
        Some(Value::Object(_)) => {}
        Some(_) => errors.invalid_value(at, "<value omitted>", "must be a valid JSON object"),
    }
}

/// The effect of a taint of a device.
pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// A toleration of taints of devices.
pub(super) fn toleration(toleration: &Cursor<'_>, errors: &mut Errors) {
    let (key, operator, value, effect) =
        (toleration.get("key"), toleration.get("operator"), toleration.get("value"), toleration.get("effect"));
    if !key.is_empty() {
        meta::label_key(&key, key.str(), errors);
    }
    match operator.str() {
        "Exists" if !value.is_empty() => errors.invalid(&value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => meta::invalid_each(&value, label_value(value.str()), errors),
        "" => errors.required(&operator, ""),
        other => errors.not_supported(&operator, other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect.str()) {
        errors.not_supported(&effect, effect.str(), EFFECTS);
    }
}

fn identifier(at: &Cursor<'_>, id: &str, errors: &mut Errors) {
    if id.len() > LONGEST_ID {
        errors.add(ErrorKind::TooLong, at, "", format!("may not be more than {LONGEST_ID} bytes"));
    }
    for message in checks::c_identifier(id) {
        errors.invalid_value(at, id, message);
    }
}

/// `[domain/]id`, complained of at `at`.
pub(super) fn qualified(at: &Cursor<'_>, name: &str, errors: &mut Errors) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(at, id, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid_value(at, "", "the domain must not be empty");
            } else {
                if domain.len() > 63 {
                    errors.too_long(at, 63);
                }
                for message in dns1123_subdomain(&domain.to_lowercase()) {
                    errors.invalid_value(at, domain, message);
                }
            }
            if id.is_empty() {
                errors.invalid_value(at, "", "the name must not be empty");
            } else {
                identifier(at, id, errors);
            }
        }
        _ => errors.invalid_value(at, name, "must not contain more than one slash"),
    }
}

fn fully_qualified(at: &Cursor<'_>, errors: &mut Errors) {
    qualified(at, at.str(), errors);
    if !at.str().contains('/') {
        errors.invalid(at, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// The name of a pool: subdomains between slashes.
pub(super) fn pool_name(name: &Cursor<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(name, "");
    }
    if name.str().len() > 253 {
        errors.too_long(name, 253);
    }
    for part in name.str().split('/') {
        for message in dns1123_subdomain(part) {
            errors.invalid_value(name, part, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    fn claim() -> Value {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"devices": {"requests": [
                {"name": "r", "exactly": {"deviceClassName": "d", "allocationMode": "ExactCount", "count": 1}},
                {"name": "s", "firstAvailable": [{"name": "t", "deviceClassName": "d", "allocationMode": "All"}]}]}}})
    }

    #[test]
    fn claims() {
        let claim = claim();
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&claim, &format!("spec/devices/{path}"), to)), expect, "{path}");
        };
        let one = |name: &str| json!({"name": name, "exactly": {"deviceClassName": "d", "allocationMode": "All"}});
        check("config", json!([]), "");
        check(
            "requests/0/exactly/count",
            json!(0),
            "spec.devices.requests[0].exactly.count: Invalid value: 0: must be greater than zero",
        );
        check(
            "requests/0/exactly/allocationMode",
            json!("All"),
            "spec.devices.requests[0].exactly.count: Invalid value: 1: must not be specified when allocationMode is 'All'",
        );
        check(
            "requests/0/exactly/allocationMode",
            json!("Some"),
            "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
        );
        check(
            "requests/0/exactly/deviceClassName",
            json!(""),
            "spec.devices.requests[0].exactly.deviceClassName: Required value",
        );
        check("requests/1", one("r"), "spec.devices.requests[1]: Duplicate value: \"r\"");
        check(
            "requests/1",
            json!({"name": "u"}),
            "spec.devices.requests[1]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        );
        let many: Vec<Value> = (0..33).map(|i| one(&format!("r{i}"))).collect();
        check("requests", many.into(), "spec.devices.requests: Too many: 33: must have at most 32 items");
        check(
            "requests/0/exactly/selectors",
            json!([{}]),
            "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
        );
        check(
            "requests/0/exactly/selectors",
            json!([{"cel": {"expression": "x".repeat(10241)}}]),
            "spec.devices.requests[0].exactly.selectors[0].cel.expression: Too long: may not be more than 10240 bytes",
        );
        check(
            "requests/0/exactly/tolerations",
            json!([{"key": "a", "operator": "Exists", "value": "b", "effect": "Never"}]),
            "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"b\": must be empty for operator `Exists`\n\
             spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
        );
    }

    #[test]
    fn constraints_and_configuration() {
        let claim = claim();
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&claim, &format!("spec/devices/{path}"), to)), expect, "{path}");
        };
        const NO_REQUEST: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        check("constraints", json!([{"requests": ["r", "s", "s/t"], "matchAttribute": "d.example.com/a"}]), "");
        check(
            "constraints",
            json!([{"requests": ["r/t"], "distinctAttribute": "d.example.com/a"}]),
            &format!("spec.devices.constraints[0].requests[0]: Invalid value: \"r/t\": {NO_REQUEST}"),
        );
        check(
            "constraints",
            json!([{}]),
            "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        );
        check(
            "constraints",
            json!([{"matchAttribute": "a"}]),
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"a\": a fully qualified name must be a domain and a name separated by a slash",
        );
        check(
            "constraints",
            json!([{"requests": ["r", "r"], "matchAttribute": "d.example.com/a"}]),
            "spec.devices.constraints[0].requests[1]: Duplicate value: \"r\"",
        );
        check("config", json!([{"opaque": {"driver": "d.example.com", "parameters": {"a": 1}}}]), "");
        check("config", json!([{}]), "spec.devices.config[0].opaque: Required value");
        check(
            "config",
            json!([{"opaque": {"driver": "d.example.com", "parameters": [1]}}]),
            "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
        );
        check(
            "config",
            json!([{"requests": ["x"], "opaque": {"driver": "d.example.com"}}]),
            &format!(
                "spec.devices.config[0].requests[0]: Invalid value: \"x\": {NO_REQUEST}\n\
                 spec.devices.config[0].opaque.parameters: Required value"
            ),
        );
        let moved = changed(&claim, "spec/devices/requests", json!([]));
        assert!(update_errors(&moved, &claim).ends_with("field is immutable"));
    }

    #[test]
    fn classes() {
        let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": {"name": "c", "resourceVersion": "1"},
            "spec": {"selectors": [{"cel": {"expression": "true"}}], "extendedResourceName": "example.com/gpu"}});
        assert_eq!(create_errors(&class), "");
        assert_eq!(
            create_errors(&changed(&class, "spec/extendedResourceName", json!("cpu"))),
            "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name"
        );
        let list = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
        let nested = |depth: usize| (0..depth).fold("true".to_owned(), |e, i| format!("{list}.all(v{i}, {e})"));
        let of_depth = |depth| changed(&class, "spec/selectors/0/cel/expression", json!(nested(depth)));
        assert_eq!(create_errors(&of_depth(4)), "");
        assert_eq!(
            create_errors(&of_depth(6)),
            "spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit"
        );
        // What was stored when more was allowed stays.
        let long = changed(&class, "spec/selectors/0/cel/expression", json!("x".repeat(10241)));
        assert_eq!(update_errors(&long, &long), "");
        assert_ne!(update_errors(&long, &class), "");
    }
}

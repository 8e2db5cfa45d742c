//! Validation of admission policies and their bindings.

use std::collections::HashSet;

use pintle_api::names::{dns1035_label, dns1123_subdomain, qualified_name};
use pintle_schema::cel::{self, Type};
use pintle_schema::cursor::{Cursor, Errors};

use super::expressions::{Expressions, Options};
use super::rules::{match_conditions, match_resources, mutating_operations};
use crate::kinds::value::same;
use crate::kinds::{Ctx, checks, meta};

const AUDIT_ANNOTATIONS: usize = 20;
const AUDIT_EXPRESSION: usize = 5 * 1024;

fn blank(text: &Cursor<'_>) -> bool {
    text.str().trim().is_empty()
}

/// What both kinds of policy have, and what their other expressions are compiled with.
fn policy<'a>(
    spec: &Cursor<'a>,
    old: Option<&Cursor<'a>>,
    mutating: bool,
    errors: &mut Errors,
) -> (Expressions, Options) {
    let (failure, kind, constraints) = (spec.get("failurePolicy"), spec.get("paramKind"), spec.get("matchConstraints"));
    if failure.is_absent() {
        errors.required(&failure, "");
    }
    checks::one_of(&failure, &["Fail", "Ignore"], false, errors);
    if kind.is_present() {
        param_kind(&kind, errors);
    }
    if constraints.is_absent() {
        errors.required(&constraints, "");
    } else {
        match_resources(&constraints, errors);
        let rules = constraints.get("resourceRules");
        if rules.is_empty() {
            errors.required(&rules, "");
        }
        if mutating {
            mutating_operations(&constraints, errors);
        }
    }
    let kept = old.is_some_and(|o| {
        let old = o.get("spec");
        ["paramKind", "matchConditions"].iter().all(|f| same(spec.get(f).value(), old.get(f).value()))
    });
    if !kept {
        match_conditions(&spec.get("matchConditions"), kind.is_present(), errors);
    }
    let options = Options { params: kind.is_present(), ..Options::default() };
    let variables = spec.get("variables");
    let mut expressions = if variables.is_empty() { Expressions::default() } else { Expressions::composed() };
    for variable in variables.items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if blank(&name) {
            errors.required(&name, "name is not specified");
        } else if !is_identifier(name.str()) {
            errors.invalid(&name, "must be a valid CEL identifier");
        }
        if blank(&expression) {
            errors.required(&expression, "expression is not specified");
        } else {
            expressions.variable(name.str(), &expression, options, errors);
        }
    }
    (expressions, options)
}

fn is_identifier(name: &str) -> bool {
    checks::c_identifier(name).is_empty() && !cel::is_reserved(name)
}

fn param_kind(at: &Cursor<'_>, errors: &mut Errors) {
    let (version, kind) = (at.get("apiVersion"), at.get("kind"));
    let text = version.str();
    if text.is_empty() {
        errors.required(&version, "");
    } else if text.matches('/').count() > 1 {
        errors.invalid(&version, format!("unexpected GroupVersion string: {text}"));
    } else {
        let (group, number) = text.split_once('/').unwrap_or(("", text));
        let wrong = dns1123_subdomain(group);
        if !group.is_empty() && !wrong.is_empty() {
            errors.invalid_value(&version, group, wrong.join(","));
        }
        let wrong = dns1035_label(number);
        if number.is_empty() {
            errors.invalid(&version, "version must be specified");
        } else if !wrong.is_empty() {
            errors.invalid_value(&version, number, wrong.join(","));
        }
    }
    let wrong = dns1035_label(&kind.str().to_lowercase());
    if kind.is_empty() {
        errors.required(&kind, "");
    } else if !wrong.is_empty() {
        let message = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.invalid(&kind, message);
    }
}

pub(super) fn validating_policy<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (expressions, options) = policy(&spec, old, false, errors);
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for list in [&validations, &annotations] {
            errors.required(list, "validations or auditAnnotations must contain at least one item");
        }
    }
    for validation in validations.items() {
        let at = |field: &'static str| validation.get(field);
        let condition = at("expression");
        if blank(&condition) {
            errors.required(&condition, "expression is not specified");
        } else {
            expressions.check(&condition, condition.str(), condition.str(), options, &[Type::Bool], errors);
        }
        let (expression, message) = (at("messageExpression"), at("message"));
        if !expression.is_empty() && blank(&expression) {
            errors.invalid(&expression, "must be non-empty if specified");
        } else if !expression.is_empty() {
            let options = Options { authorizer: false, ..options };
            expressions.check(&expression, expression.str(), expression.str(), options, &[Type::String], errors);
        }
        if !message.is_empty() && blank(&message) {
            errors.invalid(&message, "must be non-empty if specified");
        } else if message.str().trim().contains(['\n', '\r']) {
            errors.invalid(&message, "must not contain line breaks");
        }
        checks::one_of(&at("reason"), &["Forbidden", "Invalid", "RequestEntityTooLarge"], false, errors);
    }
    let check = |at: &Cursor<'_>, errors: &mut Errors| {
        expressions.check(at, at.str().trim(), at.str(), options, &[Type::String, Type::Null], errors);
    };
    audit_annotations(&object.get("metadata").get("name"), &annotations, check, errors);
}

fn audit_annotations(
    policy: &Cursor<'_>,
    list: &Cursor<'_>,
    check: impl Fn(&Cursor<'_>, &mut Errors),
    errors: &mut Errors,
) {
    if list.len() > AUDIT_ANNOTATIONS {
        errors.invalid(list, format!("must not have more than {AUDIT_ANNOTATIONS} auditAnnotations"));
    }
    let mut keys: HashSet<&str> = HashSet::new();
    for annotation in list.items() {
        let (key, expression) = (annotation.get("key"), annotation.get("valueExpression"));
        if policy.is_empty() {
            errors.invalid_value(&key, key.str(), "requires metadata.name be non-empty");
        } else {
            let name = format!("{}/{}", policy.str(), key.str());
            for message in qualified_name(&name) {
                errors.invalid_value(&key, name.as_str(), message);
            }
        }
        if blank(&expression) {
            errors.required(&expression, "valueExpression is not specified");
        } else if expression.str().trim().len() > AUDIT_EXPRESSION {
            errors.required(&expression, format!("must not exceed {AUDIT_EXPRESSION} bytes in length"));
        } else {
            check(&expression, errors);
        }
        if keys.contains(&key.str()) {
            errors.duplicate(&key, key.str());
        }
        keys.insert(key.str());
    }
}

pub(super) fn mutating_policy<'a>(_: &Ctx<'_>, object: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (expressions, options) = policy(&spec, old, true, errors);
    let mutations = spec.get("mutations");
    if mutations.is_empty() {
        errors.required(&mutations, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        mutation_parts(&mutation, &expressions, Options { mutation: true, ..options }, errors);
    }
    checks::one_of(&spec.get("reinvocationPolicy"), &["IfNeeded", "Never"], true, errors);
}

fn mutation_parts(mutation: &Cursor<'_>, expressions: &Expressions, options: Options, errors: &mut Errors) {
    let kind = mutation.get("patchType");
    let (wanted, other, result) = match kind.str() {
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Type::list(cel::json_patch())),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", cel::apply_configuration()),
        _ => return checks::one_of(&kind, &["ApplyConfiguration", "JSONPatch"], true, errors),
    };
    let (patch, extra) = (mutation.get(wanted), mutation.get(other));
    let expression = patch.get("expression");
    let text = expression.str().trim();
    if patch.is_absent() {
        errors.required(&patch, format!("must be specified when patchType is {}", kind.str()));
    } else if text.is_empty() {
        errors.required(&expression, "");
    } else {
        expressions.check(&expression, text, text, options, &[result], errors);
    }
    if extra.is_present() {
        let message = format!("must not be specified when patchType is {}", kind.str());
        errors.invalid_value(&extra, format!("{{{other}}}"), message);
    }
}

/// What both kinds of binding have.
fn binding(spec: &Cursor<'_>, errors: &mut Errors) {
    let (policy, resources) = (spec.get("policyName"), spec.get("matchResources"));
    if policy.is_empty() {
        errors.required(&policy, "");
    } else {
        checks::subdomain(&policy, errors);
    }
    param_ref(&spec.get("paramRef"), errors);
    if resources.is_present() {
        match_resources(&resources, errors);
    }
}

fn param_ref(param: &Cursor<'_>, errors: &mut Errors) {
    if param.is_absent() {
        return;
    }
    let (name, selector, missing) = (param.get("name"), param.get("selector"), param.get("parameterNotFoundAction"));
    let both = !name.is_empty() && selector.is_present();
    if !name.is_empty() {
        meta::invalid_each(&name, pintle_api::names::path_segment(name.str()), errors);
    }
    if both {
        errors.forbidden(&name, "name and selector are mutually exclusive");
    }
    meta::label_selector(&selector, false, errors);
    if both {
        errors.forbidden(&selector, "name and selector are mutually exclusive");
    }
    if name.is_empty() && selector.is_absent() {
        errors.required(param, "one of name or selector must be specified");
    }
    checks::one_of(&missing, &["Deny", "Allow"], true, errors);
}

pub(super) fn validating_binding(object: &Cursor<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    binding(&spec, errors);
    let actions = spec.get("validationActions");
    let mut seen: HashSet<&str> = HashSet::new();
    for action in actions.items() {
        if !matches!(action.str(), "Audit" | "Deny" | "Warn") {
            errors.not_supported(&action, action.str(), &["Audit", "Deny", "Warn"]);
        }
        if seen.contains(&action.str()) {
            errors.duplicate(&action, action.str());
        }
        seen.insert(action.str());
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        errors.invalid(&actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
    if seen.is_empty() {
        errors.required(&actions, "at least one validation action is required");
    }
}

pub(super) fn mutating_binding(object: &Cursor<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    binding(&spec, errors);
    mutating_operations(&spec.get("matchResources"), errors);
}

/// What the type checker of policies says of them.
pub(super) fn policy_status(_: &Ctx<'_>, new: &Cursor<'_>, _: &Cursor<'_>, errors: &mut Errors) {
    let status = new.get("status");
    for warning in status.get("typeChecking").get("expressionWarnings").items() {
        let (text, place) = (warning.get("warning"), warning.get("fieldRef"));
        if text.is_empty() {
            errors.required(&text, "");
        }
        if blank(&place) {
            errors.required(&place, "");
        }
    }
    meta::conditions(&status.get("conditions"), errors);
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, status_errors, update_errors};
    use serde_json::{Value, json};

    fn object(kind: &str, spec: Value) -> Value {
        let mut object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "p", "resourceVersion": "1"}, "spec": spec});
        let field = if kind.ends_with("Policy") { "matchConstraints" } else { "matchResources" };
        object["spec"][field] = json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
            "resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        object
    }

    fn check(object: &Value, path: &str, to: Value, expect: &str) {
        let found = create_errors(&changed(object, &format!("spec/{path}"), to));
        let found: Vec<&str> = found.lines().map(|l| l.strip_prefix("spec.").unwrap_or(l)).collect();
        assert_eq!(found.join("\n"), expect, "{path}");
    }

    #[test]
    fn validating_policies() {
        let policy = object(
            "ValidatingAdmissionPolicy",
            json!({"failurePolicy": "Fail", "validations": [{"expression": "true"}]}),
        );
        let check = |path: &str, to: Value, expect: &str| check(&policy, path, to, expect);
        check("validations/0/reason", json!("Invalid"), "");
        check(
            "validations",
            json!([]),
            "validations: Required value: validations or auditAnnotations must contain at least one item\n\
             auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        );
        check("failurePolicy", Value::Null, "failurePolicy: Required value");
        check(
            "paramKind",
            json!({"apiVersion": "a/b/c", "kind": ""}),
            "paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c\nparamKind.kind: Required value",
        );
        check(
            "paramKind",
            json!({"apiVersion": "A/", "kind": "C_d"}),
            &format!(
                "paramKind.apiVersion: Invalid value: \"A\": {}\nparamKind.apiVersion: Invalid value: \"A/\": version must be specified\n\
             paramKind.kind: Invalid value: \"C_d\": may have mixed case, but should otherwise match: {}",
                pintle_api::names::dns1123_subdomain("A")[0],
                pintle_api::names::dns1035_label("c_d")[0]
            ),
        );
        check("matchConstraints", Value::Null, "matchConstraints: Required value");
        check(
            "matchConstraints",
            json!({}),
            "matchConstraints.matchPolicy: Required value\nmatchConstraints.namespaceSelector: Required value\nmatchConstraints.objectSelector: Required value\nmatchConstraints.resourceRules: Required value",
        );
        check(
            "matchConstraints/resourceRules/0/resourceNames",
            json!(["a", "a/b", "a"]),
            "matchConstraints.resourceRules[0].resourceNames[1]: Invalid value: \"a/b\": may not contain '/'\nmatchConstraints.resourceRules[0].resourceNames[2]: Duplicate value: \"a\"",
        );
        check(
            "variables",
            json!([{"name": "1", "expression": " "}, {"name": "for", "expression": "1"}, {"expression": "1"}]),
            "variables[0].name: Invalid value: \"1\": must be a valid CEL identifier\nvariables[0].expression: Required value: expression is not specified\nvariables[1].name: Invalid value: \"for\": must be a valid CEL identifier\nvariables[2].name: Required value: name is not specified",
        );
        check(
            "validations/0",
            json!({"expression": " ", "messageExpression": " ", "message": " ", "reason": "Unauthorized"}),
            "validations[0].expression: Required value: expression is not specified\nvalidations[0].messageExpression: Invalid value: \" \": must be non-empty if specified\nvalidations[0].message: Invalid value: \" \": must be non-empty if specified\nvalidations[0].reason: Unsupported value: \"Unauthorized\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
        );
        check(
            "validations/0/message",
            json!("a\nb"),
            "validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
        );
        check(
            "auditAnnotations",
            json!([{"key": "a b", "valueExpression": ""}, {"key": "a b", "valueExpression": "x".repeat(5121)}]),
            &{
                let wrong = pintle_api::names::qualified_name("p/a b")[0].clone();
                format!(
                    "auditAnnotations[0].key: Invalid value: \"p/a b\": {wrong}\nauditAnnotations[0].valueExpression: Required value: valueExpression is not specified\nauditAnnotations[1].key: Invalid value: \"p/a b\": {wrong}\nauditAnnotations[1].valueExpression: Required value: must not exceed 5120 bytes in length\nauditAnnotations[1].key: Duplicate value: \"a b\""
                )
            },
        );
        let odd = changed(&policy, "spec/matchConditions", json!([{"name": "", "expression": ""}]));
        assert_eq!(update_errors(&odd, &odd), "");
        assert_ne!(update_errors(&odd, &policy), "");
        assert_eq!(
            status_errors(
                &changed(&policy, "status", json!({"typeChecking": {"expressionWarnings": [{"fieldRef": " "}]}})),
                &policy
            ),
            "status.typeChecking.expressionWarnings[0].warning: Required value\nstatus.typeChecking.expressionWarnings[0].fieldRef: Required value"
        );
    }

    #[test]
    fn expressions_of_validating_policies() {
        let policy = object(
            "ValidatingAdmissionPolicy",
            json!({"failurePolicy": "Fail", "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "true"}]}),
        );
        let check = |path: &str, to: Value, expect: &str| check(&policy, path, to, expect);
        for good in [
            "object.spec.replicas <= params.max",
            "request.userInfo.username == 'a'",
            "authorizer.requestResource.check('get').allowed()",
            "namespaceObject.metadata.name.startsWith('kube-')",
        ] {
            check("validations/0/expression", json!(good), "");
        }
        check(
            "validations/0/expression",
            json!("object.x <"),
            "validations[0].expression: Invalid value: \"object.x <\": compilation failed: ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | object.x <\n | ..........^",
        );
        check(
            "validations/0/expression",
            json!("'a'"),
            "validations[0].expression: Invalid value: \"'a'\": must evaluate to bool but got string",
        );
        check(
            "validations/0/expression",
            json!("object.x"),
            "validations[0].expression: Invalid value: \"object.x\": must evaluate to bool but got dyn",
        );
        check(
            "validations/0/messageExpression",
            json!("1"),
            "validations[0].messageExpression: Invalid value: \"1\": must evaluate to string but got int",
        );
        check(
            "validations/0/messageExpression",
            json!("authorizer.path('/')"),
            "validations[0].messageExpression: Invalid value: \"authorizer.path('/')\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')\n | authorizer.path('/')\n | ^",
        );
        check("paramKind", Value::Null, "");
        let without = changed(&policy, "spec/paramKind", Value::Null);
        assert_eq!(
            create_errors(&changed(&without, "spec/validations/0/expression", json!("params.a"))),
            "spec.validations[0].expression: Invalid value: \"params.a\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.a\n | ^"
        );
        check(
            "auditAnnotations",
            json!([{"key": "a", "valueExpression": "true ? 'a' : null"}]),
            "auditAnnotations[0].valueExpression: Invalid value: \"true ? 'a' : null\": compilation failed: ERROR: <input>:1:6: found no matching overload for '_?_:_' applied to '(bool, string, null)'\n | true ? 'a' : null\n | .....^",
        );
        check("auditAnnotations", json!([{"key": "a", "valueExpression": "null"}]), "");
        check(
            "auditAnnotations",
            json!([{"key": "a", "valueExpression": "1"}]),
            "auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
        );
        check(
            "matchConditions",
            json!([{"name": "a", "expression": " object.a == 1 "}, {"name": "b", "expression": " 1 "}]),
            "matchConditions[1].expression: Invalid value: \"1\": must evaluate to bool but got int",
        );
        let variables = json!([{"name": "a", "expression": "[1]"}, {"name": "b", "expression": "variables.a[0]"}]);
        let with = changed(&policy, "spec/variables", variables);
        let found =
            |expression: &str| create_errors(&changed(&with, "spec/validations/0/expression", json!(expression)));
        assert_eq!(found("variables.b == 1"), "");
        assert_eq!(
            found("variables.c == 1"),
            "spec.validations[0].expression: Invalid value: \"variables.c == 1\": compilation failed: ERROR: <input>:1:10: undefined field 'c'\n | variables.c == 1\n | .........^"
        );
        assert_eq!(
            found("variables.b == 'a'"),
            "spec.validations[0].expression: Invalid value: \"variables.b == 'a'\": compilation failed: ERROR: <input>:1:13: found no matching overload for '_==_' applied to '(int, string)'\n | variables.b == 'a'\n | ............^"
        );
    }

    #[test]
    fn expressions_of_mutating_policies() {
        let policy = object(
            "MutatingAdmissionPolicy",
            json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/' + jsonpatch.escapeKey('a'), value: object}]"}}]}),
        );
        let check = |path: &str, to: Value, expect: &str| check(&policy, path, to, expect);
        check("reinvocationPolicy", json!("Never"), "");
        check(
            "mutations/0/jsonPatch/expression",
            json!("Object{}"),
            "mutations[0].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch) but got Object",
        );
        let apply = |expression: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
        check("mutations/0", apply("Object{spec: Object.spec{replicas: object.spec.replicas + 1}}"), "");
        check(
            "mutations/0",
            apply("[]"),
            "mutations[0].applyConfiguration.expression: Invalid value: \"[]\": must evaluate to Object but got list(dyn)",
        );
    }

    #[test]
    fn mutating_policies() {
        let policy = object(
            "MutatingAdmissionPolicy",
            json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{}]"}}]}),
        );
        let check = |path: &str, to: Value, expect: &str| check(&policy, path, to, expect);
        check("reinvocationPolicy", json!("IfNeeded"), "");
        check("reinvocationPolicy", json!(""), "reinvocationPolicy: Required value");
        check("mutations", json!([]), "mutations: Required value: mutations must contain at least one item");
        check("mutations/0", json!({}), "mutations[0].patchType: Required value");
        check(
            "mutations/0",
            json!({"patchType": "Odd"}),
            "mutations[0].patchType: Unsupported value: \"Odd\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
        );
        check("mutations/0/jsonPatch", json!({}), "mutations[0].jsonPatch.expression: Required value");
        check(
            "mutations/0/patchType",
            json!("ApplyConfiguration"),
            "mutations[0].applyConfiguration: Required value: must be specified when patchType is ApplyConfiguration\nmutations[0].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
        );
        check(
            "matchConstraints/resourceRules/0/operations",
            json!(["DELETE"]),
            "matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
        );
    }

    #[test]
    fn bindings() {
        let binding =
            object("ValidatingAdmissionPolicyBinding", json!({"policyName": "p", "validationActions": ["Deny"]}));
        let check = |path: &str, to: Value, expect: &str| check(&binding, path, to, expect);
        check("matchResources", Value::Null, "");
        check("policyName", json!(""), "policyName: Required value");
        check(
            "validationActions",
            json!([]),
            "validationActions: Required value: at least one validation action is required",
        );
        check(
            "validationActions",
            json!(["Deny", "Warn"]),
            "validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        );
        check(
            "validationActions",
            json!(["Odd", "Odd"]),
            "validationActions[0]: Unsupported value: \"Odd\": supported values: \"Audit\", \"Deny\", \"Warn\"\nvalidationActions[1]: Unsupported value: \"Odd\": supported values: \"Audit\", \"Deny\", \"Warn\"\nvalidationActions[1]: Duplicate value: \"Odd\"",
        );
        check(
            "paramRef",
            json!({"parameterNotFoundAction": "Deny"}),
            "paramRef: Required value: one of name or selector must be specified",
        );
        check(
            "paramRef",
            json!({"name": "a", "selector": {}, "parameterNotFoundAction": "Odd"}),
            "paramRef.name: Forbidden: name and selector are mutually exclusive\nparamRef.selector: Forbidden: name and selector are mutually exclusive\nparamRef.parameterNotFoundAction: Unsupported value: \"Odd\": supported values: \"Deny\", \"Allow\"",
        );
        check(
            "paramRef",
            json!({"name": "a/b"}),
            "paramRef.name: Invalid value: \"a/b\": may not contain '/'\nparamRef.parameterNotFoundAction: Required value",
        );
        let binding = object("MutatingAdmissionPolicyBinding", json!({"policyName": "p"}));
        assert_eq!(create_errors(&binding), "");
        assert_eq!(
            create_errors(&changed(&binding, "spec/matchResources/resourceRules/0/operations", json!(["DELETE"]))),
            "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\""
        );
    }
}

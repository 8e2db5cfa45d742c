//! What upstream warns of in a policy's expressions, for each kind that the policy matches.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, ValidatingAdmissionPolicy, Variable};
use pintle_api::resources;
use pintle_schema::cel::{self, Admission, Type};

/// The most kinds of one rule that are looked at.
const MOST_KINDS: usize = 10;

/// A kind: its group, version and name, by which they are ordered.
type Kind = (&'static str, &'static str, &'static str);

/// The warnings of a policy.
pub(super) fn warnings(policy: &ValidatingAdmissionPolicy) -> Option<Vec<ExpressionWarning>> {
    let spec = policy.spec.as_ref()?;
    let params = spec.param_kind.as_ref().map(|kind| {
        let (version, kind) = (kind.api_version.as_deref(), kind.kind.as_deref());
        cel::of_kind(version.unwrap_or_default(), kind.unwrap_or_default()).unwrap_or(Type::Dyn)
    });
    let variables = spec.variables.as_deref().unwrap_or_default();
    let environments: Vec<(Kind, cel::Env)> = kinds(policy)
        .into_iter()
        .filter_map(|kind| {
            let (group, version, name) = kind;
            let api_version = resources::GroupVersion { group, version }.to_string();
            let object = Some(cel::of_kind(&api_version, name)?);
            let admission = Admission { object, params: params.clone(), authorizer: true, ..Admission::default() };
            Some((kind, with_variables(admission.env(), variables)))
        })
        .collect();
    let warning = |expression: &str, place: String| {
        let found: Vec<String> = environments
            .iter()
            .filter_map(|((group, version, kind), env)| {
                let issues = cel::compile(expression, env).err()?;
                Some(format!("{group}/{version}, Kind={kind}: {issues}\n"))
            })
            .collect();
        (!found.is_empty()).then(|| ExpressionWarning { field_ref: place, warning: found.join("\n") })
    };
    let mut all = Vec::new();
    for (i, validation) in spec.validations.iter().flatten().enumerate() {
        let at = format!("spec.validations[{i}]");
        all.extend(warning(&validation.expression, format!("{at}.expression")));
        if let Some(message) = validation.message_expression.as_deref().filter(|m| !m.is_empty()) {
            all.extend(warning(message, format!("{at}.messageExpression")));
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Each variable may speak of those before it.
fn with_variables(mut env: cel::Env, variables: &[Variable]) -> cel::Env {
    let mut known = cel::Variables::default();
    env.declare("variables", known.as_type());
    for variable in variables {
        let compiled = cel::compile(&variable.expression, &env).ok();
        env.forget("variables");
        known.add(&variable.name, compiled.as_ref().map(|c| &c.result));
        env.declare("variables", known.as_type());
    }
    env
}

/// The kinds that a policy's rules name, without those that only wildcards do.
fn kinds(policy: &ValidatingAdmissionPolicy) -> BTreeSet<Kind> {
    let mut all = BTreeSet::new();
    let rules = policy.spec.as_ref().and_then(|s| s.match_constraints.as_ref()).and_then(|m| m.resource_rules.as_ref());
    for rule in rules.into_iter().flatten() {
        let (Some(groups), Some(versions)) = (exact(&rule.api_groups), exact(&rule.api_versions)) else { continue };
        let mut names: Vec<&String> = rule.resources.iter().flatten().filter(|r| !r.contains(['*', '/'])).collect();
        names.sort();
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for kind in names.iter().flat_map(|name| of_resource(group, version, name)) {
                    all.insert(kind);
                    count += 1;
                    if count == MOST_KINDS {
                        return all;
                    }
                }
            }
        }
    }
    all
}

/// The names in order; `None` when one of them is a wildcard.
fn exact(names: &Option<Vec<String>>) -> Option<Vec<&String>> {
    let mut names: Vec<&String> = names.iter().flatten().collect();
    names.sort();
    (!names.iter().any(|n| n.contains('*'))).then_some(names)
}

/// The kinds of a resource. To upstream no group is any group: `events` of `v1` are of two.
fn of_resource(group: &str, version: &str, name: &str) -> Vec<Kind> {
    let name = name.to_lowercase();
    let fits = |r: &&resources::Resource| {
        (group.is_empty() || r.group == group) && r.version == version && (r.resource == name || r.singular == name)
    };
    resources::all().iter().filter(|r| r.on).filter(fits).map(|r| (r.group, r.version, r.kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(rules: Value, spec: Value) -> ValidatingAdmissionPolicy {
        let mut policy = json!({"metadata": {"name": "p"}, "spec": spec});
        policy["spec"]["matchConstraints"] = json!({"resourceRules": rules});
        serde_json::from_value(policy).unwrap()
    }

    fn rule(group: &str, version: &str, resource: &str) -> Value {
        json!({"apiGroups": [group], "apiVersions": [version], "operations": ["*"], "resources": [resource]})
    }

    #[test]
    fn kinds_of_rules() {
        let check = |rules: Value, expect: &[Kind]| {
            let found: Vec<Kind> = kinds(&policy(rules.clone(), json!({}))).into_iter().collect();
            assert_eq!(found, expect, "{rules}");
        };
        let deployment = ("apps", "v1", "Deployment");
        check(json!([]), &[]);
        check(json!([rule("apps", "v1", "deployments")]), &[deployment]);
        check(json!([rule("apps", "v1", "deployments"), rule("", "v1", "pods")]), &[("", "v1", "Pod"), deployment]);
        check(json!([rule("apps", "v1", "*")]), &[]);
        check(json!([rule("apps", "v1", "pods/*")]), &[]);
        check(json!([rule("apps", "*", "deployments")]), &[]);
        check(json!([rule("*", "v1", "deployments"), rule("apps", "v1", "deployments")]), &[deployment]);
        check(json!([rule("example.com", "v1", "things")]), &[]);
        check(json!([rule("", "v1", "events")]), &[("", "v1", "Event"), ("events.k8s.io", "v1", "Event")]);
        let many = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": [
            "bindings", "configmaps", "endpoints", "limitranges", "namespaces", "nodes", "persistentvolumeclaims",
            "persistentvolumes", "pods", "podtemplates", "secrets", "services"]});
        assert_eq!(kinds(&policy(json!([many]), json!({}))).len(), MOST_KINDS);
    }

    fn check(spec: Value, expect: &[(&str, &str)]) {
        let found = warnings(&policy(json!([rule("apps", "v1", "deployments")]), spec.clone())).unwrap_or_default();
        let found: Vec<(&str, &str)> = found.iter().map(|w| (w.field_ref.as_str(), w.warning.as_str())).collect();
        assert_eq!(found, expect, "{spec}");
    }

    #[test]
    fn warnings_of_expressions() {
        check(json!({"validations": [{"expression": "object.spec.replicas > 1"}]}), &[]);
        check(
            json!({"validations": [{"expression": "object.replicas > 1"}]}),
            &[(
                "spec.validations[0].expression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n",
            )],
        );
        check(
            json!({"validations": [{"expression": "true", "messageExpression": "'a' + object.spec.replicas"}]}),
            &[(
                "spec.validations[0].messageExpression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'\n | 'a' + object.spec.replicas\n | ....^\n",
            )],
        );
        check(
            json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [
                {"expression": "params.data.max == '1'"}, {"expression": "params.date == '1'"}]}),
            &[(
                "spec.validations[1].expression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'date'\n | params.date == '1'\n | ......^\n",
            )],
        );
        let unknown = json!({"apiVersion": "example.com/v1", "kind": "Thing"});
        check(json!({"paramKind": unknown, "validations": [{"expression": "params.anything"}]}), &[]);
        check(
            json!({"variables": [{"name": "n", "expression": "object.spec.replicas"}], "validations": [
                {"expression": "variables.n > 1"}, {"expression": "variables.n == 'a'"}, {"expression": "variables.m"}]}),
            &[
                (
                    "spec.validations[1].expression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:13: found no matching overload for '_==_' applied to '(int, string)'\n | variables.n == 'a'\n | ............^\n",
                ),
                (
                    "spec.validations[2].expression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:10: undefined field 'm'\n | variables.m\n | .........^\n",
                ),
            ],
        );
        check(
            json!({"validations": [{"expression": "authorizer.group('').resource('pods').check('get').allowed()"}]}),
            &[],
        );
    }

    #[test]
    fn each_kind_is_told_of() {
        let rules = json!([rule("apps", "v1", "deployments"), rule("", "v1", "pods")]);
        let policy =
            policy(rules, json!({"validations": [{"expression": "object.spec.replicas > 1 && object.spec.x"}]}));
        let found = warnings(&policy).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].warning,
            "/v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1 && object.spec.x\n | ...........^\n\
             ERROR: <input>:1:40: undefined field 'x'\n | object.spec.replicas > 1 && object.spec.x\n | .......................................^\n\n\
             apps/v1, Kind=Deployment: ERROR: <input>:1:40: undefined field 'x'\n | object.spec.replicas > 1 && object.spec.x\n | .......................................^\n"
        );
    }
}

//! The RBAC group.

use jiff::Timestamp;
use pintle_api::names::{dns1123_subdomain, path_segment};
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::{Value, json};

use super::apps::odd_values;
use super::table::{self, Column, text};
use super::value::same;
use super::{Ctx, Strategy, meta, names};

const ROLES: Strategy =
    Strategy { name: names::path_segment, create_on_update: true, full_meta_on_update: true, ..Strategy::DEFAULT };

const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of roles.
pub static ROLE: Strategy = Strategy {
    validate: |_, role, _, errors| {
        for rule in role.get("rules").items() {
            policy_rule(&rule, true, errors);
        }
    },
    ..ROLES
};

/// The strategy of cluster roles.
pub static CLUSTER_ROLE: Strategy = Strategy { validate: cluster_role, ..ROLES };

/// The strategy of role bindings.
pub static ROLE_BINDING: Strategy = Strategy {
    columns: &[
        Column::NAME,
        text("Role", "@RoleBinding.roleRef"),
        Column::AGE,
        text("Users", "Users in the roleBinding").wide(),
        text("Groups", "Groups in the roleBinding").wide(),
        text("ServiceAccounts", "ServiceAccounts in the roleBinding").wide(),
    ],
    row: binding_row,
    validate: |_, binding, _, errors| binding_parts(binding, true, errors),
    validate_change: role_ref_stays,
    ..ROLES
};

/// The strategy of cluster role bindings.
pub static CLUSTER_ROLE_BINDING: Strategy = Strategy {
    columns: &[
        Column::NAME,
        text("Role", "@ClusterRoleBinding.roleRef"),
        Column::AGE,
        text("Users", "Users in the clusterRoleBinding").wide(),
        text("Groups", "Groups in the clusterRoleBinding").wide(),
        text("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding").wide(),
    ],
    row: binding_row,
    validate: |_, binding, _, errors| binding_parts(binding, false, errors),
    validate_change: role_ref_stays,
    ..ROLES
};

fn cluster_role<'a>(_: &Ctx<'_>, role: &Cursor<'a>, old: Option<&Cursor<'a>>, errors: &mut Errors) {
    for rule in role.get("rules").items() {
        policy_rule(&rule, false, errors);
    }
    let aggregation = role.get("aggregationRule");
    let selectors = aggregation.get("clusterRoleSelectors");
    if aggregation.is_present() && selectors.is_empty() {
        errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    let lenient = old.is_some_and(|o| {
        let stored = o.get("aggregationRule").get("clusterRoleSelectors");
        stored.items().any(|s| odd_values(&s))
    });
    for selector in selectors.items() {
        meta::label_selector(&selector, lenient, errors);
        let mut unreadable = Errors::new();
        meta::label_selector(&selector, false, &mut unreadable);
        if !unreadable.is_empty() {
            errors.invalid_value(&selector, Value::Null, "invalid label selector.");
        }
    }
}

fn policy_rule(rule: &Cursor<'_>, namespaced: bool, errors: &mut Errors) {
    let at = |field: &'static str| rule.get(field);
    if at("verbs").is_empty() {
        errors.required(at("verbs"), "verbs must contain at least one value");
    }
    let urls = at("nonResourceURLs");
    if !urls.is_empty() {
        if namespaced {
            errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !at("apiGroups").is_empty() || !at("resources").is_empty() || !at("resourceNames").is_empty() {
            errors.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if at("apiGroups").is_empty() {
        errors.required(at("apiGroups"), "resource rules must supply at least one api group");
    }
    if at("resources").is_empty() {
        errors.required(at("resources"), "resource rules must supply at least one resource");
    }
}

fn binding_parts(binding: &Cursor<'_>, namespaced: bool, errors: &mut Errors) {
    let role = binding.get("roleRef");
    let (group, kind, name) = (role.get("apiGroup"), role.get("kind"), role.get("name"));
    if group.str() != GROUP {
        errors.not_supported(&group, group.str(), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&kind.str()) {
        errors.not_supported(&kind, kind.str(), kinds);
    }
    if name.is_empty() {
        errors.required(&name, "");
    } else {
        meta::invalid_each(&name, path_segment(name.str()), errors);
    }
    for subject in binding.get("subjects").items() {
        let (kind, name, group) = (subject.get("kind"), subject.get("name"), subject.get("apiGroup"));
        if name.is_empty() {
            errors.required(&name, "");
        }
        match kind.str() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    meta::invalid_each(&name, dns1123_subdomain(name.str()), errors);
                }
                if !group.is_empty() {
                    errors.not_supported(&group, group.str(), &[""]);
                }
                if !namespaced && subject.get("namespace").is_empty() {
                    errors.required(subject.get("namespace"), "");
                }
            }
            "User" | "Group" => {
                if group.str() != GROUP {
                    errors.not_supported(&group, group.str(), &[GROUP]);
                }
            }
            other => errors.not_supported(&kind, other, &["ServiceAccount", "User", "Group"]),
        }
    }
}

fn role_ref_stays(_: &Ctx<'_>, new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Errors) {
    let role = new.get("roleRef");
    if !same(role.value(), old.get("roleRef").value()) {
        // Upstream prints its own value, whose fields have the names of its code.
        let field = |name| role.get(name).str();
        let shown = json!({"APIGroup": field("apiGroup"), "Kind": field("kind"), "Name": field("name")});
        errors.invalid_value(&role, shown, "cannot change roleRef");
    }
}

fn binding_row(binding: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let role = binding.get("roleRef");
    let subjects = |kind: &str| {
        let all = binding.get("subjects");
        let named = all.items().filter(|s| s.get("kind").str() == kind).map(|s| {
            let name = s.get("name").str();
            match s.get("namespace").str() {
                ns if kind == "ServiceAccount" && !ns.is_empty() => format!("{ns}/{name}"),
                _ => name.to_owned(),
            }
        });
        Value::from(named.collect::<Vec<_>>().join(", "))
    };
    vec![
        table::name(binding),
        format!("{}/{}", role.get("kind").str(), role.get("name").str()).into(),
        table::age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "b", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "roleRef": {"kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}],
        });
        assert_eq!(testing::row(&binding, 5), ["b", "ClusterRole/edit", "5s", "u, v", "", "n/s"]);
    }

    #[test]
    fn checks() {
        use crate::kinds::testing::{changed, create_errors, update_errors};
        let gv = "rbac.authorization.k8s.io/v1";
        let role = json!({"apiVersion": gv, "kind": "Role", "metadata": {"name": "system:r", "namespace": "ns"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        assert_eq!(create_errors(&role), "");
        assert_eq!(
            create_errors(&changed(&role, "rules/0/verbs", json!([]))),
            "rules[0].verbs: Required value: verbs must contain at least one value"
        );
        assert_eq!(
            create_errors(&changed(&role, "rules/0", json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}))),
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"
        );
        let binding = json!({"apiVersion": gv, "kind": "ClusterRoleBinding", "metadata": {"name": "b", "resourceVersion": "1"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
        assert_eq!(create_errors(&binding), "");
        assert_eq!(
            create_errors(&changed(&binding, "subjects/0/namespace", json!(""))),
            "subjects[0].namespace: Required value"
        );
        let group = "rbac.authorization.k8s.io";
        assert_eq!(
            update_errors(&changed(&binding, "roleRef/name", json!("q")), &binding),
            format!(
                "roleRef: Invalid value: {{\"APIGroup\":\"{group}\",\"Kind\":\"ClusterRole\",\"Name\":\"q\"}}: cannot change roleRef"
            )
        );
        for (path, to, expect) in [
            ("subjects/0/kind", json!("Odd"), "subjects[0].kind: Unsupported value: \"Odd\": supported values: \"ServiceAccount\", \"User\", \"Group\"".to_owned()),
            ("subjects/0/kind", json!("User"), format!("subjects[0].apiGroup: Unsupported value: \"\": supported values: \"{group}\"")),
            ("subjects/0/apiGroup", json!("x"), "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"\"".to_owned()),
            ("roleRef/kind", json!("Role"), "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"".to_owned()),
            ("roleRef/apiGroup", json!(""), format!("roleRef.apiGroup: Unsupported value: \"\": supported values: \"{group}\"")),
            ("roleRef/name", json!("a/b"), "roleRef.name: Invalid value: \"a/b\": may not contain '/'".to_owned()),
        ] {
            assert_eq!(create_errors(&changed(&binding, path, to)), expect, "{path}");
        }
        let aggregated = |selectors: serde_json::Value| json!({"apiVersion": gv, "kind": "ClusterRole", "metadata": {"name": "r", "resourceVersion": "1"}, "aggregationRule": {"clusterRoleSelectors": selectors}});
        assert_eq!(create_errors(&aggregated(json!([{"matchLabels": {"a": "b"}}]))), "");
        assert_eq!(
            create_errors(&aggregated(json!([]))),
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
        );
        let unreadable = "aggregationRule.clusterRoleSelectors[0]: Invalid value: null: invalid label selector.";
        let odd = aggregated(json!([{"matchExpressions": [{"key": "a", "operator": "Odd"}]}]));
        assert_eq!(
            create_errors(&odd),
            format!(
                "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator: Invalid value: \"Odd\": not a valid selector operator\n{unreadable}"
            )
        );
    }
}

//! The RBAC group.

use jiff::Timestamp;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

use super::table::{self, Column, text};
use super::{Strategy, names};

const ROLES: Strategy = Strategy { name: names::path_segment, create_on_update: true, ..Strategy::DEFAULT };

/// The strategy of roles.
pub static ROLE: Strategy = ROLES;

/// The strategy of cluster roles.
pub static CLUSTER_ROLE: Strategy = ROLES;

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
    ..ROLES
};

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
}

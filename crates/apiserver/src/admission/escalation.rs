//! Nobody gives away more than they have: the check of roles and bindings.

use async_trait::async_trait;
use pintle_api::Status;
use pintle_schema::quote::quoted;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::authz::rbac::{Rule, uncovered};
use crate::registry::meta;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) struct Escalation;

fn rules(role: &Value) -> Vec<Rule> {
    role.get("rules").and_then(|r| serde_json::from_value(r.clone()).ok()).unwrap_or_default()
}

/// A rule as upstream prints it.
fn shown(r: &Rule) -> String {
    let list = |l: &[String]| format!("[{}]", l.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(" "));
    let mut parts = Vec::new();
    for (name, l) in [
        ("NonResourceURLs", &r.non_resource_urls),
        ("APIGroups", &r.api_groups),
        ("Resources", &r.resources),
        ("ResourceNames", &r.resource_names),
        ("Verbs", &r.verbs),
    ] {
        if !l.is_empty() {
            parts.push(format!("{name}:{}", list(l)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

#[async_trait]
impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalationCheck"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.res.def.group == GROUP && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let user = &a.ctx.user;
        if user.groups.iter().any(|g| g == "system:masters") {
            return Ok(());
        }
        let binding = matches!(a.res.def.resource, "rolebindings" | "clusterrolebindings");
        let name = meta::name(object);
        let (verb, role) = if binding {
            ("bind", object.pointer("/roleRef/name").and_then(Value::as_str).unwrap_or_default())
        } else {
            ("escalate", name)
        };
        // What stays as it was gives nothing away.
        if let Some(old) = a.old {
            let part = |v: &Value| {
                if binding {
                    (v["roleRef"].clone(), v["subjects"].clone())
                } else {
                    (v["rules"].clone(), v["aggregationRule"].clone())
                }
            };
            if part(old) == part(object) {
                return Ok(());
            }
        }
        let kind = object.pointer("/roleRef/kind").and_then(Value::as_str).unwrap_or_default();
        let wide = if binding { kind == "ClusterRole" } else { a.res.def.resource == "clusterroles" };
        let resource = if wide { "clusterroles" } else { "roles" };
        let access = crate::authz::Attributes {
            user,
            verb,
            is_resource: true,
            group: GROUP,
            resource,
            subresource: "",
            namespace: a.namespace,
            name: role,
            path: "",
            fields: "",
        };
        if let crate::authz::Decision::Allow(_) = server.decide(&access).await {
            return Ok(());
        }
        let wanted = if binding {
            let ns = if kind == "Role" { a.namespace } else { "" };
            let found = server.rbac.role(ns, role);
            found.map(|r| (*r).clone()).ok_or_else(|| Status::not_found(GROUP, resource, role))?
        } else {
            rules(object)
        };
        let (own, missing) = server.rbac.rules_for(user, a.namespace);
        let more = uncovered(&own, &wanted);
        if more.is_empty() {
            return Ok(());
        }
        let groups: Vec<String> = user.groups.iter().map(|g| quoted(g)).collect();
        let mut text = format!(
            "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            quoted(&user.name),
            groups.join(" "),
            more.iter().map(shown).collect::<Vec<_>>().join("\n")
        );
        if !missing.is_empty() {
            text = format!("{text}; resolution errors: [{}]", missing.join(", "));
        }
        Err(Status::forbidden(GROUP, a.res.def.resource, name, &text))
    }
}

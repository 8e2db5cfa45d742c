//! Authorization: may this user do that?

pub(crate) mod node;
pub(crate) mod rbac;

use pintle_api::Status;
use pintle_api::resources::Resource;
use pintle_api::service::UserInfo;
use pintle_schema::quote::quoted;

use crate::Server;
use crate::http::context::Ctx;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) user: &'a UserInfo,
    pub(crate) verb: &'a str,
    /// Whether a resource is asked about; else `path`.
    pub(crate) is_resource: bool,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    /// The field selector of a list or watch, as text.
    pub(crate) fields: &'a str,
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Yes, because.
    Allow(String),
    /// Nothing speaks for it.
    NoOpinion(String),
}

/// The authorizers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is allowed.
    AlwaysDeny,
    /// Kubelets get what the pods of their node need.
    Node,
    /// Roles and bindings.
    Rbac,
}

impl<'a> Attributes<'a> {
    /// Of a request.
    pub(crate) fn of(ctx: &'a Ctx) -> Self {
        let i = &ctx.info;
        Self {
            user: &ctx.user,
            verb: &i.verb,
            is_resource: i.is_resource,
            group: &i.group,
            resource: &i.resource,
            subresource: &i.subresource,
            namespace: &i.namespace,
            name: &i.name,
            path: &i.path,
            fields: ctx.query.get("fieldSelector").unwrap_or_default(),
        }
    }

    /// `resource/subresource`.
    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// 403 as upstream words it.
    pub(crate) fn forbidden(&self, reason: &str) -> Status {
        let user = quoted(&self.user.name);
        let mut why = if !self.is_resource {
            format!("User {user} cannot {} path {}", self.verb, quoted(self.path))
        } else if self.namespace.is_empty() {
            format!(
                "User {user} cannot {} resource {} in API group {} at the cluster scope",
                self.verb,
                quoted(&self.full_resource()),
                quoted(self.group)
            )
        } else {
            format!(
                "User {user} cannot {} resource {} in API group {} in the namespace {}",
                self.verb,
                quoted(&self.full_resource()),
                quoted(self.group),
                quoted(self.namespace)
            )
        };
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        Status::forbidden(self.group, self.resource, self.name, &why)
    }
}

impl Server {
    /// Asks the authorizers in turn.
    pub(crate) async fn decide(&self, a: &Attributes<'_>) -> Decision {
        if a.user.groups.iter().any(|g| g == "system:masters") {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for mode in &self.config.authorization_modes {
            let said = match mode {
                AuthorizationMode::AlwaysAllow => Decision::Allow(String::new()),
                AuthorizationMode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".into()),
                AuthorizationMode::Rbac => self.rbac.decide(a),
                AuthorizationMode::Node => match self.decide_node(a).await {
                    Ok(said) => said,
                    Err(e) => Decision::NoOpinion(e.message),
                },
            };
            match said {
                Decision::NoOpinion(reason) => {
                    if !reason.is_empty() {
                        reasons.push(reason);
                    }
                }
                other => return other,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// Refuses a request its user may not make.
    ///
    /// # Errors
    /// 403.
    pub(crate) async fn authorize(&self, ctx: &Ctx) -> Result<(), Status> {
        let a = Attributes::of(ctx);
        let (allowed, reason) = match self.decide(&a).await {
            Decision::Allow(reason) => (true, reason),
            Decision::NoOpinion(reason) => (false, reason),
        };
        if ctx.audit.is_some() {
            ctx.annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
            ctx.annotate("authorization.k8s.io/reason", reason.as_str());
        }
        if allowed { Ok(()) } else { Err(a.forbidden(&reason)) }
    }

    /// Refuses a user of this request another verb on a resource.
    ///
    /// # Errors
    /// 403.
    pub(crate) async fn authorize_verb(
        &self,
        ctx: &Ctx,
        verb: &str,
        def: &Resource,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let a = Attributes {
            user: &ctx.user,
            verb,
            is_resource: true,
            group: def.group,
            resource: def.resource,
            subresource,
            namespace,
            name,
            path: &ctx.info.path,
            fields: "",
        };
        match self.decide(&a).await {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(a.forbidden(&reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let mut a = Attributes {
            user: &user,
            verb: "list",
            is_resource: true,
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "y",
            name: "",
            path: "/p",
            fields: "",
        };
        assert_eq!(
            a.forbidden("").message,
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        a.namespace = "";
        a.group = "apps";
        a.subresource = "scale";
        a.name = "n";
        assert_eq!(
            a.forbidden("why").message,
            r#"pods.apps "n" is forbidden: User "x" cannot list resource "pods/scale" in API group "apps" at the cluster scope: why"#
        );
        let b = Attributes { is_resource: false, resource: "", verb: "get", ..a };
        assert_eq!(b.forbidden("").message, r#"forbidden: User "x" cannot get path "/p""#);
    }
}

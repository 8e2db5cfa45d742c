//! Admission: compiled-in plugins that change or refuse writes, in upstream's order.

mod certificates;
mod classes;
mod escalation;
mod lifecycle;
mod limit_ranger;
mod node_restriction;
mod pod_security;
mod priority;
mod quota;
mod service_account;
mod storage;
mod tolerations;

use std::time::Instant;

use async_trait::async_trait;
use pintle_api::Status;
use serde_json::Value;

use crate::Server;
use crate::http::context::Ctx;
use crate::registry::Res;

impl Operation {
    /// Upstream's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write on its way through admission.
pub(crate) struct Attributes<'a> {
    pub(crate) ctx: &'a Ctx,
    pub(crate) res: &'a Res,
    pub(crate) subresource: &'a str,
    pub(crate) operation: Operation,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The stored object, for updates and deletes.
    pub(crate) old: Option<&'a Value>,
    pub(crate) dry_run: bool,
}

impl Attributes<'_> {
    /// Whether it is about this resource itself (no sub-resource).
    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.res.def.group == group && self.res.def.resource == resource
    }

    /// Whether it is about this resource or any of its sub-resources.
    pub(crate) fn about(&self, group: &str, resource: &str) -> bool {
        self.res.def.group == group && self.res.def.resource == resource
    }

    /// A refusal as upstream words it.
    pub(crate) fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.res.def.group, self.res.def.resource, self.name, why)
    }
}

/// An admission plugin.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Whether it has anything to do with this write.
    fn handles(&self, a: &Attributes<'_>) -> bool;

    /// May change the object.
    async fn admit(&self, _server: &Server, _a: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the write. The object is null for deletes.
    async fn validate(&self, _server: &Server, _a: &Attributes<'_>, _object: &Value) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins that are on.
pub(crate) struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

/// Every plugin, in order, and whether it is on by default.
fn all() -> Vec<(Box<dyn Plugin>, bool)> {
    vec![
        (Box::new(lifecycle::NamespaceLifecycle), true),
        (Box::new(limit_ranger::LimitRanger), true),
        (Box::new(service_account::ServiceAccount), true),
        (Box::new(node_restriction::NodeRestriction), false),
        (Box::new(tolerations::TaintNodesByCondition), true),
        (Box::new(pod_security::PodSecurity), true),
        (Box::new(priority::Priority), true),
        (Box::new(tolerations::DefaultTolerationSeconds), true),
        (Box::new(storage::DefaultStorageClass), true),
        (Box::new(storage::StorageObjectInUseProtection), true),
        (Box::new(storage::PersistentVolumeClaimResize), true),
        (Box::new(classes::RuntimeClass), true),
        (Box::new(certificates::CertificateApproval), true),
        (Box::new(certificates::CertificateSigning), true),
        (Box::new(certificates::CertificateSubjectRestriction), true),
        (Box::new(classes::DefaultIngressClass), true),
        (Box::new(classes::PodTopologyLabels), true),
        (Box::new(quota::ResourceQuota), true),
    ]
}

impl Chain {
    /// The default plugins, with some more and without some.
    ///
    /// # Errors
    /// The name of a plugin that does not exist.
    pub(crate) fn new(enable: &[String], disable: &[String]) -> Result<Self, String> {
        let known = all();
        if let Some(name) = enable.iter().chain(disable).find(|n| !known.iter().any(|(p, _)| p.name() == n.as_str())) {
            return Err(format!("unknown admission plugin {name:?}"));
        }
        let mut plugins: Vec<Box<dyn Plugin>> = known
            .into_iter()
            .filter(|(p, on)| {
                let named = |list: &[String]| list.iter().any(|n| n == p.name());
                (*on || named(enable)) && !named(disable)
            })
            .map(|(p, _)| p)
            .collect();
        // No plugin that could be switched off: part of the API of roles itself.
        plugins.insert(0, Box::new(escalation::Escalation));
        Ok(Self { plugins })
    }

    /// The mutating pass.
    pub(crate) async fn admit(&self, server: &Server, a: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let pass = Instant::now();
        let mut done = Ok(());
        for p in self.plugins.iter().filter(|p| p.handles(a)) {
            let started = Instant::now();
            done = p.admit(server, a, object).await;
            server.metrics.admission(Some(p.name()), a.operation, "admit", done.is_err(), started.elapsed());
            if done.is_err() {
                break;
            }
        }
        server.metrics.admission(None, a.operation, "admit", done.is_err(), pass.elapsed());
        done
    }

    /// The validating pass.
    pub(crate) async fn validate(&self, server: &Server, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let pass = Instant::now();
        let mut done = Ok(());
        for p in self.plugins.iter().filter(|p| p.handles(a)) {
            let started = Instant::now();
            done = p.validate(server, a, object).await;
            server.metrics.admission(Some(p.name()), a.operation, "validate", done.is_err(), started.elapsed());
            if done.is_err() {
                break;
            }
        }
        server.metrics.admission(None, a.operation, "validate", done.is_err(), pass.elapsed());
        done
    }
}

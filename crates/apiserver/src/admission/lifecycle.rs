//! `NamespaceLifecycle`: nothing is made in a namespace that is not there or is going, and some namespaces stay.

use async_trait::async_trait;
use pintle_api::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::Server;

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        matches!(a.operation, Operation::Create | Operation::Update | Operation::Delete)
    }

    async fn admit(&self, server: &Server, a: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        let about_namespace = a.about("", "namespaces");
        if a.operation == Operation::Delete && about_namespace && IMMORTAL.contains(&a.name) {
            return Err(Status::forbidden("", "namespaces", a.name, "this namespace may not be deleted"));
        }
        // Only creation needs the namespace; what is there may still change and go.
        if about_namespace || !a.res.def.namespaced || a.operation != Operation::Create {
            return Ok(());
        }
        // A review says nothing about what is there.
        if a.res.def.resource == "localsubjectaccessreviews" {
            return Ok(());
        }
        let namespaces = server.registry.must("", "v1", "namespaces")?;
        let Some(namespace) = namespaces.objects()?.get("", a.namespace).await? else {
            return Err(Status::not_found("", "namespaces", a.namespace));
        };
        if namespace.is_deleting() {
            let text =
                format!("unable to create new content in namespace {} because it is being terminated", a.namespace);
            return Err(a.forbidden(&text).cause(
                "NamespaceTerminating",
                format!("namespace {} is being terminated", a.namespace),
                "metadata.namespace",
            ));
        }
        Ok(())
    }
}

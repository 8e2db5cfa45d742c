//! The namespaces every cluster has.

use pintle_api::Status;
use serde_json::json;

use crate::Server;
use crate::http::context::Ctx;
use crate::registry::create::Write;
use crate::registry::options::WriteOptions;

const SYSTEM: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "default"];

/// Creates those that are missing.
pub(super) async fn ensure(server: &Server) -> Result<(), Status> {
    for name in SYSTEM {
        let object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        server.ensure("", "v1", "namespaces", "", object).await?;
    }
    Ok(())
}

impl Server {
    /// Creates an object of the server's own unless one of its name is there.
    pub(crate) async fn ensure(
        &self,
        group: &str,
        version: &str,
        resource: &str,
        namespace: &str,
        mut object: serde_json::Value,
    ) -> Result<(), Status> {
        let res = self.registry.must(group, version, resource)?;
        let name = crate::registry::meta::name(&object).to_owned();
        if res.objects()?.get(namespace, &name).await?.is_some() {
            return Ok(());
        }
        let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
        res.default(&mut object);
        let w = Write { ctx: &ctx, res, namespace, subresource: "", options: &options };
        match self.create(&w, object).await {
            Ok(_) => Ok(()),
            Err(e) if e.is("AlreadyExists") => Ok(()),
            Err(e) => Err(e),
        }
    }
}

//! `DefaultStorageClass`, `StorageObjectInUseProtection` and `PersistentVolumeClaimResize`.

use async_trait::async_trait;
use pintle_api::Status;
use pintle_api::quantity::Quantity;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::registry::meta;

const GROUP: &str = "storage.k8s.io";
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// A claim that names no class gets the default one.
pub(super) struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Create && a.is("", "persistentvolumeclaims")
    }

    async fn admit(&self, server: &Server, _a: &Attributes<'_>, claim: &mut Value) -> Result<(), Status> {
        let named = claim.pointer("/spec/storageClassName").is_some_and(|c| !c.is_null())
            || meta::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
        if named {
            return Ok(());
        }
        let classes = server.registry.must(GROUP, "v1", "storageclasses")?.objects()?.fresh().await?;
        // Of several defaults the newest, then the first by name.
        let mut best: Option<(String, String)> = None;
        for class in classes.iter("") {
            let view: Value = class.view().map_err(Status::internal)?;
            let default = [DEFAULT, BETA_DEFAULT].iter().any(|k| meta::annotation(&view, k) == Some("true"));
            let made = meta::get(&view, "creationTimestamp").to_owned();
            if default
                && best.as_ref().is_none_or(|(at, name)| made > *at || (made == *at && class.name() < name.as_str()))
            {
                best = Some((made, class.name().to_owned()));
            }
        }
        if let Some((_, name)) = best {
            claim["spec"]["storageClassName"] = name.into();
        }
        Ok(())
    }
}

/// Claims and volumes in use do not go.
pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Create && (a.is("", "persistentvolumeclaims") || a.is("", "persistentvolumes"))
    }

    async fn admit(&self, _server: &Server, a: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let wanted = if a.res.def.namespaced { CLAIM_FINALIZER } else { VOLUME_FINALIZER };
        let mut all = meta::finalizers(object);
        if !all.iter().any(|f| f == wanted) {
            all.push(wanted.to_owned());
            meta::set_finalizers(object, all);
        }
        Ok(())
    }
}

/// A claim grows only when its class allows.
pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Update && a.is("", "persistentvolumeclaims")
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, claim: &Value) -> Result<(), Status> {
        let Some(old) = a.old else { return Ok(()) };
        let size = |c: &Value| {
            c.pointer("/spec/resources/requests/storage")
                .and_then(Value::as_str)
                .and_then(|s| s.parse::<Quantity>().ok())
        };
        let (Some(new_size), Some(old_size)) = (size(claim), size(old)) else { return Ok(()) };
        if new_size <= old_size {
            return Ok(());
        }
        if old.pointer("/status/phase").and_then(Value::as_str) != Some("Bound") {
            return Err(a.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = claim.pointer("/spec/storageClassName").and_then(Value::as_str).unwrap_or_default();
        let mut allowed = false;
        if !class.is_empty() {
            let res = server.registry.must(GROUP, "v1", "storageclasses")?;
            if let Some(class) = res.objects()?.get("", class).await? {
                let class: Value = class.view().map_err(Status::internal)?;
                allowed = class.get("allowVolumeExpansion").and_then(Value::as_bool) == Some(true);
            }
        }
        if allowed {
            return Ok(());
        }
        Err(a.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}

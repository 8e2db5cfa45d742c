//! `RuntimeClass`, `DefaultIngressClass` and `PodTopologyLabels`.

use async_trait::async_trait;
use pintle_api::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::registry::meta;

/// A pod takes over its runtime class's overhead and scheduling.
pub(super) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Create && a.is("", "pods")
    }

    async fn admit(&self, server: &Server, a: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let given = pod.pointer("/spec/overhead").and_then(Value::as_object).is_some_and(|o| !o.is_empty());
        let name = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() {
            if given {
                return Err(
                    a.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
                );
            }
            return Ok(());
        }
        let res = server.registry.must("node.k8s.io", "v1", "runtimeclasses")?;
        let Some(class) = res.objects()?.get("", &name).await? else {
            return Err(a.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")));
        };
        let class: Value = class.view().map_err(Status::internal)?;
        match class.pointer("/overhead/podFixed").filter(|o| o.as_object().is_some_and(|o| !o.is_empty())) {
            Some(overhead) => {
                if given && pod.pointer("/spec/overhead") != Some(overhead) {
                    return Err(
                        a.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
                    );
                }
                pod["spec"]["overhead"] = overhead.clone();
            }
            None if given => {
                return Err(
                    a.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
                );
            }
            None => {}
        }
        for (k, v) in class.pointer("/scheduling/nodeSelector").and_then(Value::as_object).into_iter().flatten() {
            let have = pod.pointer("/spec/nodeSelector").and_then(|s| s.get(k));
            if have.is_some_and(|h| h != v) {
                return Err(a.forbidden(&format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{k}] = {}; pod.spec.nodeSelector[{k}] = {}",
                    v.as_str().unwrap_or_default(),
                    have.and_then(Value::as_str).unwrap_or_default()
                )));
            }
            pod["spec"]["nodeSelector"][k] = v.clone();
        }
        if let Some(more) = class.pointer("/scheduling/tolerations").and_then(Value::as_array) {
            let mut all = pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
            for t in more {
                if !all.contains(t) {
                    all.push(t.clone());
                }
            }
            pod["spec"]["tolerations"] = all.into();
        }
        Ok(())
    }
}

/// An ingress that names no class gets the default one.
pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Create && a.is("networking.k8s.io", "ingresses")
    }

    async fn admit(&self, server: &Server, _a: &Attributes<'_>, ingress: &mut Value) -> Result<(), Status> {
        let named = ingress.pointer("/spec/ingressClassName").is_some_and(|c| !c.is_null())
            || meta::annotation(ingress, "kubernetes.io/ingress.class").is_some();
        if named {
            return Ok(());
        }
        let classes = server.registry.must("networking.k8s.io", "v1", "ingressclasses")?.objects()?.fresh().await?;
        let mut best: Option<(String, String)> = None;
        for class in classes.iter("") {
            let view: Value = class.view().map_err(Status::internal)?;
            let made = meta::get(&view, "creationTimestamp").to_owned();
            if meta::annotation(&view, "ingressclass.kubernetes.io/is-default-class") == Some("true")
                && best.as_ref().is_none_or(|(at, name)| made > *at || (made == *at && class.name() < name.as_str()))
            {
                best = Some((made, class.name().to_owned()));
            }
        }
        if let Some((_, name)) = best {
            ingress["spec"]["ingressClassName"] = name.into();
        }
        Ok(())
    }
}

/// A pod gets its node's topology labels when it is bound.
pub(super) struct PodTopologyLabels;

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Create && a.about("", "pods") && a.subresource == "binding"
    }

    async fn admit(&self, server: &Server, _a: &Attributes<'_>, binding: &mut Value) -> Result<(), Status> {
        let name = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let nodes = server.registry.must("", "v1", "nodes")?;
        let Some(node) = nodes.objects()?.get("", &name).await? else { return Ok(()) };
        for key in ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"] {
            if let Some(v) = node.label(key) {
                binding["metadata"]["labels"][key] = v.into();
            }
        }
        Ok(())
    }
}

//! `NodeRestriction`: a kubelet writes only its own node, and only the pods that run there.

use async_trait::async_trait;
use pintle_api::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::authz::node::identity;
use crate::registry::meta;

pub(super) struct NodeRestriction;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels of the kubernetes.io domains that a kubelet may set on its node.
const ALLOWED: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "node.kubernetes.io/windows-build",
];

fn is_forbidden_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let under = |d: &str| domain == d || domain.ends_with(&format!(".{d}"));
    if under("node-restriction.kubernetes.io") {
        return true;
    }
    if !under("kubernetes.io") && !under("k8s.io") {
        return false;
    }
    !(ALLOWED.contains(&key) || under("kubelet.kubernetes.io") || under("node.kubernetes.io"))
}

fn labels(v: &Value) -> impl Iterator<Item = (&String, &Value)> {
    v.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten()
}

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn pod_create(a: &Attributes<'_>, node: &str, pod: &Value) -> Result<(), Status> {
    if meta::annotation(pod, MIRROR).is_none() {
        return Err(a.forbidden(&format!(
            "pod does not have \"{MIRROR}\" annotation, node {node:?} can only create mirror pods"
        )));
    }
    if text(pod, "/spec/nodeName") != node {
        return Err(a.forbidden(&format!("node {node:?} can only create pods with spec.nodeName set to itself")));
    }
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err(a.forbidden(&format!("node {node:?} can not create pods that reference a service account")));
    }
    Ok(())
}

fn node_write(a: &Attributes<'_>, node: &str, object: &Value) -> Result<(), Status> {
    if a.name != node && !(a.operation == Operation::Create && meta::name(object) == node) {
        return Err(a.forbidden(&format!("node {node:?} is not allowed to modify node {:?}", a.name)));
    }
    if a.operation == Operation::Delete {
        return Ok(());
    }
    let before = |k: &str| a.old.and_then(|o| meta::label(o, k)).map(str::to_owned);
    let mut refused: Vec<&str> = labels(object)
        .filter(|(k, v)| is_forbidden_label(k) && before(k).as_deref() != v.as_str())
        .map(|(k, _)| k.as_str())
        .collect();
    if let Some(old) = a.old {
        refused.extend(
            labels(old)
                .filter(|(k, _)| is_forbidden_label(k) && meta::label(object, k).is_none())
                .map(|(k, _)| k.as_str()),
        );
        if a.subresource.is_empty() && old.pointer("/spec/taints") != object.pointer("/spec/taints") {
            return Err(a.forbidden(&format!("node {node:?} is not allowed to modify taints")));
        }
    }
    if !refused.is_empty() {
        refused.sort_unstable();
        let what = if a.old.is_some() { "modify" } else { "set the following" };
        return Err(a.forbidden(&format!("is not allowed to {what} labels: {}", refused.join(", "))));
    }
    Ok(())
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        identity(&a.ctx.user).is_some() && a.operation != Operation::Connect
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let Some(node) = identity(&a.ctx.user) else { return Ok(()) };
        match (a.res.def.group, a.res.def.resource, a.subresource, a.operation) {
            ("", "pods", "", Operation::Create) => pod_create(a, node, object),
            ("", "pods", "", Operation::Delete) | ("", "pods", "status", Operation::Update) => {
                let on = a.old.map(|o| text(o, "/spec/nodeName")).unwrap_or_default();
                if on == node {
                    return Ok(());
                }
                let verb = if a.operation == Operation::Delete { "delete" } else { "update status for" };
                Err(a.forbidden(&format!("node {node:?} can only {verb} pods with spec.nodeName set to itself")))
            }
            ("", "pods", "eviction", Operation::Create) => {
                let pod = server.registry.must("", "v1", "pods")?.objects()?.get(a.namespace, a.name).await?;
                match pod {
                    Some(p) if p.field("spec.nodeName") == Some(node) => Ok(()),
                    _ => {
                        Err(a.forbidden(&format!("node {node:?} can only evict pods with spec.nodeName set to itself")))
                    }
                }
            }
            ("", "pods", _, _) => Err(a.forbidden(&format!("unexpected operation on pods by node {node:?}"))),
            ("", "nodes", "" | "status", _) => node_write(a, node, object),
            ("coordination.k8s.io", "leases", ..) => {
                let name = if a.name.is_empty() { meta::name(object) } else { a.name };
                if a.namespace == "kube-node-lease" && name == node {
                    return Ok(());
                }
                Err(a.forbidden(&format!("node {node:?} can only access its own lease in \"kube-node-lease\"")))
            }
            ("storage.k8s.io", "csinodes", ..) => {
                let name = if a.name.is_empty() { meta::name(object) } else { a.name };
                if name == node {
                    Ok(())
                } else {
                    Err(a.forbidden("can only access CSINode with the same name as the requesting node"))
                }
            }
            ("", "serviceaccounts", "token", Operation::Create) => {
                let kind = text(object, "/spec/boundObjectRef/kind");
                if kind != "Pod" {
                    return Err(a.forbidden("node requested token not bound to a pod"));
                }
                let name = text(object, "/spec/boundObjectRef/name");
                let pod = server.registry.must("", "v1", "pods")?.objects()?.get(a.namespace, name).await?;
                match pod {
                    Some(p) if p.field("spec.nodeName") == Some(node) => Ok(()),
                    _ => Err(a.forbidden("node requested token bound to a pod scheduled on a different node")),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_labels() {
        for (key, forbidden) in [
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/anything", false),
            ("kubelet.kubernetes.io/x", false),
            ("example.com/x", false),
            ("plain", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("x.node-restriction.kubernetes.io/y", true),
            ("kubernetes.io/other", true),
        ] {
            assert_eq!(is_forbidden_label(key), forbidden, "{key}");
        }
    }
}

//! The node authorizer: a kubelet gets what the pods of its node need, and no more.

use pintle_api::Status;
use pintle_api::object::Object;
use pintle_api::selector::FieldSelector;
use pintle_api::service::UserInfo;
use serde_json::Value;

use super::{Attributes, Decision};
use crate::Server;

/// The node a user is, if it is one.
pub(crate) fn identity(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.groups.iter().any(|g| g == "system:nodes").then_some(name).filter(|n| !n.is_empty())
}

/// What a pod may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a value somewhere below refers to a secret or a ConfigMap of this name: the fields that do are called alike
/// wherever they stand.
fn names(v: &Value, wanted: Wanted, name: &str) -> bool {
    match v {
        Value::Array(items) => items.iter().any(|i| names(i, wanted, name)),
        Value::Object(map) => map.iter().any(|(k, inner)| {
            let here = match (wanted, k.as_str()) {
                (Wanted::Secret, "secretName") => inner.as_str() == Some(name),
                (Wanted::Secret, "secretRef" | "secretKeyRef" | "secret" | "nodePublishSecretRef") => {
                    text(inner, "/name") == name
                }
                (Wanted::Secret, "imagePullSecrets") => {
                    inner.as_array().is_some_and(|l| l.iter().any(|s| text(s, "/name") == name))
                }
                (Wanted::ConfigMap, "configMap" | "configMapRef" | "configMapKeyRef") => text(inner, "/name") == name,
                _ => false,
            };
            here || names(inner, wanted, name)
        }),
        _ => false,
    }
}

fn refers(pod: &Value, wanted: Wanted, name: &str) -> bool {
    match wanted {
        Wanted::Secret | Wanted::ConfigMap => names(&pod["spec"], wanted, name),
        Wanted::ServiceAccount => text(pod, "/spec/serviceAccountName") == name,
        Wanted::Claim => pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten().any(|v| {
            text(v, "/persistentVolumeClaim/claimName") == name
                || (v.get("ephemeral").is_some()
                    && format!("{}-{}", text(pod, "/metadata/name"), text(v, "/name")) == name)
        }),
        Wanted::ResourceClaim => {
            let any = |path: &str| {
                pod.pointer(path)
                    .and_then(Value::as_array)
                    .is_some_and(|l| l.iter().any(|c| text(c, "/resourceClaimName") == name))
            };
            any("/spec/resourceClaims") || any("/status/resourceClaimStatuses")
        }
    }
}

fn no(why: &str) -> Decision {
    Decision::NoOpinion(why.to_owned())
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

impl Server {
    /// The node authorizer's word.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn decide_node(&self, a: &Attributes<'_>) -> Result<Decision, Status> {
        let Some(node) = identity(a.user) else { return Ok(no("")) };
        if !a.is_resource {
            return Ok(self.node_rules(a));
        }
        let reads = matches!(a.verb, "get" | "list" | "watch");
        let own = a.name == node;
        let unrelated = || Ok(no(&format!("no relationship found between node '{node}' and this object")));
        match (a.group, a.resource) {
            ("", "secrets" | "configmaps") => {
                if !reads || !a.subresource.is_empty() || a.namespace.is_empty() || a.name.is_empty() {
                    return Ok(no("can only read resources of this type"));
                }
                let wanted = if a.resource == "secrets" { Wanted::Secret } else { Wanted::ConfigMap };
                if self.pods_refer(node, a, wanted).await? { Ok(yes()) } else { unrelated() }
            }
            ("", "persistentvolumeclaims") => {
                let status = a.subresource == "status" && matches!(a.verb, "update" | "patch");
                if !(status || (a.verb == "get" && a.subresource.is_empty())) || a.name.is_empty() {
                    return Ok(no("can only get individual resources of this type"));
                }
                if self.pods_refer(node, a, Wanted::Claim).await? { Ok(yes()) } else { unrelated() }
            }
            ("", "persistentvolumes") => {
                if a.verb != "get" || a.name.is_empty() {
                    return Ok(no("can only get individual resources of this type"));
                }
                if self.volume_of_node(node, a.name).await? { Ok(yes()) } else { unrelated() }
            }
            ("resource.k8s.io", "resourceclaims") => {
                if a.verb != "get" || a.name.is_empty() {
                    return Ok(no("can only get individual resources of this type"));
                }
                if self.pods_refer(node, a, Wanted::ResourceClaim).await? { Ok(yes()) } else { unrelated() }
            }
            ("storage.k8s.io", "volumeattachments") => {
                if a.verb != "get" || a.name.is_empty() {
                    return Ok(no("can only get individual resources of this type"));
                }
                let res = self.registry.must("storage.k8s.io", "v1", "volumeattachments")?;
                let found = res.objects()?.get("", a.name).await?;
                let mine = found.is_some_and(|v| v.at(&["spec", "nodeName"]) == Some(format!("\"{node}\"").as_bytes()));
                if mine { Ok(yes()) } else { unrelated() }
            }
            ("", "serviceaccounts") => {
                let token = a.subresource == "token" && a.verb == "create";
                if !(token || (a.verb == "get" && a.subresource.is_empty())) || a.name.is_empty() {
                    return Ok(no("can only create tokens for individual service accounts"));
                }
                if self.pods_refer(node, a, Wanted::ServiceAccount).await? { Ok(yes()) } else { unrelated() }
            }
            ("coordination.k8s.io", "leases") => Ok(match a.verb {
                _ if a.namespace != "kube-node-lease" => {
                    no("can only access leases in the \"kube-node-lease\" system namespace")
                }
                "create" => yes(),
                "get" | "update" | "patch" | "delete" if own => yes(),
                _ => no("can only access node lease with the same name as the requesting node"),
            }),
            ("storage.k8s.io", "csinodes") => Ok(match a.verb {
                "create" => yes(),
                "get" | "update" | "patch" | "delete" if own => yes(),
                _ => no("can only access CSINode with the same name as the requesting node"),
            }),
            ("resource.k8s.io", "resourceslices") => Ok(match a.verb {
                "create" | "get" | "update" | "patch" | "delete" => yes(),
                "list" | "watch" | "deletecollection" if selects(a.fields, "spec.nodeName", node) => yes(),
                _ => no("can only list/watch/deletecollection resourceslices with nodeName field selector"),
            }),
            ("", "nodes") => Ok(match (a.verb, a.subresource) {
                ("create", "") => yes(),
                ("get" | "list" | "watch" | "update" | "patch", "") | ("update" | "patch" | "get", "status") if own => {
                    yes()
                }
                (_, "configz" | "healthz" | "log" | "metrics" | "pods" | "proxy" | "stats") => {
                    if own {
                        self.node_rules(a)
                    } else {
                        no("")
                    }
                }
                _ => no(&format!("node '{node}' cannot read all nodes, only its own Node object")),
            }),
            ("", "pods") => self.decide_node_pods(node, a).await,
            _ => Ok(self.node_rules(a)),
        }
    }

    async fn decide_node_pods(&self, node: &str, a: &Attributes<'_>) -> Result<Decision, Status> {
        Ok(match (a.verb, a.subresource) {
            ("list" | "watch", "") => {
                let by_name = !a.name.is_empty() && self.is_on(node, a.namespace, a.name).await?;
                if by_name || selects(a.fields, "spec.nodeName", node) {
                    yes()
                } else {
                    no("can only list/watch pods with spec.nodeName field selector")
                }
            }
            ("get", "") => {
                if self.is_on(node, a.namespace, a.name).await? {
                    yes()
                } else {
                    no(&format!("no relationship found between node '{node}' and this object"))
                }
            }
            ("create" | "delete", "") | ("update" | "patch" | "get", "status") | ("create", "eviction") => yes(),
            _ => no(""),
        })
    }

    /// The rules every node has.
    fn node_rules(&self, a: &Attributes<'_>) -> Decision {
        let allowed = self.rbac.role("", "system:node").is_some_and(|rules| rules.iter().any(|r| r.allows(a)));
        if allowed { yes() } else { no("") }
    }

    async fn is_on(&self, node: &str, namespace: &str, name: &str) -> Result<bool, Status> {
        let pod = self.registry.must("", "v1", "pods")?.objects()?.get(namespace, name).await?;
        Ok(pod.is_some_and(|p| p.field("spec.nodeName") == Some(node)))
    }

    async fn pods_refer(&self, node: &str, a: &Attributes<'_>, wanted: Wanted) -> Result<bool, Status> {
        let pods = self.registry.must("", "v1", "pods")?.objects()?.fresh().await?;
        Ok(pods.iter(a.namespace).any(|p| on(p, node) && p.view().is_ok_and(|v: Value| refers(&v, wanted, a.name))))
    }

    /// Whether a claim of one of the node's pods is bound to the volume.
    async fn volume_of_node(&self, node: &str, volume: &str) -> Result<bool, Status> {
        let res = self.registry.must("", "v1", "persistentvolumes")?;
        let Some(pv) = res.objects()?.get("", volume).await? else { return Ok(false) };
        let pv: Value = pv.view().map_err(Status::internal)?;
        let (ns, claim) = (text(&pv, "/spec/claimRef/namespace"), text(&pv, "/spec/claimRef/name"));
        if claim.is_empty() {
            return Ok(false);
        }
        let pods = self.registry.must("", "v1", "pods")?.objects()?.fresh().await?;
        Ok(pods.iter(ns).any(|p| on(p, node) && p.view().is_ok_and(|v: Value| refers(&v, Wanted::Claim, claim))))
    }
}

fn on(pod: &Object, node: &str) -> bool {
    pod.field("spec.nodeName") == Some(node)
}

fn selects(fields: &str, field: &str, value: &str) -> bool {
    FieldSelector::parse(fields).is_ok_and(|s| s.exact(field) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "e", "ephemeral": {}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "ps"}}, {"configMap": {"name": "pc"}}]}}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "c1"}}], "env": [{"valueFrom": {"secretKeyRef": {"name": "k"}}}]}]}});
        for (wanted, name, yes) in [
            (Wanted::Secret, "s", true),
            (Wanted::Secret, "pull", true),
            (Wanted::Secret, "ps", true),
            (Wanted::Secret, "k", true),
            (Wanted::Secret, "pc", false),
            (Wanted::ConfigMap, "pc", true),
            (Wanted::ConfigMap, "c1", true),
            (Wanted::ConfigMap, "s", false),
            (Wanted::Claim, "claim", true),
            (Wanted::Claim, "p-e", true),
            (Wanted::ServiceAccount, "sa", true),
            (Wanted::ServiceAccount, "x", false),
        ] {
            assert_eq!(refers(&pod, wanted, name), yes, "{wanted:?} {name}");
        }
        let user = UserInfo::authenticated("system:node:n1", &["system:nodes"]);
        assert_eq!(identity(&user), Some("n1"));
        assert_eq!(identity(&UserInfo::authenticated("system:node:n1", &[])), None);
    }
}

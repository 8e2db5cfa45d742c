//! `ServiceAccount`: every pod runs as an account, and finds a token of it.

use async_trait::async_trait;
use pintle_api::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::Server;
use crate::registry::create::generate_name;
use crate::registry::meta;

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The seconds after which a token is renewed; the odd number tells that nobody chose it.
const EXPIRES: i64 = 3607;

pub(super) struct ServiceAccount;

fn containers(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let mut lists: Vec<&mut Value> = Vec::new();
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        for (k, v) in spec.iter_mut() {
            if matches!(k.as_str(), "containers" | "initContainers") {
                lists.extend(v.as_array_mut().into_iter().flatten());
            }
        }
    }
    lists.into_iter()
}

/// The volume that holds token, authority and namespace.
fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRES, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn mount_token(pod: &mut Value) {
    // A volume of an earlier pass is used again.
    let there = pod
        .pointer("/spec/volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|v| text(v, "/name"))
        .find(|n| n.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let name = there.clone().unwrap_or_else(|| generate_name("kube-api-access-"));
    let mut needed = false;
    for c in containers(pod) {
        let Some(c) = c.as_object_mut() else { continue };
        let mounts = c.entry("volumeMounts").or_insert_with(|| json!([]));
        if mounts.is_null() {
            *mounts = json!([]);
        }
        let Some(list) = mounts.as_array_mut() else { continue };
        if !list.iter().any(|m| text(m, "/mountPath") == MOUNT) {
            list.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT}));
            needed = true;
        }
    }
    if needed && there.is_none() {
        let volumes = &mut pod["spec"]["volumes"];
        if !volumes.is_array() {
            *volumes = json!([]);
        }
        if let Some(list) = volumes.as_array_mut() {
            list.push(volume(&name));
        }
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        a.operation == Operation::Create && a.is("", "pods")
    }

    async fn admit(&self, server: &Server, a: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        // A mirror of a static pod has no account.
        if meta::annotation(pod, MIRROR).is_some() {
            return Ok(());
        }
        if text(pod, "/spec/serviceAccountName").is_empty() {
            pod["spec"]["serviceAccountName"] = "default".into();
        }
        let name = text(pod, "/spec/serviceAccountName").to_owned();
        // The old name of the field says the same, as every reader of the API sees it.
        pod["spec"]["serviceAccount"] = name.clone().into();
        let accounts = server.registry.must("", "v1", "serviceaccounts")?;
        let Some(account) = accounts.objects()?.get(a.namespace, &name).await? else {
            return Err(Status::forbidden(
                "",
                "pods",
                meta::name(pod),
                &format!(
                    "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                    a.namespace
                ),
            ));
        };
        let account: Value = account.view().map_err(Status::internal)?;
        let wanted = pod
            .pointer("/spec/automountServiceAccountToken")
            .and_then(Value::as_bool)
            .or_else(|| account.get("automountServiceAccountToken").and_then(Value::as_bool));
        if wanted != Some(false) {
            mount_token(pod);
        }
        let has_secrets =
            pod.pointer("/spec/imagePullSecrets").and_then(Value::as_array).is_some_and(|s| !s.is_empty());
        if !has_secrets && let Some(secrets) = account.get("imagePullSecrets").filter(|s| s.is_array()) {
            pod["spec"]["imagePullSecrets"] = secrets.clone();
        }
        Ok(())
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        if meta::annotation(pod, MIRROR).is_some() {
            if !text(pod, "/spec/serviceAccountName").is_empty() {
                return Err(a.forbidden("a mirror pod may not reference service accounts"));
            }
            return Ok(());
        }
        let name = text(pod, "/spec/serviceAccountName");
        let accounts = server.registry.must("", "v1", "serviceaccounts")?;
        let Some(account) = accounts.objects()?.get(a.namespace, name).await? else {
            return Err(a.forbidden(&format!(
                "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                a.namespace
            )));
        };
        let account: Value = account.view().map_err(Status::internal)?;
        if meta::annotation(&account, ENFORCE) != Some("true") {
            return Ok(());
        }
        let allowed: Vec<&str> =
            account["secrets"].as_array().into_iter().flatten().map(|s| text(s, "/name")).collect();
        for v in pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten() {
            let secret = text(v, "/secret/secretName");
            if !secret.is_empty() && !allowed.contains(&secret) {
                return Err(a.forbidden(&format!(
                    "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_once() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT}]}],
            "initContainers": [{"name": "i"}]}});
        mount_token(&mut pod);
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], MOUNT);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"].as_array().unwrap().len(), 1);
        let before = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, before);
    }
}

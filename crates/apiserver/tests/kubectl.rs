//! Real kubectl against the server over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cluster, has};

const KUBECTL: &str = "/usr/bin/kubectl";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configmaps_from_birth_to_death() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    const A: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n";
    let out = c.kubectl_in("create -f -", Some(A)).await;
    assert_eq!(out, "configmap/a created\n");
    let said = c.refused("admin", "create -f -", Some(A)).await;
    assert!(said.contains("configmaps \"a\" already exists"), "{said}");
    assert_eq!(c.kubectl("get configmap a -o jsonpath={.data.k}").await, "v");
    let table = c.kubectl("get configmaps").await;
    assert!(table.contains("NAME") && table.contains("DATA") && table.contains('a'), "{table}");
    let out =
        c.kubectl_in("apply -f -", Some("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {x: o}\n")).await;
    assert!(out.contains("configmap/b created"), "{out}");
    let out = c
        .kubectl_in("replace -f -", Some("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {x: p}\n"))
        .await;
    assert!(out.contains("configmap/b replaced"), "{out}");
    c.kubectl("patch configmap b --type=merge -p {\"data\":{\"n\":\"1\"}}").await;
    assert_eq!(c.kubectl("get cm b -o jsonpath={.data.x}{.data.n}").await, "p1");
    c.kubectl("label cm b l=1").await;
    assert!(c.kubectl("get cm -l l=1 -o name").await.contains("configmap/b"));
    let yaml = c.kubectl("get cm b -o yaml").await;
    assert!(yaml.contains("kind: ConfigMap"), "{yaml}");
    let watched = c.kubectl("get cm -w --request-timeout=1s -o name").await;
    assert!(watched.contains("configmap/a"), "{watched}");
    assert!(c.kubectl("delete cm a").await.contains("configmap \"a\" deleted"));
    assert!(c.refused("admin", "get cm a", None).await.contains("configmaps \"a\" not found"));
    assert!(c.kubectl("get ns -o name").await.contains("namespace/kube-system"));
    assert_eq!(c.kubectl("create configmap p --from-literal=k=v").await, "configmap/p created\n");
    assert!(c.refused("admin", "create configmap p", None).await.contains("configmaps \"p\" already exists"));
    assert!(c.kubectl("api-resources").await.contains("deployments"));
    assert!(c.kubectl("version").await.contains("Server Version: v1.36"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    c.kubeconfig("joe", &[]);
    let said = c.refused("joe", "get pods", None).await;
    assert!(
        said.contains(
            r#"pods is forbidden: User "joe" cannot list resource "pods" in API group "" in the namespace "default""#
        ),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_and_apply() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    let text = |v: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{k: {v}}}\n");
    let apply = "apply --server-side -f -";
    assert_eq!(c.kubectl_in(apply, Some(&text("one"))).await, "configmap/a serverside-applied\n");
    let version = c.kubectl("get cm a -o jsonpath={.metadata.resourceVersion}").await;
    c.kubectl_in(apply, Some(&text("one"))).await;
    assert_eq!(c.kubectl("get cm a -o jsonpath={.metadata.resourceVersion}").await, version);
    c.kubectl("patch cm a --type=merge -p {\"data\":{\"k\":\"two\"}}").await;
    let owners = c.kubectl("get cm a -o jsonpath={.metadata.managedFields[*].manager}").await;
    assert_eq!(owners, "kubectl-patch");
    let said = c.refused("admin", apply, Some(&text("three"))).await;
    assert!(said.contains("Apply failed with 1 conflict: conflict with \"kubectl-patch\" using v1: .data.k"), "{said}");
    c.kubectl_in("apply --server-side --force-conflicts -f -", Some(&text("three"))).await;
    assert_eq!(c.kubectl("get cm a -o jsonpath={.data.k}").await, "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_validation() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, nope: 1}\ndata: {x: o}\n";
    let said = c.refused("admin", "create -f -", Some(text)).await;
    assert!(said.contains("unknown field \"metadata.nope\""), "{said}");
    let said = c.kubectl_in("create --validate=warn -f -", Some(text)).await;
    assert!(said.contains("Warning: unknown field \"metadata.nope\""), "{said}");
    let said = c.refused("admin", "create -f -", Some("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: B_}\n")).await;
    assert!(said.contains("The ConfigMap \"B_\" is invalid: metadata.name: Invalid value: \"B_\""), "{said}");
    let said = c.kubectl("explain deployment.spec.template.spec.containers --recursive").await;
    assert!(said.contains("imagePullPolicy") && said.contains("GROUP:      apps"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_while_watching_and_an_old_kubectl() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    c.kubectl("create configmap a --from-literal=k=v").await;
    let out = c.run(KUBECTL, "admin", "get configmaps -w --request-timeout=1s", None).await;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.starts_with("NAME") && said.contains("a ") && said.contains('1'), "{said}");
    assert!(c.kubectl("get --raw /metrics").await.contains("apiserver_storage_objects{resource=\"configmaps\"} 3"));
    assert_eq!(c.kubectl("get --raw /readyz").await, "ok");
    assert!(c.kubectl("get --raw /livez?verbose").await.contains("[+]ping ok"));
    assert!(c.kubectl("get --raw /apis/apps/v1").await.contains("\"name\":\"deployments/scale\""));
    let old = "/tmp/kc120/usr/bin/kubectl";
    if !has(old) {
        return;
    }
    for args in [
        "get configmaps",
        "get configmap a -o yaml",
        "create configmap b --from-literal=x=o",
        "delete configmap b",
        "get all",
    ] {
        let out = c.run(old, "admin", args, None).await;
        assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    let text = c.kubectl("get --raw /openapi/v2").await;
    let v2: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(v2["definitions"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"].is_object());
    let patch = &v2["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "ConfigMap");
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    // Every reference leads somewhere.
    for part in text.split("\"#/definitions/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(v2["definitions"].get(name).is_some(), "{name}");
    }
    assert!(c.kubectl("get --raw /.well-known/openid-configuration").await.contains("/openid/v1/jwks"));
}

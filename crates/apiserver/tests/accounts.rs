//! Service account tokens and reviews, with real kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cluster, has};

const KUBECTL: &str = "/usr/bin/kubectl";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_issued_and_end_with_their_account() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    c.kubectl_in("create -f -", Some("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n")).await;
    let raw = c
        .kubectl_in(
            "create --raw /api/v1/namespaces/default/serviceaccounts/robot/token -f -",
            Some(r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"expirationSeconds":600}}"#),
        )
        .await;
    let reply: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let token = reply["status"]["token"].as_str().unwrap().to_owned();
    let me = format!("--token={token}");
    let config = c.dir.path().join("bare.kubeconfig");
    std::fs::write(
        &config,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: c}}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://{}', certificate-authority: {}/ca.crt}}\n",
            c.address,
            c.dir.path().display()
        ),
    )
    .unwrap();
    let said = c.refused("bare", &format!("get pods {me}"), None).await;
    assert!(said.contains(r#"User "system:serviceaccount:default:robot" cannot list resource "pods""#), "{said}");
    let review =
        format!(r#"{{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{{"token":"{token}"}}}}"#);
    let path = "create --raw /apis/authentication.k8s.io/v1/tokenreviews -f -";
    let out = c.kubectl_in(path, Some(&review)).await;
    assert!(out.contains("\"authenticated\":true") && out.contains("system:serviceaccounts:default"), "{out}");
    c.kubectl("delete serviceaccount robot").await;
    let out = c.kubectl_in(path, Some(&review)).await;
    assert!(!out.contains("\"authenticated\":true"), "{out}");
    let said = c.refused("bare", &format!("get pods {me}"), None).await;
    assert!(said.contains("Unauthorized") || said.contains("logged in"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reviews_of_access() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    let ask = |user: &str, verb: &str| {
        format!(
            r#"{{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{{"user":"{user}","resourceAttributes":{{"verb":"{verb}","resource":"pods","namespace":"default"}}}}}}"#
        )
    };
    let path = "create --raw /apis/authorization.k8s.io/v1/subjectaccessreviews -f -";
    let out = c.kubectl_in(path, Some(&ask("joe", "get"))).await;
    assert!(out.contains("\"allowed\":false"), "{out}");
    let binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: b}\n\
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node}\n\
        subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: joe}]\n";
    c.kubectl_in("create -f -", Some(binding)).await;
    let out = c.kubectl_in(path, Some(&ask("joe", "get"))).await;
    assert!(out.contains("\"allowed\":true") && out.contains("RBAC: allowed by RoleBinding"), "{out}");
    let out = c.kubectl_in(path, Some(&ask("joe", "impersonate"))).await;
    assert!(out.contains("\"allowed\":false"), "{out}");
    let said = c.refused("admin", "get pods --as=ann", None).await;
    assert!(said.contains("User \"ann\" cannot list"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scale_and_status() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    let d = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 2\n  selector: {matchLabels: {a: b}}\n  \
        template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n";
    c.kubectl_in("create -f -", Some(d)).await;
    assert!(c.kubectl("scale deployment d --replicas=5").await.contains("scaled"));
    assert_eq!(c.kubectl("get deployment d -o jsonpath={.spec.replicas}/{.metadata.generation}").await, "5/2");
    c.kubectl("patch deployment d --subresource=status --type=merge -p {\"status\":{\"replicas\":4},\"spec\":{\"replicas\":9}}").await;
    assert_eq!(
        c.kubectl("get deployment d -o jsonpath={.spec.replicas}/{.status.replicas}/{.metadata.generation}").await,
        "5/4/2"
    );
    let out = c.kubectl("patch deployment d -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"j\"}]}}}}").await;
    assert!(out.contains("patched"), "{out}");
    assert_eq!(c.kubectl("get deployment d -o jsonpath={.spec.template.spec.containers[*].image}").await, "j");
}

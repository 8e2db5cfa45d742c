//! Admission, with real kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Cluster, has};

const KUBECTL: &str = "/usr/bin/kubectl";
const CREATE: &str = "create -f -";

fn pod(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c, image: i}}]\n{more}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_what_they_need() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    let said = c.refused("admin", CREATE, Some(&pod("p", ""))).await;
    assert!(
        said.contains("error looking up service account default/default: serviceaccount \"default\" not found"),
        "{said}"
    );
    c.kubectl("create serviceaccount default").await;
    c.kubectl_in(CREATE, Some(&pod("p", ""))).await;
    let text = c.kubectl("get pod p -o json").await;
    let p: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(p["spec"]["serviceAccountName"], "default");
    assert_eq!(p["spec"]["priority"], 0);
    assert_eq!(p["spec"]["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(p["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let volume = p["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(p["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
    let said = c.refused("admin", CREATE, Some(&pod("q", "  priorityClassName: nope\n"))).await;
    assert!(said.contains("pods \"q\" is forbidden: no PriorityClass with name nope was found"), "{said}");
    c.kubectl_in(CREATE, Some(&pod("q", "  priorityClassName: system-node-critical\n"))).await;
    assert_eq!(c.kubectl("get pod q -o jsonpath={.spec.priority}").await, "2000001000");
    // A pod that runs nowhere goes at once.
    c.kubectl("delete pod p --wait=false").await;
    c.refused("admin", "get pod p", None).await;
    let said = c.refused("admin", "delete namespace kube-system", None).await;
    assert!(said.contains("this namespace may not be deleted"), "{said}");
    let said = c.refused("admin", "create configmap x -n nowhere", None).await;
    assert!(said.contains("namespaces \"nowhere\" not found"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_and_evictions() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    c.kubectl("create serviceaccount default").await;
    c.kubectl_in(CREATE, Some("apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n")).await;
    assert!(c.kubectl("get node node1 -o jsonpath={.spec.taints[0].key}").await.contains("not-ready"));
    c.kubectl_in(CREATE, Some(&pod("p", ""))).await;
    let bind = r#"{"kind":"Binding","apiVersion":"v1","target":{"kind":"Node","name":"node1"},
        "metadata":{"name":"p","annotations":{"a":"b"},"labels":{"zone":"z"}}}"#;
    let path = "create --raw /api/v1/namespaces/default/pods/p/binding -f -";
    c.kubectl_in(path, Some(bind)).await;
    let got =
        c.kubectl("get pod p -o jsonpath={.spec.nodeName},{.metadata.annotations.a},{.metadata.labels.zone}").await;
    assert_eq!(got, "node1,b,z");
    c.kubectl_in(CREATE, Some(&pod("gated", "  schedulingGates: [{name: g}]\n"))).await;
    let said = c.refused("admin", &path.replace("/p/", "/gated/"), Some(&bind.replace("\"p\"", "\"gated\""))).await;
    assert!(said.contains("pod gated has non-empty .spec.schedulingGates"), "{said}");
    let said = c.refused("admin", path, Some(bind)).await;
    assert!(said.contains("pod p is already assigned to node \"node1\""), "{said}");
    let evict = r#"{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"p"}}"#;
    c.kubectl_in("create --raw /api/v1/namespaces/default/pods/p/eviction -f -", Some(evict)).await;
    // It has a node, so it ends gracefully.
    assert_eq!(c.kubectl("get pod p -o jsonpath={.metadata.deletionGracePeriodSeconds}").await, "30");
    c.kubectl("delete pod p --force --grace-period=0").await;
    c.refused("admin", "get pod p", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_count() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    c.kubectl("create quota q --hard=configmaps=2").await;
    c.kubectl("patch quota q --subresource=status --type=merge -p {\"status\":{\"hard\":{\"configmaps\":\"2\"},\"used\":{\"configmaps\":\"1\"}}}").await;
    c.kubectl("create configmap a").await;
    let said = c.refused("admin", "create configmap b", None).await;
    assert!(
        said.contains("exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gives_away_more_than_they_have() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    c.kubeconfig("joe", &[]);
    c.kubectl("create role maker --verb=create --resource=roles").await;
    c.kubectl("create rolebinding maker --role=maker --user=joe").await;
    let said = c.refused("joe", "create role r --verb=get --resource=pods", None).await;
    assert!(said.contains("is attempting to grant RBAC permissions not currently held"), "{said}");
    c.refused("joe", "create rolebinding b --clusterrole=cluster-admin --user=joe", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_get_what_their_pods_need() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start_with(|config| config.enable_admission_plugins.push("NodeRestriction".into())).await;
    let node = "system:node:node1";
    c.kubeconfig(node, &["system:nodes"]);
    let as_node = |args: &'static str, input: Option<&'static str>| c.run(KUBECTL, node, args, input);
    let out = as_node(CREATE, Some("apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n")).await;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said = c.refused(node, CREATE, Some("apiVersion: v1\nkind: Node\nmetadata: {name: node2}\n")).await;
    assert!(said.contains("is not allowed to modify node"), "{said}");
    c.refused(node, "label node node1 node-role.kubernetes.io/x=y", None).await;
    assert!(as_node("get node node1", None).await.status.success());
    c.refused(node, "get nodes", None).await;
    assert!(as_node("get pods -A --field-selector=spec.nodeName=node1", None).await.status.success());
    c.refused(node, "get pods -A", None).await;
    c.kubectl("create serviceaccount default").await;
    c.kubectl("create secret generic s --from-literal=k=v").await;
    c.refused(node, "get secret s", None).await;
    let more = "  nodeName: node1\n  volumes: [{name: v, secret: {secretName: s}}]\n";
    c.kubectl_in(CREATE, Some(&pod("p", more))).await;
    let out = as_node("get secret s", None).await;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    c.refused(node, "get configmap kube-root-ca.crt -n kube-system", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pod_security() {
    if !has(KUBECTL) {
        return;
    }
    let c = Cluster::start().await;
    c.kubectl("create serviceaccount default").await;
    c.kubectl("label namespace default pod-security.kubernetes.io/enforce=baseline pod-security.kubernetes.io/warn=restricted").await;
    let said = c.refused("admin", CREATE, Some(&pod("p", "  hostNetwork: true\n"))).await;
    assert!(
        said.contains(
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
        ),
        "{said}"
    );
    let said = c.kubectl_in(CREATE, Some(&pod("p", ""))).await;
    assert!(
        said.contains("Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"),
        "{said}"
    );
}

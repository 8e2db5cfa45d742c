//! Manifests that are wrong are refused in Kubernetes' words.

use pintle_testkit::Cluster;

#[test]
fn manifests_are_refused_in_kubernetes_words() {
    let cluster = Cluster::start();
    let check = |manifest: &str, want: &str| {
        let said = cluster.kubectl_with(&["create", "-f", "-"], manifest).err();
        assert!(said.contains(want), "{manifest}\nsaid: {said}\nwant: {want}");
    };
    let pod = |name: &str, spec: &str| {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: \"{name}\"}}\nspec: {{{spec}}}\n")
    };
    check(
        &pod("a", "containers: [{name: c, image: i, imagePolicy: x}]"),
        "unknown field \"spec.containers[0].imagePolicy\"",
    );
    check(
        &pod("a", "containers: 5"),
        "cannot unmarshal number into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    check(&pod("a", ""), "spec.containers: Required value");
    check(&pod("a", "containers: [{name: c}]"), "spec.containers[0].image: Required value");
    check(
        &pod("A_b", "containers: [{name: c, image: i}]"),
        "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of",
    );
    check(
        &pod("a", "containers: [{name: c, image: i}, {name: c, image: i}]"),
        "spec.containers[1].name: Duplicate value: \"c\"",
    );
    check(
        &pod("a", "restartPolicy: Sometimes, containers: [{name: c, image: i}]"),
        "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    );
    check("apiVersion: v1\nkind: Pod\nmetadata: {name: a\n", "error converting YAML to JSON");
    check("apiVersion: v9\nkind: Nope\nmetadata: {name: a}\n", "no matches for kind \"Nope\" in version \"v9\"");
    check("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: none}\n", "namespaces \"none\" not found");
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}\n",
        "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 70000}]}\n",
        "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
    );
    let said = cluster.kubectl(&["get", "pods", "none"]).err();
    assert_eq!(said, "Error from server (NotFound): pods \"none\" not found\n");
    let _ = cluster.kubectl(&["create", "configmap", "twice"]).ok();
    let said = cluster.kubectl(&["create", "configmap", "twice"]).err();
    assert_eq!(said, "error: failed to create configmap: configmaps \"twice\" already exists\n");
}

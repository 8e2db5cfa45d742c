//! What clients look for in the documents.

use super::*;
use pintle_api::resources::all;

fn apps() -> Value {
    v3(all().iter().filter(|r| r.group == "apps" && r.version == "v1"), "v1.36.0")
}

#[test]
fn what_kubectl_looks_for() {
    let doc = apps();
    let patch = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "kind": "Deployment", "version": "v1"}));
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let schemas = &doc["components"]["schemas"];
    let d = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(d["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
}

#[test]
fn every_reference_leads_somewhere() {
    fn refs(v: &Value, out: &mut Vec<String>) {
        match v {
            Value::Object(m) => {
                for (k, v) in m {
                    match (k.as_str(), v) {
                        ("$ref", Value::String(s)) => out.push(s.clone()),
                        _ => refs(v, out),
                    }
                }
            }
            Value::Array(a) => a.iter().for_each(|v| refs(v, out)),
            _ => {}
        }
    }
    let v2 = v2(all(), "v1.36.0");
    for (doc, prefix, at) in [(apps(), "#/components/schemas/", "/components/schemas"), (v2, "#/definitions/", "/definitions")] {
        let mut found = Vec::new();
        refs(&doc, &mut found);
        assert!(found.len() > 100);
        for r in found {
            let name = r.strip_prefix(prefix).unwrap();
            assert!(doc.pointer(at).unwrap().get(name).is_some(), "{r}");
        }
    }
}

#[test]
fn every_resource_has_its_paths() {
    let doc = v2(all().iter().filter(|r| r.on), "v1.36.0");
    let paths = doc["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/api/v1/namespaces/{namespace}/pods", &["get", "post", "delete"][..]),
        ("/api/v1/pods", &["get"]),
        ("/api/v1/namespaces/{namespace}/pods/{name}/log", &["get"]),
        ("/api/v1/namespaces/{namespace}/pods/{name}/exec", &["get", "post"]),
        ("/api/v1/namespaces/{namespace}/pods/{name}/proxy/{path}", &["get", "post", "put", "patch", "delete"]),
        ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", &["get", "put", "patch"]),
        ("/apis/authentication.k8s.io/v1/tokenreviews", &["post"]),
        ("/api/v1/watch/nodes/{name}", &["get"]),
    ] {
        for m in methods {
            assert!(paths.get(path).is_some_and(|p| p.get(m).is_some()), "{m} {path}");
        }
    }
    let ids: Vec<&str> = paths
        .values()
        .flat_map(|p| p.as_object().unwrap().values())
        .filter_map(|o| o.get("operationId")?.as_str())
        .collect();
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "operation ids are unique");
}

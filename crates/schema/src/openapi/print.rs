//! Paths and operations as JSON.

use serde_json::{Map, Value, json};

use super::operations::{Action, Operation, Path};
use super::{Flavor, Named, Used, names};
use crate::table::Type;

const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LISTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

/// A path's operations and common parameters.
pub(super) fn path_item(flavor: Flavor, path: &Path, used: &mut Used) -> Value {
    let mut out = Map::new();
    for op in &path.operations {
        out.insert(op.method.to_owned(), operation(flavor, op, used));
    }
    let mut parameters = Vec::new();
    if path.named {
        parameters.push(in_path(flavor, "name", &format!("name of the {}", path.kind)));
    }
    if path.namespaced {
        parameters.push(in_path(flavor, "namespace", "object name and auth scope, such as for teams and projects"));
    }
    if path.proxied {
        parameters.push(in_path(flavor, "path", "path to the resource"));
    }
    let connects = path.operations.iter().all(|o| o.action == Action::Connect);
    if !connects {
        parameters.push(query(flavor, "pretty", "string"));
    }
    if !parameters.is_empty() {
        out.insert("parameters".into(), Value::Array(parameters));
    }
    Value::Object(out)
}

fn typed(flavor: Flavor, mut parameter: Value, ty: &str) -> Value {
    if let Value::Object(map) = &mut parameter {
        match flavor {
            Flavor::V2 => {
                map.insert("type".into(), json!(ty));
            }
            Flavor::V3 => {
                map.insert("schema".into(), json!({"type": ty}));
            }
        }
        map.insert("uniqueItems".into(), json!(true));
        if flavor == Flavor::V3 {
            map.remove("uniqueItems");
            map.insert("schema".into(), json!({"type": ty, "uniqueItems": true}));
        }
    }
    parameter
}

fn in_path(flavor: Flavor, name: &str, description: &str) -> Value {
    typed(flavor, json!({"name": name, "in": "path", "description": description, "required": true}), "string")
}

fn query(flavor: Flavor, name: &str, ty: &str) -> Value {
    typed(flavor, json!({"name": name, "in": "query"}), ty)
}

/// The query parameters of an action.
fn parameters(flavor: Flavor, action: Action) -> Vec<Value> {
    const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
    const LIST: &[(&str, &str)] = &[
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ];
    const DELETE: &[(&str, &str)] = &[
        ("dryRun", "string"),
        ("gracePeriodSeconds", "integer"),
        ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
        ("orphanDependents", "boolean"),
        ("propagationPolicy", "string"),
    ];
    let names: Vec<&(&str, &str)> = match action {
        Action::Get | Action::Connect => Vec::new(),
        Action::List | Action::Watch | Action::WatchList => LIST.iter().collect(),
        Action::Post | Action::Put => WRITE.iter().collect(),
        Action::Patch => WRITE.iter().chain(&[("force", "boolean")]).collect(),
        Action::Delete => DELETE.iter().collect(),
        Action::DeleteCollection => DELETE.iter().chain(LIST.iter().filter(|(n, _)| !n.contains("atch") || *n == "resourceVersionMatch")).collect(),
    };
    names.into_iter().map(|(n, t)| query(flavor, n, t)).collect()
}

fn operation(flavor: Flavor, op: &Operation, used: &mut Used) -> Value {
    let mut reference = |t: &'static Type| json!({"$ref": flavor.reference(&used.add(Named::Type(t)))});
    let body = op.body.map(&mut reference);
    let answer = op.answer.map(&mut reference);
    let mut parameters = parameters(flavor, op.action);
    let patch = (op.action == Action::Patch).then(|| json!({"$ref": flavor.reference(&used.add(Named::Special(names::PATCH)))}));
    let text_only = op.answer.is_none();
    let produces: &[&str] = match op.action {
        _ if op.action == Action::Connect => &["*/*"],
        _ if text_only => &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
        Action::List | Action::Watch | Action::WatchList => LISTS,
        _ => OBJECTS,
    };
    let consumes: &[&str] = if op.action == Action::Patch { PATCHES } else { &["*/*"] };
    let body_schema = body.or(patch);
    let answer_schema = answer.unwrap_or_else(|| json!({"type": "string"}));
    let codes: &[(&str, &str)] = match op.action {
        Action::Post => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        Action::Put | Action::Patch => &[("200", "OK"), ("201", "Created")],
        Action::Delete => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    let mut responses = Map::new();
    for (code, description) in codes {
        let response = match flavor {
            Flavor::V2 => json!({"description": description, "schema": answer_schema}),
            Flavor::V3 => {
                let content: Map<String, Value> =
                    produces.iter().map(|m| ((*m).to_owned(), json!({"schema": answer_schema}))).collect();
                json!({"description": description, "content": content})
            }
        };
        responses.insert((*code).to_owned(), response);
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let mut out = Map::new();
    out.insert("description".into(), json!(op.description));
    out.insert("operationId".into(), json!(op.id));
    out.insert("tags".into(), json!([op.tag]));
    match flavor {
        Flavor::V2 => {
            if let Some(schema) = body_schema {
                let required = !matches!(op.action, Action::Delete | Action::DeleteCollection);
                let mut p = json!({"name": "body", "in": "body", "schema": schema});
                if required {
                    p["required"] = json!(true);
                }
                parameters.insert(0, p);
            }
            out.insert("consumes".into(), json!(consumes));
            out.insert("produces".into(), json!(produces));
            out.insert("schemes".into(), json!(["https"]));
        }
        Flavor::V3 => {
            if let Some(schema) = body_schema {
                let content: Map<String, Value> =
                    consumes.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect();
                let mut body = json!({"content": content});
                if !matches!(op.action, Action::Delete | Action::DeleteCollection) {
                    body["required"] = json!(true);
                }
                out.insert("requestBody".into(), body);
            }
        }
    }
    if !parameters.is_empty() {
        out.insert("parameters".into(), Value::Array(parameters));
    }
    out.insert("responses".into(), Value::Object(responses));
    out.insert("x-kubernetes-action".into(), json!(op.action.as_str()));
    let (group, version, kind) = &op.gvk;
    out.insert("x-kubernetes-group-version-kind".into(), json!({"group": group, "kind": kind, "version": version}));
    Value::Object(out)
}

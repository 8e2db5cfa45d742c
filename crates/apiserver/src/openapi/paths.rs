//! The operations on a resource.

use std::sync::Arc;

use pintle_api::resources::{GroupVersion, Subresource};
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::registry::Res;

const MEDIA: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMED: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const META: &str = "meta/v1";

fn text(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
}

fn flag(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "boolean", "uniqueItems": true}})
}

fn number(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "integer", "uniqueItems": true}})
}

fn segment(name: &str, what: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": what,
        "schema": {"type": "string", "uniqueItems": true}})
}

fn list_parameters() -> Vec<Value> {
    vec![
        flag("allowWatchBookmarks"),
        text("continue"),
        text("fieldSelector"),
        text("labelSelector"),
        number("limit"),
        text("resourceVersion"),
        text("resourceVersionMatch"),
        flag("sendInitialEvents"),
        number("timeoutSeconds"),
        flag("watch"),
    ]
}

fn content(media: &[&str], schema: &Value) -> Value {
    media.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

/// Builds the operations of one resource or sub-resource.
struct Operations<'a> {
    res: &'a Res,
    used: &'a mut Schemas,
    kind: &'a str,
    api_version: String,
    subresource: &'a str,
}

impl Operations<'_> {
    fn schema(&mut self, api_version: &str, kind: &str) -> Value {
        match pintle_schema::kind(api_version, kind) {
            Some(ty) => self.used.reference(ty),
            None => json!({"type": "string"}),
        }
    }

    fn meta(&mut self, name: &str) -> Value {
        match pintle_schema::named(META, name) {
            Some(ty) => self.used.reference(ty),
            None => json!({"type": "object"}),
        }
    }

    fn operation(&self, verb: &str, action: &str, all: bool, collection: bool) -> Value {
        let d = self.res.def;
        let gv = GroupVersion::parse(&self.api_version);
        let title = |s: &str| {
            let mut c = s.chars();
            c.next().map(|f| f.to_uppercase().collect::<String>() + c.as_str()).unwrap_or_default()
        };
        let group = d.group.split('.').next().unwrap_or_default();
        let group = if group.is_empty() { "core" } else { group };
        let scope = if d.namespaced && !all { "Namespaced" } else { "" };
        let plural = if all { "ForAllNamespaces" } else { "" };
        let verb = if collection && verb == "delete" { "deleteCollection" } else { verb };
        let id =
            format!("{verb}{}{}{scope}{}{}{plural}", title(group), title(d.version), d.kind, title(self.subresource));
        json!({
            "tags": [format!("{group}_{}", d.version)],
            "operationId": id,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": gv.group, "version": gv.version, "kind": self.kind},
        })
    }

    fn responses(&self, schema: &Value, codes: &[(&str, &str)], media: &[&str]) -> Value {
        let mut out = Map::new();
        for (code, what) in codes {
            out.insert((*code).to_owned(), json!({"description": what, "content": content(media, schema)}));
        }
        out.insert("401".into(), json!({"description": "Unauthorized"}));
        out.into()
    }

    fn of_object(&mut self, verbs: &[&str]) -> Map<String, Value> {
        let mut out = Map::new();
        let api_version = self.api_version.clone();
        let schema = self.schema(&api_version, self.kind);
        for verb in verbs {
            let (method, mut op) = match *verb {
                "get" => ("get", self.operation("read", "get", false, false)),
                "update" => ("put", self.operation("replace", "put", false, false)),
                "patch" => ("patch", self.operation("patch", "patch", false, false)),
                "delete" => ("delete", self.operation("delete", "delete", false, false)),
                "create" if !self.subresource.is_empty() => ("post", self.operation("create", "post", false, false)),
                _ => continue,
            };
            let mut codes = vec![("200", "OK")];
            let mut answer = schema.clone();
            match method {
                "put" | "post" => {
                    op["parameters"] = json!([text("dryRun"), text("fieldManager"), text("fieldValidation")]);
                    op["requestBody"] = json!({"required": true, "content": {"*/*": {"schema": schema}}});
                    codes.push(("201", "Created"));
                }
                "patch" => {
                    op["parameters"] =
                        json!([text("dryRun"), text("fieldManager"), text("fieldValidation"), flag("force")]);
                    let patch = self.meta("Patch");
                    op["requestBody"] = json!({"required": true, "content": content(PATCHES, &patch)});
                    codes.push(("201", "Created"));
                }
                "delete" => {
                    op["parameters"] = json!([
                        text("dryRun"),
                        number("gracePeriodSeconds"),
                        flag("ignoreStoreReadErrorWithClusterBreakingPotential"),
                        flag("orphanDependents"),
                        text("propagationPolicy")
                    ]);
                    let options = self.meta("DeleteOptions");
                    op["requestBody"] = json!({"content": {"*/*": {"schema": options}}});
                    answer = self.meta("Status");
                    codes.push(("202", "Accepted"));
                }
                _ => {}
            }
            op["responses"] = self.responses(&answer, &codes, MEDIA);
            out.insert(method.to_owned(), op);
        }
        out
    }

    fn of_collection(&mut self, verbs: &[&str], all: bool) -> Map<String, Value> {
        let mut out = Map::new();
        let api_version = self.api_version.clone();
        let schema = self.schema(&api_version, self.kind);
        if verbs.contains(&"list") {
            let list = self.schema(&api_version, &format!("{}List", self.kind));
            let mut op = self.operation("list", "list", all, true);
            op["parameters"] = list_parameters().into();
            op["responses"] = self.responses(&list, &[("200", "OK")], STREAMED);
            out.insert("get".into(), op);
        }
        if !all && verbs.contains(&"create") {
            let mut op = self.operation("create", "post", false, true);
            op["parameters"] = json!([text("dryRun"), text("fieldManager"), text("fieldValidation")]);
            op["requestBody"] = json!({"required": true, "content": {"*/*": {"schema": schema}}});
            let codes = [("200", "OK"), ("201", "Created"), ("202", "Accepted")];
            op["responses"] = self.responses(&schema, &codes, MEDIA);
            out.insert("post".into(), op);
        }
        if !all && verbs.contains(&"deletecollection") {
            let mut op = self.operation("delete", "deletecollection", false, true);
            let mut p = list_parameters();
            p.extend([
                text("dryRun"),
                number("gracePeriodSeconds"),
                flag("orphanDependents"),
                text("propagationPolicy"),
            ]);
            op["parameters"] = p.into();
            let status = self.meta("Status");
            op["responses"] = self.responses(&status, &[("200", "OK")], MEDIA);
            out.insert("delete".into(), op);
        }
        out
    }
}

fn insert(paths: &mut Map<String, Value>, path: String, mut item: Map<String, Value>, namespaced: bool, named: bool) {
    if item.is_empty() {
        return;
    }
    let mut parameters = Vec::new();
    if named {
        parameters.push(segment("name", "name of the object"));
    }
    if namespaced {
        parameters.push(segment("namespace", "object name and auth scope, such as for teams and projects"));
    }
    parameters.push(text("pretty"));
    item.insert("parameters".into(), parameters.into());
    paths.insert(path, item.into());
}

fn sub_path(paths: &mut Map<String, Value>, res: &Arc<Res>, one: &str, sub: &Subresource, used: &mut Schemas) {
    let api_version = sub.api_version.map_or_else(|| res.api_version.clone(), str::to_owned);
    let mut ops = Operations { res, used, kind: sub.kind, api_version, subresource: sub.name };
    let item = ops.of_object(&sub.verbs);
    insert(paths, format!("{one}/{}", sub.name), item, res.def.namespaced, true);
}

/// Adds a resource's paths.
pub(super) fn add(paths: &mut Map<String, Value>, res: &Arc<Res>, used: &mut Schemas) {
    let d = res.def;
    let collection = d.path(Some("{namespace}"));
    let one = format!("{collection}/{{name}}");
    let (of_all, of_one) = {
        let mut ops = Operations { res, used, kind: d.kind, api_version: res.api_version.clone(), subresource: "" };
        (ops.of_collection(&d.verbs, false), ops.of_object(&d.verbs))
    };
    insert(paths, collection, of_all, d.namespaced, false);
    insert(paths, one.clone(), of_one, d.namespaced, true);
    if d.namespaced {
        let mut ops = Operations { res, used, kind: d.kind, api_version: res.api_version.clone(), subresource: "" };
        let item = ops.of_collection(&d.verbs, true);
        insert(paths, d.path(None), item, false, false);
    }
    for sub in &d.subresources {
        sub_path(paths, res, &one, sub, used);
    }
}

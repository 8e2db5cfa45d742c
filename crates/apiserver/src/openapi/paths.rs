//! The paths of a resource and the operations on them, as OpenAPI v3 writes them.

use std::sync::Arc;

use pintle_api::resources::{GroupVersion, Subresource};
use serde_json::{Map, Value, json};

use super::parameters::{self, hoist, query, segment};
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
const LOGS: &[&str] = &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const ANY: &[&str] = &["*/*"];
const META: &str = "meta/v1";

/// Paths in the order they are to be written.
pub(super) type Paths = std::collections::BTreeMap<String, Value>;

fn title(s: &str) -> String {
    let mut c = s.chars();
    c.next().map(|f| f.to_uppercase().collect::<String>() + c.as_str()).unwrap_or_default()
}

/// The name of a group in identifiers: `rbac.authorization.k8s.io` is `rbacAuthorization`.
pub(super) fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "core".into();
    }
    let mut words = group.trim_end_matches(".k8s.io").split('.');
    words.next().unwrap_or_default().to_owned() + &words.map(title).collect::<String>()
}

fn content(media: &[&str], schema: &Value) -> Value {
    media.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

fn responses(schema: &Value, codes: &[(&str, &str)], media: &[&str]) -> Value {
    let mut out = Map::new();
    for (code, what) in codes {
        out.insert((*code).to_owned(), json!({"description": what, "content": content(media, schema)}));
    }
    out.insert("401".into(), json!({"description": "Unauthorized"}));
    out.into()
}

const OK: (&str, &str) = ("200", "OK");
const CREATED: (&str, &str) = ("201", "Created");
const ACCEPTED: (&str, &str) = ("202", "Accepted");

/// Kinds whose `DELETE` answers with the object.
fn answers_object(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(
            kind,
            "PersistentVolume"
                | "PersistentVolumeClaim"
                | "Pod"
                | "PodTemplate"
                | "ResourceQuota"
                | "Service"
                | "ServiceAccount"
        ),
        "storage.k8s.io" => kind != "CSIStorageCapacity",
        "resource.k8s.io" => true,
        _ => false,
    }
}

/// Builds the operations of one resource or sub-resource.
struct Operations<'a, 'b> {
    res: &'a Res,
    used: &'a mut Schemas<'b>,
    kind: &'a str,
    api_version: String,
    subresource: &'a str,
    /// The path is that of a collection over all namespaces.
    all: bool,
}

impl Operations<'_, '_> {
    fn schema(&mut self, kind: &str) -> Value {
        match pintle_schema::kind(&self.api_version, kind) {
            Some(ty) => self.used.reference(ty),
            None => json!({"type": "string"}),
        }
    }

    fn meta(&mut self, name: &str) -> Value {
        match pintle_schema::named(META, name) {
            Some(ty) => self.used.reference(ty),
            None => self.used.patch(),
        }
    }

    /// `verb` begins the identifier, `middle` stands before the kind; `action` is upstream's word for what is done.
    fn operation(&self, verb: &str, middle: &str, tail: &str, action: &str, text: &str) -> Value {
        let d = self.res.def;
        let gv = GroupVersion::parse(&self.api_version);
        let scope = if d.namespaced && !self.all { "Namespaced" } else { "" };
        let everywhere = if self.all { "ForAllNamespaces" } else { "" };
        let group = group_name(d.group);
        let (big_group, version, sub) = (title(&group), title(d.version), title(self.subresource));
        // Upstream names these after the resource's kind, and their options apart.
        let id = format!("{verb}{big_group}{version}{middle}{scope}{}{sub}{tail}{everywhere}", d.kind);
        json!({
            "tags": [format!("{group}_{}", d.version)],
            "description": text,
            "operationId": id,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": gv.group, "version": gv.version, "kind": self.kind},
        })
    }

    /// `read the specified Pod`, `read status of the specified Pod`.
    fn described(&self, verb: &str, article: &str) -> String {
        let kind = self.res.def.kind;
        let article = match article {
            "a" if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => "an",
            other => other,
        };
        match self.subresource {
            "" => format!("{verb} {article} {kind}"),
            sub => format!("{verb} {sub} of {article} {kind}"),
        }
    }

    fn of_object(&mut self, verbs: &[&str]) -> Map<String, Value> {
        let mut out = Map::new();
        let schema = self.schema(self.kind);
        let is_main = self.subresource.is_empty();
        for verb in verbs {
            let (method, mut op, takes) = match *verb {
                "get" if self.subresource == "log" => {
                    let mut op = self.operation("read", "", "", "get", &self.described("read", "the specified"));
                    op["parameters"] = query(parameters::connect("PodLogOptions")).into();
                    op["responses"] = responses(&json!({"type": "string"}), &[OK], LOGS);
                    out.insert("get".into(), op);
                    continue;
                }
                "get" => (
                    "get",
                    self.operation("read", "", "", "get", &self.described("read", "the specified")),
                    parameters::READ,
                ),
                "update" => (
                    "put",
                    self.operation("replace", "", "", "put", &self.described("replace", "the specified")),
                    parameters::WRITE,
                ),
                "patch" => (
                    "patch",
                    self.operation("patch", "", "", "patch", &self.described("partially update", "the specified")),
                    parameters::PATCH,
                ),
                "delete" => (
                    "delete",
                    self.operation("delete", "", "", "delete", &self.described("delete", "a")),
                    parameters::DELETE,
                ),
                "create" if !is_main => (
                    "post",
                    self.operation("create", "", "", "post", &self.described("create", "a")),
                    parameters::WRITE,
                ),
                _ => continue,
            };
            op["parameters"] = query(takes).into();
            let mut codes = vec![OK];
            let mut answer = schema.clone();
            match method {
                "put" | "post" => {
                    op["requestBody"] = json!({"required": true, "content": content(ANY, &schema)});
                    codes.push(CREATED);
                    if method == "post" {
                        codes.push(ACCEPTED);
                    }
                }
                "patch" => {
                    let patch = self.meta("Patch");
                    op["requestBody"] = json!({"required": true, "content": content(PATCHES, &patch)});
                    codes.push(CREATED);
                }
                "delete" => {
                    let options = self.meta("DeleteOptions");
                    op["requestBody"] = json!({"content": content(ANY, &options)});
                    if !answers_object(self.res.def.group, self.kind) {
                        answer = self.meta("Status");
                    }
                    codes.push(ACCEPTED);
                }
                _ => {}
            }
            op["responses"] = responses(&answer, &codes, MEDIA);
            out.insert(method.to_owned(), op);
        }
        out
    }

    fn of_collection(&mut self, verbs: &[&str]) -> Map<String, Value> {
        let mut out = Map::new();
        let schema = self.schema(self.kind);
        if verbs.contains(&"list") {
            let list = self.schema(&format!("{}List", self.kind));
            let watches = verbs.contains(&"watch");
            let what = if watches { "list or watch" } else { "list" };
            let mut op = self.operation("list", "", "", "list", &format!("{what} objects of kind {}", self.kind));
            op["parameters"] = query(parameters::LIST).into();
            op["responses"] = responses(&list, &[OK], STREAMED);
            out.insert("get".into(), op);
        }
        if !self.all && verbs.contains(&"create") {
            let mut op = self.operation("create", "", "", "post", &self.described("create", "a"));
            op["parameters"] = query(parameters::WRITE).into();
            op["requestBody"] = json!({"required": true, "content": content(ANY, &schema)});
            op["responses"] = responses(&schema, &[OK, CREATED, ACCEPTED], MEDIA);
            out.insert("post".into(), op);
        }
        if !self.all && verbs.contains(&"deletecollection") {
            let text = format!("delete collection of {}", self.kind);
            let mut op = self.operation("delete", "Collection", "", "deletecollection", &text);
            op["parameters"] = query(parameters::DELETE_COLLECTION).into();
            let options = self.meta("DeleteOptions");
            op["requestBody"] = json!({"content": content(ANY, &options)});
            let status = self.meta("Status");
            op["responses"] = responses(&status, &[OK], MEDIA);
            out.insert("delete".into(), op);
        }
        out
    }

    /// The old form of a watch.
    fn of_watch(&mut self, collection: bool) -> Map<String, Value> {
        let event = self.meta("WatchEvent");
        let (tail, action, text) = if collection {
            (
                "List",
                "watchlist",
                format!(
                    "watch individual changes to a list of {}. deprecated: use the 'watch' parameter with a list operation instead.",
                    self.kind
                ),
            )
        } else {
            (
                "",
                "watch",
                format!(
                    "watch changes to an object of kind {}. deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter.",
                    self.kind
                ),
            )
        };
        let mut op = self.operation("watch", "", tail, action, &text);
        op["parameters"] = query(parameters::LIST).into();
        op["responses"] = responses(&event, &[OK], STREAMED);
        [("get".to_owned(), op)].into_iter().collect()
    }

    /// What passes the connection on: to a container, or through a proxy.
    fn of_connection(&mut self, with_path: bool) -> Map<String, Value> {
        let proxy = self.subresource == "proxy";
        let methods: &[&str] =
            if proxy { &["get", "put", "post", "delete", "options", "head", "patch"] } else { &["get", "post"] };
        let tail = if with_path { "WithPath" } else { "" };
        let mut out = Map::new();
        for method in methods {
            let text =
                format!("connect {} requests to {} of {}", method.to_uppercase(), self.subresource, self.res.def.kind);
            let mut op = self.operation("connect", &title(method), tail, "connect", &text);
            op["parameters"] = query(parameters::connect(self.kind)).into();
            op["responses"] = responses(&json!({"type": "string"}), &[OK], ANY);
            out.insert((*method).to_owned(), op);
        }
        out
    }
}

fn insert(paths: &mut Paths, path: String, mut item: Map<String, Value>, segments: Vec<Value>) {
    if item.is_empty() {
        return;
    }
    hoist(&mut item);
    if !segments.is_empty() {
        let mut all = segments;
        if let Some(Value::Array(more)) = item.remove("parameters") {
            all.extend(more);
        }
        all.sort_by_key(|p| p["name"].as_str().unwrap_or_default().to_owned());
        item.insert("parameters".into(), all.into());
    }
    paths.insert(path, item.into());
}

fn namespace() -> Value {
    segment("namespace", "object name and auth scope, such as for teams and projects")
}

/// Adds a resource's paths.
pub(super) fn add(paths: &mut Paths, res: &Arc<Res>, used: &mut Schemas<'_>) {
    let d = res.def;
    let collection = d.path(Some("{namespace}"));
    let one = format!("{collection}/{{name}}");
    let (root, below) = collection
        .split_at(collection.match_indices('/').nth(if d.group.is_empty() { 2 } else { 3 }).map_or(0, |(i, _)| i));
    let (root, below) = (root.to_owned(), below.to_owned());
    let around = || if d.namespaced { vec![namespace()] } else { Vec::new() };
    let named = |kind: &str| {
        let mut all = around();
        all.push(segment("name", &format!("name of the {kind}")));
        all
    };
    let mut ops =
        Operations { res, used, kind: d.kind, api_version: res.api_version.clone(), subresource: "", all: false };
    insert(paths, collection.clone(), ops.of_collection(&d.verbs), around());
    insert(paths, one.clone(), ops.of_object(&d.verbs), named(d.kind));
    if d.verbs.contains(&"watch") {
        insert(paths, format!("{root}/watch{below}"), ops.of_watch(true), around());
        insert(paths, format!("{root}/watch{below}/{{name}}"), ops.of_watch(false), named(d.kind));
    }
    if d.namespaced {
        ops.all = true;
        insert(paths, d.path(None), ops.of_collection(&d.verbs), Vec::new());
        if d.verbs.contains(&"watch") {
            insert(paths, format!("{root}/watch/{}", d.resource), ops.of_watch(true), Vec::new());
        }
    }
    for sub in &d.subresources {
        add_sub(paths, res, &one, sub, &named, used);
    }
}

fn add_sub(
    paths: &mut Paths,
    res: &Arc<Res>,
    one: &str,
    sub: &Subresource,
    named: &dyn Fn(&str) -> Vec<Value>,
    used: &mut Schemas<'_>,
) {
    let api_version = sub.api_version.map_or_else(|| res.api_version.clone(), str::to_owned);
    let mut ops = Operations { res, used, kind: sub.kind, api_version, subresource: sub.name, all: false };
    let path = format!("{one}/{}", sub.name);
    if sub.kind.ends_with("Options") {
        insert(paths, path.clone(), ops.of_connection(false), named(sub.kind));
        if sub.name == "proxy" {
            let mut segments = named(sub.kind);
            segments.push(segment("path", "path to the resource"));
            insert(paths, format!("{path}/{{path}}"), ops.of_connection(true), segments);
        }
    } else {
        insert(paths, path, ops.of_object(&sub.verbs), named(sub.kind));
    }
}

/// A path that tells what there is.
fn informs(paths: &mut Paths, path: &str, id: &str, tag: &str, text: &str, schema: &Value, media: &[&str]) {
    let op = json!({"get": {
        "tags": [tag],
        "description": text,
        "operationId": id,
        "responses": responses(schema, &[OK], media),
    }});
    paths.insert(path.to_owned(), op);
}

/// Adds the paths that are of no resource: `what` is a document's path, such as `apis/apps/v1`, `apis/apps` or
/// `version`.
pub(super) fn add_root(paths: &mut Paths, what: &str, used: &mut Schemas<'_>) {
    let mut of = |name: &str| pintle_schema::named(META, name).map_or_else(|| json!({}), |ty| used.reference(ty));
    let path = format!("/{what}/");
    match what.split('/').collect::<Vec<_>>().as_slice() {
        ["api"] => {
            let text = "get available API versions";
            informs(paths, &path, "getCoreAPIVersions", "core", text, &of("APIVersions"), MEDIA);
        }
        ["apis"] => {
            let text = "get available API versions";
            informs(paths, &path, "getAPIVersions", "apis", text, &of("APIGroupList"), MEDIA);
        }
        ["apis", group] => {
            let name = group_name(group);
            let id = format!("get{}APIGroup", title(&name));
            informs(paths, &path, &id, &name, "get information of a group", &of("APIGroup"), MEDIA);
        }
        ["api", version] => {
            let id = format!("getCore{}APIResources", title(version));
            let tag = format!("core_{version}");
            informs(paths, &path, &id, &tag, "get available resources", &of("APIResourceList"), MEDIA);
        }
        ["apis", group, version] => {
            let name = group_name(group);
            let id = format!("get{}{}APIResources", title(&name), title(version));
            let tag = format!("{name}_{version}");
            informs(paths, &path, &id, &tag, "get available resources", &of("APIResourceList"), MEDIA);
        }
        ["version"] => {
            let schema = used.version_info();
            let text = "get the version information for this server";
            informs(paths, &path, "getCodeVersion", "version", text, &schema, &MEDIA[..1]);
        }
        ["openid", ..] => {
            let text = "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)";
            let id = "getServiceAccountIssuerOpenIDKeyset";
            let media = &["application/jwk-set+json"];
            informs(paths, &path, id, "openid", text, &json!({"type": "string"}), media);
        }
        [".well-known", ..] => {
            let text = "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'";
            let id = "getServiceAccountIssuerOpenIDConfiguration";
            informs(paths, &path, id, "WellKnown", text, &json!({"type": "string"}), &MEDIA[..1]);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups() {
        for (group, want) in [
            ("", "core"),
            ("apps", "apps"),
            ("rbac.authorization.k8s.io", "rbacAuthorization"),
            ("flowcontrol.apiserver.k8s.io", "flowcontrolApiserver"),
        ] {
            assert_eq!(group_name(group), want);
        }
    }
}

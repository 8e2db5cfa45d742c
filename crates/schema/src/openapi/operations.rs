//! The paths of a resource and what can be done at each, independent of the document's flavour.

use pintle_api::resources::{GroupVersion, Resource, Subresource};

use super::names;
use crate::table::{Type, kind};

/// What an operation does, as the extension `x-kubernetes-action` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Get,
    List,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
    Watch,
    WatchList,
    Connect,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Watch => "watch",
            Self::WatchList => "watchlist",
            Self::Connect => "connect",
        }
    }
}

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) action: Action,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    /// Group, version and kind it is about.
    pub(super) gvk: (String, String, &'static str),
    /// What it takes.
    pub(super) body: Option<&'static Type>,
    /// What it answers; text when `None`.
    pub(super) answer: Option<&'static Type>,
}

/// One path.
pub(super) struct Path {
    pub(super) path: String,
    pub(super) namespaced: bool,
    pub(super) named: bool,
    /// What `{name}` names.
    pub(super) kind: &'static str,
    /// The rest of a proxied path.
    pub(super) proxied: bool,
    pub(super) operations: Vec<Operation>,
}

struct Maker<'r> {
    r: &'r Resource,
    ty: &'static Type,
    list: Option<&'static Type>,
}

/// Every path of a resource.
pub(super) fn of(r: &Resource) -> Vec<Path> {
    let Some(ty) = kind(&r.api_version(), r.kind) else { return Vec::new() };
    let list = kind(&r.api_version(), &format!("{}List", r.kind));
    let maker = Maker { r, ty, list };
    let base = if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
    let here = if r.namespaced { "/namespaces/{namespace}" } else { "" };
    let mut out = vec![maker.path(format!("{base}{here}/{}", r.resource), r.namespaced, false, maker.collection())];
    if r.namespaced && r.has_verb("list") {
        let id = format!("{}{}ForAllNamespaces", names::group_version(r), r.kind);
        let op = maker.operation("get", Action::List, format!("list{id}"), None, maker.list);
        out.push(maker.path(format!("{base}/{}", r.resource), false, false, vec![op]));
    }
    let item = maker.item();
    if !item.is_empty() {
        out.push(maker.path(format!("{base}{here}/{}/{{name}}", r.resource), r.namespaced, true, item));
    }
    for s in &r.subresources {
        maker.subresource(&format!("{base}{here}/{}/{{name}}/{}", r.resource, s.name), s, &mut out);
    }
    if r.has_verb("watch") {
        maker.watches(&base, here, &mut out);
    }
    out.retain(|p| !p.operations.is_empty());
    out
}

impl Maker<'_> {
    fn path(&self, path: String, namespaced: bool, named: bool, operations: Vec<Operation>) -> Path {
        Path { path, namespaced, named, kind: self.r.kind, proxied: false, operations }
    }

    fn scoped(&self) -> String {
        format!("{}{}", if self.r.namespaced { "Namespaced" } else { "" }, self.r.kind)
    }

    fn operation(
        &self,
        method: &'static str,
        action: Action,
        id: String,
        body: Option<&'static Type>,
        answer: Option<&'static Type>,
    ) -> Operation {
        let what = match action {
            Action::Get => "read the specified",
            Action::List => "list or watch objects of kind",
            Action::Post => "create a",
            Action::Put => "replace the specified",
            Action::Patch => "partially update the specified",
            Action::Delete => "delete a",
            Action::DeleteCollection => "delete collection of",
            Action::Watch => "watch changes to an object of kind",
            Action::WatchList => "watch individual changes to a list of",
            Action::Connect => "connect requests to",
        };
        Operation {
            method,
            action,
            id,
            tag: names::tag(self.r),
            description: format!("{what} {}", self.r.kind),
            gvk: (self.r.group.to_owned(), self.r.version.to_owned(), self.r.kind),
            body,
            answer,
        }
    }

    fn collection(&self) -> Vec<Operation> {
        let (gv, scoped) = (names::group_version(self.r), self.scoped());
        let mut out = Vec::new();
        if self.r.has_verb("list") {
            out.push(self.operation("get", Action::List, format!("list{gv}{scoped}"), None, self.list));
        }
        if self.r.has_verb("create") {
            out.push(self.operation("post", Action::Post, format!("create{gv}{scoped}"), Some(self.ty), Some(self.ty)));
        }
        if self.r.has_verb("deletecollection") {
            let id = format!("delete{gv}Collection{scoped}");
            out.push(self.operation("delete", Action::DeleteCollection, id, delete_options(), status()));
        }
        out
    }

    fn item(&self) -> Vec<Operation> {
        let (gv, scoped) = (names::group_version(self.r), self.scoped());
        let mut out = Vec::new();
        for (verb, method, action, word) in [
            ("get", "get", Action::Get, "read"),
            ("update", "put", Action::Put, "replace"),
            ("patch", "patch", Action::Patch, "patch"),
            ("delete", "delete", Action::Delete, "delete"),
        ] {
            if !self.r.has_verb(verb) {
                continue;
            }
            let (body, answer) = match action {
                Action::Put => (Some(self.ty), Some(self.ty)),
                // Some kinds are answered whole by upstream even when they are gone.
                Action::Delete if matches!(self.r.resource, "pods" | "services" | "persistentvolumes" | "persistentvolumeclaims" | "serviceaccounts" | "podtemplates" | "resourcequotas") => {
                    (delete_options(), Some(self.ty))
                }
                Action::Delete => (delete_options(), status()),
                _ => (None, Some(self.ty)),
            };
            out.push(self.operation(method, action, format!("{word}{gv}{scoped}"), body, answer));
        }
        out
    }

    fn subresource(&self, path: &str, s: &Subresource, out: &mut Vec<Path>) {
        let (gv, scoped) = (names::group_version(self.r), self.scoped());
        let suffix = names::subresource(s.name);
        let api_version = s.api_version.map_or_else(|| self.r.api_version(), str::to_owned);
        let connects = s.kind.ends_with("Options");
        let ty = kind(&api_version, s.kind);
        let about = GroupVersion::parse(&api_version);
        let about = (about.group.to_owned(), about.version.to_owned(), s.kind);
        let methods = |path: &str, id_suffix: &str| -> Vec<Operation> {
            let verbs: &[(&str, &'static str, Action, &str)] = &[
                ("get", "get", Action::Get, "read"),
                ("create", "post", Action::Post, "create"),
                ("update", "put", Action::Put, "replace"),
                ("patch", "patch", Action::Patch, "patch"),
                ("delete", "delete", Action::Delete, "delete"),
            ];
            let mut ops = Vec::new();
            for (verb, method, action, word) in verbs.iter().filter(|v| s.verbs.contains(&v.0)) {
                let _ = (path, verb);
                let mut op = if connects {
                    let id = format!("connect{gv}{}{scoped}{suffix}{id_suffix}", method_title(method));
                    self.operation(method, Action::Connect, id, None, None)
                } else {
                    let body = matches!(action, Action::Post | Action::Put).then_some(ty).flatten();
                    let answer = if s.name == "log" { None } else { ty };
                    self.operation(method, *action, format!("{word}{gv}{scoped}{suffix}"), body, answer)
                };
                op.description = format!("{} {} of the specified {}", op.action.as_str(), s.name, self.r.kind);
                op.gvk.clone_from(&about);
                ops.push(op);
            }
            ops
        };
        out.push(self.path(path.to_owned(), self.r.namespaced, true, methods(path, "")));
        if s.name == "proxy" {
            let mut proxied = self.path(format!("{path}/{{path}}"), self.r.namespaced, true, methods(path, "WithPath"));
            proxied.proxied = true;
            out.push(proxied);
        }
    }

    fn watches(&self, base: &str, here: &str, out: &mut Vec<Path>) {
        let (gv, scoped, r) = (names::group_version(self.r), self.scoped(), self.r);
        let event = kind("v1", "WatchEvent");
        let list = |id: String| vec![self.operation("get", Action::WatchList, id, None, event)];
        out.push(self.path(format!("{base}/watch{here}/{}", r.resource), r.namespaced, false, list(format!("watch{gv}{scoped}List"))));
        if r.namespaced {
            let id = format!("watch{gv}{}ListForAllNamespaces", r.kind);
            out.push(self.path(format!("{base}/watch/{}", r.resource), false, false, list(id)));
        }
        let one = vec![self.operation("get", Action::Watch, format!("watch{gv}{scoped}"), None, event)];
        out.push(self.path(format!("{base}/watch{here}/{}/{{name}}", r.resource), r.namespaced, true, one));
    }
}

fn method_title(method: &str) -> &'static str {
    match method {
        "get" => "Get",
        "post" => "Post",
        "put" => "Put",
        "patch" => "Patch",
        _ => "Delete",
    }
}

fn delete_options() -> Option<&'static Type> {
    kind("v1", "DeleteOptions")
}

fn status() -> Option<&'static Type> {
    kind("v1", "Status")
}

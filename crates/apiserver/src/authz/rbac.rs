//! Role-based access control: roles and bindings, indexed by subject.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use pintle_api::object::Object;
use pintle_api::service::UserInfo;
use pintle_schema::quote::quoted;
use serde::{Deserialize, Serialize};

use super::{Attributes, Decision};

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    #[serde(default)]
    pub(crate) verbs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    #[serde(default, rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) non_resource_urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|s| s == "*" || s == wanted)
}

impl Rule {
    /// Whether it allows what is asked.
    pub(crate) fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource {
            return self.non_resource_urls.iter().any(|u| url_matches(u, a.path));
        }
        has(&self.api_groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == a.name))
    }
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some(("*", sub)) => sub == subresource,
        Some((r, sub)) => r == resource && sub == subresource,
        None => false,
    }
}

/// Whether a URL of a rule (which may end in `*`) covers a path.
pub(crate) fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|p| path.starts_with(p.trim_end_matches('*')))
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct RoleView {
    metadata: Meta,
    #[serde(default)]
    rules: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RoleRef {
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingView {
    metadata: Meta,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
}

/// A binding, as seen by one of its subjects.
#[derive(Debug)]
struct Grant {
    binding: String,
    /// Empty for cluster role bindings.
    namespace: String,
    role: RoleRef,
    /// The subject, as messages name it.
    subject: String,
}

/// Which of the four kinds an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

#[derive(Default)]
struct Index {
    roles: HashMap<(String, String), Arc<Vec<Rule>>>,
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

/// Roles and bindings, kept up to date by watch events.
#[derive(Default)]
pub(crate) struct Rbac {
    objects: Mutex<HashMap<(Kind, String), Arc<Object>>>,
    /// `None` when something changed since it was made.
    index: RwLock<Option<Arc<Index>>>,
}

impl Rbac {
    /// An object came, changed or (`None`) went.
    pub(crate) fn put(&self, kind: Kind, key: &str, object: Option<Arc<Object>>) {
        let mut all = self.objects.lock();
        match object {
            Some(o) => all.insert((kind, key.to_owned()), o),
            None => all.remove(&(kind, key.to_owned())),
        };
        *self.index.write() = None;
    }

    /// Forgets all objects of a kind.
    pub(crate) fn clear(&self, kind: Kind) {
        self.objects.lock().retain(|(k, _), _| *k != kind);
        *self.index.write() = None;
    }

    fn index(&self) -> Arc<Index> {
        if let Some(index) = &*self.index.read() {
            return Arc::clone(index);
        }
        let objects = self.objects.lock();
        let made = Arc::new(build(&objects));
        *self.index.write() = Some(Arc::clone(&made));
        made
    }

    /// Whether a grant of the user allows this.
    pub(crate) fn decide(&self, a: &Attributes<'_>) -> Decision {
        let index = self.index();
        let mut missing = Vec::new();
        for grant in grants(&index, a.user) {
            if !grant.namespace.is_empty() && (!a.is_resource || grant.namespace != a.namespace) {
                continue;
            }
            match rules(&index, grant) {
                Some(rules) => {
                    if rules.iter().any(|r| r.allows(a)) {
                        return Decision::Allow(reason(grant));
                    }
                }
                None => missing.push(not_found(grant)),
            }
        }
        let text = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Decision::NoOpinion(text)
    }

    /// All rules that hold for a user in a namespace (cluster-wide ones too), and what could not be resolved.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let index = self.index();
        let mut out = Vec::new();
        let mut missing = Vec::new();
        for grant in grants(&index, user) {
            if grant.namespace.is_empty() || grant.namespace == namespace {
                match rules(&index, grant) {
                    Some(r) => out.extend(r.iter().cloned()),
                    None => missing.push(not_found(grant)),
                }
            }
        }
        (out, missing)
    }

    /// The rules of a role: of the cluster when `namespace` is empty.
    pub(crate) fn role(&self, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        self.index().roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

fn grants<'a>(index: &'a Index, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
    let by_user = index.users.get(&user.name).into_iter().flatten();
    let by_group = user.groups.iter().flat_map(|g| index.groups.get(g).into_iter().flatten());
    // Cluster-wide grants first, as upstream looks at them.
    let all: Vec<&Grant> = by_user.chain(by_group).map(|g| &**g).collect();
    let (wide, narrow): (Vec<_>, Vec<_>) = all.into_iter().partition(|g| g.namespace.is_empty());
    wide.into_iter().chain(narrow)
}

fn rules<'a>(index: &'a Index, grant: &Grant) -> Option<&'a Arc<Vec<Rule>>> {
    let namespace = if grant.role.kind == "Role" { grant.namespace.clone() } else { String::new() };
    index.roles.get(&(namespace, grant.role.name.clone()))
}

fn not_found(grant: &Grant) -> String {
    let resource = if grant.role.kind == "Role" { "role" } else { "clusterrole" };
    format!("{resource}.rbac.authorization.k8s.io {} not found", quoted(&grant.role.name))
}

fn reason(grant: &Grant) -> String {
    let binding = if grant.namespace.is_empty() {
        format!("ClusterRoleBinding {}", quoted(&grant.binding))
    } else {
        format!("RoleBinding {}", quoted(&format!("{}/{}", grant.binding, grant.namespace)))
    };
    format!("RBAC: allowed by {binding} of {} {} to {}", grant.role.kind, quoted(&grant.role.name), grant.subject)
}

fn build(objects: &HashMap<(Kind, String), Arc<Object>>) -> Index {
    let mut index = Index::default();
    let mut bindings: Vec<_> = Vec::new();
    for ((kind, key), object) in objects {
        match kind {
            Kind::Role | Kind::ClusterRole => {
                if let Ok(view) = object.view::<RoleView>() {
                    let rules = Arc::new(view.rules.unwrap_or_default());
                    index.roles.insert((view.metadata.namespace, view.metadata.name), rules);
                }
            }
            Kind::RoleBinding | Kind::ClusterRoleBinding => bindings.push((key, object)),
        }
    }
    bindings.sort_by(|a, b| a.0.cmp(b.0));
    for (_, object) in bindings {
        let Ok(view) = object.view::<BindingView>() else { continue };
        for subject in view.subjects.unwrap_or_default() {
            let namespace = view.metadata.namespace.clone();
            let grant = |subject: String| {
                Arc::new(Grant {
                    binding: view.metadata.name.clone(),
                    namespace: namespace.clone(),
                    role: view.role_ref.clone(),
                    subject,
                })
            };
            match subject.kind.as_str() {
                "User" => {
                    let g = grant(format!("User {}", quoted(&subject.name)));
                    index.users.entry(subject.name).or_default().push(g);
                }
                "Group" => {
                    let g = grant(format!("Group {}", quoted(&subject.name)));
                    index.groups.entry(subject.name).or_default().push(g);
                }
                "ServiceAccount" => {
                    let ns = if subject.namespace.is_empty() { &view.metadata.namespace } else { &subject.namespace };
                    if ns.is_empty() {
                        continue;
                    }
                    let g = grant(format!("ServiceAccount {}", quoted(&format!("{}/{ns}", subject.name))));
                    index.users.entry(format!("system:serviceaccount:{ns}:{}", subject.name)).or_default().push(g);
                }
                _ => {}
            }
        }
    }
    index
}

/// Whether `owned` rules cover every part of `wanted`; answers the parts that they do not.
pub(crate) fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let covers = |o: &Rule, w: &Rule| {
        let all = |own: &[String], want: &[String]| want.iter().all(|x| has(own, x));
        if !all(&o.verbs, &w.verbs) {
            return false;
        }
        if !w.non_resource_urls.is_empty() {
            return w.non_resource_urls.iter().all(|u| o.non_resource_urls.iter().any(|r| url_matches(r, u)));
        }
        all(&o.api_groups, &w.api_groups)
            && w.resources.iter().all(|r| {
                let (res, sub) = r.split_once('/').unwrap_or((r, ""));
                o.resources.iter().any(|own| own == r || resource_matches(own, res, sub))
            })
            && (o.resource_names.is_empty()
                || (!w.resource_names.is_empty() && w.resource_names.iter().all(|n| o.resource_names.contains(n))))
    };
    wanted.iter().flat_map(break_down).filter(|w| !owned.iter().any(|o| covers(o, w))).collect()
}

/// A rule as rules of one verb, group, resource and name each.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.non_resource_urls {
            out.push(Rule { verbs: vec![verb.clone()], non_resource_urls: vec![url.clone()], ..Rule::default() });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let one = Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    out.push(one);
                } else {
                    out.extend(
                        rule.resource_names.iter().map(|n| Rule { resource_names: vec![n.clone()], ..one.clone() }),
                    );
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(v: &serde_json::Value) -> Arc<Object> {
        Arc::new(Object::from_wire(v.to_string().into(), &[]).unwrap())
    }

    fn ask<'a>(
        user: &'a UserInfo,
        verb: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            user,
            verb,
            is_resource: true,
            group: "",

            resource,
            subresource,
            namespace,
            name,
            path: "",
            fields: "",
        }
    }

    fn rule(v: serde_json::Value) -> Rule {
        serde_json::from_value(v).unwrap()
    }

    #[test]
    fn decides() {
        let rbac = Rbac::default();
        rbac.put(
            Kind::ClusterRole,
            "view",
            Some(object(&json!({"metadata": {"name": "view"}, "rules": [
                {"apiGroups": [""], "resources": ["pods", "*/status"], "verbs": ["get", "list"]},
                {"nonResourceURLs": ["/healthz", "/logs/*"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["*"]}]}))),
        );
        rbac.put(
            Kind::RoleBinding,
            "n/b",
            Some(object(
                &json!({"metadata": {"name": "b", "namespace": "n"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
                "subjects": [{"kind": "ServiceAccount", "name": "sa"}, {"kind": "Group", "name": "g"}]}),
            )),
        );
        let sa = UserInfo::service_account("n", "sa");
        let other = UserInfo { name: "u".into(), groups: vec!["g".into()], ..UserInfo::default() };
        for (user, verb, res, ns, name, yes) in [
            (&sa, "get", "pods", "n", "x", true),
            (&other, "get", "pods", "n", "x", true),
            (&sa, "get", "pods", "m", "x", false),
            (&sa, "get", "pods", "", "x", false),
            (&sa, "delete", "pods", "n", "x", false),
            (&sa, "get", "pods/status", "n", "x", true),
            (&sa, "get", "pods/log", "n", "x", false),
            (&sa, "delete", "secrets", "n", "a", true),
            (&sa, "delete", "secrets", "n", "b", false),
            (&sa, "list", "secrets", "n", "", false),
        ] {
            let got = rbac.decide(&ask(user, verb, res, ns, name));
            assert_eq!(matches!(got, Decision::Allow(_)), yes, "{verb} {res} {ns} {got:?}");
        }
        assert_eq!(
            rbac.decide(&ask(&sa, "get", "pods", "n", "")),
            Decision::Allow(
                r#"RBAC: allowed by RoleBinding "b/n" of ClusterRole "view" to ServiceAccount "sa/n""#.into()
            )
        );
        rbac.put(Kind::ClusterRole, "view", None);
        assert_eq!(
            rbac.decide(&ask(&sa, "get", "pods", "n", "")),
            Decision::NoOpinion(r#"RBAC: clusterrole.rbac.authorization.k8s.io "view" not found"#.into())
        );
    }

    #[test]
    fn covers() {
        let own = [rule(json!({"verbs": ["get", "list"], "apiGroups": ["*"], "resources": ["pods", "*/scale"]}))];
        assert!(
            uncovered(
                &own,
                &[rule(json!({"verbs": ["get"], "apiGroups": ["", "apps"], "resources": ["pods", "x/scale"]}))]
            )
            .is_empty()
        );
        let left =
            uncovered(&own, &[rule(json!({"verbs": ["get", "watch"], "apiGroups": [""], "resources": ["pods"]}))]);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].verbs, ["watch"]);
        assert!(url_matches("/logs/*", "/logs/a/b") && !url_matches("/logs", "/logs/a") && url_matches("*", "/x"));
    }
}

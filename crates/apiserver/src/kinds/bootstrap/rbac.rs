//! Roles and bindings, from `rbac.txt`.

use pintle_api::features::{Feature, FeatureGates};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const GROUP: &str = "rbac.authorization.k8s.io";
const CONTROLLER: &str = "system:controller:";

/// What the table says, as objects.
struct Tables {
    cluster_roles: Vec<Value>,
    roles: Vec<Value>,
    cluster_role_bindings: Vec<Value>,
    role_bindings: Vec<Value>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| parse(include_str!("rbac.txt")));

/// The `ClusterRole`s.
pub fn cluster_roles() -> &'static [Value] {
    &TABLES.cluster_roles
}

/// What a `ClusterRole` may besides, with these features.
pub fn gated_rules(role: &str, features: &FeatureGates) -> Vec<Value> {
    let lines: &[&str] = match role {
        "system:kube-scheduler" if features.on(Feature::GenericWorkload) => {
            &["get,list,watch scheduling.k8s.io podgroups", "patch,update scheduling.k8s.io podgroups/status"]
        }
        _ => &[],
    };
    lines.iter().map(|line| rule(line)).collect()
}

/// The `ClusterRoleBinding`s.
pub fn cluster_role_bindings() -> &'static [Value] {
    &TABLES.cluster_role_bindings
}

/// The `Role`s, each with its namespace.
pub fn roles() -> &'static [Value] {
    &TABLES.roles
}

/// The `RoleBinding`s, each with its namespace.
pub fn role_bindings() -> &'static [Value] {
    &TABLES.role_bindings
}

/// Reads the table, which is part of the program: a line it cannot read would be left out, and the tests find it.
fn parse(text: &str) -> Tables {
    let mut out = Tables { cluster_roles: vec![], roles: vec![], cluster_role_bindings: vec![], role_bindings: vec![] };
    let mut namespaced = false;
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(head) = line.strip_prefix("role ") {
            let mut words = head.split(' ');
            let (namespace, name) = split(words.next().unwrap_or_default());
            namespaced = namespace.is_some();
            let mut role = object(if namespaced { "Role" } else { "ClusterRole" }, namespace, name);
            role["rules"] = Value::Array(Vec::new());
            for word in words {
                if let Some(label) = word.strip_prefix("label=") {
                    role["metadata"]["labels"][format!("{GROUP}/{label}")] = "true".into();
                } else if let Some(label) = word.strip_prefix("from=") {
                    let labels = Map::from_iter([(format!("{GROUP}/{label}"), "true".into())]);
                    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
                } else if word == "sa" {
                    let account = format!("sa:kube-system:{}", name.strip_prefix(CONTROLLER).unwrap_or(name));
                    out.cluster_role_bindings.push(binding(None, name, name, &[&account]));
                }
            }
            if namespaced { &mut out.roles } else { &mut out.cluster_roles }.push(role);
        } else if let Some(bind) = line.strip_prefix("bind ") {
            let (bind, role) = bind.split_once(" -> ").map_or((bind, None), |(b, r)| (b, Some(r)));
            let mut words = bind.split(' ');
            let (namespace, name) = split(words.next().unwrap_or_default());
            let subjects: Vec<&str> = words.collect();
            let binding = binding(namespace, name, role.unwrap_or(name), &subjects);
            if namespace.is_some() { &mut out.role_bindings } else { &mut out.cluster_role_bindings }.push(binding);
        } else if let Some(last) = if namespaced { out.roles.last_mut() } else { out.cluster_roles.last_mut() }
            && let Some(rules) = last["rules"].as_array_mut()
        {
            rules.push(rule(line.trim_start()));
        }
    }
    out
}

fn split(name: &str) -> (Option<&str>, &str) {
    name.split_once('/').map_or((None, name), |(ns, name)| (Some(ns), name))
}

fn object(kind: &str, namespace: Option<&str>, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn rule(line: &str) -> Value {
    let (line, names) = line.split_once(" = ").map_or((line, None), |(l, n)| (l, Some(n)));
    let mut words = line.split(' ');
    let verbs = list(words.next().unwrap_or_default());
    let group = words.next().unwrap_or_default();
    if group == "url" {
        return json!({"verbs": verbs, "nonResourceURLs": words.collect::<Vec<_>>()});
    }
    let groups: Vec<&str> = list(group).into_iter().map(|g| if g == "core" { "" } else { g }).collect();
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": list(words.next().unwrap_or_default())});
    if let Some(names) = names {
        rule["resourceNames"] = json!(list(names));
    }
    rule
}

fn list(words: &str) -> Vec<&str> {
    words.split(',').collect()
}

fn binding(namespace: Option<&str>, name: &str, role: &str, subjects: &[&str]) -> Value {
    let (kind, role_kind) =
        if namespace.is_some() { ("RoleBinding", "Role") } else { ("ClusterRoleBinding", "ClusterRole") };
    let mut object = object(kind, namespace, name);
    object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
    let subjects: Vec<Value> = subjects.iter().filter_map(|s| subject(s)).collect();
    if !subjects.is_empty() {
        object["subjects"] = Value::Array(subjects);
    }
    object
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    match kind {
        "group" => Some(json!({"kind": "Group", "apiGroup": GROUP, "name": name})),
        "user" => Some(json!({"kind": "User", "apiGroup": GROUP, "name": name})),
        "sa" => {
            let (namespace, name) = name.split_once(':')?;
            Some(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(list: &'a [Value], name: &str) -> &'a Value {
        list.iter().find(|o| o["metadata"]["name"] == name).unwrap()
    }

    #[test]
    fn every_line_is_read() {
        let text = include_str!("rbac.txt");
        let count = |prefix: &str| text.lines().filter(|l| l.starts_with(prefix)).count();
        let controllers = text.lines().filter(|l| l.ends_with(" sa")).count();
        assert_eq!(cluster_roles().len() + roles().len(), count("role "));
        assert_eq!(cluster_role_bindings().len() + role_bindings().len(), count("bind ") + controllers);
        let rules = |list: &[Value]| list.iter().map(|r| r["rules"].as_array().unwrap().len()).sum::<usize>();
        assert_eq!(rules(cluster_roles()) + rules(roles()), count(" "));
        for binding in cluster_role_bindings().iter().chain(role_bindings()) {
            let role = binding["roleRef"]["name"].as_str().unwrap();
            named(if binding["kind"] == "RoleBinding" { roles() } else { cluster_roles() }, role);
        }
        for rule in cluster_roles().iter().chain(roles()).flat_map(|r| r["rules"].as_array().unwrap()) {
            let lists: Vec<&Value> = ["verbs", "apiGroups", "resources", "nonResourceURLs", "resourceNames"]
                .iter()
                .filter_map(|k| rule.get(*k))
                .collect();
            assert!(lists.len() >= 2 && lists.iter().all(|l| !l.as_array().unwrap().is_empty()), "{rule}");
        }
    }

    #[test]
    fn rules_of_features() {
        let mut features = FeatureGates::default();
        assert_eq!(gated_rules("system:kube-scheduler", &features), Vec::<Value>::new());
        features.set(Feature::GenericWorkload, true);
        assert_eq!(gated_rules("system:kube-scheduler", &features)[1]["resources"], json!(["podgroups/status"]));
        assert_eq!(gated_rules("view", &features), Vec::<Value>::new());
    }

    #[test]
    fn shapes() {
        let admin = named(cluster_roles(), "admin");
        assert_eq!(
            admin["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"]["rbac.authorization.k8s.io/aggregate-to-admin"],
            "true"
        );
        let edit = named(cluster_roles(), "edit");
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        assert_eq!(
            named(cluster_roles(), "system:kube-dns")["rules"],
            json!([{"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["endpoints", "services"]}])
        );
        assert_eq!(
            named(cluster_role_bindings(), "system:controller:job-controller")["subjects"],
            json!([{"kind": "ServiceAccount", "namespace": "kube-system", "name": "job-controller"}])
        );
        assert_eq!(named(cluster_role_bindings(), "system:node").get("subjects"), None);
        let signer = roles().iter().filter(|r| r["metadata"]["name"] == "system:controller:bootstrap-signer").count();
        assert_eq!(signer, 2);
    }
}

//! Which flow a request belongs to: `FlowSchema`s read and matched.

use std::hash::{DefaultHasher, Hash, Hasher};

use pintle_api::object::Object;
use pintle_api::service::UserInfo;
use serde::Deserialize;

use crate::http::info::RequestInfo;

/// A `FlowSchema`.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) level: String,
    precedence: i64,
    distinguish: Distinguish,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguish {
    Nothing,
    User,
    Namespace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    priority_level_configuration: Named,
    matching_precedence: i64,
    distinguisher_method: Option<Kind>,
    rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    matches!(list, [one] if one == "*") || list.iter().any(|x| x == wanted)
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == "*" || self.user.name == user.name,
            "Group" => self.group.name == "*" || user.groups.contains(&self.group.name),
            "ServiceAccount" => {
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|a| a.split_once(':'));
                let Named { namespace, name } = &self.service_account;
                account.is_some_and(|(ns, n)| ns == namespace && (name == "*" || name == n))
            }
            _ => false,
        }
    }
}

impl Rule {
    fn matches(&self, user: &UserInfo, i: &RequestInfo) -> bool {
        if !self.subjects.iter().any(|s| s.is(user)) {
            return false;
        }
        if !i.is_resource {
            return self.non_resource_rules.iter().any(|r| has(&r.verbs, &i.verb) && r.names(&i.path));
        }
        self.resource_rules.iter().any(|r| {
            has(&r.verbs, &i.verb)
                && r.is_about(&i.resource, &i.subresource)
                && has(&r.api_groups, &i.group)
                && if i.namespace.is_empty() { r.cluster_scope } else { has(&r.namespaces, &i.namespace) }
        })
    }
}

impl ResourceRule {
    fn is_about(&self, resource: &str, subresource: &str) -> bool {
        let same = |r: &String| match r.split_once('/') {
            Some((r, s)) => r == resource && s == subresource,
            None => subresource.is_empty() && r == resource,
        };
        matches!(&self.resources[..], [one] if one == "*") || self.resources.iter().any(same)
    }
}

impl PathRule {
    fn names(&self, path: &str) -> bool {
        self.urls.iter().any(|url| {
            let prefix = url.strip_suffix('*').unwrap_or(url);
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            url == "*" || url == path || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

impl Schema {
    /// From its object.
    pub(super) fn new(object: &Object) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Whole {
            #[serde(default)]
            spec: Spec,
        }
        let Spec { priority_level_configuration, matching_precedence, distinguisher_method, rules } =
            object.view::<Whole>()?.spec;
        let distinguish = match distinguisher_method.as_ref().map(|m| m.kind.as_str()) {
            Some("ByUser") => Distinguish::User,
            Some("ByNamespace") => Distinguish::Namespace,
            _ => Distinguish::Nothing,
        };
        Ok(Self {
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            level: priority_level_configuration.name,
            precedence: matching_precedence,
            distinguish,
            rules,
        })
    }

    /// Those tried first come first.
    pub(super) fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    /// Whether the request is of this schema.
    pub(super) fn matches(&self, user: &UserInfo, i: &RequestInfo) -> bool {
        self.rules.iter().any(|r| r.matches(user, i))
    }

    /// Tells the flows of a schema apart.
    pub(super) fn flow(&self, user: &UserInfo, i: &RequestInfo) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.distinguish {
            Distinguish::Nothing => "",
            Distinguish::User => user.name.as_str(),
            Distinguish::Namespace => i.namespace.as_str(),
        }
        .hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(rule: &serde_json::Value) -> Schema {
        let text = json!({"kind": "FlowSchema", "metadata": {"name": "s", "uid": "u"}, "spec": {
            "priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 7, "distinguisherMethod": {"type": "ByUser"},
            "rules": [rule]}});
        Schema::new(&Object::from_wire(text.to_string().into(), &[]).unwrap()).unwrap()
    }

    #[test]
    fn matches_as_upstream() {
        let info = |resource: &str, sub: &str, namespace: &str| RequestInfo {
            is_resource: true,
            verb: "get".into(),
            resource: resource.into(),
            subresource: sub.into(),
            namespace: namespace.into(),
            ..RequestInfo::default()
        };
        let path = |path: &str| RequestInfo { verb: "get".into(), path: path.into(), ..RequestInfo::default() };
        let account = UserInfo::authenticated("system:serviceaccount:kube-system:x", &["g"]);
        let any = json!([{"kind": "Group", "group": {"name": "g"}}]);
        let about = |resources: serde_json::Value, scope: bool, namespaces: serde_json::Value| {
            json!({"subjects": any, "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": resources,
                "clusterScope": scope, "namespaces": namespaces}]})
        };
        for (rule, request, want) in [
            (about(json!(["pods"]), false, json!(["*"])), info("pods", "", "n"), true),
            (about(json!(["pods"]), false, json!(["*"])), info("pods", "log", "n"), false),
            (about(json!(["pods/log"]), false, json!(["*"])), info("pods", "log", "n"), true),
            (about(json!(["*"]), false, json!(["*"])), info("pods", "log", "n"), true),
            (about(json!(["pods"]), false, json!(["*"])), info("pods", "", ""), false),
            (about(json!(["pods"]), true, json!([])), info("pods", "", ""), true),
            (about(json!(["pods"]), true, json!(["m"])), info("pods", "", "n"), false),
            (about(json!(["*"]), true, json!(["*"])), path("/healthz"), false),
            (
                json!({"subjects": any, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]}),
                path("/healthz/etcd"),
                true,
            ),
            (
                json!({"subjects": any, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/heal*"]}]}),
                path("/healthz"),
                false,
            ),
        ] {
            assert_eq!(schema(&rule).matches(&account, &request), want, "{rule} {request:?}");
        }
        let subject = |s: serde_json::Value| {
            schema(&json!({"subjects": [s], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}))
                .matches(&account, &path("/x"))
        };
        assert!(subject(
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}})
        ));
        assert!(!subject(
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "y"}})
        ));
        assert!(!subject(json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube", "name": "*"}})));
        assert!(subject(json!({"kind": "User", "user": {"name": "*"}})));
        let s = schema(&json!({}));
        assert_ne!(s.flow(&account, &path("/")), s.flow(&UserInfo::authenticated("b", &[]), &path("/")));
        assert_eq!(s.order(), (7, "s"));
    }
}

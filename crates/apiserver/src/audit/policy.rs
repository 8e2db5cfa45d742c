//! The audit policy: how much is recorded of which request.

use pintle_api::service::UserInfo;
use serde::Deserialize;

use crate::http::info::RequestInfo;

/// How much is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who did what when.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// A moment in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A `Policy` of `audit.k8s.io/v1`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    /// It may be named; the name means nothing.
    #[serde(default, rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Resources {
    fn are_about(&self, i: &RequestInfo) -> bool {
        if self.group != i.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&i.name) {
            return false;
        }
        self.resources.iter().any(|r| match r.split_once('/') {
            _ if r == "*" => true,
            Some(("*", sub)) => sub == i.subresource,
            Some((resource, "*")) => resource == i.resource,
            Some((resource, sub)) => resource == i.resource && sub == i.subresource,
            None => i.subresource.is_empty() && *r == i.resource,
        })
    }
}

impl Rule {
    fn matches(&self, user: &UserInfo, i: &RequestInfo) -> bool {
        let named = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        if !named(&self.users, &user.name)
            || !named(&self.verbs, &i.verb)
            || (!self.user_groups.is_empty() && !user.groups.iter().any(|g| self.user_groups.contains(g)))
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return i.is_resource
                && named(&self.namespaces, &i.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.are_about(i)));
        }
        if !self.urls.is_empty() {
            return !i.is_resource
                && self
                    .urls
                    .iter()
                    .any(|u| *u == i.path || u.strip_suffix('*').is_some_and(|p| i.path.starts_with(p)));
        }
        true
    }
}

impl Policy {
    /// From a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!(
                "no kind {:?} is registered for version {:?}; want Policy of audit.k8s.io/v1",
                policy.kind, policy.api_version
            ));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            if !rule.urls.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
                return Err(format!(
                    "rules[{at}].nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs"
                ));
            }
            let bad = rule.urls.iter().find(|u| *u != "*" && (!u.starts_with('/') || u[..u.len() - 1].contains('*')));
            if let Some(url) = bad {
                return Err(format!(
                    "rules[{at}].nonResourceURLs: Invalid value: {url:?}: non-resource URL rules must begin with a '/' character, and may hold '*' at the end only"
                ));
            }
        }
        Ok(policy)
    }

    pub(super) fn decide(&self, user: &UserInfo, i: &RequestInfo) -> Decision {
        let Some(rule) = self.rules.iter().find(|r| r.matches(user, i)) else {
            return Decision { omit_stages: self.omit_stages.clone(), ..Decision::default() };
        };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(&rule.omit_stages);
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Decision { level: rule.level, omit_stages, omit_managed_fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: RequestResponse
  resources: [{group: "", resources: [pods]}]
- level: Metadata
  resources: [{group: "", resources: [pods/log, "*/status"]}]
- level: None
  userGroups: ["system:authenticated"]
  nonResourceURLs: ["/api*", /version]
- level: Request
  namespaces: [kube-system]
  resources: [{group: "", resources: [configmaps], resourceNames: [a]}]
  omitManagedFields: true
- level: Metadata
  namespaces: [kube-system]
- level: Metadata
  verbs: [create]
  omitStages: [ResponseStarted]
"#;

    #[test]
    fn first_rule_counts() {
        let policy = Policy::parse(POLICY).unwrap();
        let user = UserInfo::authenticated("joe", &["system:authenticated"]);
        let proxy = UserInfo::authenticated("system:kube-proxy", &[]);
        let info = |verb: &str, resource: &str, sub: &str, namespace: &str, name: &str| RequestInfo {
            is_resource: true,
            verb: verb.into(),
            resource: resource.into(),
            subresource: sub.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..RequestInfo::default()
        };
        let path = |p: &str| RequestInfo { verb: "get".into(), path: p.into(), ..RequestInfo::default() };
        for (user, request, want) in [
            (&proxy, info("watch", "services", "", "", ""), Level::None),
            (&user, info("get", "pods", "", "n", "p"), Level::RequestResponse),
            (&user, info("get", "pods", "log", "n", "p"), Level::Metadata),
            (&user, info("update", "nodes", "status", "", "p"), Level::Metadata),
            (&user, path("/apis/apps"), Level::None),
            (&user, path("/healthz"), Level::None),
            (&user, info("get", "configmaps", "", "kube-system", "a"), Level::Request),
            (&user, info("get", "configmaps", "", "kube-system", "b"), Level::Metadata),
            (&user, info("get", "configmaps", "", "n", "a"), Level::None),
            (&user, info("create", "secrets", "", "n", ""), Level::Metadata),
        ] {
            assert_eq!(policy.decide(user, &request).level, want, "{request:?}");
        }
        let d = policy.decide(&user, &info("create", "secrets", "", "n", ""));
        assert_eq!(d.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(policy.decide(&user, &info("get", "configmaps", "", "kube-system", "a")).omit_managed_fields);
    }

    #[test]
    fn refuses_nonsense() {
        for (text, want) in [
            ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n", "0 rules"),
            ("apiVersion: v1\nkind: Policy\nrules: [{level: None}]\n", "no kind"),
            ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Everything}]\n", "Everything"),
            ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, user: [a]}]\n", "user"),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]\n",
                "both regular resources",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: [a]}]\n",
                "begin with a '/'",
            ),
        ] {
            let e = Policy::parse(text).unwrap_err();
            assert!(e.contains(want), "{e}");
        }
    }
}

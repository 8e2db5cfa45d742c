//! `PodSecurity`: the baseline and restricted standards, by labels of the namespace.

mod baseline;
mod restricted;

use async_trait::async_trait;
use pintle_api::Status;
use pintle_api::object::Object;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::Server;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "privileged" => Self::Privileged,
            "baseline" => Self::Baseline,
            "restricted" => Self::Restricted,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// What a check finds wrong: its title and the details.
type Finding = (&'static str, String);

/// A container and its name.
fn containers(spec: &Value) -> Vec<&Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|k| spec.get(*k).and_then(Value::as_array).into_iter().flatten())
        .collect()
}

fn name(c: &Value) -> &str {
    c["name"].as_str().unwrap_or_default()
}

/// `container "a"` or `containers "a", "b"`.
fn listed(what: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
    let s = if names.len() == 1 { "" } else { "s" };
    format!("{what}{s} {}", quoted.join(", "))
}

/// All that a level forbids in a pod.
fn findings(level: Level, metadata: &Value, spec: &Value) -> Vec<Finding> {
    let mut out = Vec::new();
    if level >= Level::Baseline {
        baseline::check(metadata, spec, level == Level::Restricted, &mut out);
    }
    if level == Level::Restricted {
        restricted::check(spec, &mut out);
    }
    out
}

fn shown(all: &[Finding]) -> String {
    all.iter()
        .map(|(title, detail)| if detail.is_empty() { (*title).to_owned() } else { format!("{title} ({detail})") })
        .collect::<Vec<_>>()
        .join(", ")
}

/// Level and version of a mode.
fn policy(namespace: &Object, mode: &str) -> (Level, String) {
    let level = namespace.label(&format!("{PREFIX}{mode}"));
    let version = namespace.label(&format!("{PREFIX}{mode}-version")).unwrap_or("latest").to_owned();
    // What does not parse is taken for the strictest, as upstream does to fail safe.
    (level.map_or(Level::Privileged, |l| Level::parse(l).unwrap_or(Level::Restricted)), version)
}

/// Where a resource that makes pods keeps their template.
fn template(group: &str, resource: &str) -> Option<&'static str> {
    Some(match (group, resource) {
        ("", "pods") => "",
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}

pub(super) struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, a: &Attributes<'_>) -> bool {
        matches!(a.operation, Operation::Create | Operation::Update)
            && (a.subresource.is_empty() || a.subresource == "ephemeralcontainers")
            && template(a.res.def.group, a.res.def.resource).is_some()
    }

    async fn validate(&self, server: &Server, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let Some(at) = template(a.res.def.group, a.res.def.resource) else { return Ok(()) };
        let namespaces = server.registry.must("", "v1", "namespaces")?;
        let Some(namespace) = namespaces.objects()?.get("", a.namespace).await? else { return Ok(()) };
        if !namespace.labels().any(|(k, _)| k.starts_with(PREFIX)) {
            return Ok(());
        }
        let is_pod = at.is_empty();
        let Some(pod) = object.pointer(at) else { return Ok(()) };
        // An update that changes nothing of the kind was looked at when it was made.
        if is_pod
            && let Some(old) = a.old
            && old.get("spec") == object.get("spec")
        {
            return Ok(());
        }
        let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
        let (enforce, version) = policy(&namespace, "enforce");
        if is_pod {
            a.ctx.annotate(&format!("{PREFIX}enforce-policy"), format!("{}:{version}", enforce.name()));
            let found = findings(enforce, metadata, spec);
            if !found.is_empty() {
                let text = format!("violates PodSecurity \"{}:{version}\": {}", enforce.name(), shown(&found));
                return Err(a.forbidden(&text));
            }
        }
        let (audit, version) = policy(&namespace, "audit");
        let found = if a.ctx.audit.is_some() { findings(audit, metadata, spec) } else { Vec::new() };
        if !found.is_empty() {
            let text = format!("would violate PodSecurity \"{}:{version}\": {}", audit.name(), shown(&found));
            a.ctx.annotate(&format!("{PREFIX}audit-violations"), text);
        }
        let (warn, version) = policy(&namespace, "warn");
        let found = findings(warn, metadata, spec);
        if !found.is_empty() {
            a.ctx.warn(format!("would violate PodSecurity \"{}:{version}\": {}", warn.name(), shown(&found)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn standards() {
        let plain = json!({"containers": [{"name": "a", "image": "i"}]});
        assert!(findings(Level::Baseline, &json!({}), &plain).is_empty());
        assert_eq!(
            shown(&findings(Level::Restricted, &json!({}), &plain)),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        let bad = json!({"hostNetwork": true, "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
            "containers": [{"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["NET_ADMIN", "CHOWN"]}},
                "ports": [{"hostPort": 80}]}]});
        let text = shown(&findings(Level::Baseline, &json!({}), &bad));
        for part in [
            "host namespaces (hostNetwork=true)",
            "privileged (container \"a\" must not set securityContext.privileged=true)",
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
            "hostPath volumes (volume \"h\")",
            "hostPort (container \"a\" uses hostPort 80)",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let good = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]});
        assert_eq!(shown(&findings(Level::Restricted, &json!({}), &good)), "");
    }
}

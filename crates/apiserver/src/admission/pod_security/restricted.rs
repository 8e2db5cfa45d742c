//! The restricted standard: what hardening asks for.

use serde_json::Value;

use super::{Finding, containers, listed, name};

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
];

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn truth(v: &Value, path: &str) -> Option<bool> {
    v.pointer(path).and_then(Value::as_bool)
}

/// Adds what is wrong.
pub(super) fn check(spec: &Value, out: &mut Vec<Finding>) {
    let windows = text(spec, "/os/name") == "windows";
    let all = containers(spec);
    let with = |f: &dyn Fn(&Value) -> bool| -> Vec<&str> { all.iter().filter(|c| f(c)).map(|c| name(c)).collect() };
    volumes(spec, out);
    if !windows {
        let open = with(&|c| truth(c, "/securityContext/allowPrivilegeEscalation") != Some(false));
        if !open.is_empty() {
            out.push((
                "allowPrivilegeEscalation != false",
                format!("{} must set securityContext.allowPrivilegeEscalation=false", listed("container", &open)),
            ));
        }
        capabilities(&all, out);
    }
    let pod = truth(spec, "/securityContext/runAsNonRoot");
    let explicit = with(&|c| truth(c, "/securityContext/runAsNonRoot") == Some(false));
    let implicit = with(&|c| truth(c, "/securityContext/runAsNonRoot").is_none());
    if !explicit.is_empty() {
        out.push((
            "runAsNonRoot != true",
            format!("{} must not set securityContext.runAsNonRoot=false", listed("container", &explicit)),
        ));
    } else if pod == Some(false) {
        out.push(("runAsNonRoot != true", "pod must not set securityContext.runAsNonRoot=false".into()));
    } else if pod.is_none() && !implicit.is_empty() {
        out.push((
            "runAsNonRoot != true",
            format!("pod or {} must set securityContext.runAsNonRoot=true", listed("container", &implicit)),
        ));
    }
    let root = |v: &Value| v.pointer("/securityContext/runAsUser").and_then(Value::as_i64) == Some(0);
    let rooted = with(&root);
    let mut who = Vec::new();
    if root(spec) {
        who.push("pod".to_owned());
    }
    if !rooted.is_empty() {
        who.push(listed("container", &rooted));
    }
    if !who.is_empty() {
        out.push(("runAsUser=0", format!("{} must not set runAsUser=0", who.join(" and "))));
    }
    if !windows {
        seccomp(spec, &all, out);
    }
}

fn volumes(spec: &Value, out: &mut Vec<Finding>) {
    let mut who = Vec::new();
    let mut kinds = Vec::new();
    for v in spec["volumes"].as_array().into_iter().flatten() {
        let kind =
            v.as_object().into_iter().flatten().find(|(k, s)| k.as_str() != "name" && !s.is_null()).map(|(k, _)| k);
        if let Some(k) = kind
            && !VOLUMES.contains(&k.as_str())
        {
            who.push(name(v));
            kinds.push(k.clone());
        }
    }
    kinds.sort();
    kinds.dedup();
    if !who.is_empty() {
        let (verb, s) = (if who.len() == 1 { "uses" } else { "use" }, if kinds.len() == 1 { "" } else { "s" });
        let quoted: Vec<String> = kinds.iter().map(|k| format!("\"{k}\"")).collect();
        out.push((
            "restricted volume types",
            format!("{} {verb} restricted volume type{s} {}", listed("volume", &who), quoted.join(", ")),
        ));
    }
}

fn capabilities(all: &[&Value], out: &mut Vec<Finding>) {
    let list = |c: &Value, k: &str| -> Vec<String> {
        c.pointer(&format!("/securityContext/capabilities/{k}"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let keeps: Vec<&str> =
        all.iter().filter(|c| !list(c, "drop").iter().any(|d| d == "ALL")).map(|c| name(c)).collect();
    let mut adds = Vec::new();
    let mut added = Vec::new();
    for c in all {
        let more: Vec<String> = list(c, "add").into_iter().filter(|a| a != "NET_BIND_SERVICE").collect();
        if !more.is_empty() {
            adds.push(name(c));
            added.extend(more);
        }
    }
    added.sort();
    added.dedup();
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", listed("container", &keeps)));
    }
    if !adds.is_empty() {
        let quoted: Vec<String> = added.iter().map(|a| format!("\"{a}\"")).collect();
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            listed("container", &adds),
            quoted.join(", ")
        ));
    }
    if !details.is_empty() {
        out.push(("unrestricted capabilities", details.join("; ")));
    }
}

fn seccomp(spec: &Value, all: &[&Value], out: &mut Vec<Finding>) {
    let kind = |v: &Value| text(v, "/securityContext/seccompProfile/type").to_owned();
    let good = |k: &str| matches!(k, "RuntimeDefault" | "Localhost");
    let explicit: Vec<&str> = all.iter().filter(|c| !kind(c).is_empty() && !good(&kind(c))).map(|c| name(c)).collect();
    let implicit: Vec<&str> = all.iter().filter(|c| kind(c).is_empty()).map(|c| name(c)).collect();
    let pod = kind(spec);
    let mut who = Vec::new();
    if !pod.is_empty() && !good(&pod) {
        who.push("pod".to_owned());
    }
    if !explicit.is_empty() {
        who.push(listed("container", &explicit));
    }
    if !who.is_empty() {
        out.push((
            "seccompProfile",
            format!("{} must not set securityContext.seccompProfile.type to \"Unconfined\"", who.join(" and ")),
        ));
    } else if pod.is_empty() && !implicit.is_empty() {
        out.push((
            "seccompProfile",
            format!(
                "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
                listed("container", &implicit)
            ),
        ));
    }
}

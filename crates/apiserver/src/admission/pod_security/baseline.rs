//! The baseline standard: nothing that is known to break out.

use serde_json::Value;

use super::{Finding, containers, listed, name};

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn quoted(all: &[String]) -> String {
    all.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ")
}

/// Adds what is wrong. With `restricted`, checks that the stricter standard words itself are left to it.
pub(super) fn check(metadata: &Value, spec: &Value, restricted: bool, out: &mut Vec<Finding>) {
    let all = containers(spec);
    let with = |f: &dyn Fn(&Value) -> bool| -> Vec<&str> { all.iter().filter(|c| f(c)).map(|c| name(c)).collect() };

    let spaces: Vec<&str> = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|k| spec[*k] == true).collect();
    if !spaces.is_empty() {
        let detail: Vec<String> = spaces.iter().map(|k| format!("{k}=true")).collect();
        out.push(("host namespaces", detail.join(", ")));
    }
    let host_process = with(&|c| c.pointer("/securityContext/windowsOptions/hostProcess") == Some(&Value::Bool(true)));
    let pod_process = spec.pointer("/securityContext/windowsOptions/hostProcess") == Some(&Value::Bool(true));
    if pod_process || !host_process.is_empty() {
        let mut who = Vec::new();
        if pod_process {
            who.push("pod".to_owned());
        }
        if !host_process.is_empty() {
            who.push(listed("container", &host_process));
        }
        out.push((
            "hostProcess",
            format!("{} must not set securityContext.windowsOptions.hostProcess=true", who.join(" and ")),
        ));
    }
    let privileged = with(&|c| c.pointer("/securityContext/privileged") == Some(&Value::Bool(true)));
    if !privileged.is_empty() {
        out.push((
            "privileged",
            format!("{} must not set securityContext.privileged=true", listed("container", &privileged)),
        ));
    }
    if !restricted {
        capabilities(&all, out);
    }
    let volumes: Vec<&str> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v.get("hostPath").is_some_and(|h| !h.is_null()))
        .map(name)
        .collect();
    if !volumes.is_empty() {
        out.push(("hostPath volumes", listed("volume", &volumes)));
    }
    host_ports(&all, out);
    selinux(spec, &all, out);
    let unmasked = with(&|c| !matches!(text(c, "/securityContext/procMount"), "" | "Default"));
    if !unmasked.is_empty() {
        let kind = all.iter().map(|c| text(c, "/securityContext/procMount")).find(|k| !matches!(*k, "" | "Default"));
        out.push((
            "procMount",
            format!(
                "{} must not set securityContext.procMount to \"{}\"",
                listed("container", &unmasked),
                kind.unwrap_or_default()
            ),
        ));
    }
    if !restricted {
        seccomp(spec, &all, out);
    }
    apparmor(metadata, spec, &all, out);
    let sysctls: Vec<String> = spec
        .pointer("/securityContext/sysctls")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|s| text(s, "/name").to_owned())
        .filter(|s| !SYSCTLS.contains(&s.as_str()))
        .collect();
    if !sysctls.is_empty() {
        out.push(("forbidden sysctls", sysctls.join(", ")));
    }
}

fn capabilities(all: &[&Value], out: &mut Vec<Finding>) {
    let mut who = Vec::new();
    let mut what = Vec::new();
    for c in all {
        let added = c.pointer("/securityContext/capabilities/add").and_then(Value::as_array).into_iter().flatten();
        let bad: Vec<String> =
            added.filter_map(Value::as_str).filter(|k| !CAPABILITIES.contains(k)).map(str::to_owned).collect();
        if !bad.is_empty() {
            who.push(name(c));
            what.extend(bad);
        }
    }
    what.sort();
    what.dedup();
    if !who.is_empty() {
        out.push((
            "non-default capabilities",
            format!(
                "{} must not include {} in securityContext.capabilities.add",
                listed("container", &who),
                quoted(&what)
            ),
        ));
    }
}

fn host_ports(all: &[&Value], out: &mut Vec<Finding>) {
    let mut who = Vec::new();
    let mut ports = Vec::new();
    for c in all {
        let used: Vec<u64> = c["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["hostPort"].as_u64())
            .filter(|p| *p != 0)
            .collect();
        if !used.is_empty() {
            who.push(name(c));
            ports.extend(used);
        }
    }
    ports.sort_unstable();
    ports.dedup();
    if !who.is_empty() {
        let s = if ports.len() == 1 { "" } else { "s" };
        let verb = if who.len() == 1 { "uses" } else { "use" };
        let list: Vec<String> = ports.iter().map(u64::to_string).collect();
        out.push(("hostPort", format!("{} {verb} hostPort{s} {}", listed("container", &who), list.join(", "))));
    }
}

fn selinux(spec: &Value, all: &[&Value], out: &mut Vec<Finding>) {
    let bad = |v: &Value| {
        let o = "/securityContext/seLinuxOptions";
        !SELINUX_TYPES.contains(&text(v, &format!("{o}/type")))
            || !text(v, &format!("{o}/user")).is_empty()
            || !text(v, &format!("{o}/role")).is_empty()
    };
    let who: Vec<&str> = all.iter().filter(|c| bad(c)).map(|c| name(c)).collect();
    let mut setters = Vec::new();
    if bad(spec) {
        setters.push("pod".to_owned());
    }
    if !who.is_empty() {
        setters.push(listed("container", &who));
    }
    if setters.is_empty() {
        return;
    }
    let mut types = Vec::new();
    let (mut user, mut role) = (false, false);
    for v in std::iter::once(&spec).chain(all) {
        let o = "/securityContext/seLinuxOptions";
        let t = text(v, &format!("{o}/type"));
        if !SELINUX_TYPES.contains(&t) {
            types.push(t.to_owned());
        }
        user |= !text(v, &format!("{o}/user")).is_empty();
        role |= !text(v, &format!("{o}/role")).is_empty();
    }
    types.sort();
    types.dedup();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("type{} {}", if types.len() == 1 { "" } else { "s" }, quoted(&types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    out.push((
        "seLinuxOptions",
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), what.join("; ")),
    ));
}

fn seccomp(spec: &Value, all: &[&Value], out: &mut Vec<Finding>) {
    let bad = |v: &Value| text(v, "/securityContext/seccompProfile/type") == "Unconfined";
    let who: Vec<&str> = all.iter().filter(|c| bad(c)).map(|c| name(c)).collect();
    let mut setters = Vec::new();
    if bad(spec) {
        setters.push("pod".to_owned());
    }
    if !who.is_empty() {
        setters.push(listed("container", &who));
    }
    if !setters.is_empty() {
        out.push((
            "seccompProfile",
            format!("{} must not set securityContext.seccompProfile.type to \"Unconfined\"", setters.join(" and ")),
        ));
    }
}

fn apparmor(metadata: &Value, spec: &Value, all: &[&Value], out: &mut Vec<Finding>) {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let allowed = |p: &str| matches!(p, "" | "runtime/default") || p.starts_with("localhost/");
    let mut bad: Vec<String> = metadata["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, v)| k.starts_with(ANNOTATION) && !allowed(v.as_str().unwrap_or_default()))
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    bad.sort();
    let unconfined = |v: &Value| text(v, "/securityContext/appArmorProfile/type") == "Unconfined";
    if unconfined(spec) {
        bad.push("pod must not set AppArmor profile type to \"Unconfined\"".into());
    }
    let who: Vec<&str> = all.iter().filter(|c| unconfined(c)).map(|c| name(c)).collect();
    if !who.is_empty() {
        bad.push(format!("{} must not set AppArmor profile type to \"Unconfined\"", listed("container", &who)));
    }
    if !bad.is_empty() {
        out.push((
            if bad.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" },
            bad.join(", "),
        ));
    }
}

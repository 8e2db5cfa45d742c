//! Validation of security contexts.

use std::collections::HashSet;

use pintle_api::names::dns1123_subdomain;
use pintle_schema::cursor::{Cursor, Errors};

use super::spec::{Rules, containers};
use super::volumes::descending;
use crate::kinds::{checks, meta};

const SYSCTL_FORM: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn ids(context: &Cursor<'_>, fields: &[&'static str], errors: &mut Errors) {
    for id in fields.iter().map(|f| context.get(f)).filter(Cursor::is_present) {
        meta::invalid_each(&id, checks::user_id(id.int()), errors);
    }
}

/// The security context of a pod.
pub(super) fn of_pod(spec: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let context = spec.get("securityContext");
    ids(&context, &["fsGroup", "runAsUser", "runAsGroup"], errors);
    for group in context.get("supplementalGroups").items() {
        meta::invalid_each(&group, checks::user_id(group.int()), errors);
    }
    let share = spec.get("shareProcessNamespace");
    if share.bool() && spec.get("hostPID").bool() {
        errors.invalid_value(
            format!("{context}.shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    sysctls(spec, &context.get("sysctls"), errors);
    checks::one_of(&context.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], false, errors);
    seccomp(&context.get("seccompProfile"), errors);
    windows_options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
    checks::one_of(&context.get("supplementalGroupsPolicy"), &["Merge", "Strict"], false, errors);
    // Mounting with the label is a feature that is off.
    let policies: &[&str] = if rules.kept.se_linux_policy { &["MountOption", "Recursive"] } else { &["Recursive"] };
    checks::one_of(&context.get("seLinuxChangePolicy"), policies, false, errors);
}

fn sysctls(spec: &Cursor<'_>, list: &Cursor<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for sysctl in list.items() {
        let name = sysctl.get("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else if !is_sysctl(name.str()) {
            errors.invalid(&name, format!("must have at most 253 characters and match regex {SYSCTL_FORM}"));
        } else if seen.contains(&name.str()) {
            errors.duplicate(&name, name.str());
        }
        seen.insert(name.str());
        let dotted = dotted(name.str());
        let of = |prefixes: &[&str]| prefixes.iter().any(|p| dotted.starts_with(p));
        let ipc_exact = matches!(dotted.as_str(), "kernel.sem" | "kernel.shmall" | "kernel.shmmax" | "kernel.shmmni");
        if spec.get("hostNetwork").bool() && of(&["net."]) {
            errors.invalid(&name, "may not be specified when 'hostNetwork' is true");
        } else if spec.get("hostIPC").bool() && (ipc_exact || of(&["kernel.shm", "kernel.msg", "fs.mqueue."])) {
            errors.invalid(&name, "may not be specified when 'hostIPC' is true");
        }
    }
}

/// The name with dots between its parts, whichever separator it uses.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(i) if name.as_bytes()[i] == b'/' => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn is_sysctl(name: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let part = part.as_bytes();
            part.first().is_some_and(alnum)
                && part.last().is_some_and(alnum)
                && part.iter().all(|b| alnum(b) || b"-_".contains(b))
        })
}

fn seccomp(profile: &Cursor<'_>, errors: &mut Errors) {
    if profile.is_absent() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.str() {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(&kind, "type is required when seccompProfile is set"),
        other => errors.not_supported(&kind, other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    match (kind.str() == "Localhost", local.is_present()) {
        (true, false) => errors.required(&local, "must be set when seccomp type is Localhost"),
        (true, true) => descending(&local, errors),
        (false, true) => errors.invalid_value(
            &local,
            profile.value().cloned().unwrap_or_default(),
            "can only be set when seccomp type is Localhost",
        ),
        (false, false) => {}
    }
}

fn app_armor(profile: &Cursor<'_>, errors: &mut Errors) {
    const MUST: &str = "must be set when AppArmor type is Localhost";
    if profile.is_absent() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.str() {
        "Localhost" if local.is_absent() => errors.required(&local, MUST),
        "Localhost" => {
            if local.str().trim() != local.str() {
                errors.invalid(&local, "must not be padded with whitespace");
            } else if local.is_empty() {
                errors.required(&local, MUST);
            }
            if local.str().len() > 4095 {
                errors.too_long(&local, 4095);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_present() {
                errors.invalid(&local, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => errors.required(&kind, "type is required when appArmorProfile is set"),
        other => errors.not_supported(&kind, other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

/// The security context of a container.
pub(super) fn of_container(context: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    ids(context, &["runAsUser", "runAsGroup"], errors);
    let mount = context.get("procMount");
    if mount.is_present() {
        checks::one_of(&mount, &["Default", "Unmasked"], false, errors);
        if rules.host_users && mount.str() == "Unmasked" {
            errors.invalid(&mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&context.get("seccompProfile"), errors);
    if context.get("allowPrivilegeEscalation").opt_bool() == Some(false) {
        if context.get("privileged").bool() {
            errors.invalid(context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if context.get("capabilities").get("add").items().any(|c| c.str() == "CAP_SYS_ADMIN") {
            errors.invalid(
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    windows_options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
}

fn windows_options(options: &Cursor<'_>, errors: &mut Errors) {
    let (name, spec, user) =
        (options.get("gmsaCredentialSpecName"), options.get("gmsaCredentialSpec"), options.get("runAsUserName"));
    if name.is_present() {
        meta::invalid_each(&name, dns1123_subdomain(name.str()), errors);
    }
    if spec.is_present() && spec.is_empty() {
        errors.invalid(&spec, "gmsaCredentialSpec cannot be an empty string");
    } else if spec.str().len() > 64 * 1024 {
        errors.invalid(&spec, "gmsaCredentialSpec size must be under 64 KiB");
    }
    if user.is_present() {
        for message in windows_user(user.str()) {
            errors.invalid(&user, message);
        }
    }
}

/// What is wrong with `[DOMAIN\]USER`.
fn windows_user(text: &str) -> Vec<&'static str> {
    if text.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match text.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let mut out = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            out.push("runAsUserName's Domain length must be under 256 characters");
        }
        let no = |c: char| "\\/:*?\"<>|".contains(c);
        let net_bios = !domain.is_empty() && domain.len() <= 15 && !domain.contains(no) && !domain.starts_with('.');
        let dns = domain.split('.').all(|l| {
            let b = l.as_bytes();
            (1..=63).contains(&b.len())
                && b[0].is_ascii_alphanumeric()
                && b[b.len() - 1].is_ascii_alphanumeric()
                && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
        });
        if !net_bios && !dns {
            out.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        out.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        out.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        out.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c: char| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        out.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    out
}

/// All or none of a pod's containers are host processes, and then it is on the host's network.
pub(super) fn host_process(spec: &Cursor<'_>, errors: &mut Errors) {
    let of_pod = spec.get("securityContext").get("windowsOptions").get("hostProcess");
    let (mut all, mut host) = (0, 0);
    for container in containers(spec) {
        all += 1;
        let own = container.get("securityContext").get("windowsOptions").get("hostProcess");
        if let (Some(pod), Some(value)) = (of_pod.opt_bool(), own.opt_bool())
            && pod != value
        {
            let message = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&own, message);
        }
        host += usize::from(own.opt_bool().or(of_pod.opt_bool()).unwrap_or(false));
    }
    if host == 0 {
        return;
    }
    if host != all {
        errors.invalid_value(
            spec,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        );
    }
    if !spec.get("hostNetwork").bool() {
        errors.invalid_value(
            spec.get("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        );
    }
}

/// What a pod may not have on the operating system it names.
pub(super) fn of_os(spec: &Cursor<'_>, errors: &mut Errors) {
    const NOT_WINDOWS: &str = "cannot be set for a windows pod";
    let context = spec.get("securityContext");
    if spec.get("os").get("name").str() == "linux" {
        const NOT_LINUX: &str = "windows options cannot be set for a linux pod";
        let all = std::iter::once(context).chain(containers(spec).map(|c| c.get("securityContext")));
        for context in all.filter(|c| c.get("windowsOptions").is_present()) {
            errors.forbidden(context.get("windowsOptions"), NOT_LINUX);
        }
        return;
    }
    const OF_POD: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const OF_CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let mut forbid = |at: Cursor<'_>| {
        if at.is_present() {
            errors.forbidden(&at, NOT_WINDOWS);
        }
    };
    for field in OF_POD {
        forbid(context.get(field));
    }
    for field in ["hostUsers", "shareProcessNamespace"] {
        forbid(spec.get(field));
    }
    for field in ["hostPID", "hostIPC"].into_iter().filter(|f| spec.get(f).bool()) {
        forbid(spec.get(field));
    }
    for container in containers(spec) {
        for field in OF_CONTAINER {
            forbid(container.get("securityContext").get(field));
        }
    }
}

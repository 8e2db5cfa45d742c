//! Who a container's process is and what it may do.

use crate::config::KubeletConfig;
use crate::pod::spec::{self, PodRef};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};
use pintle_runtime::{
    LinuxSecurityContext, NamespaceMode, NamespaceOptions, SecurityProfile, SupplementalGroupsPolicy,
};

fn pod_context(pod: &Pod) -> PodSecurityContext {
    spec::spec(pod).security_context.clone().unwrap_or_default()
}

/// The user an image runs as when nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// By number.
    pub uid: Option<i64>,
    /// By name.
    pub username: String,
}

/// The namespaces of the pod.
#[must_use]
pub fn namespaces(pod: &Pod) -> NamespaceOptions {
    let s = spec::spec(pod);
    let host = |on: Option<bool>, or: NamespaceMode| if on == Some(true) { NamespaceMode::Node } else { or };
    let pid = if s.share_process_namespace == Some(true) { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOptions {
        network: host(s.host_network, NamespaceMode::Pod),
        pid: host(s.host_pid, pid),
        ipc: host(s.host_ipc, NamespaceMode::Pod),
        user: None,
    }
}

fn seccomp(own: Option<&SeccompProfile>, pod: Option<&SeccompProfile>, config: &KubeletConfig) -> SecurityProfile {
    let Some(profile) = own.or(pod) else {
        return if config.seccomp_default { SecurityProfile::RuntimeDefault } else { SecurityProfile::Unconfined };
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => SecurityProfile::RuntimeDefault,
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            SecurityProfile::Localhost(config.root_dir.join("seccomp").join(name).display().to_string())
        }
        _ => SecurityProfile::Unconfined,
    }
}

fn apparmor(own: Option<&AppArmorProfile>, pod: Option<&AppArmorProfile>) -> SecurityProfile {
    match own.or(pod) {
        None => SecurityProfile::RuntimeDefault,
        Some(p) => match p.type_.as_str() {
            "Localhost" => SecurityProfile::Localhost(p.localhost_profile.clone().unwrap_or_default()),
            "Unconfined" => SecurityProfile::Unconfined,
            _ => SecurityProfile::RuntimeDefault,
        },
    }
}

/// Refuses a container that would run as root although it must not.
fn verify_non_root(pod: &Pod, c: &Container, user: Option<i64>, image: &ImageUser) -> Result<(), String> {
    let own = c.security_context.as_ref().and_then(|s| s.run_as_non_root);
    if !own.or(pod_context(pod).run_as_non_root).unwrap_or_default() {
        return Ok(());
    }
    let at = format!("(pod: {:?}, container: {})", PodRef::of(pod).to_string(), c.name);
    match (user, image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {at}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {at}")),
        (None, Some(_)) => Ok(()),
        (None, None) if image.username.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {at}"))
        }
        (None, None) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {at}",
            image.username
        )),
    }
}

/// The context of a container. `target` is the container whose processes an ephemeral container wants to see.
///
/// # Errors
/// What forbids it to run, in upstream's words.
pub fn of_container(
    pod: &Pod,
    c: &Container,
    image: &ImageUser,
    target: Option<&str>,
    config: &KubeletConfig,
) -> Result<LinuxSecurityContext, String> {
    let p = pod_context(pod);
    let own: SecurityContext = c.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(p.run_as_user);
    verify_non_root(pod, c, run_as_user, image)?;
    let privileged = own.privileged.unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let mut ns = namespaces(pod);
    if let Some(id) = target
        && ns.pid != NamespaceMode::Node
    {
        ns.pid = NamespaceMode::Target(id.into());
    }
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let (user, username) = match run_as_user {
        Some(u) => (Some(u), String::new()),
        None => (image.uid, if image.uid.is_some() { String::new() } else { image.username.clone() }),
    };
    Ok(LinuxSecurityContext {
        privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        add_ambient_capabilities: vec![],
        namespaces: ns,
        run_as_user: user,
        run_as_username: username,
        run_as_group: own.run_as_group.or(p.run_as_group),
        supplemental_groups: groups(&p),
        supplemental_groups_policy: groups_policy(&p),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or_default(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp: if privileged {
            SecurityProfile::Unconfined
        } else {
            seccomp(own.seccomp_profile.as_ref(), p.seccomp_profile.as_ref(), config)
        },
        apparmor: if privileged {
            SecurityProfile::Unconfined
        } else {
            apparmor(own.app_armor_profile.as_ref(), p.app_armor_profile.as_ref())
        },
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
    })
}

fn groups(p: &PodSecurityContext) -> Vec<i64> {
    p.fs_group.into_iter().chain(p.supplemental_groups.clone().unwrap_or_default()).collect()
}

fn groups_policy(p: &PodSecurityContext) -> SupplementalGroupsPolicy {
    match p.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

/// The context of the sandbox.
#[must_use]
pub fn of_sandbox(pod: &Pod, config: &KubeletConfig) -> LinuxSecurityContext {
    let p = pod_context(pod);
    let privileged =
        spec::containers(pod).any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or_default());
    LinuxSecurityContext {
        privileged,
        namespaces: namespaces(pod),
        run_as_user: p.run_as_user,
        run_as_group: p.run_as_group,
        supplemental_groups: groups(&p),
        supplemental_groups_policy: groups_policy(&p),
        seccomp: if privileged {
            SecurityProfile::Unconfined
        } else {
            seccomp(None, p.seccomp_profile.as_ref(), config)
        },
        ..Default::default()
    }
}

/// The sysctls any pod may use.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Whether the node lets the pod set its sysctls.
///
/// # Errors
/// The first that it does not, in upstream's words.
pub fn check_sysctls(pod: &Pod, config: &KubeletConfig) -> Result<(), String> {
    let s = spec::spec(pod);
    for sysctl in pod_context(pod).sysctls.iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        let allowed = SAFE_SYSCTLS.contains(&name.as_str())
            || config.allowed_unsafe_sysctls.iter().any(|a| match a.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *a == name,
            });
        if !allowed {
            return Err(format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        if name.starts_with("net.") && s.host_network == Some(true) {
            return Err(format!("forbidden sysctl: {name:?} not allowed with host net enabled"));
        }
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
        if ipc.iter().any(|p| name.starts_with(p)) && s.host_ipc == Some(true) {
            return Err(format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn context(pod_yaml: &str, image: &ImageUser) -> Result<LinuxSecurityContext, String> {
        let p = pod(pod_yaml);
        of_container(&p, &spec::spec(&p).containers[0], image, None, &KubeletConfig::default())
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let image = ImageUser { uid: Some(5), username: String::new() };
        let c = context(
            "spec: {hostPID: true, securityContext: {runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: [4], seccompProfile: {type: RuntimeDefault}},
              containers: [{name: a, securityContext: {runAsUser: 9, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {add: [NET_ADMIN], drop: [ALL]}}}]}",
            &image,
        )
        .unwrap();
        assert_eq!((c.run_as_user, c.run_as_group, c.supplemental_groups), (Some(9), Some(2), vec![3, 4]));
        assert!(c.readonly_rootfs && c.no_new_privs);
        assert_eq!((c.seccomp, c.namespaces.pid), (SecurityProfile::RuntimeDefault, NamespaceMode::Node));
        assert_eq!((c.add_capabilities, c.drop_capabilities), (vec!["NET_ADMIN".into()], vec!["ALL".into()]));
        let c = context("spec: {containers: [{name: a, securityContext: {procMount: Unmasked}}]}", &image).unwrap();
        assert_eq!((c.run_as_user, c.masked_paths), (Some(5), Some(vec![])));
    }

    #[test]
    fn root_where_it_must_not_be() {
        let at = "(pod: \"p_ns(uid-1)\", container: a)";
        let check = |spec: &str, uid: Option<i64>, name: &str, want: &str| {
            let yaml = format!("spec: {{securityContext: {{runAsNonRoot: true}}, containers: [{{name: a, {spec}}}]}}");
            let got = context(&yaml, &ImageUser { uid, username: name.into() });
            assert_eq!(got.map_or_else(|e| e, |_| "ok".into()), want.replace("AT", at), "{spec}");
        };
        check("", None, "", "container has runAsNonRoot and image will run as root AT");
        check("", Some(0), "", "container has runAsNonRoot and image will run as root AT");
        check("", Some(7), "", "ok");
        check(
            "",
            None,
            "www",
            "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root AT",
        );
        check("securityContext: {runAsUser: 0}", Some(7), "", "container's runAsUser breaks non-root policy AT");
        check("securityContext: {runAsNonRoot: false}", Some(0), "", "ok");
    }

    #[test]
    fn sysctls() {
        let check = |spec: &str, want: &str| {
            let p = pod(&format!("spec: {{containers: [], {spec}}}"));
            let got = check_sysctls(&p, &KubeletConfig::default());
            assert_eq!(got.err().unwrap_or_default(), want);
        };
        check("securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}", "");
        check(
            "securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}",
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted",
        );
        check(
            "hostNetwork: true, securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}",
            "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled",
        );
    }
}

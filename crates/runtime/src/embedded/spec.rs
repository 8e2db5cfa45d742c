//! From what a caller says to what a shim is told: every default and every choice is made here.

use crate::cgroup::{Cgroups, DeviceKind, DeviceRule};
use crate::process::spec::{
    CapabilitySpec, CgroupMount, ContainerSpec, DeviceNode, MountKind, MountSpec, PidSpec, ProcessSpec, RootSpec,
    UserSpec,
};
use crate::process::{CAPABILITIES, encode_filter, known_capabilities};
use crate::seccomp::{Profile, default_profile};
use crate::sys::Context as _;
use crate::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What making a specification needs.
pub struct Parts<'a> {
    pub id: &'a str,
    pub config: &'a ContainerConfig,
    pub sandbox: &'a SandboxConfig,
    pub image: &'a ImageConfig,
    /// The image's layers, the uppermost first.
    pub layers: &'a [PathBuf],
    /// The layers of images mounted as volumes, in the order of the mounts that name them.
    pub volumes: &'a [Vec<PathBuf>],
    pub cgroups: &'a Cgroups,
    pub cgroup: &'a str,
    /// The sandbox's and the container's directories.
    pub sandbox_dir: &'a Path,
    pub dir: &'a Path,
}

/// A specification and the devices it may use.
pub struct Made {
    pub spec: ContainerSpec,
    pub devices: Vec<DeviceRule>,
}

/// Makes the specification.
pub fn make(p: &Parts<'_>) -> Result<Made> {
    let security = &p.config.security_context;
    let namespaces = &security.namespaces;
    let privileged = security.privileged;
    let shared = &p.sandbox.linux.security_context.namespaces;
    if shared.user.is_some() || namespaces.user.is_some() {
        return Err(Error::unsupported("user namespaces are not supported"));
    }
    let (devices, rules) = devices(p.config, privileged)?;
    let paths = |given: &Option<Vec<PathBuf>>, default: &[&str]| match given {
        _ if privileged => vec![],
        Some(list) => list.clone(),
        None => default.iter().map(PathBuf::from).collect(),
    };
    let unified_only = p.cgroups.is_v2();
    let log = match p.config.log_path.as_str() {
        "" => PathBuf::new(),
        path => Path::new(&p.sandbox.log_directory).join(path),
    };
    let spec = ContainerSpec {
        id: p.id.into(),
        process: process(p)?,
        root: RootSpec {
            layers: p.layers.to_vec(),
            upper: p.dir.join("upper"),
            work: p.dir.join("work"),
            target: p.dir.join("rootfs"),
            readonly: security.readonly_rootfs,
        },
        network: shared.network != NamespaceMode::Node,
        ipc: shared.ipc != NamespaceMode::Node,
        pid: match &namespaces.pid {
            NamespaceMode::Container => PidSpec::Own,
            NamespaceMode::Pod => PidSpec::Sandbox,
            NamespaceMode::Node => PidSpec::Host,
            NamespaceMode::Target(id) => PidSpec::Container(id.clone()),
        },
        // On version 2 the privileged see the whole tree.
        cgroup_namespace: !(privileged && unified_only),
        mounts: mounts(p)?,
        devices,
        masked_paths: paths(&security.masked_paths, &MASKED),
        readonly_paths: paths(&security.readonly_paths, &READONLY),
        cgroup_procs: p.cgroups.procs_files(p.cgroup)?,
        cgroup_mounts: cgroup_mounts(p.cgroups),
        oom: p.cgroups.oom_counter(p.cgroup),
        log_path: log,
        stdin: p.config.stdin,
        stdin_once: p.config.stdin_once,
    };
    Ok(Made { spec, devices: rules })
}

fn process(p: &Parts<'_>) -> Result<ProcessSpec> {
    let security = &p.config.security_context;
    let capabilities = capabilities(security)?;
    Ok(ProcessSpec {
        args: args(p.config, p.image)?,
        env: environment(p),
        cwd: [&p.config.working_dir, &p.image.working_dir]
            .into_iter()
            .find(|d| !d.is_empty())
            .cloned()
            .unwrap_or("/".into()),
        tty: p.config.tty,
        user: user(security, p.image)?,
        no_new_privs: security.no_new_privs,
        seccomp: filter(security, capabilities.bounding)?,
        oom_score_adj: p.config.resources.oom_score_adj,
        apparmor: apparmor(security)?,
        capabilities,
    })
}

/// The command line: what is given replaces the image's; a given command drops the image's arguments, too.
pub fn args(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>> {
    let (command, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.is_empty() { Err(Error::unknown("failed to generate spec: no command specified")) } else { Ok(all) }
}

fn environment(p: &Parts<'_>) -> Vec<String> {
    let mut out: Vec<String> = vec![];
    let mut set = |line: String| {
        let key = line.split_once('=').map_or(line.as_str(), |(k, _)| k);
        let old = out.iter().position(|o| o.split_once('=').map_or(o.as_str(), |(k, _)| k) == key);
        match old {
            Some(at) => out[at] = line,
            None => out.push(line),
        }
    };
    set(PATH.into());
    let host = p.sandbox.linux.security_context.namespaces.network == NamespaceMode::Node;
    let hostname = if host || p.sandbox.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        p.sandbox.hostname.clone()
    };
    set(format!("HOSTNAME={hostname}"));
    if p.config.tty {
        set("TERM=xterm".into());
    }
    p.image.env.iter().cloned().for_each(&mut set);
    p.config.envs.iter().for_each(|e| set(format!("{}={}", e.key, e.value)));
    out
}

fn user(security: &LinuxSecurityContext, image: &ImageConfig) -> Result<UserSpec> {
    let id = |n: i64| u32::try_from(n).map_err(|_| Error::invalid(format!("the user or group {n} is out of range")));
    let mut user = match (security.run_as_user, security.run_as_username.as_str()) {
        (Some(n), _) => id(n)?.to_string(),
        (None, "") => image.user.clone(),
        (None, name) => name.to_string(),
    };
    if let Some(g) = security.run_as_group {
        if security.run_as_user.is_none() && security.run_as_username.is_empty() {
            // The group replaces the image's, not its user.
            user = user.split(':').next().unwrap_or_default().to_string();
        }
        user = format!("{user}:{}", id(g)?);
    }
    let groups = security.supplemental_groups.iter().map(|g| id(*g)).collect::<Result<_>>()?;
    Ok(UserSpec { user, groups, image_groups: security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge })
}

fn capability_bit(name: &str) -> Result<u64> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    let at = CAPABILITIES.iter().position(|c| *c == full);
    at.map(|n| 1 << n).ok_or_else(|| Error::invalid(format!("unknown capability {name:?}")))
}

fn capabilities(security: &LinuxSecurityContext) -> Result<CapabilitySpec> {
    if security.privileged {
        return Ok(CapabilitySpec { bounding: u64::MAX, ambient: 0 });
    }
    let is_all = |c: &String| c.eq_ignore_ascii_case("ALL");
    let bits = |list: &[String]| -> Result<u64> {
        list.iter().filter(|c| !is_all(c)).try_fold(0, |all, c| Ok(all | capability_bit(c)?))
    };
    let mut set = DEFAULT_CAPABILITIES.iter().try_fold(0, |all, c| Ok::<_, Error>(all | capability_bit(c)?))?;
    if security.add_capabilities.iter().any(is_all) {
        set = u64::MAX;
    }
    if security.drop_capabilities.iter().any(is_all) {
        set = 0;
    }
    set |= bits(&security.add_capabilities)?;
    set &= !bits(&security.drop_capabilities)?;
    let ambient = bits(&security.add_ambient_capabilities)?;
    Ok(CapabilitySpec { bounding: set | ambient, ambient })
}

fn filter(security: &LinuxSecurityContext, bounding: u64) -> Result<String> {
    let profile = match &security.seccomp {
        _ if security.privileged => return Ok(String::new()),
        SecurityProfile::Unconfined => return Ok(String::new()),
        SecurityProfile::RuntimeDefault => {
            // Few sets are in use on a node, and every container needs one's filter.
            static MADE: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
            let bounding = bounding & known_capabilities();
            if let Some(made) = MADE.lock().get(&bounding) {
                return Ok(made.clone());
            }
            let has: Vec<&str> =
                CAPABILITIES.iter().enumerate().filter(|(n, _)| bounding >> n & 1 == 1).map(|(_, c)| *c).collect();
            let made = encode_filter(&default_profile(&has).compile()?);
            MADE.lock().insert(bounding, made.clone());
            return Ok(made);
        }
        SecurityProfile::Localhost(path) => {
            let text = std::fs::read(path).context(format!("cannot load seccomp profile {path:?}"))?;
            Profile::parse(&text)?
        }
    };
    Ok(encode_filter(&profile.compile()?))
}

fn apparmor(security: &LinuxSecurityContext) -> Result<String> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'));
    match &security.apparmor {
        SecurityProfile::Localhost(name) if enabled && !security.privileged => Ok(name.clone()),
        SecurityProfile::Localhost(_) if !enabled => Err(Error::unknown("apparmor is not supported")),
        _ => Ok(String::new()),
    }
}

fn mounts(p: &Parts<'_>) -> Result<Vec<MountSpec>> {
    let privileged = p.config.security_context.privileged;
    let mut out: Vec<MountSpec> = vec![];
    let mut add = |target: &str, kind: MountKind, readonly: bool| {
        out.push(MountSpec { target: target.into(), kind, readonly });
    };
    let bind = |source: PathBuf| MountKind::Bind {
        source,
        recursive_read_only: false,
        propagation: MountPropagation::Private,
    };
    add("/proc", MountKind::Proc, false);
    add("/dev", MountKind::Tmpfs { mode: "755".into(), size: "65536k".into(), dev_exec: true }, false);
    add("/dev/pts", MountKind::Devpts, false);
    let host_ipc = p.sandbox.linux.security_context.namespaces.ipc == NamespaceMode::Node;
    add("/dev/shm", if host_ipc { bind("/dev/shm".into()) } else { MountKind::SandboxShm }, false);
    add("/dev/mqueue", MountKind::Mqueue, false);
    add("/sys", MountKind::Sysfs, !privileged);
    add("/sys/fs/cgroup", MountKind::Cgroup, !privileged);
    for name in ["hostname", "hosts", "resolv.conf"] {
        let readonly = p.config.security_context.readonly_rootfs;
        add(&format!("/etc/{name}"), bind(p.sandbox_dir.join(name)), readonly);
    }
    for path in p.image.volumes.keys().filter(|v| v.starts_with('/') && v.len() > 1) {
        add(path, MountKind::Own, false);
    }
    let mut volumes = p.volumes.iter();
    for m in &p.config.mounts {
        if !m.container_path.is_absolute() {
            return Err(Error::invalid(format!("the mount path {:?} is not absolute", m.container_path.display())));
        }
        let kind = if m.image.is_empty() {
            check_propagation(m)?;
            host_mount(m)?
        } else {
            let layers = volumes.next().cloned().unwrap_or_default();
            MountKind::Layers { layers, sub_path: m.image_sub_path.clone() }
        };
        out.retain(|o| o.target != m.container_path);
        let readonly = m.readonly || !m.image.is_empty();
        out.push(MountSpec { target: m.container_path.clone(), kind, readonly });
    }
    // What is mounted higher up would hide what is below it.
    out.sort_by_key(|m| m.target.components().count());
    Ok(out)
}

fn host_mount(m: &Mount) -> Result<MountKind> {
    if m.recursive_read_only && (!m.readonly || m.propagation != MountPropagation::Private) {
        return Err(Error::invalid("a recursive read-only mount must be read-only and without propagation"));
    }
    let source = match std::fs::canonicalize(&m.host_path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(&m.host_path).context(format!("making {}", m.host_path.display()))?;
            m.host_path.clone()
        }
        other => other.context(format!("failed to resolve {:?}", m.host_path.display()))?,
    };
    Ok(MountKind::Bind { source, recursive_read_only: m.recursive_read_only, propagation: m.propagation })
}

/// Propagation works only where the host shares the mount in question.
fn check_propagation(m: &Mount) -> Result<()> {
    if m.propagation == MountPropagation::Private {
        return Ok(());
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let path = std::fs::canonicalize(&m.host_path).unwrap_or_else(|_| m.host_path.clone());
    let fields = |line: &str| -> Option<(PathBuf, String)> {
        let (left, _) = line.split_once(" - ")?;
        let mut parts = left.split(' ');
        let at = parts.nth(4)?.replace("\\040", " ");
        Some((at.into(), parts.skip(1).collect::<Vec<_>>().join(" ")))
    };
    let mount = text
        .lines()
        .filter_map(fields)
        .filter(|(at, _)| path.starts_with(at))
        .max_by_key(|(at, _)| at.components().count());
    let Some((at, tags)) = mount else { return Ok(()) };
    let place = format!("path {:?} is mounted on {:?} but it is not", m.host_path.display(), at.display());
    match m.propagation {
        MountPropagation::Bidirectional if !tags.contains("shared:") => {
            Err(Error::unknown(format!("{place} a shared mount")))
        }
        MountPropagation::HostToContainer if !tags.contains("shared:") && !tags.contains("master:") => {
            Err(Error::unknown(format!("{place} a shared or slave mount")))
        }
        _ => Ok(()),
    }
}

fn cgroup_mounts(cgroups: &Cgroups) -> Vec<CgroupMount> {
    let all = cgroups.hierarchies();
    let alone = all.len() == 1 && all[0].unified;
    let name = |h: &crate::cgroup::Hierarchy| {
        if alone { String::new() } else { h.mount.file_name().unwrap_or_default().to_string_lossy().into_owned() }
    };
    all.iter()
        .map(|h| CgroupMount {
            name: name(h),
            controllers: if h.unified { vec![] } else { h.controllers.clone() },
            unified: h.unified,
        })
        .collect()
}

fn node(at: &Path, host: &Path) -> Result<Option<DeviceNode>> {
    let meta = std::fs::metadata(host).context(format!("looking at device {}", host.display()))?;
    let kind = meta.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Ok(None);
    }
    Ok(Some(DeviceNode {
        path: at.into(),
        block: kind.is_block_device(),
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    }))
}

/// All devices below a directory of the host.
fn walk(at: &Path, host: &Path, skip: &[&str], out: &mut Vec<DeviceNode>) -> Result<()> {
    for entry in std::fs::read_dir(host).context(format!("listing {}", host.display()))?.flatten() {
        let (name, kind) = (entry.file_name(), entry.file_type());
        if skip.iter().any(|s| *s == name) {
            continue;
        }
        match kind {
            Ok(k) if k.is_dir() => walk(&at.join(&name), &entry.path(), skip, out)?,
            Ok(k) if k.is_block_device() || k.is_char_device() => {
                // It may vanish in between.
                out.extend(node(&at.join(&name), &entry.path()).ok().flatten());
            }
            _ => {}
        }
    }
    Ok(())
}

fn devices(config: &ContainerConfig, privileged: bool) -> Result<(Vec<DeviceNode>, Vec<DeviceRule>)> {
    let (mut nodes, mut rules) = (vec![], DeviceRule::defaults());
    if privileged {
        rules = vec![DeviceRule::all()];
        let own = [
            "pts",
            "shm",
            "mqueue",
            "fd",
            "console",
            "ptmx",
            "tty",
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            ".lxc",
            ".lxd-mounts",
            ".udev",
        ];
        walk(Path::new("/dev"), Path::new("/dev"), &own, &mut nodes)?;
    }
    for d in &config.devices {
        let mut found = vec![];
        match node(&d.container_path, &d.host_path)? {
            Some(n) => found.push(n),
            None if d.host_path.is_dir() => walk(&d.container_path, &d.host_path, &[], &mut found)?,
            None => return Err(Error::invalid(format!("not a device node: {:?}", d.host_path.display()))),
        }
        let access = if d.permissions.is_empty() { "rwm" } else { &d.permissions };
        if !access.chars().all(|c| "rwm".contains(c)) {
            return Err(Error::invalid(format!("invalid device permissions {access:?}")));
        }
        for n in found {
            rules.push(DeviceRule {
                kind: if n.block { DeviceKind::Block } else { DeviceKind::Char },
                major: Some(n.major),
                minor: Some(n.minor),
                access: access.into(),
            });
            nodes.retain(|o: &DeviceNode| o.path != n.path);
            nodes.push(n);
        }
    }
    Ok((nodes, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn command_lines() {
        let image = ImageConfig { entrypoint: strings(&["e"]), cmd: strings(&["c"]), ..Default::default() };
        let check = |command: &[&str], given: &[&str], expect: &[&str]| {
            let config = ContainerConfig { command: strings(command), args: strings(given), ..Default::default() };
            assert_eq!(args(&config, &image).unwrap(), strings(expect));
        };
        check(&[], &[], &["e", "c"]);
        check(&[], &["a"], &["e", "a"]);
        check(&["x"], &[], &["x"]);
        check(&["x"], &["a"], &["x", "a"]);
        assert!(args(&ContainerConfig::default(), &ImageConfig::default()).is_err());
    }

    #[test]
    fn capability_sets() {
        let check = |add: &[&str], drop: &[&str], has: &[&str], lacks: &[&str]| {
            let security = LinuxSecurityContext {
                add_capabilities: strings(add),
                drop_capabilities: strings(drop),
                ..Default::default()
            };
            let set = capabilities(&security).unwrap().bounding;
            for c in has {
                assert!(set & capability_bit(c).unwrap() != 0, "{c} missing");
            }
            for c in lacks {
                assert!(set & capability_bit(c).unwrap() == 0, "{c} present");
            }
        };
        check(&[], &[], &["CHOWN", "NET_RAW"], &["SYS_ADMIN", "NET_ADMIN"]);
        check(&["NET_ADMIN"], &["cap_chown"], &["NET_ADMIN"], &["CHOWN"]);
        check(&["NET_BIND_SERVICE"], &["ALL"], &["NET_BIND_SERVICE"], &["CHOWN", "KILL"]);
        check(&["ALL"], &["SYS_ADMIN"], &["SYS_TIME"], &["SYS_ADMIN"]);
        let security = LinuxSecurityContext { add_capabilities: strings(&["NOPE"]), ..Default::default() };
        assert!(capabilities(&security).is_err());
    }

    #[test]
    fn users() {
        let check = |user: Option<i64>, name: &str, group: Option<i64>, image: &str, expect: &str| {
            let security = LinuxSecurityContext {
                run_as_user: user,
                run_as_username: name.into(),
                run_as_group: group,
                ..Default::default()
            };
            let image = ImageConfig { user: image.into(), ..Default::default() };
            assert_eq!(super::user(&security, &image).unwrap().user, expect);
        };
        check(None, "", None, "", "");
        check(None, "", None, "web:log", "web:log");
        check(Some(5), "", None, "web", "5");
        check(Some(5), "", Some(6), "web", "5:6");
        check(None, "bob", None, "web", "bob");
        check(None, "", Some(6), "web:log", "web:6");
    }
}

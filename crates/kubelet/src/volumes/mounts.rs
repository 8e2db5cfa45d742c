//! From a container's volume mounts to the runtime's mounts.

use super::{Ready, ReadyVolumes};
use crate::translate::expand::expand;
use k8s_openapi::api::core::v1::{Container, VolumeMount};
use pintle_runtime::{Device, KeyValue, Mount, MountPropagation};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::MountFlags;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

fn sub_path(m: &VolumeMount, env: &[KeyValue]) -> Result<String, String> {
    if let Some(expr) = m.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        let mut missing = None;
        let out = expand(expr, |name| {
            let found = env.iter().find(|kv| kv.key == name).map(|kv| kv.value.clone());
            if found.is_none() {
                missing.get_or_insert_with(|| name.to_string());
            }
            found
        });
        if let Some(name) = missing {
            return Err(format!("missing value for {name:?}"));
        }
        return Ok(out);
    }
    Ok(m.sub_path.clone().unwrap_or_default())
}

fn check(path: &str) -> Result<(), String> {
    let p = Path::new(path);
    if p.is_absolute() {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if p.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(())
}

/// Opens `path` below `root`, making directories that are missing; no symbolic link leads out of `root`.
fn open_below(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut at: OwnedFd = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let whole = rustix::fs::openat2(&at, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    match whole {
        Ok(found) => return Ok(found),
        Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let root_fd = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut so_far = PathBuf::new();
    for part in Path::new(path).components() {
        so_far.push(part);
        at = match rustix::fs::openat2(&root_fd, &so_far, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(found) => found,
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o750))?;
                rustix::fs::openat2(&root_fd, &so_far, flags, Mode::empty(), ResolveFlags::IN_ROOT)?
            }
            Err(e) => return Err(e.into()),
        };
    }
    Ok(at)
}

/// Binds a part of a volume to a place of the node agent's own, so that nobody can exchange it between the check and
/// the mount.
fn bind_sub_path(volume: &Path, path: &str, target: &Path) -> io::Result<()> {
    let fd = open_below(volume, path)?;
    let meta = fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    // A mount of an earlier run of the container may still be there.
    match rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    if meta.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    rustix::mount::mount(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        target,
        "",
        MountFlags::BIND | MountFlags::REC,
        None::<&std::ffi::CStr>,
    )?;
    Ok(())
}

/// What the mounts of one container need.
pub struct Context<'a> {
    /// The pod's directory.
    pub pod_dir: &'a Path,
    /// Its volumes.
    pub volumes: &'a ReadyVolumes,
    /// The container's environment.
    pub env: &'a [KeyValue],
    /// The file to mount at `/etc/hosts`.
    pub hosts: Option<&'a Path>,
    /// The file to mount where the container writes its termination message.
    pub termination_log: Option<&'a Path>,
}

/// The mounts of a container, in the order of its spec; then `/etc/hosts` and the termination message.
///
/// # Errors
/// What is missing or forbidden, in upstream's words.
pub fn of_container(c: &Container, cx: &Context<'_>) -> Result<Vec<Mount>, String> {
    let mut out = vec![];
    let mut own_hosts = false;
    for (i, m) in c.volume_mounts.iter().flatten().enumerate() {
        own_hosts |= m.mount_path == "/etc/hosts";
        let Some(volume) = cx.volumes.get(&m.name) else {
            return Err(format!("cannot find volume {:?} to mount into container {:?}", m.name, c.name));
        };
        let sub = sub_path(m, cx.env)?;
        check(&sub)?;
        let mut mount = Mount {
            container_path: absolute(&m.mount_path),
            readonly: m.read_only.unwrap_or_default(),
            propagation: match m.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::Private,
            },
            recursive_read_only: matches!(m.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
            selinux_relabel: true,
            ..Default::default()
        };
        match volume {
            Ready::Image(image) => {
                mount.image.clone_from(image);
                mount.image_sub_path = sub;
                mount.readonly = true;
            }
            Ready::Path { path, read_only } => {
                mount.readonly |= read_only;
                mount.host_path = if sub.is_empty() {
                    path.clone()
                } else {
                    let target = cx.pod_dir.join("volume-subpaths").join(&m.name).join(&c.name).join(i.to_string());
                    bind_sub_path(path, &sub, &target).map_err(|e| {
                        format!("failed to prepare subPath for volumeMount {:?} of container {:?}: {e}", m.name, c.name)
                    })?;
                    target
                };
            }
        }
        out.push(mount);
    }
    let file = |at: &str, host: &Path| Mount {
        container_path: at.into(),
        host_path: host.into(),
        selinux_relabel: true,
        ..Default::default()
    };
    if let Some(hosts) = cx.hosts.filter(|_| !own_hosts) {
        out.push(file("/etc/hosts", hosts));
    }
    if let Some(log) = cx.termination_log {
        out.push(file(c.termination_message_path.as_deref().unwrap_or("/dev/termination-log"), log));
    }
    Ok(out)
}

/// The devices of a container: volumes it takes as they are, without a file system.
///
/// # Errors
/// When a volume is missing or is no device.
pub fn devices(c: &Container, volumes: &ReadyVolumes) -> Result<Vec<Device>, String> {
    use std::os::unix::fs::FileTypeExt as _;
    let one = |d: &k8s_openapi::api::core::v1::VolumeDevice| match volumes.get(&d.name) {
        Some(Ready::Path { path, read_only }) => {
            if !fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device()) {
                return Err(format!("volume {:?} of container {:?} is not a block device", d.name, c.name));
            }
            Ok(Device {
                container_path: d.device_path.clone().into(),
                host_path: path.clone(),
                permissions: if *read_only { "r" } else { "mrw" }.into(),
            })
        }
        _ => Err(format!("cannot find volume {:?} to pass into container {:?}", d.name, c.name)),
    };
    c.volume_devices.iter().flatten().map(one).collect()
}

fn absolute(path: &str) -> PathBuf {
    if path.starts_with('/') { path.into() } else { Path::new("/").join(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(mounts: &str) -> Container {
        serde_saphyr::from_str(&format!("{{name: c, volumeMounts: [{mounts}]}}")).unwrap()
    }

    #[test]
    fn mounts() {
        let volumes: ReadyVolumes = [
            ("v".to_string(), Ready::Path { path: "/v".into(), read_only: false }),
            ("r".to_string(), Ready::Path { path: "/r".into(), read_only: true }),
            ("i".to_string(), Ready::Image("sha256:1".into())),
        ]
        .into();
        let cx = Context {
            pod_dir: Path::new("/nowhere"),
            volumes: &volumes,
            env: &[],
            hosts: Some(Path::new("/h")),
            termination_log: Some(Path::new("/t")),
        };
        let check = |mounts: &str, want: Result<&[(&str, &str, bool)], &str>| {
            let got = of_container(&container(mounts), &cx);
            let shown: Result<Vec<_>, _> = got.as_ref().map(|l| {
                l.iter()
                    .map(|m| (m.container_path.to_str().unwrap(), m.host_path.to_str().unwrap(), m.readonly))
                    .collect()
            });
            assert_eq!(shown.map_err(String::as_str), want.map(<[_]>::to_vec), "{mounts}");
        };
        let extra = [("/etc/hosts", "/h", false), ("/dev/termination-log", "/t", false)];
        check("", Ok(&extra));
        check(
            "{name: v, mountPath: /a}, {name: r, mountPath: b}, {name: i, mountPath: /i}",
            Ok(&[("/a", "/v", false), ("/b", "/r", true), ("/i", "", true), extra[0], extra[1]]),
        );
        check("{name: v, mountPath: /etc/hosts, readOnly: true}", Ok(&[("/etc/hosts", "/v", true), extra[1]]));
        check("{name: no, mountPath: /a}", Err("cannot find volume \"no\" to mount into container \"c\""));
        check(
            "{name: v, mountPath: /a, subPath: ../x}",
            Err("unable to provision SubPath `../x`: must not contain '..'"),
        );
        check("{name: v, mountPath: /a, subPathExpr: $(NO)}", Err("missing value for \"NO\""));
    }

    #[test]
    fn devices_are_devices() {
        let c: Container = serde_saphyr::from_str("{name: c, volumeDevices: [{name: d, devicePath: /dev/x}]}").unwrap();
        let volumes: ReadyVolumes = [("d".to_string(), Ready::Path { path: "/tmp".into(), read_only: false })].into();
        assert_eq!(devices(&c, &volumes), Err("volume \"d\" of container \"c\" is not a block device".into()));
        let missing = "cannot find volume \"d\" to pass into container \"c\"";
        assert_eq!(devices(&c, &ReadyVolumes::new()), Err(missing.into()));
    }

    #[test]
    fn nothing_leads_out_of_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("a/link")).unwrap();
        let at = |p: &str| {
            let fd = open_below(&root, p)?;
            fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        };
        assert_eq!(at("a/b/c").unwrap(), root.join("a/b/c"), "missing directories are made");
        assert!(!at("a/link").is_ok_and(|p| p == dir.path().join("outside")));
    }
}

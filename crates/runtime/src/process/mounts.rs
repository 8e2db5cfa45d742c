//! A container's file system: the layers, what is mounted into them, and what is hidden again.

use super::root::Root;
use super::spec::{CgroupMount, ContainerSpec, MountKind, MountSpec, RootSpec};
use crate::sys::{self, Context as _, MOUNT_RDONLY};
use crate::{Error, MountPropagation, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// Takes hold of a path of the host, with all that is mounted below it. To be called in the host's mount namespace, so
/// that propagation between both sides is kept.
pub fn clone_tree(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, source, flags).context(format!("mounting {}", source.display()))
}

/// Takes hold of the sources of all binds, in order.
pub fn open_sources(mounts: &[MountSpec]) -> Result<Vec<Option<OwnedFd>>> {
    let open = |m: &MountSpec| match &m.kind {
        MountKind::Bind { source, .. } => clone_tree(source, true).map(Some),
        _ => Ok(None),
    };
    mounts.iter().map(open).collect()
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Makes a mount read-only; kernels before 5.12 know only the old way, which needs a path.
fn make_readonly(mount: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    match sys::mount_setattr(mount, MOUNT_RDONLY, 0, recursive) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) && !recursive => {
            let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
            rustix::mount::mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, c"")
                .context("remounting read-only")
        }
        other => other.context("making the mount read-only"),
    }
}

fn set_propagation(mount: BorrowedFd<'_>, kind: MountPropagation) -> Result<()> {
    let (new, old) = match kind {
        MountPropagation::Private => (libc::MS_PRIVATE, MountPropagationFlags::PRIVATE),
        MountPropagation::HostToContainer => (libc::MS_SLAVE, MountPropagationFlags::DOWNSTREAM),
        MountPropagation::Bidirectional => (libc::MS_SHARED, MountPropagationFlags::SHARED),
    };
    match sys::mount_setattr(mount, 0, new, true) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
            rustix::mount::mount_change(path, old | MountPropagationFlags::REC).context("setting mount propagation")
        }
        other => other.context("setting mount propagation"),
    }
}

/// A new file system of a kind, not attached to anything.
fn new_fs(kind: &str, options: &[(&str, &str)], flags: &[&str], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            rustix::mount::fsconfig_set_string(&fs, *key, *value)?;
        }
        for flag in flags {
            rustix::mount::fsconfig_set_flag(&fs, *flag)?;
        }
        rustix::mount::fsconfig_create(&fs)?;
        rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().context(format!("mounting {kind}"))
}

/// Puts the layers on top of each other. Layers are named by descriptors, for the kernel takes only short names.
fn overlay(layers: &[PathBuf], writable: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    let hold = |p: &PathBuf| {
        rustix::fs::open(p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(format!("opening layer {}", p.display()))
    };
    let held: Vec<OwnedFd> = layers.iter().map(hold).collect::<Result<_>>()?;
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let upper = writable.map(|(u, w)| Ok::<_, Error>((hold(&u.into())?, hold(&w.into())?))).transpose()?;
    let build = |volatile: bool| -> rustix::io::Result<OwnedFd> {
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in &held {
            rustix::mount::fsconfig_set_string(&fs, "lowerdir+", name(layer))?;
        }
        if let Some((upper, work)) = &upper {
            rustix::mount::fsconfig_set_string(&fs, "upperdir", name(upper))?;
            rustix::mount::fsconfig_set_string(&fs, "workdir", name(work))?;
            if volatile {
                // A container does not outlive the machine's run, so its end need not wait for the disk.
                rustix::mount::fsconfig_set_flag(&fs, "volatile")?;
            }
        }
        rustix::mount::fsconfig_create(&fs)?;
        rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    // Older kernels do not know `volatile`.
    build(upper.is_some()).or_else(|_| build(false)).context("mounting the layers")
}

/// The old way of mounting layers, for kernels before 6.5.
fn overlay_by_mount(layers: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> Result<()> {
    let hold = |p: &Path| rustix::fs::open(p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut held = vec![];
    let mut name = |p: &Path| -> Result<String> {
        let fd = hold(p).context(format!("opening layer {}", p.display()))?;
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        held.push(fd);
        Ok(name)
    };
    let lower: Vec<String> = layers.iter().map(|l| name(l)).collect::<Result<_>>()?;
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some((upper, work)) = writable {
        options.push_str(&format!(",upperdir={},workdir={}", name(upper)?, name(work)?));
    }
    let options = sys::cstring(options)?;
    rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())
        .context("mounting the layers")
}

/// Mounts the root at its target and opens it.
pub fn mount_root(spec: &RootSpec) -> Result<Root> {
    let writable = Some((spec.upper.as_path(), spec.work.as_path()));
    match overlay(&spec.layers, writable) {
        Ok(mount) => {
            let target = Root::open(&spec.target)?;
            attach(mount.as_fd(), target.as_fd()).context("mounting the root")?;
        }
        Err(first) => overlay_by_mount(&spec.layers, writable, &spec.target).map_err(|_| first)?,
    }
    Root::open(&spec.target)
}

/// What mounting needs beside the specification.
pub struct Inside<'a> {
    /// The new root.
    pub root: &'a Root,
    /// The sandbox's shared memory, taken hold of already.
    pub shm: Option<OwnedFd>,
    /// A directory for layers of images that are mounted as volumes.
    pub scratch: &'a Path,
}

/// Mounts everything of `spec` below the root. `sources` are those of [`open_sources`].
pub fn mount_all(spec: &ContainerSpec, sources: Vec<Option<OwnedFd>>, inside: &mut Inside<'_>) -> Result<()> {
    for (m, source) in spec.mounts.iter().zip(sources) {
        mount_one(spec, m, source, inside).context(format!("mounting {:?}", m.target.display()))?;
    }
    Ok(())
}

fn mount_one(spec: &ContainerSpec, m: &MountSpec, source: Option<OwnedFd>, inside: &mut Inside<'_>) -> Result<()> {
    let base = NOSUID | NODEV | NOEXEC;
    let mut readonly = if m.readonly { RDONLY } else { MountAttrFlags::empty() };
    let fd = match &m.kind {
        MountKind::Bind { recursive_read_only, propagation, .. } => {
            let fd = source.ok_or_else(|| Error::internal("a bind without source"))?;
            return bind(inside.root, m, &fd, *propagation, *recursive_read_only);
        }
        MountKind::Layers { layers, sub_path } => {
            let fd = image_volume(layers, sub_path, inside.scratch)?;
            return bind(inside.root, m, &fd, MountPropagation::Private, false);
        }
        MountKind::Own => {
            let target = inside.root.mkdir_all(&m.target, 0o755)?;
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let fd = rustix::mount::open_tree(&target, "", flags).context("taking hold of the volume")?;
            return attach(fd.as_fd(), target.as_fd()).context("attaching");
        }
        MountKind::SandboxShm => {
            let fd = inside.shm.take().ok_or_else(|| Error::internal("the sandbox has no shared memory"))?;
            return bind(inside.root, m, &fd, MountPropagation::Private, false);
        }
        MountKind::Proc => new_fs("proc", &[], &[], base | readonly)?,
        MountKind::Sysfs => new_fs("sysfs", &[], &[], base | readonly)?,
        MountKind::Tmpfs { mode, size, dev_exec } => {
            let attributes = if *dev_exec { NOSUID } else { base };
            // The device directory is filled first and becomes read-only, if at all, at the end.
            if *dev_exec {
                readonly = MountAttrFlags::empty();
            }
            new_fs("tmpfs", &[("mode", mode), ("size", size)], &[], attributes | readonly)?
        }
        MountKind::Devpts => {
            let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
            new_fs("devpts", &options, &["newinstance"], NOSUID | NOEXEC | readonly)?
        }
        MountKind::Mqueue => new_fs("mqueue", &[], &[], base | readonly)?,
        MountKind::Cgroup => return cgroups(spec, m, inside.root),
    };
    let target = inside.root.ensure(&m.target, true)?;
    attach(fd.as_fd(), target.as_fd()).context("attaching")
}

fn bind(
    root: &Root,
    m: &MountSpec,
    fd: &OwnedFd,
    propagation: MountPropagation,
    recursive_read_only: bool,
) -> Result<()> {
    let stat = rustix::fs::fstat(fd).context("looking at the source")?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let target = root.ensure(&m.target, directory)?;
    attach(fd.as_fd(), target.as_fd()).context("attaching")?;
    set_propagation(fd.as_fd(), propagation)?;
    if m.readonly {
        make_readonly(fd.as_fd(), recursive_read_only)?;
    }
    Ok(())
}

/// An image's file system, read-only, or one directory of it.
fn image_volume(layers: &[PathBuf], sub_path: &str, scratch: &Path) -> Result<OwnedFd> {
    // Overlayfs without a writable layer wants two layers; an empty one does no harm.
    let mut layers = layers.to_vec();
    if layers.len() == 1 {
        layers.push(scratch.into());
    }
    let mount = overlay(&layers, None)?;
    let target = Root::open(scratch)?;
    attach(mount.as_fd(), target.as_fd()).context("mounting the image")?;
    drop(target);
    let root = Root::open(scratch)?;
    let dir = root.at(Path::new(sub_path), OFlags::PATH).context(format!("looking up {sub_path:?} in the image"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let fd = rustix::mount::open_tree(&dir, "", flags).context("taking hold of the image")?;
    rustix::mount::unmount(scratch, UnmountFlags::DETACH).context("unmounting")?;
    Ok(fd)
}

/// Shows the container's own control groups, as the root of what it sees.
fn cgroups(spec: &ContainerSpec, m: &MountSpec, root: &Root) -> Result<()> {
    let base = NOSUID | NODEV | NOEXEC;
    let readonly = if m.readonly { RDONLY } else { MountAttrFlags::empty() };
    let make = |c: &CgroupMount| -> Result<OwnedFd> {
        if c.unified {
            return new_fs("cgroup2", &[], &[], base | readonly);
        }
        match c.controllers.iter().find_map(|n| n.strip_prefix("name=")) {
            Some(name) => new_fs("cgroup", &[("name", name)], &["none"], base | readonly),
            None => {
                let flags: Vec<&str> = c.controllers.iter().map(String::as_str).collect();
                new_fs("cgroup", &[], &flags, base | readonly)
            }
        }
    };
    if let [only] = spec.cgroup_mounts.as_slice()
        && only.name.is_empty()
    {
        let target = root.ensure(&m.target, true)?;
        return attach(make(only)?.as_fd(), target.as_fd()).context("attaching");
    }
    let top = new_fs("tmpfs", &[("mode", "755"), ("size", "64k")], &[], base)?;
    let target = root.ensure(&m.target, true)?;
    attach(top.as_fd(), target.as_fd()).context("attaching")?;
    for c in &spec.cgroup_mounts {
        let dir = root.mkdir_all(&m.target.join(&c.name), 0o755)?;
        attach(make(c)?.as_fd(), dir.as_fd()).context(format!("attaching {}", c.name))?;
        // Controllers mounted together are looked for under each one's name.
        for alias in c.controllers.iter().filter(|a| c.controllers.len() > 1 && **a != c.name) {
            let parent = root.mkdir_all(&m.target, 0o755)?;
            rustix::fs::symlinkat(c.name.as_str(), &parent, alias.as_str()).context("linking a controller's name")?;
        }
    }
    make_readonly(top.as_fd(), false)
}

/// Makes the device nodes and links of `/dev`, which is a file system of its own by now.
pub fn make_devices(spec: &ContainerSpec, root: &Root) -> Result<()> {
    let usual = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    let dev = root.mkdir_all(Path::new("/dev"), 0o755)?;
    for (name, major, minor) in usual {
        node(&dev, Path::new(name), FileType::CharacterDevice, 0o666, major, minor)?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        match rustix::fs::symlinkat(to, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).context(format!("making /dev/{name}")),
        }
    }
    for d in &spec.devices {
        let parent = root.mkdir_all(d.path.parent().unwrap_or(Path::new("/")), 0o755)?;
        let name = Path::new(d.path.file_name().unwrap_or_default());
        let kind = if d.block { FileType::BlockDevice } else { FileType::CharacterDevice };
        node(&parent, name, kind, d.mode, d.major, d.minor)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(d.uid), rustix::fs::Gid::from_raw(d.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .context(format!("making device {}", d.path.display()))?;
    }
    Ok(())
}

fn node(dir: &OwnedFd, name: &Path, kind: FileType, mode: u32, major: u32, minor: u32) -> Result<()> {
    let what = || format!("making device {}", name.display());
    let device = rustix::fs::makedev(major, minor);
    match rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), device) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(e).context(what()),
    }
    // The umask has no say here.
    let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), name.display());
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).context(what())
}

/// Hides and protects paths, and makes the root read-only if wanted. What is not there needs no hiding.
pub fn protect(spec: &ContainerSpec, root: &Root) -> Result<()> {
    for path in &spec.readonly_paths {
        let fd = match root.at(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.context(format!("protecting {}", path.display()))?,
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = rustix::mount::open_tree(&fd, "", flags).context(format!("protecting {}", path.display()))?;
        attach(tree.as_fd(), fd.as_fd()).context(format!("protecting {}", path.display()))?;
        make_readonly(tree.as_fd(), false)?;
    }
    for path in &spec.masked_paths {
        let fd = match root.at(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.context(format!("hiding {}", path.display()))?,
        };
        let stat = rustix::fs::fstat(&fd).context(format!("hiding {}", path.display()))?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            new_fs("tmpfs", &[("size", "0"), ("mode", "755")], &[], NOSUID | NODEV | NOEXEC | RDONLY)?
        } else {
            clone_tree(Path::new("/dev/null"), false)?
        };
        attach(cover.as_fd(), fd.as_fd()).context(format!("hiding {}", path.display()))?;
    }
    if spec.root.readonly {
        make_readonly(root.as_fd(), false)?;
    }
    Ok(())
}

/// Makes `root` this process's root and lets go of the old one.
pub fn pivot(root: &Root) -> Result<()> {
    rustix::process::fchdir(root).context("entering the root")?;
    rustix::process::pivot_root(".", ".").context("changing the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("leaving the old root")?;
    rustix::process::chdir("/").context("entering the root")
}

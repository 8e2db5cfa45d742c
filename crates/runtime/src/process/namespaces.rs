//! The namespaces of a sandbox, made by a short-lived child and held open by the shim.

use super::spec::SandboxSpec;
use crate::sys::{self, Context as _, Fork};
use crate::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The open namespaces.
#[derive(Debug, Default)]
pub struct SandboxNamespaces {
    /// Network.
    pub net: Option<OwnedFd>,
    /// IPC.
    pub ipc: Option<OwnedFd>,
    /// Host name.
    pub uts: Option<OwnedFd>,
    /// Mounts: holds the shared memory.
    pub mnt: Option<OwnedFd>,
    /// Process ids, when shared.
    pub pid: Option<OwnedFd>,
    /// The first process of the shared namespace of process ids.
    pub pause: Option<i32>,
}

/// Opens a namespace of a process.
pub fn open_ns(pid: i32, kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{kind}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(format!("opening {path}"))
}

/// Makes the namespaces. `shm` is an empty directory under which the shared memory is mounted (in the sandbox's own
/// mount namespace).
pub fn make_sandbox(spec: &SandboxSpec, shm: &Path) -> Result<SandboxNamespaces> {
    let mut out = SandboxNamespaces::default();
    let (mut answer, say) = std::io::pipe().context("making a pipe")?;
    let (wait, done) = std::io::pipe().context("making a pipe")?;
    match sys::fork().context("forking")? {
        Fork::Child => {
            drop((answer, done));
            let (mut say, mut wait) = (say, wait);
            // Whatever is written says why; closing without a word would read as success, hence the dot.
            let text = match set_up(spec, shm) {
                Ok(()) => ".".to_string(),
                Err(e) => e.message,
            };
            let _ = say.write_all(text.as_bytes());
            drop(say);
            // Until the shim holds the namespaces.
            let _ = wait.read(&mut [0]);
            sys::exit_now(0)
        }
        Fork::Parent(pid) => {
            drop((say, wait));
            let mut text = String::new();
            let read = answer.read_to_string(&mut text);
            let take = || -> Result<()> {
                read.context("waiting for the sandbox's namespaces")?;
                if text != "." {
                    return Err(Error::unknown(text.clone()));
                }
                if spec.network {
                    out.net = Some(open_ns(pid, "net")?);
                    out.uts = Some(open_ns(pid, "uts")?);
                }
                if spec.ipc {
                    out.ipc = Some(open_ns(pid, "ipc")?);
                    out.mnt = Some(open_ns(pid, "mnt")?);
                }
                Ok(())
            };
            let result = take();
            drop(done);
            wait_for(pid);
            result?;
        }
    }
    if spec.shared_pid {
        shared_pid(&mut out)?;
    }
    Ok(out)
}

fn wait_for(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

fn set_up(spec: &SandboxSpec, shm: &Path) -> Result<()> {
    let mut kinds = 0;
    if spec.network {
        kinds |= libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
    }
    if spec.ipc {
        kinds |= libc::CLONE_NEWIPC | libc::CLONE_NEWNS;
    }
    if kinds != 0 {
        sys::unshare(kinds).context("making the sandbox's namespaces")?;
    }
    if spec.network {
        loopback_up().context("bringing up the loopback interface")?;
        if !spec.hostname.is_empty() {
            rustix::system::sethostname(spec.hostname.as_bytes()).context("setting the host name")?;
        }
    }
    if spec.ipc {
        let change = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", change).context("making mounts private")?;
        mount_shm(shm).context("mounting shared memory")?;
    }
    for (name, value) in &spec.sysctls {
        sysctl(name, value)?;
    }
    Ok(())
}

fn mount_shm(shm: &Path) -> Result<()> {
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen")?;
    rustix::mount::fsconfig_set_string(&fs, "size", "65536k").context("size")?;
    rustix::mount::fsconfig_set_string(&fs, "mode", "1777").context("mode")?;
    rustix::mount::fsconfig_create(&fs).context("create")?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context("fsmount")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, shm, flags).context("move_mount")
}

/// Sets a kernel parameter by its name (`net.ipv4.ip_local_port_range`, or with slashes).
fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = if name.contains('/') { name.to_string() } else { name.replace('.', "/") };
    if path.split('/').any(|p| p.is_empty() || p == "..") {
        return Err(Error::invalid(format!("invalid sysctl {name:?}")));
    }
    std::fs::write(format!("/proc/sys/{path}"), value).context(format!("setting sysctl {name} to {value:?}"))
}

fn loopback_up() -> std::io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: an all-zero `ifreq` is a valid value of this C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(0);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which `request` is, for the time of the call.
    match unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request)) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Remembers the namespace in which this process's children are born, and goes back to it when dropped.
#[derive(Debug)]
pub struct SavedPidNamespace(OwnedFd);

impl SavedPidNamespace {
    /// Lets children be born in the namespace behind `target`, or in a new one.
    pub fn enter(target: Option<&OwnedFd>) -> Result<Self> {
        let own = open_ns(i32::try_from(std::process::id()).unwrap_or(0), "pid")?;
        match target {
            Some(fd) => sys::setns(fd.as_fd(), libc::CLONE_NEWPID).context("joining a pid namespace")?,
            None => sys::unshare(libc::CLONE_NEWPID).context("making a pid namespace")?,
        }
        Ok(Self(own))
    }
}

impl Drop for SavedPidNamespace {
    fn drop(&mut self) {
        // Going back to one's own namespace is always allowed.
        let _ = sys::setns(self.0.as_fd(), libc::CLONE_NEWPID);
    }
}

/// Makes a namespace of process ids with a first process that only reaps.
fn shared_pid(out: &mut SandboxNamespaces) -> Result<()> {
    let saved = SavedPidNamespace::enter(None)?;
    let child = sys::fork().context("forking")?;
    if let Fork::Parent(pid) = child {
        drop(saved);
        out.pause = Some(pid);
        out.pid = Some(open_ns(pid, "pid")?);
        return Ok(());
    }
    pause()
}

/// The first process of a shared namespace: it ends with the shim, and its children's ends are nobody's business.
fn pause() -> ! {
    sys::reset_signals();
    let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into());
    let _ = rustix::thread::set_name(c"pause");
    let _ = sys::prctl(libc::PR_SET_DUMPABLE, 0);
    // SAFETY: ignoring SIGCHLD has no precondition; the kernel then reaps for us. The descriptors closed are the
    // shim's copies, of which this process uses none.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
    }
    loop {
        // SAFETY: no precondition.
        unsafe { libc::pause() };
    }
}

/// Reads a whole namespace-dependent file from inside the network namespace `net`, in a process of one thread.
pub fn in_netns<T>(net: &OwnedFd, f: impl FnOnce() -> T) -> Result<T> {
    let own = File::open("/proc/self/ns/net").context("opening /proc/self/ns/net")?;
    sys::setns(net.as_fd(), libc::CLONE_NEWNET).context("joining the network namespace")?;
    let out = f();
    sys::setns(own.as_fd(), libc::CLONE_NEWNET).context("leaving the network namespace")?;
    Ok(out)
}

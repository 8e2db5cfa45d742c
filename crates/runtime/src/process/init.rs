//! The way of a container's first process, from the shim's fork to the program.

use super::control::ChildEnd;
use super::identity::{self, Identity};
use super::mounts::{self, Inside};
use super::namespaces::SandboxNamespaces;
use super::spec::{ContainerSpec, ProcessSpec};
use super::{console, mounts::clone_tree};
use crate::sys::{self, Context as _};
use crate::{Error, ProcessUser, Result};
use rustix::fs::{Mode, OFlags};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A process's input and outputs; without, it gets a terminal or `/dev/null`.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Input.
    pub stdin: Option<OwnedFd>,
    /// Output.
    pub stdout: Option<OwnedFd>,
    /// Error output.
    pub stderr: Option<OwnedFd>,
}

/// Becomes the container's first process, or says why not.
pub fn init_child(spec: &ContainerSpec, ns: &SandboxNamespaces, shm: &Path, stdio: Stdio, control: &ChildEnd) -> ! {
    let Err(e) = init(spec, ns, shm, stdio, control);
    control.failed(&e.message);
    sys::exit_now(1)
}

fn init(
    spec: &ContainerSpec,
    ns: &SandboxNamespaces,
    shm: &Path,
    stdio: Stdio,
    control: &ChildEnd,
) -> Result<Infallible> {
    prepare(&spec.process, &spec.cgroup_procs)?;
    let sources = mounts::open_sources(&spec.mounts)?;
    let shm = if spec.ipc { take_shm(ns, shm)? } else { None };
    if spec.network {
        for (fd, kind) in [(&ns.net, libc::CLONE_NEWNET), (&ns.uts, libc::CLONE_NEWUTS)] {
            join(fd.as_ref(), kind)?;
        }
    }
    if spec.ipc {
        join(ns.ipc.as_ref(), libc::CLONE_NEWIPC)?;
    }
    let cgroup = if spec.cgroup_namespace { libc::CLONE_NEWCGROUP } else { 0 };
    sys::unshare(libc::CLONE_NEWNS | cgroup).context("making namespaces")?;
    let slave = rustix::mount::MountPropagationFlags::DOWNSTREAM | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).context("separating mounts from the host's")?;

    let root = mounts::mount_root(&spec.root)?;
    let scratch = spec.root.work.parent().unwrap_or(Path::new("/")).join("volume");
    let mut inside = Inside { root: &root, shm, scratch: &scratch };
    mounts::mount_all(spec, sources, &mut inside)?;
    mounts::make_devices(spec, &root)?;
    // The working directory is made while the root can be written.
    if !spec.process.cwd.is_empty() {
        root.mkdir_all(Path::new(&spec.process.cwd), 0o755)?;
    }
    let console_target = if spec.process.tty { Some(root.ensure(Path::new("/dev/console"), false)?) } else { None };
    mounts::protect(spec, &root)?;
    mounts::pivot(&root)?;
    finish(&spec.process, stdio, control, console_target)
}

fn join(fd: Option<&OwnedFd>, kind: i32) -> Result<()> {
    let fd = fd.ok_or_else(|| Error::internal("the sandbox lacks a namespace"))?;
    sys::setns(fd.as_fd(), kind).context("joining the sandbox's namespaces")
}

/// Takes hold of the shared memory, which is mounted in a mount namespace of its own.
fn take_shm(ns: &SandboxNamespaces, shm: &Path) -> Result<Option<OwnedFd>> {
    let Some(mnt) = &ns.mnt else { return Ok(None) };
    let own = std::fs::File::open("/proc/self/ns/mnt").context("opening /proc/self/ns/mnt")?;
    // Joining a mount namespace is refused while the working directory is shared with another process; after fork it
    // is not.
    sys::setns(mnt.as_fd(), libc::CLONE_NEWNS).context("joining the sandbox's mounts")?;
    let tree = clone_tree(shm, false);
    sys::setns(own.as_fd(), libc::CLONE_NEWNS).context("leaving the sandbox's mounts")?;
    tree.map(Some)
}

/// The first steps of any process of a container: its own session, plain signals, its cgroup.
pub fn prepare(process: &ProcessSpec, cgroup_procs: &[PathBuf]) -> Result<()> {
    sys::reset_signals();
    // Nobody inside may look at this process before the program starts.
    sys::prctl(libc::PR_SET_DUMPABLE, 0).context("hiding from the container")?;
    rustix::process::setsid().context("making a session")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(adj) = process.oom_score_adj {
        // Going below one's own value needs a privilege that some machines do not give; then it stays as it is.
        match std::fs::write("/proc/self/oom_score_adj", adj.to_string()) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
            other => other.context(format!("setting oom_score_adj to {adj}"))?,
        }
    }
    for file in cgroup_procs {
        std::fs::write(file, "0").context(format!("entering cgroup {}", file.display()))?;
    }
    Ok(())
}

/// The last steps of any process of a container, its root being the container's: terminal, user, program.
pub fn finish(
    process: &ProcessSpec,
    stdio: Stdio,
    control: &ChildEnd,
    console_target: Option<OwnedFd>,
) -> Result<Infallible> {
    let stdio = if process.tty { terminal(control, console_target)? } else { stdio };
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let null = null.context("opening /dev/null")?;
    let fds = [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|fd| fd.as_ref().unwrap_or(&null).as_fd());

    let who = identity::find(&process.user)?;
    control.user(&ProcessUser::from(&who))?;
    identity::own_stdio(&who, fds);
    for (fd, n) in fds.into_iter().zip(0..) {
        dup_to(fd, n)?;
    }
    let env = environment(process, &who);
    let args: Vec<CString> = process.args.iter().map(|a| sys::cstring(a.as_str())).collect::<Result<_>>()?;
    let env_c: Vec<CString> = env.iter().map(|e| sys::cstring(e.as_str())).collect::<Result<_>>()?;

    sys::close_on_exec_from(3).context("closing files")?;
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    // Some directories only root may enter, others only the user.
    let entered = rustix::process::chdir(cwd);
    if !process.apparmor.is_empty() {
        let line = format!("exec {}", process.apparmor);
        let (new, old) = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec");
        let written = std::fs::write(new, &line).or_else(|_| std::fs::write(old, &line));
        written.context(format!("applying the AppArmor profile {:?}", process.apparmor))?;
    }
    let program = if entered.is_ok() { Some(find_program(&process.args, &env)?) } else { None };
    identity::become_user(process, &who)?;
    if entered.is_err() {
        rustix::process::chdir(cwd).context(format!("chdir to cwd ({cwd:?}) set in config.json failed"))?;
    }
    let program = program.map_or_else(|| find_program(&process.args, &env), Ok)?;
    Err(execute(&program, &args, &env_c))
}

fn execute(program: &str, args: &[CString], env: &[CString]) -> Error {
    let Ok(path) = sys::cstring(program) else { return Error::invalid("a program's name holds a NUL character") };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: the path and all strings are NUL-terminated and live through the call, both lists end with a null.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    let e = std::io::Error::last_os_error();
    Error::unknown(format!("unable to start container process: exec {program}: {}", os_text(&e)))
}

/// The system's words without the number that Rust adds.
fn os_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    let short = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = short.chars();
    chars.next().map(|c| c.to_lowercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

fn dup_to(fd: BorrowedFd<'_>, n: i32) -> Result<()> {
    // SAFETY: 0, 1 and 2 are nobody's in this process: its standard streams are about to be the container's.
    if unsafe { libc::dup2(fd.as_raw_fd(), n) } < 0 {
        return Err(std::io::Error::last_os_error()).context("setting up standard streams");
    }
    Ok(())
}

fn terminal(control: &ChildEnd, console_target: Option<OwnedFd>) -> Result<Stdio> {
    let (master, slave) = console::open()?;
    if let Some(target) = console_target {
        let number = rustix::pty::ptsname(&master, vec![]).context("naming the terminal")?;
        let path = Path::new(std::str::from_utf8(number.as_bytes()).unwrap_or_default());
        let tree = clone_tree(path, false)?;
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
            | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&tree, "", &target, "", flags).context("making /dev/console")?;
    }
    control.console(master.as_fd())?;
    drop(master);
    rustix::process::ioctl_tiocsctty(&slave).context("taking the terminal")?;
    let again = || slave.try_clone().context("duplicating the terminal");
    Ok(Stdio { stdin: Some(again()?), stdout: Some(again()?), stderr: Some(again()?) })
}

/// The environment, with a home if it names none.
fn environment(process: &ProcessSpec, who: &Identity) -> Vec<String> {
    let mut env = process.env.clone();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", if who.home.is_empty() { "/" } else { &who.home }));
    }
    env
}

/// Finds the program as a shell would.
fn find_program(args: &[String], env: &[String]) -> Result<String> {
    let fail = |what: String| {
        Error::unknown(format!("unable to start container process: error during container init: exec: {what}"))
    };
    let Some(name) = args.first().filter(|n| !n.is_empty()) else { return Err(fail("no command specified".into())) };
    let usable = |path: &str| -> std::result::Result<(), String> {
        let meta = std::fs::metadata(path).map_err(|e| format!("stat {path}: {}", os_text(&e)))?;
        if meta.is_dir() {
            return Err("is a directory".into());
        }
        match std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 {
            0 => Err("permission denied".into()),
            _ => Ok(()),
        }
    };
    if name.contains('/') {
        usable(name).map_err(|e| fail(format!("{name:?}: {e}")))?;
        return Ok(name.clone());
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    let found = path.split(':').filter(|d| !d.is_empty()).map(|d| format!("{d}/{name}")).find(|p| usable(p).is_ok());
    found.ok_or_else(|| fail(format!("{name:?}: executable file not found in $PATH")))
}

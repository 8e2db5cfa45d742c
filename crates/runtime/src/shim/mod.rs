//! The keeper of one sandbox: a small process of one thread that holds the namespaces, is the parent of every process
//! of its containers, keeps their logs and exit records, and lives on when the daemon does not.

mod container;
pub mod log;
mod oom;
pub mod protocol;
mod server;

use crate::process::{self, spec::SandboxSpec};
use crate::sys::{self, Context as _};
use crate::{Error, Result};
use protocol::{ShimRecord, files};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The role's name on the command line: `<program> shim <directory of the sandbox>`.
pub const ROLE: &str = "shim";

/// Runs the role; `args` are those after its name. Must be called before the process has a second thread. Answers the
/// process's exit code, once the sandbox is over.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let Some(dir) = args.into_iter().next().map(PathBuf::from) else {
        eprintln!("usage: shim <sandbox directory>");
        return 2;
    };
    match start(&dir) {
        Ok(mut server) => {
            announce("ok");
            leave_terminal(&dir);
            server.run()
        }
        Err(e) => {
            announce(&e.message);
            1
        }
    }
}

/// Tells the daemon, which waits at the other end of the output, how the start went.
fn announce(text: &str) {
    let mut out = std::io::stdout();
    // If the daemon is gone nobody is left to be told.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Connects to a socket whose path may be longer than such an address may be.
pub fn short_address(dir: &OwnedFd) -> Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), files::SOCKET);
    SocketAddrUnix::new(path).context("naming the shim's socket")
}

fn start(dir: &Path) -> Result<server::Server> {
    // Not an error when this process leads a group already.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"pintle-shim");
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).context("becoming a sub-reaper")?;
    // Better lose a container than its keeper; not every machine grants that.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    // Containers get what the machine grants, not what the daemon's shell was content with.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).context("signalfd")?;

    let text = std::fs::read(dir.join(files::SANDBOX)).context("reading the sandbox's specification")?;
    let spec: SandboxSpec = serde_json::from_slice(&text)
        .map_err(|e| Error::internal(format!("reading the sandbox's specification: {e}")))?;
    let shm = dir.join(files::SHM);
    std::fs::create_dir_all(&shm).context("making the directory of shared memory")?;
    let namespaces = process::make_sandbox(&spec, &shm)?;

    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, rustix::fs::Mode::empty()).context("opening the sandbox's directory")?;
    let _ = std::fs::remove_file(dir.join(files::SOCKET));
    let socket = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, socket, None)
        .context("making the shim's socket")?;
    rustix::net::bind(&listener, &short_address(&opened)?).context("binding the shim's socket")?;
    rustix::net::listen(&listener, 16).context("listening on the shim's socket")?;

    let pid = std::process::id();
    let record = ShimRecord {
        pid,
        start_time: sys::start_time(pid).unwrap_or(0),
        netns: namespaces.net.as_ref().map(AsRawFd::as_raw_fd),
    };
    let text = serde_json::to_vec(&record).map_err(|e| Error::internal(e.to_string()))?;
    sys::write_atomic(&dir.join(files::SHIM), &text, false).context("writing the shim's record")?;
    Ok(server::Server::new(dir.into(), namespaces, listener, signals))
}

/// Lets go of the daemon's files and directory.
fn leave_terminal(dir: &Path) {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(files::LOG));
    let _ = std::env::set_current_dir("/");
    let Ok(null) = null else { return };
    let log = log.as_ref().unwrap_or(&null);
    for (from, to) in [(&null, 0), (&null, 1), (log, 2)] {
        // SAFETY: the standard streams of this process are used by nobody else: it has one thread.
        unsafe { libc::dup2(from.as_raw_fd(), to) };
    }
}

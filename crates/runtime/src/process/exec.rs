//! The way of a further process of a running container.

use super::control::ChildEnd;
use super::init::{self, Stdio};
use super::namespaces::open_ns;
use super::spec::{ContainerSpec, ProcessSpec};
use crate::Result;
use crate::sys::{self, Context as _};
use std::convert::Infallible;
use std::os::fd::AsFd;

/// Becomes a process of the container whose first process is `init` (as the host counts), or says why not. The caller
/// has made it a member of the container's namespace of process ids already.
pub fn exec_child(container: &ContainerSpec, process: &ProcessSpec, init: i32, stdio: Stdio, control: &ChildEnd) -> ! {
    let Err(e) = exec(container, process, init, stdio, control);
    control.failed(&e.message);
    sys::exit_now(1)
}

fn exec(
    container: &ContainerSpec,
    process: &ProcessSpec,
    init: i32,
    stdio: Stdio,
    control: &ChildEnd,
) -> Result<Infallible> {
    // The namespaces first: in the container's, `init` is a number of somebody else.
    let kinds = [
        ("ipc", libc::CLONE_NEWIPC, container.ipc),
        ("uts", libc::CLONE_NEWUTS, container.network),
        ("net", libc::CLONE_NEWNET, container.network),
        ("cgroup", libc::CLONE_NEWCGROUP, container.cgroup_namespace),
        ("mnt", libc::CLONE_NEWNS, true),
    ];
    let mut open = vec![];
    for (name, kind, _) in kinds.iter().filter(|(_, _, wanted)| *wanted) {
        open.push((open_ns(init, name)?, *kind));
    }
    init::prepare(process, &container.cgroup_procs)?;
    for (fd, kind) in &open {
        sys::setns(fd.as_fd(), *kind).context("joining the container's namespaces")?;
    }
    if !process.cwd.is_empty() && !std::path::Path::new(&process.cwd).exists() {
        // It was made at the start, and the container may have removed it since.
        let _ = std::fs::create_dir_all(&process.cwd);
    }
    init::finish(process, stdio, control, None)
}

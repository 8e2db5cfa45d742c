//! A terminal from the container's own devpts.

use crate::Result;
use crate::sys::Context as _;
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use std::os::fd::OwnedFd;

/// Opens a new terminal: the side that stays with the shim, and the program's side. The root must be the container's.
pub fn open() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).context("opening /dev/pts/ptmx")?;
    rustix::pty::unlockpt(&master).context("unlocking the terminal")?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).context("opening the terminal")?;
    Ok((master, slave))
}

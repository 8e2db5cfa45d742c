//! Notices when the kernel kills for want of memory.

use crate::cgroup::OomCounter;
use crate::sys::Context as _;
use crate::{Error, Result};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Watches one cgroup.
#[derive(Debug)]
pub struct OomWatch {
    counter: OomCounter,
    fd: OwnedFd,
    seen: u64,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OomWatch {
    /// Begins to watch.
    pub fn new(counter: OomCounter) -> Result<Self> {
        let fd = if counter.unified {
            let fd =
                inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).context("inotify")?;
            inotify::add_watch(&fd, &counter.file, inotify::WatchFlags::MODIFY).context("watching memory events")?;
            fd
        } else {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd")?;
            let control = std::fs::File::open(&counter.file).context("opening memory.oom_control")?;
            let dir = counter.file.parent().ok_or_else(|| Error::internal("a cgroup file without directory"))?;
            let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
            std::fs::write(dir.join("cgroup.event_control"), line).context("asking for memory events")?;
            fd
        };
        let seen = counter.read();
        Ok(Self { counter, fd, seen })
    }

    /// Whether there were kills since the last time this answered yes.
    pub fn check(&mut self) -> bool {
        // What the descriptor holds does not matter, only that it is empty afterwards.
        let _ = rustix::io::read(&self.fd, &mut [0u8; 4096]);
        let now = self.counter.read();
        let more = now > self.seen;
        self.seen = self.seen.max(now);
        more
    }
}

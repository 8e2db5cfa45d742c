//! Entering network namespaces. A thread's namespace is part of its state, so work in another namespace is always done
//! on a thread made for it and thrown away after.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace: the one this process was started in, or another held by its file.
#[derive(Clone, Debug, Default)]
pub struct NetNs(Option<Arc<OwnedFd>>);

impl NetNs {
    /// The namespace of this process.
    #[must_use]
    pub fn host() -> Self {
        Self(None)
    }

    /// The namespace behind a path such as `/proc/<pid>/ns/net` or `/run/netns/<name>`.
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self(Some(Arc::new(file.into()))))
    }

    /// A new, empty namespace that lives as long as a handle to it (or anything inside it) does.
    ///
    /// # Errors
    /// When the kernel refuses (not root, or out of namespaces).
    pub fn new() -> io::Result<Self> {
        on_thread(|| {
            // SAFETY: only CLONE_NEWNET is unshared, on a thread made for this; descriptor tables stay shared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            Self::open(Path::new("/proc/thread-self/ns/net"))
        })?
    }

    /// Runs `work` inside the namespace on a throw-away thread. Sockets opened there stay in the namespace and may be
    /// handed out.
    ///
    /// # Errors
    /// When no thread can be made or the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.0 {
            None => Ok(work()),
            Some(fd) => on_thread(|| {
                move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            })?,
        }
    }

    /// The descriptor of the namespace's file; `None` for the host's own.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }
}

/// Runs `work` on a new thread and waits for it.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?
            .join()
            .map_err(|_| io::Error::other("the thread inside the network namespace panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode_of_current() -> String {
        std::fs::read_link("/proc/thread-self/ns/net").unwrap().display().to_string()
    }

    #[test]
    fn work_runs_in_the_namespace_and_only_there() {
        let before = inode_of_current();
        let a = NetNs::new().unwrap();
        let b = NetNs::new().unwrap();
        let in_a = a.run(inode_of_current).unwrap();
        let in_b = b.run(inode_of_current).unwrap();
        assert_ne!(in_a, in_b);
        assert_ne!(in_a, before);
        assert_eq!(before, inode_of_current());
        assert_eq!(before, NetNs::host().run(inode_of_current).unwrap());
        assert!(NetNs::open(Path::new("/proc/self/ns/none")).is_err());
    }
}

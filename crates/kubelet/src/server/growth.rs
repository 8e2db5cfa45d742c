//! Tells a follower of a log that the file grew, was renamed or was removed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An inotify watch of one file.
#[derive(Debug)]
pub(super) struct Growth(AsyncFd<OwnedFd>);

impl Growth {
    /// Watches `path`. To lose nothing: watch first, then read to the end, then wait.
    ///
    /// # Errors
    /// When the file is gone, or the user's inotify watches are used up (`fs.inotify.max_user_watches`).
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        add_watch(&fd, path, WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF)?;
        Ok(Self(AsyncFd::with_interest(fd, Interest::READABLE)?))
    }

    /// Waits until something happened since the last wait.
    ///
    /// # Errors
    /// When the watch cannot be read.
    pub(super) async fn wait(&self) -> io::Result<()> {
        // What happened is of no interest: the reader looks at the file. One read takes many events at once.
        let mut events = [0u8; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|fd| rustix::io::read(fd, &mut events).map_err(io::Error::from)) {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn writes_and_renames_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut file = std::fs::File::create(&path).unwrap();
        let growth = Growth::of(&path).unwrap();
        assert!(growth.wait().now_or_never().is_none(), "nothing happened yet");
        file.write_all(b"line\n").unwrap();
        growth.wait().await.unwrap();
        assert!(growth.wait().now_or_never().is_none(), "told once");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        growth.wait().await.unwrap();
        assert!(Growth::of(&path).is_err(), "there is no new file yet");
    }
}

//! Tells a follower of a log that the file grew, was renamed or was removed.

use std::io;
use std::path::Path;

use futures::{FutureExt as _, StreamExt as _};
use inotify::{EventStream, Inotify, WatchMask};

/// An inotify watch of one file.
#[derive(Debug)]
pub(super) struct Growth(EventStream<[u8; 4096]>);

impl Growth {
    /// Watches `path`. To lose nothing: watch first, then read to the end, then wait.
    ///
    /// # Errors
    /// When the file is gone, or the user's inotify watches are used up (`fs.inotify.max_user_watches`).
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(path, WatchMask::MODIFY | WatchMask::MOVE_SELF | WatchMask::DELETE_SELF)?;
        Ok(Self(inotify.into_event_stream([0; 4096])?))
    }

    /// Waits until something happened since the last wait.
    ///
    /// # Errors
    /// When the watch cannot be read.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        // What happened is of no interest: the reader looks at the file once for all that is told by now.
        match self.0.next().await {
            Some(Err(e)) => return Err(e),
            Some(Ok(_)) => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        while let Some(Some(told)) = self.0.next().now_or_never() {
            told?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn writes_and_renames_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut growth = Growth::of(&path).unwrap();
        assert!(growth.wait().now_or_never().is_none(), "nothing happened yet");
        file.write_all(b"line\n").unwrap();
        growth.wait().await.unwrap();
        assert!(growth.wait().now_or_never().is_none(), "told once");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        growth.wait().await.unwrap();
        assert!(Growth::of(&path).is_err(), "there is no new file yet");
    }
}

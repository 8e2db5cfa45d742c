//! Notices from the kernel that a file or a directory changed (inotify).

use std::io;
use std::path::Path;

use futures::{FutureExt as _, StreamExt as _};
use inotify::{EventStream, Inotify, WatchMask};

/// An inotify watch of one file or directory.
#[derive(Debug)]
pub struct Notices(EventStream<[u8; 4096]>);

impl Notices {
    /// Tells that a file grew, was renamed or was removed. To lose nothing: watch first, then read to the end, then wait.
    ///
    /// # Errors
    /// When it is gone, or the user's inotify watches are used up (`fs.inotify.max_user_watches`).
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of(path, WatchMask::MODIFY | WatchMask::MOVE_SELF | WatchMask::DELETE_SELF)
    }

    /// Tells that a file in a directory was made, written, renamed or removed.
    ///
    /// # Errors
    /// As for [`Self::of_file`].
    pub fn of_directory(path: &Path) -> io::Result<Self> {
        Self::of(
            path,
            WatchMask::CREATE
                | WatchMask::CLOSE_WRITE
                | WatchMask::MOVED_TO
                | WatchMask::MOVED_FROM
                | WatchMask::DELETE
                | WatchMask::ONLYDIR,
        )
    }

    fn of(path: &Path, what: WatchMask) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(path, what)?;
        Ok(Self(inotify.into_event_stream([0; 4096])?))
    }

    /// Waits until something happened since the last wait.
    ///
    /// # Errors
    /// When the watch cannot be read.
    pub async fn wait(&mut self) -> io::Result<()> {
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
        let mut growth = Notices::of_file(&path).unwrap();
        assert!(growth.wait().now_or_never().is_none(), "nothing happened yet");
        file.write_all(b"line\n").unwrap();
        growth.wait().await.unwrap();
        assert!(growth.wait().now_or_never().is_none(), "told once");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        growth.wait().await.unwrap();
        assert!(Notices::of_file(&path).is_err(), "there is no new file yet");
    }

    #[tokio::test]
    async fn files_that_come_and_go_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let mut notices = Notices::of_directory(dir.path()).unwrap();
        let steps: [&dyn Fn() -> io::Result<()>; 3] =
            [&|| std::fs::write(&a, "x"), &|| std::fs::rename(&a, &b), &|| std::fs::remove_file(&b)];
        for step in steps {
            assert!(notices.wait().now_or_never().is_none(), "nothing happened yet");
            step().unwrap();
            notices.wait().await.unwrap();
        }
        std::fs::write(&a, "x").unwrap();
        assert!(Notices::of_directory(&a).is_err(), "a file is no directory");
    }
}

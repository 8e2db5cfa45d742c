//! Paths inside a root directory that is not trusted: no symbolic link leads out of it.

use crate::Result;
use crate::sys::Context as _;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

/// How many symbolic links to missing things are followed.
const MAX_LINKS: u32 = 40;

/// An open root directory.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Opens a directory as a root.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).context(format!("opening {}", path.display()))?;
        Ok(Self { fd })
    }

    /// Opens what is at `path` inside, following symbolic links as a process with this root would.
    pub fn at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel answers EAGAIN when something was renamed meanwhile.
        for _ in 0..16 {
            match openat2(&self.fd, relative(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Makes the directory `path` with its missing parents and opens it.
    pub fn mkdir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        self.mkdir_links(path, mode, MAX_LINKS).context(format!("making directory {}", path.display()))
    }

    fn mkdir_links(&self, path: &Path, mode: u32, links: u32) -> rustix::io::Result<OwnedFd> {
        let path = relative(path);
        match self.at(&path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        if links == 0 {
            return Err(Errno::LOOP);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT) };
        let dir = self.mkdir_links(parent, mode, links - 1)?;
        match mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        match self.at(&path, OFlags::PATH | OFlags::DIRECTORY) {
            // It is there and is not: a symbolic link to something missing. Make what it means.
            Err(Errno::NOENT) => {
                let target = PathBuf::from(OsString::from_vec(readlinkat(&dir, name, vec![])?.into_bytes()));
                let target = if target.is_absolute() { target } else { parent.join(target) };
                self.mkdir_links(&normal(&target), mode, links - 1)
            }
            other => other,
        }
    }

    /// Opens what is at `path`; if nothing is there, makes an empty file or a directory first.
    pub fn ensure(&self, path: &Path, directory: bool) -> Result<OwnedFd> {
        if directory {
            return self.mkdir_all(path, 0o755);
        }
        let what = || format!("making file {}", path.display());
        match self.at(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.context(what()),
        }
        let path = relative(path);
        let dir = self.mkdir_all(path.parent().unwrap_or(Path::new("")), 0o755)?;
        let name = path.file_name().unwrap_or_default();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o755)) {
            // A symbolic link to something missing: its place becomes the file's.
            Err(Errno::LOOP) => {
                rustix::fs::unlinkat(&dir, name, AtFlags::empty()).context(what())?;
                rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o755)).context(what())?;
            }
            other => drop(other.context(what())?),
        }
        self.at(&path, OFlags::PATH).context(what())
    }
}

/// The path without its leading `/`, `.` for the root itself.
fn relative(path: &Path) -> PathBuf {
    let rest: PathBuf =
        path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).collect();
    if rest.as_os_str().is_empty() { PathBuf::from(".") } else { rest }
}

/// The path with `..` taken literally, never above the root.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(p) => out.push(p),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        symlink(&outside, root.join("abs")).unwrap();
        symlink("../outside", root.join("rel")).unwrap();
        symlink("/run", root.join("varrun")).unwrap();
        symlink("loop2", root.join("loop1")).unwrap();
        symlink("loop1", root.join("loop2")).unwrap();
        let r = Root::open(&root).unwrap();
        r.mkdir_all(Path::new("/abs/x"), 0o755).unwrap();
        r.mkdir_all(Path::new("rel/y"), 0o755).unwrap();
        r.mkdir_all(Path::new("/varrun/z"), 0o755).unwrap();
        r.ensure(Path::new("/../../a/b/file"), false).unwrap();
        assert!(r.mkdir_all(Path::new("/loop1/x"), 0o755).is_err());
        assert!(outside.read_dir().unwrap().next().is_none(), "something was made outside");
        assert!(root.join("run/z").is_dir());
        assert!(root.join("a/b/file").is_file());
        assert!(root.join("outside/y").is_dir());
    }
}

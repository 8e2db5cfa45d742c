//! Files of volumes that the node agent itself reads: whoever writes them is not trusted.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// The most that is read of a file.
const LIMIT: u64 = 1 << 20;

/// The text of a regular file of a volume; `None` if it is not there. No symbolic link leads out of the volume.
///
/// # Errors
/// When it is no regular file, is too large, or cannot be read.
pub fn text(volume: &Path, path: &str) -> io::Result<Option<String>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::open(volume, flags | OFlags::DIRECTORY, Mode::empty())
        .and_then(|root| rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT));
    let found = match found {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // What is found is known to be a file before it is opened: a pipe would be waited for.
    let file = format!("/proc/self/fd/{}", found.as_raw_fd());
    if !std::fs::metadata(&file)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(&file)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("larger than {LIMIT} bytes")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_volume_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("d")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::fs::write(volume.join("d/f"), "text").unwrap();
        std::fs::write(volume.join("large"), vec![b'x'; 1 + (1 << 20)]).unwrap();
        for (link, to) in [("up", "../secret"), ("abs", "/secret"), ("in", "d/f")] {
            std::os::unix::fs::symlink(to, volume.join(link)).unwrap();
        }
        let read = |path: &str| text(&volume, path).map_err(|e| e.to_string());
        for path in ["d/f", "in", "/d/f"] {
            assert_eq!(read(path), Ok(Some("text".into())), "{path}");
        }
        for path in ["no", "up", "abs", "../secret"] {
            assert_eq!(read(path), Ok(None), "{path}");
        }
        assert_eq!(read("d"), Err("not a regular file".into()));
        assert_eq!(read("large"), Err("larger than 1048576 bytes".into()));
        assert_eq!(text(&dir.path().join("none"), "f").unwrap(), None);
    }
}

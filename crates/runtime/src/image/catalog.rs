//! The list of images, in one file that several processes read and change: the node's agent, and the command line
//! beside it.

use super::store::Record;
use crate::sys::{self, Context as _};
use crate::{Error, Result};
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which version of the file was read. Every change makes a new file.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The list.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    read: Mutex<(Stamp, Arc<Vec<Record>>)>,
}

/// Opens a file of a directory as a lock. Each call makes a lock of its own, within one process, too.
pub fn lock(dir: &Path, name: &str, how: FlockOperation) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(name))?;
    rustix::fs::flock(&file, how)?;
    Ok(file)
}

impl Catalog {
    /// The list in this directory.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("images.json"), read: Mutex::default() }
    }

    fn stamp(&self) -> Stamp {
        let meta = fs::metadata(&self.path).ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
    }

    /// The images now.
    pub fn read(&self) -> Result<Arc<Vec<Record>>> {
        let mut read = self.read.lock();
        let stamp = self.stamp();
        if stamp.is_none() {
            return Ok(Arc::default());
        }
        if read.0 != stamp {
            let text = fs::read(&self.path).context("reading the list of images")?;
            let images = serde_json::from_slice(&text)
                .map_err(|e| Error::internal(format!("{}: {e}; move it away to begin anew", self.path.display())))?;
            // If it changed in between, the next reader sees that by the older stamp.
            *read = (stamp, Arc::new(images));
        }
        Ok(read.1.clone())
    }

    /// Changes the list; others wait.
    pub fn change<T>(&self, change: impl FnOnce(&mut Vec<Record>) -> T) -> Result<T> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let _lock = lock(dir, "lock", FlockOperation::LockExclusive).context("locking the list of images")?;
        let mut images = self.read()?.to_vec();
        let out = change(&mut images);
        let text = serde_json::to_vec_pretty(&images).map_err(|e| Error::internal(e.to_string()))?;
        sys::write_atomic(&self.path, &text, true).context("writing the list of images")?;
        Ok(out)
    }
}

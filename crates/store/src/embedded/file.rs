//! The data directory: its lock, its file, and what can be wrong with them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::{Database, StorageBackend, backends::FileBackend};

use super::Options;
use crate::{Error, Result};

const FILE: &str = "store.redb";
const LOCK: &str = "store.lock";

/// Where the bytes are: a directory, or whatever a test puts in its place.
pub(super) enum Place {
    Directory {
        path: PathBuf,
        lock: Mutex<Option<File>>,
    },
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests' disk"))]
    Custom(Box<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync>),
}

impl Place {
    /// Takes possession of a directory, which is made if it does not exist.
    pub(super) fn directory(path: &Path) -> Result<Self> {
        let problem = |what: &str, error: &io::Error| io_error(&format!("{what} {}", path.display()), error);
        std::fs::create_dir_all(path).map_err(|error| problem("creating the data directory", &error))?;
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|error| problem("opening the lock file in", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let owner = match owner.trim() {
                    "" => String::new(),
                    pid => format!(" (process {pid})"),
                };
                return Err(Error::Locked(format!(
                    "{} is used by another Pintle{owner}; stop it or choose another data directory",
                    path.display()
                )));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(problem("locking", &error)),
        }
        // The number only helps the message above; without room on the disk it is left out.
        let _ = lock.set_len(0).and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self::Directory { path: path.join(FILE), lock: Mutex::new(Some(lock)) })
    }

    /// Lets another process have the directory.
    pub(super) fn unlock(&self) {
        if let Self::Directory { lock, .. } = self {
            drop(lock.lock().take());
        }
    }

    /// Makes the file if there is none: first under another name, so that a crash leaves no half-made file.
    pub(super) fn create(&self, fill: impl FnOnce(&Database) -> Result<()>) -> Result<()> {
        let Self::Directory { path, .. } = self else { return Ok(()) };
        if path.exists() {
            return Ok(());
        }
        let problem = |error: io::Error| io_error(&format!("creating {}", path.display()), &error);
        let new = path.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(problem(error)),
            _ => {}
        }
        let db = Database::create(&new).map_err(|error| self.open_error(error))?;
        fill(&db)?;
        drop(db);
        std::fs::rename(&new, path).map_err(problem)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        // The data directory may itself be new.
        for directory in [Some(directory), directory.parent()].into_iter().flatten() {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(problem)?;
        }
        Ok(())
    }

    /// Opens the database. `sync_failed` is set when the operating system later fails to make writes durable.
    pub(super) fn open(&self, options: &Options, sync_failed: &Arc<AtomicBool>) -> Result<Database> {
        let inner: Box<dyn StorageBackend> = match self {
            Self::Directory { path, .. } => {
                let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
                let file = file.map_err(|error| io_error(&format!("opening {}", path.display()), &error))?;
                Box::new(FileBackend::new(file).map_err(|error| self.damaged(&error))?)
            }
            Self::Custom(make) => make().map_err(|error| io_error("opening the store", &error))?,
        };
        let backend = Backend { inner, sync_failed: sync_failed.clone() };
        // A damaged file may make the library panic instead of telling us.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let verify = backend.len()? <= options.verify;
            Database::builder()
                .set_cache_size(options.cache)
                .set_check_integrity_on_open(verify)
                .create_with_backend(backend)
        }));
        match opened {
            Ok(opened) => opened.map_err(|error| self.open_error(error)),
            Err(_) => Err(self.damaged(&"it cannot be read")),
        }
    }

    fn open_error(&self, error: redb::DatabaseError) -> Error {
        match error {
            redb::DatabaseError::Storage(redb::StorageError::Io(error))
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                self.damaged(&error)
            }
            redb::DatabaseError::Storage(redb::StorageError::Io(error)) => io_error("opening the store", &error),
            redb::DatabaseError::DatabaseAlreadyOpen | redb::DatabaseError::LockProtocolMismatch => {
                Error::Locked(format!("{self} is open in another process"))
            }
            redb::DatabaseError::UpgradeRequired(version) => Error::Format(format!(
                "{self} has file version {version}, which this program cannot read; use the version that wrote it"
            )),
            error => self.damaged(&error),
        }
    }

    /// Says that the file is damaged and what can be done.
    pub(super) fn damaged(&self, reason: &dyn fmt::Display) -> Error {
        Error::Corrupt(format!(
            "{self}: {reason}; restore the latest snapshot into a new data directory, or move the file away to start \
             with an empty store"
        ))
    }

    /// Bytes taken on the disk.
    pub(super) fn disk_usage(&self) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        match self {
            Self::Directory { path, .. } => std::fs::metadata(path).ok().map(|data| data.blocks() * 512),
            Self::Custom(make) => make().and_then(|backend| backend.len()).ok(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, .. } => write!(f, "{}", path.display()),
            Self::Custom(_) => f.write_str("the store's file"),
        }
    }
}

/// Whether there was no room, which passes, unlike other failures.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

pub(super) fn io_error(what: &str, error: &io::Error) -> Error {
    if is_full(error) {
        Error::NoSpace(format!("{what}: {error}; free some space on the disk"))
    } else {
        Error::Io(format!("{what}: {error}"))
    }
}

/// What a failure inside the database means.
pub(super) fn db_error(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => io_error("the store's file", &error),
        redb::Error::PreviousIo => Error::Unavailable("an earlier write failed".into()),
        redb::Error::DatabaseClosed => Error::Closed,
        redb::Error::Corrupted(reason) => Error::Corrupt(reason),
        error => Error::Io(error.to_string()),
    }
}

/// The bytes of the store, remembering a failed sync: after one the operating system may have dropped what it was to
/// write, so nothing read back can be trusted to be on the disk.
struct Backend {
    inner: Box<dyn StorageBackend>,
    sync_failed: Arc<AtomicBool>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

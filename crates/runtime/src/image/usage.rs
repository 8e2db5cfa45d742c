//! What is in use, and the removal of the rest. Holds are files, so that every process knows of them.

use super::catalog::lock;
use super::store::{ImageStore, Layers, Record};
use crate::sys::{self, Context as _};
use crate::{Error, FilesystemUsage, Image, Result};
use rustix::fs::FlockOperation;
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;

/// The lock that pulls and imports share and removal needs alone.
const BUSY: &str = "busy";

/// While it lives nothing is removed, by no process.
pub struct Busy<'a> {
    store: &'a ImageStore,
    lock: Option<File>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.lock = None;
        self.store.collect();
    }
}

fn entries(dir: PathBuf) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(dir).into_iter().flatten().flatten()
}

impl ImageStore {
    /// Keeps everything while the answer lives.
    pub fn busy(&self) -> Result<Busy<'_>> {
        let file = lock(self.dir(), BUSY, FlockOperation::LockShared).context("locking the image store")?;
        Ok(Busy { store: self, lock: Some(file) })
    }

    /// Holds an image's layers under a holder's name until [`ImageStore::release`], restarts included.
    pub fn hold(&self, holder: &str, record: &Record) -> Result<Layers> {
        let _busy = lock(self.dir(), BUSY, FlockOperation::LockShared).context("locking the image store")?;
        if let Some(missing) = record.layers.iter().find(|l| !self.has_layer(l)) {
            return Err(Error::not_found(format!("layer {missing} of image {} was removed", record.id)));
        }
        let path = self.dir().join("held").join(holder);
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        text.extend(record.layers.iter().map(|l| format!("{l}\n")));
        sys::write_atomic(&path, text.as_bytes(), false).context("holding an image")?;
        let dirs = record.layers.iter().rev().map(|c| self.layer_dir(c).join("fs")).collect();
        Ok(Layers { chain: record.layers.clone(), dirs })
    }

    /// Lets go of all a holder holds.
    pub fn release(&self, holder: &str) {
        if fs::remove_file(self.dir().join("held").join(holder)).is_ok() {
            self.collect();
        }
    }

    /// Lets go of what holders hold that are not among these.
    pub fn release_others(&self, holders: &HashSet<String>) {
        for entry in entries(self.dir().join("held")) {
            if !holders.contains(entry.file_name().to_string_lossy().as_ref()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        self.collect();
    }

    fn held(&self) -> HashSet<String> {
        let texts = entries(self.dir().join("held")).filter_map(|e| fs::read_to_string(e.path()).ok());
        texts.flat_map(|t| t.lines().map(String::from).collect::<Vec<_>>()).collect()
    }

    /// Removes images that nobody uses and that are not pinned, unless `keep` wants them. Answers their ids.
    pub fn prune(&self, keep: impl Fn(&Image) -> bool) -> Result<Vec<String>> {
        let used = self.held();
        let in_use = |r: &Record| r.layers.last().is_some_and(|top| used.contains(top));
        let removed = self.catalog().change(|images| {
            let goes = |r: &Record| !r.pinned && !in_use(r) && !keep(&r.image());
            let gone: Vec<String> = images.iter().filter(|r| goes(r)).map(|r| r.id.clone()).collect();
            images.retain(|r| !gone.contains(&r.id));
            gone
        })?;
        self.collect();
        Ok(removed)
    }

    /// Removes blobs and layers that nothing needs, unless a pull or import is under way; its end does it then.
    pub fn collect(&self) {
        let Ok(alone) = lock(self.dir(), BUSY, FlockOperation::NonBlockingLockExclusive) else { return };
        let Ok(images) = self.catalog().read() else { return };
        let mut layers = self.held();
        layers.extend(images.iter().flat_map(|r| r.layers.iter().cloned()));
        let blobs: HashSet<&str> =
            images.iter().flat_map(|r| &r.blobs).map(|b| b.trim_start_matches("sha256:")).collect();
        let mut gone = vec![];
        for entry in entries(self.dir().join("layers")) {
            if !layers.contains(entry.file_name().to_string_lossy().as_ref()) {
                // Out of the way first, so that half a layer is never taken for a whole one.
                let tmp = self.tmp();
                if fs::rename(entry.path(), &tmp).is_ok() {
                    gone.push(tmp);
                }
            }
        }
        for entry in entries(self.dir().join("blobs/sha256")) {
            if !blobs.contains(entry.file_name().to_string_lossy().as_ref()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        drop(alone);
        for tmp in gone {
            let _ = fs::remove_dir_all(tmp);
        }
    }

    /// What the store takes of the disk.
    #[must_use]
    pub fn usage(&self) -> FilesystemUsage {
        let (mut bytes, mut inodes) = (0, 0);
        for entry in entries(self.dir().join("blobs/sha256")) {
            bytes += entry.metadata().map_or(0, |m| m.len());
            inodes += 1;
        }
        for entry in entries(self.dir().join("layers")) {
            let size = fs::read_to_string(entry.path().join("size")).unwrap_or_default();
            bytes += size.trim().parse::<u64>().unwrap_or(0);
            inodes += 1;
        }
        FilesystemUsage {
            timestamp: sys::now(),
            mountpoint: self.dir().display().to_string(),
            used_bytes: bytes,
            inodes_used: inodes,
        }
    }
}

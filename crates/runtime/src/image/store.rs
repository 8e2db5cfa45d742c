//! What is on disk: blobs by digest, unpacked layers by what lies below them, and one list of images.
//!
//! A layer or blob appears under its name by a rename, so what is there is whole. What no image and no container uses
//! is removed as soon as no pull or import is under way.

use super::catalog::Catalog;
use super::manifest::{ConfigDocument, Descriptor, Manifest};
use super::name::{ImageName, is_digest};
use super::unpack::{self, Hashing};
use crate::sys::{self, Context as _};
use crate::{Error, Image, ImageConfig, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Numbers unfinished things of this process, whichever store they are in.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The layers of an image, the uppermost first, held against removal under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// Their chain ids.
    pub chain: Vec<String>,
    /// Their directories.
    pub dirs: Vec<PathBuf>,
}

/// An image on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The digest of its configuration.
    pub id: String,
    /// The names that lead to it.
    pub tags: Vec<String>,
    /// The names with digests that lead to it.
    pub digests: Vec<String>,
    /// Blobs: manifest first, then configuration and layers; empty for images made of our own program.
    pub blobs: Vec<String>,
    /// Chain ids, the lowest first.
    pub layers: Vec<String>,
    /// Its size as a registry has it.
    pub size: u64,
    /// Never removed by garbage collection.
    pub pinned: bool,
    /// How to run it.
    pub config: ImageConfig,
    /// Known to have reached the disk.
    pub durable: bool,
    /// During which run of the machine it was made.
    pub boot: String,
    /// For images made of our own program: from which file.
    pub origin: String,
}

/// The store.
#[derive(Debug)]
pub struct ImageStore {
    dir: PathBuf,
    catalog: Catalog,
    boot: String,
    /// One pull of a name at a time: the next finds what the first brought.
    pulls: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

pub(super) fn hex_of(digest: &str) -> Result<&str> {
    if is_digest(digest) { Ok(&digest[7..]) } else { Err(Error::invalid(format!("unsupported digest {digest:?}"))) }
}

pub(super) fn digest_of(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

/// The name of a layer over what lies below it.
pub fn chain_id(below: Option<&str>, diff_id: &str) -> String {
    below.map_or_else(|| diff_id.to_string(), |b| digest_of(format!("{b} {diff_id}").as_bytes()))
}

impl ImageStore {
    /// Opens the store in a directory, which is made if it is missing. Several processes may have it open.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        for sub in ["blobs/sha256", "layers", "held", "tmp"] {
            fs::create_dir_all(dir.join(sub)).context(format!("making {}", dir.join(sub).display()))?;
        }
        // What was being made by a process that is gone is worth nothing.
        for entry in fs::read_dir(dir.join("tmp")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let maker = name.split('-').next().unwrap_or_default();
            if maker.parse::<u32>().is_ok_and(|pid| sys::start_time(pid).is_none() || pid == std::process::id()) {
                let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
            }
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
        let catalog = Catalog::new(&dir);
        let present = |r: &Record| r.layers.iter().all(|l| dir.join("layers").join(l).join("fs").is_dir());
        // Nobody knows what a loss of power left of what was not known to have reached the disk.
        let sound = |r: &Record| (r.durable || r.boot == boot) && present(r);
        if !catalog.read()?.iter().all(sound) {
            catalog.change(|images| images.retain(sound))?;
        }
        Ok(Self { catalog, boot, pulls: Mutex::default(), dir })
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The machine's present run.
    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    /// The lock of a name's pulls.
    pub(super) fn pull_lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulls = self.pulls.lock();
        pulls.retain(|_, lock| lock.strong_count() > 0);
        let lock = pulls.get(name).and_then(Weak::upgrade).unwrap_or_default();
        pulls.insert(name.into(), Arc::downgrade(&lock));
        lock
    }

    /// A new name for something unfinished.
    pub(super) fn tmp(&self) -> PathBuf {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        self.dir.join("tmp").join(format!("{}-{n}", std::process::id()))
    }

    /// Where a blob is or will be.
    pub(super) fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        Ok(self.dir.join("blobs/sha256").join(hex_of(digest)?))
    }

    /// Where a layer is or will be.
    pub(super) fn layer_dir(&self, chain: &str) -> PathBuf {
        self.dir.join("layers").join(chain.trim_start_matches("sha256:"))
    }

    /// Keeps a small document.
    pub fn put_blob(&self, data: &[u8]) -> Result<String> {
        let digest = digest_of(data);
        let path = self.blob_path(&digest)?;
        if !path.exists() {
            let tmp = self.tmp();
            fs::write(&tmp, data).and_then(|()| fs::rename(&tmp, &path)).context("keeping a blob")?;
        }
        Ok(digest)
    }

    /// Reads a small document.
    pub fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        fs::read(self.blob_path(digest)?).context(format!("reading blob {digest}"))
    }

    /// Unpacks a layer's file over `below` (chain ids, the lowest first), checks both its digests, and keeps the file as
    /// a blob. Answers its chain id. An empty `blob` takes the file's digest as it comes.
    pub fn add_layer(&self, file: &Path, blob: &str, diff_id: &str, below: &[String]) -> Result<(String, String)> {
        let chain = chain_id(below.last().map(String::as_str), diff_id);
        let target = self.layer_dir(&chain);
        let tmp = self.tmp();
        fs::create_dir_all(tmp.join("fs")).context("making a layer")?;
        let result = self.unpack_into(file, blob, diff_id, below, &tmp);
        match result {
            Ok(digest) => {
                match fs::rename(&tmp, &target) {
                    // Someone else was faster, or it was there all along.
                    Err(_) if target.is_dir() => drop(fs::remove_dir_all(&tmp)),
                    other => other.context("keeping a layer")?,
                }
                let path = self.blob_path(&digest)?;
                if path != file {
                    fs::rename(file, &path).context("keeping a blob")?;
                }
                Ok((chain, digest))
            }
            Err(e) => {
                let _ = fs::remove_dir_all(&tmp);
                Err(e)
            }
        }
    }

    fn unpack_into(&self, file: &Path, blob: &str, diff_id: &str, below: &[String], tmp: &Path) -> Result<String> {
        let mut hashing = Hashing::new(File::open(file).context("opening a layer")?);
        let lower: Vec<PathBuf> = below.iter().rev().map(|c| self.layer_dir(c).join("fs")).collect();
        let (found, written) = {
            let plain = unpack::decompress(BufReader::with_capacity(256 * 1024, &mut hashing))?;
            unpack::unpack(plain, &tmp.join("fs"), &lower)?
        };
        let digest = hashing.finish().context("reading a layer")?;
        if !blob.is_empty() && blob != digest {
            return Err(Error::unknown(format!("layer {blob} has the digest {digest}: it was damaged or forged")));
        }
        if found != diff_id {
            return Err(Error::unknown(format!("layer {digest} unpacks to {found} instead of {diff_id}")));
        }
        fs::write(tmp.join("size"), written.to_string()).context("making a layer")?;
        Ok(digest)
    }

    /// Whether a layer is unpacked.
    pub fn has_layer(&self, chain: &str) -> bool {
        self.layer_dir(chain).is_dir()
    }

    /// Lists an image whose blobs and layers are all here. `asked` is the digest its names led to: the manifest's, or
    /// that of an index.
    pub(super) fn commit(
        &self,
        manifest_digest: &str,
        manifest: &Manifest,
        document: &ConfigDocument,
        names: &[ImageName],
        pinned: bool,
        asked: &str,
    ) -> Result<String> {
        let config = manifest.config.as_ref().ok_or_else(|| Error::invalid("the manifest has no configuration"))?;
        let mut chain: Vec<String> = vec![];
        for diff in &document.rootfs.diff_ids {
            chain.push(chain_id(chain.last().map(String::as_str), diff));
        }
        if let Some(missing) = chain.iter().find(|c| !self.has_layer(c)) {
            return Err(Error::internal(format!("layer {missing} is missing")));
        }
        let blobs = [manifest_digest, &config.digest].into_iter().map(String::from);
        let mut blobs: Vec<String> = blobs.chain(manifest.layers.iter().map(|l| l.digest.clone())).collect();
        if asked != manifest_digest {
            blobs.push(asked.into());
        }
        let record = Record {
            id: config.digest.clone(),
            blobs,
            layers: chain.iter().map(|c| c.trim_start_matches("sha256:").to_string()).collect(),
            size: config.size + manifest.layers.iter().map(|l: &Descriptor| l.size).sum::<u64>(),
            pinned,
            config: document.config.clone().unwrap_or_default(),
            boot: self.boot.clone(),
            ..Record::default()
        };
        let tags =
            names.iter().filter(|n| n.tag.is_some()).map(|n| ImageName { digest: None, ..n.clone() }.to_string());
        let digests = names.iter().map(|n| format!("{}@{asked}", n.familiar()));
        self.list(record, tags.collect(), digests.collect())
    }

    /// Lists an image, giving it names that others may have had.
    pub fn list(&self, mut record: Record, tags: Vec<String>, digests: Vec<String>) -> Result<String> {
        let id = record.id.clone();
        self.catalog.change(|images| {
            for other in images.iter_mut() {
                other.tags.retain(|t| !tags.contains(t));
            }
            if let Some(at) = images.iter().position(|r| r.id == record.id) {
                let old = images.swap_remove(at);
                record.tags = old.tags;
                record.digests = old.digests;
                record.pinned |= old.pinned;
                for blob in old.blobs {
                    if !record.blobs.contains(&blob) {
                        record.blobs.push(blob);
                    }
                }
            }
            record.tags.extend(tags);
            for d in digests {
                if !record.digests.contains(&d) {
                    record.digests.push(d);
                }
            }
            images.push(record);
        })?;
        Ok(id)
    }

    /// Waits until everything is on the disk, and notes that for the image.
    pub fn make_durable(&self, id: &str) -> Result<()> {
        rustix::fs::syncfs(File::open(&self.dir).context("opening the image store")?).context("syncing images")?;
        self.catalog.change(|images| images.iter_mut().filter(|r| r.id == id).for_each(|r| r.durable = true))
    }

    /// The image with this id (or a unique beginning of it), tag or digest.
    pub fn find(&self, name: &str) -> Option<Record> {
        let images = self.all();
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        if bare.len() >= 12 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found = images.iter().filter(|r| r.id[7..].starts_with(bare));
            if let (Some(one), None) = (found.next(), found.next()) {
                return Some(one.clone());
            }
        }
        let full: ImageName = name.parse().ok()?;
        let tag = ImageName { digest: None, ..full.clone() }.to_string();
        let digest = full.digest.as_ref().map(|d| format!("{}@{d}", full.familiar()));
        let fits = |r: &&Record| match &digest {
            Some(d) => r.digests.contains(d),
            None => r.tags.contains(&tag),
        };
        images.iter().find(fits).cloned()
    }

    /// All images.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Record>> {
        self.catalog.read().unwrap_or_else(|e| {
            tracing::error!("{}", e.message);
            Arc::default()
        })
    }

    /// Gives an image one more name.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        let record = self.find(image).ok_or_else(|| Error::not_found(format!("no such image: {image}")))?;
        let name: ImageName = name.parse()?;
        self.list(record, vec![ImageName { digest: None, ..name }.to_string()], vec![]).map(drop)
    }

    /// Forgets an image with all its names. Its layers stay while containers hold them.
    pub fn remove(&self, name: &str) -> Result<()> {
        let Some(record) = self.find(name) else { return Ok(()) };
        self.catalog.change(|images| images.retain(|r| r.id != record.id))?;
        self.collect();
        Ok(())
    }
}

impl Record {
    /// What callers see of it.
    #[must_use]
    pub fn image(&self) -> Image {
        let user = self.config.user.split(':').next().unwrap_or_default();
        let uid = user.parse().ok();
        Image {
            id: self.id.clone(),
            repo_tags: self.tags.clone(),
            repo_digests: self.digests.clone(),
            size: self.size,
            uid: if user.is_empty() { Some(0) } else { uid },
            username: if uid.is_some() { String::new() } else { user.to_string() },
            pinned: self.pinned,
            config: self.config.clone(),
        }
    }

    /// How a container names its image.
    #[must_use]
    pub fn reference(&self) -> String {
        self.digests.first().cloned().unwrap_or_else(|| self.id.clone())
    }
}

//! Layers: from an archive, compressed or not, to a directory in overlayfs' form. Nothing in an archive is trusted.

use crate::process::Root;
use crate::sys::Context as _;
use crate::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Opens what may be compressed.
pub fn decompress<'a>(mut from: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let start = from.fill_buf().context("reading the layer")?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(from).context("reading the layer")?)
        }
        _ => Box::new(from),
    })
}

/// Passes on what it reads, and keeps its digest.
pub struct Hashing<R> {
    from: R,
    hash: Sha256,
    /// How much was read.
    pub count: u64,
}

impl<R: Read> Hashing<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> Self {
        Self { from, hash: Sha256::new(), count: 0 }
    }
    /// Reads the rest, and answers the digest of everything.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex::encode(self.hash.finalize())))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buf)?;
        self.hash.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// Unpacks a plain archive into the directory `target`, over the layers `below` (the uppermost first), and answers its
/// digest and the bytes written.
pub fn unpack(archive: impl Read, target: &Path, below: &[PathBuf]) -> Result<(String, u64)> {
    let mut hashing = Hashing::new(archive);
    let below = below.iter().map(|p| Root::open(p)).collect::<Result<Vec<_>>>()?;
    let mut layer =
        Layer { root: Root::open(target)?, below, known: HashSet::new(), parent: None, times: vec![], written: 0 };
    {
        let mut tar = tar::Archive::new(io::BufReader::with_capacity(128 * 1024, &mut hashing));
        for entry in tar.entries().context("reading the layer")? {
            let mut entry = entry.context("reading the layer")?;
            let path = entry.path_bytes().into_owned();
            layer.add(&mut entry).context(format!("unpacking {:?}", String::from_utf8_lossy(&path)))?;
        }
    }
    layer.finish();
    let written = layer.written;
    Ok((hashing.finish().context("reading the layer")?, written))
}

/// Who and when a file is.
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
}

struct Layer {
    root: Root,
    below: Vec<Root>,
    /// Directories that are in this layer for sure.
    known: HashSet<PathBuf>,
    /// The last parent directory, for most entries follow each other.
    parent: Option<(PathBuf, Arc<OwnedFd>)>,
    /// Directories' times, to be set at the very end.
    times: Vec<(PathBuf, i64)>,
    written: u64,
}

/// The path without anything that could lead elsewhere.
fn clean(path: &[u8]) -> Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(p) => out.push(p),
            Component::ParentDir => return Err(Error::invalid("the path leads out of the layer")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;

impl Layer {
    fn add<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<()> {
        let header = entry.header();
        let kind = header.entry_type();
        if matches!(kind, tar::EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = clean(&entry.path_bytes())?;
        let number = |n: io::Result<u64>| n.context("reading the header");
        let meta = Meta {
            mode: header.mode().context("reading the header")? & 0o7777,
            uid: u32::try_from(number(header.uid())?).map_err(|_| Error::invalid("the owner is out of range"))?,
            gid: u32::try_from(number(header.gid())?).map_err(|_| Error::invalid("the group is out of range"))?,
            mtime: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
        };
        let Some(name) = path.file_name().map(OsStr::to_os_string) else {
            // The root itself.
            return self.metadata_of_root(&meta);
        };
        let above = path.parent().unwrap_or(Path::new(""));
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(above, OsStr::from_bytes(hidden));
        }
        let dir = self.directory(above)?;
        let existing = rustix::fs::statat(&*dir, &name, NOFOLLOW).ok();
        let is_dir = existing.as_ref().is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        if existing.is_some() && !(is_dir && kind.is_dir()) {
            self.remove(&dir, &name, is_dir, &path)?;
        }
        let xattrs = xattrs(entry)?;
        match kind {
            tar::EntryType::Directory => {
                match rustix::fs::mkdirat(&*dir, &name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e).context("making the directory"),
                }
                self.known.insert(path.clone());
                self.times.push((path, meta.mtime));
            }
            tar::EntryType::Symlink => {
                let to = entry.link_name_bytes().ok_or_else(|| Error::invalid("a link without target"))?;
                rustix::fs::symlinkat(OsStr::from_bytes(&to), &*dir, &name).context("making the link")?;
            }
            tar::EntryType::Link => {
                let to = clean(&entry.link_name_bytes().ok_or_else(|| Error::invalid("a link without target"))?)?;
                return self.hard_link(&to, &dir, &name);
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                let header = entry.header();
                let major = header.device_major().ok().flatten().unwrap_or(0);
                let minor = header.device_minor().ok().flatten().unwrap_or(0);
                let (kind, device) = match kind {
                    tar::EntryType::Char => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
                    tar::EntryType::Block => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
                    _ => (FileType::Fifo, 0),
                };
                if kind == FileType::CharacterDevice && device == 0 {
                    // To overlayfs this would be a whiteout, which has another form in archives.
                    return Err(Error::invalid("a device with the numbers 0:0"));
                }
                rustix::fs::mknodat(&*dir, &name, kind, Mode::RUSR | Mode::WUSR, device)
                    .context("making the device")?;
            }
            // What is not known counts as a regular file, as the standard says.
            _ => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&*dir, &name, flags, Mode::RUSR | Mode::WUSR).context("making the file")?;
                let mut file = std::fs::File::from(fd);
                self.written += copy(entry, &mut file).context("writing the file")?;
            }
        }
        apply(&dir, &name, kind.is_symlink(), &meta, &xattrs)
    }

    fn metadata_of_root(&mut self, meta: &Meta) -> Result<()> {
        let dot = OsStr::new(".");
        let fd = self.root.at(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY).context("opening the layer")?;
        self.times.push((PathBuf::new(), meta.mtime));
        apply(&fd, dot, false, meta, &[])
    }

    /// The open directory `path` of this layer, made if it is missing as the layers below have it.
    fn directory(&mut self, path: &Path) -> Result<Arc<OwnedFd>> {
        if let Some((known, fd)) = &self.parent
            && known == path
        {
            return Ok(fd.clone());
        }
        let real = self.ensure(path, 0)?;
        let fd = self.root.at(&real, OFlags::PATH | OFlags::DIRECTORY);
        let fd = Arc::new(fd.context(format!("opening {}", real.display()))?);
        self.parent = Some((path.into(), fd.clone()));
        Ok(fd)
    }

    /// Makes sure that a directory is there, and answers where: a link of a layer below may lead elsewhere.
    fn ensure(&mut self, path: &Path, depth: u32) -> Result<PathBuf> {
        if path.as_os_str().is_empty() || self.known.contains(path) {
            return Ok(path.into());
        }
        if depth > 255 {
            return Err(Error::invalid("too many links or directories"));
        }
        let name = path.file_name().unwrap_or_default();
        let real = self.ensure(path.parent().unwrap_or(Path::new("")), depth + 1)?.join(name);
        if self.root.at(&real, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            self.known.insert(real.clone());
            return Ok(real);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let found = self.below.iter().find_map(|r| r.at(&real, flags).ok());
        let stat = found.as_ref().and_then(|fd| rustix::fs::fstat(fd).ok());
        let kind = stat.as_ref().map(|s| FileType::from_raw_mode(s.st_mode));
        if let (Some(fd), Some(FileType::Symlink)) = (&found, kind) {
            let to = rustix::fs::readlinkat(fd, "", vec![]).context("reading a link")?;
            let to = Path::new(OsStr::from_bytes(to.as_bytes())).to_path_buf();
            let joined = if to.is_absolute() { to } else { real.parent().unwrap_or(Path::new("")).join(to) };
            let mut target = PathBuf::new();
            for part in joined.components() {
                match part {
                    Component::Normal(p) => target.push(p),
                    Component::ParentDir => drop(target.pop()),
                    _ => {}
                }
            }
            return self.ensure(&target, depth + 1);
        }
        let fd = self.root.mkdir_all(&real, 0o755)?;
        if let (Some(s), Some(FileType::Directory)) = (&stat, kind) {
            let meta = Meta { mode: s.st_mode & 0o7777, uid: s.st_uid, gid: s.st_gid, mtime: s.st_mtime };
            apply(&fd, OsStr::new("."), false, &meta, &[])?;
            self.times.push((real.clone(), meta.mtime));
        }
        self.known.insert(real.clone());
        Ok(real)
    }

    fn remove(&mut self, dir: &OwnedFd, name: &OsStr, is_dir: bool, path: &Path) -> Result<()> {
        if !is_dir {
            return rustix::fs::unlinkat(dir, name, AtFlags::empty()).context("replacing a file");
        }
        // Paths through the descriptor cannot be led astray: the last part is a directory, not a link.
        let path_of = format!("/proc/self/fd/{}", dir.as_raw_fd());
        std::fs::remove_dir_all(Path::new(&path_of).join(name)).context("replacing a directory")?;
        self.known.retain(|k| !k.starts_with(path));
        self.times.retain(|(t, _)| !t.starts_with(path));
        self.parent = None;
        Ok(())
    }

    /// Hides what layers below have: one name, or all a directory holds.
    fn whiteout(&mut self, above: &Path, hidden: &OsStr) -> Result<()> {
        let dir = self.directory(above)?;
        if hidden == ".wh..opq" {
            let fd = self.root.at(above, OFlags::RDONLY | OFlags::DIRECTORY).context("opening the directory")?;
            return rustix::fs::fsetxattr(&fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .context("hiding what is below");
        }
        if hidden.as_bytes().starts_with(b".wh.") {
            // Other marks of the old aufs mean nothing here.
            return Ok(());
        }
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Error::invalid("a whiteout of nothing"));
        }
        match rustix::fs::mknodat(&*dir, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // The layer itself has it: then only what is below is meant, which it covers already.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e).context("hiding a file"),
        }
    }

    fn hard_link(&mut self, to: &Path, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        let parent = self.ensure(to.parent().unwrap_or(Path::new("")), 0)?;
        let real = parent.join(to.file_name().unwrap_or_default());
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        if let Ok(target) = self.root.at(&real, flags) {
            return rustix::fs::linkat(&target, "", dir, name, AtFlags::EMPTY_PATH).context("making the hard link");
        }
        // Its target is in a layer below: the link becomes a file of its own.
        let found = self.below.iter().find_map(|r| r.at(&real, OFlags::RDONLY | OFlags::NOFOLLOW).ok());
        let source = found.ok_or_else(|| Error::invalid(format!("the target {:?} does not exist", to.display())))?;
        let stat = rustix::fs::fstat(&source).context("looking at the target")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).context("making the file")?;
        let mut file = std::fs::File::from(fd);
        self.written += io::copy(&mut std::fs::File::from(source), &mut file).context("copying the target")?;
        let meta = Meta { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime: stat.st_mtime };
        apply(dir, name, false, &meta, &[])
    }

    fn finish(&mut self) {
        for (path, mtime) in self.times.iter().rev() {
            if let Ok(fd) = self.root.at(path, OFlags::RDONLY | OFlags::DIRECTORY) {
                // A wrong time of a directory hurts nobody.
                let _ = rustix::fs::futimens(&fd, &timestamps(*mtime));
            }
        }
    }
}

fn copy(from: &mut impl Read, to: &mut std::fs::File) -> io::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(total),
            n => {
                to.write_all(&buffer[..n])?;
                total += n as u64;
            }
        }
    }
}

fn timestamps(mtime: i64) -> Timestamps {
    let t = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: t, last_modification: t }
}

/// Extended attributes that may be set: never overlayfs' own, by which a layer could reach outside.
fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut out = vec![];
    if let Some(extensions) = entry.pax_extensions().context("reading the header")? {
        for extension in extensions {
            let extension = extension.context("reading the header")?;
            let Ok(Some(name)) = extension.key().map(|k| k.strip_prefix("SCHILY.xattr.")) else { continue };
            if name.starts_with("user.") || name == "security.capability" {
                out.push((name.to_string(), extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(out)
}

fn apply(dir: &impl AsFd, name: &OsStr, link: bool, meta: &Meta, xattrs: &[(String, Vec<u8>)]) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), NOFOLLOW).context("setting the owner")?;
    if !link {
        // After the owner, for that clears the setuid bit.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode), AtFlags::empty()).context("setting the mode")?;
    }
    let path = Path::new(&format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd())).join(name);
    for (key, value) in xattrs {
        match rustix::fs::lsetxattr(&path, key.as_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e).context(format!("setting {key}")),
        }
    }
    rustix::fs::utimensat(dir, name, &timestamps(meta.mtime), NOFOLLOW).context("setting the time")
}

//! Writes a set of files so that a reader sees all of the old ones or all of the new ones: the files are in a directory
//! of their own, `..data` is a symbolic link to it, and each name at the top is a link through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path};

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its contents.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, if not root.
    pub owner: Option<u32>,
}

/// Files by path.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Refuses paths that would leave the volume or clash with the links.
///
/// # Errors
/// What is wrong.
pub fn check_path(path: &str) -> Result<(), String> {
    let p = Path::new(path);
    if path.is_empty() || p.is_absolute() {
        return Err(format!("invalid path: must be relative path: {path}"));
    }
    if p.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err("invalid path: must not contain '..'".to_string());
    }
    if path.starts_with("..") {
        return Err("invalid path: must not start with '..'".to_string());
    }
    if path.len() > 4096 {
        return Err("invalid path: must be less than or equal to 4096 characters".to_string());
    }
    Ok(())
}

fn top(path: &str) -> &str {
    path.split('/').find(|p| !p.is_empty() && *p != ".").unwrap_or(path)
}

/// Whether the volume's present files are exactly these.
fn is_current(dir: &Path, payload: &Payload) -> bool {
    fn walk(base: &Path, at: &Path, found: &mut BTreeMap<String, (Vec<u8>, u32)>) -> io::Result<()> {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                walk(base, &path, found)?;
            } else {
                let name = path.strip_prefix(base).map_err(io::Error::other)?.to_string_lossy().into_owned();
                found.insert(name, (fs::read(&path)?, meta.permissions().mode() & 0o7777));
            }
        }
        Ok(())
    }
    let Ok(base) = fs::canonicalize(dir.join(DATA)) else { return false };
    let mut found = BTreeMap::new();
    if walk(&base, &base, &mut found).is_err() {
        return false;
    }
    let normal = |p: &str| Path::new(p).components().collect::<std::path::PathBuf>().to_string_lossy().into_owned();
    // A group that was given access later does not count as a difference.
    found.len() == payload.len()
        && payload.iter().all(|(name, f)| {
            found.get(&normal(name)).is_some_and(|(data, mode)| *data == f.data && mode & 0o7707 == f.mode & 0o7707)
        })
}

/// Makes `dir` hold exactly these files. Answers whether anything changed. `stamp` names the new directory and must not
/// have been used before; `prepare` is called with the new directory before it becomes visible.
///
/// # Errors
/// What failed; the old files are then still in place.
pub fn write(
    dir: &Path,
    payload: &Payload,
    stamp: &str,
    prepare: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    for path in payload.keys() {
        check_path(path).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    }
    let old = fs::read_link(dir.join(DATA)).ok();
    if old.is_some() && is_current(dir, payload) {
        return Ok(false);
    }
    let name = format!("..{stamp}");
    let fresh = dir.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    let outcome = fill(&fresh, payload).and_then(|()| prepare(&fresh));
    if let Err(e) = outcome {
        // The error that counts is the first.
        let _ = fs::remove_dir_all(&fresh);
        return Err(e);
    }
    let link = dir.join(DATA_NEW);
    match fs::remove_file(&link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(&name, &link)?;
    // New names before the switch would dangle, removed ones after it: readers of either see a whole set.
    fs::rename(&link, dir.join(DATA))?;
    let wanted: BTreeSet<OsString> = payload.keys().map(|p| top(p).into()).collect();
    for name in &wanted {
        let path = dir.join(name);
        if fs::symlink_metadata(&path).is_err() {
            symlink(Path::new(DATA).join(name), &path)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

fn fill(dir: &Path, payload: &Payload) -> io::Result<()> {
    for (name, f) in payload {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &f.data)?;
        // Creation is subject to the process's mask, this is not.
        fs::set_permissions(&path, fs::Permissions::from_mode(f.mode))?;
        if let Some(owner) = f.owner {
            std::os::unix::fs::chown(&path, Some(owner), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(k, v)| ((*k).into(), File { data: v.as_bytes().into(), mode: 0o640, owner: None })).collect()
    }

    #[test]
    fn replaces_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let put = |files: &[(&str, &str)], stamp: &str| write(d, &payload(files), stamp, |_| Ok(())).unwrap();
        assert!(put(&[("a", "1"), ("sub/b", "2")], "s1"));
        assert_eq!(fs::read_to_string(d.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(d.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::read_link(d.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::metadata(d.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!put(&[("a", "1"), ("sub/b", "2")], "s2"), "nothing changed");
        assert!(put(&[("a", "3")], "s3"));
        assert_eq!(fs::read_to_string(d.join("a")).unwrap(), "3");
        let mut names: Vec<_> = fs::read_dir(d).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["..data", "..s3", "a"]);
        assert!(put(&[], "s4"));
        assert!(fs::symlink_metadata(d.join("a")).is_err());
    }

    #[test]
    fn refuses_paths_out_of_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["/etc/x", "../x", "a/../../x", "..x", ""] {
            assert!(write(dir.path(), &payload(&[(bad, "")]), "s", |_| Ok(())).is_err(), "{bad}");
        }
        let failed = write(dir.path(), &payload(&[("a", "")]), "s", |_| Err(io::Error::other("no")));
        assert!(failed.is_err() && fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}

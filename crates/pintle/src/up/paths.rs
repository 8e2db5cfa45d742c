//! Where things are kept below the data directory, and the lock that keeps a second process off it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// Paths below the data directory.
#[derive(Clone)]
pub struct Paths {
    /// The data directory.
    pub root: PathBuf,
    /// Certificates and keys.
    pub pki: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// The node agent's root: pods and their volumes.
    pub kubelet: PathBuf,
    /// Images and containers.
    pub runtime: PathBuf,
    /// State of the pod network.
    pub network: PathBuf,
    /// Logs of containers.
    pub pod_logs: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Paths {
    /// Below this directory.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let at = |name: &str| root.join(name);
        Self {
            pki: at("pki"),
            store: at("store"),
            kubelet: at("kubelet"),
            runtime: at("runtime"),
            network: at("network"),
            pod_logs: at("logs/pods"),
            kubeconfig: at("admin.kubeconfig"),
            root: root.to_owned(),
        }
    }

    /// Tells this data directory from others of the machine.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // FNV-1a: the same in every build.
        let bytes = self.root.as_os_str().as_encoded_bytes();
        let hash =
            bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x}")
    }

    /// Where a running process gives snapshots of its store.
    #[must_use]
    pub fn store_socket(&self) -> PathBuf {
        self.root.join("store.sock")
    }

    /// Where a running process answers `pintle image`.
    #[must_use]
    pub fn image_socket(&self) -> PathBuf {
        self.root.join("image.sock")
    }
}

/// Held while this process uses the data directory.
pub struct Lock(#[expect(dead_code, reason = "held, not read: the lock goes with the file")] File);

/// Takes the data directory for this process.
///
/// # Errors
/// When another process has it, with its pid.
pub fn lock(root: &Path) -> anyhow::Result<Lock> {
    let path = root.join("lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        bail!(
            "{} is in use by another pintle (pid {}): stop it, or choose another directory by --data-dir",
            root.display(),
            pid.trim()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(Lock(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).err().unwrap().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(held);
        lock(dir.path()).unwrap();
    }
}

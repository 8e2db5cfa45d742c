//! `pintle cluster reset`, and `pintle up --rm`: nothing of a cluster stays on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pintle_network::netns::NetNs;
use pintle_runtime::LoopbackOnly;
use pintle_runtime::embedded::{Embedded, Options};
use rustix::mount::{UnmountFlags, unmount};

use crate::up::paths::{self, Paths};

/// Removes containers, links, rules, mounts, control groups and the data directory of a cluster that does not run.
///
/// # Errors
/// What could not be removed, after everything else was.
pub async fn run(data_dir: &Path, cgroup_root: &str) -> anyhow::Result<()> {
    if !data_dir.exists() {
        return Ok(());
    }
    let paths = Paths::new(data_dir);
    let lock = paths::lock(&paths.root)?;
    // The network is taken down as a whole below, so sandboxes need not give back their parts one by one.
    let runtime = match Embedded::open(Options::new(&paths.runtime), Arc::new(LoopbackOnly)).await {
        Ok(runtime) => Some(runtime),
        Err(e) => {
            eprintln!("the container runtime does not open, so containers may be left: {e}");
            None
        }
    };
    remove(&paths, cgroup_root, runtime).await?;
    drop(lock);
    Ok(())
}

/// Removes everything below these paths; the runtime, when there is one, first removes its sandboxes.
///
/// # Errors
/// What could not be removed, after everything else was.
pub(crate) async fn remove(paths: &Paths, cgroup_root: &str, runtime: Option<Embedded>) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    if let Some(runtime) = runtime
        && let Err(e) = runtime.remove_all().await
    {
        failed.push(format!("containers: {e}"));
    }
    failed.extend(pintle_network::cleanup_all(&NetNs::host(), &paths.network).await);
    for mount in mounts_below(&paths.root) {
        if let Err(e) = unmount(&mount, UnmountFlags::DETACH) {
            failed.push(format!("mount {}: {e}", mount.display()));
        }
    }
    remove_cgroups(cgroup_root, &mut failed);
    if let Err(e) = fs::remove_dir_all(&paths.root) {
        failed.push(format!("{}: {e}", paths.root.display()));
    }
    if failed.is_empty() {
        Ok(())
    } else {
        anyhow::bail!("not everything could be removed:\n  - {}", failed.join("\n  - "))
    }
}

/// Mount points below a directory, the innermost first.
fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Spaces and the like stand there in octal.
    let plain = |s: &str| s.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    let mut out: Vec<PathBuf> = text
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(|p| PathBuf::from(plain(p)))
        .filter(|p| p.starts_with(&root) && *p != root)
        .collect();
    out.reverse();
    out
}

/// Removes the pods' control groups, in every hierarchy.
fn remove_cgroups(root: &str, failed: &mut Vec<String>) {
    let name = root.trim_matches('/');
    if name.is_empty() {
        return;
    }
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return };
    let mut tops = vec![PathBuf::from("/sys/fs/cgroup").join(name)];
    tops.extend(hierarchies.flatten().map(|h| h.path().join(name)));
    for top in tops.into_iter().filter(|t| t.is_dir() && !t.is_symlink()) {
        if let Err(e) = remove_tree(&top) {
            failed.push(format!("control group {}: {e}", top.display()));
        }
    }
}

/// Control groups go by `rmdir`, the innermost first.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for child in fs::read_dir(dir)?.flatten() {
        if child.file_type()?.is_dir() {
            remove_tree(&child.path())?;
        }
    }
    fs::remove_dir(dir)
}

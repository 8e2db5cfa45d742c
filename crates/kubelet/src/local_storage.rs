//! Evicts pods that take more of the node's disk than they may: emptyDir volumes with a size limit, containers with a
//! limit of ephemeral storage, and such pods as a whole.

use crate::kubelet::Shared;
use crate::pod::spec;
use crate::pod::status::Ending;
use crate::volumes::volume_dir;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use pintle_api::quantity::Quantity as Amount;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What something takes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes, whole blocks.
    pub bytes: i64,
    /// Files and directories.
    pub inodes: i64,
}

impl std::ops::AddAssign for DiskUsage {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

/// What a file, or a directory with all that is below it, takes on the disk. Containers choose how deep that is.
fn disk_usage(path: &Path) -> DiskUsage {
    let mut used = DiskUsage::default();
    let mut ahead = vec![path.to_owned()];
    while let Some(path) = ahead.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        used += DiskUsage { bytes: i64::try_from(meta.blocks() * 512).unwrap_or(i64::MAX), inodes: 1 };
        if meta.is_dir() {
            ahead.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
        }
    }
    used
}

/// What a pod takes on the node's disk: what its containers wrote to their own file systems, its logs, and its emptyDir
/// volumes that are no memory.
pub async fn usage_of(k: &Shared, pod: &Pod) -> DiskUsage {
    let r = spec::PodRef::of(pod);
    let writable = writable(k, &r.uid).await;
    let (logs, volumes) = (k.config.pod_log_dir(&r), empty_dirs(pod, &k.config.pod_dir(&r.uid)));
    let walk = move || total(&writable, disk_usage(&logs), volumes.iter().map(|v| disk_usage(v)));
    tokio::task::spawn_blocking(walk).await.unwrap_or_default()
}

/// Its emptyDir volumes that are no memory.
fn empty_dirs(pod: &Pod, dir: &Path) -> Vec<PathBuf> {
    let all = spec::spec(pod).volumes.iter().flatten();
    all.filter(|v| on_disk(v).is_some()).map(|v| volume_dir(dir, "empty-dir", &v.name)).collect()
}

fn on_disk(v: &Volume) -> Option<&EmptyDirVolumeSource> {
    v.empty_dir.as_ref().filter(|e| e.medium.as_deref().unwrap_or_default().is_empty())
}

fn total(
    writable: &BTreeMap<String, DiskUsage>,
    logs: DiskUsage,
    volumes: impl IntoIterator<Item = DiskUsage>,
) -> DiskUsage {
    let mut used = logs;
    writable.values().copied().chain(volumes).for_each(|part| used += part);
    used
}

/// What each container of a pod wrote to its own file system.
async fn writable(k: &Shared, uid: &str) -> BTreeMap<String, DiskUsage> {
    let own = [(crate::pod::state::labels::POD_UID.to_string(), uid.to_owned())].into();
    let filter = pintle_runtime::ContainerFilter { labels: own, ..Default::default() };
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let all = k.runtime.list_container_stats(&filter).await.unwrap_or_default();
    let used =
        |l: &pintle_runtime::FilesystemUsage| DiskUsage { bytes: number(l.used_bytes), inodes: number(l.inodes_used) };
    all.into_iter().map(|s| (s.metadata.name, used(&s.writable_layer))).collect()
}

/// The limits of a pod: its emptyDir volumes, its containers, and all of it.
struct Limits {
    volumes: Vec<(String, String, i64, PathBuf)>,
    containers: BTreeMap<String, (String, i64)>,
    total: Option<Amount>,
    /// Volumes that count for the total.
    empty_dirs: Vec<PathBuf>,
}

fn limits(pod: &Pod, dir: &Path) -> Limits {
    let volumes = spec::spec(pod).volumes.iter().flatten().filter_map(|v| {
        let text = &on_disk(v)?.size_limit.as_ref()?.0;
        let limit = Amount::parse(text).ok()?.value();
        (limit > 0).then(|| (v.name.clone(), text.clone(), limit, volume_dir(dir, "empty-dir", &v.name)))
    });
    let containers = spec::spec(pod).containers.iter().filter_map(|c| {
        let limit = spec::limit(c, "ephemeral-storage").filter(|l| !l.is_zero())?;
        Some((c.name.clone(), (limit.to_string(), limit.value())))
    });
    Limits {
        volumes: volumes.collect(),
        containers: containers.collect(),
        total: spec::pod_total(pod, "ephemeral-storage", true).filter(|l| !l.is_zero()),
        empty_dirs: empty_dirs(pod, dir),
    }
}

/// What the pod exceeds, in upstream's words; `writable` is what containers wrote to their own file systems.
fn excess(l: &Limits, logs: &Path, writable: &BTreeMap<String, DiskUsage>) -> Option<String> {
    // Each volume is walked once.
    let volumes: BTreeMap<&Path, DiskUsage> = match l.total {
        Some(_) => l.empty_dirs.iter().map(|p| (&**p, disk_usage(p))).collect(),
        None => l.volumes.iter().map(|(.., p)| (&**p, disk_usage(p))).collect(),
    };
    for (name, text, limit, path) in &l.volumes {
        if volumes.get(&**path).is_some_and(|used| used.bytes > *limit) {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "));
        }
    }
    let in_all = || total(writable, disk_usage(logs), volumes.values().copied());
    if let Some(limit) = l.total.filter(|limit| in_all().bytes > limit.value()) {
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
    }
    for (name, (text, limit)) in &l.containers {
        let mut used = writable.get(name).copied().unwrap_or_default();
        used += disk_usage(&logs.join(name));
        if used.bytes > *limit {
            return Some(format!("Container {name} exceeded its local ephemeral storage limit {text:?}. "));
        }
    }
    None
}

/// Looks at all pods that have such limits.
pub async fn check(k: &Arc<Shared>) {
    for h in k.all_workers() {
        let pod = {
            let seen = h.seen.lock();
            if seen.over || seen.rejected {
                continue;
            }
            seen.pod.clone()
        };
        let r = spec::PodRef::of(&pod);
        let l = limits(&pod, &k.config.pod_dir(&r.uid));
        if l.volumes.is_empty() && l.total.is_none() {
            continue;
        }
        let writable = if l.total.is_some() { writable(k, &r.uid).await } else { BTreeMap::new() };
        let logs = k.config.pod_log_dir(&r);
        let looked = tokio::task::spawn_blocking(move || excess(&l, &logs, &writable)).await;
        let Ok(Some(message)) = looked else { continue };
        k.recorder.warning(&pintle_client::recorder::reference_of(&*pod), "Evicted", message.clone());
        // The next look finds it ending.
        drop(k.end_pod(&r.uid, Ending::evicted(message), Some(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn what_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let p = pod(
            "spec: {volumes: [{name: v, emptyDir: {sizeLimit: 8Ki}}, {name: m, emptyDir: {medium: Memory, sizeLimit: 1}}],
                    containers: [{name: c, resources: {limits: {ephemeral-storage: 16Ki}}},
                        {name: d, resources: {limits: {ephemeral-storage: 64Ki}}}]}",
        );
        let l = limits(&p, dir.path());
        let logs = dir.path().join("logs");
        let at = volume_dir(dir.path(), "empty-dir", "v");
        std::fs::create_dir_all(&at).unwrap();
        assert_eq!(excess(&l, &logs, &BTreeMap::new()), None);
        let wrote = |c: i64, d: i64| -> BTreeMap<String, DiskUsage> {
            [("c", c), ("d", d)].map(|(name, n)| (name.to_string(), DiskUsage { bytes: n << 10, inodes: 1 })).into()
        };
        assert_eq!(excess(&l, &logs, &wrote(10, 50)), None);
        let text = "Container c exceeded its local ephemeral storage limit \"16Ki\". ";
        assert_eq!(excess(&l, &logs, &wrote(20, 0)).as_deref(), Some(text));
        let text = "Pod ephemeral local storage usage exceeds the total limit of containers 80Ki. ";
        assert_eq!(excess(&l, &logs, &wrote(20, 61)).as_deref(), Some(text));
        std::fs::write(at.join("f"), vec![1; 64 << 10]).unwrap();
        let text = "Usage of EmptyDir volume \"v\" exceeds the limit \"8Ki\". ";
        assert_eq!(excess(&l, &logs, &BTreeMap::new()).as_deref(), Some(text));
    }
}

//! Evicts pods that take more of the node's disk than they may: emptyDir volumes with a size limit, and containers with
//! a limit of ephemeral storage.

use crate::kubelet::Shared;
use crate::pod::spec;
use crate::pod::status::Ending;
use crate::volumes::volume_dir;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use pintle_api::quantity::Quantity as Amount;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is below a directory takes on the disk, in bytes.
fn disk_usage(path: &Path) -> i64 {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    let own = i64::try_from(meta.blocks() * 512).unwrap_or(i64::MAX);
    if !meta.is_dir() {
        return own;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|e| disk_usage(&e.path())).fold(own, i64::saturating_add)
}

/// The limits of a pod: its emptyDir volumes, its containers, and all of it.
struct Limits {
    volumes: Vec<(String, String, i64, PathBuf)>,
    containers: BTreeMap<String, (String, i64)>,
}

fn limits(pod: &Pod, dir: &Path) -> Limits {
    let volumes = spec::spec(pod).volumes.iter().flatten().filter_map(|v| {
        let source = v.empty_dir.as_ref().filter(|e| e.medium.as_deref().unwrap_or_default().is_empty())?;
        let text = &source.size_limit.as_ref()?.0;
        let limit = Amount::parse(text).ok()?.value();
        (limit > 0).then(|| (v.name.clone(), text.clone(), limit, volume_dir(dir, "empty-dir", &v.name)))
    });
    let containers = spec::spec(pod).containers.iter().filter_map(|c| {
        let limit = spec::limit(c, "ephemeral-storage").filter(|l| !l.is_zero())?;
        Some((c.name.clone(), (limit.to_string(), limit.value())))
    });
    Limits { volumes: volumes.collect(), containers: containers.collect() }
}

/// What the pod exceeds, in upstream's words; `writable` is what containers wrote to their own file systems.
fn excess(l: &Limits, logs: &Path, writable: &BTreeMap<String, i64>) -> Option<String> {
    for (name, text, limit, path) in &l.volumes {
        if disk_usage(path) > *limit {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "));
        }
    }
    for (name, (text, limit)) in &l.containers {
        let used = writable.get(name).copied().unwrap_or(0).saturating_add(disk_usage(&logs.join(name)));
        if used > *limit {
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
        if l.volumes.is_empty() && l.containers.is_empty() {
            continue;
        }
        let mut writable = BTreeMap::new();
        if !l.containers.is_empty() {
            let own = [(crate::pod::state::labels::POD_UID.to_string(), r.uid.clone())].into();
            let filter = pintle_runtime::ContainerFilter { labels: own, ..Default::default() };
            for s in k.runtime.list_container_stats(&filter).await.unwrap_or_default() {
                writable.insert(s.metadata.name, i64::try_from(s.writable_layer.used_bytes).unwrap_or(i64::MAX));
            }
        }
        let logs = k.config.pod_log_dir(&r);
        let looked = tokio::task::spawn_blocking(move || excess(&l, &logs, &writable)).await;
        let Ok(Some(message)) = looked else { continue };
        k.recorder.warning(&pintle_client::recorder::reference_of(&*pod), "Evicted", message.clone());
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("TerminationByKubelet".into()),
            message: Some(message.clone()),
            ..Default::default()
        };
        let ending = Ending { reason: "Evicted".into(), message, conditions: vec![condition] };
        // The next look finds it ending.
        drop(k.end_pod(&r.uid, ending, Some(1)));
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
                    containers: [{name: c, resources: {limits: {ephemeral-storage: 16Ki}}}]}",
        );
        let l = limits(&p, dir.path());
        let logs = dir.path().join("logs");
        let at = volume_dir(dir.path(), "empty-dir", "v");
        std::fs::create_dir_all(&at).unwrap();
        assert_eq!(excess(&l, &logs, &BTreeMap::new()), None);
        let writable = [("c".to_string(), 20 << 10)].into();
        let text = "Container c exceeded its local ephemeral storage limit \"16Ki\". ";
        assert_eq!(excess(&l, &logs, &writable).as_deref(), Some(text));
        std::fs::write(at.join("f"), vec![1; 64 << 10]).unwrap();
        let text = "Usage of EmptyDir volume \"v\" exceeds the limit \"8Ki\". ";
        assert_eq!(excess(&l, &logs, &BTreeMap::new()).as_deref(), Some(text));
    }
}

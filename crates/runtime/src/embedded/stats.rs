//! What sandboxes and containers use.

use super::Inner;
use super::state::{Container, Sandbox};
use crate::shim::protocol::{Reply, Request};
use crate::sys;
use crate::*;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

impl Inner {
    pub async fn container_usage(&self, c: &Arc<Container>) -> Result<ContainerStats> {
        let cgroup = self.cgroups.stats(&c.cgroup())?;
        let upper = c.dir.join("upper");
        let layer = tokio::task::spawn_blocking(move || disk_usage(&upper)).await.unwrap_or_default();
        let record = c.record.lock();
        Ok(ContainerStats {
            id: c.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            cpu: cgroup.cpu,
            memory: cgroup.memory,
            writable_layer: layer,
            process_count: cgroup.pids,
        })
    }

    pub async fn sandbox_usage(&self, s: &Arc<Sandbox>) -> Result<SandboxStats> {
        let cgroup = self.cgroups.stats(&s.cgroup()).unwrap_or_default();
        let mut network = vec![];
        let shim = s.shim.lock().clone();
        if let Some(shim) = shim
            && s.own_network()
            && let Ok((Reply::Text(text), _)) = shim.request(Request::Interfaces, &[]).await
        {
            network = interfaces(&text);
        }
        let mut containers = vec![];
        for c in self.containers_of(&s.id) {
            if c.state() == ContainerState::Running
                && let Ok(usage) = self.container_usage(&c).await
            {
                containers.push(usage);
            }
        }
        let record = s.record.lock();
        Ok(SandboxStats {
            id: s.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            cpu: cgroup.cpu,
            memory: cgroup.memory,
            network,
            process_count: cgroup.pids,
            containers,
        })
    }
}

/// Reads `/proc/net/dev`; the loopback interface does not count.
fn interfaces(text: &str) -> Vec<InterfaceUsage> {
    let mut out: Vec<InterfaceUsage> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let n: Vec<u64> = rest.split_whitespace().map(|v| v.parse().unwrap_or(0)).collect();
            let at = |i: usize| n.get(i).copied().unwrap_or(0);
            Some(InterfaceUsage {
                name: name.trim().into(),
                rx_bytes: at(0),
                rx_errors: at(2),
                tx_bytes: at(8),
                tx_errors: at(10),
            })
        })
        .filter(|i| i.name != "lo")
        .collect();
    out.sort_by_key(|i| i.name != "eth0");
    out
}

/// What a directory takes of the disk.
pub fn disk_usage(dir: &Path) -> FilesystemUsage {
    fn add(dir: &Path, bytes: &mut u64, inodes: &mut u64) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            *bytes += meta.blocks() * 512;
            *inodes += 1;
            if meta.is_dir() {
                add(&entry.path(), bytes, inodes);
            }
        }
    }
    let (mut bytes, mut inodes) = (0, 1);
    add(dir, &mut bytes, &mut inodes);
    FilesystemUsage {
        timestamp: sys::now(),
        mountpoint: dir.display().to_string(),
        used_bytes: bytes,
        inodes_used: inodes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  \
                    veth1: 1 2 3 4 5 6 7 8 9 10 11 12\n  eth0: 10 2 3 4 5 6 7 8 90 10 11 12\n";
        let found = interfaces(text);
        assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth0", "veth1"]);
        assert_eq!((found[0].rx_bytes, found[0].rx_errors, found[0].tx_bytes, found[0].tx_errors), (10, 3, 90, 11));
    }
}

//! Control groups of both versions, and the mixture of the two that machines with version 1 usually have.
//!
//! Paths are the node's own (`/kubepods/burstable/pod1/abc`), below an instance's root; one path stands for the same
//! place in every hierarchy.

mod devices;
mod v1;
mod v2;

pub use devices::{DeviceKind, DeviceRule};

use crate::sys::{self, Context as _};
use crate::{CpuUsage, Error, LinuxResources, MemoryUsage, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Version 1: its controllers, or `name=…`. Version 2: what its root offers.
    pub controllers: Vec<String>,
    /// Whether it is version 2.
    pub unified: bool,
}

/// All hierarchies, below one instance's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    root: String,
    hierarchies: Vec<Hierarchy>,
    /// The `cgroup.procs` of the roots by which a service manager keeps track of processes, if it keeps us.
    managers: Vec<PathBuf>,
}

/// What the processes of a cgroup use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// CPU.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Processes and threads.
    pub pids: u64,
}

/// Where the kernel counts a cgroup's out-of-memory kills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCounter {
    /// A file with a line `oom_kill N`.
    pub file: PathBuf,
    /// Whether it is version 2's (told by inotify, not by an event descriptor).
    pub unified: bool,
}

impl OomCounter {
    /// The count now; 0 when it cannot be read.
    #[must_use]
    pub fn read(&self) -> u64 {
        keyed(&self.file).into_iter().find(|(k, _)| k == "oom_kill").map_or(0, |(_, v)| v)
    }
}

impl Cgroups {
    /// The machine's hierarchies. `root` (`/` or `/name`) is put before every path.
    pub fn detect(root: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
        let mut hierarchies = parse_mountinfo(&mounts);
        if hierarchies.is_empty() {
            return Err(Error::precondition("no cgroup hierarchy is mounted (expected below /sys/fs/cgroup)"));
        }
        for h in hierarchies.iter_mut().filter(|h| h.unified) {
            let offered = fs::read_to_string(h.mount.join("cgroup.controllers")).unwrap_or_default();
            h.controllers = offered.split_whitespace().map(Into::into).collect();
        }
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let managed = |h: &Hierarchy| {
            let line = own.lines().find(|l| {
                let mut parts = l.splitn(3, ':').skip(1);
                let names = parts.next().unwrap_or_default();
                if h.unified { names.is_empty() } else { names == "name=systemd" && h.has("name=systemd") }
            });
            line.is_some_and(|l| !l.ends_with(":/"))
        };
        let managers = hierarchies.iter().filter(|h| managed(h)).map(|h| h.mount.join("cgroup.procs")).collect();
        // Entering a cgroup costs time in each hierarchy, so only those count that limit or measure something.
        hierarchies.retain(|h| USED.iter().any(|c| h.has(c)));
        Ok(Self { managers, ..Self::new(root, hierarchies) })
    }

    /// These hierarchies; for tests on a tree of plain files.
    #[must_use]
    pub fn new(root: &str, hierarchies: Vec<Hierarchy>) -> Self {
        Self { root: root.trim_matches('/').to_string(), hierarchies, managers: vec![] }
    }

    /// The hierarchies.
    #[must_use]
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// Takes a process out of our own service, so that whoever stops the service leaves it alone.
    pub fn leave_service(&self, pid: u32) {
        for file in &self.managers {
            // If this fails the process is only as safe as ourselves.
            let _ = fs::write(file, pid.to_string());
        }
    }

    /// Whether version 2 manages memory and CPU.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        !self.hierarchies.iter().any(|h| !h.unified && h.has("memory"))
    }

    fn relative(&self, path: &str) -> Result<PathBuf> {
        let path = path.trim_matches('/');
        if path.split('/').any(|part| part == ".." || part == ".") || path.contains('\0') {
            return Err(Error::invalid(format!("invalid cgroup path {path:?}")));
        }
        Ok(Path::new(&self.root).join(path))
    }

    fn dirs(&self, path: &str) -> Result<Vec<(&Hierarchy, PathBuf)>> {
        let relative = self.relative(path)?;
        Ok(self.hierarchies.iter().map(|h| (h, h.mount.join(&relative))).collect())
    }

    fn dir_of(&self, controller: &str, path: &str) -> Option<(&Hierarchy, PathBuf)> {
        let relative = self.relative(path).ok()?;
        let found = self.hierarchies.iter().find(|h| !h.unified && h.has(controller));
        let found = found.or_else(|| self.hierarchies.iter().find(|h| h.unified));
        found.map(|h| (h, h.mount.join(relative)))
    }

    /// Makes the cgroup and its missing parents, with all controllers switched on for it.
    pub fn create(&self, path: &str) -> Result<()> {
        for (h, dir) in self.dirs(path)? {
            let relative = dir.strip_prefix(&h.mount).unwrap_or(Path::new(""));
            if h.unified { v2::create(h, relative)? } else { v1::create(h, relative)? }
        }
        Ok(())
    }

    /// Whether the cgroup is there.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.dirs(path).is_ok_and(|dirs| dirs.iter().any(|(_, d)| d.is_dir()))
    }

    /// Sets limits.
    pub fn apply(&self, path: &str, resources: &LinuxResources) -> Result<()> {
        for (h, dir) in self.dirs(path)? {
            if h.unified { v2::apply(h, &dir, resources)? } else { v1::apply(h, &dir, resources)? }
        }
        if !resources.unified.is_empty() && !self.is_v2() {
            return Err(Error::invalid("unified resources need cgroup v2, which does not manage this machine's"));
        }
        Ok(())
    }

    /// Allows the devices of these rules and no other.
    pub fn allow_devices(&self, path: &str, rules: &[DeviceRule]) -> Result<()> {
        let Some((h, dir)) = self.dir_of("devices", path) else { return Ok(()) };
        if h.unified { devices::attach(&dir, rules) } else { devices::write_v1(&dir, rules) }
    }

    /// The files into which a process writes `0` to enter the cgroup.
    pub fn procs_files(&self, path: &str) -> Result<Vec<PathBuf>> {
        Ok(self.dirs(path)?.into_iter().map(|(_, dir)| dir.join("cgroup.procs")).collect())
    }

    /// Where out-of-memory kills are counted.
    #[must_use]
    pub fn oom_counter(&self, path: &str) -> Option<OomCounter> {
        let (h, dir) = self.dir_of("memory", path)?;
        let file = dir.join(if h.unified { "memory.events" } else { "memory.oom_control" });
        Some(OomCounter { file, unified: h.unified })
    }

    /// The processes of the cgroup and of all below it.
    #[must_use]
    pub fn processes(&self, path: &str) -> Vec<i32> {
        let mut found: Vec<i32> =
            self.dirs(path).unwrap_or_default().iter().flat_map(|(_, dir)| processes_below(dir)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Kills every process of the cgroup and of all below it. They may take a moment to be gone.
    pub fn kill(&self, path: &str) -> Result<()> {
        for (h, dir) in self.dirs(path)? {
            if h.unified && fs::write(dir.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            for pid in processes_below(&dir) {
                sys::kill(pid, libc::SIGKILL).context(format!("killing process {pid}"))?;
            }
        }
        Ok(())
    }

    /// Removes the cgroup with all below it. Processes in it make this fail.
    pub fn remove(&self, path: &str) -> Result<()> {
        if self.relative(path)?.as_os_str().is_empty() {
            return Err(Error::invalid("the root cgroup cannot be removed"));
        }
        for (_, dir) in self.dirs(path)? {
            remove_tree(&dir).context(format!("removing cgroup {}", dir.display()))?;
        }
        Ok(())
    }

    /// What the cgroup uses.
    pub fn stats(&self, path: &str) -> Result<CgroupStats> {
        if !self.exists(path) {
            return Err(Error::not_found(format!("cgroup {path:?} does not exist")));
        }
        let mut stats = CgroupStats::default();
        let at = sys::now();
        stats.cpu.timestamp = at;
        stats.memory.timestamp = at;
        if let Some((h, dir)) = self.dir_of("cpuacct", path) {
            stats.cpu.usage_core_nano_seconds =
                if h.unified { v2::cpu_usage(&dir) } else { number(&dir.join("cpuacct.usage")).unwrap_or(0) };
        }
        if let Some((h, dir)) = self.dir_of("memory", path) {
            if h.unified { v2::memory(&dir, &mut stats.memory) } else { v1::memory(&dir, &mut stats.memory) }
        }
        if let Some((_, dir)) = self.dir_of("pids", path) {
            stats.pids = number(&dir.join("pids.current")).unwrap_or(0);
        }
        Ok(stats)
    }
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = vec![];
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let mut right = right.split(' ');
        let kind = right.next().unwrap_or_default();
        let options = right.nth(1).unwrap_or_default();
        let controllers: Vec<String> = match kind {
            "cgroup2" => vec![],
            "cgroup" => options
                .split(',')
                .filter(|o| o.starts_with("name=") || V1_CONTROLLERS.contains(o))
                .map(Into::into)
                .collect(),
            _ => continue,
        };
        let h = Hierarchy { mount: mount.into(), controllers, unified: kind == "cgroup2" };
        // The same hierarchy may be mounted twice; the first is as good as any.
        if !found.iter().any(|f| f.unified == h.unified && f.controllers == h.controllers) {
            found.push(h);
        }
    }
    found
}

/// The controllers we set or read.
const USED: [&str; 7] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "pids", "hugetlb"];

const V1_CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
];

/// Writes a value, saying what was written where if that fails.
fn write(dir: &Path, file: &str, value: impl AsRef<str>) -> Result<()> {
    let path = dir.join(file);
    // No O_CREAT: a file the kernel does not offer is an error.
    let result = fs::OpenOptions::new().write(true).open(&path).and_then(|mut f| {
        use std::io::Write as _;
        f.write_all(value.as_ref().as_bytes())
    });
    result.context(format!("writing {:?} to {}", value.as_ref(), path.display()))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A file of lines `key value`.
fn keyed(file: &Path) -> Vec<(String, u64)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let pair = |line: &str| line.split_once(' ').and_then(|(k, v)| Some((k.to_string(), v.trim().parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

fn sub_dirs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn processes_below(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = text.lines().filter_map(|l| l.trim().parse().ok()).filter(|p| *p > 1).collect();
    for sub in sub_dirs(dir) {
        found.extend(processes_below(&sub));
    }
    found
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    for sub in sub_dirs(dir) {
        remove_tree(&sub)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;

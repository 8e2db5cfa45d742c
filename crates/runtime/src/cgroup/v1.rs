//! Version 1: one directory a controller.

use super::{Hierarchy, keyed, number, write};
use crate::sys::Context as _;
use crate::{LinuxResources, MemoryUsage, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

pub fn create(h: &Hierarchy, relative: &Path) -> Result<()> {
    let dir = h.mount.join(relative);
    match fs::create_dir(&dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) if e.kind() == ErrorKind::NotFound && relative.parent().is_some() => {
            create(h, relative.parent().unwrap_or(Path::new("")))?;
            match fs::create_dir(&dir) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                result => result.context(format!("making cgroup {}", dir.display()))?,
            }
        }
        result => result.context(format!("making cgroup {}", dir.display()))?,
    }
    if h.has("cpuset") {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(&h.mount, &dir, file)?;
        }
    }
    Ok(())
}

/// What a cpuset has of CPUs or memory nodes. A new one is empty and takes no process until it is given some: its
/// parent's. Whoever makes the parent at this moment may not have come to that yet, so it is done for the parent, too.
fn inherit(mount: &Path, dir: &Path, file: &str) -> Result<String> {
    let own = fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned();
    if !own.is_empty() || dir == mount {
        return Ok(own);
    }
    let from = inherit(mount, dir.parent().unwrap_or(mount), file)?;
    if !from.is_empty() {
        write(dir, file, &from)?;
    }
    Ok(from)
}

pub fn apply(h: &Hierarchy, dir: &Path, r: &LinuxResources) -> Result<()> {
    if h.has("cpu") {
        if r.cpu_shares != 0 {
            write(dir, "cpu.shares", r.cpu_shares.clamp(2, 262_144).to_string())?;
        }
        cpu_bandwidth(dir, r)?;
    }
    if h.has("cpuset") {
        if !r.cpuset_cpus.is_empty() {
            write(dir, "cpuset.cpus", &r.cpuset_cpus)?;
        }
        if !r.cpuset_mems.is_empty() {
            write(dir, "cpuset.mems", &r.cpuset_mems)?;
        }
    }
    if h.has("memory") {
        memory_limits(dir, r)?;
    }
    if h.has("pids") && r.pids_limit != 0 {
        let limit = if r.pids_limit < 0 { "max".to_string() } else { r.pids_limit.to_string() };
        write(dir, "pids.max", limit)?;
    }
    if h.has("hugetlb") {
        for (size, limit) in &r.hugepages {
            write(dir, &format!("hugetlb.{size}.limit_in_bytes"), limit.to_string())?;
            // Newer kernels count reservations apart.
            let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
            if dir.join(&reserved).exists() {
                write(dir, &reserved, limit.to_string())?;
            }
        }
    }
    Ok(())
}

fn cpu_bandwidth(dir: &Path, r: &LinuxResources) -> Result<()> {
    let period = |dir: &Path| match r.cpu_period {
        0 => Ok(()),
        p => write(dir, "cpu.cfs_period_us", p.to_string()),
    };
    if r.cpu_quota == 0 {
        return period(dir);
    }
    // The kernel refuses a share of CPU time above the parent's at every step, so the order depends on the values.
    if period(dir).is_ok() && write(dir, "cpu.cfs_quota_us", r.cpu_quota.to_string()).is_ok() {
        return Ok(());
    }
    write(dir, "cpu.cfs_quota_us", r.cpu_quota.to_string())?;
    period(dir)
}

fn memory_limits(dir: &Path, r: &LinuxResources) -> Result<()> {
    // Without swap accounting the second file is absent.
    let swap = r.memory_swap_limit != 0 && dir.join("memory.memsw.limit_in_bytes").exists();
    let set_swap = || write(dir, "memory.memsw.limit_in_bytes", r.memory_swap_limit.to_string());
    if r.memory_limit == 0 {
        return if swap { set_swap() } else { Ok(()) };
    }
    let set_memory = || write(dir, "memory.limit_in_bytes", r.memory_limit.to_string());
    if !swap {
        return set_memory();
    }
    // Memory may never exceed memory and swap together: going up, the sum goes first.
    if set_memory().is_ok() {
        return set_swap();
    }
    set_swap()?;
    set_memory()
}

pub fn memory(dir: &Path, m: &mut MemoryUsage) {
    let mut inactive_file = 0;
    let mut limit = None;
    for (key, value) in keyed(&dir.join("memory.stat")) {
        match key.as_str() {
            "total_inactive_file" => inactive_file = value,
            "total_rss" => m.rss_bytes = value,
            "total_pgfault" => m.page_faults = value,
            "total_pgmajfault" => m.major_page_faults = value,
            "total_swap" => m.swap_usage_bytes = Some(value),
            "hierarchical_memory_limit" => limit = Some(value),
            _ => {}
        }
    }
    m.usage_bytes = number(&dir.join("memory.usage_in_bytes")).unwrap_or(0);
    m.working_set_bytes = m.usage_bytes.saturating_sub(inactive_file);
    // Without a limit the kernel shows the largest number of whole pages.
    m.available_bytes = limit.filter(|l| *l < 1 << 60).map(|l| l.saturating_sub(m.working_set_bytes));
}

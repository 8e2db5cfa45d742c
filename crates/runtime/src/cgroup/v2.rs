//! Version 2: one directory for all controllers.

use super::{Hierarchy, keyed, number, write};
use crate::sys::Context as _;
use crate::{Error, LinuxResources, MemoryUsage, Result};
use std::fs;
use std::path::Path;

/// The controllers switched on for our cgroups, where the machine has them.
const WANTED: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

pub fn create(h: &Hierarchy, relative: &Path) -> Result<()> {
    let mut dir = h.mount.clone();
    for part in relative {
        enable_controllers(h, &dir);
        dir.push(part);
        match fs::create_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => result.context(format!("making cgroup {}", dir.display()))?,
        }
    }
    Ok(())
}

/// Switches the wanted controllers on for what is below `dir`. One that will not be switched on (the processor's cannot
/// while realtime processes run outside the root) is missed only by whoever sets a limit that needs it.
fn enable_controllers(h: &Hierarchy, dir: &Path) {
    let file = dir.join("cgroup.subtree_control");
    let on = fs::read_to_string(&file).unwrap_or_default();
    let missing = WANTED.iter().filter(|c| h.has(c) && !on.split_whitespace().any(|o| o == **c));
    let missing: Vec<String> = missing.map(|c| format!("+{c}")).collect();
    if !missing.is_empty() && write(dir, "cgroup.subtree_control", missing.join(" ")).is_err() {
        for one in missing {
            let _ = write(dir, "cgroup.subtree_control", one);
        }
    }
}

pub fn apply(h: &Hierarchy, dir: &Path, r: &LinuxResources) -> Result<()> {
    if h.has("cpu") {
        if r.cpu_shares != 0 {
            write(dir, "cpu.weight", weight(r.cpu_shares).to_string())?;
        }
        if r.cpu_quota != 0 || r.cpu_period != 0 {
            let quota = if r.cpu_quota > 0 { r.cpu_quota.to_string() } else { "max".into() };
            let period = if r.cpu_period == 0 { 100_000 } else { r.cpu_period };
            write(dir, "cpu.max", format!("{quota} {period}"))?;
        }
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
            write(dir, &format!("hugetlb.{size}.max"), limit.to_string())?;
            let reserved = format!("hugetlb.{size}.rsvd.max");
            if dir.join(&reserved).exists() {
                write(dir, &reserved, limit.to_string())?;
            }
        }
    }
    for (file, value) in &r.unified {
        if file.contains('/') || !file.contains('.') {
            return Err(Error::invalid(format!("invalid unified resource {file:?}")));
        }
        if h.has(file.split('.').next().unwrap_or_default()) {
            write(dir, file, value)?;
        }
    }
    Ok(())
}

/// Swap here is apart from memory, while callers give the sum of both.
fn memory_limits(dir: &Path, r: &LinuxResources) -> Result<()> {
    let text = |v: i64| if v < 0 { "max".to_string() } else { v.to_string() };
    if r.memory_swap_limit != 0 && dir.join("memory.swap.max").exists() {
        let swap = if r.memory_swap_limit < 0 {
            -1
        } else if r.memory_limit < 0 {
            return Err(Error::invalid("a swap limit needs a memory limit"));
        } else {
            let memory = match r.memory_limit {
                0 => number(&dir.join("memory.max")).and_then(|m| i64::try_from(m).ok()).unwrap_or(0),
                m => m,
            };
            if r.memory_swap_limit < memory {
                return Err(Error::invalid("memory and swap limit should be larger than memory limit"));
            }
            r.memory_swap_limit - memory
        };
        write(dir, "memory.swap.max", text(swap))?;
    }
    if r.memory_limit != 0 {
        write(dir, "memory.max", text(r.memory_limit))?;
    }
    Ok(())
}

/// The weight (1 to 10000) that stands for CPU shares (2 to 262144): a curve through the ends on which the default of
/// the one, 1024, is the default of the other, 100.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

pub fn cpu_usage(dir: &Path) -> u64 {
    keyed(&dir.join("cpu.stat")).into_iter().find(|(k, _)| k == "usage_usec").map_or(0, |(_, v)| v * 1000)
}

pub fn memory(dir: &Path, m: &mut MemoryUsage) {
    let mut inactive_file = 0;
    for (key, value) in keyed(&dir.join("memory.stat")) {
        match key.as_str() {
            "inactive_file" => inactive_file = value,
            "anon" => m.rss_bytes = value,
            "pgfault" => m.page_faults = value,
            "pgmajfault" => m.major_page_faults = value,
            _ => {}
        }
    }
    m.usage_bytes = number(&dir.join("memory.current")).unwrap_or(0);
    m.working_set_bytes = m.usage_bytes.saturating_sub(inactive_file);
    m.swap_usage_bytes = number(&dir.join("memory.swap.current"));
    // "max" is no number, hence no limit.
    m.available_bytes = number(&dir.join("memory.max")).map(|l| l.saturating_sub(m.working_set_bytes));
}

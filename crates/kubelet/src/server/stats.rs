//! `/stats/summary`: what the node and its pods use.

use super::http::Reply;
use crate::kubelet::Shared;
use crate::node;
use jiff::Timestamp;
use pintle_runtime::{ContainerStats, CpuUsage, InterfaceUsage, MemoryUsage, SandboxFilter, SandboxStats};
use serde_json::{Value, json};

fn time(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos)).map(pintle_api::time::format).unwrap_or_default()
}

fn cpu(c: &CpuUsage) -> Value {
    json!({"time": time(c.timestamp), "usageCoreNanoSeconds": c.usage_core_nano_seconds})
}

fn memory(m: &MemoryUsage) -> Value {
    let mut out = json!({
        "time": time(m.timestamp), "usageBytes": m.usage_bytes, "workingSetBytes": m.working_set_bytes,
        "rssBytes": m.rss_bytes, "pageFaults": m.page_faults, "majorPageFaults": m.major_page_faults,
    });
    if let Some(a) = m.available_bytes {
        out["availableBytes"] = a.into();
    }
    out
}

fn interface(i: &InterfaceUsage) -> Value {
    json!({"name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors, "txBytes": i.tx_bytes, "txErrors": i.tx_errors})
}

fn container(k: &Shared, c: &ContainerStats) -> Value {
    let started = k.all_workers().into_iter().find_map(|h| {
        let seen = h.seen.lock();
        seen.runtime.by_id(&c.id).map(|c| c.started_at)
    });
    json!({
        "name": c.metadata.name,
        "startTime": time(started.unwrap_or_default()),
        "cpu": cpu(&c.cpu),
        "memory": memory(&c.memory),
        "rootfs": {"time": time(c.writable_layer.timestamp), "usedBytes": c.writable_layer.used_bytes,
                   "inodesUsed": c.writable_layer.inodes_used},
        "logs": {"time": time(c.cpu.timestamp)},
    })
}

fn pod(k: &Shared, s: &SandboxStats) -> Value {
    let mut out = json!({
        "podRef": {"name": s.metadata.name, "namespace": s.metadata.namespace, "uid": s.metadata.uid},
        "startTime": time(s.cpu.timestamp),
        "containers": s.containers.iter().map(|c| container(k, c)).collect::<Vec<_>>(),
        "cpu": cpu(&s.cpu),
        "memory": memory(&s.memory),
        "process_stats": {"process_count": s.process_count},
    });
    if let Some(first) = s.network.first() {
        let mut network = interface(first);
        network["time"] = time(s.cpu.timestamp).into();
        network["interfaces"] = s.network.iter().map(interface).collect();
        out["network"] = network;
    }
    if let Some(h) = k.worker(&s.metadata.uid)
        && let Some(start) = h.seen.lock().status.start_time.clone()
    {
        out["startTime"] = pintle_api::time::format(start.0).into();
    }
    out
}

fn file_system(now: &str, disk: &std::io::Result<(u64, u64, u64, u64)>) -> Value {
    let Ok((total, free, files, free_files)) = *disk else { return json!({}) };
    json!({"time": now, "capacityBytes": total, "availableBytes": free, "usedBytes": total.saturating_sub(free),
           "inodes": files, "inodesFree": free_files, "inodesUsed": files.saturating_sub(free_files)})
}

/// CPU time the whole machine used, in nanoseconds.
pub(super) fn node_cpu() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy: u64 = fields.iter().enumerate().take(8).filter(|(i, _)| *i != 3 && *i != 4).map(|(_, n)| n).sum();
    // The kernel counts hundredths of a second.
    Some(busy * 10_000_000)
}

/// The summary.
pub(super) async fn summary(k: &Shared) -> Reply {
    let stats = match k.runtime.list_pod_sandbox_stats(&SandboxFilter::default()).await {
        Ok(s) => s,
        Err(e) => return Reply::text(500, format!("{e}\n")),
    };
    let now = pintle_api::time::format(k.clock.now());
    let available = node::memory_available().unwrap_or(0);
    let working_set = k.node.memory_capacity().saturating_sub(available);
    let mut cpu = json!({"time": now});
    if let Some(n) = node_cpu() {
        cpu["usageCoreNanoSeconds"] = n.into();
    }
    Reply::json(&json!({
        "node": {
            "nodeName": k.config.node_name,
            "cpu": cpu,
            "memory": {"time": now, "availableBytes": available, "workingSetBytes": working_set, "usageBytes": working_set},
            "fs": file_system(&now, &node::disk_of_node(k)),
            "runtime": {"imageFs": file_system(&now, &node::disk_of_images(k).await)},
        },
        "pods": stats.iter().map(|s| pod(k, s)).collect::<Vec<_>>(),
    }))
}

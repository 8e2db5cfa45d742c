//! Metrics in Prometheus' text format.

use super::http::Reply;
use crate::kubelet::Shared;
use pintle_runtime::{ContainerState, SandboxFilter, SandboxStats};
use std::fmt::Write as _;

const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text of metrics.
#[derive(Default)]
struct Text(String);

fn quoted(v: &str) -> String {
    v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", quoted(v))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
    fn reply(self) -> Reply {
        Reply::bytes(KIND, self.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn number(n: u64) -> f64 {
    n as f64
}

fn seconds(nanos: u64) -> f64 {
    number(nanos) / 1e9
}

/// The node agent's own.
pub(super) fn own(k: &Shared) -> Reply {
    let (mut running, mut created, mut exited, mut pods) = (0, 0, 0, 0);
    for h in k.all_workers() {
        let seen = h.seen.lock();
        let mut any = false;
        for c in &seen.runtime.containers {
            match c.state {
                ContainerState::Running => {
                    running += 1;
                    any = true;
                }
                ContainerState::Created => created += 1,
                _ => exited += 1,
            }
        }
        pods += u64::from(any);
    }
    let mut t = Text::default();
    t.head("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    t.value("kubelet_node_name", &[("node", &k.config.node_name)], 1.0);
    t.head("kubelet_running_pods", "gauge", "[ALPHA] Number of pods that have a running pod sandbox");
    t.value("kubelet_running_pods", &[], number(pods));
    t.head("kubelet_running_containers", "gauge", "[ALPHA] Number of containers currently running");
    for (state, n) in [("created", created), ("exited", exited), ("running", running)] {
        t.value("kubelet_running_containers", &[("container_state", state)], number(n));
    }
    let total = number(k.all_workers().len() as u64);
    t.head("kubelet_active_pods", "gauge", "[ALPHA] The number of pods the kubelet considers active.");
    t.value("kubelet_active_pods", &[("static", "")], total);
    if let Some(rss) = crate::node::own_memory() {
        t.head("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
        t.value("process_resident_memory_bytes", &[], number(rss));
    }
    t.reply()
}

/// Service level indicators.
pub(super) fn slis() -> Reply {
    let mut t = Text::default();
    t.head("kubernetes_healthcheck", "gauge", "[STABLE] This metric records the result of a single healthcheck.");
    for name in ["ping", "log", "syncloop"] {
        t.value("kubernetes_healthcheck", &[("name", name), ("type", "healthz")], 1.0);
    }
    t.reply()
}

async fn stats(k: &Shared) -> Option<Vec<SandboxStats>> {
    k.runtime.list_pod_sandbox_stats(&SandboxFilter::default()).await.ok()
}

/// What the metrics server reads.
pub(super) async fn resource(k: &Shared) -> Reply {
    let mut t = Text::default();
    let all = stats(k).await;
    let error = if all.is_some() { 0.0 } else { 1.0 };
    let all = all.unwrap_or_default();
    let each =
        |t: &mut Text, name: &str, kind: &str, help: &str, of: &dyn Fn(&pintle_runtime::ContainerStats) -> f64| {
            t.head(name, kind, help);
            for s in &all {
                for c in &s.containers {
                    let m = &s.metadata;
                    let labels =
                        [("container", c.metadata.name.as_str()), ("namespace", &m.namespace), ("pod", &m.name)];
                    t.value(name, &labels, of(c));
                }
            }
        };
    each(
        &mut t,
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &|c| seconds(c.cpu.usage_core_nano_seconds),
    );
    each(
        &mut t,
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
        &|c| number(c.memory.working_set_bytes),
    );
    t.head("container_start_time_seconds", "gauge", "[STABLE] Start time of the container since unix epoch in seconds");
    for h in k.all_workers() {
        let seen = h.seen.lock();
        let r = crate::pod::spec::PodRef::of(&seen.pod);
        for c in seen.runtime.containers.iter().filter(|c| c.state == ContainerState::Running) {
            let labels = [("container", c.metadata.name.as_str()), ("namespace", &r.namespace), ("pod", &r.name)];
            t.value("container_start_time_seconds", &labels, seconds(u64::try_from(c.started_at).unwrap_or(0)));
        }
    }
    if let Some(n) = super::stats::node_cpu() {
        t.head(
            "node_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        );
        t.value("node_cpu_usage_seconds_total", &[], seconds(n));
    }
    if let Some(available) = crate::node::memory_available() {
        let used = u64::try_from(k.node.memory_capacity().saturating_sub(available)).unwrap_or(0);
        t.head("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
        t.value("node_memory_working_set_bytes", &[], number(used));
    }
    let pods = |t: &mut Text, name: &str, kind: &str, help: &str, of: &dyn Fn(&SandboxStats) -> f64| {
        t.head(name, kind, help);
        for s in &all {
            t.value(name, &[("namespace", &s.metadata.namespace), ("pod", &s.metadata.name)], of(s));
        }
    };
    pods(
        &mut t,
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        &|s| seconds(s.cpu.usage_core_nano_seconds),
    );
    pods(&mut t, "pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes", &|s| {
        number(s.memory.working_set_bytes)
    });
    t.head(
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    t.value("resource_scrape_error", &[], error);
    t.reply()
}

/// How containers' probes stand.
pub(super) fn probes(k: &Shared) -> Reply {
    let mut t = Text::default();
    t.head(
        "prober_probe_total",
        "counter",
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    for (labels, n) in k.probe_counts() {
        let view: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        t.value("prober_probe_total", &view, number(n));
    }
    t.reply()
}

/// Containers under the names cAdvisor gave them.
pub(super) async fn cadvisor(k: &Shared) -> Reply {
    let mut t = Text::default();
    let all = stats(k).await.unwrap_or_default();
    type Of = fn(&pintle_runtime::ContainerStats) -> f64;
    let table: [(&str, &str, &str, Of); 5] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |c| {
            seconds(c.cpu.usage_core_nano_seconds)
        }),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |c| {
            number(c.memory.working_set_bytes)
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |c| number(c.memory.rss_bytes)),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |c| number(c.memory.usage_bytes),
        ),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            |c| number(c.writable_layer.used_bytes),
        ),
    ];
    for (name, kind, help, of) in table {
        t.head(name, kind, help);
        for s in &all {
            for c in &s.containers {
                let m = &s.metadata;
                let labels = [
                    ("container", c.metadata.name.as_str()),
                    ("name", &c.id),
                    ("namespace", &m.namespace),
                    ("pod", &m.name),
                ];
                t.value(name, &labels, of(c));
            }
        }
    }
    type Net = fn(&pintle_runtime::InterfaceUsage) -> u64;
    let network: [(&str, &str, Net); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |i| {
            i.rx_errors
        }),
        ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |i| {
            i.tx_errors
        }),
    ];
    for (name, help, of) in network {
        t.head(name, "counter", help);
        for s in &all {
            for i in &s.network {
                let m = &s.metadata;
                t.value(name, &[("interface", &i.name), ("namespace", &m.namespace), ("pod", &m.name)], number(of(i)));
            }
        }
    }
    t.reply()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let mut t = Text::default();
        t.head("m", "gauge", "Help.");
        t.value("m", &[("a", "x\"y")], 1.5);
        t.value("n", &[], 2.0);
        assert_eq!(t.0, "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"y\"} 1.5\nn 2\n");
    }
}

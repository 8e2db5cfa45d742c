//! Prometheus metrics with upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

use crate::http::context::Ctx;

/// Upper bounds of `apiserver_request_duration_seconds`, as upstream.
const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    fn observe(&mut self, v: f64) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; DURATION_BUCKETS.len()];
        }
        if let Some(i) = DURATION_BUCKETS.iter().position(|b| v <= *b) {
            self.buckets[i] += 1;
        }
        self.sum += v;
        self.count += 1;
    }
}

/// What the server counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(Target, u16), u64>>,
    durations: Mutex<BTreeMap<Target, Histogram>>,
}

fn target(ctx: &Ctx) -> Target {
    let i = &ctx.info;
    let verb = match i.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => {
            let apply = ctx.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
            if apply.is_some_and(|t| t.starts_with("application/apply-patch")) { "APPLY" } else { "PATCH" }
        }
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "OTHER",
    };
    let scope = if !i.is_resource {
        ""
    } else if !i.name.is_empty() {
        "resource"
    } else if !i.namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    };
    Target {
        verb,
        group: i.group.clone(),
        version: i.version.clone(),
        resource: i.resource.clone(),
        subresource: if i.is_resource { i.subresource.clone() } else { i.path.clone() },
        scope,
    }
}

impl Metrics {
    /// A request was answered.
    pub(crate) fn observe(&self, ctx: &Ctx, code: u16, took: Duration) {
        // Paths and names that nobody serves must not make series without end.
        if code == 404 && !ctx.info.is_resource {
            return;
        }
        let t = target(ctx);
        *self.requests.lock().entry((t.clone(), code)).or_default() += 1;
        if t.verb != "WATCH" {
            self.durations.lock().entry(t).or_default().observe(took.as_secs_f64());
        }
    }

    /// Requests and durations in Prometheus' text form.
    pub(crate) fn write(&self, out: &mut String) {
        head(
            out,
            "apiserver_request_total",
            "counter",
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        for ((t, code), n) in &*self.requests.lock() {
            line(
                out,
                "apiserver_request_total",
                &format!("code=\"{code}\",component=\"apiserver\",dry_run=\"\",{}", labels(t)),
                n,
            );
        }
        head(
            out,
            "apiserver_request_duration_seconds",
            "histogram",
            "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        for (t, h) in &*self.durations.lock() {
            let labels = format!("component=\"apiserver\",dry_run=\"\",{}", labels(t));
            let mut sum = 0;
            for (i, le) in DURATION_BUCKETS.iter().enumerate() {
                sum += h.buckets.get(i).copied().unwrap_or(0);
                line(out, "apiserver_request_duration_seconds_bucket", &format!("{labels},le=\"{le}\""), sum);
            }
            line(out, "apiserver_request_duration_seconds_bucket", &format!("{labels},le=\"+Inf\""), h.count);
            line(out, "apiserver_request_duration_seconds_sum", &labels, h.sum);
            line(out, "apiserver_request_duration_seconds_count", &labels, h.count);
        }
    }
}

fn labels(t: &Target) -> String {
    format!(
        "group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
        escape(&t.group),
        escape(&t.resource),
        t.scope,
        escape(&t.subresource),
        t.verb,
        escape(&t.version)
    )
}

fn escape(s: &str) -> String {
    s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// HELP and TYPE of a metric.
pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample.
pub(crate) fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

/// What the kernel knows of this process.
pub(crate) fn process(out: &mut String) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // After the name, which may hold anything, the fields are numbers.
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, r)| r.split_whitespace().collect()).unwrap_or_default();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // User and system time in hundredths of a second, size in bytes and in pages of 4 KiB.
    head(out, "process_cpu_seconds_total", "counter", "[STABLE] Total user and system CPU time spent in seconds.");
    line(out, "process_cpu_seconds_total", "", (number(11) + number(12)) / 100.0);
    head(out, "process_virtual_memory_bytes", "gauge", "[STABLE] Virtual memory size in bytes.");
    line(out, "process_virtual_memory_bytes", "", number(20));
    head(out, "process_resident_memory_bytes", "gauge", "[STABLE] Resident memory size in bytes.");
    line(out, "process_resident_memory_bytes", "", number(21) * 4096.0);
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        head(out, "process_open_fds", "gauge", "[STABLE] Number of open file descriptors.");
        line(out, "process_open_fds", "", fds.count());
    }
}

//! What the server counts, under upstream's names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use pintle_api::metrics::Kind::{Counter, Gauge, Histogram};
use pintle_api::metrics::Stability::{Alpha, Beta, Stable};
use pintle_api::metrics::{Family, Held, Series};

use crate::admission::Operation;
use crate::http::context::Ctx;

const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SLI_DURATIONS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const WATCH_LISTS: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
    90.0, 120.0, 180.0, 300.0,
];
const EVENT_SIZES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
const ADMISSION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const LIFETIMES: &[f64] = &[
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21600.0,
    43200.0,
    86400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

static TOTAL: Family = Family::new(
    "apiserver_request_total",
    Counter,
    Stable,
    &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"],
    "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
);
static DURATION: Family = Family::new(
    "apiserver_request_duration_seconds",
    Histogram(DURATIONS),
    Stable,
    &["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"],
    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
);
static SLI_DURATION: Family = Family::new(
    "apiserver_request_sli_duration_seconds",
    Histogram(SLI_DURATIONS),
    Alpha,
    &["component", "group", "resource", "scope", "subresource", "verb", "version"],
    "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
);
static SIZE: Family = Family::new(
    "apiserver_response_sizes",
    Histogram(SIZES),
    Stable,
    &["component", "group", "resource", "scope", "subresource", "verb", "version"],
    "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
);
static TERMINATIONS: Family = Family::new(
    "apiserver_request_terminations_total",
    Counter,
    Alpha,
    &["code", "component", "group", "resource", "scope", "subresource", "verb", "version"],
    "Number of requests which apiserver terminated in self-defense.",
);
static LONG_RUNNING: Family = Family::new(
    "apiserver_longrunning_requests",
    Gauge,
    Stable,
    &["component", "group", "resource", "scope", "subresource", "verb", "version"],
    "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
);
static WATCH_EVENTS: Family = Family::new(
    "apiserver_watch_events_total",
    Counter,
    Beta,
    &["group", "resource", "version"],
    "Number of events sent in watch clients",
);
static WATCH_SIZES: Family = Family::new(
    "apiserver_watch_events_sizes",
    Histogram(EVENT_SIZES),
    Beta,
    &["group", "resource", "version"],
    "Watch event size distribution in bytes",
);
static WATCH_LIST: Family = Family::new(
    "apiserver_watch_list_duration_seconds",
    Histogram(WATCH_LISTS),
    Beta,
    &["group", "resource", "scope", "version"],
    "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
);
/// Events that the caches were told.
pub(crate) static RECEIVED: Family = Family::new(
    "apiserver_storage_events_received_total",
    Counter,
    Beta,
    &["group", "resource"],
    "Number of etcd events received split by kind.",
);
static DEPRECATED: Family = Family::new(
    "apiserver_requested_deprecated_apis",
    Gauge,
    Stable,
    &["group", "removed_release", "resource", "subresource", "version"],
    "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
);
static HEALTH: Family = Family::new(
    "kubernetes_healthcheck",
    Gauge,
    Stable,
    &["name", "type"],
    "This metric records the result of a single healthcheck.",
);
static HEALTH_TOTAL: Family = Family::new(
    "kubernetes_healthchecks_total",
    Counter,
    Stable,
    &["name", "status", "type"],
    "This metric records the results of all healthcheck.",
);
static ADMISSION_STEP: Family = Family::new(
    "apiserver_admission_step_admission_duration_seconds",
    Histogram(ADMISSION),
    Stable,
    &["operation", "rejected", "type"],
    "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
);
static ADMISSION_PLUGIN: Family = Family::new(
    "apiserver_admission_controller_admission_duration_seconds",
    Histogram(ADMISSION),
    Stable,
    &["name", "operation", "rejected", "type"],
    "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
);
static CERTIFICATES: Family = Family::new(
    "apiserver_client_certificate_expiration_seconds",
    Histogram(LIFETIMES),
    Alpha,
    &[],
    "Distribution of the remaining lifetime on the certificate used to authenticate a request.",
);
/// Requests being served.
pub(crate) static INFLIGHT: Family = Family::new(
    "apiserver_current_inflight_requests",
    Gauge,
    Stable,
    &["request_kind"],
    "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
);
/// Objects in the caches.
pub(crate) static STORED: Family = Family::new(
    "apiserver_storage_objects",
    Gauge,
    Stable,
    &["resource"],
    "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
);
static STORE_SIZE: Family = Family::new(
    "apiserver_storage_size_bytes",
    Gauge,
    Stable,
    &["storage_cluster_id"],
    "Size of the storage database file physically allocated in bytes.",
);
/// Objects in the caches.
pub(crate) static OBJECTS: Family = Family::new(
    "apiserver_resource_objects",
    Gauge,
    Alpha,
    &["group", "resource"],
    "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
);
/// What this is.
pub(crate) static BUILD: Family = Family::new(
    "kubernetes_build_info",
    Gauge,
    Alpha,
    &["git_version", "major", "minor"],
    "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
);
static CPU: Family =
    Family::new("process_cpu_seconds_total", Counter, Stable, &[], "Total user and system CPU time spent in seconds.");
static VIRTUAL: Family =
    Family::new("process_virtual_memory_bytes", Gauge, Stable, &[], "Virtual memory size in bytes.");
static RESIDENT: Family =
    Family::new("process_resident_memory_bytes", Gauge, Stable, &[], "Resident memory size in bytes.");
static STARTED: Family = Family::new(
    "process_start_time_seconds",
    Gauge,
    Stable,
    &[],
    "Start time of the process since unix epoch in seconds.",
);
static FILES: Family = Family::new("process_open_fds", Gauge, Stable, &[], "Number of open file descriptors.");

/// What is counted of one watch, found once.
pub(crate) struct WatchMetrics {
    events: Arc<Series>,
    sizes: Arc<Series>,
    list: Arc<Series>,
    since: Instant,
}

impl WatchMetrics {
    /// A watch begins.
    pub(crate) fn new(ctx: &Ctx) -> Self {
        let [group, resource, scope, _, _, version] = target(ctx);
        Self {
            events: WATCH_EVENTS.with(&[group, resource, version]),
            sizes: WATCH_SIZES.with(&[group, resource, version]),
            list: WATCH_LIST.with(&[group, resource, scope, version]),
            since: Instant::now(),
        }
    }

    /// An event of so many bytes is sent.
    #[expect(clippy::cast_precision_loss, reason = "sizes are much smaller")]
    pub(crate) fn event(&self, size: usize) {
        self.events.inc();
        self.sizes.observe(size as f64);
    }

    /// The state at the beginning was sent.
    pub(crate) fn listed(&self) {
        self.list.observe(self.since.elapsed().as_secs_f64());
    }
}

/// A request's labels: group, resource, scope, subresource, verb, version.
const TARGET: usize = 6;

/// The metrics of requests to one target, found once and then counted on.
struct Requests {
    target: [String; TARGET],
    dry_run: String,
    duration: Arc<Series>,
    sli: Option<Arc<Series>>,
    sizes: Option<Arc<Series>>,
    codes: RwLock<Vec<(u16, Arc<Series>)>>,
}

/// What the server counts.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: RwLock<HashMap<String, Arc<Requests>>>,
}

fn verb(ctx: &Ctx) -> &'static str {
    let i = &ctx.info;
    if i.is_resource && matches!(i.subresource.as_str(), "log" | "exec" | "portforward" | "attach" | "proxy") {
        return "CONNECT";
    }
    match i.verb.as_str() {
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => {
            let kind = ctx.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
            if kind.is_some_and(|t| t.starts_with("application/apply-patch")) { "APPLY" } else { "PATCH" }
        }
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "OTHER",
    }
}

fn target(ctx: &Ctx) -> [&str; TARGET] {
    let i = &ctx.info;
    let scope = if !i.name.is_empty() || i.verb == "create" {
        "resource"
    } else if !i.namespace.is_empty() {
        "namespace"
    } else if i.is_resource {
        "cluster"
    } else {
        ""
    };
    // Paths of documents have too many forms to be kept apart.
    let path = match i.path.as_str() {
        path if path.starts_with("/openapi/v3") => "/openapi/v3",
        path if path.starts_with("/api/") || path.starts_with("/apis/") => "",
        path => path,
    };
    let subresource = if i.is_resource { i.subresource.as_str() } else { path };
    [&i.group, &i.resource, scope, subresource, verb(ctx), &i.version]
}

/// Label values with others before them.
fn with<'a>(before: &[&'a str], target: [&'a str; TARGET]) -> Vec<&'a str> {
    before.iter().copied().chain(target).collect()
}

impl Metrics {
    fn requests(&self, ctx: &Ctx) -> Arc<Requests> {
        let target = target(ctx);
        let dry_run: Vec<&str> = ctx.query.all("dryRun").collect();
        let dry_run = match dry_run[..] {
            [] => "",
            ["All"] => "All",
            _ => "invalid",
        };
        let mut key = String::with_capacity(96);
        for part in target {
            key.push_str(part);
            key.push('\n');
        }
        key.push_str(dry_run);
        if let Some(known) = self.requests.read().get(&key) {
            return known.clone();
        }
        let reads = matches!(target[4], "GET" | "LIST");
        let made = Arc::new(Requests {
            target: target.map(str::to_owned),
            dry_run: dry_run.to_owned(),
            duration: DURATION.with(&with(&["apiserver", dry_run], target)),
            sli: dry_run.is_empty().then(|| SLI_DURATION.with(&with(&["apiserver"], target))),
            sizes: reads.then(|| SIZE.with(&with(&["apiserver"], target))),
            codes: RwLock::default(),
        });
        self.requests.write().entry(key).or_insert(made).clone()
    }

    /// A request was answered. `held` is the part of its time it waited for its turn or for webhooks.
    #[expect(clippy::cast_precision_loss, reason = "sizes are much smaller")]
    pub(crate) fn observe(&self, ctx: &Ctx, code: u16, size: Option<u64>, took: Duration, held: Duration) {
        let requests = self.requests(ctx);
        let known = requests.codes.read().iter().find(|(c, _)| *c == code).map(|(_, counter)| counter.clone());
        let counter = known.unwrap_or_else(|| {
            let text = code.to_string();
            let target = requests.target.each_ref().map(String::as_str);
            let counter = TOTAL.with(&with(&[&text, "apiserver", &requests.dry_run], target));
            requests.codes.write().push((code, counter.clone()));
            counter
        });
        counter.inc();
        if ctx.info.verb == "watch" {
            return;
        }
        requests.duration.observe(took.as_secs_f64());
        if let Some(sli) = &requests.sli {
            sli.observe(took.saturating_sub(held).as_secs_f64());
        }
        if let (Some(sizes), Some(size)) = (&requests.sizes, size) {
            sizes.observe(size as f64);
        }
    }

    /// The server cut a request short to protect itself.
    pub(crate) fn terminated(&self, ctx: &Ctx, code: u16) {
        TERMINATIONS.with(&with(&[&code.to_string(), "apiserver"], target(ctx))).inc();
    }

    /// A request that lasts begins; it ends when the answer is dropped.
    pub(crate) fn long_running(&self, ctx: &Ctx) -> Held {
        LONG_RUNNING.with(&with(&["apiserver"], target(ctx))).hold()
    }

    /// A deprecated API was used.
    pub(crate) fn deprecated(&self, ctx: &Ctx, removed_release: &str) {
        let i = &ctx.info;
        DEPRECATED.with(&[&i.group, removed_release, &i.resource, &i.subresource, &i.version]).set(1.0);
    }

    /// A health check was made.
    pub(crate) fn health(&self, name: &str, endpoint: &str, well: bool) {
        HEALTH.with(&[name, endpoint]).set(f64::from(u8::from(well)));
        HEALTH_TOTAL.with(&[name, if well { "success" } else { "error" }, endpoint]).inc();
    }

    /// A pass of admission, or (`plugin`) a plugin's part of it, is over.
    pub(crate) fn admission(
        &self,
        plugin: Option<&str>,
        operation: Operation,
        step: &'static str,
        rejected: bool,
        took: Duration,
    ) {
        let operation = operation.name();
        let rejected = if rejected { "true" } else { "false" };
        let histogram = match plugin {
            Some(name) => ADMISSION_PLUGIN.with(&[name, operation, rejected, step]),
            None => ADMISSION_STEP.with(&[operation, rejected, step]),
        };
        histogram.observe(took.as_secs_f64());
    }

    /// Someone came with a certificate that is good for so many more seconds.
    #[expect(clippy::cast_precision_loss, reason = "centuries are not that long")]
    pub(crate) fn certificate(&self, seconds: i64) {
        CERTIFICATES.with(&[]).observe(seconds as f64);
    }
}

/// The store takes so many bytes.
#[expect(clippy::cast_precision_loss, reason = "stores are much smaller")]
pub(crate) fn store_size(bytes: u64) {
    STORE_SIZE.with(&["etcd-0"]).set(bytes as f64);
}

/// What the kernel knows of this process.
pub(crate) fn process() {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // After the name, which may hold anything, the fields are numbers.
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, r)| r.split_whitespace().collect()).unwrap_or_default();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // User and system time in hundredths of a second, size in bytes and in pages of 4 KiB.
    CPU.with(&[]).set((number(11) + number(12)) / 100.0);
    VIRTUAL.with(&[]).set(number(20));
    RESIDENT.with(&[]).set(number(21) * 4096.0);
    // The start is counted from the machine's own.
    let booted = std::fs::read_to_string("/proc/stat").ok();
    let booted = booted.as_deref().and_then(|s| s.lines().find_map(|l| l.strip_prefix("btime ")?.parse::<f64>().ok()));
    if let Some(booted) = booted {
        STARTED.with(&[]).set(booted + number(19) / 100.0);
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        FILES.with(&[]).set(f64::from(u32::try_from(fds.count()).unwrap_or(u32::MAX)));
    }
}

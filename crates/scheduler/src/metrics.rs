//! The scheduler's metrics, under upstream's names.

use std::time::Instant;

use pintle_api::metrics::{Family, Kind, Stability};

use crate::engine::{Engine, Observer};
use crate::queue::Incoming;

/// `start`, then each twice the one before.
const fn doubling<const N: usize>(start: f64) -> [f64; N] {
    let mut out = [start; N];
    let mut i = 1;
    while i < N {
        out[i] = out[i - 1] * 2.0;
        i += 1;
    }
    out
}

const ATTEMPT: &[f64] = &doubling::<15>(0.001);
const SLI: &[f64] = &doubling::<20>(0.01);
const POINT: &[f64] = &doubling::<12>(0.0001);
const VICTIMS: &[f64] = &doubling::<7>(1.0);
const ATTEMPTS: &[f64] = &doubling::<5>(1.0);

static SCHEDULE_ATTEMPTS: Family = Family::new(
    "scheduler_schedule_attempts_total",
    Kind::Counter,
    Stability::Stable,
    &["result", "profile"],
    "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' \
     means an internal scheduler problem.",
);
static ATTEMPT_DURATION: Family = Family::new(
    "scheduler_scheduling_attempt_duration_seconds",
    Kind::Histogram(ATTEMPT),
    Stability::Stable,
    &["result", "profile"],
    "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
);
static ALGORITHM_DURATION: Family = Family::new(
    "scheduler_scheduling_algorithm_duration_seconds",
    Kind::Histogram(ATTEMPT),
    Stability::Alpha,
    &[],
    "Scheduling algorithm latency in seconds",
);
static PREEMPTION_VICTIMS: Family = Family::new(
    "scheduler_preemption_victims",
    Kind::Histogram(VICTIMS),
    Stability::Stable,
    &[],
    "Number of selected preemption victims",
);
static PREEMPTION_ATTEMPTS: Family = Family::new(
    "scheduler_preemption_attempts_total",
    Kind::Counter,
    Stability::Stable,
    &[],
    "Total preemption attempts in the cluster till now",
);
static PENDING_PODS: Family = Family::new(
    "scheduler_pending_pods",
    Kind::Gauge,
    Stability::Stable,
    &["queue"],
    "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in \
     backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and \
     failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are \
     gated.",
);
static SLI_DURATION: Family = Family::new(
    "scheduler_pod_scheduling_sli_duration_seconds",
    Kind::Histogram(SLI),
    Stability::Beta,
    &["attempts"],
    "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple \
     scheduling attempts.",
);
static POD_ATTEMPTS: Family = Family::new(
    "scheduler_pod_scheduling_attempts",
    Kind::Histogram(ATTEMPTS),
    Stability::Stable,
    &[],
    "Number of attempts to successfully schedule a pod.",
);
static POINT_DURATION: Family = Family::new(
    "scheduler_framework_extension_point_duration_seconds",
    Kind::Histogram(POINT),
    Stability::Stable,
    &["extension_point", "status", "profile"],
    "Latency for running all plugins of a specific extension point.",
);
static INCOMING: Family = Family::new(
    "scheduler_queue_incoming_pods_total",
    Kind::Counter,
    Stability::Stable,
    &["queue", "event"],
    "Number of pods added to scheduling queues by event and queue type.",
);
static CACHE_SIZE: Family = Family::new(
    "scheduler_cache_size",
    Kind::Gauge,
    Stability::Alpha,
    &["type"],
    "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
);

/// What came of a try.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Result {
    Scheduled,
    Unschedulable,
    Error,
}

/// Notes a try that took so many seconds.
pub(crate) fn attempt(result: Result, profile: &str, seconds: f64) {
    let result = match result {
        Result::Scheduled => "scheduled",
        Result::Unschedulable => "unschedulable",
        Result::Error => "error",
    };
    SCHEDULE_ATTEMPTS.with(&[result, profile]).inc();
    ATTEMPT_DURATION.with(&[result, profile]).observe(seconds);
}

/// Notes how long finding a node took.
pub(crate) fn algorithm(seconds: f64) {
    ALGORITHM_DURATION.with(&[]).observe(seconds);
}

/// Notes that a pod was bound, after so many tries and so many seconds since it came in.
pub(crate) fn bound(attempts: u32, seconds: f64) {
    let label = if attempts > 15 { "16+".to_owned() } else { attempts.to_string() };
    SLI_DURATION.with(&[&label]).observe(seconds);
    POD_ATTEMPTS.with(&[]).observe(attempts.into());
}

/// Notes that room was looked for, and how many would have to go for it.
pub(crate) fn preemption(victims: usize) {
    PREEMPTION_ATTEMPTS.with(&[]).inc();
    if victims > 0 {
        PREEMPTION_VICTIMS.with(&[]).observe(amount(victims));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count for display")]
fn amount(n: usize) -> f64 {
    n as f64
}

/// Shows how many pods wait where, and what came into the queues since the last time.
pub(crate) fn state(engine: &mut Engine) {
    let p = engine.pending();
    for (queue, n) in
        [("active", p.active), ("backoff", p.backoff), ("unschedulable", p.unschedulable), ("gated", p.gated)]
    {
        PENDING_PODS.with(&[queue]).set(amount(n));
    }
    let (nodes, pods, assumed) = engine.cache().sizes();
    for (kind, n) in [("nodes", nodes), ("pods", pods), ("assumed_pods", assumed)] {
        CACHE_SIZE.with(&[kind]).set(amount(n));
    }
    for (Incoming { queue, event }, n) in engine.take_incoming() {
        INCOMING.with(&[queue, event]).add(amount(n));
    }
}

/// Measures the framework by the machine's clock.
pub(crate) struct Timed {
    start: Instant,
}

impl Timed {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Observer for Timed {
    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn point(&self, point: &'static str, status: &'static str, profile: &str, seconds: f64) {
        POINT_DURATION.with(&[point, status, profile]).observe(seconds);
    }
}

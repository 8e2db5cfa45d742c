//! What is counted of flows, under upstream's names.

use std::sync::Arc;

use pintle_api::metrics::Kind::{Counter, Gauge, Histogram};
use pintle_api::metrics::Stability::{Alpha, Beta};
use pintle_api::metrics::{Family, Series};

const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const FLOW: &[&str] = &["flow_schema", "priority_level"];

static REJECTED: Family = Family::new(
    "apiserver_flowcontrol_rejected_requests_total",
    Counter,
    Beta,
    &["flow_schema", "priority_level", "reason"],
    "Number of requests rejected by API Priority and Fairness subsystem",
);
static DISPATCHED: Family = Family::new(
    "apiserver_flowcontrol_dispatched_requests_total",
    Counter,
    Beta,
    FLOW,
    "Number of requests executed by API Priority and Fairness subsystem",
);
static INQUEUE: Family = Family::new(
    "apiserver_flowcontrol_current_inqueue_requests",
    Gauge,
    Beta,
    FLOW,
    "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
);
static EXECUTING: Family = Family::new(
    "apiserver_flowcontrol_current_executing_requests",
    Gauge,
    Beta,
    FLOW,
    "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
);
static SEATS: Family = Family::new(
    "apiserver_flowcontrol_current_executing_seats",
    Gauge,
    Beta,
    FLOW,
    "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
);
static WAIT: Family = Family::new(
    "apiserver_flowcontrol_request_wait_duration_seconds",
    Histogram(SECONDS),
    Beta,
    &["execute", "flow_schema", "priority_level"],
    "Length of time a request spent waiting in its queue",
);
static EXECUTION: Family = Family::new(
    "apiserver_flowcontrol_request_execution_seconds",
    Histogram(SECONDS),
    Alpha,
    FLOW,
    "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
);
static NOMINAL: Family = Family::new(
    "apiserver_flowcontrol_nominal_limit_seats",
    Gauge,
    Beta,
    &["priority_level"],
    "Nominal number of execution seats configured for each priority level",
);

/// The series of one schema.
pub(super) struct SchemaMetrics {
    dispatched: Arc<Series>,
    inqueue: Arc<Series>,
    executing: Arc<Series>,
    seats: Arc<Series>,
    wait: [Arc<Series>; 2],
    execution: Arc<Series>,
}

#[expect(clippy::cast_precision_loss, reason = "seats are few")]
fn number(n: usize) -> f64 {
    n as f64
}

impl SchemaMetrics {
    pub(super) fn new(level: &str, schema: &str) -> Self {
        let of = [schema, level];
        Self {
            dispatched: DISPATCHED.with(&of),
            inqueue: INQUEUE.with(&of),
            executing: EXECUTING.with(&of),
            seats: SEATS.with(&of),
            wait: ["false", "true"].map(|e| WAIT.with(&[e, schema, level])),
            execution: EXECUTION.with(&of),
        }
    }

    pub(super) fn waits(&self, n: f64) {
        self.inqueue.add(n);
    }

    pub(super) fn waited(&self, seconds: f64, executes: bool) {
        self.wait[usize::from(executes)].observe(seconds);
    }

    pub(super) fn began(&self, seats: usize, waited: f64) {
        self.waited(waited, true);
        self.dispatched.inc();
        self.executing.inc();
        self.seats.add(number(seats));
    }

    pub(super) fn ended(&self, seats: usize, took: f64) {
        self.executing.add(-1.0);
        self.seats.add(-number(seats));
        self.execution.observe(took);
    }
}

pub(super) fn rejected(level: &str, schema: &str, reason: &str) {
    REJECTED.with(&[schema, level, reason]).inc();
}

/// Shows the seats of a level.
pub(super) fn nominal(level: &str, seats: usize) {
    NOMINAL.with(&[level]).set(number(seats));
}

/// A level is no more.
pub(super) fn forget(level: &str) {
    NOMINAL.forget(&[level]);
}

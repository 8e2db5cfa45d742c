//! Metrics of the whole process in Prometheus' text form, under upstream's names.
//!
//! A family is a `static`; it shows in [`write`] once a series of it was asked for. Whoever counts often keeps the
//! series, which is a few atomics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much a metric's name and labels can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// May change at any time.
    Alpha,
    /// Changes by deprecation only.
    Beta,
    /// Stays.
    Stable,
}

/// What a family's series are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram(&'static [f64]),
}

/// One metric: all series of a name.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    stability: Stability,
    labels: &'static [&'static str],
    /// In the order of their label values, which are looked up without copying them.
    series: Mutex<Vec<(Vec<String>, Arc<Series>)>>,
}

/// One series.
#[derive(Debug)]
pub struct Series {
    bounds: &'static [f64],
    buckets: Vec<AtomicU64>,
    count: AtomicU64,
    /// Bits of an `f64`: a counter's or gauge's value, a histogram's sum.
    value: AtomicU64,
}

type Refresh = Box<dyn Fn() -> bool + Send>;

/// Called before the text is written, for what is only known then.
static REFRESH: Mutex<Vec<Refresh>> = Mutex::new(Vec::new());
static FAMILIES: Mutex<BTreeMap<&'static str, &'static Family>> = Mutex::new(BTreeMap::new());

/// What a panic elsewhere left is as good as before: every change is one step.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Series {
    fn change(&self, f: impl Fn(f64) -> f64) {
        let next = |bits| Some(f(f64::from_bits(bits)).to_bits());
        // The closure always answers, so the update always succeeds.
        let _ = self.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1.0);
    }

    /// Adds.
    pub fn add(&self, n: f64) {
        self.change(|v| v + n);
    }

    /// Sets a gauge.
    pub fn set(&self, n: f64) {
        self.value.store(n.to_bits(), Ordering::Relaxed);
    }

    /// Counts one in a gauge for as long as the answer lives.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        self.inc();
        Held(self.clone())
    }

    /// Notes one value of a histogram.
    pub fn observe(&self, v: f64) {
        if let Some(i) = self.bounds.iter().position(|b| v <= *b) {
            self.buckets[i].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.add(v);
    }

    /// A counter's or gauge's value, or a histogram's sum.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.value.load(Ordering::Relaxed))
    }

    /// How many values a histogram noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// One of what a gauge counts; taken away when dropped.
#[derive(Debug)]
pub struct Held(Arc<Series>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// Where the series of these label values is, or would be.
fn place(all: &[(Vec<String>, Arc<Series>)], values: &[&str]) -> Result<usize, usize> {
    all.binary_search_by(|(have, _)| have.iter().map(String::as_str).cmp(values.iter().copied()))
}

impl Family {
    /// A family; `labels` are the label names in the order [`Family::with`] takes their values.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: Kind,
        stability: Stability,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, help, kind, stability, labels, series: Mutex::new(Vec::new()) }
    }

    /// The series of these label values.
    pub fn with(&'static self, values: &[&str]) -> Arc<Series> {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let mut all = lock(&self.series);
        if all.is_empty() {
            lock(&FAMILIES).insert(self.name, self);
        }
        match place(&all, values) {
            Ok(at) => all[at].1.clone(),
            Err(at) => {
                let bounds = if let Kind::Histogram(b) = self.kind { b } else { &[] };
                let series = Arc::new(Series {
                    bounds,
                    buckets: bounds.iter().map(|_| AtomicU64::new(0)).collect(),
                    count: AtomicU64::new(0),
                    value: AtomicU64::new(0),
                });
                all.insert(at, (values.iter().map(|v| (*v).to_owned()).collect(), series.clone()));
                series
            }
        }
    }

    /// Forgets a series: what it was about is gone.
    pub fn forget(&self, values: &[&str]) {
        let mut all = lock(&self.series);
        if let Ok(at) = place(&all, values) {
            all.remove(at);
        }
    }

    /// Forgets all series.
    pub fn clear(&self) {
        lock(&self.series).clear();
    }

    fn write(&self, out: &mut String) {
        let all = lock(&self.series);
        if all.is_empty() {
            return;
        }
        let stability = match self.stability {
            Stability::Alpha => "ALPHA",
            Stability::Beta => "BETA",
            Stability::Stable => "STABLE",
        };
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let name = self.name;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} [{stability}] {}\n# TYPE {name} {kind}", self.help);
        for (values, s) in &*all {
            let labels: Vec<String> =
                self.labels.iter().zip(values).map(|(k, v)| format!("{k}=\"{}\"", quoted(v))).collect();
            let labels = labels.join(",");
            let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let Kind::Histogram(bounds) = self.kind else {
                let _ = writeln!(out, "{name}{braced} {}", s.value());
                continue;
            };
            let comma = if labels.is_empty() { "" } else { "," };
            let mut sum = 0;
            for (bound, n) in bounds.iter().zip(&s.buckets) {
                sum += n.load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {sum}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", s.count());
            let _ = writeln!(out, "{name}_sum{braced} {}\n{name}_count{braced} {}", s.value(), s.count());
        }
    }
}

fn quoted(v: &str) -> String {
    v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Has `f` called before each [`write`], to set what changes by itself, until it answers `false`.
pub fn before_write(f: impl Fn() -> bool + Send + 'static) {
    lock(&REFRESH).push(Box::new(f));
}

/// Every family that has series, by name.
pub fn write(out: &mut String) {
    lock(&REFRESH).retain(|f| f());
    let all: Vec<&'static Family> = lock(&FAMILIES).values().copied().collect();
    all.into_iter().for_each(|f| f.write(out));
}

#[cfg(test)]
mod tests {
    use super::*;

    static COUNTER: Family =
        Family::new("test_total", Kind::Counter, Stability::Stable, &["a"], "Things that happened.");
    static HISTOGRAM: Family =
        Family::new("test_seconds", Kind::Histogram(&[0.1, 1.0]), Stability::Alpha, &[], "How long.");

    #[test]
    fn text() {
        COUNTER.with(&["x\"y"]).inc();
        COUNTER.with(&["x\"y"]).add(2.0);
        COUNTER.with(&["gone"]).inc();
        COUNTER.with(&["a"]).inc();
        COUNTER.forget(&["gone"]);
        for v in [0.05, 0.5, 5.0] {
            HISTOGRAM.with(&[]).observe(v);
        }
        let mut out = String::new();
        write(&mut out);
        let want = "# HELP test_seconds [ALPHA] How long.\n# TYPE test_seconds histogram\n\
            test_seconds_bucket{le=\"0.1\"} 1\ntest_seconds_bucket{le=\"1\"} 2\ntest_seconds_bucket{le=\"+Inf\"} 3\n\
            test_seconds_sum 5.55\ntest_seconds_count 3\n\
            # HELP test_total [STABLE] Things that happened.\n# TYPE test_total counter\ntest_total{a=\"a\"} 1\ntest_total{a=\"x\\\"y\"} 3\n";
        assert_eq!(out, want);
    }
}

//! What benchmarks measure by.

/// Processor time of this process so far, all its threads together, in seconds.
#[must_use]
pub fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

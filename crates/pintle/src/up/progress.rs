//! A line for each step of the start, with how long it took.

use std::fmt;
use std::time::Instant;

/// Prints steps.
pub struct Progress {
    start: Instant,
    step: Instant,
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn new() -> Self {
        let now = Instant::now();
        Self { start: now, step: now }
    }

    /// A step is done.
    pub fn done(&mut self, what: impl fmt::Display) {
        let ms = self.step.elapsed().as_millis();
        eprintln!("  ✓ {what} ({ms} ms)");
        self.step = Instant::now();
    }

    /// Something worth a line of its own.
    pub fn note(&self, what: impl fmt::Display) {
        eprintln!("    {what}");
    }

    /// Everything is up.
    pub fn ready(&self, what: impl fmt::Display) {
        eprintln!("{what} in {:.2} s", self.start.elapsed().as_secs_f64());
    }
}

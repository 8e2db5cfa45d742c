//! Probes: asking containers how they are, and what the answers add up to.

pub mod grpc;
pub mod http;
pub mod run;
pub mod tally;

use std::fmt;

/// The version probes show to those they ask.
pub const USER_AGENT: &str = "kube-probe/1.36";

/// The three kinds of probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Whether to restart the container.
    Liveness,
    /// Whether to send it traffic.
    Readiness,
    /// Whether it has started; the other two wait for it.
    Startup,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What one try said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Well.
    Success,
    /// Well, but something is odd.
    Warning(String),
    /// Not well.
    Failure(String),
    /// The question could not be asked; counts as no answer.
    Error(String),
}

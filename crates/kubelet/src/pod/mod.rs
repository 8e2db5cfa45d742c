//! Pods as the node sees them: what they ask for, what the runtime has of them, what to do next, and what to report.
//!
//! `decide`, `status`, `admit` and `backoff` are pure: time and state come in as arguments.

pub mod admit;
pub mod backoff;
pub mod conditions;
pub mod decide;
pub mod phase;
pub mod resize;
pub mod restart;
pub mod spec;
pub mod state;
pub mod status;

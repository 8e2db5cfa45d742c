//! Simulated nodes, as kwok's: Node objects that stay Ready and whose pods become Running and finish by rule, with no
//! machine and no container behind them. They work against any Kubernetes API, so that thousands of nodes can be tried
//! on one machine.
//!
//! [`rules`] decides what becomes of a pod, without I/O or clock; [`run`] watches, and writes what was decided.

pub mod address;
mod config;
mod heartbeat;
pub mod node;
pub mod rules;
mod run;
mod status;

pub use config::{Config, Taint};
pub use run::{Error, run};

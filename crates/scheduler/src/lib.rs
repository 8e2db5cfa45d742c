//! The pod scheduler: a queue, a picture of the cluster, and a framework of plugins that choose a node for each pod.
//!
//! The decisions are in [`engine`], without I/O or clock; [`run`] feeds it from informers and carries out what it
//! decides.

pub mod cache;
mod config;
pub mod engine;
pub mod framework;
mod metrics;
pub mod model;
pub mod plugins;
pub mod queue;
mod run;

pub use config::Config;
pub use run::{lead, run};

//! The node agent: runs the pods bound to its node and reports on them.

pub mod config;
pub mod eviction;
pub mod hooks;
pub mod housekeeping;
pub mod image_gc;
pub mod images;
pub mod kubelet;
pub mod local_storage;
pub mod logs;
pub mod node;
pub mod notices;
pub mod objects;
pub mod pod;
pub mod probes;
pub mod server;
pub mod static_pods;
pub mod text;
pub mod translate;
pub mod volumes;
pub mod worker;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod whole_tests;

pub use config::KubeletConfig;
pub use kubelet::{KubeletError, run, run_with};

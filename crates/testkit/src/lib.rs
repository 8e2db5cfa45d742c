//! Fixtures for whole-system tests: machines made of network namespaces, the real binary on them, and the clients that
//! drive it.
//!
//! Everything made here is removed when it is dropped, also when a test fails.

pub mod binary;
pub mod cluster;
pub mod command;
pub mod cpu;
pub mod images;
pub mod machine;
pub mod registry;
pub mod sim;
pub mod wait;

pub use cluster::{Cluster, Options};
pub use command::Output;
pub use cpu::cpu;
pub use machine::Machine;
pub use registry::Registry;
pub use sim::Sim;
pub use wait::until;

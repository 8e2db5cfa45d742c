//! The core group.

pub mod components;
pub mod config;
pub mod endpoints;
pub mod event;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod quota;
pub mod replication;
pub mod service;
pub mod signer;
pub mod volume;

//! The controllers on the in-memory API and on the real API server.

mod autoscaling;
mod claims;
mod cluster;
mod collection;
mod common;
mod faults;
mod server;
mod volumes;
mod workloads;

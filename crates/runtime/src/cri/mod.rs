//! The interface between a node agent and its container runtime: CRI v1's operations in plain structs of our own.

pub mod config;
pub mod error;
pub mod event;
pub mod image;
pub mod network;
pub mod service;
pub mod status;
pub mod stream;

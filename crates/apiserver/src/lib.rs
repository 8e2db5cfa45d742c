//! The Kubernetes API over HTTP.

pub mod cache;
pub mod kinds;

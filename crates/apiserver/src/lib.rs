//! The Kubernetes API over HTTP.

pub mod kinds;

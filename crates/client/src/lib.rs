//! Access to a Kubernetes API, in process or over HTTPS: typed calls, informers, work queues, events, leases.
//!
//! A [`Client`] sends requests; where they go (the API server of this process, or one behind TLS) cannot be told from
//! outside. [`Informers`] keep one cache a resource for everybody in the process, [`View`]s keep narrow decoded forms
//! of it, a [`WorkQueue`] hands keys to workers, a [`Recorder`] writes Events and a [`LeaderElector`] holds a Lease.

pub mod backoff;
pub mod cache;
pub mod client;
pub mod clock;
mod dynamic;
pub mod error;
pub mod informers;
pub mod leader;
pub mod meta;
mod metrics;
pub mod queue;
pub mod recorder;
mod reflector;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
pub mod typed;
mod watch;

pub use backoff::Backoff;
pub use cache::{Cache, Change, Key, Subscription};
pub use client::{Client, List, ListParams, Patch, WriteParams};
pub use clock::Clock;
pub use dynamic::{Discovered, intern};
pub use error::{Error, UnlessGone};
pub use informers::{Informer, Informers, Scope, View};
pub use leader::{LeaderConfig, LeaderElector};
pub use meta::{Meta, OwnerRef};
pub use pintle_api as api;
pub use queue::{QueueOptions, WorkQueue};
pub use recorder::Recorder;
pub use typed::Typed;

/// What a call answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

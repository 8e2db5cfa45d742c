//! The controllers of the controller manager. Each is a folder: `mod.rs` wires informers to keys and applies
//! decisions, `decide.rs` decides without I/O or clock.

pub mod attachdetach;
pub mod bootstrap;
pub mod certificates;
pub mod clusterroleaggregation;
pub mod context;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslicemirroring;
pub mod ephemeralvolume;
pub mod expander;
pub mod garbagecollector;
pub mod horizontalpodautoscaler;
pub mod job;
mod manager;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod persistentvolume;
pub mod podgc;
pub mod policystatus;
pub mod replicaset;
pub mod resourceclaim;
pub mod resourcequota;
pub mod rootca;
pub mod serviceaccount;
pub mod serviceaccounttokens;
pub mod servicecidr;
pub mod statefulset;
pub mod support;
pub mod tainteviction;
pub mod ttl;
pub mod ttlafterfinished;
pub mod volumeprotection;

pub use context::{Config, Context};
pub use manager::{Controller, all, lead, run, select};

//! What each kind has of its own: names, defaults that need computing, what a write may touch, validation across
//! fields, sub-resources, deletion, and the columns `kubectl get` shows. The one generic registry does everything else
//! and calls a kind through its [`Strategy`].
//!
//! A write goes through these steps here, each pure:
//!
//! | verb | prepare | validate |
//! |---|---|---|
//! | create | [`Strategy::prepare_create`] | [`Strategy::validate_create`] |
//! | update, patch, apply | [`Strategy::prepare_update`] | [`Strategy::validate_update`] |
//! | any of them on a sub-resource | [`Sub::prepare`] | [`Sub::validate`] |
//! | delete of a kind that ends gracefully | [`Strategy::graceful_delete`] | |
//!
//! Objects are decoded, defaulted `serde_json::Value`s in canonical form.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod bootstrap;
pub mod certificates;
pub mod checks;
pub mod coordination;
pub mod core;
pub mod flowcontrol;
mod gates;
pub mod groups;
pub mod lookup;
pub mod meta;
pub mod names;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scale;
pub mod scheduling;
pub mod storage;
pub mod strategy;
pub mod table;
pub mod value;
pub mod warn;

#[cfg(test)]
pub(crate) mod testing;

pub use lookup::{CUSTOM, strategy};
pub use names::NameRule;
pub use strategy::{Ctx, DeleteOptions, Propagation, Strategy, Sub};
pub use table::Column;

//! What several controllers share.

pub mod batch;
pub mod discovery;
pub mod expectations;
pub mod hash;
pub mod history;
pub mod int_or_string;
pub mod namespaces;
pub mod node_affinity;
pub mod nodes;
pub mod owned;
pub mod ownership;
pub mod pods;
pub mod services;
pub mod status;

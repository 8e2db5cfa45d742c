//! Certificates, tokens and kubeconfigs of a cluster.

pub mod files;
pub mod kubeconfig;
pub mod pki;

//! From a pod's spec to what the runtime is told. Pure, except where a module says otherwise.

pub mod container;
pub mod dns;
pub mod env;
pub mod env_file;
pub mod expand;
pub mod fields;
pub mod hosts;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod services;

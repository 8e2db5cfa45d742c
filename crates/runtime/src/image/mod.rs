//! The node's images: names, a store of blobs and unpacked layers, pulls, archives, and images made of our own program.

mod archive;
mod builtin;
mod catalog;
mod manifest;
mod name;
mod pull;
mod registry;
mod store;
mod unpack;
mod usage;

pub use builtin::BuiltinImage;
pub use name::ImageName;
pub(crate) use pull::pull;
pub use registry::{RegistryHost, RegistryHosts, read_hosts};
pub use store::{ImageStore, Layers, Record};
pub use usage::Busy;

#[cfg(test)]
mod tests;

//! The node's images: names, a store of blobs and unpacked layers, pulls, archives, and images made of our own program.

mod archive;
mod builtin;
mod manifest;
mod name;
mod pull;
mod registry;
mod store;
mod unpack;

pub use builtin::BuiltinImage;
pub use name::ImageName;
pub(crate) use pull::pull;
pub use registry::{RegistryHost, RegistryHosts, read_hosts};
pub use store::{ImageStore, Layers};

#[cfg(test)]
mod tests;

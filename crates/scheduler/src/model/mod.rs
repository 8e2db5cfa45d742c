//! Pods and nodes as the scheduler sees them: narrow forms, decoded once an event.

pub mod affinity;
pub mod devices;
pub mod node;
pub mod objects;
pub mod pod;
pub mod resources;
pub mod wire;

pub use node::{Node, NodeInfo};
pub use pod::{HostPort, Pod};
pub use resources::{ResourceName, Resources};

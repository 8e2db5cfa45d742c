//! The embedded container runtime: images, sandboxes, containers, and the shim that keeps them.

//! The set-up of a container's process: everything between the shim's fork and the user's program.
//!
//! It runs in a child of the shim, which has one thread, so that any system call is allowed between fork and exec.

mod console;
mod control;
mod exec;
mod identity;
mod init;
mod mounts;
mod namespaces;
mod root;
pub mod spec;

pub use identity::{CAPABILITIES, encode_filter, known_capabilities};

pub use control::{Message, ParentEnd};
pub use control::{receive_with_fds, send_with_fds};
pub use exec::exec_child;
pub use init::{Stdio, init_child};
pub use namespaces::{SandboxNamespaces, SavedPidNamespace, in_netns, make_sandbox, open_ns};
pub use root::Root;

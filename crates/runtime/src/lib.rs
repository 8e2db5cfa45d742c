//! The node's container runtime: sandboxes, containers and images behind [`Runtime`], a trait shaped like CRI v1.
//!
//! The crate knows nothing of Kubernetes beyond CRI's terms. [`fake::FakeRuntime`] keeps everything in memory for tests
//! of what drives a runtime.

pub mod cgroup;
mod cri;
pub mod embedded;
pub mod fake;
pub mod image;
mod process;
pub mod seccomp;
pub mod shim;
mod sys;

pub use cri::config::*;
pub use cri::error::{Code, Error, Result};
pub use cri::event::{Event, EventKind, EventStream};
pub use cri::image::*;
pub use cri::network::*;
pub use cri::service::{ImageService, Runtime};
pub use cri::status::*;
pub use cri::stream::*;

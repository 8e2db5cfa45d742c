//! For tests of what is built on this crate: an API in memory, and faults on the way to any API.

mod fake;
mod fault;

pub use fake::FakeApi;
pub use fault::{Fault, with_faults};

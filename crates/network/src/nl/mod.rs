//! Netlink: attributes, and a blocking socket that sends one request or one batch and reads what comes back.
//!
//! The kernel handles netlink requests inside the call that sends them, so a blocking socket costs a system call,
//! not a wait.

pub mod attr;
mod socket;

pub use attr::{Attrs, Writer};
pub use socket::{Nack, Socket};

/// The kernel's name for flags of a message header.
pub mod flags {
    /// A request.
    pub const REQUEST: u16 = 0x1;
    /// Answer also on success.
    pub const ACK: u16 = 0x4;
    /// Return every object.
    pub const DUMP: u16 = 0x300;
    /// Create when absent.
    pub const CREATE: u16 = 0x400;
    /// Add at the end.
    pub const APPEND: u16 = 0x800;
}

//! The table of every built-in kind and all that is derived from it.

pub mod cursor;
pub mod errors;
pub mod quote;

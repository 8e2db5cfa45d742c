//! The table of every built-in kind and all that is derived from it.

pub mod apply;
pub mod b64;
pub mod cel;
pub mod cursor;
pub mod decode;
pub mod defaults;
pub mod encode;
pub mod errors;
pub mod patch;
pub mod proto;
pub mod quote;
pub mod table;
pub mod time;

pub use decode::{DecodeError, Decoded, Mode};
pub use defaults::apply_defaults;
pub use encode::encode;
pub use table::{Base, Field, Form, ListKind, Type, Written, kind, named, types};

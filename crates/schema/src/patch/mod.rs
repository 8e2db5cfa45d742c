//! Patches: JSON patch, JSON merge patch and strategic merge patch, with upstream's results and complaints.

mod json;
mod merge;
mod strategic;

use serde_json::Value;
use std::fmt;

pub(crate) use json::Operation;
pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

/// Why a patch cannot be applied, in upstream's words, and with the HTTP status upstream answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchError {
    /// 400, 413, 422 or, for what upstream does not foresee, 500.
    pub code: u16,
    message: String,
}

impl PatchError {
    fn new(code: u16, message: impl Into<String>) -> Self {
        PatchError { code, message: message.into() }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, message)
    }
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PatchError {}

/// What a patch has made, and what strict decoding objects to in the patch itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    /// The patched value; decode it by its type before anything else.
    pub value: Value,
    /// `duplicate field "spec.foo"` and the like.
    pub strict: Vec<String>,
}

#[cfg(test)]
mod tests;

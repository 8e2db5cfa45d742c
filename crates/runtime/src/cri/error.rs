//! The one error type of a runtime: a gRPC status, because that is what users read in Events and what a CRI endpoint
//! answers.

use std::fmt;

/// What every operation of a runtime returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure, a subset of gRPC's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller gave up.
    Cancelled,
    /// No better code fits.
    Unknown,
    /// The request itself is wrong, whatever the state of the system.
    InvalidArgument,
    /// A time limit passed.
    DeadlineExceeded,
    /// The named sandbox, container or image does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The registry refused the credentials' holder.
    PermissionDenied,
    /// The registry wants (other) credentials.
    Unauthenticated,
    /// The disk, or some other resource, is full.
    ResourceExhausted,
    /// The object is in a state that does not allow the operation.
    FailedPrecondition,
    /// The runtime cannot do this at all.
    Unimplemented,
    /// The runtime failed.
    Internal,
    /// The runtime, its shim or a registry cannot be reached now.
    Unavailable,
}

impl Code {
    /// The number gRPC gives the code.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Code::Cancelled => 1,
            Code::Unknown => 2,
            Code::InvalidArgument => 3,
            Code::DeadlineExceeded => 4,
            Code::NotFound => 5,
            Code::AlreadyExists => 6,
            Code::PermissionDenied => 7,
            Code::ResourceExhausted => 8,
            Code::FailedPrecondition => 9,
            Code::Unimplemented => 12,
            Code::Internal => 13,
            Code::Unavailable => 14,
            Code::Unauthenticated => 16,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants carry gRPC's names, except this one, which gRPC's Go library spells with one l.
        match self {
            Code::Cancelled => f.write_str("Canceled"),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

/// A failed operation. It prints as `rpc error: code = NotFound desc = …`, the form in which users meet runtime errors
/// in Events and container statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure it is.
    pub code: Code,
    /// What happened, in words.
    pub message: String,
}

impl Error {
    /// An error of the given code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
    /// The named thing does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }
    /// The request is wrong in itself.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
    /// The runtime failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }
    /// The runtime's ordinary failure of an operation (gRPC's `Unknown`, as containerd reports most of them).
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }
    /// The state of the object forbids the operation.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }
    /// The runtime cannot do this.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }
    /// Whether the named thing does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
    /// The same error with words in front of its message.
    #[must_use]
    pub fn context(mut self, before: impl fmt::Display) -> Self {
        self.message = format!("{before}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let code = match e.kind() {
            std::io::ErrorKind::StorageFull => Code::ResourceExhausted,
            std::io::ErrorKind::TimedOut => Code::DeadlineExceeded,
            _ => Code::Unknown,
        };
        Self::new(code, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_users_know_it() {
        let e = Error::not_found("no such container").context("failed to start container \"x\"");
        assert_eq!(
            e.to_string(),
            "rpc error: code = NotFound desc = failed to start container \"x\": no such container"
        );
        assert_eq!(Error::new(Code::Cancelled, "x").to_string(), "rpc error: code = Canceled desc = x");
        assert_eq!(Code::Unauthenticated.number(), 16);
    }
}

//! What can go wrong in a store.

use crate::Revision;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a store. The texts are for people; code matches on the variants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The history the request needs has been thrown away.
    #[error("required revision {requested} has been compacted (history starts after {compacted})")]
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// History up to and including this revision is gone.
        compacted: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("required revision {requested} is a future revision (current is {current})")]
    FutureRevision {
        /// The revision asked for.
        requested: Revision,
        /// The revision the store is at.
        current: Revision,
    },
    /// The request makes no sense, for example a transaction that writes one key twice.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// There is no room for the write. Nothing of it was kept; it may be tried again once there is room.
    #[error("no space left for the store: {0}")]
    NoSpace(String),
    /// Another process uses the data directory.
    #[error("the store is in use by another process: {0}")]
    Locked(String),
    /// What is on disk (or in a snapshot) is damaged.
    #[error("the store's data is damaged: {0}")]
    Corrupt(String),
    /// The data was written by a version with another format.
    #[error("unsupported store format: {0}")]
    Format(String),
    /// The store cannot be reached or does not answer; whether a write took place is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Any other failure of the operating system; a write that ends so did not take place.
    #[error("store input/output error: {0}")]
    Io(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

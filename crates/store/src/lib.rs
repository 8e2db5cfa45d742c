//! The revisioned key-value store under the API server: the trait [`Store`], its implementations, and the
//! conformance suite that all of them pass.
//!
//! * [`EmbeddedStore`]: durable, in one file of this machine; the store of a one-node cluster.
//! * [`EtcdStore`]: an etcd cluster, which several API servers may share.
//! * [`MemoryStore`]: nothing outlives the process.
//!
//! [`keys`] says where objects are kept, [`snapshot`] how a whole store is written to a file.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod embedded;
mod error;
mod etcd;
mod hub;
pub mod keys;
mod memory;
pub mod snapshot;
mod store;
mod types;

pub use embedded::{EmbeddedStore, Options as EmbeddedOptions};
pub use error::{Error, Result};
pub use etcd::{EtcdOptions, EtcdStore};
pub use memory::MemoryStore;
pub use store::{ProgressRequester, Store, Watch, WatchHandle, WatchSink};
pub use types::{
    Change, Compare, Event, Expect, Got, Key, KeyValue, ListRequest, Listed, Op, Outcome, Revision, Size, SnapshotInfo,
    Txn, WatchBatch, WatchRequest,
};

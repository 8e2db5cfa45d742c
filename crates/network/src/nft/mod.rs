//! nftables by netlink: tables, chains, sets, maps and rules, sent as one atomic batch.
//!
//! A small encoder of our own: it holds what the pod network, the service proxy and network policy use, and nothing more.

mod batch;
mod expr;
mod object;
mod read;
mod sentinel;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Refusal};
pub use expr::{CmpOp, CtKey, DynsetOp, Expr, Field, MetaKey, NatKind, Reject, Rule};
pub use object::{Chain, Data, Element, Family, Hook, Key, Kind, Set, Table, Verdict};
pub use read::{Contents, ReadElement};
pub use sentinel::Sentinel;

use std::io;

use crate::netns::NetNs;
use crate::nl::Socket;

pub(crate) const SUBSYSTEM: u16 = 10;

/// An nftables session inside one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused one or more objects; nothing of the batch was applied.
    #[error("nftables: {}", Refusal::list(.0))]
    Refused(Vec<Refusal>),
    /// The batch was made for an older state of the rules (`Batch::only_at`).
    #[error("nftables: the rules changed meanwhile")]
    Outdated,
    /// The socket failed.
    #[error("nftables: {0}")]
    Io(#[from] io::Error),
}

impl Nft {
    /// Opens a session in a namespace.
    ///
    /// # Errors
    /// When the kernel offers no netfilter netlink there.
    pub fn open(ns: &NetNs) -> io::Result<Self> {
        Ok(Self { socket: Socket::open(ns)? })
    }

    /// Applies a batch: all of it or nothing.
    ///
    /// # Errors
    /// With each object the kernel refused.
    pub fn apply(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, subjects) = batch.finish();
        let nacks = self.socket.batch(&bytes)?;
        if nacks.is_empty() {
            return Ok(());
        }
        if nacks.iter().any(|nack| nack.errno == libc::ERESTART) {
            return Err(Error::Outdated);
        }
        Err(Error::Refused(Refusal::resolve(nacks, &subjects)))
    }
}

impl Error {
    /// Whether something the batch named does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(list) if list.iter().any(|refusal| refusal.errno == libc::ENOENT))
    }
}

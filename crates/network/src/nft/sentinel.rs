//! Noticing that somebody removed our tables, as restarting another firewall may do.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::{Nft, Table};
use crate::netns::NetNs;

/// Looks after tables. The kernel would tell of every change, but makes a message of each element of each change for
/// that, 40,000 of them when a large cluster's Services are written: one small question now and then costs far less.
#[derive(Debug)]
pub struct Sentinel {
    nft: Nft,
    tables: [Table; 2],
    generation: Option<u32>,
    /// When to ask next; kept here, so that a wait that is given up and begun again does not start over.
    next: Option<Instant>,
}

impl Sentinel {
    /// How often to ask.
    pub const EVERY: Duration = Duration::from_secs(30);

    /// A sentinel of tables that are there by the time it is first asked.
    ///
    /// # Errors
    /// When the kernel offers no netfilter netlink there.
    pub fn new(ns: &NetNs, tables: [Table; 2]) -> io::Result<Self> {
        Ok(Self { nft: Nft::open(ns)?, tables, generation: None, next: None })
    }

    /// Whether a table is gone. As long as nobody changes any rule this is one question to the kernel.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn disturbed(&mut self) -> io::Result<bool> {
        let generation = self.nft.generation()?;
        if self.generation == Some(generation) {
            return Ok(false);
        }
        for table in self.tables {
            if !self.nft.has_table(table)? {
                return Ok(true);
            }
        }
        self.generation = Some(generation);
        Ok(false)
    }

    /// Waits until a table is gone.
    pub async fn gone(&mut self) {
        loop {
            let next = *self.next.get_or_insert_with(|| Instant::now() + Self::EVERY);
            tokio::time::sleep_until(next).await;
            self.next = None;
            match self.disturbed() {
                Ok(true) => {
                    tracing::warn!(table = self.tables[0].name, "somebody removed our rules; writing them anew");
                    return;
                }
                Ok(false) => {}
                Err(err) => tracing::debug!(%err, "asking for the generation of the rules"),
            }
        }
    }
}

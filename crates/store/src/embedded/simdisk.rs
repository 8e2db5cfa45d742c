//! A disk in memory that can lose power or fill up, for tests.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::conformance::Rng;

const SECTOR: usize = 512;
const BLOCK: u64 = 4096;

/// A disk; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    /// What survives a loss of power for certain.
    durable: Vec<u8>,
    /// What reads see.
    cached: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<Pending>,
    /// The power goes after so many further operations.
    power_for: Option<u64>,
    /// Blocks that have room, once the disk is full: no others can be written.
    full: Option<BTreeSet<u64>>,
    written: BTreeSet<u64>,
    syncs: u64,
    fail_sync: bool,
}

enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

fn write(image: &mut Vec<u8>, at: usize, data: &[u8]) {
    if image.len() < at + data.len() {
        image.resize(at + data.len(), 0);
    }
    image[at..at + data.len()].copy_from_slice(data);
}

impl Disk {
    fn operation(&mut self) -> io::Result<()> {
        match &mut self.power_for {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Write(at, data) => write(&mut self.durable, at, &data),
                Pending::Length(length) => self.durable.resize(length, 0),
            }
        }
    }
}

impl SimDisk {
    /// Lets the power go after so many further operations.
    pub(super) fn power_for(&self, operations: u64) {
        self.0.lock().power_for = Some(operations);
    }

    pub(super) fn has_power(&self) -> bool {
        self.0.lock().power_for != Some(0)
    }

    /// What is on the disk when power returns: everything synced, and of the rest any part, each sector for itself.
    pub(super) fn after_power_loss(&self, rng: &mut Rng) -> Self {
        let mut disk = self.0.lock();
        let pending = std::mem::take(&mut disk.pending);
        let fate = rng.below(4);
        for pending in pending {
            match pending {
                Pending::Length(length) if fate != 0 && rng.one_in(2) => disk.durable.resize(length, 0),
                Pending::Length(_) => {}
                Pending::Write(at, data) => {
                    let lost = match fate {
                        0 => true,
                        1 => rng.one_in(2),
                        2 => rng.one_in(8),
                        _ => false,
                    };
                    let torn = rng.one_in(4);
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        let lost = lost || (torn && rng.one_in(2));
                        if !lost {
                            write(&mut disk.durable, at + i * SECTOR, sector);
                        }
                    }
                }
            }
        }
        let durable = std::mem::take(&mut disk.durable);
        Self(Arc::new(Mutex::new(Disk { cached: durable.clone(), durable, ..Disk::default() })))
    }

    /// From now on only blocks that have been written before can be written.
    pub(super) fn fill_up(&self) {
        let mut disk = self.0.lock();
        disk.full = Some(disk.written.clone());
    }

    pub(super) fn make_room(&self) {
        self.0.lock().full = None;
    }

    pub(super) fn fail_syncs(&self) {
        self.0.lock().fail_sync = true;
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.operation()?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let from = disk.cached.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.operation()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        disk.cached.resize(length, 0);
        disk.pending.push(Pending::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.operation()?;
        if disk.fail_sync {
            return Err(io::Error::other("the disk is broken"));
        }
        disk.syncs += 1;
        disk.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.operation()?;
        let blocks = offset / BLOCK..(offset + data.len() as u64).div_ceil(BLOCK);
        if disk.full.as_ref().is_some_and(|room| blocks.clone().any(|block| !room.contains(&block))) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.written.extend(blocks);
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        write(&mut disk.cached, at, data);
        disk.pending.push(Pending::Write(at, data.to_vec()));
        Ok(())
    }
}

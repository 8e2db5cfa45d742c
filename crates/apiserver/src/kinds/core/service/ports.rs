//! Node ports in use. All servers of one store have them on one record, which is changed by compare and swap.

use std::collections::BTreeSet;

use super::alloc::{AllocError, BoxFuture};
use super::ranges::Range;

/// The first and the last port that may be given out.
pub type Bounds = (u16, u16);

/// What is on record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The range the bits are of, as `first-last`; empty when nothing was ever recorded.
    pub range: String,
    /// One bit a port, those of the lowest ports at the end.
    pub bits: Vec<u8>,
    /// Tells this state from later ones.
    pub mark: u64,
}

/// Keeps the record.
pub trait PortRecord: Send + Sync {
    /// The present state.
    fn read(&self) -> BoxFuture<'_, Result<Recorded, String>>;
    /// Replaces the state that has this mark; false when it is no longer the present one.
    fn write(&self, record: Recorded) -> BoxFuture<'_, Result<bool, String>>;
}

/// The ports of a range and which of them are taken.
#[derive(Debug)]
pub struct Ports {
    bounds: Bounds,
    range: Range,
}

/// Why a port cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortError {
    /// Somebody has it.
    Allocated,
    /// The range does not have it.
    NotInRange(Bounds),
}

impl std::fmt::Display for PortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allocated => f.write_str("provided port is already allocated"),
            Self::NotInRange((low, high)) => {
                write!(f, "provided port is not in the valid range. The range of valid ports is {low}-{high}")
            }
        }
    }
}

/// The range as upstream writes it.
pub fn range_text((low, high): Bounds) -> String {
    format!("{low}-{high}")
}

impl Ports {
    /// All free.
    pub fn new(bounds: Bounds) -> Self {
        let count = u128::from(bounds.1).saturating_sub(bounds.0.into()) + 1;
        Ports { bounds, range: Range::new(bounds.0.into(), count, 32, 16, 128) }
    }

    /// As they are on record.
    ///
    /// # Errors
    /// When the record is of another range.
    pub fn restore(bounds: Bounds, record: &Recorded) -> Result<Self, String> {
        if !record.range.is_empty() && record.range != range_text(bounds) {
            return Err("the provided port range does not match the current port range".to_owned());
        }
        let mut ports = Self::new(bounds);
        for port in recorded_ports(bounds.0, &record.bits) {
            ports.range.take(port.into());
        }
        Ok(ports)
    }

    /// As they go on record.
    pub fn record(&self, mark: u64) -> Recorded {
        let mut bits = Vec::new();
        for port in self.taken() {
            let offset = usize::from(port - self.bounds.0);
            if bits.len() <= offset / 8 {
                bits.resize(offset / 8 + 1, 0);
            }
            bits[offset / 8] |= 1 << (offset % 8);
        }
        bits.reverse();
        Recorded { range: range_text(self.bounds), bits, mark }
    }

    /// Those that are taken, in order.
    pub fn taken(&self) -> impl Iterator<Item = u16> + '_ {
        self.range.taken().filter_map(|p| u16::try_from(p).ok())
    }

    /// Takes a port.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn take(&mut self, port: i64) -> Result<u16, PortError> {
        let wanted = u16::try_from(port).ok().filter(|p| self.range.contains((*p).into()));
        let wanted = wanted.ok_or(PortError::NotInRange(self.bounds))?;
        if self.range.take(wanted.into()) { Ok(wanted) } else { Err(PortError::Allocated) }
    }

    /// Takes any port, from a place that `random` says; `None` when all are taken.
    pub fn take_next(&mut self, random: u64) -> Option<u16> {
        self.range.take_next(random).and_then(|p| u16::try_from(p).ok())
    }

    /// Gives a port back; says whether it was taken.
    pub fn give_back(&mut self, port: u16) -> bool {
        self.range.give_back(port.into())
    }
}

/// The ports of a record's bits.
fn recorded_ports(first: u16, bits: &[u8]) -> BTreeSet<u16> {
    let bits = bits.iter().rev().enumerate();
    bits.flat_map(|(i, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| i * 8 + bit))
        .filter_map(|offset| u16::try_from(offset).ok().and_then(|offset| first.checked_add(offset)))
        .collect()
}

/// The ports on record, to be changed.
pub struct NodePorts {
    bounds: Bounds,
    record: Box<dyn PortRecord>,
    /// Writers of this server go one after the other: only those of other servers can be in their way.
    turn: tokio::sync::Mutex<()>,
}

impl NodePorts {
    /// Those of a range, on this record.
    pub fn new(bounds: Bounds, record: Box<dyn PortRecord>) -> Self {
        NodePorts { bounds, record, turn: tokio::sync::Mutex::new(()) }
    }

    /// The range.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Changes the record: `change` is called with the present state, and again when another server was faster. What a
    /// dry run changes is not recorded.
    ///
    /// # Errors
    /// Those of `change`, and when the record cannot be read or written.
    pub async fn change<T>(
        &self,
        dry_run: bool,
        mut change: impl FnMut(&mut Ports) -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        let _turn = self.turn.lock().await;
        loop {
            let before = self.record.read().await.map_err(AllocError::Internal)?;
            let mut ports = Ports::restore(self.bounds, &before).map_err(AllocError::Internal)?;
            let done = change(&mut ports)?;
            let after = ports.record(before.mark);
            if dry_run || after == before || self.record.write(after).await.map_err(AllocError::Internal)? {
                return Ok(done);
            }
        }
    }

    /// What is on record, of whatever range, to be replaced.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn look(&self) -> Result<Before, String> {
        let record = self.record.read().await?;
        let low = record.range.split_once('-').and_then(|(low, _)| low.parse().ok()).unwrap_or(self.bounds.0);
        Ok(Before { ports: recorded_ports(low, &record.bits), record })
    }

    /// Replaces what was on record; false when it has changed meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn replace(&self, before: &Before, ports: &Ports) -> Result<bool, String> {
        let after = ports.record(before.record.mark);
        Ok(after == before.record || self.record.write(after).await?)
    }
}

/// What was on record.
#[derive(Debug)]
pub struct Before {
    /// The ports taken.
    pub ports: BTreeSet<u16>,
    record: Recorded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let check = |taken: &[i64], bits: &[u8]| {
            let mut ports = Ports::new((30000, 32767));
            for port in taken {
                ports.take(*port).unwrap();
            }
            let record = ports.record(3);
            assert_eq!(record, Recorded { range: "30000-32767".into(), bits: bits.to_vec(), mark: 3 });
            let again = Ports::restore((30000, 32767), &record).unwrap();
            assert_eq!(again.taken().map(i64::from).collect::<Vec<_>>(), taken);
        };
        check(&[], &[]);
        check(&[30000], &[1]);
        check(&[30000, 30001, 30009], &[2, 3]);
        check(&[30016], &[1, 0, 0]);
    }

    #[test]
    fn refuses() {
        let mut ports = Ports::new((30000, 30015));
        assert_eq!(ports.take(30001), Ok(30001));
        assert_eq!(ports.take(30001), Err(PortError::Allocated));
        assert_eq!(ports.take(80), Err(PortError::NotInRange((30000, 30015))));
        assert!(ports.give_back(30001) && !ports.give_back(30001));
        assert!(Ports::restore((30000, 30015), &Recorded { range: "1-2".into(), ..Recorded::default() }).is_err());
    }
}

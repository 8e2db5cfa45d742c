//! A range of numbers given out one by one: addresses and ports.
//!
//! What nobody asks for by number is taken from the upper part of the range, so that the lower part stays free for
//! those who do.

use std::collections::BTreeSet;

/// A range and what of it is taken.
#[derive(Debug)]
pub struct Range {
    first: u128,
    count: u128,
    /// The size of the lower part.
    reserved: u128,
    taken: BTreeSet<u128>,
}

impl Range {
    /// `count` numbers from `first`; the lower part is a `step`th of them, but at least `min` and at most `max`, and
    /// nothing where the range is no bigger than `min`.
    pub fn new(first: u128, count: u128, step: u128, min: u128, max: u128) -> Self {
        let reserved = if count <= min { 0 } else { (count / step).clamp(min, max) };
        Range { first, count, reserved, taken: BTreeSet::new() }
    }

    /// Whether the number is in the range.
    pub fn contains(&self, number: u128) -> bool {
        number >= self.first && number - self.first < self.count
    }

    /// Takes a number; false when it is taken.
    pub fn take(&mut self, number: u128) -> bool {
        self.taken.insert(number)
    }

    /// Gives a number back; says whether it was taken.
    pub fn give_back(&mut self, number: u128) -> bool {
        self.taken.remove(&number)
    }

    /// What is taken, in order.
    pub fn taken(&self) -> impl Iterator<Item = u128> + '_ {
        self.taken.iter().copied()
    }

    /// Takes a free number, the first from a place that `random` says; `None` when the range is full.
    pub fn take_next(&mut self, random: u64) -> Option<u128> {
        let (low, split, high) = (self.first, self.first + self.reserved, self.first + self.count);
        let found = self.free(split, high, random).or_else(|| self.free(low, split, random))?;
        self.taken.insert(found);
        Some(found)
    }

    fn free(&self, from: u128, to: u128, random: u64) -> Option<u128> {
        if from >= to {
            return None;
        }
        let start = from + u128::from(random) % (to - from);
        self.gap(start, to).or_else(|| self.gap(from, start))
    }

    /// The first number of `from..to` that is not taken. Taken numbers are visited in order, so this costs no more than
    /// the run of them that begins at `from`.
    fn gap(&self, from: u128, to: u128) -> Option<u128> {
        let mut candidate = from;
        for taken in self.taken.range(from..to) {
            if *taken != candidate {
                break;
            }
            candidate += 1;
        }
        (candidate < to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_out_the_upper_part_first() {
        let mut range = Range::new(100, 32, 16, 4, 256);
        let mut upper: Vec<u128> = (0..28).map(|i| range.take_next(i * 7919).unwrap()).collect();
        upper.sort_unstable();
        assert_eq!(upper, (104..132).collect::<Vec<_>>());
        assert!((100..104).contains(&range.take_next(5).unwrap()));
        for _ in 0..3 {
            range.take_next(9).unwrap();
        }
        assert_eq!(range.take_next(1), None);
        range.give_back(120);
        assert_eq!(range.take_next(1), Some(120));
        assert!(!range.take(120));
        assert!(!range.contains(99) && range.contains(131) && !range.contains(132));
    }

    #[test]
    fn parts() {
        // Node ports: 86 of 2,768; addresses of a /12: 256; a range of 16 has no lower part.
        assert_eq!(Range::new(30000, 2768, 32, 16, 128).reserved, 86);
        assert_eq!(Range::new(1, (1 << 20) - 2, 16, 16, 256).reserved, 256);
        assert_eq!(Range::new(1, 16, 16, 16, 256).reserved, 0);
        assert_eq!(Range::new(1, 17, 16, 16, 256).reserved, 16);
    }
}

//! What stands in objects again and again. The text of a JSON object says itself where it ends: where one is met that was
//! met before, it need not be read.

/// Texts of one type that were met, and what they were written as.
#[derive(Debug, Default)]
pub(super) struct Seen {
    known: Vec<Known>,
    next: usize,
    /// How many were not known, one after the other.
    vain: u32,
}

/// A text, and what it was written as.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) text: Box<[u8]>,
    pub(super) written: Box<[u8]>,
}

impl Seen {
    /// How many are known at once: an object has a few of one type.
    const MOST: usize = 4;
    /// No longer text is kept, in bytes.
    const LONGEST: usize = 4096;
    /// After so many that were not known it is no longer tried: all are different.
    const VAIN: u32 = 64;

    /// The text with which `rest` begins, if it is known.
    #[inline]
    pub(super) fn find(&mut self, rest: &[u8]) -> Option<&Known> {
        if self.vain >= Self::VAIN {
            return None;
        }
        let found = self.known.iter().find(|known| rest.starts_with(&known.text));
        self.vain = if found.is_some() { 0 } else { self.vain + 1 };
        found
    }

    pub(super) fn remember(&mut self, text: &[u8], written: &[u8]) {
        if self.vain >= Self::VAIN || text.len() > Self::LONGEST {
            return;
        }
        let one = Known { text: text.into(), written: written.into() };
        if self.known.len() < Self::MOST {
            self.known.push(one);
        } else {
            self.known[self.next] = one;
            self.next = (self.next + 1) % Self::MOST;
        }
    }
}

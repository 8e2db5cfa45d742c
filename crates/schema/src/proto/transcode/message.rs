//! The message that is being written.

use super::super::wire::{BYTES, VARINT};
use super::One;

impl One<'_, '_> {
    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    #[inline]
    pub(super) fn tag(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    pub(super) fn varint_field(&mut self, number: u32, value: u64) {
        self.tag(number, VARINT);
        self.varint(value);
    }

    #[inline]
    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, BYTES);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A field that is a message with nothing but a first field of these bytes.
    pub(super) fn message_of(&mut self, number: u32, bytes: &[u8]) {
        let length = match bytes.len() {
            0 => 1,
            len => len.ilog2() as usize / 7 + 1,
        };
        self.tag(number, BYTES);
        self.varint((1 + length + bytes.len()) as u64);
        self.bytes(1, bytes);
    }

    /// Begins a field whose length is not known yet; [`Self::close`] wants what this returns.
    #[inline]
    pub(super) fn open(&mut self, number: u32) -> usize {
        self.tag(number, BYTES);
        self.out.push(0);
        self.out.len()
    }

    pub(super) fn close(&mut self, open: usize) {
        let end = self.out.len();
        let len = end - open;
        if len < 0x80 {
            self.out[open - 1] = len as u8;
            return;
        }
        // The length takes more than the one byte that was left for it.
        self.varint(len as u64);
        let more = self.out.len() - end - 1;
        let mut length = [0; 10];
        length[..=more].copy_from_slice(&self.out[end..]);
        self.out.truncate(end + more);
        self.out.copy_within(open..end, open + more);
        self.out[open - 1..open + more].copy_from_slice(&length[..=more]);
    }
}

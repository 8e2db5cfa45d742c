//! The message that is being written.

use super::super::wire::{BYTES, VARINT, Varint};
use super::One;

impl One<'_, '_> {
    #[inline]
    pub(super) fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.out.push(value as u8);
        } else {
            self.out.extend_from_slice(Varint::new(value).as_ref());
        }
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
        let length = Varint::new(bytes.len() as u64).as_ref().len();
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
        let length = Varint::new(len as u64);
        let length = length.as_ref();
        let more = length.len() - 1;
        self.out.resize(end + more, 0);
        self.out.copy_within(open..end, open + more);
        self.out[open - 1..open + more].copy_from_slice(length);
    }
}

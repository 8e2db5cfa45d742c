//! Writing and reading netlink messages and their type-length-value attributes.

/// Bytes of a netlink message header.
pub const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// Appends messages and attributes to a buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    buf: Vec<u8>,
}

/// Where an open message or nest began; hand it back to close it.
#[derive(Debug)]
#[must_use]
pub struct Mark(usize);

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Bytes written since the message or nest began.
    #[must_use]
    pub fn since(&self, mark: &Mark) -> usize {
        self.buf.len() - mark.0
    }

    /// Opens a message with a netfilter header (`nfgenmsg`) after the netlink one.
    pub fn begin_netfilter(&mut self, kind: u16, flags: u16, seq: u32, family: u8, resource: u16) -> Mark {
        let mark = Mark(self.buf.len());
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&flags.to_ne_bytes());
        self.buf.extend_from_slice(&seq.to_ne_bytes());
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&[family, 0]);
        self.buf.extend_from_slice(&resource.to_be_bytes());
        mark
    }

    /// Closes a message: writes its length.
    pub fn end(&mut self, mark: Mark) {
        let len = u32::try_from(self.buf.len() - mark.0).unwrap_or(u32::MAX);
        self.buf[mark.0..mark.0 + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Opens a nested attribute.
    pub fn begin_nest(&mut self, kind: u16) -> Mark {
        let mark = Mark(self.buf.len());
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        mark
    }

    /// Closes a nested attribute. Its content must stay below 64 KiB; callers that write lists split them.
    pub fn end_nest(&mut self, mark: Mark) {
        let len = self.buf.len() - mark.0;
        debug_assert!(len <= usize::from(u16::MAX), "a netlink attribute holds at most 64 KiB");
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.buf[mark.0..mark.0 + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// A nested attribute whose content `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mark = self.begin_nest(kind);
        fill(self);
        self.end_nest(mark);
    }

    /// An attribute of raw bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(value);
        self.buf.resize(align(self.buf.len()), 0);
    }

    /// A zero-terminated string.
    pub fn str(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// A 32-bit number in network order, as netfilter wants every number.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A 64-bit number in network order.
    pub fn u64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }
}

/// The attributes of a message or nest: an iterator of (type, content). Stops at the first malformed one.
#[derive(Debug, Clone, Copy)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..4)?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attrs<'a> {
    /// The content of the first attribute of a type.
    #[must_use]
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut attrs = self;
        attrs.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes inside a nested one; none when it is absent.
    #[must_use]
    pub fn inside(self, kind: u16) -> Self {
        Attrs(self.get(kind).unwrap_or_default())
    }

    /// A string without its closing zero.
    #[must_use]
    pub fn str(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }

    /// A 32-bit number in network order.
    #[must_use]
    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut w = Writer::new();
        w.str(1, "ab");
        w.nest(2, |w| w.u32(3, 7));
        assert_eq!(w.bytes(), [7, 0, 1, 0, b'a', b'b', 0, 0, 12, 0, 2, 0x80, 8, 0, 3, 0, 0, 0, 0, 7]);
        let attrs = Attrs(w.bytes());
        assert_eq!(attrs.str(1), Some("ab"));
        assert_eq!(attrs.inside(2).u32(3), Some(7));
        assert_eq!(attrs.get(9), None);
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        for bad in [&[][..], &[3][..], &[3, 0, 1, 0][..], &[200, 0, 1, 0, 1][..], &[0, 0, 0, 0][..]] {
            assert_eq!(Attrs(bad).count(), 0, "{bad:?}");
        }
    }
}
